//! The tc programs, packet by packet, by BPF_PROG_TEST_RUN; and with real interfaces where a test
//! run cannot show it. Each behaviour in both address families. Needs root.

#![expect(
    clippy::unwrap_used,
    reason = "the rig's functions are test code too: a map that cannot be written fails the test"
)]

mod by_stack;
mod conntrack;
mod cut_off;
mod dry;
mod dry_outside;
mod dry_run;
mod edge;
mod epochs;
mod forged;
mod fragments;
mod fragments_nat;
mod grow;
mod hostile;
mod icmp;
mod incarnations;
mod live;
mod malformed;
mod masquerade;
mod masquerade_icmp;
mod masquerade_life;
mod node_port;
mod node_port_dsr;
mod node_port_snat;
mod overlay;
mod own_node;
mod packets;
mod paths;
mod pieces;
mod policy;
mod rig;
mod service_flows;
mod services;
mod short_way;
mod stack;
mod tables;
mod to_uplink;
mod vxlan;
mod vxlan_in;
mod wireguard;
mod worlds;
mod xdp;
