//! Session affinity and source ranges, by the address of the socket's owner.

use weir_abi::service::scope;

use super::*;

fn owner(last: u8) -> Option<NetnsOwner> {
    Some(NetnsOwner {
        addr4: Addr::from_v4([10, 1, 0, last]),
        addr6: Addr::from_v6([0xfd, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]),
        ..NetnsOwner::default()
    })
}

/// Backends 1 to 5 of frontend 1, for a pod's socket.
fn with(change: impl Fn(&mut Service)) -> Fake {
    let mut fake = Fake {
        owner: owner(9),
        ..Fake::default().serve(1, &[1, 2, 3, 4, 5])
    };
    let is_marker = |key: &ServiceKey| *key == ServiceKey::marker(key.addr);
    for (key, service) in &mut fake.services {
        if !is_marker(key) {
            change(service);
        }
    }
    fake
}

fn sticky() -> Fake {
    with(|service| service.affinity_secs = 100)
}

fn to(outcome: Outcome) -> SockAddr {
    match outcome {
        Outcome::To(to) => to,
        other => panic!("{other:?}"),
    }
}

fn dial(fake: &Fake, cookie: u64) -> SockAddr {
    to(connect(fake, cookie, frontend(1), Proto::TCP))
}

#[test]
fn all_sockets_of_a_pod_go_where_its_first_one_went() {
    let mut fake = sticky();
    let first = dial(&fake, 1);
    for cookie in 2..100 {
        assert_eq!(dial(&fake, cookie), first);
    }
    let others: std::collections::HashSet<_> = (10..60)
        .map(|last| {
            fake.owner = owner(last);
            dial(&fake, 7)
        })
        .collect();
    assert!(others.len() > 1, "other pods go elsewhere");
}

#[test]
fn affinity_is_kept_under_the_key_that_the_packet_path_uses() {
    let fake = sticky();
    dial(&fake, 1);
    let key = AffinityKey {
        client: owner(9).unwrap().addr4,
        frontend: ServiceKey {
            addr: frontend(1).addr,
            port: frontend(1).port,
            proto: Proto::TCP,
            scope: scope::EVERYONE,
        },
        zero: 0,
    };
    let entry = fake.affinity(&key).unwrap();
    assert_eq!(entry.set, SetId(1));
    // What the packet path notes, the socket follows.
    for number in 1..=5 {
        let backend_id = BackendId(100 + number);
        let entry = Affinity {
            backend: backend_id,
            ..entry
        };
        fake.set_affinity(&key, &entry);
        assert_eq!(dial(&fake, 2), backend(number));
    }
}

#[test]
fn connected_and_unconnected_datagram_sockets_have_affinity_too() {
    let fake = sticky();
    let first = to(connect(&fake, 1, frontend(1), Proto::UDP));
    for cookie in 2..50 {
        assert_eq!(to(sendmsg(&fake, cookie, frontend(1))), first);
    }
}

#[test]
fn affinity_ends_after_its_time_and_each_new_flow_begins_it_anew() {
    let fake = sticky();
    let first = dial(&fake, 1);
    for step in 1..50 {
        // 93 ticks of 2^30 ns are 99.9 s.
        *fake.ticks.borrow_mut() = 93 * step;
        assert_eq!(dial(&fake, 1), first, "used within the time each time");
    }
    let seen: std::collections::HashSet<_> = (50..100)
        .map(|step| {
            *fake.ticks.borrow_mut() = 94 * step;
            dial(&fake, 1)
        })
        .collect();
    assert!(seen.len() > 1, "100.9 s later it may be any");
}

#[test]
fn affinity_leaves_a_backend_that_drains_is_removed_or_is_another_by_now() {
    let changes: [fn(&mut Backend); 3] = [
        |b| b.state = BackendState::Draining as u32,
        |b| b.state = BackendState::Removed as u32,
        |b| b.incarnation += 1,
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let mut moved = 0;
        for seed in 0..50 {
            let fake = sticky();
            *fake.seed.borrow_mut() = seed;
            let first = dial(&fake, 1);
            for backend in fake.backends.borrow_mut().values_mut() {
                if SockAddr::new(backend.addr, backend.port) == first {
                    change(backend);
                }
            }
            moved += u32::from(dial(&fake, 2) != first);
        }
        // Where the flow may go there again by chance, it does so one time in five.
        assert!(moved > 20, "change {n}: {moved} of 50");
    }
}

#[test]
fn sockets_of_nobody_have_no_affinity() {
    let mut fake = sticky();
    fake.owner = None;
    let seen: std::collections::HashSet<_> = (0..50).map(|c| dial(&fake, c)).collect();
    assert!(seen.len() > 1);
    assert!(fake.affinities.borrow().is_empty());
}

#[test]
fn a_client_in_no_source_range_is_refused_at_once() {
    let mut fake = with(|service| service.ranges = 3);
    let dst = frontend(1);
    fake.ranges = vec![(3, owner(9).unwrap().addr4), (4, owner(8).unwrap().addr4)];
    assert!(matches!(connect(&fake, 1, dst, Proto::TCP), Outcome::To(_)));
    assert!(matches!(sendmsg(&fake, 2, dst), Outcome::To(_)));
    fake.owner = owner(8);
    for proto in [Proto::TCP, Proto::UDP] {
        assert_eq!(connect(&fake, 1, dst, proto), Outcome::Refuse);
    }
    assert_eq!(sendmsg(&fake, 3, dst), Outcome::Refuse);
}

#[test]
fn no_source_range_holds_the_sockets_of_nobody() {
    let mut fake = with(|service| service.ranges = 3);
    fake.owner = None;
    // `::/0` would hold the address that stands for nobody.
    fake.ranges = vec![(3, Addr::NONE)];
    assert_eq!(connect(&fake, 1, frontend(1), Proto::TCP), Outcome::Refuse);
}

#[test]
fn affinity_does_not_open_a_frontend_to_who_is_in_no_range() {
    let mut fake = with(|service| {
        service.ranges = 3;
        service.affinity_secs = 100;
    });
    fake.ranges = vec![(3, owner(9).unwrap().addr4)];
    dial(&fake, 1);
    fake.ranges.clear();
    assert_eq!(connect(&fake, 1, frontend(1), Proto::TCP), Outcome::Refuse);
}
