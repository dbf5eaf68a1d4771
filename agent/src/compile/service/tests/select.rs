//! The kernel's own selection over the mirror, asked for everything it can answer.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::IpAddr;

use weir_abi::service::{Backend, BackendId, Service, ServiceKey, Slot, SlotKey};
use weir_abi::{Addr, PortBe, Proto};
use weir_ebpf::service::{Selection, Tables, select_in};

use super::super::ServiceActual;

struct Mirror<'a> {
    actual: &'a ServiceActual,
    random: Cell<u32>,
}

impl Tables for Mirror<'_> {
    fn service(&self, key: &ServiceKey) -> Option<Service> {
        self.actual.services.get(key).copied()
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
}

/// What a frontend leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    NotAService,
    Refused,
    /// Addresses, ports and incarnations that new flows get.
    Backends(BTreeSet<(IpAddr, u16, u32)>),
}

/// Asks with every random start of a set of up to 16 backends.
pub fn seen(actual: &ServiceActual, addr: Addr, port: u16, proto: Proto) -> Seen {
    let mut answers = BTreeSet::new();
    for start in 0..16u32 {
        let mirror = Mirror {
            actual,
            random: Cell::new(start << 28),
        };
        answers.insert(match select_in(&mirror, &addr, PortBe::new(port), proto) {
            Selection::NotAService => Seen::NotAService,
            Selection::Refuse => Seen::Refused,
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
    let addr: IpAddr = addr.parse().unwrap();
    match seen(actual, addr.into(), port, proto) {
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
