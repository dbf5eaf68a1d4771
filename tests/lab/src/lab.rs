//! The lab: fabric, nodes, pods.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, anyhow};
use ipnetwork::IpNetwork;
use serde_json::{Value, json};

use crate::builder::LabBuilder;
use crate::cgroup::{self, Owner};
use crate::client::OutsideClient;
use crate::cluster::{self, Cluster};
use crate::control::Control;
use crate::fabric::{self, Families, Knows, Wire};
use crate::hold::{ROOT, Role};
use crate::node::{Holder, Node};
use crate::pod::{Pod, PodSpec};
use crate::runtime::{self, Attachment};
use crate::spawn::{Place, run_in};
use crate::{netlink, registry};

/// A running lab. Dropping it takes everything down.
#[derive(Debug)]
pub struct Lab {
    /// The nodes, `n1` first.
    pub nodes: Vec<Node>,
    /// The objects the agents see.
    pub cluster: Cluster,
    pods: Mutex<Vec<Arc<Pod>>>,
    fabric: Holder,
    cgroup: PathBuf,
    next_pod: AtomicU32,
    wire: Wire,
}

impl Lab {
    /// Begins a lab of two nodes.
    #[must_use]
    pub fn builder() -> LabBuilder {
        LabBuilder {
            nodes: 2,
            agents: true,
            agent_args: Vec::new(),
            wire: Wire {
                mtu: 1500,
                narrow: None,
                knows: Knows::NodesAndPods,
                families: Families::Dual,
            },
        }
    }

