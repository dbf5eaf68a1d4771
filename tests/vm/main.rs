//! The first and only process of the virtual machine that `cargo xtask vm-test` boots: loads the
//! embedded eBPF object into this kernel the way the agent does, runs a small lab with what only these
//! kernels have, says what came of it, and switches the machine off.
//!
//! Each check is one line on the console: `WEIR-VM ok NAME: detail` or `WEIR-VM failed NAME:
//! detail`; the last line is `WEIR-VM end`.

mod lab;
mod wireguard;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use aya::EbpfLoader;
use aya::programs::Program;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::termios::tcdrain;
use weir_abi::Proto;
use weir_abi::counter::Counter;
use weir_agent::dataplane::attach::{Attacher, Hook, Role, Side};
use weir_agent::dataplane::live::{self, DryRun, Place};
use weir_agent::dataplane::pins::Pins;
use weir_agent::dataplane::sizes::MapLimits;
use weir_agent::dataplane::{Features, cgroup, load, object};
use weir_agent::packet::{self, Flow, Macs};

const BPFFS: &str = "/sys/fs/bpf";
const CGROUP: &str = "/sys/fs/cgroup";

fn main() {
    if std::process::id() != 1 {
        eprintln!("weir-vm-init is the init of a test machine: run `cargo xtask vm-test`");
        std::process::exit(2);
    }
    // The kernel's own last words share the console: ours begin on a line of their own.
    println!();
    report("kernel", kernel());
    report("modules", modules());
    report(
        "object",
        programs().map(|all| format!("{} programs", all.len())),
    );
    report("load, pin, adopt", pinned());
    report("dry run", dry_run());
    report("attach to a device", device());
    report("attach to a cgroup", sockets());
    if Path::new("/weir-lab").exists() {
        match lab::world() {
            Ok(world) => {
                report("WireGuard between nodes", lab::encrypted(&world));
                report("Services through WireGuard", wireguard::served(&world));
                report("policy through WireGuard", wireguard::judged(&world));
                report("WireGuard's device deleted", wireguard::made_anew(&world));
                report("WireGuard over IPv6", wireguard::over_ipv6(&world));
                report("Geneve between nodes", lab::geneve(&world));
            }
            Err(error) => report("a lab of two nodes", Err(error)),
        }
    }
    println!("WEIR-VM end");
    // The serial line is slow, and what is not sent yet would go with the machine.
    if let Err(err) = tcdrain(std::io::stdout()) {
        println!("cannot wait for the console: {err}");
    }
    if let Err(err) = fs::write("/proc/sysrq-trigger", "o") {
        println!("cannot switch the machine off: {err}");
        return;
    }
    loop {
        std::thread::park();
    }
}

fn report(name: &str, result: Result<String>) {
    match result {
        Ok(detail) => println!("WEIR-VM ok {name}: {detail}"),
        Err(err) => println!("WEIR-VM failed {name}: {err:#}"),
    }
}

/// File systems, and what the agent finds the kernel to have.
fn kernel() -> Result<String> {
    for (kind, dir) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("bpf", BPFFS),
        ("cgroup2", CGROUP),
        ("tmpfs", "/run"),
        ("tmpfs", "/tmp"),
    ] {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {dir}"))?;
        mount(Some(kind), dir, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("cannot mount {kind} on {dir}"))?;
    }
    let features = Features::detect()?;
    let list: Vec<String> = features
        .list()
        .iter()
        .map(|f| format!("{} {}", f.name, f.state))
        .collect();
    Ok(format!("{} ({})", features.release, list.join(", ")))
}

/// What Debian has as modules: `vm-test` puts them here, in the order in which they are to load.
fn modules() -> Result<String> {
    let found = files("/modules");
    for module in &found {
        let file = fs::File::open(module)?;
        finit_module(&file, c"", ModuleInitFlags::empty())
            .with_context(|| format!("cannot load {}", module.display()))?;
    }
    Ok(format!("{} loaded", found.len()))
}

/// Every program through the verifier, one line each; one that is refused does not hide the next.
fn programs() -> Result<Vec<String>> {
    let bytes = object::bytes(None)?;
    let mut ebpf = EbpfLoader::new()
        .load(&bytes)
        .context("maps and relocations")?;
    let mut names: Vec<String> = ebpf.programs().map(|(name, _)| name.to_owned()).collect();
    names.sort();
    ensure!(!names.is_empty(), "the object holds no program");
    let mut refused = 0;
    for name in &names {
        let program = ebpf.program_mut(name).context("a listed program is gone")?;
        let result = verified(program);
        refused += usize::from(result.is_err());
        report(&format!("verifier {name}"), result);
    }
    ensure!(
        refused == 0,
        "{refused} of {} programs refused",
        names.len()
    );
    Ok(names)
}

