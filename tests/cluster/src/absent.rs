//! A process of a running cluster that is away for a while: what an outage is made of.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::api::Cluster;
use crate::process::{self, Output, Process};
use crate::state::State;

/// How a process is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Away {
    /// Stopped: it keeps its connections, takes new ones, and answers none.
    Hangs,
    /// Killed: its connections are cut, new ones are refused.
    Refuses,
}

/// How long a killed process may take to be gone.
const GONE: Duration = Duration::from_secs(10);

/// A process that is away until [`Absent::back`], or until this is dropped.
#[derive(Debug)]
pub struct Absent {
    cluster: Cluster,
    process: Process,
    /// How a killed one is started again.
    again: Option<Vec<OsString>>,
    here: bool,
}

impl Absent {
    /// Takes the process `name` of the control plane away.
    ///
    /// # Errors
    /// It does not run.
    pub fn new(cluster: &Cluster, name: &str, away: Away) -> Result<Self> {
        // Read anew: an earlier absence has changed it.
        let state = State::load(cluster.dir())?.context("the cluster is gone")?;
        let process = state
            .processes
            .into_iter()
            .find(|process| process.name == name && process.alive())
            .with_context(|| format!("{name} does not run"))?;
        let mut absent = Self {
            cluster: cluster.clone(),
            again: None,
            here: false,
            process,
        };
        match away {
            Away::Hangs => absent.signal(Signal::SIGSTOP)?,
            Away::Refuses => {
                absent.again = Some(command_line(absent.process.pid)?);
                absent.process.kill();
                let end = Instant::now() + GONE;
                while absent.process.alive() {
                    if Instant::now() > end {
                        bail!("{name} was killed but does not end");
                    }
                    std::thread::yield_now();
                }
            }
        }
        Ok(absent)
    }

    /// Brings it back; it may still take a while to answer.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn back(mut self) -> Result<()> {
        self.bring_back()
    }

    fn bring_back(&mut self) -> Result<()> {
        self.here = true;
        let Some(line) = self.again.take() else {
            return self.signal(Signal::SIGCONT);
        };
        let (program, args) = line.split_first().context("it had no command line")?;
        let first = self.cluster.nodes().first().context("there is no node")?;
        let program = program.to_string_lossy();
        let mut command = self.cluster.command_in(&first.name, &program)?;
        command.args(args).current_dir("/");
        let logs = self.cluster.dir().join("logs");
        let name = self.process.name.as_str();
        let (started, _) = process::launch(name, &logs, command, Output::Log)?;
        let mut state = State::load(self.cluster.dir())?.context("the cluster is gone")?;
        state.processes.retain(|process| process.name != name);
        state.processes.push(started);
        state.save(self.cluster.dir())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.process.pid)?);
        kill(pid, signal).with_context(|| format!("cannot send {signal} to {}", self.process.name))
    }
}

impl Drop for Absent {
    fn drop(&mut self) {
        if !self.here
            && let Err(error) = self.bring_back()
        {
            eprintln!("{} stays away: {error:#}", self.process.name);
        }
    }
}

/// The program of a process and its arguments.
fn command_line(pid: u32) -> Result<Vec<OsString>> {
    let path = format!("/proc/{pid}/cmdline");
    let bytes = fs::read(&path).with_context(|| format!("cannot read {path}"))?;
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    Ok(bytes
        .split(|byte| *byte == 0)
        .map(|arg| OsString::from_vec(arg.to_vec()))
        .collect())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_command_line_is_read_with_its_empty_arguments() {
        // It says that it runs: until then its arguments may not be there yet. Then it waits for a line
        // that does not come, as the pipe is held.
        let mut child = std::process::Command::new("sh")
            .args(["-c", "echo up; read line", ""])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("sh");
        let mut up = [0; 3];
        let out = child.stdout.as_mut().expect("a pipe");
        out.read_exact(&mut up).expect("a line");
        let line = command_line(child.id());
        child.kill().expect("kill");
        child.wait().expect("wait");
        let line = line.expect("a command line");
        assert_eq!(
            line,
            ["sh", "-c", "echo up; read line", ""].map(OsString::from)
        );
    }
}
