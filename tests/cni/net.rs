//! `weir-net` against the kernel.

use std::{
    collections::HashMap,
    os::fd::AsFd,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use aya::maps::{Array, Map, MapData};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use weir_net::{
    Error, NetNs, Netlink,
    bpf::{self, MappedArray},
    netlink::{LinkChange, LinkWatch, Mac, Route, RouteKind, Rule, Veth},
    sysctl,
};

fn veth<'a>(name: &'a str, peer: &'a str, ns: &'a NetNs) -> Veth<'a> {
    Veth {
        name,
        mac: None,
        peer_name: peer,
        peer_ns: ns,
        peer_mac: Some(Mac([2; 6])),
        mtu: 1400,
    }
}

#[test]
fn namespaces_are_compared_by_identity_and_entered_on_another_thread_only() {
    let (a, b) = (NetNs::create().unwrap(), NetNs::create().unwrap());
    assert_ne!(a, b);
    assert_eq!(NetNs::open(a.path()).unwrap(), a);
    let before = NetNs::current().unwrap();
    assert_eq!(a.run(|| NetNs::current().unwrap()).unwrap(), a);
    assert_eq!(NetNs::current().unwrap(), before);
    assert_eq!(NetNs::of_process(std::process::id()).unwrap(), before);
}

#[test]
fn a_bound_namespace_is_made_and_removed_at_its_path() {
    let dir = tempfile::Builder::new()
        .prefix("weir-netns-test")
        .tempdir()
        .unwrap();
    let path = dir.path().join("ns");
    let ns = NetNs::create_at(&path).unwrap();
    assert_eq!(NetNs::open(&path).unwrap(), ns);
    assert!(NetNs::create_at(&path).unwrap_err().exists());
    assert_eq!(
        NetNs::open(&path).unwrap(),
        ns,
        "a failed creation removed another's namespace"
    );
    NetNs::remove_at(&path).unwrap();
    assert!(!path.exists());
    NetNs::remove_at(&path).unwrap();
    std::fs::write(&path, "").unwrap();
    assert!(matches!(
        NetNs::open(&path),
        Err(Error::NotANamespace { .. })
    ));
    assert!(matches!(
        NetNs::open("/proc/self/ns/mnt"),
        Err(Error::NotANamespace { .. })
    ));
    assert!(NetNs::open("/nonexistent").unwrap_err().is_gone());
}

#[test]
fn a_panic_inside_a_namespace_is_the_callers() {
    let ns = NetNs::create().unwrap();
    let caught = std::panic::catch_unwind(|| ns.run(|| panic!("inside")));
    assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"inside"));
}

#[test]
fn a_veth_peer_is_made_in_its_namespace_and_never_seen_elsewhere() {
    let (a, b) = (NetNs::create().unwrap(), NetNs::create().unwrap());
    let (here, there) = (Netlink::open_in(&a).unwrap(), Netlink::open_in(&b).unwrap());
    let seen = AtomicBool::new(false);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let watch = Netlink::open_in(&a).unwrap();
            while !done.load(Ordering::SeqCst) {
                if watch
                    .links()
                    .unwrap()
                    .iter()
                    .any(|link| link.name == "eth0")
                {
                    seen.store(true, Ordering::SeqCst);
                }
            }
        });
        for _ in 0..20 {
            here.create_veth(&veth("host0", "eth0", &b)).unwrap();
            assert!(here.delete_link("host0").unwrap());
        }
        done.store(true, Ordering::SeqCst);
    });
    assert!(!seen.load(Ordering::SeqCst));
    here.create_veth(&veth("host0", "eth0", &b)).unwrap();
    let (own, peer) = (here.link("host0").unwrap(), there.link("eth0").unwrap());
    assert_eq!(
        (peer.mac, peer.mtu, own.mtu),
        (Some(Mac([2; 6])), 1400, 1400)
    );
    assert_eq!(
        (own.lower, own.kind.as_deref()),
        (Some(peer.index), Some("veth"))
    );
    assert!(!own.up && !peer.up);
    // Either name taken is an error that says so, and changes nothing.
    assert!(
        here.create_veth(&veth("host0", "eth1", &b))
            .unwrap_err()
            .exists()
    );
    assert!(
        here.create_veth(&veth("host1", "eth0", &b))
            .unwrap_err()
            .exists()
    );
    assert!(here.find_link("host1").unwrap().is_none());
    assert!(there.find_link("eth1").unwrap().is_none());
    assert_eq!(here.link_by_index(own.index).unwrap(), Some(own));
    assert_eq!(here.link_by_index(4711).unwrap(), None);
    assert!(here.link("nothing").unwrap_err().is_gone());
    assert!(!here.delete_link("nothing").unwrap());
}

