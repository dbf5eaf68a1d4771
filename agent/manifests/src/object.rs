//! The kinds of objects that Weir reads.

use std::fmt;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ReplicationController, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use weir_crd::ClusterNetworkPolicy;

macro_rules! kinds {
    ($($kind:ident $group:literal $version:literal $namespaced:literal,)*) => {
        /// An object of a kind that Weir reads.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Object {
            $(
                #[doc = concat!("A ", stringify!($kind), ".")]
                $kind($kind),
            )*
        }

        impl Object {
            /// As in the object's `kind` field.
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Self::$kind(_) => stringify!($kind),)*
                }
            }

            /// The object's metadata.
            pub fn metadata(&self) -> &ObjectMeta {
                match self {
                    $(Self::$kind(object) => &object.metadata,)*
                }
            }

            /// The object's metadata, to change it.
            pub fn metadata_mut(&mut self) -> &mut ObjectMeta {
                match self {
                    $(Self::$kind(object) => &mut object.metadata,)*
                }
            }

            /// The object as JSON, with `apiVersion` and `kind`.
            ///
            /// # Errors
            /// Never in practice: all of it came from JSON.
            pub fn to_json(&self) -> Result<serde_json::Value, serde_json::Error> {
                match self {
                    $(Self::$kind(object) => serde_json::to_value(object),)*
                }
            }

            /// Decodes JSON of a kind for which [`kind_info`] has an answer.
            pub(crate) fn decode(
                kind: &str,
                value: serde_json::Value,
            ) -> Result<Self, serde_json::Error> {
                match kind {
                    $(stringify!($kind) => serde_json::from_value(value).map(Self::$kind),)*
                    other => Err(serde::de::Error::custom(format!("kind {other} is not read"))),
                }
            }
        }

        /// What is known of a kind that Weir reads.
        pub(crate) fn kind_info(kind: &str) -> Option<KindInfo> {
            match kind {
                $(stringify!($kind) => Some(KindInfo {
                    group: $group,
                    version: $version,
                    namespaced: $namespaced,
                }),)*
                _ => None,
            }
        }
    };
}

/// Where a kind belongs.
pub(crate) struct KindInfo {
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub namespaced: bool,
}

kinds! {
    Namespace "" "v1" false,
    Node "" "v1" false,
    Pod "" "v1" true,
    Service "" "v1" true,
    ReplicationController "" "v1" true,
    EndpointSlice "discovery.k8s.io" "v1" true,
    NetworkPolicy "networking.k8s.io" "v1" true,
    ClusterNetworkPolicy "policy.networking.k8s.io" "v1alpha2" false,
    Deployment "apps" "v1" true,
    StatefulSet "apps" "v1" true,
    DaemonSet "apps" "v1" true,
    ReplicaSet "apps" "v1" true,
    Job "batch" "v1" true,
}

/// Names an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its kind.
    pub kind: &'static str,
    /// Its namespace; empty for kinds without.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

impl Object {
    /// What names it.
    pub fn key(&self) -> Key {
        let metadata = self.metadata();
        Key {
            kind: self.kind(),
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }
}
