//! The dry run on the rig: a second load of the object over the maps of a [`Node`].

use aya::EbpfLoader;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;
use weir_agent::dataplane::live::{DryRun, Ran};
use weir_agent::dataplane::pins::Pins;
use weir_tests::maps::{Snapshot, content};

use crate::rig::{Hook, Node, object};

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
    /// Judges a packet at a hook of the node.
    pub fn run(&mut self, node: &Node, hook: Hook, packet: &[u8]) -> Ran {
        self.programs.run(node.place(hook), packet).unwrap()
    }
}