#[test]
fn addresses_routes_and_neighbours_are_written_listed_and_removed() {
    let (a, b) = (NetNs::create().unwrap(), NetNs::create().unwrap());
    let netlink = Netlink::open_in(&a).unwrap();
    netlink.create_veth(&veth("v0", "v1", &b)).unwrap();
    let index = netlink.link("v0").unwrap().index;
    netlink.set_up(index).unwrap();
    for (address, far, gateway) in [
        ("10.0.0.1/32", "10.9.0.0/16", "10.0.0.2"),
        ("fd00::1/128", "fd09::/64", "fd00::2"),
    ] {
        let network = address.parse().unwrap();
        netlink.add_address(index, network).unwrap();
        assert!(netlink.add_address(index, network).unwrap_err().exists());
        let listed = netlink.addresses(index).unwrap();
        let own = listed.iter().find(|a| a.network == network).unwrap();
        assert!(!own.tentative, "{own:?}");
        let hop: std::net::IpAddr = gateway.parse().unwrap();
        let mut route = Route::to(far.parse().unwrap()).via(index, hop);
        route.onlink = true;
        route.mtu = Some(1300);
        route.table = 1000;
        route.protocol = Route::STATIC;
        netlink.add_route(&route).unwrap();
        assert!(netlink.add_route(&route).unwrap_err().exists());
        netlink.replace_route(&route).unwrap();
        let listed = netlink.routes().unwrap();
        let found = listed
            .iter()
            .find(|r| r.destination == route.destination)
            .unwrap();
        let facts = |r: &Route| (r.gateway, r.index, r.mtu, r.table, r.protocol, r.kind);
        assert_eq!(facts(found), facts(&route));
        assert!(netlink.delete_route(&route).unwrap());
        assert!(!netlink.delete_route(&route).unwrap());
        netlink
            .set_neighbour(index, hop, Mac([2, 0, 0, 0, 0, 9]))
            .unwrap();
        netlink
            .set_neighbour(index, hop, Mac([2, 0, 0, 0, 0, 8]))
            .unwrap();
        let listed = netlink.neighbours(index).unwrap();
        let found = listed.iter().find(|n| n.address == hop).unwrap();
        assert_eq!(
            (found.mac, found.permanent),
            (Some(Mac([2, 0, 0, 0, 0, 8])), true)
        );
        assert!(netlink.delete_neighbour(index, hop).unwrap());
        assert!(!netlink.delete_neighbour(index, hop).unwrap());
        assert!(netlink.delete_address(index, network).unwrap());
        assert!(!netlink.delete_address(index, network).unwrap());
    }
    let blackhole = Route {
        kind: RouteKind::Blackhole,
        ..Route::to("10.8.0.0/16".parse().unwrap())
    };
    netlink.add_route(&blackhole).unwrap();
    let kinds: HashMap<_, _> = netlink
        .routes()
        .unwrap()
        .into_iter()
        .map(|r| (r.destination, r.kind))
        .collect();
    assert_eq!(kinds[&blackhole.destination], RouteKind::Blackhole);
    netlink
        .set_link(
            index,
            LinkChange {
                mtu: Some(1280),
                up: Some(false),
                ..LinkChange::default()
            },
        )
        .unwrap();
    let link = netlink.link("v0").unwrap();
    assert_eq!((link.mtu, link.up), (1280, false));
}

