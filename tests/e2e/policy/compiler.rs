//! Asks the compiler's tables (not the kernel) about every cell.

use weir_abi::{Addr, Proto as AbiProto};
use weir_lab::Proto;
use weir_lab::demo::cells::{Cell, Party};
use weir_lab::demo::matrix;
use weir_lab::demo::plan::Plan;
use weir_lab::demo::probing::Fleet;
use weir_oracle::Cluster;
use weir_policy::{Actual, Direction, Event, Index, LocalEndpoint, ObjectName, PodRef, plan};

use super::of_family;

/// Cells on which the compiled tables and the oracle disagree. All pods are endpoints of one
/// imagined node.
pub fn disagreements(cluster: &Cluster, demo: &Plan, fleet: &Fleet, cells: &[Cell]) -> Vec<String> {
    let tables = compile(cluster, fleet);
    let passes = |cell: &Cell| {
        let side = |local: Party, peer: Party, direction: Direction| {
            let Party::Pod(slot) = local else { return true };
            let Some(peer) = of_family(&addresses(demo, fleet, peer), cell.address) else {
                return false;
            };
            let slot = u32::try_from(slot).unwrap();
            let proto = match cell.listen.proto {
                Proto::Tcp => AbiProto::TCP,
                Proto::Udp => AbiProto::UDP,
                Proto::Sctp => AbiProto::SCTP,
            };
            let verdict =
                tables.verdict(slot, direction, Addr::from(peer), proto, cell.listen.port);
            verdict.verdict.allowed()
        };
        side(cell.from, cell.to, Direction::Egress) && side(cell.to, cell.from, Direction::Ingress)
    };
    cells
        .iter()
        .filter(|cell| passes(cell) != cell.some_allowed())
        .map(|cell| format!("compiler and oracle: {}", matrix::describe(demo, cell)))
        .collect()
}

fn addresses(demo: &Plan, fleet: &Fleet, party: Party) -> Vec<std::net::IpAddr> {
    match party {
        Party::Pod(index) => fleet.pods[index].addresses.clone(),
        Party::Outside(index) => vec![demo.outside[index].address],
        Party::Service(_) => Vec::new(),
    }
}

fn compile(cluster: &Cluster, fleet: &Fleet) -> Actual {
    let mut index = Index::new("n1");
    let objects = (cluster.namespaces.iter().cloned())
        .map(|object| Event::ApplyNamespace(Box::new(object)))
        .chain(
            cluster
                .nodes
                .iter()
                .cloned()
                .map(|object| Event::ApplyNode(Box::new(object))),
        )
        .chain(
            cluster
                .pods
                .iter()
                .cloned()
                .map(|object| Event::ApplyPod(Box::new(object))),
        )
        .chain(
            cluster
                .policies
                .iter()
                .cloned()
                .map(|o| Event::ApplyPolicy(Box::new(o))),
        );
    for event in objects {
        let _ = index.apply(event);
    }
    for (slot, pod) in fleet.pods.iter().enumerate() {
        let _ = index.apply(Event::ApplyEndpoint(LocalEndpoint {
            slot: u32::try_from(slot).unwrap(),
            pod: Some(PodRef {
                name: ObjectName::new(&pod.namespace, &pod.name),
                uid: Some(pod.uid.clone()),
            }),
            addresses: pod.addresses.clone(),
        }));
    }
    let mut tables = Actual::default();
    let writes = plan(&tables, index.compile()).expect("the tables have room");
    for write in writes.writes() {
        tables.apply(write);
    }
    tables
}
