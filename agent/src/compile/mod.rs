//! Pure: from objects and facts to what the kernel must hold.

pub mod endpoint;
pub mod health;
pub mod nat_ports;
pub mod netns;
pub mod node_cidr;
pub mod node_ip;
pub mod node_port;
pub mod overlay;
pub mod policy;
pub mod route;
pub mod service;
pub mod sock_close;
pub mod wireguard;