#[test]
fn rules_are_written_listed_and_removed() {
    let ns = NetNs::create().unwrap();
    let netlink = Netlink::open_in(&ns).unwrap();
    for from in ["10.0.0.1/32", "fd00::/64"] {
        let network: weir_net::IpNetwork = from.parse().unwrap();
        let rule = Rule {
            ipv6: network.is_ipv6(),
            priority: 7000,
            table: 1000,
            mark: Some((0x100, 0xf00)),
            from: Some(network),
            to: None,
            input: Some("v0".into()),
        };
        netlink.add_rule(&rule).unwrap();
        assert!(netlink.rules().unwrap().contains(&rule));
        assert!(netlink.delete_rule(&rule).unwrap());
        assert!(!netlink.delete_rule(&rule).unwrap());
    }
}

#[test]
fn an_error_names_the_call_the_object_and_the_kernels_reason() {
    let ns = NetNs::create().unwrap();
    let netlink = Netlink::open_in(&ns).unwrap();
    let route = Route::to("10.0.0.0/8".parse().unwrap()).via(1, "10.0.0.1".parse().unwrap());
    let error = netlink.add_route(&route).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("RTM_NEWROUTE route 10.0.0.0/8 via 10.0.0.1 dev #1"),
        "{text}"
    );
    assert!(text.contains("(os error ") && text.ends_with(')'), "{text}");
}

#[test]
fn a_large_dump_is_whole_while_the_table_changes() {
    let (a, b) = (NetNs::create().unwrap(), NetNs::create().unwrap());
    let netlink = Netlink::open_in(&a).unwrap();
    netlink.create_veth(&veth("v0", "v1", &b)).unwrap();
    let index = netlink.link("v0").unwrap().index;
    netlink.set_up(index).unwrap();
    let route = |n: u32| {
        Route::to(std::net::IpAddr::from((0x0a00_0000 + n).to_be_bytes()).into()).on_link(index)
    };
    for n in 0..2000 {
        netlink.add_route(&route(n)).unwrap();
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let other = Netlink::open_in(&a).unwrap();
            while !done.load(Ordering::SeqCst) {
                other.add_route(&route(5000)).unwrap();
                other.delete_route(&route(5000)).unwrap();
            }
        });
        for _ in 0..20 {
            // Listed again when the kernel says that the listing was interrupted; so rarely
            // given up that a test may say so.
            let Ok(routes) = netlink.routes() else {
                continue;
            };
            let stable = routes
                .iter()
                .filter(|r| r.index == Some(index) && r.table == Route::MAIN);
            let stable = stable.filter(|r| *r.destination.ip().to_string() != *"10.0.19.136");
            assert_eq!(stable.filter(|r| r.destination.is_ipv4()).count(), 2000);
        }
        done.store(true, Ordering::SeqCst);
    });
}

#[test]
fn sysctls_are_those_of_the_thread_that_opens_them() {
    let (a, b) = (NetNs::create().unwrap(), NetNs::create().unwrap());
    a.run(|| sysctl::write("ipv4/conf/all/rp_filter", "2"))
        .unwrap()
        .unwrap();
    b.run(|| sysctl::write("ipv4/conf/all/rp_filter", "0"))
        .unwrap()
        .unwrap();
    let read = |ns: &NetNs| {
        ns.run(|| sysctl::read("ipv4/conf/all/rp_filter").unwrap())
            .unwrap()
    };
    assert_eq!((read(&a).as_str(), read(&b).as_str()), ("2", "0"));
    assert!(
        sysctl::write("ipv4/conf/nothing/rp_filter", "1")
            .unwrap_err()
            .is_gone()
    );
    assert!(!sysctl::exists("ipv4/conf/nothing"));
}

/// `BPF_F_MMAPABLE`.
const MMAPABLE: u32 = 1 << 10;

/// Runs a test with a bpffs of its own, in a mount namespace of a thread that ends with it.
fn on_bpffs(test: impl FnOnce(&Path) + Send) {
    let dir = tempfile::Builder::new()
        .prefix("weir-bpffs-test")
        .tempdir()
        .unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let (none, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
            mount(none, "/", none, private, none).unwrap();
            mount(Some("bpf"), dir.path(), Some("bpf"), MsFlags::empty(), none).unwrap();
            test(dir.path());
        });
    });
}

