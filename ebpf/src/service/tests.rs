use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use super::*;
use weir_abi::service::SetId;

mod outside;

const VIP4: Addr = Addr::from_v4([10, 96, 0, 10]);
const VIP6: Addr = Addr::from_v6([0xfd, 0x96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10]);

#[derive(Default)]
struct Fake {
    services: HashMap<ServiceKey, Service>,
    slots: HashMap<SlotKey, Slot>,
    backends: HashMap<BackendId, Backend>,
    seed: Cell<u64>,
    node_ports: Vec<Addr>,
    ranges: Vec<RangeKey>,
    affinity: RefCell<HashMap<AffinityKey, Affinity>>,
}

/// A pod asks.
fn ask(dst: &Addr, port: u16, proto: Proto) -> Ask {
    Ask {
        dst: *dst,
        port: PortBe::new(port),
        proto,
        client: Addr::from_v4([10, 1, 0, 200]),
        client_port: PortBe::new(40_000),
        from: Asker::Pod,
        now: 1000,
    }
}

impl Tables for Fake {
    fn service(&self, key: &ServiceKey) -> Option<Service> {
        self.services.get(key).copied()
    }
    fn slot(&self, key: &SlotKey) -> Option<Slot> {
        self.slots.get(key).copied()
    }
    fn backend(&self, id: BackendId) -> Option<Backend> {
        self.backends.get(&id).copied()
    }
    fn random(&self) -> u32 {
        // Knuth's MMIX generator; its high half is even enough for counting.
        let next = self
            .seed
            .get()
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.seed.set(next);
        (next >> 32) as u32
    }
    fn has_node_ports(&self, addr: &Addr) -> bool {
        self.node_ports.contains(addr)
    }
    fn in_ranges(&self, client: &RangeKey) -> bool {
        // Only whole words are used for prefixes here.
        self.ranges.iter().any(|prefix| {
            let words = (prefix.prefix_len as usize - 64) / 32;
            (prefix.ranges, prefix.family) == (client.ranges, client.family)
                && prefix.addr[..words] == client.addr[..words]
        })
    }
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        self.affinity.borrow().get(key).copied()
    }
    fn set_affinity(&self, key: &AffinityKey, value: &Affinity) {
        self.affinity.borrow_mut().insert(*key, *value);
    }
}

impl Fake {
    fn marker(&mut self, addr: Addr, flags: u32) {
        let value = Service {
            flags,
            ..Service::default()
        };
        self.services.insert(ServiceKey::marker(addr), value);
    }

    /// A frontend with `count` backends, numbered from `set` * 100.
    fn frontend(&mut self, addr: Addr, port: u16, proto: Proto, set: u32, count: u32) {
        let key = ServiceKey {
            addr,
            port: PortBe::new(port),
            proto,
            scope: 0,
        };
        let value = Service {
            set: SetId(set),
            count,
            ..Service::default()
        };
        self.services.insert(key, value);
        for index in 0..count {
            let id = BackendId(set * 100 + index);
            let slot = SlotKey {
                set: SetId(set),
                index,
            };
            self.slots.insert(
                slot,
                Slot {
                    backend: id,
                    incarnation: 7,
                },
            );
            let backend = Backend {
                addr: Addr::from_v4([10, 1, 0, index as u8]),
                port: PortBe::new(8080),
                proto,
                state: BackendState::Active as u32,
                zero: 0,
                check: 0,
                incarnation: 7,
            };
            self.backends.insert(id, backend);
        }
    }

    fn state(&mut self, id: u32, state: BackendState) {
        self.backends.get_mut(&BackendId(id)).unwrap().state = state as u32;
    }

    fn chosen(&self, addr: Addr, port: u16, proto: Proto) -> Option<u32> {
        match select_in(self, &ask(&addr, port, proto)) {
            Selection::Backend { id, .. } => Some(id.0),
            _ => None,
        }
    }
}

#[test]
fn an_address_without_a_marker_is_not_a_service() {
    let mut fake = Fake::default();
    fake.frontend(VIP4, 80, Proto::TCP, 1, 2);
    let selection = select_in(&fake, &ask(&VIP4, 80, Proto::TCP));
    assert_eq!(selection, Selection::NotAService);
}

#[test]
fn a_port_that_a_cluster_ip_does_not_serve_is_refused_in_both_families() {
    for vip in [VIP4, VIP6] {
        let mut fake = Fake::default();
        fake.marker(vip, marker::REFUSE_UNSERVED);
        fake.frontend(vip, 80, Proto::TCP, 1, 2);
        for (port, proto) in [
            (81, Proto::TCP),
            (80, Proto::UDP),
            (0, Proto::ICMP),
            (0, Proto(0)),
        ] {
            let selection = select_in(&fake, &ask(&vip, port, proto));
            assert_eq!(selection, Selection::Refuse, "{port} {proto:?}");
        }
        assert!(fake.chosen(vip, 80, Proto::TCP).is_some());
    }
}

