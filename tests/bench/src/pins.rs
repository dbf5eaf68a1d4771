//! A node for one measurement: a network namespace and a bpffs that are gone with their thread.

use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context as _, Result, anyhow, bail};
use aya::EbpfLoader;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use weir_abi::map;
use weir_agent::dataplane::object;
use weir_agent::dataplane::pins::Pins;

/// Where the bpffs of one node is mounted, below a tmpfs that nobody else sees.
const ROOT: &str = "/tmp";

/// Runs `work` in namespaces of its own.
pub fn isolated<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let body = move || {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
            .context("unshare: the benchmark needs root")?;
        let none = None::<&str>;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(none, "/", none, private, none).context("making mounts private")?;
        mount(none, ROOT, Some("tmpfs"), MsFlags::empty(), none).context("mounting a tmpfs")?;
        work()
    };
    let thread = thread::spawn(body);
    thread
        .join()
        .map_err(|_| anyhow!("the measurement panicked"))?
}

/// Sizes that the measured clusters fit in without growing.
const POLICY_SIZES: [(&str, u32); 4] = [
    (map::PEERS, 1 << 18),
    (map::DECISIONS, 1 << 18),
    (map::INTERVALS, 1 << 18),
    (map::IDS, 1 << 18),
];

/// A bpffs with all maps of the agent's object, those of policy in [`POLICY_SIZES`].
pub fn with_policy_maps(name: &str) -> Result<Pins> {
    with_maps(name, &POLICY_SIZES)
}

/// A bpffs with all maps of the agent's object, some of them in sizes to which an agent has them grow.
pub fn with_maps(name: &str, sizes: &[(&str, u32)]) -> Result<Pins> {
    let dir = Path::new(ROOT).join(name);
    std::fs::create_dir(&dir).with_context(|| format!("making {}", dir.display()))?;
    let none = None::<&str>;
    mount(none, &dir, Some("bpf"), MsFlags::empty(), none).context("mounting a bpffs")?;
    let pins = Pins::new(&dir);
    std::fs::create_dir_all(pins.maps()).context("making the maps' folder")?;
    let object = object::bytes(None)?;
    let parsed = aya_obj::Object::parse(&object).context("the object")?;
    let mut loader = EbpfLoader::new();
    for map in parsed.maps.keys().filter(|map| !map.starts_with('.')) {
        loader.map_pin_path(map, pins.map(map));
    }
    for (map, size) in sizes {
        loader.map_max_entries(map, *size);
    }
    loader.load(&object).context("loading the object")?;
    Ok(pins)
}

/// The folder of maps below an agent's folder of pins, which has one for each layout.
pub fn maps_below(pins: &Path) -> Result<PathBuf> {
    for entry in std::fs::read_dir(pins).with_context(|| pins.display().to_string())? {
        let maps = entry?.path().join("maps");
        if maps.is_dir() {
            return Ok(maps);
        }
    }
    bail!("no maps below {}", pins.display())
}
