//! A node of the lab: its namespaces, its agent, its files.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ipnetwork::IpNetwork;
use weir_api::client::Client;

use crate::hold::{ROOT, Role, node_dir};
use crate::spawn::{self, Place};
use crate::{bin, cgroup};

/// The uplink's name on every node.
pub const UPLINK: &str = "eth0";

/// How long an agent may take until it is ready: the kernel verifies its programs for seconds of processor
/// time, and agents of several labs may do so at once.
pub const READY: Duration = Duration::from_secs(90);

/// A process that holds namespaces.
#[derive(Debug)]
pub struct Holder {
    child: Child,
    _stdin: ChildStdin,
    /// Its namespaces, as a place to start others in.
    pub place: Place,
}

impl Holder {
    /// Starts a holder in `place` and waits until its namespaces stand.
    ///
    /// # Errors
    /// When it fails; its own message goes to standard error.
    pub fn start(role: &Role, place: Place) -> Result<Self> {
        let mut command = Command::new(bin("weir-lab")?);
        match role {
            Role::Fabric => command.args(["hold", "fabric"]),
            Role::Node(name) => command.args(["hold", "node", name]),
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn::spawn(command, place)?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("the holder has no pipes");
        };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        if line != "ready\n" {
            spawn::kill(&mut child);
            bail!("the holder of {role:?} did not start (see its message above)");
        }
        let place = Place::of_process(child.id())?;
        Ok(Self {
            child,
            _stdin: stdin,
            place,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A path inside the lab, as this process can open it.
    #[must_use]
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.pid()))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        spawn::kill(&mut self.child);
    }
}

/// One node.
#[derive(Debug)]
pub struct Node {
    /// Its name: `n1`, `n2`, …
    pub name: String,
    /// Its IPv4 and IPv6 address on the fabric.
    pub addresses: [IpAddr; 2],
    /// Where its pods get their addresses.
    pub pod_cidrs: [IpNetwork; 2],
    /// The cgroup that the socket hooks cover.
    pub cgroup: PathBuf,
    holder: Holder,
    agent: Mutex<Option<Child>>,
    extra_args: Mutex<Vec<String>>,
}

