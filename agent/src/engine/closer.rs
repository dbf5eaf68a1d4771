//! Closes the sockets of backends that are gone, on a thread of its own: it enters the namespaces of
//! pods and may have to list many sockets, for which the engine does not wait.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use weir_net::{
    NetNs,
    sock_diag::{Connected, Protocol, SockDiag},
};

use crate::{
    compile::sock_close::{Close, Gone, Of},
    dataplane::{Error, pins::Pins, sock_conns::SockConns},
};

/// Least time between two passes: what is told meanwhile is one pass.
const PAUSE: Duration = Duration::from_millis(500);

/// Sockets closed so far.
#[derive(Debug, Default)]
pub struct Closed {
    tcp: AtomicU64,
    udp: AtomicU64,
}

impl Closed {
    /// By protocol.
    pub fn counts(&self) -> [(&'static str, u64); 2] {
        [("tcp", &self.tcp), ("udp", &self.udp)].map(|(name, n)| (name, n.load(Ordering::Relaxed)))
    }

    fn count(&self, protocol: Protocol) {
        let counter = match protocol {
            Protocol::Tcp => &self.tcp,
            Protocol::Udp => &self.udp,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the closer is told.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// Backends that were retired; the maps say so already.
    pub gone: Gone,
    /// Whether sockets are to be looked at, too, whose backend is not usable by the maps.
    pub survey: bool,
    /// Paths of the pods' network namespaces, by their cookies.
    pub pods: HashMap<u64, String>,
}

impl Order {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.gone.is_empty() && !self.survey
    }

    fn merge(&mut self, other: &Self) {
        self.gone.merge(&other.gone);
        self.survey |= other.survey;
        let pods = other.pods.iter();
        let pods = pods.map(|(cookie, path)| (*cookie, path.clone()));
        self.pods.extend(pods);
    }
}

/// The engine's end.
pub struct Closer {
    /// `None` where the kernel cannot close sockets.
    orders: Option<Sender<Order>>,
    closed: Arc<Closed>,
}

impl Closer {
    /// One that closes nothing: the kernel cannot.
    pub fn idle() -> Self {
        Self {
            orders: None,
            closed: Arc::default(),
        }
    }

    /// Starts the thread, in the calling thread's network namespace, which is the node's. It ends with
    /// the value.
    ///
    /// # Errors
    /// The map is not pinned; the thread cannot be started.
    pub fn spawn(pins: &Pins) -> anyhow::Result<Self> {
        let closed = Arc::default();
        let worker = Worker {
            conns: SockConns::open(pins)?,
            node: NetNs::current_cookie()?,
            closed: Arc::clone(&closed),
            warned: BTreeSet::new(),
        };
        let (orders, received) = mpsc::channel();
        thread::Builder::new()
            .name("sock-closer".into())
            .spawn(move || worker.run(&received))?;
        Ok(Self {
            orders: Some(orders),
            closed,
        })
    }

    /// Never waits.
    pub fn send(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // The thread ends only where the kernel cannot do it, which it has said.
            let _ = orders.send(order);
        }
    }

    /// What it has closed.
    pub fn closed(&self) -> &Closed {
        &self.closed
    }
}

/// Why a pass ended early.
enum Stop {
    /// The kernel has no `SOCK_DESTROY`.
    Unsupported,
    /// Something that may be over next time.
    Map(Error),
}

/// Takes in what is told until then, and what has piled up in any case; false when nothing can come
/// any more.
fn collect(orders: &Receiver<Order>, until: Instant, fresh: &mut Order) -> bool {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match orders.recv_timeout(left) {
            Ok(order) => fresh.merge(&order),
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}

struct Worker {
    conns: SockConns,
    /// Cookie of the node's own namespace.
    node: u64,
    closed: Arc<Closed>,
    /// Kinds of failures that were told.
    warned: BTreeSet<&'static str>,
}

impl Worker {
    fn run(mut self, orders: &Receiver<Order>) {
        let mut not_before = Instant::now();
        // Each order is good for two passes: a socket that a hook has translated may be connected
        // only after the first one has looked for it.
        let mut again = Order::default();
        loop {
            let mut fresh = Order::default();
            if again.is_empty() {
                let Ok(order) = orders.recv() else { return };
                fresh = order;
            }
            if !collect(orders, not_before, &mut fresh) {
                // The next agent begins with all that is open.
                return;
            }
            again.merge(&fresh);
            match self.pass(&again) {
                Ok(()) => again = fresh,
                Err(Stop::Map(error)) => {
                    let remedy = "connected sockets of removed backends stay for now; if it goes on, restart the agent";
                    self.warn("map", &error, remedy);
                }
                Err(Stop::Unsupported) => {
                    let error = "the kernel cannot close sockets";
                    let remedy = "connected UDP sockets stay on removed backends until they connect again; a kernel with CONFIG_INET_DIAG_DESTROY does it";
                    self.warn("unsupported", &error, remedy);
                    return;
                }
            }
            not_before = Instant::now() + PAUSE;
        }
    }

    fn pass(&mut self, order: &Order) -> Result<(), Stop> {
        let conns = self.conns.entries().map_err(Stop::Map)?;
        let known = self.conns.backends().map_err(Stop::Map)?;
        for (netns, closes) in order.gone.choose(&conns, &known, order.survey) {
            if netns == self.node {
                self.close(&closes)?;
            } else if let Some(path) = order.pods.get(&netns) {
                self.close_in(netns, path, &closes)?;
            } else {
                tracing::debug!(netns, sockets = closes.len(), "nobody's namespace");
            }
        }
        Ok(())
    }

    /// In a pod's namespace, if it still is the one that the cookie names.
    fn close_in(&mut self, cookie: u64, path: &str, closes: &[Close]) -> Result<(), Stop> {
        let entered = NetNs::open(path).and_then(|netns| {
            netns.run(|| match NetNs::current_cookie() {
                Ok(here) if here == cookie => Some(self.close(closes)),
                _ => None,
            })
        });
        match entered {
            Ok(Some(result)) => return result,
            Ok(None) => tracing::debug!(path, "another namespace than the pod's"),
            // A pod that goes takes its sockets with it.
            Err(e) if e.is_gone() => tracing::debug!("{e}"),
            Err(e) => {
                let remedy = "the pods' namespaces (/run/netns) must be visible to the agent, as its manifest mounts them";
                self.warn("namespace", &e, remedy);
            }
        }
        Ok(())
    }

    /// In the calling thread's namespace.
    fn close(&mut self, closes: &[Close]) -> Result<(), Stop> {
        let remedy = "the agent needs CAP_NET_ADMIN, and the kernel modules tcp_diag and udp_diag";
        let wanted: HashMap<u64, &Close> = closes.iter().map(|c| (c.cookie, c)).collect();
        for (protocol, of) in [(Protocol::Tcp, Of::Tcp), (Protocol::Udp, Of::Udp)] {
            let is_of = |close: &Close| close.of == of || close.of == Of::Either;
            if !closes.iter().any(is_of) {
                continue;
            }
            let listed = SockDiag::open().and_then(|diag| Ok((diag.connected(protocol)?, diag)));
            let (sockets, diag) = match listed {
                Ok(listed) => listed,
                Err(e) => {
                    self.warn("list", &e, remedy);
                    continue;
                }
            };
            let is_wanted = |socket: &&Connected| {
                let close = wanted.get(&socket.cookie);
                close.is_some_and(|close| is_of(close) && close.peer == socket.peer)
            };
            for socket in sockets.iter().filter(is_wanted) {
                match diag.destroy(socket) {
                    Ok(()) => {
                        self.closed.count(protocol);
                        let Connected { cookie, peer, .. } = socket;
                        tracing::debug!(?protocol, cookie, %peer, "socket closed: its backend is gone");
                    }
                    Err(e) if e.errno() == Some(libc::EOPNOTSUPP) => return Err(Stop::Unsupported),
                    Err(e) if e.is_gone() => {}
                    Err(e) => self.warn("destroy", &e, remedy),
                }
            }
        }
        Ok(())
    }

    /// Tells a kind of failure once; the rest is for debugging.
    fn warn(&mut self, kind: &'static str, error: &dyn fmt::Display, remedy: &str) {
        if self.warned.insert(kind) {
            tracing::warn!("closing sockets of removed backends: {error}: {remedy}");
        } else {
            tracing::debug!("closing sockets of removed backends: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(pod: u64, survey: bool) -> Order {
        Order {
            survey,
            pods: HashMap::from([(pod, format!("/run/netns/{pod}"))]),
            ..Order::default()
        }
    }

    #[test]
    fn what_piles_up_is_one_order_however_long_the_pause_was() {
        let (sender, orders) = mpsc::channel();
        for number in 0..3 {
            sender.send(order(number, number == 1)).unwrap();
        }
        let mut all = Order::default();
        assert!(collect(&orders, Instant::now(), &mut all));
        assert!(all.survey);
        assert_eq!(all.pods.len(), 3);
        drop(sender);
        assert!(!collect(&orders, Instant::now() + PAUSE, &mut all));
    }

    #[test]
    fn an_order_is_waited_for_until_the_pause_is_over() {
        let (sender, orders) = mpsc::channel();
        let until = Instant::now() + Duration::from_millis(60);
        let mut all = Order::default();
        thread::scope(|scope| {
            scope.spawn(|| sender.send(order(1, false)).unwrap());
            assert!(collect(&orders, until, &mut all));
        });
        assert!(Instant::now() >= until);
        assert_eq!(all.pods.len(), 1);
    }

    #[test]
    fn only_what_has_something_to_close_or_to_look_at_is_an_order() {
        assert!(order(1, false).is_empty());
        assert!(!order(1, true).is_empty());
    }
}
