//! Frontends for those outside: scopes, NodePorts, ranges, affinity, and the choice that is the same
//! on every node.

use super::*;

const NODE4: Addr = Addr::from_v4([192, 0, 2, 1]);
const NODE6: Addr = Addr::from_v6([0xfd, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

/// Somebody outside asks.
fn outside(dst: &Addr, port: u16, client: u16) -> Ask {
    let [a, b] = client.to_be_bytes();
    Ask {
        client: if dst.is_v4() {
            Addr::from_v4([203, 0, a, b])
        } else {
            Addr::from_v6([0x20, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b])
        },
        from: Asker::Outside,
        ..ask(dst, port, Proto::TCP)
    }
}

impl Fake {
    /// Changes a frontend.
    fn change(&mut self, addr: Addr, port: u16, edit: impl FnOnce(&mut Service)) {
        let key = key(addr, port, scope::EVERYONE);
        edit(self.services.get_mut(&key).unwrap());
    }

    /// The frontend of those outside.
    fn own(&mut self, addr: Addr, port: u16, value: Service) {
        self.services.insert(key(addr, port, scope::OUTSIDE), value);
    }

    /// A set of backends with incarnations of their own, as a cluster has them.
    fn distinct(&mut self, set: u32, count: u32) {
        for index in 0..count {
            let id = BackendId(set * 100 + index);
            let incarnation = (id.0).wrapping_mul(0x9e37_79b1);
            self.backends.get_mut(&id).unwrap().incarnation = incarnation;
            let slot = Slot {
                backend: id,
                incarnation,
            };
            let set = SetId(set);
            self.slots.insert(SlotKey { set, index }, slot);
        }
    }

    fn id(&self, ask: &Ask) -> Option<u32> {
        match select_in(self, ask) {
            Selection::Backend { id, .. } => Some(id.0),
            _ => None,
        }
    }
}

fn key(addr: Addr, port: u16, scope: u8) -> ServiceKey {
    ServiceKey {
        addr,
        port: PortBe::new(port),
        proto: Proto::TCP,
        scope,
    }
}

/// A Service at [`VIP4`] port 80 with `count` backends.
fn service(count: u32) -> Fake {
    let mut fake = Fake::default();
    fake.marker(VIP4, 0);
    fake.frontend(VIP4, 80, Proto::TCP, 1, count);
    fake.distinct(1, count);
    fake
}

#[test]
fn a_node_port_stands_at_every_address_of_the_node_that_serves_them_and_at_no_other() {
    for (node, wide) in [
        (NODE4, ServiceKey::node_wide(true)),
        (NODE6, ServiceKey::node_wide(false)),
    ] {
        let mut fake = Fake::default();
        fake.frontend(wide, 30_080, Proto::TCP, 1, 1);
        assert_eq!(fake.chosen(node, 30_080, Proto::TCP), None);
        fake.node_ports.push(node);
        assert_eq!(fake.chosen(node, 30_080, Proto::TCP), Some(100));
        for (addr, port, proto) in [
            (node, 22, Proto::TCP),
            (node, 30_080, Proto::UDP),
            (node, 0, Proto(0)),
            (VIP4, 30_080, Proto::TCP),
            (VIP6, 30_080, Proto::TCP),
        ] {
            let selection = select_in(&fake, &ask(&addr, port, proto));
            assert_eq!(selection, Selection::NotAService, "{addr:?} {port}");
        }
    }
}

#[test]
fn a_frontend_of_one_address_wins_over_that_of_all_the_nodes_addresses() {
    let mut fake = Fake::default();
    fake.node_ports.push(NODE4);
    fake.frontend(ServiceKey::node_wide(true), 8080, Proto::TCP, 1, 1);
    fake.marker(NODE4, 0);
    fake.frontend(NODE4, 8080, Proto::TCP, 2, 1);
    assert_eq!(fake.chosen(NODE4, 8080, Proto::TCP), Some(200));
}

#[test]
fn who_comes_from_outside_gets_the_frontend_for_outside_and_all_others_everyones() {
    let mut fake = service(2);
    fake.change(VIP4, 80, |service| service.flags = frontend::OUTSIDE_OWN);
    fake.frontend(VIP6, 80, Proto::TCP, 3, 1);
    let local = Service {
        set: SetId(3),
        count: 1,
        ..Service::default()
    };
    fake.own(VIP4, 80, local);
    for client in 0..20 {
        let mut ask = outside(&VIP4, 80, client);
        assert_eq!(fake.id(&ask), Some(300));
        for from in [Asker::Pod, Asker::Node] {
            ask.from = from;
            assert!(fake.id(&ask).is_some_and(|id| id < 300));
        }
    }
    // Without the flag nobody looks for it.
    fake.change(VIP4, 80, |service| service.flags = 0);
    assert!(fake.id(&outside(&VIP4, 80, 1)).is_some_and(|id| id < 300));
}

#[test]
fn a_frontend_without_backends_here_is_silent_to_those_outside_if_it_says_so() {
    let mut fake = service(2);
    fake.change(VIP4, 80, |service| service.flags = frontend::OUTSIDE_OWN);
    let mut none = Service {
        flags: frontend::SILENT,
        ..Service::default()
    };
    fake.own(VIP4, 80, none);
    let ask = outside(&VIP4, 80, 1);
    assert_eq!(select_in(&fake, &ask), Selection::Silent);
    none.flags = 0;
    fake.own(VIP4, 80, none);
    assert_eq!(select_in(&fake, &ask), Selection::Refuse);
}

#[test]
fn a_client_that_no_source_range_holds_is_out_of_range() {
    for (vip, client, other) in [
        (VIP4, [10, 9, 8, 7], [10, 9, 8, 6]),
        (VIP6, [1, 2, 3, 4], [2, 2, 3, 4]),
    ] {
        let addr = |bytes: [u8; 4]| match vip.is_v4() {
            true => Addr::from_v4(bytes),
            false => Addr(bytes.map(u32::from)),
        };
        let mut fake = Fake::default();
        fake.marker(vip, 0);
        fake.frontend(vip, 80, Proto::TCP, 1, 2);
        fake.change(vip, 80, |service| service.ranges = 5);
        for from in [Asker::Pod, Asker::Node, Asker::Outside] {
            let mut ask = Ask {
                client: addr(client),
                from,
                ..ask(&vip, 80, Proto::TCP)
            };
            fake.ranges.clear();
            assert_eq!(select_in(&fake, &ask), Selection::OutOfRange, "no range");
            fake.ranges.push(RangeKey::prefix(5, addr(client), 32));
            assert!(fake.id(&ask).is_some());
            ask.client = addr(other);
            assert_eq!(select_in(&fake, &ask), Selection::OutOfRange);
        }
    }
}

#[test]
fn a_client_with_affinity_stays_with_its_backend_while_it_comes_often_enough() {
    for from in [Asker::Pod, Asker::Node, Asker::Outside] {
        let mut fake = service(50);
        fake.change(VIP4, 80, |service| service.affinity_secs = 100);
        let mut ask = outside(&VIP4, 80, 1);
        ask.from = from;
        let first = fake.id(&ask);
        for port in 0..40 {
            ask.client_port = PortBe::new(port);
            // Each flow counts: 40 times 90 ticks are more than the timeout.
            ask.now += 90;
            assert_eq!(fake.id(&ask), first);
        }
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..40 {
            ask.now += 95;
            seen.insert(fake.id(&ask));
        }
        assert!(seen.len() > 1, "after the timeout it is chosen anew");
    }
}

#[test]
fn a_client_with_affinity_leaves_a_backend_that_takes_no_new_flows() {
    for state in [BackendState::Draining, BackendState::Removed] {
        let mut fake = service(4);
        fake.change(VIP4, 80, |service| service.affinity_secs = 100);
        let ask = ask(&VIP4, 80, Proto::TCP);
        let first = fake.id(&ask).unwrap();
        // Its place in a new set is another's.
        fake.slots.retain(|_, slot| slot.backend.0 != first);
        fake.state(first, state);
        let second = fake.id(&ask).unwrap();
        assert_ne!(second, first);
        for _ in 0..20 {
            assert_eq!(fake.id(&ask), Some(second));
        }
        // Another backend under the same number.
        let second = BackendId(second);
        fake.backends.get_mut(&second).unwrap().incarnation += 1;
        fake.slots.retain(|_, slot| slot.backend != second);
        assert_ne!(fake.id(&ask), Some(second.0));
    }
}

#[test]
fn affinity_outlives_a_change_of_the_set_and_ends_at_a_frontend() {
    let mut fake = service(8);
    fake.change(VIP4, 80, |service| service.affinity_secs = 100);
    let ask = ask(&VIP4, 80, Proto::TCP);
    let first = fake.id(&ask);
    fake.frontend(VIP6, 1, Proto::TCP, 9, 8);
    fake.change(VIP4, 80, |service| service.set = SetId(9));
    for _ in 0..20 {
        assert_eq!(fake.id(&ask), first);
    }
    assert_eq!(fake.affinity.borrow().len(), 1);
    let nobody = Ask {
        client: Addr::NONE,
        ..ask
    };
    assert!(fake.id(&nobody).is_some());
    assert_eq!(fake.affinity.borrow().len(), 1, "nobody has no affinity");
}

#[test]
fn the_choice_for_outside_depends_on_no_order_and_no_number_of_the_nodes_own() {
    let here = service(20);
    let mut there = service(20);
    for index in 0..20 {
        // Other numbers, another order; the incarnations are the cluster's.
        let (old, new) = (BackendId(100 + index), BackendId(700 + index));
        let backend = there.backends.remove(&old).unwrap();
        there.backends.insert(new, backend);
        let set = SetId(1);
        let slot = SlotKey {
            set,
            index: (index * 7 + 3) % 20,
        };
        let new = Slot {
            backend: new,
            incarnation: backend.incarnation,
        };
        there.slots.insert(slot, new);
    }
    for client in 0..500 {
        let ask = outside(&VIP4, 80, client);
        assert_eq!(member(here.id(&ask), 100), member(there.id(&ask), 700));
    }
}

fn member(id: Option<u32>, from: u32) -> u32 {
    id.unwrap() - from
}

#[test]
fn the_choice_for_outside_is_even() {
    for count in [2, 3, 10, 32, 50] {
        let fake = service(count);
        let mut hits = vec![0u32; count as usize];
        for client in 0..count as u16 * 1000 {
            hits[fake.id(&outside(&VIP4, 80, client)).unwrap() as usize - 100] += 1;
        }
        // 1000 expected each, standard deviation below 32: 6 of them.
        assert!(hits.iter().all(|n| (810..=1190).contains(n)), "{hits:?}");
    }
}

#[test]
fn one_backend_of_n_that_goes_or_comes_moves_about_one_nth_of_the_flows() {
    const FLOWS: u16 = 10_000;
    let before = service(10);
    let mut after = service(10);
    // Backend 4 is gone, the last one takes its slot.
    let slot = |index| SlotKey {
        set: SetId(1),
        index,
    };
    let last = after.slots[&slot(9)];
    after.slots.insert(slot(4), last);
    after.change(VIP4, 80, |service| service.count = 9);
    let mut moved = 0;
    for client in 0..FLOWS {
        let ask = outside(&VIP4, 80, client);
        let (was, is) = (before.id(&ask).unwrap(), after.id(&ask).unwrap());
        if was != is {
            assert_eq!(was, 104, "only flows of the backend that is gone move");
            moved += 1;
        }
    }
    assert!((800..=1200).contains(&moved), "{moved}");
}

#[test]
fn a_removed_backend_gets_no_flow_from_outside_and_those_of_others_stay() {
    let before = service(6);
    let mut after = service(6);
    // Such a set is one that has just been replaced: the frontend is read again.
    after.state(103, BackendState::Removed);
    for client in 0..600 {
        let ask = outside(&VIP4, 80, client);
        match before.id(&ask).unwrap() {
            103 => assert_eq!(select_in(&after, &ask), Selection::Refuse),
            other => assert_eq!(after.id(&ask), Some(other)),
        }
    }
}

#[test]
fn a_client_with_affinity_goes_where_its_address_says_on_every_node() {
    let mut fake = service(8);
    fake.change(VIP4, 80, |service| service.affinity_secs = 100);
    let mut other = service(8);
    other.change(VIP4, 80, |service| service.affinity_secs = 100);
    for client in 0..50 {
        let mut ask = outside(&VIP4, 80, client);
        let here = fake.id(&ask);
        ask.client_port = PortBe::new(1);
        assert_eq!(other.id(&ask), here, "by another port, at another node");
    }
}

#[test]
fn a_large_set_is_served_whole_and_each_client_by_one_backend() {
    let fake = service(400);
    let mut seen = std::collections::BTreeSet::new();
    for client in 0..20_000 {
        let ask = outside(&VIP4, 80, client);
        let id = fake.id(&ask).unwrap();
        assert_eq!(fake.id(&ask), Some(id));
        seen.insert(id);
    }
    assert_eq!(seen.len(), 400);
}
