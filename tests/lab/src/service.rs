//! Services and their EndpointSlices, as a person and the endpoint slice controller write them.

use anyhow::Result;
use serde_json::{Value, json};

use crate::wire::Proto;
use crate::{Lab, Pod};

/// A Service in the namespace `default`.
#[derive(Clone, Debug)]
pub struct ServiceSpec {
    /// The object.
    pub object: Value,
    name: String,
    slice_ports: Vec<Value>,
}

/// An endpoint of a Service.
#[derive(Clone, Debug)]
pub struct Backend<'a> {
    /// Which pod.
    pub pod: &'a Pod,
    /// `conditions.ready`.
    pub ready: bool,
    /// `conditions.serving`.
    pub serving: bool,
    /// `conditions.terminating`.
    pub terminating: bool,
    /// `hints.forNodes`.
    pub for_nodes: Vec<String>,
    /// `hints.forZones`.
    pub for_zones: Vec<String>,
}

impl<'a> Backend<'a> {
    /// One that is ready.
    #[must_use]
    pub fn ready(pod: &'a Pod) -> Self {
        Self {
            pod,
            ready: true,
            serving: true,
            terminating: false,
            for_nodes: Vec::new(),
            for_zones: Vec::new(),
        }
    }

    /// One that has been told to end and still serves.
    #[must_use]
    pub fn draining(pod: &'a Pod) -> Self {
        Self {
            ready: false,
            terminating: true,
            ..Self::ready(pod)
        }
    }

    /// One that is there and neither ready nor serving.
    #[must_use]
    pub fn not_ready(pod: &'a Pod) -> Self {
        Self {
            ready: false,
            serving: false,
            ..Self::ready(pod)
        }
    }

    /// The same, with a hint that it is for clients on these nodes.
    #[must_use]
    pub fn for_nodes(mut self, nodes: &[&str]) -> Self {
        self.for_nodes = nodes.iter().map(ToString::to_string).collect();
        self
    }

    /// The same, with a hint that it is for clients in these zones.
    #[must_use]
    pub fn for_zones(mut self, zones: &[&str]) -> Self {
        self.for_zones = zones.iter().map(ToString::to_string).collect();
        self
    }

    fn endpoint(&self, lab: &Lab, v4: bool) -> Value {
        let pod = self.pod;
        let address = if v4 { pod.v4() } else { pod.v6() };
        let mut endpoint = json!({
            "addresses": [address.to_string()],
            "conditions": {
                "ready": self.ready, "serving": self.serving, "terminating": self.terminating,
            },
            "nodeName": lab.nodes[pod.node].name,
            "targetRef": {
                "kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid,
            },
        });
        for (hint, names) in [("forNodes", &self.for_nodes), ("forZones", &self.for_zones)] {
            if !names.is_empty() {
                let names: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
                endpoint["hints"][hint] = json!(names);
            }
        }
        endpoint
    }
}

impl ServiceSpec {
    /// A dual-stack ClusterIP Service without ports.
    #[must_use]
    pub fn new(name: &str, vips: [&str; 2]) -> Self {
        let object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": "default", "name": name},
            "spec": {
                "type": "ClusterIP", "selector": {"app": name},
                "clusterIP": vips[0], "clusterIPs": vips, "ports": [],
                "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack",
            },
        });
        Self {
            object,
            name: name.to_owned(),
            slice_ports: Vec::new(),
        }
    }

    /// The same with one more port: the Service's, the pods', and the node port, 0 for none.
    #[must_use]
    pub fn port(mut self, proto: Proto, port: u16, target: u16, node_port: u16) -> Self {
        let name = format!("{}-{port}", proto.name().to_ascii_lowercase());
        let mut entry = json!({
            "name": name, "protocol": proto.name(), "port": port, "targetPort": target,
        });
        if node_port != 0 {
            self.object["spec"]["type"] = json!("NodePort");
            entry["nodePort"] = json!(node_port);
        }
        if let Some(ports) = self.object["spec"]["ports"].as_array_mut() {
            ports.push(entry);
        }
        self.slice_ports
            .push(json!({"name": name, "protocol": proto.name(), "port": target}));
        self
    }

    /// The same with a field of `spec` set.
    #[must_use]
    pub fn with(mut self, field: &str, value: Value) -> Self {
        self.object["spec"][field] = value;
        self
    }

    /// The same of type LoadBalancer, with these ingress entries in its status.
    #[must_use]
    pub fn load_balancer(mut self, ingress: Value) -> Self {
        self.object["spec"]["type"] = json!("LoadBalancer");
        self.object["status"] = json!({"loadBalancer": {"ingress": ingress}});
        self
    }

    /// Writes the Service.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn apply(&self, lab: &Lab) -> Result<()> {
        lab.cluster.apply(&self.object)
    }

    /// Writes its EndpointSlices, one for each family.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn set_backends(&self, lab: &Lab, backends: &[Backend<'_>]) -> Result<()> {
        for (v4, family) in [(true, "IPv4"), (false, "IPv6")] {
            let endpoints: Vec<Value> = backends.iter().map(|b| b.endpoint(lab, v4)).collect();
            lab.cluster.apply(&json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {
                    "namespace": "default",
                    "name": format!("{}-{}", self.name, family.to_ascii_lowercase()),
                    "labels": {"kubernetes.io/service-name": self.name},
                },
                "addressType": family, "ports": self.slice_ports, "endpoints": endpoints,
            }))?;
        }
        Ok(())
    }
}
