//! From objects to what the kernel answers.

use serde_json::json;
use weir_abi::Proto;

use super::select::shown;
use super::*;

fn tcp(index: &ServiceIndex, addr: &str, port: u16) -> String {
    shown(&programmed(index), addr, port, Proto::TCP)
}

#[test]
fn a_dual_stack_service_leads_each_family_to_its_own_endpoints() {
    let index = index(
        &[service("a", &["10.96.0.1", "fd96::1"])],
        &[
            slice("a-4", "a", &[("10.1.0.1", 'r'), ("10.1.0.2", 'r')]),
            slice("a-6", "a", &[("fd01::1", 'r')]),
        ],
    );
    assert_eq!(tcp(&index, "10.96.0.1", 80), "10.1.0.1:8080 10.1.0.2:8080");
    assert_eq!(tcp(&index, "fd96::1", 80), "[fd01::1]:8080");
    assert_eq!(index.problems(), []);
}

#[test]
fn a_port_without_endpoints_and_a_port_that_is_not_served_are_refused() {
    let index = index(&[service("a", &["10.96.0.1"])], &[]);
    assert_eq!(tcp(&index, "10.96.0.1", 80), "refused");
    assert_eq!(tcp(&index, "10.96.0.1", 81), "refused");
    assert_eq!(tcp(&index, "10.96.0.2", 80), "none");
}

#[test]
fn ports_are_matched_by_name_and_protocol_whatever_their_numbers() {
    let dns = service_with(
        "dns",
        json!({
            "clusterIP": "10.96.0.10",
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP"},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
                {"name": "metrics", "port": 9153, "protocol": "TCP"},
                {"name": "assoc", "port": 9, "protocol": "SCTP"},
            ],
        }),
    );
    let ports = json!([
        {"name": "dns", "port": 5353, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 5354, "protocol": "TCP"},
        {"name": "assoc", "port": 99, "protocol": "SCTP"},
    ]);
    let slice = slice_with("dns-1", "dns", ports, json!([endpoint("10.1.0.1", 'r')]));
    let actual = programmed(&index(&[dns], &[slice]));
    assert_eq!(
        shown(&actual, "10.96.0.10", 53, Proto::UDP),
        "10.1.0.1:5353"
    );
    assert_eq!(
        shown(&actual, "10.96.0.10", 53, Proto::TCP),
        "10.1.0.1:5354"
    );
    assert_eq!(shown(&actual, "10.96.0.10", 9, Proto::SCTP), "10.1.0.1:99");
    assert_eq!(shown(&actual, "10.96.0.10", 9153, Proto::TCP), "refused");
}

#[test]
fn a_single_port_needs_no_name() {
    let spec = json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]});
    let slice = slice_with(
        "a-1",
        "a",
        json!([{"port": 8080}]),
        json!([endpoint("10.1.0.1", 'r')]),
    );
    assert_eq!(
        tcp(
            &index(&[service_with("a", spec)], &[slice]),
            "10.96.0.1",
            80
        ),
        "10.1.0.1:8080"
    );
}

#[test]
fn a_named_target_port_may_resolve_to_another_number_in_each_slice() {
    let old = slice_with(
        "a-1",
        "a",
        json!([{"name": "web", "port": 8080}]),
        json!([endpoint("10.1.0.1", 'r')]),
    );
    let new = slice_with(
        "a-2",
        "a",
        json!([{"name": "web", "port": 9090}]),
        json!([endpoint("10.1.0.2", 'r')]),
    );
    let index = index(&[service("a", &["10.96.0.1"])], &[old, new]);
    assert_eq!(tcp(&index, "10.96.0.1", 80), "10.1.0.1:8080 10.1.0.2:9090");
}

#[test]
fn an_endpoint_that_several_slices_list_counts_once_and_by_its_best_report() {
    let index = index(
        &[service("a", &["10.96.0.1"])],
        &[
            slice("a-1", "a", &[("10.1.0.1", 'r'), ("10.1.0.2", 'n')]),
            slice(
                "a-2",
                "a",
                &[("10.1.0.1", 'r'), ("10.1.0.2", 'r'), ("10.1.0.3", 'n')],
            ),
        ],
    );
    assert_eq!(tcp(&index, "10.96.0.1", 80), "10.1.0.1:8080 10.1.0.2:8080");
    let set = index.desired().sets.values().next().unwrap();
    assert_eq!(set.len(), 2);
}

#[test]
fn serving_terminating_endpoints_are_used_only_while_none_is_ready() {
    let both = slice(
        "a-1",
        "a",
        &[("10.1.0.1", 'r'), ("10.1.0.2", 't'), ("10.1.0.3", 'n')],
    );
    let mut index = index(&[service("a", &["10.96.0.1"])], &[both]);
    assert_eq!(tcp(&index, "10.96.0.1", 80), "10.1.0.1:8080");
    index.apply_slice(&slice(
        "a-1",
        "a",
        &[("10.1.0.1", 't'), ("10.1.0.2", 't'), ("10.1.0.3", 'n')],
    ));
    assert_eq!(tcp(&index, "10.96.0.1", 80), "10.1.0.1:8080 10.1.0.2:8080");
    index.apply_slice(&slice("a-1", "a", &[("10.1.0.1", 'n'), ("10.1.0.3", 'n')]));
    assert_eq!(tcp(&index, "10.96.0.1", 80), "refused");
}

