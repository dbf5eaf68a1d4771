//! The short way of established flows: it does what the whole way does, and what it must not decide it leaves
//! to it.

use weir_abi::Proto;
use weir_abi::conntrack::{CtEntry, Tuple};
use weir_abi::counter::Counter;
use weir_abi::endpoint::Endpoint;
use weir_abi::node::{NodeCidr, OVERLAY_MAC, config, node_cidr};
use weir_abi::policy::GroupId;
use weir_abi::service::BackendId;

use crate::packets::*;
use crate::rig::*;

/// A backend that does not exist: of it only the whole way asks, and then opens the flow anew.
const NO_BACKEND: BackendId = BackendId(4711);

fn local(family: Family) -> Tuple {
    tuple(family.a(), 4000, family.b(), 80)
}

fn remote(family: Family) -> Tuple {
    tuple(family.a(), 4000, family.remote(), 80)
}

fn behind_uplink(node: &mut Node) {
    let uplink = node.if_uplink;
    for family in Family::BOTH {
        let (addr, len) = family.remote_cidr();
        node.node_cidr(addr, len, uplink);
    }
}

/// What comes back, as it is addressed there.
fn reply(t: &Tuple, hook: Hook) -> Packet {
    let mac = if hook == Hook::FromB {
        MAC_HOST_B
    } else {
        MAC_UPLINK
    };
    Packet::udp(&t.reversed(), b"!").addressed(mac)
}

/// Opens a flow of datagrams from A, with two packets of each end.
fn open(node: &mut Node, t: &Tuple, back: Hook) {
    for _ in 0..2 {
        node.run(Hook::FromA, &Packet::udp(t, b"?").frame());
        node.run(back, &reply(t, back).frame()).delivered();
    }
}

/// Whether a packet goes the short way: the flow, which the whole way would open anew, is left as it is.
fn is_short(node: &mut Node, t: &Tuple, run: impl Fn(&mut Node)) -> bool {
    // The clock may move on between the edit and the packet.
    (0..3).any(|_| {
        run(node);
        let before = node.entry(t, Proto::UDP).expect("an entry").1;
        node.edit_entry(t, Proto::UDP, |entry| entry.backend = NO_BACKEND);
        run(node);
        let after = node.entry(t, Proto::UDP).expect("an entry").1;
        node.edit_entry(t, Proto::UDP, |entry| entry.backend = BackendId(0));
        after.tag == before.tag
    })
}

#[test]
fn datagrams_between_pods_of_one_node_go_the_short_way_once_the_flow_is_established() {
    on_node(|node| {
        for family in Family::BOTH {
            let t = local(family);
            open(node, &t, Hook::FromB);
            assert!(is_short(node, &t, |node| {
                node.run(Hook::FromA, &Packet::udp(&t, b"x").frame())
                    .delivered();
            }));
        }
    });
}

#[test]
fn datagrams_to_another_node_go_the_short_way_by_the_uplink_that_the_tables_name() {
    on_node(|node| {
        behind_uplink(node);
        for family in Family::BOTH {
            let t = remote(family);
            open(node, &t, Hook::FromUplink);
            let uplink = node.if_uplink;
            let entry = node.entry(&t, Proto::UDP).unwrap().1;
            assert_eq!(entry.way.uplink(entry.tag, 0), uplink);
            assert!(is_short(node, &t, |node| {
                node.run(Hook::FromA, &Packet::udp(&t, b"x").frame())
                    .expect(REDIRECTED, Counter::Forwarded);
            }));
        }
    });
}

#[test]
fn the_short_way_is_left_when_the_tables_of_nodes_change() {
    on_node(|node| {
        behind_uplink(node);
        for family in Family::BOTH {
            let t = remote(family);
            open(node, &t, Hook::FromUplink);
            let (addr, len) = family.remote_cidr();
            let elsewhere = node.if_overlay;
            node.node_cidr(addr, len, elsewhere);
            node.config(config::GENERATION, family.ip_header() as u64);
            node.run(Hook::FromA, &Packet::udp(&t, b"x").frame())
                .expect(REDIRECTED, Counter::Forwarded);
            let entry = node.entry(&t, Proto::UDP).unwrap().1;
            let generation = family.ip_header() as u32;
            assert_eq!(entry.way.uplink(entry.tag, generation), elsewhere);
        }
    });
}

