//! The dry run on the rig: a second load of the object over the maps of a [`Node`].

use aya::EbpfLoader;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;
use weir_abi::Addr;
use weir_abi::counter::Counter;
use weir_abi::policy::{GroupId, RuleId, RuleVerdict};
use weir_abi::service::BackendId;
use weir_agent::dataplane::live::{DryRun, Ran};
use weir_agent::dataplane::pins::Pins;
use weir_tests::maps::{Snapshot, content};

use crate::packets::*;
use crate::rig::*;

/// A dry run over the maps of a node, for any number of packets (some µs each). What the node's
/// maps hold may change between two of them.
pub struct Dry {
    programs: DryRun,
    /// Where the maps are pinned, which is how two loads share them.
    bpffs: TempDir,
}

impl Drop for Dry {
    fn drop(&mut self) {
        // The mount goes with the thread's namespace at the latest.
        let _ = umount2(self.bpffs.path(), MntFlags::MNT_DETACH);
    }
}

/// For a node whose maps are read whole, again and again.
pub fn small_maps(loader: &mut EbpfLoader<'static>) {
    loader
        .map_max_entries("INTERVALS", 64)
        .map_max_entries("POLICY_SLOTS", 64);
}

impl Node {
    /// Loads the object once more, over this node's maps. Once for a thread: it gets a mount
    /// namespace of its own, and in it a bpffs.
    pub fn dry(&self) -> Dry {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let bpffs = tempfile::tempdir().unwrap();
        mount(
            Some("bpf"),
            bpffs.path(),
            Some("bpf"),
            MsFlags::empty(),
            none,
        )
        .unwrap();
        let pins = Pins::new(bpffs.path());
        std::fs::create_dir_all(pins.maps()).unwrap();
        for (name, map) in self.ebpf.maps().filter(|(name, _)| !name.starts_with('.')) {
            map.pin(pins.map(name)).unwrap();
        }
        let bytes = std::fs::read(object()).unwrap();
        let programs = DryRun::load(&bytes, &pins).unwrap();
        Dry { programs, bpffs }
    }

    /// Everything that the node's maps hold.
    pub fn snapshot(&self) -> Snapshot {
        let maps = self.ebpf.maps();
        maps.filter_map(|(name, map)| Some((name.to_owned(), content(name, map).unwrap()?)))
            .collect()
    }
}

impl Dry {
    /// Where the node's maps are pinned.
    pub fn pins(&self) -> Pins {
        Pins::new(self.bpffs.path())
    }

    /// Judges a packet at a hook of the node.
    pub fn run(&mut self, node: &Node, hook: Hook, packet: &[u8]) -> Ran {
        self.programs.run(node.place(hook), packet).unwrap()
    }
}

const INGRESS_G: GroupId = GroupId(20);
const EGRESS_G: GroupId = GroupId(21);
const CLASS: u32 = 7;
pub const ALLOW_IN: RuleVerdict = RuleVerdict::allow(RuleId(100));
pub const DENY_IN: RuleVerdict = RuleVerdict::deny(RuleId(101));
pub const ALLOW_OUT: RuleVerdict = RuleVerdict::allow(RuleId(102));
pub const DENY_OUT: RuleVerdict = RuleVerdict::deny(RuleId(103));

/// What a dry run's report is compared with: verdicts, tracked, backend.
pub type Said = (Option<RuleVerdict>, Option<RuleVerdict>, bool, u32);

pub fn said(ran: &Ran) -> Said {
    let report = &ran.report;
    let BackendId(backend) = report.backend;
    (report.egress(), report.ingress(), report.tracked(), backend)
}

pub const OPEN: Option<RuleVerdict> = Some(RuleVerdict::NOT_SELECTED);

/// A node and its dry run.
pub struct Both<'a> {
    pub node: &'a mut Node,
    pub dry: Dry,
}

impl Both<'_> {
    /// Runs a packet dry, which changes nothing, and then for real, which comes to the same.
    #[track_caller]
    pub fn run(&mut self, hook: Hook, packet: &Packet) -> (Ran, Run) {
        let packet = packet.clone().addressed(match hook {
            Hook::FromB => MAC_HOST_B,
            Hook::FromUplink => MAC_UPLINK,
            _ => MAC_HOST_A,
        });
        self.run_frame(hook, &packet.frame())
    }

    #[track_caller]
    pub fn run_frame(&mut self, hook: Hook, frame: &[u8]) -> (Ran, Run) {
        let before = self.node.snapshot();
        let ran = self.dry.run(self.node, hook, frame);
        assert!(
            self.node.snapshot() == before,
            "a dry run has changed a map"
        );
        let run = self.node.run(hook, frame);
        same(&ran, &run);
        (ran, run)
    }

    /// The same, and what the dry run must have said.
    #[track_caller]
    pub fn expect(&mut self, hook: Hook, packet: &Packet, counter: Counter, expected: Said) {
        let (ran, run) = self.run(hook, packet);
        assert_eq!(run.counted, [counter]);
        assert_eq!(said(&ran), expected);
    }

    /// Opens a TCP connection from A, and B's part of it to whom A has dialled.
    pub fn connect(&mut self, family: Family, dst: Addr, dport: u16) {
        let t = tuple(family.a(), 4000, dst, dport);
        let seen = see(&self.run(Hook::FromA, &Packet::tcp(&t, SYN)).1.packet);
        let back = tuple(family.b(), seen.dport, family.a(), 4000);
        self.run(Hook::FromB, &Packet::tcp(&back, SYN | ACK));
        self.run(Hook::FromA, &Packet::tcp(&t, ACK));
    }

    /// Closed groups with one row, for everyone: ingress of B, egress of A.
    pub fn policy(&mut self, egress: RuleVerdict, ingress: RuleVerdict) {
        for family in Family::BOTH {
            for peer in [family.a(), family.b(), family.remote(), family.world()] {
                self.node.peer(peer, CLASS);
            }
        }
        self.node.inline_row(EGRESS_G, CLASS, egress);
        self.node.inline_row(INGRESS_G, CLASS, ingress);
        self.node.groups(SLOT_A, GroupId::OPEN, EGRESS_G);
        self.node.groups(SLOT_B, INGRESS_G, GroupId::OPEN);
    }
}

#[track_caller]
pub fn same(ran: &Ran, run: &Run) {
    let counter = Counter::of(ran.report.counter).expect("a counter");
    assert_eq!((ran.action, &[counter][..]), (run.action, &run.counted[..]));
    assert_eq!(run.cb, [0; 5], "a real run writes no report");
}

/// Runs a test on a node whose maps are small, with a dry run over them.
pub fn both(test: impl FnOnce(&mut Both<'_>) + Send + 'static) {
    on_node_with(small_maps, |node| {
        let dry = node.dry();
        test(&mut Both { node, dry });
    });
}