#[test]
fn conditions_that_are_missing_mean_ready() {
    let bare = json!([{"addresses": ["10.1.0.1"]}, {"addresses": ["10.1.0.2"], "conditions": {}}]);
    let slice = slice_with("a-1", "a", json!([{"name": "web", "port": 8080}]), bare);
    let index = index(&[service("a", &["10.96.0.1"])], &[slice]);
    assert_eq!(tcp(&index, "10.96.0.1", 80), "10.1.0.1:8080 10.1.0.2:8080");
}

#[test]
fn a_not_ready_endpoint_that_the_controller_publishes_as_ready_serves() {
    // What publishNotReadyAddresses makes of a pod that fails its readiness probe.
    let mut published = endpoint("10.1.0.1", 'r');
    published["conditions"]["serving"] = json!(false);
    let slice = slice_with(
        "a-1",
        "a",
        json!([{"name": "web", "port": 8080}]),
        json!([published]),
    );
    let index = index(&[service("a", &["10.96.0.1"])], &[slice]);
    assert_eq!(tcp(&index, "10.96.0.1", 80), "10.1.0.1:8080");
}

#[test]
fn headless_external_name_and_other_proxies_services_have_no_frontends() {
    let headless = service_with(
        "h",
        json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": [{"port": 80}]}),
    );
    let external = service_with(
        "e",
        json!({"type": "ExternalName", "externalName": "example.org"}),
    );
    let mut other = service("o", &["10.96.0.1"]);
    let label = (
        "service.kubernetes.io/service-proxy-name".to_owned(),
        "other".to_owned(),
    );
    other.metadata.labels = Some([label].into());
    let pending = service_with("p", json!({"clusterIP": "", "ports": [{"port": 80}]}));
    let index = index(
        &[headless, external, other, pending],
        &[slice("h-1", "h", &[("10.1.0.1", 'r')])],
    );
    assert_eq!(index.desired(), &Desired::default());
    assert_eq!(index.problems(), []);
}

#[test]
fn what_is_wrong_is_named_and_the_rest_works() {
    let spec = json!({
        "clusterIPs": ["10.96.0.1", "127.0.0.1", "x"],
        "ports": [
            {"name": "web", "port": 80},
            {"name": "big", "port": 70000},
            {"name": "odd", "port": 81, "protocol": "ICMP"},
            {"name": "again", "port": 80},
            {"name": "web", "port": 82},
        ],
    });
    let endpoints = json!([
        endpoint("10.1.0.1", 'r'),
        endpoint("nonsense", 'r'),
        endpoint("fd01::1", 'r'),
        endpoint("127.0.0.1", 'r'),
        {"addresses": []},
    ]);
    let ports = json!([{"name": "web", "port": 8080}, {"name": "big", "port": 0}]);
    let slice = slice_with("a-1", "a", ports, endpoints);
    let index = index(&[service_with("a", spec)], &[slice]);
    assert_eq!(tcp(&index, "10.96.0.1", 80), "10.1.0.1:8080");
    let problems: Vec<_> = index.problems().iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "EndpointSlice default/a-1: endpoints[1].addresses[0]: \"nonsense\" is not an IP address",
            "EndpointSlice default/a-1: endpoints[2].addresses[0]: fd01::1 is not IPv4",
            "EndpointSlice default/a-1: endpoints[3].addresses[0]: 127.0.0.1 is a loopback address",
            "EndpointSlice default/a-1: endpoints[4].addresses[0]: is missing",
            "EndpointSlice default/a-1: ports[1].port: 0 is not in 1-65535",
            "Service default/a: spec.clusterIPs[1]: 127.0.0.1 is a loopback address",
            "Service default/a: spec.clusterIPs[2]: \"x\" is not an IP address",
            "Service default/a: spec.ports[1].port: 70000 is not in 1-65535",
            "Service default/a: spec.ports[2].protocol: \"ICMP\" is not TCP, UDP or SCTP",
            "Service default/a: spec.ports[3]: port and protocol are those of \"web\" already",
            "Service default/a: spec.ports[4].name: \"web\" is there twice",
        ]
    );
}

