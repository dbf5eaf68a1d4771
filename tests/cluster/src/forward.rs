//! The forwarder: listens on the machine's loopback and connects inside a node, so that kubectl works
//! from the machine's own shell while nothing is added to the machine's network.

use std::{
    io::{self, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    thread,
};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};

/// Forwards connections to `to` in the namespace `netns` until killed. The first line of standard
/// output is the port. The process must have a single thread.
///
/// # Errors
/// No port can be had, or the namespace is gone.
pub fn forward(netns: &Path, to: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen")?;
    let namespace =
        std::fs::File::open(netns).with_context(|| format!("cannot open {}", netns.display()))?;
    // The listener stays where it was opened; what is opened from here on, also by threads, does not.
    setns(namespace, CloneFlags::CLONE_NEWNET).context("cannot enter the namespace")?;
    let mut out = io::stdout();
    writeln!(out, "{}", listener.local_addr()?.port()).context("nobody listens")?;
    out.flush()?;
    for client in listener.incoming() {
        match client {
            Ok(client) => {
                thread::spawn(move || {
                    if let Err(error) = serve(&client, to) {
                        eprintln!("{to}: {error}");
                    }
                });
            }
            Err(error) => eprintln!("cannot accept: {error}"),
        }
    }
    Ok(())
}

/// Copies both ways until both have ended.
fn serve(client: &TcpStream, to: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect(to)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    thread::scope(|scope| {
        scope.spawn(|| copy(client, &server));
        copy(&server, client);
    });
    Ok(())
}

/// One direction; an error ends it as an end does.
fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    let whole = io::copy(&mut from, &mut to);
    // What one side has closed or broken, the other must learn.
    let _ = to.shutdown(Shutdown::Write);
    if whole.is_err() {
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}
