//! The two ends of measured traffic, each a process of its own, so that what they cost can be told
//! from what measures them. One thread, blocking calls, one request at a time.

use std::io::{BufRead as _, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::stats::percentile;

/// Bytes of a request and of its answer.
const MESSAGE: usize = 64;
/// How long anything may take before the run counts as broken.
const PATIENCE: Duration = Duration::from_secs(5);
/// First byte of a request after whose answer the server closes.
const LAST: u8 = b'L';

/// How requests are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Connect, one request, close.
    Short,
    /// All requests on one connection.
    Keep,
}

/// What a client is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    pub target: SocketAddr,
    pub mode: Mode,
    pub count: u32,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Of single operations, microseconds.
    pub p50: f64,
    pub p99: f64,
}

/// Both ends on one processor: what the kernel does for a packet is then done in the time of the
/// process that sent it, and counted as that process's.
fn stay_on(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu).context("processor")?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("staying on processor {cpu}"))
}

/// Answers until it is killed.
pub fn serve(port: u16, cpu: usize) -> Result<()> {
    stay_on(cpu)?;
    let listener = TcpListener::bind(("0.0.0.0", port)).context("listening")?;
    println!("ready");
    loop {
        let (mut stream, _) = listener.accept()?;
        let mut message = [0; MESSAGE];
        // A client that breaks off has ended its run.
        while stream.read_exact(&mut message).is_ok() {
            if stream.write_all(&message).is_err() || message[0] == LAST {
                break;
            }
        }
    }
}

/// Takes orders from standard input, a line each, and reports each on standard output.
pub fn ask(cpu: usize) -> Result<()> {
    stay_on(cpu)?;
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let order: Order = serde_json::from_str(&line?)?;
        println!("{}", serde_json::to_string(&run(&order)?)?);
    }
    Ok(())
}

fn run(order: &Order) -> Result<Report> {
    let mut times = Vec::with_capacity(order.count as usize);
    match order.mode {
        Mode::Short => {
            for _ in 0..order.count {
                let start = Instant::now();
                let mut stream = connect(order.target)?;
                exchange(&mut stream, LAST)?;
                let mut rest = [0; 1];
                ensure!(stream.read(&mut rest)? == 0, "more than an answer came");
                drop(stream);
                times.push(start.elapsed());
            }
        }
        Mode::Keep => {
            let mut stream = connect(order.target)?;
            for _ in 0..order.count {
                let start = Instant::now();
                exchange(&mut stream, b'K')?;
                times.push(start.elapsed());
            }
        }
    }
    times.sort();
    let micros = |share| percentile(&times, share).as_secs_f64() * 1e6;
    Ok(Report {
        p50: micros(0.5),
        p99: micros(0.99),
    })
}

fn connect(target: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&target, PATIENCE)
        .with_context(|| format!("connecting to {target}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn exchange(stream: &mut TcpStream, first: u8) -> Result<()> {
    let mut message = [b'.'; MESSAGE];
    message[0] = first;
    stream.write_all(&message)?;
    let mut back = [0; MESSAGE];
    stream
        .read_exact(&mut back)
        .context("waiting for the answer")?;
    if back != message {
        bail!("another answer came");
    }
    Ok(())
}
