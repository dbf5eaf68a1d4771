//! rtnetlink multicast, as "something of the node's network changed": the engine then reads it
//! whole, so a message that was lost (`ENOBUFS`) is a change like any other.

use std::io;

use futures::{FutureExt as _, StreamExt as _, channel::mpsc::UnboundedReceiver};
use netlink_packet_core::NetlinkMessage;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::SocketAddr;
use rtnetlink::MulticastGroup;
use tokio::task::JoinHandle;

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
        })
    }

    /// Waits until something has changed. A subscription that ended is made anew, which counts as
    /// a change.
    ///
    /// # Errors
    /// It cannot be made anew.
    pub async fn changed(&mut self) -> io::Result<()> {
        let first = self.messages.next().await;
        while let Some(Some(_)) = self.messages.next().now_or_never() {}
        if first.is_none() {
            *self = Self::new()?;
        }
        Ok(())
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
