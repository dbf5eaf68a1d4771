//! The choice of addresses, on plain data.

use super::*;
use crate::ipam::range::Range;

fn pools(sets: &[&[&str]]) -> Vec<Pool> {
    let range = |text: &&str| Range::new(text.parse().unwrap(), None, None, None).unwrap();
    Pool::from_sets(
        sets.iter()
            .map(|set| set.iter().map(range).collect())
            .collect(),
    )
    .unwrap()
}

fn key(id: &str) -> Key {
    Key {
        network: "net".into(),
        container_id: id.into(),
        ifname: "eth0".into(),
    }
}

fn request<'a>(id: &str, pools: &'a [Pool]) -> Request<'a> {
    Request {
        key: key(id),
        pools,
        wanted: &[],
        host_ifname: format!("h{id}"),
        boot_id: "boot".into(),
        pod: None,
    }
}

fn add(state: &mut State, id: &str, pools: &[Pool]) -> Vec<String> {
    let record = state.allocate(&request(id, pools)).unwrap();
    state.validate().unwrap();
    record.addresses.iter().map(ToString::to_string).collect()
}

#[test]
fn dual_stack_gives_one_address_of_each_family_ipv4_first() {
    let pools = pools(&[&["fd00::/64"], &["10.0.0.0/24"]]);
    let mut state = State::default();
    assert_eq!(add(&mut state, "a", &pools), ["10.0.0.1", "fd00::1"]);
    assert_eq!(add(&mut state, "b", &pools), ["10.0.0.2", "fd00::2"]);
}

#[test]
fn fresh_addresses_come_first_then_the_longest_free() {
    let pools = pools(&[&["10.0.0.0/30"], &["fd00::8/125"]]);
    let mut state = State::default();
    assert_eq!(add(&mut state, "a", &pools), ["10.0.0.1", "fd00::9"]);
    state.release(&key("a"));
    assert_eq!(add(&mut state, "b", &pools), ["10.0.0.2", "fd00::a"]);
    state.release(&key("b"));
    // Both IPv4 addresses have been used: the one freed first comes first.
    assert_eq!(add(&mut state, "c", &pools), ["10.0.0.1", "fd00::b"]);
    assert_eq!(add(&mut state, "d", &pools), ["10.0.0.2", "fd00::c"]);
    state.release(&key("d"));
    state.release(&key("c"));
    assert_eq!(add(&mut state, "e", &pools)[0], "10.0.0.2");
}

#[test]
fn ranges_of_a_set_are_used_up_in_turn() {
    let pools = pools(&[&["10.0.0.4/31", "10.9.0.4/31"]]);
    let mut state = State::default();
    let got: Vec<_> = ["a", "b", "c", "d"]
        .map(|id| add(&mut state, id, &pools).remove(0))
        .into();
    assert_eq!(got, ["10.0.0.4", "10.0.0.5", "10.9.0.4", "10.9.0.5"]);
}

#[test]
fn exhaustion_names_range_size_and_use_and_changes_nothing() {
    let pools = pools(&[&["fd00::/64"], &["10.0.0.0/30", "10.9.0.4/32"]]);
    let mut state = State::default();
    for id in ["a", "b", "c"] {
        assert!(state.check_room(&pools, "boot").is_ok());
        add(&mut state, id, &pools);
    }
    let before = state.clone();
    let error = state.allocate(&request("d", &pools)).unwrap_err();
    assert_eq!(error.code, Code::Exhausted);
    assert_eq!(
        error.msg,
        "no free IPv4 address: 3 of 3 in use in 10.0.0.0/30 (10.0.0.1-10.0.0.2), 10.9.0.4/32 \
         (10.9.0.4-10.9.0.4)"
    );
    assert_eq!(state, before);
    assert_eq!(state.check_room(&pools, "boot").unwrap_err(), error);
    assert!(state.check_room(&pools, "next boot").is_ok());
    state.release(&key("b"));
    assert_eq!(add(&mut state, "d", &pools)[0], "10.0.0.2");
}