#[test]
fn a_mapped_array_is_the_map_itself() {
    on_bpffs(|dir| {
        let map = Array::<_, [u64; 2]>::create(4, MMAPABLE).unwrap();
        map.pin(dir.join("map")).unwrap();
        let map = Map::Array(MapData::from_pin(dir.join("map")).unwrap());
        let mut map = Array::<_, [u64; 2]>::try_from(map).unwrap();
        let fd = bpf::get_pinned(dir.join("map")).unwrap();
        let mapped = MappedArray::new(fd.as_fd()).unwrap();
        assert_eq!(mapped.entries(), 4);
        assert!(mapped.set(3, 1, u64::MAX - 5));
        assert_eq!(map.get(&3, 0).unwrap(), [0, u64::MAX - 5]);
        map.set(0, [7, 8], 0).unwrap();
        assert_eq!((mapped.get(0, 0), mapped.get(0, 1)), (Some(7), Some(8)));
        // Nothing beyond the end, of the element or of the map.
        assert!(!mapped.set(4, 0, 1) && !mapped.set(0, 2, 1));
        assert_eq!((mapped.get(4, 0), mapped.get(0, 2)), (None, None));
        // It outlives the descriptors, and is good on any thread.
        drop((map, fd));
        let read = std::thread::spawn(move || mapped.get(3, 1));
        assert_eq!(read.join().unwrap(), Some(u64::MAX - 5));
    });
}

#[test]
fn what_is_no_mmapable_array_of_words_is_not_mapped() {
    on_bpffs(|dir| {
        let plain = Array::<_, u64>::create(4, 0).unwrap();
        plain.pin(dir.join("plain")).unwrap();
        let small = Array::<_, u32>::create(4, MMAPABLE).unwrap();
        small.pin(dir.join("small")).unwrap();
        for name in ["plain", "small"] {
            let fd = bpf::get_pinned(dir.join(name)).unwrap();
            let error = MappedArray::new(fd.as_fd()).unwrap_err().to_string();
            assert!(error.contains("not an mmapable array"), "{name}: {error}");
        }
    });
}

#[test]
fn a_pinned_maps_facts_are_read_from_its_path() {
    on_bpffs(|dir| {
        let map = Array::<_, [u64; 2]>::create(4, MMAPABLE).unwrap();
        map.pin(dir.join("map")).unwrap();
        let info = bpf::map_info_pinned(dir.join("map")).unwrap();
        assert_eq!((info.map_type, info.key_size, info.value_size), (2, 4, 16));
        assert_eq!((info.max_entries, info.flags), (4, MMAPABLE));
        assert_eq!(info.name, "standalone_arra");
        let fd = bpf::get_pinned(dir.join("map")).unwrap();
        assert_eq!(bpf::map_info(fd.as_fd()).unwrap(), info);
        assert!(
            bpf::map_info_pinned(dir.join("none"))
                .unwrap_err()
                .is_gone()
        );
        // A map is no link.
        let error = bpf::link_update(fd.as_fd(), fd.as_fd(), None).unwrap_err();
        assert!(error.to_string().contains("BPF_LINK_UPDATE"), "{error}");
    });
}

/// The kernel activates the side of a pair that was set up first later than the other.
#[test]
fn a_link_is_awaited_until_it_sends_what_it_is_given() {
    let (host, pod) = (NetNs::create().unwrap(), NetNs::create().unwrap());
    let netlink = Netlink::open_in(&host).unwrap();
    let peer = Netlink::open_in(&pod).unwrap();
    netlink.create_veth(&veth("weira", "weirb", &pod)).unwrap();
    let (a, b) = (
        netlink.link("weira").unwrap().index,
        peer.link("weirb").unwrap().index,
    );
    let watch = LinkWatch::open_in(&pod).unwrap();
    peer.set_up(b).unwrap();
    assert!(!peer.link("weirb").unwrap().active, "it has no carrier");
    let error = peer
        .await_active(b, &watch, Duration::from_millis(20))
        .unwrap_err();
    assert_eq!(error.errno(), Some(libc::ETIMEDOUT), "{error}");
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| peer.await_active(b, &watch, Duration::from_secs(30)));
        netlink.set_up(a).unwrap();
        waiter.join().unwrap().unwrap();
    });
    assert!(peer.link("weirb").unwrap().active);
    netlink.delete_link("weira").unwrap();
    assert!(
        peer.await_active(b, &watch, Duration::from_secs(30))
            .unwrap_err()
            .is_gone()
    );
}
