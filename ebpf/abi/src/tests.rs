//! Layout tests: sizes and offsets are the contract, and no type has padding.

use core::mem::{align_of, offset_of, size_of};

use crate::{endpoint::*, node::*, policy::*, service::*, sock::*, *};

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
    assert_eq!(size_of::<Service>(), 4 + 4 + 4 + 4 + 4);
    assert_eq!(offset_of!(Service, count), 4);
    assert_eq!(size_of::<SlotKey>(), 4 + 4);
    assert_eq!(size_of::<Slot>(), 8);
    assert_eq!(size_of::<Backend>(), 8 * Backend::WORDS);
    assert_eq!(offset_of!(Backend, incarnation), 24);
    assert_eq!(size_of::<RangeKey>(), 4 + 4 + 4 + 16);
    assert_eq!(size_of::<AffinityKey>(), 16 + 20 + 4);
    assert_eq!(size_of::<Affinity>(), 4 * 4);
}

#[test]
fn socket_types_have_their_pinned_layout() {
    assert_eq!(size_of::<SockAddr>(), 16 + 2 + 2);
    assert_eq!(size_of::<SockKey>(), 8 + 20 + 4);
    assert_eq!(offset_of!(SockKey, peer), 8);
    assert_eq!(size_of::<UdpFlow>(), 4 + 4);
    assert_eq!(size_of::<SockConn>(), 20 + 20 + 4 + 4 + 8);
}

