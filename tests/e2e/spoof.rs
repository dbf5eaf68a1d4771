//! A hostile pod: what it sends under other addresses goes nowhere.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_lab::netlink::interface_index;
use weir_lab::spawn::run_in;
use weir_lab::{Lab, Listen, Outcome, Pod, PodSpec, Probe, Proto};

const PORT: u16 = 9000;
/// Source ports by which the victim's record tells the packets apart.
pub const FORGED: u16 = 4001;
pub const HONEST: u16 = 4002;

fn checksum(parts: &[&[u8]]) -> u16 {
    let all: Vec<u8> = parts.concat();
    let sum: u32 = all
        .chunks(2)
        .map(|pair| {
            u32::from(u16::from_be_bytes([
                pair[0],
                pair.get(1).copied().unwrap_or(0),
            ]))
        })
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}

/// An IP packet with a UDP datagram in it.
pub fn datagram(from: IpAddr, to: IpAddr, source_port: u16) -> Vec<u8> {
    let payload = b"forged";
    let length = (8 + payload.len()) as u16;
    let mut udp = Vec::new();
    for word in [source_port, PORT, length, 0] {
        udp.extend(word.to_be_bytes());
    }
    udp.extend(payload);
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            // No UDP checksum: allowed in IPv4.
            let mut header = vec![0x45, 0];
            header.extend((20 + length).to_be_bytes());
            header.extend([0, 1, 0, 0, 64, 17, 0, 0]);
            header.extend(from.octets());
            header.extend(to.octets());
            let sum = checksum(&[&header]).to_be_bytes();
            header[10..12].copy_from_slice(&sum);
            [header, udp].concat()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let pseudo = [
                &from.octets()[..],
                &to.octets(),
                &u32::from(length).to_be_bytes(),
                &[0, 0, 0, 17],
            ];
            let sum = checksum(&[&pseudo.concat(), &udp]).to_be_bytes();
            udp[6..8].copy_from_slice(&sum);
            let mut header = vec![0x60, 0, 0, 0];
            header.extend(length.to_be_bytes());
            header.extend([17, 64]);
            header.extend(from.octets());
            header.extend(to.octets());
            [header, udp].concat()
        }
        _ => panic!("one family"),
    }
}

/// The protocol of an IP packet's frame.
fn ethertype(packet: &[u8]) -> u16 {
    if packet[0] >> 4 == 6 {
        libc::ETH_P_IPV6 as u16
    } else {
        libc::ETH_P_IP as u16
    }
}

/// Sends an IP packet out of a pod's interface, to its gateway, past the pod's own routing.
fn send_raw(pod: &Pod, packet: &[u8]) {
    send_frame(pod, ethertype(packet), packet);
}

/// The same with a VLAN's tag.
fn send_tagged(pod: &Pod, vlan: u16, packet: &[u8]) {
    let tag = [vlan.to_be_bytes(), ethertype(packet).to_be_bytes()].concat();
    send_frame(pod, libc::ETH_P_8021Q as u16, &[&tag, packet].concat());
}

fn send_frame(pod: &Pod, protocol: u16, packet: &[u8]) {
    run_in(&pod.place().unwrap().net_only(), || {
        let index = interface_index("eth0")?;
        // SAFETY: a system call without pointers; the number it returns is ours alone.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error().into());
        }
        // SAFETY: `fd` was just returned by socket().
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: all-zero bytes are a valid sockaddr_ll.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_protocol = protocol.to_be();
        to.sll_ifindex = index.cast_signed();
        to.sll_halen = 6;
        let mac = host_mac(pod);
        to.sll_addr[..6].copy_from_slice(&mac);
        // SAFETY: the pointers are to live objects of the sizes given.
        let sent = unsafe {
            libc::sendto(
                fd.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const to).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        anyhow::ensure!(sent == packet.len() as isize, io::Error::last_os_error());
        Ok(())
    })
    .unwrap();
}

/// The MAC address of the host's side, from the result of ADD.
fn host_mac(pod: &Pod) -> [u8; 6] {
    let interfaces = pod.result["interfaces"].as_array().unwrap();
    let host = interfaces
        .iter()
        .find(|interface| interface["sandbox"].is_null())
        .unwrap();
    let mac: Vec<u8> = host["mac"]
        .as_str()
        .unwrap()
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    mac.try_into().unwrap()
}