#[test]
fn what_comes_from_another_node_goes_the_short_way_only_by_the_uplink_that_leads_there() {
    on_node(|node| {
        node.nat(0, 0);
        behind_uplink(node);
        for family in Family::BOTH {
            let t = remote(family).reversed();
            let there = Packet::udp(&t, b"?").addressed(MAC_UPLINK);
            for _ in 0..2 {
                node.run(Hook::FromUplink, &there.frame()).delivered();
                node.run(Hook::FromA, &Packet::udp(&t.reversed(), b"!").frame())
                    .expect(REDIRECTED, Counter::Forwarded);
            }
            assert!(is_short(node, &t, |node| {
                node.run(Hook::FromUplink, &there.frame()).delivered();
            }));
            let other = node.if_overlay;
            let there = there.clone().addressed(OVERLAY_MAC);
            assert!(!is_short(node, &t, |node| {
                node.run_with(Hook::FromUplink, &there.frame(), |ctx| {
                    ctx[skb::INGRESS_IFINDEX] = other;
                    ctx[skb::IFINDEX] = other;
                })
                .delivered();
            }));
        }
    });
}

#[test]
fn a_bare_packet_of_a_flow_whose_other_end_has_moved_behind_the_overlay_is_forged() {
    on_node(|node| {
        behind_uplink(node);
        for family in Family::BOTH {
            let t = remote(family);
            open(node, &t, Hook::FromUplink);
            let overlay = node.if_overlay;
            let (addr, len) = family.remote_cidr();
            let value = NodeCidr {
                node: 1,
                ifindex: overlay,
                flags: node_cidr::OVERLAY,
                tunnel: family.other_node(),
                ..NodeCidr::default()
            };
            node.put_node_cidr(addr, len, value);
            node.config(config::OVERLAY, u64::from(overlay) | 8472 << 32);
            node.config(config::GENERATION, family.ip_header() as u64);
            node.run(Hook::FromUplink, &reply(&t, Hook::FromUplink).frame())
                .dropped(Counter::DropForgedTunnel);
        }
    });
}

/// What is done to a flow, in turn. Each is a packet or a change of the tables.
type Step = fn(&mut Node, Family) -> Option<Run>;

fn from_a(node: &mut Node, packet: &Packet) -> Option<Run> {
    Some(node.run(Hook::FromA, &packet.frame()))
}

fn data(family: Family) -> Packet {
    Packet::tcp(&local(family), ACK).payload(100)
}

