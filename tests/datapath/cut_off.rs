//! An agent that dies after any single write leaves old-or-new verdicts in the real, pinned maps,
//! and the next one completes the change. (The policy crate's `prefixes` does the same without a
//! kernel, of random changes.)

mod shop;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::thread;

use aya::EbpfLoader;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use weir_abi::endpoint::Endpoint;
use weir_abi::{Addr, map};
use weir_agent::dataplane::PinnedView;
use weir_agent::dataplane::pins::Pins;
use weir_agent::dataplane::policy::PolicyMaps;
use weir_agent::dataplane::table::{Table, Writes};
use weir_api::verdict::{FlowDirection, VerdictRequest};
use weir_policy::{plan, sweep};
use weir_worlds::{Rng, World};

use crate::rig::object;

pub const BPFFS: &str = "/tmp/weir-pins";
/// The maps that policy lives in, small.
const MAPS: &[(&str, u32)] = &[
    (map::IDS, 4096),
    (map::RULES, 4096),
    (map::INTERVALS, 4096),
    (map::DECISIONS, 4096),
    (map::PEERS, 1024),
    (map::CIDRS, 1024),
    (map::POLICY_SLOTS, 64),
    (map::ENDPOINTS, 64),
    (map::LOCAL_PODS, 64),
    (map::INCARNATIONS, map::MAX_ENDPOINTS),
];
const PORTS: [(u8, u16); 4] = [(6, 80), (6, 5432), (17, 53), (1, 0)];
/// Who the endpoints' peers are: pods, one that is to come, and addresses in and out of blocks.
const PEERS: &[&str] = &[
    "10.1.0.10",
    "10.1.0.12",
    "10.2.0.13",
    "10.2.0.14",
    "10.2.0.15",
    "10.2.0.16",
    "192.0.2.5",
    "192.0.2.130",
    "192.0.2.200",
    "192.0.9.1",
    "fd00:1::b",
    "fd00:2::d",
    "fd00:2::e",
    "fd00:2::f",
    "fd00:2::10",
    "2001:db8::5",
    "2001:db8::9",
];

