//! Objects of which a cluster has many, in the form in which they are kept: compact JSON, shared by
//! all who hold it. A decoded EndpointSlice takes five times as much.

use std::marker::PhantomData;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::object::key_of;
use super::{Kind, Object, ObjectKey};

/// What `kubectl apply` notes for itself, as long as the object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What these objects are full of, by the byte that stands for it: JSON text has no control characters.
/// Each begins with a quote, and none is the beginning of a later one.
const WORDS: &[(u8, &str)] = &[
    (
        0x01,
        r#""conditions":{"ready":true,"serving":true,"terminating":false},"#,
    ),
    (0x02, r#""conditions":{"ready":true},"#),
    (0x03, r#""conditions":{"#),
    (0x04, r#""targetRef":{"kind":"Pod","name":""#),
    (0x05, r#""addresses":[""#),
    (0x06, r#""nodeName":""#),
    (0x07, r#""namespace":""#),
    (0x08, r#""zone":""#),
    (0x0b, r#""uid":""#),
    (0x0c, r#""resourceVersion":""#),
    (0x0e, r#""creationTimestamp":""#),
    (0x0f, r#""kubernetes.io/service-name":""#),
    (
        0x10,
        r#""endpointslice.kubernetes.io/managed-by":"endpointslice-controller.k8s.io","#,
    ),
    (
        0x11,
        r#""ownerReferences":[{"apiVersion":"v1","blockOwnerDeletion":true,"controller":true,"kind":"Service","name":""#,
    ),
    (
        0x12,
        r#""apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{"#,
    ),
    (0x13, r#""apiVersion":"v1","kind":"Service","metadata":{"#),
    (0x14, r#""addressType":"IPv4","endpoints":[{"#),
    (0x15, r#""addressType":"IPv6","endpoints":[{"#),
    (0x16, r#""protocol":"TCP","#),
    (0x17, r#""protocol":"UDP","#),
    (0x18, r#""targetPort":"#),
    (
        0x19,
        r#""internalTrafficPolicy":"Cluster","ipFamilies":["IPv4"],"ipFamilyPolicy":"SingleStack","ports":[{"#,
    ),
    (
        0x1a,
        r#""sessionAffinity":"None","type":"ClusterIP"},"status":{"loadBalancer":{}}}"#,
    ),
    (0x1b, r#""clusterIP":""#),
    (0x1c, r#""clusterIPs":[""#),
    (0x1d, r#""selector":{"#),
    (0x1e, r#""labels":{"#),
    (0x1f, r#""name":""#),
];

/// An object in compact form.
#[derive(Debug)]
pub struct Packed<T> {
    /// Namespace, line feed, name, line feed, JSON with [`WORDS`] replaced.
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
        let key = key_of(T::KIND, meta);
        // These types serialise to JSON objects with string keys, which cannot fail.
        let json = serde_json::to_vec(&object).unwrap_or_default();
        let mut bytes = format!("{}\n{}\n", key.namespace, key.name).into_bytes();
        shorten(&json, &mut bytes);
        Self {
            bytes: bytes.into(),
            of: PhantomData,
        }
    }

    /// Its key.
    pub fn key(&self) -> ObjectKey {
        let mut parts = self.bytes.splitn(3, |byte| *byte == b'\n');
        let mut text = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
        ObjectKey {
            kind: T::KIND,
            namespace: text(),
            name: text(),
        }
    }

    /// The object.
    pub fn unpack(&self) -> T {
        let json = self.bytes.splitn(3, |byte| *byte == b'\n').nth(2);
        let json = lengthen(json.unwrap_or_default());
        // What was serialised by the same type is read by it.
        serde_json::from_slice(&json).unwrap_or_default()
    }
}

/// An object as it is kept: packed, if there are many of its kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Kept {
    /// v1 Service.
    Service(Packed<Service>),
    /// discovery.k8s.io/v1 EndpointSlice.
    EndpointSlice(Packed<EndpointSlice>),
    /// Any other, as it is.
    Plain(Object),
}

impl From<Object> for Kept {
    fn from(object: Object) -> Self {
        match object {
            Object::Service(o) => Self::Service(Packed::new(*o)),
            Object::EndpointSlice(o) => Self::EndpointSlice(Packed::new(*o)),
            other => Self::Plain(other),
        }
    }
}

impl Kept {
    /// Its key.
    pub fn key(&self) -> ObjectKey {
        match self {
            Self::Service(o) => o.key(),
            Self::EndpointSlice(o) => o.key(),
            Self::Plain(o) => o.key(),
        }
    }

    /// The object.
    pub fn unpack(self) -> Object {
        match self {
            Self::Service(o) => Object::Service(Box::new(o.unpack())),
            Self::EndpointSlice(o) => Object::EndpointSlice(Box::new(o.unpack())),
            Self::Plain(o) => o,
        }
    }

    /// The object, if it is not packed.
    pub fn plain(&self) -> Option<&Object> {
        match self {
            Self::Plain(object) => Some(object),
            Self::Service(_) | Self::EndpointSlice(_) => None,
        }
    }
}

fn shorten(json: &[u8], out: &mut Vec<u8>) {
    let mut rest = json;
    while let Some(first) = rest.first() {
        let word = (*first == b'"')
            .then(|| {
                WORDS
                    .iter()
                    .find(|(_, word)| rest.starts_with(word.as_bytes()))
            })
            .flatten();
        match word {
            Some((code, word)) => {
                out.push(*code);
                rest = &rest[word.len()..];
            }
            None => {
                out.push(*first);
                rest = &rest[1..];
            }
        }
    }
}

fn lengthen(bytes: &[u8]) -> Vec<u8> {
    let mut json = Vec::with_capacity(bytes.len() * 3);
    for byte in bytes {
        match WORDS.iter().find(|(code, _)| *byte < b' ' && code == byte) {
            Some((_, word)) => json.extend_from_slice(word.as_bytes()),
            None => json.push(*byte),
        }
    }
    json
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
    fn a_packed_slice_takes_less_than_half_of_its_json() {
        let object: EndpointSlice = serde_json::from_value(slice()).unwrap();
        let json = serde_json::to_vec(&object).unwrap().len();
        let packed = Packed::new(object).bytes.len();
        assert!(packed * 2 < json, "{packed} of {json} bytes");
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

    #[test]
    fn each_word_has_a_code_of_its_own_that_json_never_holds() {
        for (i, (code, word)) in WORDS.iter().enumerate() {
            assert!(*code < b' ' && *code != b'\n' && word.starts_with('"'));
            for (other, later) in &WORDS[i + 1..] {
                assert_ne!(code, other);
                assert!(!later.starts_with(word), "{word} hides {later}");
            }
        }
    }
}
