//! rtnetlink: a socket that stays in its namespace, and typed requests on it.
//!
//! One request at a time, answered before the call returns. A dump that the kernel marks as
//! interrupted (`NLM_F_DUMP_INTR`: the table changed meanwhile) is asked again.

mod addr;
mod connection;
mod filter;
mod generic;
mod link;
mod neigh;
mod route;
mod rule;
mod tunnel;
mod watch;
mod wireguard;
mod xfrm;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;

use connection::Connection;

use crate::{
    error::{Error, Result},
    netns::NetNs,
};

pub use addr::Address;
pub use filter::BpfFilter;
pub use link::{Link, LinkChange, Mac, Veth};
pub use neigh::Neighbour;
pub use route::{Route, RouteKind, Scope};
pub use rule::Rule;
pub use tunnel::{Tunnel, TunnelKind};
pub use watch::LinkWatch;
pub use wireguard::{
    Device as WireguardDevice, KIND as WIREGUARD, Peer as WireguardPeer, PeerChange, Wireguard,
};
pub use xfrm::{POLICY_CHANGES, ipsec_policies};

/// How often an interrupted dump is repeated before the error is the caller's.
const DUMP_ATTEMPTS: u32 = 16;
/// An rtnetlink connection to one network namespace, the one it was opened in.
#[derive(Debug)]
pub struct Netlink {
    connection: Connection,
}

impl Netlink {
    /// Opens a connection to the calling thread's namespace.
    pub fn open() -> Result<Self> {
        Ok(Self {
            connection: Connection::open(NETLINK_ROUTE)?,
        })
    }

    /// Opens a connection to another namespace; it can be used from any thread.
    pub fn open_in(ns: &NetNs) -> Result<Self> {
        ns.run(Self::open)?
    }

    /// Sends a request that the kernel only acknowledges.
    fn act(
        &self,
        call: &'static str,
        object: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<()> {
        let mut inner = self.connection.lock();
        inner.send(call, object, message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        inner.receive::<RouteNetlinkMessage>(call, object).map(drop)
    }

    /// Sends a request for one object.
    fn get(
        &self,
        call: &'static str,
        object: &str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        let mut inner = self.connection.lock();
        inner.send(call, object, message, NLM_F_REQUEST | NLM_F_ACK)?;
        Ok(inner.receive(call, object)?.messages)
    }

    /// Lists a whole table, as it was at one moment.
    fn dump(
        &self,
        call: &'static str,
        object: &str,
        message: &RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        let mut inner = self.connection.lock();
        for _ in 0..DUMP_ATTEMPTS {
            inner.send(call, object, message.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
            let answer = inner.receive(call, object)?;
            if !answer.interrupted {
                return Ok(answer.messages);
            }
        }
        let reason =
            format!("the table changed during each of {DUMP_ATTEMPTS} attempts to list it");
        Err(Error::Answer {
            call,
            object: object.to_owned(),
            reason,
        })
    }
}
