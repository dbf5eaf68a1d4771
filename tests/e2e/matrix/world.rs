//! The lab of the matrix: who asks and who is asked, the Services, and the policies.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use weir_api::service::ServiceInfo;
use weir_lab::control::Control;
use weir_lab::{Backend, FarMachine, Lab, Listen, Pod, PodSpec, Proto, ServiceSpec};

use super::table::{At, Mode, Policy, Who, Whom};
use crate::services_world::{FAMILIES, PROTOS, eventually};

/// Ports of pods and of the server outside, of nodes' processes, of pods in the nodes' network.
pub const POD: u16 = 8080;
const PROCESS: u16 = 9001;
const HOST_POD: u16 = 9002;
/// What Services and HostPorts are dialled at.
const SERVICE: u16 = 80;
const HOST_PORT: u16 = 18080;
const NODE_PORTS: [u16; 2] = [30081, 30082];
const VIPS: [[&str; 2]; 2] = [
    ["10.96.7.21", "fd00:10:96::721"],
    ["10.96.7.22", "fd00:10:96::722"],
];
/// All machines outside.
const OUTSIDE: [&str; 2] = ["203.0.113.0/24", "2001:db8:fa::/48"];
/// The MTU of the link before each machine outside.
const NARROW: u32 = 1280;

/// Both nodes of the cluster, and those outside.
pub struct World {
    pub lab: Lab,
    pub mode: Mode,
    /// The server pods, one on each node.
    pub servers: [Arc<Pod>; 2],
    processes: [Arc<Control>; 2],
    host_pods: [Arc<Control>; 2],
    client: Arc<Pod>,
    stranger: Arc<Pod>,
}

/// A client and a server outside that nobody has spoken with: what is known of the path's MTU is forgotten.
pub struct Outside {
    client: FarMachine,
    server: FarMachine,
}

fn both(port: u16) -> [Listen; 2] {
    PROTOS.map(|proto| Listen { proto, port })
}

fn server(lab: &Lab, node: usize) -> Arc<Pod> {
    let name = ["near", "far"][node];
    let mut spec = PodSpec::new("default", name, node).label("role", "server");
    spec.listen = both(POD).into();
    spec.object["spec"]["containers"][0]["ports"] = PROTOS
        .iter()
        .map(|proto| json!({"containerPort": POD, "hostPort": HOST_PORT, "protocol": proto.name()}))
        .collect();
    lab.add_pod(&spec).unwrap()
}

impl World {
    pub fn new(mode: Mode) -> Self {
        let arg = match mode {
            Mode::Vxlan => "--mode=vxlan",
            Mode::Native => "--mode=native",
        };
        let builder = Lab::builder().nodes(2).unrouted();
        let lab = builder.agent_arg(arg).start().unwrap();
        let servers = [0, 1].map(|node| server(&lab, node));
        let client = |role: &str| {
            let spec = PodSpec::new("default", role, 0).label("role", role);
            lab.add_pod(&spec).unwrap()
        };
        let host_pod = |node: usize| {
            let mut spec = PodSpec::new("default", ["host1", "host2"][node], node);
            spec.listen = both(HOST_POD).into();
            lab.add_host_pod(&spec).unwrap()
        };
        let world = Self {
            mode,
            client: client("client"),
            stranger: client("stranger"),
            processes: [0, 1].map(|node| lab.add_host_server(node, &both(PROCESS)).unwrap()),
            host_pods: [0, 1].map(host_pod),
            servers,
            lab,
        };
        world.serve();
        world
    }

    /// A Service for each server, in force everywhere.
    fn serve(&self) {
        for (node, server) in self.servers.iter().enumerate() {
            let spec = PROTOS.iter().fold(
                ServiceSpec::new(&format!("svc-{}", server.name), VIPS[node]),
                |spec, &proto| spec.port(proto, SERVICE, POD, NODE_PORTS[node]),
            );
            spec.apply(&self.lab).unwrap();
            spec.set_backends(&self.lab, &[Backend::ready(server)])
                .unwrap();
        }
        for node in &self.lab.nodes {
            eventually(|| {
                let services: Vec<ServiceInfo> = node
                    .client()
                    .get("/v1/services")
                    .map_err(|e| e.to_string())?;
                let frontends: Vec<_> = services.iter().flat_map(|s| &s.frontends).collect();
                let led = |f: &weir_api::service::FrontendInfo| {
                    f.programmed && f.backends.iter().filter(|b| b.state == "active").count() == 1
                };
                // Of each Service a ClusterIP and a NodePort, and a HostPort; each for both protocols and families.
                if frontends.len() == 20 && frontends.iter().all(|f| led(f)) {
                    return Ok(());
                }
                Err(format!("{}: {frontends:?}", node.name))
            });
        }
    }

    /// Machines outside of these numbers (see [`Lab::add_far`]).
    pub fn outside(&self, number: u8) -> Outside {
        let far = |number| self.lab.add_far(number, NARROW).unwrap();
        let (client, server) = (far(number), far(number + 1));
        server.control.listen(&both(POD)).unwrap();
        Outside { client, server }
    }

    /// The client that asks.
    pub fn client<'a>(&'a self, who: Who, outside: &'a Outside) -> &'a Control {
        match who {
            Who::Pod => &self.client.control,
            Who::Stranger => &self.stranger.control,
            Who::HostPod => &self.host_pods[0],
            Who::Process => &self.processes[0],
            Who::Outside => &outside.client.control,
        }
    }

