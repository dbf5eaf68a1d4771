//! rtnetlink multicast, as "something of the node's network changed": the engine then reads it
//! whole. A lost message (`ENOBUFS`) is a change as well.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
    },
};
use tokio::io::unix::AsyncFd;

/// `RTMGRP_…` of linux/rtnetlink.h: links, addresses and routes of both families.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// Watches the network namespace of the thread that made it.
pub struct Monitor {
    socket: AsyncFd<OwnedFd>,
}

impl Monitor {
    /// Subscribes. What happens after this returns is not missed.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn new() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            flags,
            SockProtocol::NetlinkRoute,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
        Ok(Self {
            socket: crate::fd::readable(socket)?,
        })
    }

    /// Waits until something has changed.
    ///
    /// # Errors
    /// The socket's.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            let mut guard = self.socket.readable().await?;
            if drain(guard.get_inner())? {
                return Ok(());
            }
            guard.clear_ready();
        }
    }
}

/// Reads all there is; whether there was anything.
fn drain(socket: &OwnedFd) -> io::Result<bool> {
    let mut any = false;
    // What does not fit is cut off, which is fine: only that there was something matters.
    let mut buffer = [0; 64];
    loop {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(_) | Err(Errno::ENOBUFS) => any = true,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(any),
            Err(error) => return Err(error.into()),
        }
    }
}
