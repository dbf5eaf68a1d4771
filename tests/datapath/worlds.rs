//! Flows of random clusters through the loaded programs: what they say at both ends is what the
//! reference evaluator says, verdict and rule.

use std::net::IpAddr;

use weir_abi::endpoint::Endpoint;
use weir_abi::node::NodeAddr;
use weir_abi::policy::{RuleId, RuleVerdict};
use weir_abi::{Addr, Proto, map};
use weir_agent::dataplane::policy::PolicyMaps;
use weir_agent::dataplane::table::Writes;
use weir_oracle::{Evaluator, Reason};
use weir_policy::{Direction, LocalEndpoint, plan, sweep};
use weir_worlds::judge::{Judged, OUTCOMES, Probe};
use weir_worlds::{Coverage, Rng, World};

use crate::dry::Dry;
use crate::packets::*;
use crate::rig::*;

const WORLDS: u64 = 260;
const PROBES: usize = 36;

/// A node that becomes one of each world in turn.
struct Scene<'a> {
    node: &'a mut Node,
    dry: Dry,
    maps: PolicyMaps,
    /// What is in `LOCAL_PODS`.
    local: Vec<Addr>,
}

fn entry(endpoint: &LocalEndpoint, ifindex: u32, node: &Node) -> Endpoint {
    let of = |v4: bool| {
        let found = endpoint.addresses.iter().find(|a| a.is_ipv4() == v4);
        found.map_or(Addr::NONE, |addr| Addr::from(*addr))
    };
    Endpoint {
        addr4: of(true),
        addr6: of(false),
        ifindex,
        slot: endpoint.slot,
        ..node.pod_a()
    }
}

impl Scene<'_> {
    /// The agent's own way into the maps: planned, written one by one, swept.
    fn become_world(&mut self, world: &World, rng: &mut Rng) {
        let mut index = world.index(rng);
        let desired = index.compile();
        let writes = plan(self.maps.actual(), desired).unwrap();
        self.maps.perform(writes.writes()).unwrap();
        self.maps.settle();
        let unused = sweep(self.maps.actual(), desired);
        self.maps.perform(&unused).unwrap();
        self.maps.settle();
        for addr in std::mem::take(&mut self.local) {
            let mut map = self.node.map::<Addr, Endpoint>(map::LOCAL_PODS);
            map.remove(&addr).unwrap();
        }
        for endpoint in world.endpoints.values() {
            let value = entry(endpoint, self.node.if_b, self.node);
            for addr in endpoint.addresses.iter().map(|addr| Addr::from(*addr)) {
                self.node
                    .map(map::LOCAL_PODS)
                    .insert(addr, value, 0)
                    .unwrap();
                self.local.push(addr);
            }
        }
    }

    /// The verdicts at (source, destination).
    fn run(&mut self, world: &World, probe: &Probe) -> [Option<RuleVerdict>; 2] {
        let (src, dst) = match probe.direction {
            Direction::Ingress => (probe.peer, probe.endpoint),
            Direction::Egress => (probe.endpoint, probe.peer),
        };
        let (hook, mac) = match endpoint_of(world, src) {
            Some(source) => {
                self.wire(source, self.node.if_a);
                (Hook::FromA, MAC_HOST_A)
            }
            None if OWN.contains(&src.to_string().as_str()) => {
                if let Some(target) = endpoint_of(world, dst) {
                    self.wire(target, self.node.if_b);
                }
                (Hook::NodeToB, MAC_POD_B)
            }
            None => (Hook::FromUplink, MAC_UPLINK),
        };
        let t = tuple(src.into(), 40_000, dst.into(), probe.port);
        let family = if src.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        };
        let packet = match probe.proto {
            Proto::TCP => Packet::tcp(&t, SYN),
            Proto::UDP => Packet::udp(&t, b"x"),
            Proto::SCTP => Packet::sctp(&t, 1),
            _ => Packet::echo(family, t.src, t.dst, 7, false),
        };
        let ran = self
            .dry
            .run(self.node, hook, &packet.addressed(mac).frame());
        [ran.report.egress(), ran.report.ingress()]
    }

    fn wire(&mut self, endpoint: &LocalEndpoint, ifindex: u32) {
        let value = entry(endpoint, ifindex, self.node);
        self.node
            .map(map::ENDPOINTS)
            .insert(ifindex, value, 0)
            .unwrap();
    }

    /// Compares both ends that are here; the error is in words.
    fn check(
        &mut self,
        world: &World,
        probe: &Probe,
        coverage: &mut Coverage,
    ) -> Result<(), String> {
        let cluster = world.cluster();
        let evaluator = Evaluator::new(&cluster);
        let found = self.run(world, probe);
        let mut ends = vec![*probe];
        if probe.peer != probe.endpoint
            && let Some(other) = endpoint_of(world, probe.peer)
        {
            ends.push(mirrored(probe, other));
        }
        for end in ends {
            let Ok(Some(decision)) = end.decision(&evaluator, world) else {
                continue;
            };
            let verdict = match end.direction {
                Direction::Egress => found[0],
                Direction::Ingress => found[1],
            };
            end.count(&decision, coverage);
            let expected = Judged::of(&decision);
            let agrees = match (&expected, verdict) {
                (Some(expected), Some(verdict)) => {
                    let name = self.maps.actual().rule(verdict.rule());
                    Judged::found(verdict, name, end.direction) == *expected
                }
                // A packet of a pod to itself is judged as such, or is not judged at all.
                (None, Some(verdict)) => {
                    decision.reason == Reason::Itself && verdict == RuleVerdict::allow(RuleId::SELF)
                }
                (None, None) => true,
                (Some(_), None) => false,
            };
            if !agrees {
                let name = verdict.and_then(|v| self.maps.actual().rule(v.rule()));
                return Err(format!(
                    "{end:?}:\nprograms {verdict:?} {name:?}\n  oracle {decision:?}"
                ));
            }
        }
        Ok(())
    }
}

