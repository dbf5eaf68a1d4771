//! `cargo xtask vm-test`: every eBPF program on the kernels that Weir promises to run on.
//!
//! Boots Debian's kernels in QEMU without KVM; the machine's only file system is an initramfs with
//! `tests/vm` and the programs that a lab is made of, all static.

mod cpio;
mod kernels;
mod modules;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::context::Context;
use crate::count::Count;
use crate::setup::which;
use crate::{build, setup, step};
use kernels::Kernel;

/// A machine that is not done by then hangs; it takes some seconds.
const LIMIT: Duration = Duration::from_secs(10 * 60);

/// What the console showed.
#[derive(Default)]
struct Console {
    count: Count,
    ended: bool,
    said: Vec<String>,
}

/// Boots each kernel and counts what held. `load_only`: without the programs of a lab, there is none.
///
/// # Errors
/// Something does not build, cannot be downloaded, or QEMU does not start.
pub fn run(ctx: &Context, load_only: bool) -> Result<Count> {
    setup::vm(ctx)?;
    let kernels = kernels::ensure(ctx)?;
    let mut programs = build::vm_programs(ctx)?;
    if load_only {
        programs.retain(|(name, _)| *name == build::INIT);
    }
    let mut total = Count::default();
    for kernel in &kernels {
        let initramfs = ctx.logs.join(format!("initramfs-{}", kernel.series));
        write_initramfs(&initramfs, &programs, &kernel.modules)?;
        total += boot(ctx, kernel, &initramfs)?;
    }
    Ok(total)
}

fn write_initramfs(to: &Path, programs: &[(&str, PathBuf)], modules: &[PathBuf]) -> Result<()> {
    let read =
        |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let mut archive = cpio::Archive::default();
    archive.directory("dev");
    archive.console("dev/console");
    archive.directory("modules");
    for (order, module) in modules.iter().enumerate() {
        archive.program(&format!("modules/{order:03}.ko"), &read(module)?);
    }
    for (name, program) in programs {
        archive.program(name, &read(program)?);
    }
    fs::write(to, archive.finish()).with_context(|| format!("cannot write {}", to.display()))
}

fn boot(ctx: &Context, kernel: &Kernel, initramfs: &Path) -> Result<Count> {
    let name = format!("Linux {}", kernel.series);
    let mut console = Console::default();
    let mut cmd = qemu(&kernel.image, initramfs)?;
    let done = step::observe(&ctx.logs, &name, &mut cmd, Some(LIMIT), |line| {
        console.read(line)
    })?;
    for line in &console.said {
        step::line(&format!("    {line}"));
    }
    if !console.ended {
        // Died before its last word: whatever passed, the machine did not.
        console.count.failed += 1;
    }
    if console.count.failed > 0 || !console.ended {
        step::line(&step::failure(&name, &done));
    }
    step::line(&format!(
        "  {name}: {} in {}",
        console.count,
        step::seconds(done.took)
    ));
    Ok(console.count)
}

impl Console {
    fn read(&mut self, line: &str) {
        // The kernel may have left the cursor in the middle of a line.
        let Some((_, said)) = line.split_once("WEIR-VM ") else {
            return;
        };
        if said == "end" {
            self.ended = true;
        } else {
            self.count += Count::one(said.starts_with("ok "));
            self.said.push(said.to_owned());
        }
    }
}

fn qemu(kernel: &Path, initramfs: &Path) -> Result<Command> {
    let (program, machine, console): (_, &[&str], _) = match std::env::consts::ARCH {
        "x86_64" => (
            "qemu-system-x86_64",
            &["-machine", "q35,accel=tcg"],
            "ttyS0",
        ),
        "aarch64" => (
            "qemu-system-aarch64",
            &["-machine", "virt,accel=tcg"],
            "ttyAMA0",
        ),
        other => bail!("vm-test knows no machine for {other} yet: add one in xtask/src/vm"),
    };
    let program = which(program).map_or_else(|| OsString::from(program), Into::into);
    let mut cmd = Command::new(program);
    cmd.args(machine)
        .args([
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            "1024",
            "-nographic",
            "-nodefaults",
        ])
        .args(["-serial", "stdio", "-no-reboot"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .arg("-append")
        // A panic reboots at once, and -no-reboot makes that the end.
        .arg(format!("console={console} quiet panic=-1 RUST_BACKTRACE=1"));
    Ok(cmd)
}

#[cfg(test)]
mod tests {
    use super::Console;
    use crate::count::Count;

    #[test]
    fn console_lines_are_counted_and_noise_is_not() {
        let mut console = Console::default();
        for line in [
            "[    1.2] random: crng init done",
            "WEIR-VM ok verifier from_pod: 120 instructions verified",
            "[    2.0] noise WEIR-VM failed verifier to_pod: refused",
        ] {
            console.read(line);
        }
        assert_eq!(
            console.count,
            Count {
                passed: 1,
                failed: 1,
                skipped: 0
            }
        );
        assert!(!console.ended);
        console.read("WEIR-VM end");
        assert!(console.ended);
    }
}
