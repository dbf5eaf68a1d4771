//! Reads manifests for the demo: loads, expands workloads, keeps what a lab can show.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;
use weir_manifests::{Located, Object, WorkloadKind};

/// What the manifests ask for.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// Pods with the `namespace/name` of their workload (of a bare pod its own).
    pub pods: Vec<(Value, String)>,
    /// Namespaces.
    pub namespaces: Vec<Value>,
    /// NetworkPolicies.
    pub policies: Vec<Value>,
    /// ClusterNetworkPolicies.
    pub cluster_policies: Vec<Value>,
    /// Services.
    pub services: Vec<Service>,
    /// EndpointSlices.
    pub slices: Vec<Value>,
    /// Number of workloads by kind, in order of kinds.
    pub kinds: Vec<(String, usize)>,
    /// Warnings of the loader.
    pub warnings: Vec<String>,
}

/// Loads a file or directory for a lab with these nodes.
///
/// # Errors
/// When a document does not parse, naming file and line.
pub fn load(path: &Path, node_names: &[String]) -> Result<Input> {
    let mut manifests = weir_manifests::load(path)?;
    if !manifests.errors.is_empty() {
        let lines: Vec<String> = manifests.errors.iter().map(ToString::to_string).collect();
        bail!("the manifests do not parse:\n  {}", lines.join("\n  "));
    }
    // The lab's own nodes take the place of any that the manifests name.
    manifests
        .objects
        .retain(|_, located| !matches!(located.object, Object::Node(_)));
    for name in node_names {
        let metadata = ObjectMeta {
            name: Some(name.clone()),
            ..ObjectMeta::default()
        };
        let object = Object::Node(Node {
            metadata,
            ..Node::default()
        });
        let located = Located {
            object,
            file: path.to_owned(),
            line: 0,
        };
        manifests.objects.insert(located.object.key(), located);
    }
    let workloads = weir_manifests::expand(&mut manifests);
    let mut owners = HashMap::new();
    let mut kinds: Vec<(WorkloadKind, usize)> = Vec::new();
    for workload in &workloads {
        match kinds.iter_mut().find(|(kind, _)| *kind == workload.kind) {
            Some((_, count)) => *count += 1,
            None => kinds.push((workload.kind, 1)),
        }
        for pod in &workload.pods {
            let key = format!("{}/{pod}", workload.namespace);
            owners.insert(key, format!("{}/{}", workload.namespace, workload.name));
        }
    }
    kinds.sort();
    let mut input = Input {
        kinds: kinds
            .iter()
            .map(|(kind, count)| (kind.to_string(), *count))
            .collect(),
        warnings: manifests.warnings.iter().map(ToString::to_string).collect(),
        ..Input::default()
    };
    for located in manifests.objects.into_values() {
        let json = located.object.to_json()?;
        match located.object {
            Object::Pod(_) => {
                let key = super::plan::key(&json);
                let workload = owners.get(&key).cloned().unwrap_or(key);
                input.pods.push((json, workload));
            }
            Object::Namespace(_) => input.namespaces.push(json),
            Object::NetworkPolicy(_) => input.policies.push(json),
            Object::ClusterNetworkPolicy(_) => input.cluster_policies.push(json),
            Object::EndpointSlice(_) => input.slices.push(json),
            Object::Service(service) => input.services.push(service),
            _ => {}
        }
    }
    Ok(input)
}
