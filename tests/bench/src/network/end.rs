//! Ends of traffic: where frames go into a node, and where they come out and end.

use std::fs;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use weir_abi::Proto;
use weir_agent::packet::{Flow, Macs, first};
use weir_lab::control::Control;
use weir_lab::spawn::{Place, run_in};
use weir_net::Netlink;
use weir_net::netlink::{Link, Mac};

use super::sys::{Ports, Sink, Source};

/// The flags of a segment that belongs to a connection, and of its answer to a SYN.
const ACK: u8 = 0x10;
const SYN_ACK: u8 = 0x12;
const CLIENT_PORT: u16 = 40_000;
const PORT: u16 = 8080;
/// How long one turn may take.
const LIMIT: Duration = Duration::from_secs(10);

/// A namespace at a veth pair.
pub struct End {
    /// Its node.
    pub node: Place,
    pub address: IpAddr,
    pid: u32,
    /// The pair's side in the node.
    pub outside: Link,
    /// The side within.
    pub inside: Link,
    /// What keeps it.
    _control: Arc<Control>,
}

impl End {
    /// The namespace of `control`, behind its `eth0`.
    pub fn new(node: Place, control: &Arc<Control>, address: IpAddr) -> Result<Self> {
        let pid = control.pid();
        let inside = run_in(&Place::of_process(pid)?.net_only(), || {
            Ok(Netlink::open()?.link("eth0")?)
        })?;
        let index = inside.lower.context("eth0 is no veth")?;
        let outside = run_in(&node.net_only(), || {
            Ok(Netlink::open()?.link_by_index(index)?)
        })?;
        control.stop_recording()?;
        Ok(Self {
            node,
            address,
            pid,
            outside: outside.context("eth0 has no other side in its node")?,
            inside,
            _control: Arc::clone(control),
        })
    }

    /// Ends all that comes in, while what this returns lives.
    pub fn sink(&self) -> Result<Sink> {
        let inside = Place::of_process(self.pid)?.net_only();
        run_in(&inside, || Sink::attach(self.inside.index))
    }

    /// Lets the node find it without asking, as it answers nothing.
    pub fn make_known(&self) -> Result<()> {
        run_in(&self.node.net_only(), || {
            let mac = self.inside.mac.context("eth0 has no MAC address")?;
            Ok(Netlink::open()?.set_neighbour(self.outside.index, self.address, mac)?)
        })
    }

    /// Frames that have come in.
    fn received(&self) -> Result<u64> {
        let path = format!("/proc/{}/net/dev", self.pid);
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = text
            .lines()
            .find_map(|l| l.trim_start().strip_prefix("eth0:"));
        // Bytes, packets, …
        let packets = line.and_then(|line| line.split_whitespace().nth(1));
        let packets = packets.with_context(|| format!("no eth0 in {path}"))?;
        Ok(packets.parse()?)
    }
}

/// A way for frames from one end to another.
pub struct Way<'a> {
    pub from: &'a End,
    pub to: &'a End,
    /// Over a bridge: frames are for the other end's own MAC address.
    pub bridged: bool,
}

/// What is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Segments of a connection that is open.
    Established,
    /// SYNs of connections that nobody has seen.
    New,
}

impl Way<'_> {
    /// Opens the connection and returns a source of what is to be sent.
    pub fn source(&self, what: What) -> Result<Source> {
        let back = Way {
            from: self.to,
            to: self.from,
            bridged: self.bridged,
        };
        for (way, ports, flags) in [
            (self, [CLIENT_PORT, PORT], None),
            (&back, [PORT, CLIENT_PORT], Some(SYN_ACK)),
            (self, [CLIENT_PORT, PORT], Some(ACK)),
        ] {
            let (frame, l4) = way.frame(ports, flags)?;
            let source = Source::new(&frame, l4, Ports::Same, way.from.outside.index)?;
            way.send(&source, 1, 0)?;
        }
        let (flags, ports) = match what {
            What::Established => (Some(ACK), Ports::Same),
            What::New => (None, Ports::Random),
        };
        let (frame, l4) = self.frame([CLIENT_PORT, PORT], flags)?;
        Source::new(&frame, l4, ports, self.from.outside.index)
    }

    /// A segment and where its ports stand; a SYN without flags of its own.
    fn frame(&self, [source_port, port]: [u16; 2], flags: Option<u8>) -> Result<(Vec<u8>, usize)> {
        let mac = |mac: Option<Mac>| mac.map(|mac| mac.0).context("a device has no MAC address");
        let flow = Flow {
            source: self.from.address,
            destination: self.to.address,
            protocol: Proto::TCP,
            source_port,
            port,
        };
        let macs = Macs {
            source: mac(self.from.inside.mac)?,
            destination: if self.bridged {
                mac(self.to.inside.mac)?
            } else {
                mac(self.from.outside.mac)?
            },
        };
        let mut frame = first(&flow, macs).map_err(|error| anyhow!(error))?;
        let l4 = 14 + if flow.source.is_ipv4() { 20 } else { 40 };
        if let Some(flags) = flags {
            let field = frame.get_mut(l4 + 13).context("the frame is too short")?;
            // Nobody on the way looks at the checksum.
            *field = flags;
        }
        Ok((frame, l4))
    }

    /// Sends on processor `cpu`; how long it took until all had arrived.
    pub fn send(&self, source: &Source, count: u32, cpu: usize) -> Result<Duration> {
        run_in(&self.from.node.net_only(), || {
            let mut set = CpuSet::new();
            set.set(cpu)?;
            sched_setaffinity(Pid::from_raw(0), &set).context("binding to a processor")?;
            let before = self.to.received()?;
            let start = Instant::now();
            source.send(count)?;
            loop {
                let arrived = self.to.received()? - before;
                // Others (neighbour discovery) may come in as well.
                if arrived >= u64::from(count) {
                    return Ok(start.elapsed());
                }
                ensure!(
                    start.elapsed() < LIMIT,
                    "{arrived} of {count} frames arrived from {} at {}",
                    self.from.address,
                    self.to.address
                );
                std::thread::yield_now();
            }
        })
    }
}
