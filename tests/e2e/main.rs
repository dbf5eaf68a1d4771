//! End to end: real agents, the real plugin and real sockets, in the lab.
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

mod adopt;
mod auto;
mod demo;
mod families;
mod fragments;
mod grow;
mod install;
mod join_leave;
mod kill_writes;
mod lab;
mod live;
mod live_flows;
mod masquerade;
mod matrix;
mod netns;
mod node_facts;
mod node_state;
mod nodes;
mod overlay;
mod overlay_short;
mod overlay_wire;
mod path_mtu;
mod pods;
mod policy;
mod restart;
mod reverse_path;
mod rewrite;
mod services;
mod services_close;
mod services_host;
mod services_inside;
mod services_load;
mod services_outside;
mod services_policy;
mod services_rules;
mod services_world;
mod spoof;
mod streams;
mod trace;
mod unreachable;
mod upgrade;
mod uplinks;
mod verify;
mod wait;
mod wire;
