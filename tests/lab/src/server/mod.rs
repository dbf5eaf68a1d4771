//! The process in each pod: it listens and names itself to whoever comes, records what arrives,
//! and is the pod's prober as well. It ends when the lab closes its end of standard input.

mod capture;
mod listen;
mod load;
mod ping;
mod probe;
mod socket;
mod stream;

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use crate::wire::{Answer, Command, Request, Response};

/// Probes of one pod that are under way at once; the time limit of one begins with its turn.
const PROBES_AT_ONCE: usize = 400;

/// State shared by the tasks of one server.
struct Shared {
    /// `namespace/pod`.
    name: String,
    /// What the packet socket saw.
    seen: capture::Record,
    /// What reads that socket, until it is told to stop.
    recorder: Mutex<Option<JoinHandle<()>>>,
    /// The one address it listens on and probes from; none for all.
    bind: Option<IpAddr>,
    /// Stop signals of running exchanges.
    exchanges: Mutex<HashMap<u64, watch::Sender<bool>>>,
    /// Whether connections are closed after their next answer.
    draining: AtomicBool,
    /// Bounds the probes under way.
    probes: Semaphore,
}

/// Runs the server of the pod `name` until the other end of standard input is closed. Call it in
/// the pod's network namespace. With `bind` it listens on that address only and probes from it.
///
/// # Errors
/// When standard input is no socket, or the packet socket cannot be opened.
pub fn run(name: &str, bind: Option<IpAddr>) -> Result<()> {
    crate::netlink::raise_loopback().context("bringing up the pod's loopback interface")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(name.to_owned(), bind))
}

async fn serve(name: String, bind: Option<IpAddr>) -> Result<()> {
    let control: OwnedFd = std::io::stdin().as_fd().try_clone_to_owned()?;
    let control = std::os::unix::net::UnixStream::from(control);
    control.set_nonblocking(true)?;
    let control = UnixStream::from_std(control).context("standard input is not a socket")?;
    let (reader, mut writer) = control.into_split();

    let seen = capture::Record::default();
    let recorder = capture::start(seen.clone(), bind).context("opening a packet socket")?;
    let shared = Arc::new(Shared {
        name,
        bind,
        seen,
        recorder: Mutex::new(Some(recorder)),
        exchanges: Mutex::new(HashMap::new()),
        draining: AtomicBool::new(false),
        probes: Semaphore::new(PROBES_AT_ONCE),
    });
    crate::spawn::release_output()?;

    let (answers, mut queue) = mpsc::unbounded_channel::<Response>();
    tokio::spawn(async move {
        while let Some(response) = queue.recv().await {
            let Ok(mut line) = serde_json::to_vec(&response) else {
                continue;
            };
            line.push(b'\n');
            if writer.write_all(&line).await.is_err() {
                break;
            }
        }
    });

    let mut lines = BufReader::new(reader).lines();
    while let Some(line) = lines.next_line().await? {
        let request: Request = serde_json::from_str(&line).context("reading a request")?;
        let (shared, answers) = (Arc::clone(&shared), answers.clone());
        tokio::spawn(async move {
            let answer = handle(&shared, request.id, request.command).await;
            let _ = answers.send(Response {
                id: request.id,
                answer,
            });
        });
    }
    Ok(())
}

async fn handle(shared: &Arc<Shared>, id: u64, command: Command) -> Answer {
    match command {
        Command::Listen(ports) => match listen::listen(shared, &ports) {
            Ok(unsupported) => Answer::Listening(unsupported),
            Err(error) => Answer::Error(format!("{error:#}")),
        },
        Command::Probe(probe) => {
            let Ok(_permit) = shared.probes.acquire().await else {
                return Answer::Error("the server is ending".to_owned());
            };
            Answer::Probe(probe::run(probe, shared.bind).await)
        }
        Command::Ping(ping) => {
            let Ok(_permit) = shared.probes.acquire().await else {
                return Answer::Error("the server is ending".to_owned());
            };
            Answer::Probe(ping::run(ping, shared.bind).await)
        }
        Command::Seen => Answer::Seen(shared.seen.list()),
        Command::StopRecording => {
            let recorder = shared.recorder.lock().ok().and_then(|mut r| r.take());
            if let Some(recorder) = recorder {
                recorder.abort();
                // Aborted, and with it its socket closed.
                let _ = recorder.await;
            }
            Answer::NotRecording
        }
        Command::Exchange(exchange) => {
            Answer::Exchange(stream::run(exchange, stop_signal(shared, id)).await)
        }
        Command::Load(load) => {
            Answer::Load(load::run(load, shared.bind, stop_signal(shared, id)).await)
        }
        Command::Drain => {
            shared.draining.store(true, Ordering::Relaxed);
            Answer::Draining
        }
        Command::Stop(exchange) => {
            let stop = shared
                .exchanges
                .lock()
                .ok()
                .and_then(|mut map| map.remove(&exchange));
            match stop {
                Some(stop) => {
                    let _ = stop.send(true);
                    Answer::Stopped
                }
                None => Answer::Error(format!("nothing that request {exchange} began is running")),
            }
        }
    }
}

/// What tells the work that request `id` begins to stop.
fn stop_signal(shared: &Shared, id: u64) -> watch::Receiver<bool> {
    let (stop, stopped) = watch::channel(false);
    if let Ok(mut running) = shared.exchanges.lock() {
        running.insert(id, stop);
    }
    stopped
}
