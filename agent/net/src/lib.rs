//! Network namespaces, rtnetlink and the bpf(2) calls that aya lacks, as small typed helpers.
//!
//! Everything here is blocking, and safe to call from any thread: the kernel handles a netlink
//! request inside `send(2)`, so there is nothing to await. No caller's thread ever changes its
//! namespace: what must happen in another one runs on a short-lived thread ([`NetNs::run`]), and a
//! netlink socket stays in the namespace it was opened in ([`Netlink::open_in`]).
//!
//! Errors name the call and the object ([`Error`]).
#![deny(unsafe_code)]

pub mod bpf;
mod error;
mod key;
pub mod netlink;
mod netns;
pub mod sock_diag;
pub mod sysctl;

pub use error::{Error, Result};
pub use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
pub use key::{PrivateKey, PublicKey};
pub use netlink::Netlink;
pub use netns::{NetNs, NetNsId};