#[test]
fn an_unserved_port_of_an_address_that_is_not_wholly_a_services_is_left_alone() {
    let mut fake = Fake::default();
    fake.marker(VIP4, 0);
    fake.frontend(VIP4, 30080, Proto::TCP, 1, 1);
    for (port, proto) in [(22, Proto::TCP), (0, Proto(0))] {
        let selection = select_in(&fake, &ask(&VIP4, port, proto));
        assert_eq!(selection, Selection::NotAService);
    }
    assert_eq!(fake.chosen(VIP4, 30080, Proto::TCP), Some(100));
}

#[test]
fn a_service_without_endpoints_is_refused() {
    let mut fake = Fake::default();
    fake.marker(VIP4, marker::REFUSE_UNSERVED);
    fake.frontend(VIP4, 80, Proto::TCP, 1, 0);
    let selection = select_in(&fake, &ask(&VIP4, 80, Proto::TCP));
    assert_eq!(selection, Selection::Refuse);
}

#[test]
fn every_backend_of_a_set_is_chosen_equally_often() {
    for count in [2, 3, 7, 10, 100] {
        let mut fake = Fake::default();
        fake.marker(VIP6, marker::REFUSE_UNSERVED);
        fake.frontend(VIP6, 53, Proto::UDP, 1, count);
        let mut hits = vec![0u32; count as usize];
        for _ in 0..count * 2000 {
            let id = fake.chosen(VIP6, 53, Proto::UDP).unwrap();
            hits[(id - 100) as usize] += 1;
        }
        // 2000 expected each, standard deviation below 45: 6 of them never happen by chance.
        for (index, n) in hits.iter().enumerate() {
            assert!(
                (1730..=2270).contains(n),
                "{count} backends, {index} hit {n} times"
            );
        }
    }
}

#[test]
fn the_first_and_the_last_backend_can_be_reached_by_extreme_random_words() {
    assert_eq!(scale(0, 5), 0);
    assert_eq!(scale(u32::MAX, 5), 4);
    assert_eq!(scale(u32::MAX, 1), 0);
    assert_eq!(scale(u32::MAX, u32::MAX), u32::MAX - 1);
}

#[test]
fn a_removed_or_missing_backend_is_passed_over() {
    let mut fake = Fake::default();
    fake.marker(VIP4, marker::REFUSE_UNSERVED);
    fake.frontend(VIP4, 80, Proto::TCP, 1, 4);
    fake.state(100, BackendState::Removed);
    fake.state(101, BackendState::Removed);
    fake.backends.remove(&BackendId(103));
    for _ in 0..200 {
        assert_eq!(fake.chosen(VIP4, 80, Proto::TCP), Some(102));
    }
}

#[test]
fn a_set_of_which_nothing_is_left_is_refused() {
    let mut fake = Fake::default();
    fake.marker(VIP4, marker::REFUSE_UNSERVED);
    fake.frontend(VIP4, 80, Proto::TCP, 1, 1);
    fake.state(100, BackendState::Removed);
    let selection = select_in(&fake, &ask(&VIP4, 80, Proto::TCP));
    assert_eq!(selection, Selection::Refuse);
}

#[test]
fn a_flow_stays_with_a_draining_backend_and_leaves_a_removed_one() {
    let mut fake = Fake::default();
    fake.frontend(VIP4, 80, Proto::UDP, 1, 1);
    assert!(current_in(&fake, BackendId(100), 7).is_some());
    fake.state(100, BackendState::Draining);
    assert!(current_in(&fake, BackendId(100), 7).is_some());
    fake.state(100, BackendState::Removed);
    assert!(current_in(&fake, BackendId(100), 7).is_none());
    assert!(current_in(&fake, BackendId(999), 7).is_none());
}

#[test]
fn a_reused_address_is_another_backend() {
    let mut fake = Fake::default();
    fake.frontend(VIP4, 80, Proto::UDP, 1, 1);
    assert!(current_in(&fake, BackendId(100), 8).is_none());
}

#[test]
fn a_slot_whose_number_is_another_backends_by_now_is_passed_over() {
    let mut fake = Fake::default();
    fake.marker(VIP4, marker::REFUSE_UNSERVED);
    fake.frontend(VIP4, 80, Proto::TCP, 1, 2);
    fake.backends.get_mut(&BackendId(100)).unwrap().incarnation = 8;
    for _ in 0..100 {
        assert_eq!(fake.chosen(VIP4, 80, Proto::TCP), Some(101));
    }
}
