//! The lab's end of a pod server: requests go out, answers come back in any order.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command as Process, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::bin;
use crate::spawn::{self, Place};
use crate::wire::{
    Answer, Command, Exchange, ExchangeReport, Listen, Load, LoadReport, Outcome, Ping, Probe,
    Request, Response, Seen,
};

type Callback = Box<dyn FnOnce(Answer) + Send>;
type Pending = Arc<Mutex<HashMap<u64, Callback>>>;

/// A running pod server.
pub struct Control {
    name: String,
    child: Mutex<Child>,
    writer: Mutex<UnixStream>,
    pending: Pending,
    next: AtomicU64,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Control {
    /// Starts a pod server called `name` in a place.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start(name: &str, place: Place) -> Result<Self> {
        Self::start_at(name, place, None)
    }

    /// The same on one address only, which it also probes from.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start_at(name: &str, place: Place, bind: Option<IpAddr>) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Process::new(bin("weir-lab")?);
        command
            .args(["pod-server", name])
            .stdin(Stdio::from(OwnedFd::from(theirs)));
        if let Some(bind) = bind {
            command.args(["--bind", &bind.to_string()]);
        }
        command.stdout(Stdio::null());
        let child = spawn::spawn(command, place)?;
        let pending = Pending::default();
        let reader = ours.try_clone()?;
        let waiting = Arc::clone(&pending);
        std::thread::spawn(move || read_answers(reader, &waiting));
        Ok(Self {
            name: name.to_owned(),
            child: Mutex::new(child),
            writer: Mutex::new(ours),
            pending,
            next: AtomicU64::new(1),
        })
    }

    /// The name by which it answers.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The server's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .id()
    }

    /// Sends a command; `done` is called with the answer, on another thread. Returns its number.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn send(&self, command: Command, done: Callback) -> Result<u64> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, done);
        let mut line = serde_json::to_vec(&Request { id, command })?;
        line.push(b'\n');
        self.writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write_all(&line)
            .with_context(|| format!("the server of {} is gone", self.name))?;
        Ok(id)
    }

    fn call(&self, command: Command) -> Result<Answer> {
        let (sender, receiver) = mpsc::channel();
        self.send(
            command,
            Box::new(move |answer| {
                let _ = sender.send(answer);
            }),
        )?;
        receiver
            .recv()
            .map_err(|_| anyhow!("the server of {} is gone", self.name))
    }

    /// Has the server listen; returns the ports whose protocol the kernel lacks.
    ///
    /// # Errors
    /// When a port is taken.
    pub fn listen(&self, ports: &[Listen]) -> Result<Vec<Listen>> {
        match self.call(Command::Listen(ports.to_vec()))? {
            Answer::Listening(unsupported) => Ok(unsupported),
            other => bail!("{}: {other:?}", self.name),
        }
    }

    /// Makes one probe and waits for its outcome.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn probe(&self, probe: Probe) -> Result<Outcome> {
        match self.call(Command::Probe(probe))? {
            Answer::Probe(outcome) => Ok(outcome),
            other => bail!("{}: {other:?}", self.name),
        }
    }

    /// Asks by ICMP echo and waits for the outcome.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn ping(&self, ping: Ping) -> Result<Outcome> {
        match self.call(Command::Ping(ping))? {
            Answer::Probe(outcome) => Ok(outcome),
            other => bail!("{}: {other:?}", self.name),
        }
    }

    /// The first packets of flows that arrived in the pod.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn seen(&self) -> Result<Vec<Seen>> {
        match self.call(Command::Seen)? {
            Answer::Seen(seen) => Ok(seen),
            other => bail!("{}: {other:?}", self.name),
        }
    }

    /// Ends the record of what arrives, which costs each packet a copy.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn stop_recording(&self) -> Result<()> {
        match self.call(Command::StopRecording)? {
            Answer::NotRecording => Ok(()),
            other => bail!("{}: {other:?}", self.name),
        }
    }

    /// Begins an exchange.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn exchange(self: &Arc<Self>, exchange: Exchange) -> Result<RunningExchange> {
        let (sender, report) = mpsc::channel();
        let id = self.send(
            Command::Exchange(exchange),
            Box::new(move |answer| {
                if let Answer::Exchange(report) = answer {
                    let _ = sender.send(report);
                }
            }),
        )?;
        Ok(RunningExchange {
            control: Arc::clone(self),
            id,
            report,
        })
    }

    /// Begins a load.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn load(self: &Arc<Self>, load: Load) -> Result<RunningLoad> {
        let (sender, report) = mpsc::channel();
        let id = self.send(
            Command::Load(load),
            Box::new(move |answer| {
                if let Answer::Load(report) = answer {
                    let _ = sender.send(report);
                }
            }),
        )?;
        Ok(RunningLoad {
            control: Arc::clone(self),
            id,
            report,
        })
    }

    /// Has the server close each connection after its next answer, as one does that is told to end.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn drain(&self) -> Result<()> {
        match self.call(Command::Drain)? {
            Answer::Draining => Ok(()),
            other => bail!("{}: {other:?}", self.name),
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        spawn::kill(self.child.get_mut().unwrap_or_else(PoisonError::into_inner));
    }
}

/// An exchange that goes on until it is stopped.
#[derive(Debug)]
pub struct RunningExchange {
    control: Arc<Control>,
    id: u64,
    report: mpsc::Receiver<ExchangeReport>,
}

impl RunningExchange {
    /// Waits until it has failed, and returns what was exchanged.
    ///
    /// # Errors
    /// When it goes on for longer than `limit`, or the pod's server is gone.
    pub fn join(self, limit: Duration) -> Result<ExchangeReport> {
        let report = self.report.recv_timeout(limit);
        report.with_context(|| format!("an exchange that should end within {limit:?}"))
    }

    /// Stops it and returns what was exchanged.
    ///
    /// # Errors
    /// When the pod's server is gone.
    pub fn stop(self) -> Result<ExchangeReport> {
        self.control.call(Command::Stop(self.id))?;
        self.report.recv().context("the pod's server is gone")
    }
}

/// A load that goes on until it is stopped or reaches its bounds.
#[derive(Debug)]
pub struct RunningLoad {
    control: Arc<Control>,
    id: u64,
    report: mpsc::Receiver<LoadReport>,
}

impl RunningLoad {
    /// Waits until it has reached one of its bounds, and returns what became of it.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn join(self) -> Result<LoadReport> {
        self.report.recv().context("the server is gone")
    }

    /// Stops it, if it has not ended, and returns what became of it.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn stop(self) -> Result<LoadReport> {
        self.control.call(Command::Stop(self.id))?;
        self.report.recv().context("the server is gone")
    }
}

fn read_answers(reader: UnixStream, pending: &Pending) {
    for line in BufReader::new(reader).lines() {
        let Ok(line) = line else { break };
        let Ok(response) = serde_json::from_str::<Response>(&line) else {
            break;
        };
        let waiting = pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&response.id);
        if let Some(done) = waiting {
            done(response.answer);
        }
    }
    // Dropping the callbacks closes their channels, so that nobody waits for a dead server.
    pending
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clear();
}
