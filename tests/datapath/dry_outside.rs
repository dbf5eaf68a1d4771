//! A dry run of what comes from outside to Services, and of the node's own packets to them.

use weir_abi::Proto;
use weir_abi::counter::Counter;
use weir_abi::service::{Service, frontend, scope};

use crate::dry::*;
use crate::packets::*;
use crate::rig::*;
use crate::tables::node_wide;

const PORT: u16 = 30_080;

/// Flows and their replies, each packet dry and then for real.
#[test]
fn packets_at_the_uplink_come_to_the_same_dry_and_change_no_map() {
    both(|both| {
        both.node.nat(61_000, 61_003);
        for family in Family::BOTH {
            let v4 = family == Family::V4;
            let (cidr, len) = family.remote_cidr();
            let uplink = both.node.if_uplink;
            both.node.node_cidr(cidr, len, uplink);
            let (world, host) = (family.world(), family.node());
            let there = |port| tuple(world, 4000, host, port);
            // Here, elsewhere, on the node itself.
            for (port, backend) in [(1, family.b()), (2, family.remote()), (3, host)] {
                let port = PORT + port;
                let id = u32::from(port);
                both.node
                    .node_port(v4, port, Proto::UDP, &[(id, backend, 8080)]);
                let value = Service {
                    affinity_secs: 100,
                    ..Service::default()
                };
                let key = node_wide(v4, port, Proto::UDP, scope::EVERYONE);
                both.node.frontend(key, value, &[(id, backend, 8080)]);
                let packet = Packet::udp(&there(port), b"question");
                let (ran, run) = both.run(Hook::FromUplink, &packet);
                assert_eq!(ran.report.backend.0, id);
                let seen = see(&run.packet);
                let back = tuple(seen.dst, seen.dport, seen.src, seen.sport);
                let hook = match port - PORT {
                    1 => Hook::FromB,
                    2 => Hook::FromUplink,
                    _ => Hook::ToUplink,
                };
                let (ran, run) = both.run(hook, &Packet::udp(&back, b"answer"));
                assert!(ran.report.tracked());
                assert_eq!((see(&run.packet).src, see(&run.packet).sport), (host, port));
                both.run(Hook::FromUplink, &packet);
                both.node.remove_backend(id);
                let (_, run) = both.run(Hook::FromUplink, &packet);
                assert_eq!(run.counted, [Counter::RefusedNoEndpoint]);
            }
            let silent = Service {
                flags: frontend::SILENT,
                ..Service::default()
            };
            let key = node_wide(v4, PORT, Proto::TCP, scope::EVERYONE);
            both.node.frontend(key, silent, &[]);
            let (_, run) = both.run(Hook::FromUplink, &Packet::tcp(&there(PORT), SYN));
            assert_eq!(run.counted, [Counter::DropNoLocalBackend]);
        }
    });
}

#[test]
fn the_nodes_own_packets_to_a_service_come_to_the_same_dry() {
    both(|both| {
        for family in Family::BOTH {
            let (host, vip) = (family.node(), family.vip());
            let backends = [(7, family.b(), 8080)];
            both.node.service(vip, 80, Proto::UDP, &backends);
            both.node.service(vip, 81, Proto::UDP, &[]);
            for (port, counter) in [(80, Counter::Delivered), (81, Counter::RefusedNoEndpoint)] {
                let packet = Packet::udp(&tuple(host, 4000, vip, port), b"question");
                let (_, run) = both.run(Hook::ToUplink, &packet);
                assert_eq!(run.counted, [counter]);
                both.run(Hook::ToUplink, &packet);
            }
        }
    });
}