/// Waits for what was sent to a pod honestly, in both families.
fn await_honest(victim: &Pod) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while arrived(victim)
        .iter()
        .filter(|port| **port == HONEST)
        .count()
        < 2
    {
        assert!(
            Instant::now() < deadline,
            "{} saw {:?}",
            victim.key(),
            arrived(victim)
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Source ports of datagrams that arrived in a pod.
pub fn arrived(pod: &Pod) -> Vec<u16> {
    let seen = pod.seen().unwrap();
    seen.iter()
        .filter(|seen| seen.port == PORT)
        .map(|seen| seen.from.port())
        .collect()
}

fn pods() -> (Lab, Arc<Pod>, Arc<Pod>, Vec<Arc<Pod>>) {
    let lab = Lab::builder().nodes(2).start().unwrap();
    let pod = |name: &str, node| lab.add_pod(&PodSpec::new("default", name, node)).unwrap();
    let (hostile, friend) = (pod("hostile", 0), pod("friend", 0));
    let victims = vec![pod("near", 0), pod("far", 1)];
    (lab, hostile, friend, victims)
}

#[test]
fn packets_under_a_foreign_source_address_reach_nobody_and_are_counted() {
    let (lab, hostile, friend, victims) = pods();
    for victim in &victims {
        let v4 = [
            "203.0.113.9".parse().unwrap(),
            friend.v4(),
            lab.nodes[0].addresses[0],
            lab.nodes[1].addresses[0],
        ];
        let v6 = [
            "2001:db8::9".parse().unwrap(),
            friend.v6(),
            lab.nodes[0].addresses[1],
            lab.nodes[1].addresses[1],
        ];
        for (to, forged, own) in [
            (victim.v4(), v4, hostile.v4()),
            (victim.v6(), v6, hostile.v6()),
        ] {
            for from in forged {
                send_raw(&hostile, &datagram(from, to, FORGED));
            }
            // What it sends after them under its own address comes, so they would have come too.
            send_raw(&hostile, &datagram(own, to, HONEST));
        }
        await_honest(victim);
        assert!(
            !arrived(victim).contains(&FORGED),
            "{} saw a forged packet",
            victim.key()
        );
    }
}

#[test]
fn an_ipv6_packet_with_a_mapped_ipv4_address_reaches_nobody() {
    let (_lab, hostile, friend, victims) = pods();
    for victim in &victims {
        let mapped = |address: IpAddr| -> IpAddr {
            let IpAddr::V4(v4) = address else {
                panic!("IPv4")
            };
            v4.to_ipv6_mapped().into()
        };
        for from in [
            mapped(hostile.v4()),
            mapped(friend.v4()),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ] {
            send_raw(&hostile, &datagram(from, victim.v6(), FORGED));
        }
        send_raw(
            &hostile,
            &datagram(hostile.v6(), mapped(victim.v4()), FORGED),
        );
        send_raw(&hostile, &datagram(hostile.v6(), victim.v6(), HONEST));
        let deadline = Instant::now() + Duration::from_secs(5);
        while !arrived(victim).contains(&HONEST) {
            assert!(
                Instant::now() < deadline,
                "{} saw {:?}",
                victim.key(),
                arrived(victim)
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(!arrived(victim).contains(&FORGED), "{}", victim.key());
    }
}

#[test]
fn a_forged_source_does_not_open_what_policy_shuts() {
    let (lab, hostile, friend, victims) = pods();
    lab.cluster
        .apply(&serde_json::json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "default", "name": "shut"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
        }))
        .unwrap();
    let udp = Listen {
        proto: Proto::Udp,
        port: PORT,
    };
    let victim = &victims[0];
    victim.control.listen(&[udp]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let shut = Probe::new(victim.v4(), PORT, Proto::Udp).timeout_ms(150);
    while !matches!(friend.probe(shut).unwrap(), Outcome::Timeout { .. }) {
        assert!(Instant::now() < deadline, "the policy is not in force");
    }
    // The node's own address is let in from the node itself: a pod must not profit from that.
    for (from, to) in [
        (lab.nodes[0].addresses[0], victim.v4()),
        (lab.nodes[0].addresses[1], victim.v6()),
    ] {
        send_raw(&hostile, &datagram(from, to, FORGED));
    }
    // The node's real packet comes, after which the forged one would have come.
    let host = lab.add_host_server(0, &[]).unwrap();
    for to in [victim.v4(), victim.v6()] {
        let outcome = host
            .probe(Probe::new(to, PORT, Proto::Udp).timeout_ms(4000))
            .unwrap();
        assert!(matches!(outcome, Outcome::Answer { .. }), "{outcome:?}");
    }
    assert!(!arrived(victim).contains(&FORGED));
}

#[test]
fn frames_that_a_pod_tags_for_another_network_reach_nobody() {
    let (_lab, hostile, _friend, victims) = pods();
    for victim in &victims {
        for (from, to) in [(hostile.v4(), victim.v4()), (hostile.v6(), victim.v6())] {
            // 0 is a tag of priority only, which the kernel takes for the device's own traffic.
            for vlan in [0, 5, 0xe005] {
                send_tagged(&hostile, vlan, &datagram(from, to, FORGED));
            }
            send_raw(&hostile, &datagram(from, to, HONEST));
        }
        await_honest(victim);
        assert!(!arrived(victim).contains(&FORGED), "{}", victim.key());
    }
}
