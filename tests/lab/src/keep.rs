//! Labs that stay up after their demo: how they are found, entered and taken down.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe, setsid};
use serde::{Deserialize, Serialize};

use crate::cgroup::{self, Owner};
use crate::hold::ROOT;
use crate::lab::Lab;
use crate::spawn::Place;

/// Who is in a lab; a file in the lab's own file system.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Directory {
    /// Process and cgroup of each node (`n1`) and pod (`namespace/name`).
    pub places: BTreeMap<String, Inhabitant>,
}

/// A node or a pod.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Inhabitant {
    /// A process in its namespaces.
    pub pid: u32,
    /// The cgroup its processes belong in.
    pub cgroup: PathBuf,
}

/// Writes down who is in a lab.
///
/// # Errors
/// When the file cannot be written.
pub fn describe(lab: &Lab) -> Result<()> {
    let mut places = BTreeMap::new();
    for node in &lab.nodes {
        let cgroup = node.cgroup.join("host");
        places.insert(
            node.name.clone(),
            Inhabitant {
                pid: node.holder_pid(),
                cgroup,
            },
        );
    }
    for pod in lab.pods() {
        let cgroup = lab.nodes[pod.node].cgroup.join("pods");
        places.insert(
            pod.key(),
            Inhabitant {
                pid: pod.control.pid(),
                cgroup,
            },
        );
    }
    let path = lab.path(&format!("{ROOT}/lab.json"));
    fs::write(&path, serde_json::to_vec_pretty(&Directory { places })?)
        .with_context(|| format!("writing {}", path.display()))
}

/// A running lab with a [`Directory`]: its owner and cgroup.
struct Running {
    owner: Owner,
    cgroup: PathBuf,
    directory: Directory,
}

fn running() -> Result<Vec<Running>> {
    let mut found = Vec::new();
    for (cgroup, owner) in cgroup::lab_folders()? {
        let procs = fs::read_to_string(cgroup.join("holders/cgroup.procs")).unwrap_or_default();
        // Every holder sees the lab's file system.
        let file = procs
            .lines()
            .find_map(|pid| fs::read(format!("/proc/{pid}/root{ROOT}/lab.json")).ok());
        let directory = file.and_then(|text| serde_json::from_slice(&text).ok());
        if let (true, Some(directory)) = (owner.is_alive(), directory) {
            found.push(Running {
                owner,
                cgroup,
                directory,
            });
        }
    }
    Ok(found)
}

/// Replaces this process by a program (a shell, where none is named) inside a node or pod of a
/// lab that was kept.
///
/// # Errors
/// When there is no such lab, node or pod, or the program cannot be started.
pub fn enter(name: &str, program: &[String]) -> Result<ExitCode> {
    let labs = running()?;
    if labs.is_empty() {
        bail!("no lab is running: start one with `cargo xtask demo --keep`");
    }
    let known = || {
        let names = labs.iter().flat_map(|lab| lab.directory.places.keys());
        names.map(String::as_str).collect::<Vec<_>>().join(" ")
    };
    let place = labs
        .iter()
        .rev()
        .find_map(|lab| lab.directory.places.get(name))
        .ok_or_else(|| anyhow!("no node or pod {name} in the lab; there are: {}", known()))?;
    Place::of_process(place.pid)?
        .in_cgroup(&place.cgroup)?
        .enter()
        .context("entering")?;
    let shell = std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".to_owned());
    let shell = [shell];
    let words = if program.is_empty() {
        &shell[..]
    } else {
        program
    };
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env("WEIR_LAB", name);
    if let Some(folder) = std::env::current_exe()?.parent() {
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", folder.display()));
    }
    Err(anyhow!(command.exec()).context(format!("starting {}", words[0])))
}

/// Takes down every lab that was kept. Returns how many there were.
///
/// # Errors
/// When one does not go within 10 s.
pub fn down() -> Result<usize> {
    let labs = running()?;
    for lab in &labs {
        kill(Pid::from_raw(lab.owner.pid.cast_signed()), Signal::SIGTERM)
            .with_context(|| format!("ending process {}", lab.owner.pid))?;
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    for lab in &labs {
        while lab.owner.is_alive() || lab.cgroup.exists() {
            if Instant::now() > deadline {
                bail!(
                    "the lab of process {} did not go within 10 s",
                    lab.owner.pid
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    cgroup::sweep()?;
    Ok(labs.len())
}

/// What [`detach`] tells the process that stays.
#[derive(Debug)]
pub struct Detached {
    report: OwnedFd,
}

impl Detached {
    /// Lets the process that waits end with `code`, and keeps this one in the background until it
    /// gets a signal; the lab's signal handling takes the lab down then.
    ///
    /// # Errors
    /// When a descriptor cannot be replaced.
    pub fn stay(self, code: u8) -> Result<()> {
        setsid().context("leaving the terminal's session")?;
        let null = File::options().read(true).write(true).open("/dev/null")?;
        for standard in 0..=2 {
            // SAFETY: dup2 replaces a standard descriptor, which nobody here owns.
            if unsafe { libc::dup2(null.as_raw_fd(), standard) } < 0 {
                return Err(std::io::Error::last_os_error()).context("leaving the terminal");
            }
        }
        File::from(self.report).write_all(&[code])?;
        loop {
            nix::unistd::pause();
        }
    }
}

/// Forks: the child goes on and may [`Detached::stay`]; the parent waits for its report and ends
/// with its exit code. Call it before any thread is started.
///
/// # Errors
/// When the process cannot fork.
pub fn detach() -> Result<Result<Detached, ExitCode>> {
    let (reader, report) = pipe()?;
    // SAFETY: no thread was started yet, so the child may do anything.
    match unsafe { fork() }.context("forking")? {
        ForkResult::Child => {
            drop(reader);
            Ok(Ok(Detached { report }))
        }
        ForkResult::Parent { child } => {
            drop(report);
            // Ctrl-C is for the child, which takes the lab down; this process waits for it.
            for ignored in [Signal::SIGINT, Signal::SIGHUP] {
                // SAFETY: ignoring a signal runs no code.
                unsafe { signal(ignored, SigHandler::SigIgn) }?;
            }
            let mut code = [0];
            if File::from(reader).read_exact(&mut code).is_ok() {
                return Ok(Err(ExitCode::from(code[0])));
            }
            Ok(Err(match waitpid(child, None)? {
                WaitStatus::Exited(_, code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
                WaitStatus::Signaled(_, signal, _) => {
                    ExitCode::from(128 + u8::try_from(signal as i32).unwrap_or(0))
                }
                _ => ExitCode::FAILURE,
            }))
        }
    }
}