    pub(crate) fn make(builder: &LabBuilder) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        cgroup::sweep()?;
        let owner = Owner::this()?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}{}-{}-{number}", cgroup::PREFIX, owner.pid, owner.start);
        let cgroup = cgroup::mount_point()?.join(name);
        let guard = Guard(Some(cgroup.clone()));
        registry::add(&cgroup);
        for part in ["holders", "uncovered"] {
            cgroup::create(&cgroup.join(part))?;
        }
        let place = Place::default().in_cgroup(&cgroup.join("holders"))?;
        let fabric = Holder::start(&Role::Fabric, place)?;
        fabric::raise(&fabric, builder.wire)?;
        let cluster = Cluster::new(fabric.path(&format!("{ROOT}/source")));
        let mut nodes = Vec::new();
        for number in 1..=builder.nodes {
            let node = Node::start(number, &fabric, &cgroup)?;
            fabric::wire(&fabric, &node, builder.wire)?;
            let args: Vec<&str> = builder.agent_args.iter().map(String::as_str).collect();
            node.set_agent_args(&args);
            cluster.apply(&object_of(&node, builder.wire.families))?;
            nodes.push(node);
        }
        guard.disarm();
        Ok(Self {
            nodes,
            cluster,
            pods: Mutex::default(),
            fabric,
            cgroup,
            next_pod: AtomicU32::new(1),
            wire: builder.wire,
        })
    }

    /// The object of a node, as it was at first.
    #[must_use]
    pub fn node_object(&self, node: usize) -> Value {
        object_of(&self.nodes[node], self.wire.families)
    }

    /// A node's first address.
    fn host_ip(&self, node: &Node) -> IpAddr {
        node.addresses[usize::from(self.wire.families == Families::V6)]
    }

    /// The cgroup all processes of the lab are in.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// A path inside the lab's private file system, as this process can open it.
    #[must_use]
    pub fn path(&self, inside: &str) -> PathBuf {
        self.fabric.path(inside)
    }

    /// The network between the nodes, as a place to run programs in (a packet capture).
    #[must_use]
    pub fn fabric(&self) -> Place {
        self.fabric.place.clone()
    }

    /// All pods, in the order in which they were added.
    #[must_use]
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        self.pods
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Creates a namespace with labels.
    ///
    /// # Errors
    /// When the object cannot be written.
    pub fn add_namespace(&self, name: &str, labels: &[(&str, &str)]) -> Result<()> {
        self.cluster.apply(&cluster::namespace_object(name, labels))
    }

    /// Makes a pod: writes its object, starts its server, has the plugin wire it, writes its
    /// addresses.
    ///
    /// # Errors
    /// With the plugin's own message; nothing is left of the pod then.
    pub fn add_pod(&self, spec: &PodSpec) -> Result<Arc<Pod>> {
        let node = self
            .nodes
            .get(spec.node)
            .ok_or_else(|| anyhow!("no node {}", spec.node))?;
        let number = self.next_pod.fetch_add(1, Ordering::Relaxed);
        let mut object = spec.object.clone();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let namespace =
            text(&object["metadata"]["namespace"]).unwrap_or_else(|| "default".to_owned());
        let name = text(&object["metadata"]["name"]);
        let name = name.ok_or_else(|| anyhow!("a pod without a name: {object}"))?;
        let uid = format!("{:08x}-0000-4000-8000-{number:012x}", std::process::id());
        object["apiVersion"] = json!("v1");
        object["kind"] = json!("Pod");
        object["metadata"]["namespace"] = json!(namespace);
        object["metadata"]["uid"] = json!(uid);
        object["spec"]["nodeName"] = json!(node.name);
        object["status"] = json!({"phase": "Pending", "hostIP": self.host_ip(node).to_string()});
        self.cluster.apply(&object)?;

        let made = self.wire_pod(spec, node, number, (&namespace, &name, &uid));
        let pod = match made {
            Ok(pod) => pod,
            Err(error) => {
                self.cluster.delete("Pod", Some(&namespace), &name)?;
                return Err(error.context(format!("making the pod {namespace}/{name}")));
            }
        };
        object["status"] = running_status(&pod.addresses, self.host_ip(node));
        self.cluster.apply(&object)?;
        let pod = Arc::new(pod);
        self.pods
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::clone(&pod));
        Ok(pod)
    }

    fn wire_pod(
        &self,
        spec: &PodSpec,
        node: &Node,
        number: u32,
        (namespace, name, uid): (&str, &str, &str),
    ) -> Result<Pod> {
        let cgroup = if spec.covered {
            node.cgroup.join("pods")
        } else {
            self.cgroup.join("uncovered")
        };
        let place = Place {
            net: None,
            ..node.place()
        }
        .with_new_net()
        .in_cgroup(&cgroup)?;
        let control = Control::start(&format!("{namespace}/{name}"), place)?;
        // The server answers only once it is in its namespace.
        let unsupported = control.listen(&spec.listen)?;
        let container_id = format!("{:024x}{number:040x}", std::process::id());
        let attachment = Attachment {
            container_id: container_id.clone(),
            netns: format!("/proc/{}/ns/net", control.pid()),
            pod: Some((namespace.to_owned(), name.to_owned(), uid.to_owned())),
        };
        let result = runtime::add(node, &attachment).context("CNI ADD")?;
        Ok(Pod {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
            node: spec.node,
            container_id,
            addresses: runtime::addresses_in(&result)?,
            result,
            unsupported,
            control: Arc::new(control),
        })
    }

    /// Removes a pod as a runtime does: DEL, then the Pod object, then its processes.
    ///
    /// # Errors
    /// With the plugin's own message.
    pub fn remove_pod(&self, pod: &Arc<Pod>) -> Result<()> {
        let attachment = Attachment {
            container_id: pod.container_id.clone(),
            netns: pod.netns(),
            pod: Some((pod.namespace.clone(), pod.name.clone(), pod.uid.clone())),
        };
        runtime::del(&self.nodes[pod.node], &attachment, &pod.result).context("CNI DEL")?;
        self.cluster
            .delete("Pod", Some(&pod.namespace), &pod.name)?;
        self.pods
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|known| !Arc::ptr_eq(known, pod));
        Ok(())
    }

    /// Starts a server outside the cluster, behind the fabric, with an address of its own.
    ///
    /// # Errors
    /// When the address or a port is refused.
    pub fn add_outside(&self, address: IpAddr, listen: &[crate::Listen]) -> Result<Arc<Control>> {
        run_in(&self.fabric.place.net_only(), || {
            netlink::add_address("lo", IpNetwork::from(address))
        })?;
        let place = self.fabric().in_cgroup(&self.cgroup.join("uncovered"))?;
        let control = Control::start_at(&format!("ip:{address}"), place, Some(address))?;
        control.listen(listen)?;
        Ok(Arc::new(control))
    }

    /// Starts a client outside the cluster: a machine of its own on the fabric, neither node nor pod,
    /// with an address of each family. `number` (0 to 49) tells it from others.
    ///
    /// # Errors
    /// When the namespace or the link is refused.
    pub fn add_client(&self, number: u8) -> Result<OutsideClient> {
        let place = Place {
            net: None,
            ..self.fabric()
        }
        .with_new_net()
        .in_cgroup(&self.cgroup.join("uncovered"))?;
        OutsideClient::start(number, place, &self.fabric, self.wire)
    }

    /// Starts a server among a node's own (host) processes.
    ///
    /// # Errors
    /// When a port is refused.
    pub fn add_host_server(&self, node: usize, listen: &[crate::Listen]) -> Result<Arc<Control>> {
        let node = &self.nodes[node];
        let place = node.place().in_cgroup(&node.cgroup.join("host"))?;
        let control = Arc::new(Control::start(&format!("node/{}", node.name), place)?);
        control.listen(listen)?;
        Ok(control)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = registry::take_down(&self.cgroup) {
            eprintln!("weir-lab: {error:#}");
        }
    }
}

/// Takes down what stands when making a lab fails half way.
struct Guard(Option<PathBuf>);

impl Guard {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(cgroup) = &self.0 {
            let _ = registry::take_down(cgroup);
        }
    }
}

/// A node's object, with what it has of these families.
fn object_of(node: &Node, families: Families) -> Value {
    let cidrs = node.pod_cidrs.iter().filter(|cidr| families.has(cidr.ip()));
    let cidrs: Vec<String> = cidrs.map(ToString::to_string).collect();
    let addresses = node.addresses.iter().filter(|ip| families.has(**ip));
    let addresses: Vec<String> = addresses.map(ToString::to_string).collect();
    cluster::node_object(&node.name, &cidrs, &addresses)
}

/// The status of a pod that runs and is ready.
pub(crate) fn running_status(addresses: &[IpAddr], host: IpAddr) -> Value {
    let ips: Vec<Value> = addresses
        .iter()
        .map(|address| json!({"ip": address.to_string()}))
        .collect();
    json!({
        "phase": "Running",
        "hostIP": host.to_string(),
        "podIP": addresses[0].to_string(),
        "podIPs": ips,
        "conditions": [{"type": "Ready", "status": "True"}],
    })
}
