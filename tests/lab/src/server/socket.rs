//! Non-blocking sockets of any of the three transports, made by hand: the standard library knows
//! no SCTP, and a probe must know its own port before the connection stands.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, Backlog, SockaddrStorage, bind, connect, getpeername, getsockname, setsockopt,
    sockopt,
};

use crate::wire::Proto;

/// Creates a socket for the family of `addr`.
pub fn open(addr: IpAddr, proto: Proto) -> io::Result<OwnedFd> {
    let family = if addr.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let kind = if proto == Proto::Udp {
        libc::SOCK_DGRAM
    } else {
        libc::SOCK_STREAM
    };
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: a system call without pointers; the number it returns is ours alone.
    let fd = unsafe { libc::socket(family, kind | flags, i32::from(proto.number())) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just returned by socket() and is owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether an error of [`open`] says that the kernel lacks the protocol.
pub fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT | libc::ESOCKTNOSUPPORT)
    )
}

/// A socket bound to a port on one address, or on every address: of both families where the kernel
/// has IPv6.
pub fn bound(proto: Proto, port: u16, address: Option<IpAddr>) -> io::Result<OwnedFd> {
    if let Some(address) = address {
        return bind_to(open(address, proto)?, SocketAddr::new(address, port));
    }
    match open(Ipv6Addr::UNSPECIFIED.into(), proto) {
        Ok(socket) => {
            setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
            bind_to(socket, SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port))
        }
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            let socket = open(Ipv4Addr::UNSPECIFIED.into(), proto)?;
            bind_to(socket, SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port))
        }
        Err(error) => Err(error),
    }
}

/// Gives a socket its own address; port 0 lets the kernel choose.
pub fn bind_to(socket: OwnedFd, addr: SocketAddr) -> io::Result<OwnedFd> {
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(addr))?;
    Ok(socket)
}

/// The unspecified address of the family of `target`.
pub fn any(target: SocketAddr) -> IpAddr {
    match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Makes a bound socket accept connections.
pub fn listen(socket: &OwnedFd) -> io::Result<()> {
    let backlog = Backlog::new(1024)?;
    Ok(nix::sys::socket::listen(socket, backlog)?)
}

/// Starts a connection; one in progress is no error.
pub fn start_connect(socket: &OwnedFd, target: SocketAddr) -> io::Result<()> {
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(target)) {
        Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The socket's own address.
pub fn local(socket: &impl AsRawFd) -> io::Result<SocketAddr> {
    to_std(getsockname::<SockaddrStorage>(socket.as_raw_fd())?)
}

/// Whom the socket says it is connected to.
pub fn peer(socket: &impl AsRawFd) -> io::Result<SocketAddr> {
    to_std(getpeername::<SockaddrStorage>(socket.as_raw_fd())?)
}

fn to_std(addr: SockaddrStorage) -> io::Result<SocketAddr> {
    if let Some(v4) = addr.as_sockaddr_in() {
        return Ok(SocketAddr::new(v4.ip().into(), v4.port()));
    }
    if let Some(v6) = addr.as_sockaddr_in6() {
        return Ok(SocketAddr::new(plain(v6.ip().into()), v6.port()));
    }
    Err(io::Error::other(format!(
        "unexpected address family {:?}",
        addr_family(&addr)
    )))
}

fn addr_family(addr: &SockaddrStorage) -> Option<AddressFamily> {
    nix::sys::socket::SockaddrLike::family(addr)
}

/// An address with `::ffff:0:0/96` taken off.
pub fn plain(addr: IpAddr) -> IpAddr {
    addr.to_canonical()
}