#[test]
fn endpoint_and_node_types_have_their_pinned_layout() {
    assert_eq!(size_of::<Endpoint>(), 16 + 16 + 4 * 4 + 6 + 6 + 4);
    assert_eq!(offset_of!(Endpoint, pod_mac), 48);
    assert_eq!(size_of::<NodeAddr>(), 4);
    assert_eq!(size_of::<NodeCidr>(), 32);
    assert_eq!(size_of::<UplinkInfo>(), 16 + 16 + 6 + 2);
    assert_eq!(size_of::<NetnsOwner>(), 16 + 16 + 4 + 4);
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

#[test]
fn conntrack_types_have_their_pinned_layout() {
    use crate::conntrack::*;
    assert_eq!(size_of::<Tuple>(), 16 + 16 + 2 + 2);
    assert_eq!(size_of::<CtKey>(), 16 + 16 + 2 + 2 + 4);
    assert_eq!(size_of::<CtEntry>(), 8 + 8 + 36 + 12 * 4 + 3 * 4);
    assert_eq!(align_of::<CtEntry>(), 8);
    assert_eq!(offset_of!(CtEntry, ingress), 8);
    assert_eq!(offset_of!(CtEntry, other), 16);
    assert_eq!(offset_of!(CtEntry, version), 92);
}

#[test]
fn fragment_types_have_their_pinned_layout() {
    use crate::fragment::*;
    assert_eq!(size_of::<FragmentKey>(), 16 + 16 + 4 * 4);
    assert_eq!(size_of::<FragmentEntry>(), 16 + 16 + 10 * 4);
    assert_eq!(offset_of!(FragmentEntry, written), 32);
    assert_eq!(offset_of!(FragmentEntry, check), 68);
}

#[test]
fn keys_of_fragments_that_differ_in_one_word_have_different_digests() {
    use crate::fragment::FragmentKey;
    let key = FragmentKey {
        src: Addr::from_v4([10, 0, 0, 1]),
        dst: Addr::from_v4([10, 0, 0, 2]),
        id: 1,
        proto: 17,
        ifindex: 3,
        hook: 1,
    };
    let swapped = FragmentKey {
        src: key.dst,
        dst: key.src,
        ..key
    };
    for other in [
        swapped,
        FragmentKey { id: 2, ..key },
        FragmentKey { proto: 6, ..key },
        FragmentKey { ifindex: 4, ..key },
        FragmentKey { hook: 2, ..key },
    ] {
        assert_ne!(key.check(), other.check(), "{other:?}");
    }
}

#[test]
fn both_directions_of_a_flow_have_one_key_and_opposite_order() {
    use crate::conntrack::*;
    let addr = |n: u8| [Addr::from_v4([10, 0, n, 1]), Addr::from_v6([n; 16])];
    let ports = [(1u16, 2u16), (2, 1), (7, 256)];
    for ((src, dst), (sport, dport)) in addr(1)
        .into_iter()
        .zip(addr(2))
        .flat_map(|p| ports.map(|q| (p, q)))
    {
        let t = Tuple {
            src,
            dst,
            sport: PortBe::new(sport),
            dport: PortBe::new(dport),
        };
        let (key, swapped) = CtKey::sorted(&t, Proto::TCP);
        let (back, back_swapped) = CtKey::sorted(&t.reversed(), Proto::TCP);
        assert_eq!(key, back);
        assert_ne!(swapped, back_swapped);
    }
}

#[test]
fn one_address_talking_to_itself_is_ordered_by_its_ports() {
    use crate::conntrack::*;
    let src = Addr::from_v4([10, 0, 0, 1]);
    let t = Tuple {
        src,
        dst: src,
        sport: PortBe::new(5),
        dport: PortBe::new(6),
    };
    let (key, swapped) = CtKey::sorted(&t, Proto::UDP);
    let (back, back_swapped) = CtKey::sorted(&t.reversed(), Proto::UDP);
    assert_eq!(key, back);
    assert_ne!(swapped, back_swapped);
}

#[test]
fn a_stamp_holds_only_under_its_epoch_and_keeps_its_tag() {
    use crate::conntrack::Stamp;
    let tag = 0xdead_beef;
    assert_eq!(Stamp::unjudged(tag).verdict(0), None);
    assert_eq!(Stamp::judged(tag, 7, true).verdict(7), Some(true));
    assert_eq!(Stamp::judged(tag, 7, false).verdict(7), Some(false));
    assert_eq!(Stamp::judged(tag, 7, true).verdict(8), None);
    assert_eq!(
        Stamp::judged(tag, u32::MAX, true).tag(),
        tag & Stamp::TAG_BITS
    );
}

#[test]
fn every_counter_has_a_number_of_its_own_within_the_map() {
    use crate::counter::*;
    let numbers = Counter::ALL.map(|c| c as u32);
    assert!(numbers.is_sorted_by(|a, b| a < b));
    assert!(numbers.iter().all(|n| *n < COUNTERS));
}

#[test]
fn a_class_is_its_base_and_a_number_of_its_own() {
    use crate::policy::ClassId;
    let base = ClassId(7 << ClassId::OWN_BITS);
    let class = ClassId::on_base(base, 0x00ab_cdef);
    assert_eq!(class, ClassId(0x07ab_cdef));
    assert_eq!((class.base(), class.own()), (base, 0x00ab_cdef));
    assert_eq!((base.base(), base.own()), (base, 0));
    assert_eq!(ClassId::on_base(class, 1).base(), base);
    assert_eq!(ClassId(5).base(), ClassId::WORLD);
}

#[test]
fn a_dry_runs_report_comes_back_from_the_words_of_the_control_block() {
    use crate::dry_run::{Report, state};
    let report = Report {
        egress: RuleVerdict::allow(RuleId(70)),
        ingress: RuleVerdict::deny(RuleId(71)),
        state: state::REPORTED | state::INGRESS | state::TRACKED,
        counter: 10,
        backend: BackendId(9),
    };
    assert_eq!(Report::from_words(report.words()), Some(report));
    assert_eq!(size_of::<Report>(), 4 * Report::WORDS);
    assert_eq!(report.egress(), None, "not judged there");
    assert_eq!(report.ingress(), Some(report.ingress));
    assert!(report.tracked());
    assert_eq!(Report::from_words([0; Report::WORDS]), None);
}

#[test]
fn a_backend_and_a_slot_come_back_from_their_words_and_zero_words_are_none() {
    let backend = Backend {
        addr: Addr::from_v6([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]),
        port: PortBe::new(8080),
        proto: Proto::UDP,
        zero: 0,
        check: 0xdead_beef,
        incarnation: 77,
        state: BackendState::Draining as u32,
    };
    assert_eq!(Backend::unpack(backend.pack()), Some(backend));
    assert_eq!(Backend::unpack([1, 2, 3, 0]), None);
    let slot = Slot {
        backend: BackendId(5),
        incarnation: 9,
    };
    assert_eq!(Slot::unpack(slot.pack()), slot);
    assert_eq!(Slot::unpack(0), Slot::default());
}
