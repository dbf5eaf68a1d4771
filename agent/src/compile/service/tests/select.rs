//! The kernel's own selection over the mirror, asked for everything it can answer.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::IpAddr;

use weir_abi::service::{
    Backend, BackendId, RangeKey, Service, ServiceKey, Slot, SlotKey, frontend, scope,
};
use weir_abi::{Addr, PortBe, Proto};
use weir_ebpf::service::{Ask, Asker, Selection, Tables, select_in};

use super::super::ServiceActual;

struct Mirror<'a> {
    actual: &'a ServiceActual,
    random: Cell<u32>,
    from: From,
}

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum From {
    Cluster,
    Outside,
}

impl Tables for Mirror<'_> {
    fn service(&self, key: &ServiceKey) -> Option<Service> {
        lookup(self.actual, key, self.from)
    }
    fn slot(&self, key: &SlotKey) -> Option<Slot> {
        self.actual.slot(key)
    }
    fn backend(&self, id: BackendId) -> Option<Backend> {
        self.actual.backend(id)
    }
    fn random(&self) -> u32 {
        self.random.get()
    }
    fn in_ranges(&self, _: &RangeKey) -> bool {
        // Which clients a frontend serves is asked for by `rules`.
        true
    }
}

/// `SERVICES`, as programs ask it: an address of the node is one that may have node-wide frontends
/// without a marker, and who comes from outside is sent on to a frontend of their own.
fn lookup(actual: &ServiceActual, key: &ServiceKey, from: From) -> Option<Service> {
    let node_wide = ServiceKey::node_wide(key.addr.is_v4());
    if *key == ServiceKey::marker(node_wide) {
        return Some(Service::default());
    }
    let found = actual.services.get(key).copied()?;
    let is_marker = *key == ServiceKey::marker(key.addr);
    if !is_marker && from == From::Outside && found.flags & frontend::OUTSIDE_OWN != 0 {
        let scope = scope::OUTSIDE;
        let own = actual.services.get(&ServiceKey { scope, ..*key });
        return Some(*own.expect("who is sent on finds a frontend"));
    }
    Some(found)
}

/// Affinity, whether nothing is answered in silence, and the source ranges of a frontend.
pub type Rules = Option<(u32, bool, Option<Vec<RangeKey>>)>;

/// The rules of a frontend that can be reached.
pub fn rules(actual: &ServiceActual, addr: Addr, port: u16, from: From) -> Rules {
    let marker = ServiceKey::marker(addr);
    lookup(actual, &marker, from)?;
    let (port, proto) = (PortBe::new(port), Proto::TCP);
    let service = lookup(
        actual,
        &ServiceKey {
            port,
            proto,
            ..marker
        },
        from,
    )?;
    let ranges = actual.source_ranges().find(|(id, _)| *id == service.ranges);
    let plain = |keys: &[RangeKey]| keys.iter().map(|k| RangeKey { ranges: 0, ..*k }).collect();
    let ranges = ranges.map(|(_, keys)| plain(keys));
    let is_silent = service.flags & frontend::SILENT != 0;
    let ranges = (service.ranges != 0).then(|| ranges.unwrap_or_default());
    Some((service.affinity_secs, is_silent, ranges))
}

/// What a frontend leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    NotAService,
    Refused,
    /// Addresses, ports and incarnations that new flows get.
    Backends(BTreeSet<(IpAddr, u16, u32)>),
}

/// Asks with every random start of a set of up to 8 backends.
pub fn seen(actual: &ServiceActual, addr: Addr, port: u16, proto: Proto, from: From) -> Seen {
    let mut answers = BTreeSet::new();
    for start in 0..8u32 {
        let mirror = Mirror {
            actual,
            random: Cell::new(start << 29),
            from,
        };
        // By lot, also for who comes from outside, so that every backend is seen.
        let ask = Ask {
            dst: addr,
            port: PortBe::new(port),
            proto,
            client: Addr::NONE,
            client_port: PortBe(0),
            from: Asker::Pod,
            now: 0,
        };
        answers.insert(match select_in(&mirror, &ask) {
            Selection::NotAService => Seen::NotAService,
            Selection::Refuse | Selection::Silent => Seen::Refused,
            other @ (Selection::OutOfRange | Selection::NoneAccepted | Selection::Again) => {
                panic!("{addr:?}:{port} is {other:?}")
            }
            Selection::Backend { backend, .. } => {
                assert_eq!(backend.proto, proto);
                let one = (
                    backend.addr.to_ip(),
                    backend.port.get(),
                    backend.incarnation,
                );
                Seen::Backends(BTreeSet::from([one]))
            }
        });
    }
    let mut all = BTreeSet::new();
    for answer in &answers {
        match answer {
            Seen::Backends(one) => all.extend(one.iter().copied()),
            other => {
                assert_eq!(answers.len(), 1, "half of {addr:?}:{port} is {other:?}");
                return other.clone();
            }
        }
    }
    Seen::Backends(all)
}

/// The backends as `address:port`, or `refused` or `none`.
pub fn shown(actual: &ServiceActual, addr: &str, port: u16, proto: Proto) -> String {
    shown_from(actual, addr, port, proto, From::Cluster)
}

/// The same for a client elsewhere.
pub fn shown_from(
    actual: &ServiceActual,
    addr: &str,
    port: u16,
    proto: Proto,
    from: From,
) -> String {
    let addr: IpAddr = addr.parse().unwrap();
    match seen(actual, addr.into(), port, proto, from) {
        Seen::NotAService => "none".into(),
        Seen::Refused => "refused".into(),
        Seen::Backends(all) => {
            let texts: Vec<_> = all
                .iter()
                .map(|(ip, port, _)| std::net::SocketAddr::new(*ip, *port).to_string())
                .collect();
            texts.join(" ")
        }
    }
}
