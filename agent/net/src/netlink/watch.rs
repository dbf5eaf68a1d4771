//! Waiting for a link to become active.
//!
//! A device that is set up before it has a carrier gets its queueing discipline later, from the
//! kernel's linkwatch work; until then `noop` stands there and drops in silence what is sent. Of a
//! veth pair that is the side that was set up first, and the work may be late on a busy machine.
//! The same work, in the same turn, sets the operational state (RFC 2863) to `up`: that is what can
//! be seen of it, as the link's own qdisc is listed from the start.

use std::time::{Duration, Instant};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::sys::{
    socket::{setsockopt, sockopt},
    time::{TimeVal, TimeValLike as _},
};

use super::Netlink;
use crate::{
    error::{Error, Result},
    netns::NetNs,
};

/// `RTMGRP_LINK` (linux/rtnetlink.h).
const LINKS: u32 = 1;

/// A subscription to the changes of a namespace's links.
#[derive(Debug)]
pub struct LinkWatch {
    socket: Socket,
}

impl LinkWatch {
    /// Subscribes in another namespace: what happens after this returns is noticed.
    pub fn open_in(ns: &NetNs) -> Result<Self> {
        ns.run(|| {
            let fail = |call, e| Error::call(call, "a netlink socket", e);
            let mut socket = Socket::new(NETLINK_ROUTE).map_err(|e| fail("socket", e))?;
            socket
                .bind(&SocketAddr::new(0, LINKS))
                .map_err(|e| fail("bind", e))?;
            Ok(Self { socket })
        })?
    }

    /// Waits for a change, at most until `deadline`.
    fn wait(&self, deadline: Instant) -> Result<()> {
        let fail = |call, e: std::io::Error| Error::call(call, "link changes", e);
        let left = deadline.saturating_duration_since(Instant::now());
        // 0 would mean for ever.
        let millis = i64::try_from(left.as_millis()).unwrap_or(i64::MAX).max(1);
        setsockopt(
            &self.socket,
            sockopt::ReceiveTimeout,
            &TimeVal::milliseconds(millis),
        )
        .map_err(|e| fail("setsockopt(SO_RCVTIMEO)", e.into()))?;
        match self.socket.recv_from_full() {
            Ok(_) => Ok(()),
            Err(e) => match e.raw_os_error() {
                // Nothing in time, a signal, or messages lost: the caller looks again.
                Some(libc::EAGAIN | libc::EINTR | libc::ENOBUFS) => Ok(()),
                _ => Err(fail("recv", e)),
            },
        }
    }
}

impl Netlink {
    /// Waits until the link sends what it is given ([`super::Link::active`]). `watch` must be of
    /// the same namespace as this connection.
    ///
    /// # Errors
    /// It is not active after `timeout`, or is gone.
    pub fn await_active(&self, index: u32, watch: &LinkWatch, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        let object = || format!("link #{index}");
        loop {
            match self.link_by_index(index)? {
                None => return Err(Error::Missing { object: object() }),
                Some(link) if link.active => return Ok(()),
                Some(_) if Instant::now() >= deadline => {
                    let late = std::io::Error::from_raw_os_error(libc::ETIMEDOUT);
                    return Err(Error::call("activation of", object(), late));
                }
                Some(_) => watch.wait(deadline)?,
            }
        }
    }
}