    /// A client's address of one family.
    pub fn source(&self, who: Who, outside: &Outside, v4: bool) -> IpAddr {
        match who {
            Who::Pod => of(&self.client, v4),
            Who::Stranger => of(&self.stranger, v4),
            Who::HostPod | Who::Process => self.node(At::Own, v4),
            Who::Outside => outside.client.address(v4),
        }
    }

    fn node(&self, at: At, v4: bool) -> IpAddr {
        self.lab.nodes[at.node()].addresses[usize::from(!v4)]
    }

    /// The address and port to ask, and the name of who must answer.
    pub fn target(&self, whom: Whom, outside: &Outside, v4: bool) -> (IpAddr, u16, String) {
        let family = usize::from(!v4);
        let pod = |at: At| self.servers[at.node()].key();
        match whom {
            Whom::Pod(at) => (of(&self.servers[at.node()], v4), POD, pod(at)),
            Whom::Node(at) => {
                let name = format!("node/{}", self.lab.nodes[at.node()].name);
                (self.node(at, v4), PROCESS, name)
            }
            Whom::HostPod(at) => {
                let name = format!("default/host{}", at.node() + 1);
                (self.node(at, v4), HOST_POD, name)
            }
            Whom::ClusterIp(at) => {
                let vip = VIPS[at.node()][family].parse().unwrap();
                (vip, SERVICE, pod(at))
            }
            Whom::NodePort { through, backend } => {
                let port = NODE_PORTS[backend.node()];
                (self.node(through, v4), port, pod(backend))
            }
            Whom::HostPort(at) => (self.node(at, v4), HOST_PORT, pod(at)),
            Whom::World => {
                let server = &outside.server;
                let name = server.control.name().to_owned();
                (server.address(v4), POD, name)
            }
        }
    }

    /// Writes the policies, and waits until every node's kernel has them.
    pub fn judge_by(&self, policy: Policy) {
        let policies = match policy {
            Policy::Off => Vec::new(),
            Policy::On => self.allowing(),
            Policy::Deny => vec![
                isolating("servers", "server"),
                isolating("client", "client"),
            ],
        };
        for policy in &policies {
            self.lab.cluster.apply(policy).unwrap();
        }
        for (index, node) in self.lab.nodes.iter().enumerate() {
            let mut isolated = vec![self.servers[index].key()];
            if index == 0 {
                isolated.push(self.client.key());
            }
            isolated.sort();
            eventually(|| {
                let listed: Vec<Value> = node
                    .client()
                    .get("/v1/policies")
                    .map_err(|e| e.to_string())?;
                let names = listed.iter().flat_map(|p| p["ingress"].as_array().unwrap());
                let mut names: Vec<&str> = names.filter_map(Value::as_str).collect();
                names.sort_unstable();
                if !policies.is_empty() && names != isolated {
                    return Err(format!("{} isolates {names:?}", node.name));
                }
                let objects: Value = node
                    .client()
                    .get("/v1/objects")
                    .map_err(|e| e.to_string())?;
                let known = objects["items"].as_array().unwrap();
                let held = |policy: &&Value| known.iter().any(|o| o["spec"] == policy["spec"]);
                if let Some(late) = policies.iter().find(|policy| !held(policy)) {
                    return Err(format!("{} has not {late}", node.name));
                }
                let verified = node.weir(&["policy", "verify"]).unwrap();
                match verified.status.success() {
                    true => Ok(()),
                    false => Err(String::from_utf8_lossy(&verified.stdout).into_owned()),
                }
            });
        }
    }

    /// Policies that let the matrix's clients through to the matrix's servers, and no others.
    fn allowing(&self) -> Vec<Value> {
        let block = |cidr: String| json!({"ipBlock": {"cidr": cidr}});
        let host = |ip: IpAddr| block(format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 }));
        let nodes = |nodes: &[At]| -> Vec<Value> {
            let all = nodes
                .iter()
                .flat_map(|&at| FAMILIES.map(|v4| self.node(at, v4)));
            all.map(host).collect()
        };
        let outside = OUTSIDE.map(|cidr| block(cidr.to_owned()));
        let role = |role: &str| json!({"podSelector": {"matchLabels": {"role": role}}});
        let with = |first: &str| {
            let mut peers = nodes(&At::ALL);
            peers.push(role(first));
            peers.extend(outside.clone());
            peers
        };
        let mut servers = isolating("servers", "server");
        servers["spec"]["ingress"] = json!([{"from": with("client")}]);
        let mut client = isolating("client", "client");
        client["spec"]["egress"] = json!([{"to": with("server")}]);
        vec![servers, client]
    }
}

/// A policy that isolates the pods of a role both ways.
fn isolating(name: &str, role: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "default", "name": name},
        "spec": {
            "podSelector": {"matchLabels": {"role": role}},
            "policyTypes": ["Ingress", "Egress"],
        },
    })
}

/// A pod's address of one family.
fn of(pod: &Pod, v4: bool) -> IpAddr {
    if v4 { pod.v4() } else { pod.v6() }
}

/// Proto of what is asked by UDP or TCP.
pub const fn udp_or_tcp(udp: bool) -> Proto {
    if udp { Proto::Udp } else { Proto::Tcp }
}
