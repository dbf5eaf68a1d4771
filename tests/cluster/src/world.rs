//! The world outside, as far as upstream's tests dial it: two well-known addresses in the fabric's
//! namespace that accept connections. Packets to them leave the nodes, and nothing leaves the machine.

use std::{
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener},
    path::Path,
    thread,
};

use anyhow::{Context, Result};
use weir_net::NetNs;

/// What "should provide Internet connection for containers" dials; `google.com` is the same
/// (`install/coredns.yaml`).
pub const ADDRESSES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888)),
];

/// DNS and HTTP. Nobody says a word there.
const PORTS: [u16; 2] = [53, 80];

/// Accepts connections in the namespace `netns` until killed; says a line when it does.
///
/// # Errors
/// The namespace is gone, or a port is taken.
pub fn serve(netns: &Path) -> Result<()> {
    let listen = || PORTS.map(|port| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)));
    // A socket stays in the namespace that it was opened in.
    let listeners = NetNs::open(netns)?
        .run(listen)?
        .into_iter()
        .collect::<io::Result<Vec<_>>>()
        .context("cannot listen")?;
    writeln!(io::stdout(), "ready").context("nobody listens")?;
    thread::scope(|scope| {
        for listener in &listeners {
            // Each is closed at once, which the client sees after it is connected.
            scope.spawn(|| listener.incoming().for_each(drop));
        }
    });
    Ok(())
}
