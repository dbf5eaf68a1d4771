//! Layout tests: sizes and offsets are the contract, and no type has padding.

use core::mem::{align_of, offset_of, size_of};

use crate::{endpoint::*, node::*, policy::*, service::*, *};

#[test]
fn policy_types_have_their_pinned_layout() {
    assert_eq!((size_of::<Addr>(), align_of::<Addr>()), (16, 4));
    assert_eq!(size_of::<PolicySlot>(), 8 + 8);
    assert_eq!(size_of::<LpmKey>(), 4 + 1 + 3 + 16);
    assert_eq!(offset_of!(LpmKey, addr), 8);
    assert_eq!(size_of::<DecisionKey>(), 4 + 4);
    assert_eq!(size_of::<Decision>(), 4 + 4);
    assert_eq!(size_of::<Interval>(), 4 + 4);
    assert_eq!(size_of::<IdKey>(), 4 + 16);
    assert_eq!(size_of::<RuleInfo>(), 4 + RuleInfo::TEXT);
}

#[test]
fn service_types_have_their_pinned_layout() {
    assert_eq!(size_of::<ServiceKey>(), 16 + 2 + 1 + 1);
    assert_eq!(size_of::<Service>(), 4 + 4 + 4 + 4);
    assert_eq!(offset_of!(Service, count), 4);
    assert_eq!(size_of::<SlotKey>(), 4 + 4);
    assert_eq!(size_of::<Backend>(), 16 + 2 + 1 + 1 + 4);
}

#[test]
fn endpoint_and_node_types_have_their_pinned_layout() {
    assert_eq!(size_of::<Endpoint>(), 16 + 16 + 4 * 4 + 6 + 6 + 4);
    assert_eq!(offset_of!(Endpoint, pod_mac), 48);
    assert_eq!(size_of::<NodeAddr>(), 4);
    assert_eq!(size_of::<NodeCidr>(), 8);
}

#[test]
fn an_ipv4_address_survives_its_mapped_form() {
    let ip = core::net::IpAddr::from([10, 1, 2, 3]);
    assert_eq!(Addr::from(ip).to_ip(), ip);
    assert!(Addr::from(ip).is_v4());
}

#[test]
fn a_verdict_of_all_zero_bytes_denies() {
    assert!(!RuleVerdict(0).allowed());
    assert!(RuleVerdict::allow(RuleId(7)).allowed());
    assert_eq!(RuleVerdict::allow(RuleId(7)).rule(), RuleId(7));
}
