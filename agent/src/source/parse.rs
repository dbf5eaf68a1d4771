//! From the bytes of a manifest to objects, by the one loader.

use std::path::Path;

use weir_manifests::{Object as Manifest, parse_each};

use super::merge::Parsed;
use crate::state::{Kept, Object};

/// Parses a file of one or more documents.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Parsed {
    let mut objects = Vec::new();
    let parsed = parse_each(path, bytes, |located| {
        objects.extend(object(located.object).map(Kept::from));
    });
    let text = |notes: &[weir_manifests::Note]| notes.iter().map(ToString::to_string).collect();
    Parsed {
        errors: text(&parsed.errors),
        warnings: text(&parsed.warnings),
        objects,
    }
}

/// `None` for workloads: an agent reads concrete Pods only.
fn object(manifest: Manifest) -> Option<Object> {
    match manifest {
        Manifest::Namespace(o) => Some(Object::Namespace(Box::new(o))),
        Manifest::Node(o) => Some(Object::Node(Box::new(o))),
        Manifest::Pod(o) => Some(Object::Pod(Box::new(o))),
        Manifest::Service(o) => Some(Object::Service(Box::new(o))),
        Manifest::EndpointSlice(o) => Some(Object::EndpointSlice(Box::new(o))),
        Manifest::NetworkPolicy(o) => Some(Object::NetworkPolicy(Box::new(o))),
        Manifest::ClusterNetworkPolicy(o) => Some(Object::ClusterNetworkPolicy(Box::new(o))),
        Manifest::ReplicationController(_)
        | Manifest::Deployment(_)
        | Manifest::StatefulSet(_)
        | Manifest::DaemonSet(_)
        | Manifest::ReplicaSet(_)
        | Manifest::Job(_) => None,
    }
}
