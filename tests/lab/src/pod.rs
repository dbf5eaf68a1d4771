//! A pod of the lab: a network namespace with a server in it, wired by the CNI plugin.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Result;
use serde_json::{Value, json};

use crate::Lab;
use crate::control::{Control, RunningExchange};
use crate::lab::running_status;
use crate::spawn::Place;
use crate::wire::{Exchange, Listen, Outcome, Probe, Seen};

/// What a pod is to be.
#[derive(Clone, Debug)]
pub struct PodSpec {
    /// The Pod object, as a user or controller would write it: metadata and spec. The lab adds
    /// UID, `nodeName` and status.
    pub object: Value,
    /// Index of the node it runs on.
    pub node: usize,
    /// Ports its server listens on.
    pub listen: Vec<Listen>,
    /// Whether its processes are in the cgroup that the node's socket hooks cover.
    pub covered: bool,
}

impl PodSpec {
    /// A pod with labels that listens on TCP ports, covered by the socket hooks.
    #[must_use]
    pub fn new(namespace: &str, name: &str, node: usize) -> Self {
        let object = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"namespace": namespace, "name": name, "labels": {}},
            "spec": {"containers": [{"name": "server", "image": "server", "ports": []}]},
        });
        Self {
            object,
            node,
            listen: Vec::new(),
            covered: true,
        }
    }

    /// The same with one more label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.object["metadata"]["labels"][key] = json!(value);
        self
    }

    /// The same with one more port, named where `name` is not empty.
    #[must_use]
    pub fn port(mut self, listen: Listen, name: &str) -> Self {
        let mut port = json!({"containerPort": listen.port, "protocol": listen.proto.name()});
        if !name.is_empty() {
            port["name"] = json!(name);
        }
        if let Some(ports) = self.object["spec"]["containers"][0]["ports"].as_array_mut() {
            ports.push(port);
        }
        self.listen.push(listen);
        self
    }

    /// The same, outside the cgroup that the socket hooks cover: Services must work by the packet
    /// path alone.
    #[must_use]
    pub fn uncovered(mut self) -> Self {
        self.covered = false;
        self
    }
}

/// A pod as the runtime sees it before and after CNI.
#[derive(Debug)]
pub struct Pod {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Index of its node.
    pub node: usize,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// Addresses that ADD gave it.
    pub addresses: Vec<IpAddr>,
    /// The result of ADD.
    pub result: Value,
    /// Ports it listens on whose protocol this kernel lacks.
    pub unsupported: Vec<Listen>,
    /// Its server.
    pub control: Arc<Control>,
}

impl Pod {
    /// `namespace/name`.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Its network namespace, as the runtime passes it to the plugin.
    #[must_use]
    pub fn netns(&self) -> String {
        format!("/proc/{}/ns/net", self.control.pid())
    }

    /// Its namespaces, as a place to run others in.
    ///
    /// # Errors
    /// When its process is gone.
    pub fn place(&self) -> Result<Place> {
        Place::of_process(self.control.pid())
    }

    /// Its IPv4 address.
    ///
    /// # Panics
    /// When ADD gave it none.
    #[must_use]
    pub fn v4(&self) -> IpAddr {
        self.address(true)
    }

    /// Its IPv6 address.
    ///
    /// # Panics
    /// When ADD gave it none.
    #[must_use]
    pub fn v6(&self) -> IpAddr {
        self.address(false)
    }

    fn address(&self, v4: bool) -> IpAddr {
        let found = self
            .addresses
            .iter()
            .find(|address| address.is_ipv4() == v4);
        match found {
            Some(address) => *address,
            None => panic!(
                "{} has no address of that family: {:?}",
                self.key(),
                self.addresses
            ),
        }
    }

    /// Makes one probe from this pod.
    ///
    /// # Errors
    /// When its server is gone.
    pub fn probe(&self, probe: Probe) -> Result<Outcome> {
        self.control.probe(probe)
    }

    /// First packets of flows that arrived in this pod.
    ///
    /// # Errors
    /// When its server is gone.
    pub fn seen(&self) -> Result<Vec<Seen>> {
        self.control.seen()
    }

    /// Begins a steady exchange with an echo server.
    ///
    /// # Errors
    /// When its server is gone.
    pub fn exchange(&self, exchange: Exchange) -> Result<RunningExchange> {
        self.control.exchange(exchange)
    }
}

impl Lab {
    /// Starts a pod in its node's own network: its object and its server, which calls itself
    /// `namespace/name`. CNI has no part in it.
    ///
    /// # Errors
    /// When a port is refused.
    pub fn add_host_pod(&self, spec: &PodSpec) -> Result<Arc<Control>> {
        let node = &self.nodes[spec.node];
        let mut object = spec.object.clone();
        let name = crate::demo::plan::key(&object);
        object["spec"]["hostNetwork"] = json!(true);
        object["spec"]["nodeName"] = json!(node.name);
        object["metadata"]["uid"] = json!(format!("host/{name}"));
        object["status"] = running_status(&node.addresses, node.addresses[0]);
        let place = node.place().in_cgroup(&node.cgroup.join("pods"))?;
        let control = Arc::new(Control::start(&name, place)?);
        control.listen(&spec.listen)?;
        self.cluster.apply(&object)?;
        Ok(control)
    }
}
