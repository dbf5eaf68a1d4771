//! Two nodes and a pod on each within the machine, for ways between nodes that only these kernels have:
//! the pods talk, and the network between the nodes sees what it may see.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket,
    sockopt::RcvBufForce,
};
use serde_json::json;
use weir_agent::compile::wireguard::KEY_ANNOTATION;
use weir_lab::spawn::run_in;
use weir_lab::{Lab, Listen, Outcome, Pod, PodSpec, Probe, Proto};

/// Where the pods' servers listen.
pub const PORT: u16 = 8080;
/// UDP ports of WireGuard and Geneve.
pub const WIREGUARD: u16 = 51820;
const GENEVE: u16 = 6081;
/// How long one attempt may take: the machine's processor is emulated.
pub const PATIENCE_MS: u64 = 10_000;
/// How long an agent may take until it is ready: the verifier is emulated, too.
const READY: Duration = Duration::from_secs(400);
/// How long the nodes may take to learn of each other's keys.
pub const LEARNING: Duration = Duration::from_secs(60);
pub const PROTOS: [Proto; 2] = [Proto::Tcp, Proto::Udp];

/// Pods on two nodes talk through WireGuard and nothing of them is to be seen; before the nodes know each
/// other's keys, nothing goes out at all.
pub fn encrypted((lab, pods): &World) -> Result<String> {
    let wire = Wire::tap(lab)?;
    let [here, there] = [&pods[0], &pods[1]];
    for to in &there.addresses {
        for proto in PROTOS {
            let probe = Probe::new(*to, PORT, proto).timeout_ms(1500);
            let outcome = here.probe(probe)?;
            ensure!(
                matches!(outcome, Outcome::Timeout { .. }),
                "without a key {to} is reached: {outcome:?}"
            );
        }
    }
    nothing_bare(&wire.seen(), pods)?;
    let status = serde_json::to_string(&lab.nodes[0].client().status()?)?;
    ensure!(
        status.contains("Node n2: has no WireGuard key"),
        "the status does not name the node: {status}"
    );

    for node in &lab.nodes {
        let file = node.path(&format!("{}/wireguard.pub", node.state_dir()));
        let key = std::fs::read_to_string(&file)
            .with_context(|| format!("{}'s public key", node.name))?;
        let mut object = lab.cluster.get("Node", None, &node.name)?;
        object["metadata"]["annotations"] = json!({KEY_ANNOTATION: key.trim()});
        lab.cluster.apply(&object)?;
    }
    until_reached(here, there)?;
    let wire = Wire::tap(lab)?;
    talk(pods)?;
    restart(lab)?;
    talk(pods).context("after a restart of the agents")?;
    let seen = wire.seen();
    nothing_bare(&seen, pods)?;
    packed(&seen, lab, WIREGUARD)?;
    mtu(here, 1440)?;
    Ok("pods talk over IPv4 and IPv6, only UDP between the nodes is to be seen, and without a key nothing".to_owned())
}

/// The same pods talk through Geneve once their nodes' agents are told to.
pub fn geneve((lab, pods): &World) -> Result<String> {
    for node in &lab.nodes {
        node.set_agent_args(&["--mode=geneve", "--xdp=off"]);
    }
    restart(lab)?;
    until_reached(&pods[0], &pods[1])?;
    let wire = Wire::tap(lab)?;
    talk(pods)?;
    let seen = wire.seen();
    nothing_bare(&seen, pods)?;
    packed(&seen, lab, GENEVE)?;
    Ok("pods talk over IPv4 and IPv6, and only packed packets are to be seen".to_owned())
}

/// A lab, and a pod on each of its nodes.
pub type World = (Lab, [Arc<Pod>; 2]);

/// Makes the world, with encryption.
pub fn world() -> Result<World> {
    let lab = Lab::builder()
        .nodes(2)
        .agent_arg("--encryption=wireguard")
        .agent_arg("--xdp=off")
        .without_agents()
        .start()?;
    for node in &lab.nodes {
        node.launch_agent()?;
    }
    for node in &lab.nodes {
        node.await_ready(READY)?;
    }
    let pod = |number: usize| {
        let name = format!("p{number}");
        let spec = PodSpec::new("default", &name, number).label("app", &name);
        let spec = PROTOS.iter().fold(spec, |spec, &proto| {
            spec.port(Listen { proto, port: PORT }, "")
        });
        lab.add_pod(&spec)
    };
    let pods = [pod(0)?, pod(1)?];
    Ok((lab, pods))
}