impl Node {
    /// The addresses of the `number`th node, from 1.
    pub(crate) fn start(number: u8, fabric: &Holder, lab_cgroup: &Path) -> Result<Self> {
        let name = format!("n{number}");
        let cgroup = lab_cgroup.join(&name);
        for part in ["host", "pods"] {
            cgroup::create(&cgroup.join(part))?;
        }
        let place = Place {
            mnt: fabric.place.mnt.clone(),
            ..Place::default()
        }
        .in_cgroup(&lab_cgroup.join("holders"))?;
        let holder = Holder::start(&Role::Node(name.clone()), place)?;
        let group = u16::from(number);
        let node = Self {
            addresses: [
                Ipv4Addr::new(172, 18, 0, 10 + number).into(),
                Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, 0x10 + group).into(),
            ],
            pod_cidrs: [
                IpNetwork::new(Ipv4Addr::new(10, 244, number, 0).into(), 24)?,
                IpNetwork::new(
                    Ipv6Addr::new(0xfd00, 0x10, 0x244, group, 0, 0, 0, 0).into(),
                    64,
                )?,
            ],
            name,
            cgroup,
            holder,
            agent: Mutex::new(None),
            extra_args: Mutex::new(Vec::new()),
        };
        Ok(node)
    }

    /// The node's network and mount namespace.
    #[must_use]
    pub fn place(&self) -> Place {
        self.holder.place.clone()
    }

    /// The process that holds the node's namespaces.
    #[must_use]
    pub fn holder_pid(&self) -> u32 {
        self.holder.pid()
    }

    /// A path inside the node, as this process can open it.
    #[must_use]
    pub fn path(&self, inside: &str) -> PathBuf {
        self.holder.path(inside)
    }

    /// The agent's socket, as this process can open it.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path(&self.socket_inside())
    }

    /// The agent's socket as every node of the lab sees it.
    #[must_use]
    pub fn socket_inside(&self) -> String {
        format!("{}/agent.sock", node_dir(&self.name, "run"))
    }

    /// The state directory as the node sees it.
    #[must_use]
    pub fn state_dir(&self) -> String {
        node_dir(&self.name, "lib")
    }

    /// More arguments for the agent's next start.
    pub fn set_agent_args(&self, args: &[&str]) {
        *self
            .extra_args
            .lock()
            .unwrap_or_else(PoisonError::into_inner) =
            args.iter().map(ToString::to_string).collect();
    }

    /// Starts the agent and waits until it is ready to serve ADD.
    ///
    /// # Errors
    /// When it ends, or is not ready in time; the end of its log is in the message.
    pub fn start_agent(&self) -> Result<()> {
        self.launch_agent()?;
        self.await_ready(READY)
    }

    /// Starts the agent and does not wait.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch_agent(&self) -> Result<()> {
        let (command, place) = self.agent_command()?;
        let child = spawn::spawn(command, place)?;
        let mut agent = self.agent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut old) = agent.replace(child) {
            spawn::kill(&mut old);
        }
        Ok(())
    }

    /// The agent's command line, and the place to run it in.
    ///
    /// # Errors
    /// When its log cannot be opened or its cgroup is gone.
    pub fn agent_command(&self) -> Result<(Command, Place)> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path(&format!("{ROOT}/{}/agent.log", self.name)))
            .context("opening the agent's log")?;
        let extra = self
            .extra_args
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut command = Command::new(bin("weir-agent")?);
        if !extra.iter().any(|arg| arg.starts_with("--uplinks")) {
            command.args(["--uplinks", UPLINK]);
        }
        if !extra.iter().any(|arg| arg.starts_with("--mode")) {
            // The nodes are on one subnet. What is about the overlay asks for it.
            command.args(["--mode", "native"]);
        }
        command
            .args([
                "--source",
                &format!("dir:{ROOT}/source"),
                "--node-name",
                &self.name,
            ])
            .args([
                "--socket",
                &self.socket_inside(),
                "--state-dir",
                &self.state_dir(),
            ])
            .arg("--cgroup")
            .arg(&self.cgroup)
            .args(["--log-level", "debug"])
            .args(extra.iter())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Ok((command, self.place().in_cgroup(&self.cgroup.join("host"))?))
    }

    /// Waits until the agent says that it is ready.
    ///
    /// # Errors
    /// When it ends, or is not ready in time.
    pub fn await_ready(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let status = self.client().status();
            if status.as_ref().is_ok_and(|status| status.ready) {
                return Ok(());
            }
            let ended = {
                let mut agent = self.agent.lock().unwrap_or_else(PoisonError::into_inner);
                match agent.as_mut() {
                    Some(child) => child.try_wait()?,
                    None => bail!("no agent was started on {}", self.name),
                }
            };
            if ended.is_some() || Instant::now() > deadline {
                let what = ended.map_or_else(
                    || format!("is not ready after {limit:?} (status: {status:?})"),
                    |code| format!("ended ({code})"),
                );
                bail!(
                    "the agent of {} {what}; its log ends:\n{}",
                    self.name,
                    self.log_tail(30)
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The agent's process id, if it was started.
    #[must_use]
    pub fn agent_pid(&self) -> Option<u32> {
        self.agent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .map(Child::id)
    }

    /// Kills the agent with SIGKILL.
    pub fn kill_agent(&self) {
        let agent = self
            .agent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(mut child) = agent {
            spawn::kill(&mut child);
        }
    }

    /// Stops the agent with SIGTERM and waits for its end.
    ///
    /// # Errors
    /// When it does not end within 10 s.
    pub fn stop_agent(&self) -> Result<()> {
        let agent = self
            .agent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(mut child) = agent else {
            return Ok(());
        };
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                spawn::kill(&mut child);
                bail!(
                    "the agent of {} did not end within 10 s of SIGTERM",
                    self.name
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The agent's whole log.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path(&format!("{ROOT}/{}/agent.log", self.name)))
            .unwrap_or_default()
    }

    /// The last lines of the agent's log.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// A client of the agent's socket API.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.socket()).timeout(Duration::from_secs(15))
    }

    /// Runs a program on the node, as one of its host processes, with `input` on standard input.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&self, mut command: Command, input: &[u8]) -> Result<Output> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let place = self.place().in_cgroup(&self.cgroup.join("host"))?;
        let mut child = spawn::spawn(command, place)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that does not read its input closes it; that is no failure.
            let _ = stdin.write_all(input);
        }
        Ok(child.wait_with_output()?)
    }

    /// Runs `weir ARGS` on the node against its agent.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn weir(&self, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(bin("weir")?);
        command.args(args);
        self.run(command, &[])
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill_agent();
    }
}
