//! Maps that get another size keep what they hold, whatever kind of map they are.

use std::path::Path;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use weir_abi::policy::{ClassId, Interval, LpmKey, RuleVerdict};
use weir_abi::service::{Service, ServiceKey, Slot};
use weir_abi::{Addr, PortBe, Proto, map};
use weir_agent::dataplane::load::{grow, load};
use weir_agent::dataplane::pins::Pins;
use weir_agent::dataplane::sizes::{MapLimits, Sizes};
use weir_agent::dataplane::table::{Elements, Table, Trie, Writes};
use weir_net::bpf;

use crate::rig;

const BPFFS: &str = "/tmp/grow";

/// Runs a test in a mount namespace of its own, with a bpffs that is gone with it.
fn with_pins(test: impl FnOnce(&Pins, &[u8]) + Send + 'static) {
    let object = std::fs::read(rig::object()).unwrap();
    let body = move || {
        unshare(CloneFlags::CLONE_NEWNS).expect("unshare(CLONE_NEWNS): this test needs root");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(none, "/tmp", Some("tmpfs"), MsFlags::empty(), none).unwrap();
        std::fs::create_dir(BPFFS).unwrap();
        mount(none, BPFFS, Some("bpf"), MsFlags::empty(), none).unwrap();
        let pins = Pins::new(Path::new(BPFFS));
        let _lock = pins.prepare().unwrap();
        test(&pins, &object);
    };
    if let Err(panic) = thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Begins with small tables.
fn small() -> MapLimits {
    let maps = [
        map::PEERS,
        map::CIDRS,
        map::INTERVALS,
        map::SERVICES,
        map::SLOTS,
    ];
    MapLimits::new(maps.map(|map| (map, 16)).into())
}

fn address(v4: bool, n: u8) -> Addr {
    let ip: std::net::IpAddr = match v4 {
        true => [10, 0, 0, n].into(),
        false => [0xfd00, 0, 0, 0, 0, 0, 0, u16::from(n)].into(),
    };
    ip.into()
}

/// The open tables, one of each kind and of each family.
struct Tables {
    peers: Table<Addr, ClassId>,
    cidrs: Trie<ClassId>,
    intervals: Elements<Interval>,
    services: Table<ServiceKey, Service>,
    slots: Elements<Slot>,
}

/// Elements that hold something, the last of a small table among them.
const AT: [u32; 3] = [0, 7, 15];

impl Tables {
    fn open(pins: &Pins) -> Self {
        let writes = Writes::default();
        Self {
            peers: Table::open(pins, map::PEERS, &writes).unwrap(),
            cidrs: Trie::open(pins, map::CIDRS, &writes).unwrap(),
            intervals: Elements::open(pins, map::INTERVALS, &writes).unwrap(),
            services: Table::open(pins, map::SERVICES, &writes).unwrap(),
            slots: Elements::open(pins, map::SLOTS, &writes).unwrap(),
        }
    }

    fn interval(at: u32) -> Interval {
        Interval {
            start: at,
            verdict: RuleVerdict(at + 1),
        }
    }

    fn slot(at: u32) -> Slot {
        Slot::unpack((u64::from(at) << 32) | (u64::from(at) + 1))
    }

    fn fill(&mut self) {
        for n in 1..=8 {
            for v4 in [true, false] {
                let addr = address(v4, n);
                let class = ClassId(u32::from(n) + 100 * u32::from(v4));
                self.peers.insert(&addr, &class).unwrap();
                let len = 25 + n % 8;
                self.cidrs
                    .insert(&LpmKey::prefix(addr, len), &class)
                    .unwrap();
                let key = ServiceKey {
                    addr,
                    port: PortBe::new(80),
                    proto: Proto(6),
                    scope: 0,
                };
                let service = Service {
                    count: u32::from(n),
                    ..Service::default()
                };
                self.services.insert(&key, &service).unwrap();
            }
        }
        for at in AT {
            self.intervals.set(at, Self::interval(at)).unwrap();
            self.slots.set(at, Self::slot(at)).unwrap();
        }
    }

    /// Everything of the other is here, and nothing else.
    fn assert_same(&self, other: &Self) {
        assert_eq!(
            self.peers.entries().unwrap(),
            other.peers.entries().unwrap()
        );
        assert_eq!(
            self.cidrs.entries().unwrap(),
            other.cidrs.entries().unwrap()
        );
        assert_eq!(
            self.services.entries().unwrap(),
            other.services.entries().unwrap()
        );
        for at in 0..16 {
            let same = |a: &Elements<Interval>| a.get(at).unwrap();
            assert_eq!(same(&self.intervals), same(&other.intervals), "{at}");
            assert_eq!(self.slots.get(at).unwrap(), other.slots.get(at).unwrap());
        }
        assert_eq!(self.intervals.get(15).unwrap(), Self::interval(15));
        assert_eq!(self.slots.get(15).unwrap(), Self::slot(15));
    }
}

fn size_of(pins: &Pins, map: &str) -> u32 {
    bpf::map_info_pinned(pins.map(map)).unwrap().max_entries
}

fn half_made(pins: &Pins) -> bool {
    let names = |dir| {
        std::fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name())
    };
    let mut all = names(pins.maps()).chain(names(pins.progs()));
    all.any(|name| name.to_str().unwrap().ends_with("-next"))
}

#[test]
fn hashes_tries_and_arrays_keep_their_entries_when_they_grow_and_when_they_shrink() {
    with_pins(|pins, object| {
        load(object, pins, &small()).unwrap();
        let mut before = Tables::open(pins);
        before.fill();
        let maps = [
            map::PEERS,
            map::CIDRS,
            map::INTERVALS,
            map::SERVICES,
            map::SLOTS,
        ];
        for size in [64, 16] {
            let grown = grow(object, pins, &maps.map(|map| (map, size)).into()).unwrap();
            assert!(grown.replaced > 0);
            for map in maps {
                assert_eq!(size_of(pins, map), size, "{map}");
            }
            Tables::open(pins).assert_same(&before);
            assert!(!half_made(pins));
        }
        // What is there is taken as it is by the next start.
        assert_eq!(load(object, pins, &small()).unwrap().replaced, 0);
    });
}

#[test]
fn a_growth_that_fails_leaves_maps_and_programs_as_they_were() {
    with_pins(|pins, object| {
        load(object, pins, &small()).unwrap();
        let mut before = Tables::open(pins);
        before.fill();
        let id = || {
            let program = bpf::get_pinned(pins.prog("from_pod")).unwrap();
            bpf::prog_info(std::os::fd::AsFd::as_fd(&program))
                .unwrap()
                .id
        };
        let was = id();
        let sizes = Sizes::from([(map::PEERS, 64), (map::SERVICES, 4)]);
        let error = grow(object, pins, &sizes).unwrap_err().to_string();
        assert!(error.contains("SERVICES"), "{error}");
        assert_eq!((size_of(pins, map::PEERS), id()), (16, was));
        assert!(!half_made(pins));
        Tables::open(pins).assert_same(&before);
        assert_eq!(load(object, pins, &small()).unwrap().replaced, 0);
    });
}
