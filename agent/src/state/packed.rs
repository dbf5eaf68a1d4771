//! Objects of which a cluster has many, in the form in which they are kept: compact JSON, shared by
//! all who hold it. A decoded EndpointSlice takes five times as much.

use std::marker::PhantomData;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::object::parts_of;
use super::{Kind, Named, Object, ObjectKey, short};

/// What `kubectl apply` notes for itself, as long as the object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An object in compact form.
#[derive(Debug)]
pub struct Packed<T> {
    /// Namespace, line feed, name, line feed, JSON shortened by [`short`].
    bytes: Arc<[u8]>,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for Packed<T> {
    fn clone(&self) -> Self {
        Self {
            bytes: Arc::clone(&self.bytes),
            of: PhantomData,
        }
    }
}

impl<T> PartialEq for Packed<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.bytes, &other.bytes) || self.bytes == other.bytes
    }
}

/// A kind of object that is kept packed.
pub trait Pack: Serialize + DeserializeOwned + Default {
    /// Its kind.
    const KIND: Kind;
    /// Its metadata.
    fn metadata(&mut self) -> &mut ObjectMeta;
}

impl Pack for Service {
    const KIND: Kind = Kind::Service;
    fn metadata(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Pack for Pod {
    const KIND: Kind = Kind::Pod;
    fn metadata(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Pack for EndpointSlice {
    const KIND: Kind = Kind::EndpointSlice;
    fn metadata(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl<T: Pack> Packed<T> {
    /// Packs an object. What the API server and `kubectl` note for themselves is left out.
    pub fn new(mut object: T) -> Self {
        let meta = object.metadata();
        meta.managed_fields = None;
        if let Some(annotations) = &mut meta.annotations {
            annotations.remove(LAST_APPLIED);
        }
        let (_, namespace, name) = parts_of(T::KIND, meta);
        let mut bytes = [namespace, b"\n", name, b"\n"].concat();
        // These types serialise to JSON objects with string keys, which cannot fail.
        let json = serde_json::to_vec(&object).unwrap_or_default();
        short::shorten(&json, &mut bytes);
        Self {
            bytes: bytes.into(),
            of: PhantomData,
        }
    }

    /// Its key.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::of(self)
    }

    /// The object.
    pub fn unpack(&self) -> T {
        let json = self.bytes.splitn(3, |byte| *byte == b'\n').nth(2);
        let json = short::lengthen(json.unwrap_or_default());
        // What was serialised by the same type is read by it.
        serde_json::from_slice(&json).unwrap_or_default()
    }
}

impl<T: Pack> Named for Packed<T> {
    fn parts(&self) -> (Kind, &[u8], &[u8]) {
        let mut parts = self.bytes.splitn(3, |byte| *byte == b'\n');
        let mut part = || parts.next().unwrap_or_default();
        (T::KIND, part(), part())
    }
}

/// An object as it is kept: packed, if there are many of its kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Kept {
    /// v1 Pod.
    Pod(Packed<Pod>),
    /// v1 Service.
    Service(Packed<Service>),
    /// discovery.k8s.io/v1 EndpointSlice.
    EndpointSlice(Packed<EndpointSlice>),
    /// Any other, as it is.
    Plain(Arc<Object>),
}

impl From<Object> for Kept {
    fn from(object: Object) -> Self {
        match object {
            Object::Pod(o) => Self::Pod(Packed::new(*o)),
            Object::Service(o) => Self::Service(Packed::new(*o)),
            Object::EndpointSlice(o) => Self::EndpointSlice(Packed::new(*o)),
            other => Self::Plain(Arc::new(other)),
        }
    }
}

impl Kept {
    /// Its key.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::of(self)
    }

    /// The object.
    pub fn unpack(self) -> Object {
        match self {
            Self::Pod(o) => Object::Pod(Box::new(o.unpack())),
            Self::Service(o) => Object::Service(Box::new(o.unpack())),
            Self::EndpointSlice(o) => Object::EndpointSlice(Box::new(o.unpack())),
            Self::Plain(o) => Arc::unwrap_or_clone(o),
        }
    }

    /// The object, if it is not packed.
    pub fn plain(&self) -> Option<&Object> {
        match self {
            Self::Plain(object) => Some(object),
            Self::Pod(_) | Self::Service(_) | Self::EndpointSlice(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slice() -> Value {
        let endpoint = |n: u8| {
            json!({
                "addresses": [format!("10.0.0.{n}")],
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "nodeName": "node-1", "zone": "a",
                "targetRef": {
                    "kind": "Pod", "namespace": "shop", "name": format!("web-{n}"),
                    "uid": format!("90d00000-0000-4000-8000-{n:012x}"),
                },
            })
        };
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "namespace": "shop", "name": "web-abcde", "uid": "1",
                "labels": {"kubernetes.io/service-name": "web", "odd": "\u{1}\n\"name\":\"ü"},
            },
            "addressType": "IPv4", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
            "endpoints": [endpoint(1), endpoint(2), endpoint(3), endpoint(4)],
        })
    }

    #[test]
    fn what_is_packed_comes_back_with_its_key() {
        let object: EndpointSlice = serde_json::from_value(slice()).unwrap();
        let packed = Packed::new(object.clone());
        assert_eq!(packed.unpack(), object);
        assert_eq!(packed.key().to_string(), "EndpointSlice shop/web-abcde");
    }

    #[test]
    fn a_packed_slice_takes_less_than_a_third_of_its_json() {
        let object: EndpointSlice = serde_json::from_value(slice()).unwrap();
        let json = serde_json::to_vec(&object).unwrap().len();
        let packed = Packed::new(object).bytes.len();
        assert!(packed * 3 < json, "{packed} of {json} bytes");
    }

    #[test]
    fn a_packed_pod_takes_a_tenth_of_a_decoded_one() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {
                "namespace": "shop", "name": "web-6d4cf56db6-x7k2p",
                "uid": "90d00000-0000-4000-8000-0000000000aa",
                "labels": {"app": "web", "pod-template-hash": "6d4cf56db6"},
                "creationTimestamp": "2026-11-01T10:00:00Z",
            },
            "spec": {"nodeName": "node-17", "containers": [{
                "name": "web", "ports": [{"containerPort": 8080, "name": "http", "protocol": "TCP"}],
            }]},
            "status": {"phase": "Running", "podIP": "10.244.17.5", "podIPs": [{"ip": "10.244.17.5"}]},
        }))
        .unwrap();
        // What the decoded one has on the heap comes on top.
        let decoded = size_of::<Pod>() + size_of_val(&*pod.spec.as_ref().unwrap().containers);
        let packed = Packed::new(pod.clone());
        assert_eq!(packed.unpack(), pod);
        let bytes = packed.bytes.len();
        assert!(bytes * 10 < decoded, "{bytes} of {decoded} bytes");
    }

    #[test]
    fn what_the_api_server_notes_for_itself_is_left_out_and_makes_no_difference() {
        let plain: Service = serde_json::from_value(json!({"metadata": {"name": "a"}})).unwrap();
        let noted: Service = serde_json::from_value(json!({"metadata": {
            "name": "a", "managedFields": [{"manager": "kubectl"}],
        }}))
        .unwrap();
        assert_eq!(Packed::new(noted).key().to_string(), "Service default/a");
        let noted: Service = serde_json::from_value(json!({"metadata": {
            "name": "a", "managedFields": [{"manager": "kubectl"}],
        }}))
        .unwrap();
        assert!(Packed::new(noted) == Packed::new(plain));
    }
}
