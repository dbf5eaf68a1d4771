//! Session affinity and source ranges, by the address of the pod or node that a socket is of.

use std::collections::BTreeSet;
use std::net::{IpAddr, TcpStream};

use aya::maps::{HashMap, lpm_trie};
use weir_abi::map;
use weir_abi::service::{Affinity, AffinityKey, RangeKey};

use crate::families;
use crate::owner::Owner;
use crate::rig::{Family, Rig};
use crate::servers::{ask, dial, exchange, frontend, start, udp};

/// Lets a prefix use what the range guards.
fn allow(rig: &mut Rig, ranges: u32, prefix: IpAddr, len: u32) {
    let key = RangeKey::prefix(ranges, prefix.into(), len);
    let [a, b, c, d] = key.addr;
    let trie = rig.ebpf.map_mut(map::SOURCE_RANGES).unwrap();
    let mut trie = lpm_trie::LpmTrie::<_, [u32; 6], u32>::try_from(trie).unwrap();
    let key = lpm_trie::Key::new(key.prefix_len, [key.ranges, key.family, a, b, c, d]);
    trie.insert(&key, 1, 0).unwrap();
}

fn refused(family: Family) {
    let to = frontend(family, 1);
    let error = TcpStream::connect(to).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
    let error = udp(family).send_to(b"?", to).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
}

families! {
    fn with_affinity_all_sockets_of_a_pod_go_to_one_backend(family) {
        start(family);
        let mut rig = Rig::new();
        rig.serve(family, 1, &[1, 2, 3, 4, 5, 6]);
        let seen = || (0..40).map(|_| ask(&dial(family, 1))).collect::<BTreeSet<u8>>();
        rig.own(Owner::Pod);
        assert!(seen().len() > 1, "without affinity any backend answers");
        rig.amend(family, 1, |service| service.affinity_secs = 10_800);
        assert_eq!(seen().len(), 1);
        let datagrams = (0..40).map(|_| exchange(&udp(family), frontend(family, 1)).0);
        assert_eq!(datagrams.collect::<BTreeSet<u8>>().len(), 1);
        let affinity = rig.ebpf.map(map::AFFINITY).unwrap();
        let affinity = HashMap::<_, AffinityKey, Affinity>::try_from(affinity).unwrap();
        let clients: BTreeSet<IpAddr> =
            affinity.keys().map(|key| key.unwrap().client.to_ip()).collect();
        assert_eq!(clients, BTreeSet::from([Owner::address(family)]));
    }

    fn affinity_moves_with_a_backend_that_goes_and_not_with_one_that_comes(family) {
        start(family);
        let mut rig = Rig::new();
        rig.own(Owner::Pod);
        rig.serve(family, 1, &[1]);
        rig.amend(family, 1, |service| service.affinity_secs = 10_800);
        assert_eq!(ask(&dial(family, 1)), 1);
        rig.serve(family, 1, &[1, 2, 3]);
        rig.amend(family, 1, |service| service.affinity_secs = 10_800);
        for _ in 0..20 {
            assert_eq!(ask(&dial(family, 1)), 1);
        }
        rig.serve(family, 1, &[2, 3]);
        rig.amend(family, 1, |service| service.affinity_secs = 10_800);
        let seen: BTreeSet<u8> = (0..20).map(|_| ask(&dial(family, 1))).collect();
        assert_eq!(seen.len(), 1);
        assert!(!seen.contains(&1));
    }

    fn a_client_in_no_source_range_gets_econnrefused(family) {
        start(family);
        let mut rig = Rig::new();
        rig.serve(family, 1, &[1]);
        rig.amend(family, 1, |service| service.ranges = 7);
        // Whose the namespace is, is not known yet.
        allow(&mut rig, 7, if family == Family::V6 { "::" } else { "0.0.0.0" }.parse().unwrap(), 0);
        refused(family);
        rig.own(Owner::Pod);
        assert_eq!(ask(&dial(family, 1)), 1);
        assert_eq!(exchange(&udp(family), frontend(family, 1)), (1, frontend(family, 1)));
        rig.amend(family, 1, |service| service.ranges = 8);
        refused(family);
        let other = if family == Family::V6 { "fd02::" } else { "10.2.0.0" };
        allow(&mut rig, 8, other.parse().unwrap(), 16);
        refused(family);
        allow(&mut rig, 8, Owner::address(family), if family == Family::V6 { 128 } else { 32 });
        assert_eq!(ask(&dial(family, 1)), 1);
    }
}
