//! One object of a list or a watch, as the agent keeps it. What does not parse is an item as well: it
//! must stop neither the others nor the watch.

use std::{borrow::Cow, fmt, marker::PhantomData};

use k8s_openapi::{
    api::{
        core::v1::{Namespace, Node, Pod, Service},
        discovery::v1::EndpointSlice,
        networking::v1::NetworkPolicy,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::core::DynamicResourceScope;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;
use weir_crd::ClusterNetworkPolicy;

use super::trim;
use crate::state::{Kept, Kind, Object, ObjectKey};

/// A kind of object that is watched.
pub(super) trait Watched:
    Clone + fmt::Debug + DeserializeOwned + Send + Sync + 'static
{
    /// Its kind.
    const KIND: Kind;
    /// Its API group; empty for the core's.
    const GROUP: &'static str;
    /// Its version.
    const VERSION: &'static str;
    /// What collections are called in paths.
    const PLURAL: &'static str;
    /// With what the agent needs only.
    fn trimmed(self) -> Object;
}

macro_rules! watched {
    ($($kind:ident, $group:literal, $version:literal, $plural:literal, $trim:path;)*) => {$(
        impl Watched for $kind {
            const KIND: Kind = Kind::$kind;
            const GROUP: &'static str = $group;
            const VERSION: &'static str = $version;
            const PLURAL: &'static str = $plural;
            fn trimmed(mut self) -> Object {
                trim::metadata(&mut self.metadata);
                $trim(&mut self);
                Object::$kind(Box::new(self))
            }
        }
    )*};
}

watched! {
    Namespace, "", "v1", "namespaces", trim::namespace;
    Node, "", "v1", "nodes", trim::node;
    Pod, "", "v1", "pods", trim::pod;
    Service, "", "v1", "services", trim::service;
    EndpointSlice, "discovery.k8s.io", "v1", "endpointslices", trim::slice;
    NetworkPolicy, "networking.k8s.io", "v1", "networkpolicies", trim::policy;
    ClusterNetworkPolicy, "policy.networking.k8s.io", "v1alpha2", "clusternetworkpolicies", trim::cluster_policy;
}

/// One object.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// Which.
    pub key: ObjectKey,
    /// `metadata.resourceVersion`.
    pub version: Option<String>,
    /// The object, or what is wrong with it and where.
    pub object: Result<Kept, String>,
}

/// An [`Item`] of the kind `K`, for the client, which wants to know it by type.
#[derive(Clone, Debug)]
pub(super) struct Of<K> {
    pub item: Item,
    meta: ObjectMeta,
    of: PhantomData<fn() -> K>,
}

impl<K: Watched> kube::Resource for Of<K> {
    type DynamicType = ();
    type Scope = DynamicResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        K::KIND.as_str().into()
    }

    fn group((): &()) -> Cow<'_, str> {
        K::GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        K::VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::PLURAL.into()
    }

    // The client asks for the metadata of what it sends only, and these are never sent.
    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

impl<'de, K: Watched> Deserialize<'de> for Of<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self {
            item: read::<K>(Value::deserialize(deserializer)?),
            meta: ObjectMeta::default(),
            of: PhantomData,
        })
    }
}

fn read<K: Watched>(mut value: Value) -> Item {
    let text = |field: &str| value["metadata"][field].as_str().map(str::to_owned);
    let namespace = match text("namespace") {
        _ if !K::KIND.is_namespaced() => String::new(),
        Some(namespace) if !namespace.is_empty() => namespace,
        _ => "default".to_owned(),
    };
    let key = ObjectKey {
        kind: K::KIND,
        namespace,
        name: text("name").unwrap_or_default(),
    };
    let version = text("resourceVersion");
    if let Some(Value::Object(meta)) = value.get_mut("metadata") {
        // Longer than the rest, often, and of no use here.
        meta.remove("managedFields");
    }
    let object = serde_path_to_error::deserialize::<_, K>(value)
        .map(|object| Kept::from(object.trimmed()))
        .map_err(|e| format!("{}: {}", e.path(), e.inner()));
    Item {
        key,
        version,
        object,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_that_does_not_parse_is_named_with_the_field() {
        let value = json!({
            "metadata": {"namespace": "shop", "name": "web", "resourceVersion": "7"},
            "spec": {"ports": [{"port": 80}, {"port": "http"}]},
        });
        let item = serde_json::from_value::<Of<Service>>(value).unwrap().item;
        assert_eq!(item.key.to_string(), "Service shop/web");
        assert_eq!(item.version.as_deref(), Some("7"));
        let message = item.object.unwrap_err();
        assert!(message.starts_with("spec.ports[1].port: "), "{message}");
    }

    #[test]
    fn what_is_no_object_at_all_is_an_item_too() {
        for value in [json!(null), json!("text"), json!([1])] {
            let item = serde_json::from_value::<Of<Pod>>(value).unwrap().item;
            assert!(item.object.is_err());
        }
    }

    #[test]
    fn what_the_api_server_notes_for_itself_is_not_kept() {
        let value = json!({"metadata": {
            "name": "a", "resourceVersion": "9", "managedFields": [{"manager": "kubectl"}],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "k": "v"},
        }});
        let item = serde_json::from_value::<Of<Service>>(value).unwrap().item;
        let object = item.object.unwrap().unpack();
        let meta = object.metadata();
        assert_eq!(meta.managed_fields, None);
        assert_eq!(meta.annotations.as_ref().map(|a| a.len()), Some(1));
        assert_eq!(meta.resource_version, None);
    }
}
