//! Netlink multicast, as "something of the node's network changed": the engine then reads it
//! whole, so a message that was lost (`ENOBUFS`) is a change like any other.

use std::io;

use futures::{FutureExt as _, StreamExt as _, channel::mpsc::UnboundedReceiver};
use netlink_packet_core::NetlinkMessage;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_XFRM;
use netlink_sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket};
use rtnetlink::MulticastGroup;
use tokio::task::JoinHandle;
use weir_net::netlink::POLICY_CHANGES;

/// Links, addresses and routes of both families.
const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

/// Watches the network namespace of the thread that made it.
pub struct Monitor {
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    /// Keeps the connection open, though nothing is asked over it.
    _handle: rtnetlink::Handle,
    connection: JoinHandle<()>,
    /// IPsec policies; none in a kernel without IPsec.
    policies: Option<TokioSocket>,
}

impl Monitor {
    /// Subscribes. What happens after this returns is not missed. To be called in a tokio runtime.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn new() -> io::Result<Self> {
        let (connection, handle, messages) = rtnetlink::new_multicast_connection(&GROUPS)?;
        Ok(Self {
            messages,
            _handle: handle,
            connection: tokio::spawn(connection),
            policies: policies()?,
        })
    }

    /// Waits until something has changed. A subscription that ended is made anew, which counts as
    /// a change.
    ///
    /// # Errors
    /// It cannot be made anew.
    pub async fn changed(&mut self) -> io::Result<()> {
        let first = tokio::select! {
            message = self.messages.next() => message,
            changed = policy_change(self.policies.as_mut()) => {
                return changed;
            }
        };
        while let Some(Some(_)) = self.messages.next().now_or_never() {}
        if first.is_none() {
            *self = Self::new()?;
        }
        Ok(())
    }
}

/// Subscribes to changes of IPsec policies.
fn policies() -> io::Result<Option<TokioSocket>> {
    let mut socket = match TokioSocket::new(NETLINK_XFRM) {
        Ok(socket) => socket,
        Err(e) if e.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(None),
        Err(e) => return Err(e),
    };
    let group = SocketAddr::new(0, POLICY_CHANGES);
    socket.socket_mut().bind(&group)?;
    Ok(Some(socket))
}

/// Waits until a policy has changed; messages that were lost are a change like any other.
async fn policy_change(socket: Option<&mut TokioSocket>) -> io::Result<()> {
    let Some(socket) = socket else {
        return std::future::pending().await;
    };
    match socket.recv_from_full().await {
        Err(e) if e.raw_os_error() != Some(libc::ENOBUFS) => Err(e),
        _ => Ok(()),
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
