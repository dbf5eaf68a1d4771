//! Two nodes of Weir's, two that only route, and a bridge.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use anyhow::{Result, ensure};
use weir_lab::control::Control;
use weir_lab::node::UPLINK;
use weir_lab::{Lab, Pod, PodSpec};

use super::end::{End, Way};
use super::sys::Sink;
use crate::services::bed::{behind, forward, ip};

/// Which node is which.
const WEIR: [usize; 2] = [0, 1];
const PLAIN: [usize; 2] = [2, 3];

/// On how many nodes the two ends are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Nodes {
    One,
    Two,
}

/// What is between the nodes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Between {
    /// Routes, on both sides.
    Routes,
    /// VXLAN: Weir's, and the kernel's own with routes into it.
    Vxlan,
}

impl Between {
    /// The most that Weir may cost of plain routing over the same.
    fn goal(self, nodes: Nodes) -> f64 {
        match (self, nodes) {
            (_, Nodes::One) => 0.75,
            (Self::Routes, Nodes::Two) => 0.9,
            (Self::Vxlan, Nodes::Two) => 0.8,
        }
    }
}

/// A client, a server on its node, and one on the other node.
struct Ends {
    client: End,
    near: End,
    far: End,
}

/// A way that is compared with plain routing.
pub struct Other<'a> {
    pub name: &'static str,
    pub way: Way<'a>,
    /// The most that it may cost of it.
    pub goal: Option<f64>,
}

/// The lab with all ends.
pub struct Bed {
    between: Between,
    weir: Ends,
    plain: Ends,
    bridge: [End; 2],
    /// Kept so that they live.
    _sinks: Vec<Sink>,
    _pods: Vec<Arc<Pod>>,
    _lab: Lab,
}

impl Bed {
    /// Makes it.
    pub fn new(between: Between) -> Result<Self> {
        let mode = match between {
            Between::Routes => "--mode=native",
            Between::Vxlan => "--mode=vxlan",
        };
        let lab = Lab::builder()
            .nodes(4)
            .without_agents()
            .agent_arg(mode)
            .start()?;
        // Both pairs of nodes by a wire alone: a bridge with all its hooks between them would hide most of what
        // is compared.
        for pair in [WEIR, PLAIN] {
            connect(&lab, pair)?;
        }
        for node in WEIR {
            lab.nodes[node].start_agent()?;
        }
        lab.cluster.apply(&policy())?;
        let pods = [("client", WEIR[0]), ("near", WEIR[0]), ("far", WEIR[1])]
            .map(|(name, node)| lab.add_pod(&PodSpec::new("bench", name, node)));
        let pods = pods.into_iter().collect::<Result<Vec<_>>>()?;
        let of_pod = |pod: &Pod| End::new(lab.nodes[pod.node].place(), &pod.control, pod.v4());
        let weir = Ends {
            client: of_pod(&pods[0])?,
            near: of_pod(&pods[1])?,
            far: of_pod(&pods[2])?,
        };
        let plain = routed(&lab, between)?;
        let bridge = bridged(&lab)?;
        let all = [&weir, &plain]
            .into_iter()
            .flat_map(|ends| [&ends.client, &ends.near, &ends.far])
            .chain(&bridge);
        let sinks = all.map(End::sink).collect::<Result<Vec<_>>>()?;
        Ok(Self {
            between,
            weir,
            plain,
            bridge,
            _sinks: sinks,
            _pods: pods,
            _lab: lab,
        })
    }

    /// The way that the others are compared with.
    pub fn plain(&self, nodes: Nodes) -> Way<'_> {
        routed_way(&self.plain, nodes)
    }

    /// The other ways.
    pub fn others(&self, nodes: Nodes) -> Vec<Other<'_>> {
        let mut others = vec![Other {
            name: "weir",
            way: routed_way(&self.weir, nodes),
            goal: Some(self.between.goal(nodes)),
        }];
        if nodes == Nodes::One {
            let [from, to] = &self.bridge;
            let way = Way {
                from,
                to,
                bridged: true,
            };
            others.push(Other {
                name: "bridge",
                way,
                goal: None,
            });
        }
        others
    }
}