/// Their programs stay, so that this takes no longer than elsewhere.
fn restart(lab: &Lab) -> Result<()> {
    for node in &lab.nodes {
        node.stop_agent()?;
        node.launch_agent()?;
    }
    lab.nodes
        .iter()
        .try_for_each(|node| node.await_ready(READY))
}

/// Each pod reaches the other, in both families, with packets as large as may be.
pub fn talk(pods: &[Arc<Pod>; 2]) -> Result<()> {
    let [one, other] = pods;
    for (from, to) in [(one, other), (other, one)] {
        for address in &to.addresses {
            for (proto, bytes) in [(Proto::Tcp, 60_000), (Proto::Udp, 1300)] {
                let probe = Probe::new(*address, PORT, proto).bytes(bytes);
                let outcome = from.probe(probe.timeout_ms(PATIENCE_MS))?;
                answered(&outcome, to).with_context(|| format!("{proto:?} to {address}"))?;
            }
        }
    }
    Ok(())
}

pub fn answered(outcome: &Outcome, by: &Pod) -> Result<()> {
    match outcome {
        Outcome::Answer { from, .. } if *from == by.key() => Ok(()),
        other => bail!("{other:?}, not an answer of {}", by.key()),
    }
}

pub fn until_reached(from: &Pod, to: &Pod) -> Result<()> {
    let started = Instant::now();
    loop {
        let outcome = from.probe(Probe::tcp(to.v4(), PORT).timeout_ms(2000))?;
        if answered(&outcome, to).is_ok() {
            return Ok(());
        }
        ensure!(
            started.elapsed() < LEARNING,
            "{} is not reached: {outcome:?}",
            to.key()
        );
    }
}

fn mtu(pod: &Pod, expected: u32) -> Result<()> {
    let link = run_in(&pod.place()?.net_only(), || {
        Ok(weir_net::Netlink::open()?.link("eth0")?)
    })?;
    ensure!(link.mtu == expected, "the pod's MTU is {}", link.mtu);
    Ok(())
}

/// A packet socket on all devices of the network between the nodes.
pub struct Wire(OwnedFd);

/// Addresses of a packet, and UDP's destination port.
type OnWire = (IpAddr, IpAddr, Option<u16>);

impl Wire {
    pub fn tap(lab: &Lab) -> Result<Self> {
        run_in(&lab.fabric().net_only(), || {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let all = Some(SockProtocol::EthAll);
            let fd = socket(AddressFamily::Packet, SockType::Datagram, flags, all)?;
            setsockopt(&fd, RcvBufForce, &(64 << 20))?;
            Ok(Self(fd))
        })
    }

    /// What has passed.
    pub fn seen(self) -> Vec<OnWire> {
        let mut seen = Vec::new();
        let mut buffer = [0; 128];
        while let Ok(length) = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            seen.extend(parse(&buffer[..length]));
        }
        seen
    }
}

/// Nothing has passed with a pod's address on it.
pub fn nothing_bare(seen: &[OnWire], pods: &[Arc<Pod>; 2]) -> Result<()> {
    let is_pod = |ip: &IpAddr| pods.iter().any(|pod| pod.addresses.contains(ip));
    let bare = seen.iter().find(|(from, to, _)| is_pod(from) || is_pod(to));
    ensure!(bare.is_none(), "in the clear: {bare:?}");
    Ok(())
}

/// Packets to a UDP port have passed from each node to the other.
fn packed(seen: &[OnWire], lab: &Lab, port: u16) -> Result<()> {
    let [one, other] = [0, 1].map(|node: usize| lab.nodes[node].addresses[0]);
    for (from, to) in [(one, other), (other, one)] {
        ensure!(
            seen.contains(&(from, to, Some(port))),
            "no packet from {from} to UDP port {port} of {to} in {}",
            seen.len()
        );
    }
    Ok(())
}

fn parse(packet: &[u8]) -> Option<OnWire> {
    let ip = |at: usize, len: usize| -> Option<IpAddr> {
        let bytes = packet.get(at..at + len)?;
        Some(match <[u8; 4]>::try_from(bytes) {
            Ok(v4) => v4.into(),
            Err(_) => <[u8; 16]>::try_from(bytes).ok()?.into(),
        })
    };
    let (from, to, proto, l4) = match packet.first()? >> 4 {
        4 => (ip(12, 4)?, ip(16, 4)?, *packet.get(9)?, 20),
        6 => (ip(8, 16)?, ip(24, 16)?, *packet.get(6)?, 40),
        _ => return None,
    };
    let port = packet.get(l4 + 2..l4 + 4).filter(|_| proto == 17);
    let port = port.map(|port| u16::from_be_bytes([port[0], port[1]]));
    Some((from, to, port))
}