#[test]
fn a16_a_second_add_of_the_same_attachment_is_refused_and_allocates_nothing() {
    let pools = pools(&[&["10.0.0.0/24"]]);
    let mut state = State::default();
    add(&mut state, "a", &pools);
    let before = state.clone();
    assert_eq!(
        state.allocate(&request("a", &pools)).unwrap_err().code,
        Code::AlreadyAttached
    );
    assert_eq!(state, before);
}

#[test]
fn a17_another_interface_or_network_of_a_container_is_another_attachment() {
    let pools = pools(&[&["10.0.0.0/24"]]);
    let mut state = State::default();
    add(&mut state, "a", &pools);
    let mut other = request("a", &pools);
    other.key.ifname = "eth1".into();
    let second = state.allocate(&other).unwrap();
    other.key.network = "net2".into();
    let third = state.allocate(&other).unwrap();
    // Addresses are one space for all networks: they may share a range.
    assert_eq!(second.addresses, ["10.0.0.2".parse::<IpAddr>().unwrap()]);
    assert_eq!(third.addresses, ["10.0.0.3".parse::<IpAddr>().unwrap()]);
    assert_eq!(
        state.release(&key("a")).unwrap().addresses[0].to_string(),
        "10.0.0.1"
    );
    assert_eq!(state.release(&key("a")), None);
    assert_eq!(state.records.len(), 2);
}

#[test]
fn a18_records_of_another_boot_are_dropped_by_the_next_add() {
    let pools = pools(&[&["10.0.0.0/30"]]);
    let mut state = State::default();
    add(&mut state, "a", &pools);
    add(&mut state, "b", &pools);
    let mut after = request("a", &pools);
    after.boot_id = "next boot".into();
    let record = state.allocate(&after).unwrap();
    assert_eq!(state.records, [record]);
    state.validate().unwrap();
}

#[test]
fn e7_an_address_asked_for_is_given_if_it_is_free_and_in_range() {
    let pools = pools(&[&["10.0.0.0/24"], &["fd00::/64"]]);
    let mut state = State::default();
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let wanted = [ip("10.0.0.77")];
    let mut request = request("a", &pools);
    request.wanted = &wanted;
    assert_eq!(
        state.allocate(&request).unwrap().addresses,
        [ip("10.0.0.77"), ip("fd00::1")]
    );
    request.key = key("b");
    assert_eq!(
        state.allocate(&request).unwrap_err().code,
        Code::AddressInUse
    );
    let wrong = [
        vec![ip("10.0.0.0")],
        vec![ip("10.0.1.1")],
        vec![ip("10.0.0.5"), ip("10.0.0.6")],
    ];
    for wrong in &wrong {
        request.wanted = wrong;
        assert_eq!(
            state.allocate(&request).unwrap_err().code,
            Code::InvalidConfig,
            "{wrong:?}"
        );
    }
}

#[test]
fn a_huge_range_does_not_make_the_store_grow_with_every_pod() {
    let pools = pools(&[&["fd00::/64"]]);
    let mut state = State::default();
    let mut last_seen = std::collections::HashMap::new();
    for round in 0..3 * REMEMBERED {
        let id = format!("c{round}");
        let address = add(&mut state, &id, &pools).remove(0);
        if let Some(before) = last_seen.insert(address.clone(), round) {
            assert!(
                round - before >= REMEMBERED,
                "{address} came back after {}",
                round - before
            );
        }
        state.release(&key(&id));
        assert!(state.freed.len() <= REMEMBERED + 1, "{}", state.freed.len());
    }
}

#[test]
fn a_store_with_an_address_or_a_key_twice_or_of_another_version_is_not_valid() {
    let pools = pools(&[&["10.0.0.0/24"]]);
    let mut state = State::default();
    add(&mut state, "a", &pools);
    add(&mut state, "b", &pools);
    let mut twice = state.clone();
    twice.records[1].addresses = twice.records[0].addresses.clone();
    assert!(twice.validate().unwrap_err().contains("10.0.0.1"));
    let mut keys = state.clone();
    keys.records[1].key = keys.records[0].key.clone();
    assert!(keys.validate().is_err());
    state.version = 2;
    assert!(state.validate().unwrap_err().contains('2'));
}