/// Runs a test in a mount namespace of its own, with a bpffs that is gone with it.
pub fn with_pins(test: impl FnOnce() + Send + 'static) {
    let body = move || {
        unshare(CloneFlags::CLONE_NEWNS).expect("unshare(CLONE_NEWNS): this test needs root");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(none, "/tmp", Some("tmpfs"), MsFlags::empty(), none).unwrap();
        std::fs::create_dir(BPFFS).unwrap();
        mount(none, BPFFS, Some("bpf"), MsFlags::empty(), none).unwrap();
        let pins = Pins::new(Path::new(BPFFS));
        std::fs::create_dir_all(pins.maps()).unwrap();
        let mut loader = EbpfLoader::new();
        for (name, size) in MAPS {
            loader.map_max_entries(name, *size);
            loader.map_pin_path(name, pins.map(name));
        }
        let object = std::fs::read(object()).expect("run `cargo xtask build --ebpf`");
        drop(loader.load(&object).expect("the object loads"));
        test();
    };
    if let Err(panic) = thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

/// What is allowed or denied, by which rule, for each endpoint, direction, address and port.
type Verdicts = BTreeMap<String, (bool, Value)>;

/// The pinned maps, as one agent after another finds them.
struct Kernel {
    pins: Pins,
    endpoints: Vec<IpAddr>,
    peers: Vec<IpAddr>,
}

impl Kernel {
    fn open(&self) -> PolicyMaps {
        PolicyMaps::open(&self.pins, &Writes::default()).unwrap()
    }

    /// What an outsider reads from the pins.
    fn verdicts(&self) -> Verdicts {
        let view = PinnedView::open(Path::new(BPFFS)).unwrap();
        let mut all = Verdicts::new();
        for endpoint in &self.endpoints {
            let alike = self
                .peers
                .iter()
                .filter(|p| p.is_ipv4() == endpoint.is_ipv4());
            for peer in alike {
                for direction in [FlowDirection::Ingress, FlowDirection::Egress] {
                    for (protocol, port) in PORTS {
                        let request = VerdictRequest {
                            endpoint: *endpoint,
                            direction,
                            peer: *peer,
                            protocol: if protocol == 1 && peer.is_ipv6() {
                                58
                            } else {
                                protocol
                            },
                            port,
                        };
                        let verdict = view.verdict(&request).unwrap().expect("an endpoint");
                        // Fixed reasons and rules have names of their own.
                        let name = verdict.rule.unwrap_or_else(|| json!(verdict.rule_id));
                        all.insert(format!("{request:?}"), (verdict.allowed, name));
                    }
                }
            }
        }
        all
    }

    /// An agent that knows nothing but objects and maps performs the first `most` writes of its
    /// plan and is gone; how many the plan has.
    fn agent(&self, world: &World, most: usize) -> usize {
        let mut maps = self.open();
        let mut index = world.index(&mut Rng::new(most as u64));
        let plan = plan(maps.actual(), index.compile()).unwrap();
        maps.perform(plan.writes().take(most)).unwrap();
        plan.writes().count()
    }

    /// An agent that completes the change, and some time later sweeps.
    fn complete(&self, world: &World) {
        self.agent(world, usize::MAX);
        let mut index = world.index(&mut Rng::new(0));
        let desired = index.compile();
        let mut maps = self.open();
        assert!(plan(maps.actual(), desired).unwrap().is_empty());
        maps.settle();
        let unused = sweep(maps.actual(), desired);
        maps.perform(&unused).unwrap();
        drop(maps);
        let maps = self.open();
        assert!(
            plan(maps.actual(), desired).unwrap().is_empty(),
            "swept too much"
        );
        assert_eq!(sweep(maps.actual(), desired), [], "left over");
    }

    /// From `old`, which is in force, to `new`, by an agent that dies after `most` writes and one
    /// that completes; how many writes the change takes.
    fn change(&self, what: &str, old: &Verdicts, new: (&World, &Verdicts), most: usize) -> usize {
        let (world, expected) = new;
        let count = self.agent(world, most);
        let between = self.verdicts();
        for (flow, verdict) in &between {
            assert!(
                *verdict == old[flow] || *verdict == expected[flow],
                "{what}, cut off after {most} of {count} writes: {flow} is {verdict:?}, \
                 neither {:?} nor {:?}",
                old[flow],
                expected[flow]
            );
        }
        self.complete(world);
        assert_eq!(self.verdicts(), *expected, "{what}, completed");
        count
    }

    /// There and back again, cut off after every single write; how often.
    fn there_and_back(&self, what: &str, base: &World, other: &World) -> usize {
        self.complete(base);
        let old = self.verdicts();
        self.complete(other);
        let new = self.verdicts();
        assert_ne!(old, new, "{what} changes nothing");
        self.complete(base);
        let back = format!("{what}, back");
        let mut most = 0;
        loop {
            let there = self.change(what, &old, (other, &new), most);
            let again = self.change(&back, &new, (base, &old), most);
            if most >= there.max(again) {
                assert!(most > 2, "{what} takes {most} writes");
                return 2 * most;
            }
            most += 1;
        }
    }
}

#[test]
fn an_agent_that_dies_after_any_write_leaves_old_or_new_verdicts_and_the_next_one_completes() {
    with_pins(|| {
        let mut kernel = Kernel {
            pins: Pins::new(Path::new(BPFFS)),
            endpoints: Vec::new(),
            peers: PEERS.iter().map(|peer| peer.parse().unwrap()).collect(),
        };
        let base = shop::shop();
        adopt(&kernel.pins, &base);
        for endpoint in base.endpoints.values() {
            kernel.endpoints.extend(&endpoint.addresses);
        }
        let mut cuts = 0;
        for (what, other) in shop::changes() {
            cuts += kernel.there_and_back(what, &base, &other);
        }
        println!("{cuts} cuts");
        assert!(cuts > 200, "{cuts} cuts");
    });
}

/// What the agent writes of endpoints, apart from policy.
fn adopt(pins: &Pins, world: &World) {
    let mut local: Table<Addr, Endpoint> =
        Table::open(pins, map::LOCAL_PODS, &Writes::default()).unwrap();
    for endpoint in world.endpoints.values() {
        let [addr4, addr6] = [0, 1].map(|i| Addr::from(endpoint.addresses[i]));
        let value = Endpoint {
            addr4,
            addr6,
            ifindex: endpoint.slot,
            slot: endpoint.slot,
            incarnation: 1,
            flags: 0,
            pod_mac: [0; 6],
            host_mac: [0; 6],
            mtu: 1500,
        };
        for addr in [addr4, addr6] {
            local.insert(&addr, &value).unwrap();
        }
    }
}