/// Addresses of this node.
const OWN: [&str; 2] = ["172.18.0.1", "fd12::1"];

fn endpoint_of(world: &World, addr: IpAddr) -> Option<&LocalEndpoint> {
    let mut endpoints = world.endpoints.values();
    endpoints.find(|endpoint| endpoint.addresses.contains(&addr))
}

/// The same flow, seen from its other end.
fn mirrored(probe: &Probe, other: &LocalEndpoint) -> Probe {
    Probe {
        slot: other.slot,
        direction: match probe.direction {
            Direction::Ingress => Direction::Egress,
            Direction::Egress => Direction::Ingress,
        },
        endpoint: probe.peer,
        peer: probe.endpoint,
        ..*probe
    }
}

#[test]
fn the_programs_say_what_the_oracle_says_of_thousands_of_flows_of_random_clusters() {
    on_node(|node| {
        for addr in OWN.map(|a| Addr::from(a.parse::<IpAddr>().unwrap())) {
            node.map(map::NODE_ADDRS)
                .insert(addr, NodeAddr::default(), 0)
                .unwrap();
        }
        let dry = node.dry();
        let maps = PolicyMaps::open(&dry.pins(), &Writes::default()).unwrap();
        let mut scene = Scene {
            node,
            dry,
            maps,
            local: [
                Family::V4.a(),
                Family::V4.b(),
                Family::V6.a(),
                Family::V6.b(),
            ]
            .to_vec(),
        };
        let mut coverage = Coverage::default();
        for seed in 0..WORLDS {
            let mut rng = Rng::new(seed ^ 0xda7a_0000);
            let world = World::random(&mut rng, &mut Coverage::default());
            scene.become_world(&world, &mut rng);
            let addresses = world.addresses();
            for _ in 0..PROBES {
                let probe = Probe::random(&mut rng, &world, &addresses);
                if let Err(difference) = scene.check(&world, &probe, &mut coverage) {
                    let manifest = serde_json::to_string_pretty(&world.manifest()).unwrap();
                    panic!("seed {seed}: {difference}\n{manifest}");
                }
            }
        }
        let flows = coverage.count("probes");
        assert!(flows >= 5000, "{flows} flows");
        // A dozen of each.
        coverage.check(OUTCOMES, flows / 6);
    });
}