#[test]
fn an_address_that_two_services_claim_stays_with_the_older_and_passes_on_when_it_goes() {
    let aged = |name: &str, time: &str| {
        let mut service = service(name, &["10.96.0.1"]);
        service.metadata.creation_timestamp = serde_json::from_value(json!(time)).unwrap();
        service
    };
    let slices = [
        slice("o", "old", &[("10.1.0.1", 'r')]),
        slice("n", "a-new", &[("10.1.0.2", 'r')]),
    ];
    let old = aged("old", "2026-01-01T00:00:00Z");
    let new = aged("a-new", "2026-02-01T00:00:00Z");
    for order in [[&old, &new], [&new, &old]] {
        let mut index = index(&order.map(Clone::clone), &slices);
        assert_eq!(tcp(&index, "10.96.0.1", 80), "10.1.0.1:8080");
        let problems = index.problems();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].object, "Service default/a-new");
        let key = crate::state::Object::Service(Box::new(old.clone())).key();
        assert!(index.apply(&crate::state::Change::Delete(key)));
        assert_eq!(tcp(&index, "10.96.0.1", 80), "10.1.0.2:8080");
        assert_eq!(index.problems(), []);
    }
}

#[test]
fn deleting_everything_leaves_nothing_and_order_does_not_matter() {
    let services = [
        service("a", &["10.96.0.1", "fd96::1"]),
        service("b", &["10.96.0.2"]),
    ];
    let slices = [
        slice("a-4", "a", &[("10.1.0.1", 'r')]),
        slice("a-6", "a", &[("fd01::1", 'r')]),
        slice("b-4", "b", &[("10.1.0.1", 'r')]),
    ];
    let forward = index(&services, &slices);
    let mut backward = on_node("n1");
    slices
        .iter()
        .rev()
        .for_each(|s| assert!(!backward.apply_slice(s)));
    services
        .iter()
        .rev()
        .for_each(|s| assert!(backward.apply_service(s)));
    assert_eq!(forward.desired(), backward.desired());
    let objects = services
        .iter()
        .cloned()
        .map(|s| crate::state::Object::Service(Box::new(s)));
    let keys = objects.chain(
        slices
            .iter()
            .cloned()
            .map(|s| crate::state::Object::EndpointSlice(Box::new(s))),
    );
    let mut index = forward;
    for object in keys {
        index.apply(&crate::state::Change::Delete(object.key()));
    }
    assert_eq!(index.desired(), &Desired::default());
    assert_eq!(index.count(), 0);
}

#[test]
fn a_change_that_changes_nothing_says_so() {
    let mut index = index(
        &[service("a", &["10.96.0.1"])],
        &[slice("s", "a", &[("10.1.0.1", 'r')])],
    );
    assert!(!index.apply_service(&service("a", &["10.96.0.1"])));
    assert!(!index.apply_slice(&slice("s", "a", &[("10.1.0.1", 'r')])));
    assert!(!index.apply_slice(&slice("other", "unknown", &[("10.1.0.1", 'r')])));
    assert!(index.apply_slice(&slice("s", "a", &[("10.1.0.2", 'r')])));
}

#[test]
fn a_pod_behind_two_services_is_two_backends_and_a_reused_address_another() {
    let mut index = index(
        &[service("a", &["10.96.0.1"]), service("b", &["10.96.0.2"])],
        &[
            slice("a", "a", &[("10.1.0.1", 'r')]),
            slice("b", "b", &[("10.1.0.1", 'r')]),
        ],
    );
    assert_eq!(index.desired().backends.len(), 2);
    let before: Vec<_> = index.desired().backends.keys().copied().collect();
    let mut reborn = slice("a", "a", &[("10.1.0.1", 'r')]);
    reborn.endpoints.as_mut().unwrap()[0]
        .target_ref
        .as_mut()
        .unwrap()
        .uid = Some("other".into());
    assert!(index.apply_slice(&reborn));
    let after: Vec<_> = index.desired().backends.keys().copied().collect();
    assert_eq!(before.iter().filter(|h| after.contains(h)).count(), 1);
}

#[test]
fn the_list_shows_backends_with_their_states_and_whether_the_kernel_agrees() {
    let index = index(
        &[service("a", &["10.96.0.1"])],
        &[slice(
            "s",
            "a",
            &[("10.1.0.1", 'r'), ("10.1.0.2", 't'), ("10.1.0.3", 'n')],
        )],
    );
    let list = index.list(&programmed(&index));
    assert_eq!(
        (list[0].namespace.as_str(), list[0].name.as_str()),
        ("default", "a")
    );
    assert_eq!(list[0].kind, "ClusterIP");
    let frontend = &list[0].frontends[0];
    assert_eq!(
        (frontend.address.as_str(), frontend.port),
        ("10.96.0.1", 80)
    );
    assert_eq!(
        (frontend.protocol.as_str(), frontend.port_name.as_str()),
        ("TCP", "web")
    );
    assert!(frontend.programmed);
    let backends: Vec<_> = frontend
        .backends
        .iter()
        .map(|b| (b.address.as_str(), b.state.as_str()))
        .collect();
    assert_eq!(
        backends,
        [
            ("10.1.0.1", "active"),
            ("10.1.0.2", "draining"),
            ("10.1.0.3", "notReady")
        ]
    );
    assert_eq!(frontend.backends[0].pod, "default/10.1.0.1");
    assert_eq!(frontend.backends[0].node, "n1");
    assert!(!index.list(&ServiceActual::default())[0].frontends[0].programmed);
}
