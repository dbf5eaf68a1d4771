//! Services and EndpointSlices of a large cluster, made up in the same way each time.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use weir_agent::state::{Change, Object};

/// How many Services share a namespace.
const NAMESPACES: usize = 100;
/// How many Services one file of the agent's source holds.
const PER_FILE: usize = 250;
/// The port of every Service.
pub const PORT: u16 = 80;
/// The port of every endpoint.
pub const TARGET: u16 = 8080;

/// A cluster's Services.
#[derive(Clone, Debug)]
pub struct World {
    /// How many there are.
    pub services: usize,
    /// How many endpoints each has.
    pub endpoints: usize,
    /// The one endpoint of the Service in the middle, which traffic is sent to.
    pub served: Option<Ipv4Addr>,
}

fn address(base: u32, i: usize) -> Ipv4Addr {
    Ipv4Addr::from(base + u32::try_from(i).unwrap_or(u32::MAX >> 8))
}

impl World {
    /// The number of the Service that traffic is sent to.
    pub fn middle(&self) -> usize {
        self.services / 2
    }

    /// Its ClusterIP.
    pub fn cluster_ip(&self, i: usize) -> Ipv4Addr {
        address(u32::from(Ipv4Addr::new(10, 96, 1, 0)), i)
    }

    /// `namespace/name`.
    pub fn name(&self, i: usize) -> (String, String) {
        (format!("ns-{}", i % NAMESPACES), format!("service-{i}"))
    }

    /// Addresses of its endpoints; `version` gives it another last one.
    pub fn endpoints(&self, i: usize, version: usize) -> Vec<Ipv4Addr> {
        match self.served {
            Some(address) if i == self.middle() => vec![address],
            _ => (0..self.endpoints)
                .map(|e| {
                    let moved = usize::from(e + 1 == self.endpoints) * version;
                    let base = Ipv4Addr::new(10, 128 + u8::try_from(moved % 64).unwrap_or(0), 0, 0);
                    address(u32::from(base), i * self.endpoints + e)
                })
                .collect(),
        }
    }

    /// The Service as the API server would give it.
    fn service(&self, i: usize) -> Value {
        let (namespace, name) = self.name(i);
        let ip = self.cluster_ip(i).to_string();
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "namespace": namespace, "name": name,
                "uid": format!("5e41ce00-0000-4000-8000-{i:012x}"),
                "creationTimestamp": "2026-01-01T00:00:00Z", "resourceVersion": i.to_string(),
                "labels": {"app": name},
            },
            "spec": {
                "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster",
                "sessionAffinity": "None", "selector": {"app": name},
                "ports": [{"name": "http", "port": PORT, "protocol": "TCP", "targetPort": TARGET}],
            },
            "status": {"loadBalancer": {}},
        })
    }

    fn slice(&self, i: usize, version: usize) -> Value {
        let (namespace, name) = self.name(i);
        let endpoints: Vec<Value> = self
            .endpoints(i, version)
            .iter()
            .map(|ip| {
                json!({
                    "addresses": [ip.to_string()],
                    "conditions": {"ready": true, "serving": true, "terminating": false},
                    "nodeName": "node-1", "zone": "zone-a",
                    "targetRef": {
                        "kind": "Pod", "namespace": namespace, "name": format!("{name}-{ip}"),
                        "uid": format!("90d00000-0000-4000-8000-{:012x}", u32::from(*ip)),
                    },
                })
            })
            .collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "namespace": namespace, "name": format!("{name}-x7k2p"),
                "uid": format!("511ce000-0000-4000-8000-{i:012x}"),
                "creationTimestamp": "2026-01-01T00:00:00Z", "resourceVersion": version.to_string(),
                "labels": {
                    "kubernetes.io/service-name": name, "app": name,
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                },
                "ownerReferences": [{
                    "apiVersion": "v1", "kind": "Service", "name": name, "controller": true,
                    "blockOwnerDeletion": true, "uid": format!("5e41ce00-0000-4000-8000-{i:012x}"),
                }],
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": TARGET, "protocol": "TCP"}],
            "endpoints": endpoints,
        })
    }

    /// A Service, new.
    pub fn service_change(&self, i: usize) -> Change {
        let object = serde_json::from_value(self.service(i)).expect("the world's objects decode");
        Change::Apply(Object::Service(Box::new(object)))
    }

    /// Its EndpointSlice, new or as it is after `version` changes.
    pub fn slice_change(&self, i: usize, version: usize) -> Change {
        let object =
            serde_json::from_value(self.slice(i, version)).expect("the world's objects decode");
        Change::Apply(Object::EndpointSlice(Box::new(object)))
    }

    /// All of it, Services first.
    pub fn all(&self) -> impl Iterator<Item = Change> + '_ {
        let services = (0..self.services).map(|i| self.service_change(i));
        services.chain((0..self.services).map(|i| self.slice_change(i, 0)))
    }

    /// Writes all of it below a folder that an agent watches, and takes away what a larger world
    /// has left there.
    pub fn write(&self, dir: &Path) -> Result<()> {
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let number = name
                .strip_prefix("bench-")
                .and_then(|rest| rest.split('.').next());
            if number.is_some_and(|n| {
                n.parse()
                    .is_ok_and(|n: usize| n * PER_FILE >= self.services)
            }) {
                std::fs::remove_file(&path)?;
            }
        }
        for first in (0..self.services).step_by(PER_FILE) {
            let mut text = String::new();
            for i in first..self.services.min(first + PER_FILE) {
                write!(
                    text,
                    "---\n{}\n---\n{}\n",
                    self.service(i),
                    self.slice(i, 0)
                )?;
            }
            let name = format!("bench-{}.yaml", first / PER_FILE);
            let hidden = dir.join(format!(".{name}"));
            std::fs::write(&hidden, text)
                .and_then(|()| std::fs::rename(&hidden, dir.join(&name)))
                .with_context(|| format!("writing {name} into the agent's source"))?;
        }
        Ok(())
    }
}