fn routed_way(ends: &Ends, nodes: Nodes) -> Way<'_> {
    Way {
        from: &ends.client,
        to: match nodes {
            Nodes::One => &ends.near,
            Nodes::Two => &ends.far,
        },
        bridged: false,
    }
}

/// All of the pods may reach each other, by a rule.
fn policy() -> serde_json::Value {
    let pods = serde_json::json!([{"podSelector": {}}]);
    serde_json::json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "bench", "name": "among-us"},
        "spec": {
            "podSelector": {}, "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": pods}], "egress": [{"to": pods}],
        },
    })
}

/// Makes one node's end of its wire to the lab's bridge the uplink of the other.
fn connect(lab: &Lab, [one, other]: [usize; 2]) -> Result<()> {
    let (one, other) = (&lab.nodes[one], &lab.nodes[other]);
    ip(&other.place(), &format!("link del {UPLINK}"))?;
    let (name, pid) = (&one.name, other.holder_pid());
    ip(&lab.fabric(), &format!("link set {name} nomaster"))?;
    ip(
        &lab.fabric(),
        &format!("link set {name} netns {pid} name {UPLINK}"),
    )?;
    let [v4, v6] = other.addresses;
    for args in [
        format!("addr add {v4}/24 dev {UPLINK}"),
        format!("addr add {v6}/64 dev {UPLINK} nodad"),
        format!("link set {UPLINK} up"),
    ] {
        ip(&other.place(), &args)?;
    }
    Ok(())
}

/// Namespaces behind nodes that only route.
fn routed(lab: &Lab, between: Between) -> Result<Ends> {
    let places = PLAIN.map(|node| lab.nodes[node].place());
    places.iter().try_for_each(forward)?;
    let end = |node: usize, name: &str, subnet: u8| -> Result<End> {
        let control: Arc<Control> = behind(lab, PLAIN[node], name, subnet)?;
        let address = IpAddr::V4(Ipv4Addr::new(10, 244, subnet, 2));
        let end = End::new(places[node].clone(), &control, address)?;
        end.make_known()?;
        Ok(end)
    };
    let ends = Ends {
        client: end(0, "client", 9)?,
        near: end(0, "near", 8)?,
        far: end(1, "far", 7)?,
    };
    for (node, subnet) in [(0, 7), (1, 9)] {
        let via = match between {
            Between::Routes => lab.nodes[PLAIN[1 - node]].addresses[0].to_string(),
            Between::Vxlan => tunnel(lab, node)?,
        };
        ip(
            &places[node],
            &format!("route add 10.244.{subnet}.0/24 via {via}"),
        )?;
    }
    Ok(ends)
}

/// The kernel's own VXLAN from one of the nodes that only route to the other; the other's address in it.
fn tunnel(lab: &Lab, node: usize) -> Result<String> {
    let place = lab.nodes[PLAIN[node]].place();
    let [local, remote] = [node, 1 - node].map(|n| lab.nodes[PLAIN[n]].addresses[0]);
    // As in Weir's: no learning, no checksum in the outer header.
    let device = format!(
        "link add vxlan0 type vxlan id 7 local {local} remote {remote} dstport 4789 dev {UPLINK} \
         nolearning noudpcsum"
    );
    ip(&place, &device)?;
    ip(
        &place,
        &format!("addr add 10.243.0.{}/24 dev vxlan0", node + 1),
    )?;
    ip(&place, "link set vxlan0 up")?;
    Ok(format!("10.243.0.{}", 2 - node))
}

/// Two namespaces at a bridge, as the reference plugin makes them.
fn bridged(lab: &Lab) -> Result<[End; 2]> {
    let place = lab.nodes[PLAIN[1]].place();
    ip(&place, "link add cni0 type bridge")?;
    ip(&place, "link set cni0 up")?;
    let end = |name: &str, subnet: u8| -> Result<End> {
        let control = behind(lab, PLAIN[1], name, subnet)?;
        ip(&place, &format!("addr flush dev {name}"))?;
        ip(&place, &format!("link set {name} master cni0"))?;
        let address = IpAddr::V4(Ipv4Addr::new(10, 244, subnet, 2));
        End::new(place.clone(), &control, address)
    };
    let ends = [end("left", 11)?, end("right", 12)?];
    ensure!(
        ends.iter().all(|end| end.outside.master.is_some()),
        "the bridge has no ports"
    );
    Ok(ends)
}