/// All kinds of packets of an established flow, and of changes about it.
const STEPS: &[(&str, Step)] = &[
    ("data", |n, f| from_a(n, &data(f))),
    ("its answer", |n, f| {
        let packet = Packet::tcp(&local(f).reversed(), ACK).addressed(MAC_HOST_B);
        Some(n.run(Hook::FromB, &packet.frame()))
    }),
    ("the last hop", |n, f| from_a(n, &data(f).ttl(1))),
    ("one hop more", |n, f| from_a(n, &data(f).ttl(2))),
    ("no hop", |n, f| from_a(n, &data(f).ttl(0))),
    ("as large as the pod takes", |n, f| {
        from_a(
            n,
            &Packet::tcp(&local(f), ACK).payload(1500 - f.ip_header() - 20),
        )
    }),
    ("larger than the pod takes", |n, f| {
        from_a(
            n,
            &Packet::tcp(&local(f), ACK).payload(1501 - f.ip_header() - 20),
        )
    }),
    ("options or extension headers", |n, f| {
        let mut packet = data(f);
        if f == Family::V4 {
            packet.options = vec![1, 1, 1, 0];
        } else {
            packet.first_extension = Some(60);
            packet.options = vec![6, 0, 1, 4, 0, 0, 0, 0];
        }
        from_a(n, &packet)
    }),
    ("a fragment", |n, f| {
        let mut packet = data(f);
        packet.fragment = 0x2000;
        from_a(n, &packet)
    }),
    ("a later fragment", |n, f| {
        let mut packet = data(f);
        packet.fragment = 0x0010;
        from_a(n, &packet)
    }),
    ("a header shorter than TCP's", |n, f| {
        let mut packet = data(f);
        packet.l4[12] = 0x40;
        from_a(n, &packet)
    }),
    ("a header longer than the packet", |n, f| {
        let mut packet = Packet::tcp(&local(f), ACK);
        packet.l4[12] = 0xf0;
        from_a(n, &packet)
    }),
    ("cut within TCP's header", |n, f| {
        let mut packet = data(f);
        packet.l4.truncate(12);
        from_a(n, &packet)
    }),
    ("a stated length beyond the frame", |n, f| {
        let mut frame = data(f).frame();
        frame.truncate(60);
        Some(n.run(Hook::FromA, &frame))
    }),
    ("another version in the header", |n, f| {
        let mut frame = data(f).frame();
        frame[14] ^= 0x30;
        Some(n.run(Hook::FromA, &frame))
    }),
    ("another ethertype", |n, f| {
        let mut frame = data(f).frame();
        frame[12..14].copy_from_slice(&[0x88, 0x47]);
        Some(n.run(Hook::FromA, &frame))
    }),
    ("in another pod's name", |n, f| {
        Some(n.run(Hook::FromB, &data(f).addressed(MAC_HOST_B).frame()))
    }),
    ("from outside", |n, f| {
        Some(n.run(Hook::FromUplink, &data(f).addressed(MAC_UPLINK).frame()))
    }),
    ("a SYN within", |n, f| {
        from_a(n, &Packet::tcp(&local(f), SYN))
    }),
    ("data again", |n, f| from_a(n, &data(f))),
    ("shut by policy", |n, _| {
        n.groups(SLOT_B, GroupId::CLOSED, GroupId::OPEN);
        n.bump(SLOT_B);
        None
    }),
    ("data against policy", |n, f| from_a(n, &data(f))),
    ("open again", |n, _| {
        n.groups(SLOT_B, GroupId::OPEN, GroupId::OPEN);
        n.bump(SLOT_B);
        None
    }),
    ("data under the new policy", |n, f| from_a(n, &data(f))),
    ("data under the same", |n, f| from_a(n, &data(f))),
    ("another pod with the address", |n, _| {
        let b = n.pod_b();
        n.adopt(Endpoint {
            incarnation: b.incarnation + 100,
            ..b
        });
        None
    }),
    ("data for the former pod", |n, f| from_a(n, &data(f))),
    ("a FIN", |n, f| {
        from_a(n, &Packet::tcp(&local(f), FIN | ACK))
    }),
    ("a RST", |n, f| from_a(n, &Packet::tcp(&local(f), RST))),
    ("data after it", |n, f| from_a(n, &data(f))),
];

/// What became of every step.
fn story(node: &mut Node, family: Family) -> Vec<String> {
    let b = node.pod_b();
    node.adopt(b);
    for (from_a, flags) in [(true, SYN), (false, SYN | ACK), (true, ACK)] {
        let t = local(family);
        let (hook, packet) = if from_a {
            (Hook::FromA, Packet::tcp(&t, flags))
        } else {
            let back = Packet::tcp(&t.reversed(), flags).addressed(MAC_HOST_B);
            (Hook::FromB, back)
        };
        node.run(hook, &packet.frame()).delivered();
    }
    let steps = STEPS.iter().map(|(name, step)| {
        let run = step(node, family);
        let entry = node.entry(&local(family), Proto::TCP);
        let entry = entry.map(|(map, entry)| (map, without_chance(entry)));
        format!("{name}: {run:?} {entry:?}")
    });
    steps.collect()
}

/// An entry without what differs from run to run.
fn without_chance(mut entry: CtEntry) -> CtEntry {
    entry.last_seen = 0;
    entry.tag = 0;
    entry.egress.0 &= 0xc000_0000_ffff_ffff;
    entry.ingress.0 &= 0xc000_0000_ffff_ffff;
    entry.way = Default::default();
    entry
}

#[test]
fn whatever_happens_to_a_flow_the_short_way_does_what_the_whole_way_does() {
    let tell = |short: u8| {
        let (send, receive) = std::sync::mpsc::channel();
        on_node_with(
            move |loader| {
                loader.override_global("SHORT_WAY", if short == 0 { &0u8 } else { &1u8 }, true);
            },
            move |node| {
                let stories = Family::BOTH.map(|family| story(node, family));
                send.send(stories).expect("the test waits");
            },
        );
        receive.recv().expect("the stories")
    };
    let (short, whole) = (tell(1), tell(0));
    for (short, whole) in short.iter().flatten().zip(whole.iter().flatten()) {
        assert_eq!(short, whole);
    }
}