fn verified(program: &mut Program) -> Result<String> {
    let info = match program {
        Program::SchedClassifier(p) => p.load().and_then(|()| p.info()),
        Program::CgroupSockAddr(p) => p.load().and_then(|()| p.info()),
        Program::CgroupSock(p) => p.load().and_then(|()| p.info()),
        Program::Xdp(p) => p.load().and_then(|()| p.info()),
        other => bail!(
            "weir-vm-init does not know programs of type {:?}",
            other.prog_type()
        ),
    }?;
    let count = info.verified_instruction_count();
    Ok(count.map_or_else(
        || "loaded".to_owned(),
        |n| format!("{n} instructions verified"),
    ))
}

/// The agent's own loader: pins everything; a second time it finds all of it and replaces nothing.
fn pinned() -> Result<String> {
    let pins = Pins::new(Path::new(BPFFS).join("weir").as_path());
    let _lock = pins.prepare()?;
    let bytes = object::bytes(None)?;
    let first = load::load(&bytes, &pins, &MapLimits::default())?;
    let second = load::load(&bytes, &pins, &MapLimits::default())?;
    ensure!(
        first.programs > 0 && first.replaced == first.programs,
        "first load: {first:?}"
    );
    ensure!(
        second.replaced == 0,
        "a second load of the same object replaced {second:?}"
    );
    Ok(format!(
        "{} programs pinned, then found again",
        first.programs
    ))
}

/// The programs that only judge, over the pinned maps: each runs a packet and reports.
fn dry_run() -> Result<String> {
    /// The loopback device, whose address is all zeros; no pod is here.
    const DEVICE: u32 = 1;
    let pins = Pins::new(Path::new(BPFFS).join("weir").as_path());
    let mut programs = DryRun::load(&object::bytes(None)?, &pins)?;
    let flow = Flow {
        source: Ipv4Addr::new(10, 0, 0, 1).into(),
        destination: Ipv4Addr::new(10, 0, 0, 2).into(),
        protocol: Proto::TCP,
        source_port: 61_000,
        port: 80,
    };
    let frame = packet::first(&flow, Macs::default()).map_err(anyhow::Error::msg)?;
    for (hook, expected) in [
        (live::Hook::FromPod, Counter::DropUnknownEndpoint),
        (live::Hook::ToPod, Counter::DropUnknownEndpoint),
        (live::Hook::FromUplink, Counter::ToStack),
    ] {
        let place = Place {
            hook,
            ifindex: DEVICE,
            ingress_ifindex: DEVICE,
        };
        let ran = programs.run(place, &frame)?;
        ensure!(
            ran.report.counter == expected as u32,
            "{}: {ran:?}, not {expected:?}",
            hook.program()
        );
    }
    Ok("3 programs judge and report".to_owned())
}

/// tcx links where the kernel has them, clsact filters where it has not.
fn device() -> Result<String> {
    let features = Features::detect()?;
    let pins = Pins::new(Path::new(BPFFS).join("weir").as_path());
    let attacher = Attacher::new(&pins, features.tcx);
    let mut attached = 0;
    for (role, side) in [
        (Role::Endpoint, Side::In),
        (Role::Endpoint, Side::Out),
        (Role::Uplink, Side::In),
        (Role::Uplink, Side::Out),
        (Role::Overlay, Side::In),
        (Role::Overlay, Side::Out),
        (Role::Wireguard, Side::In),
        (Role::Wireguard, Side::Out),
    ] {
        // The loopback device is the one that every machine has.
        let hook = Hook {
            ifindex: 1,
            ifname: "lo".to_owned(),
            role,
            side,
        };
        if !attacher.has_program(&hook) {
            continue;
        }
        attacher.ensure(&hook)?;
        attacher.check(&hook)?;
        attacher.detach_hook(&hook)?;
        if features.tcx {
            gone(&attacher, &hook)?;
        }
        attached += 1;
    }
    ensure!(attached > 0, "no program for any hook");
    Ok(format!(
        "{attached} hooks by {}",
        if features.tcx { "tcx" } else { "clsact" }
    ))
}

/// The kernel takes a link whose last pin is gone off its device a little later, by itself, and
/// tells nobody.
fn gone(attacher: &Attacher, hook: &Hook) -> Result<()> {
    let started = Instant::now();
    while attacher.check(hook).is_ok() {
        ensure!(
            started.elapsed() < Duration::from_secs(10),
            "{} is still attached",
            hook.program()
        );
        std::thread::yield_now();
    }
    Ok(())
}

fn sockets() -> Result<String> {
    let group = Path::new(CGROUP).join("weir");
    fs::create_dir(&group).context("cannot make a cgroup")?;
    let pins = Pins::new(Path::new(BPFFS).join("weir").as_path());
    let hooks = cgroup::ensure(&pins, &group)?;
    ensure!(hooks > 0, "no socket hook was attached");
    Ok(format!("{hooks} hooks"))
}

fn files(dir: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .collect();
    found.sort();
    found
}
