//! What Services cost in memory: the maps in the kernel, and the agent.

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use aya::maps::MapData;
use weir_lab::Lab;
use weir_lab::hold::ROOT;

use super::world::World;
use crate::stats::Section;

/// MiB.
const GOAL_AGENT: f64 = 96.0;
const GOAL_MAPS: f64 = 64.0;
/// Tables smaller than this are counted, but not named. KiB.
const NAMED: u64 = 1024;

/// Adds what the maps below a folder of pins take, as the kernel accounts for it.
pub fn maps(folder: &Path, section: &mut Section) -> Result<()> {
    let mut sizes = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let map = MapData::from_pin(&path).with_context(|| path.display().to_string())?;
        let fd = map.fd().as_fd().as_raw_fd();
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))?;
        let bytes = text.lines().find_map(|line| line.strip_prefix("memlock:"));
        let bytes: u64 = bytes
            .context("no memlock in the map's fdinfo")?
            .trim()
            .parse()?;
        sizes.push((bytes / 1024, name));
    }
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let total = sizes.iter().map(|(size, _)| size).sum::<u64>() as f64 / 1024.0;
    section.goal(
        "all BPF maps",
        format!("{total:.1} MiB"),
        format!("under {GOAL_MAPS} MiB"),
        total < GOAL_MAPS,
    );
    for (size, name) in sizes.iter().filter(|(size, _)| *size >= NAMED) {
        section.row(
            format!("  {name}"),
            format!("{:.1} MiB", *size as f64 / 1024.0),
        );
    }
    Ok(())
}

/// A field of a process's status, MiB.
fn status(pid: u32, key: &str) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find(|line| line.starts_with(key));
    let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    Ok(number.with_context(|| format!("no {key} of process {pid}"))? / 1024.0)
}

/// What this process has in memory, MiB.
pub fn resident() -> Result<f64> {
    status(std::process::id(), "VmRSS:")
}

/// The real agent with all of a world as files.
pub fn agent(world: &World) -> Result<Section> {
    let lab = Lab::builder().nodes(1).without_agents().start()?;
    let mut section = Section::new(format!(
        "Memory with {} Services × {} endpoints, the real agent reading files",
        world.services, world.endpoints
    ));
    let node = &lab.nodes[0];
    node.start_agent()?;
    let empty = node.agent_pid().context("no agent")?;
    let without = status(empty, "VmRSS:")?;
    node.stop_agent()?;
    world.write(&lab.path(&format!("{ROOT}/source")))?;
    let start = std::time::Instant::now();
    node.launch_agent()?;
    node.await_ready(std::time::Duration::from_secs(300))?;
    section.row(
        "from start to ready",
        format!("{:.2} s", start.elapsed().as_secs_f64()),
    );
    let pid = node.agent_pid().context("no agent")?;
    let rss = status(pid, "VmRSS:")?;
    section.goal(
        "agent, resident",
        format!("{rss:.1} MiB"),
        format!("under {GOAL_AGENT} MiB"),
        rss < GOAL_AGENT,
    );
    section.row("agent without any, resident", format!("{without:.1} MiB"));
    for (name, key) in [
        ("  of that anonymous", "RssAnon:"),
        ("  of that files and maps", "RssFile:"),
        ("agent at its peak", "VmHWM:"),
    ] {
        section.row(name, format!("{:.1} MiB", status(pid, key)?));
    }
    let pins = node.path("/sys/fs/bpf/weir");
    maps(&crate::pins::maps_below(&pins)?, &mut section)?;
    Ok(section)
}
