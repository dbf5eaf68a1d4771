//! What the tests of Services share: nodes with a backend each, clients of every kind, and waiting
//! until a change is in force everywhere.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use weir_api::service::ServiceInfo;
use weir_lab::control::Control;
use weir_lab::{
    Backend, Lab, Listen, Outcome, OutsideClient, Pod, PodSpec, Probe, Proto, ServiceSpec,
};

pub const VIPS: [&str; 2] = ["10.96.7.20", "fd00:10:96::720"];
pub const PORT: u16 = 80;
pub const TARGET: u16 = 8080;
pub const NODE_PORT: u16 = 30080;
pub const PROTOS: [Proto; 2] = [Proto::Tcp, Proto::Udp];
/// Both families, IPv4 first: as the addresses of nodes and clients stand.
pub const FAMILIES: [bool; 2] = [true, false];
/// How long a change may take until it is in force on all nodes.
const LIMIT: Duration = Duration::from_secs(20);

/// A lab with the Service `web`, and pods behind it.
pub struct World {
    pub lab: Lab,
    /// One on each node, in order.
    pub backends: Vec<Arc<Pod>>,
    /// Outside the cluster.
    pub outside: OutsideClient,
    pub spec: ServiceSpec,
}

/// `web` with a ClusterIP, TCP and UDP.
pub fn cluster_ip() -> ServiceSpec {
    ServiceSpec::new("web", VIPS)
        .port(Proto::Tcp, PORT, TARGET, 0)
        .port(Proto::Udp, PORT, TARGET, 0)
}

/// The same with node ports.
pub fn node_port() -> ServiceSpec {
    ServiceSpec::new("web", VIPS)
        .port(Proto::Tcp, PORT, TARGET, NODE_PORT)
        .port(Proto::Udp, PORT, TARGET, NODE_PORT)
}

/// A pod that serves as a backend.
pub fn server(lab: &Lab, name: &str, node: usize) -> Arc<Pod> {
    server_of(lab, name, node, "web")
}

/// A pod that serves, with a label `app` of its own.
pub fn server_of(lab: &Lab, name: &str, node: usize, app: &str) -> Arc<Pod> {
    let spec = PROTOS.iter().fold(
        PodSpec::new("default", name, node).label("app", app),
        |spec, &proto| {
            spec.port(
                Listen {
                    proto,
                    port: TARGET,
                },
                "",
            )
        },
    );
    lab.add_pod(&spec).unwrap()
}

/// A pod that is a client only.
pub fn client(lab: &Lab, name: &str, node: usize, covered: bool) -> Arc<Pod> {
    let mut spec = PodSpec::new("default", name, node).label("app", "client");
    spec.covered = covered;
    lab.add_pod(&spec).unwrap()
}

impl World {
    /// `nodes` nodes with a backend on each, and `spec` served by those with the numbers in `serving`.
    pub fn new(nodes: u8, spec: ServiceSpec, serving: &[usize]) -> Self {
        Self::with_args(&[], nodes, spec, serving)
    }

    /// The same with arguments for the agents.
    pub fn with_args(args: &[&str], nodes: u8, spec: ServiceSpec, serving: &[usize]) -> Self {
        let builder = Lab::builder().nodes(nodes);
        let builder = args
            .iter()
            .fold(builder, |builder, arg| builder.agent_arg(arg));
        let lab = builder.start().unwrap();
        let backends: Vec<Arc<Pod>> = (0..usize::from(nodes))
            .map(|node| server(&lab, &format!("b{}", node + 1), node))
            .collect();
        let outside = lab.add_client(0).unwrap();
        let world = Self {
            lab,
            backends,
            outside,
            spec,
        };
        world.spec.apply(&world.lab).unwrap();
        world.serve(serving);
        world
    }

    /// Has these backends serve, ready, and waits until that is in force.
    pub fn serve(&self, serving: &[usize]) {
        let pods: Vec<&Pod> = serving.iter().map(|&i| &*self.backends[i]).collect();
        self.serve_by(&pods);
    }

    /// Has these pods serve, ready, and waits until that is in force.
    pub fn serve_by(&self, pods: &[&Pod]) {
        let backends: Vec<Backend<'_>> = pods.iter().map(|pod| Backend::ready(pod)).collect();
        self.spec.set_backends(&self.lab, &backends).unwrap();
        self.await_active(pods);
    }

    /// Waits until the ClusterIPs lead to exactly these pods on each node, and all frontends are
    /// programmed.
    pub fn await_active(&self, pods: &[&Pod]) {
        for node in &self.lab.nodes {
            eventually(|| {
                let services: Vec<ServiceInfo> = node
                    .client()
                    .get("/v1/services")
                    .map_err(|e| e.to_string())?;
                let web = services.iter().find(|s| s.name == "web");
                let web = web.ok_or("no Service web")?;
                for (vip, v4) in VIPS.iter().zip(FAMILIES) {
                    let wanted: BTreeSet<String> = pods
                        .iter()
                        .map(|pod| if v4 { pod.v4() } else { pod.v6() }.to_string())
                        .collect();
                    let mut frontends = web
                        .frontends
                        .iter()
                        .filter(|f| f.address == *vip)
                        .peekable();
                    frontends.peek().ok_or("no frontend of its ClusterIP")?;
                    for frontend in frontends {
                        let active = frontend.backends.iter().filter(|b| b.state == "active");
                        let active: BTreeSet<String> = active.map(|b| b.address.clone()).collect();
                        if active != wanted {
                            return Err(format!("{}: {frontend:?}", node.name));
                        }
                    }
                }
                match web.frontends.iter().find(|f| !f.programmed) {
                    Some(late) => Err(format!("{}: {late:?}", node.name)),
                    None => Ok(()),
                }
            });
        }
    }

    /// An address of a node.
    pub fn node(&self, node: usize, v4: bool) -> IpAddr {
        self.lab.nodes[node].addresses[usize::from(!v4)]
    }

    /// A host process of a node, as a client.
    pub fn on_node(&self, node: usize) -> Arc<Control> {
        self.lab.add_host_server(node, &[]).unwrap()
    }

    /// A second client outside.
    pub fn another_outside(&self) -> OutsideClient {
        self.lab.add_client(1).unwrap()
    }

    /// Applies an object.
    pub fn apply(&self, object: &Value) {
        self.lab.cluster.apply(object).unwrap();
    }
}

/// A probe that waits long enough for a loaded machine.
pub fn ask(address: IpAddr, port: u16, proto: Proto) -> Probe {
    Probe::new(address, port, proto).timeout_ms(4000)
}

/// One whose timeout is what is expected.
pub fn ask_in_vain(address: IpAddr, port: u16, proto: Proto) -> Probe {
    Probe::new(address, port, proto).timeout_ms(700)
}

/// A ClusterIP of `web`.
pub fn vip(v4: bool) -> IpAddr {
    VIPS[usize::from(!v4)].parse().unwrap()
}

/// Who answered; panics with `what` if nobody did, or if the answer came from another address than
/// was asked.
#[track_caller]
pub fn answer(outcome: &Outcome, asked: IpAddr, what: &str) -> String {
    match outcome {
        Outcome::Answer { from, peer, .. } => {
            assert_eq!(peer.ip(), asked, "{what}: the answer's address");
            from.clone()
        }
        other => panic!("{what}: {other:?}"),
    }
}

/// Repeats a check until it holds.
#[track_caller]
pub fn eventually(mut check: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + LIMIT;
    while let Err(last) = check() {
        assert!(Instant::now() < deadline, "{last}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
