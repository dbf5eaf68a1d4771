//! Traffic policies, affinity, source ranges and health checks.

use serde_json::json;
use weir_abi::Proto;
use weir_abi::service::{Service as Entry, ServiceKey, frontend, scope};

use super::kinds::{balanced, typed};
use super::select::{From, rules, shown, shown_from};
use super::*;

/// A slice of Service `a` with endpoints (address, state, node).
fn placed(endpoints: &[(&str, char, &str)]) -> EndpointSlice {
    let list: Vec<_> = endpoints
        .iter()
        .map(|(address, state, node)| {
            let mut endpoint = endpoint(address, *state);
            endpoint["nodeName"] = json!(node);
            endpoint
        })
        .collect();
    slice_with(
        "a-1",
        "a",
        json!([{"name": "web", "port": 8080}]),
        json!(list),
    )
}

fn node_port(actual: &ServiceActual, from: From) -> String {
    shown_from(actual, "0.0.0.0", 30080, Proto::TCP, from)
}

/// The frontend of NodePort 30080 in a scope.
fn value(actual: &ServiceActual, scope: u8) -> Option<Entry> {
    let mut services = actual.services.iter();
    let found = services.find(|(key, _)| {
        key.addr == ServiceKey::node_wide(true) && key.scope == scope && key.port.get() == 30080
    });
    found.map(|(_, value)| *value)
}

const LOCAL: &str = "externalTrafficPolicy";

#[test]
fn external_policy_local_leads_those_outside_to_this_node_and_everyone_else_to_all() {
    let service = typed("a", "NodePort", json!({LOCAL: "Local"}));
    let slice = placed(&[("10.1.0.1", 'r', "n1"), ("10.1.0.2", 'r', "n2")]);
    let actual = programmed(&index(&[service], &[slice]));
    assert_eq!(
        node_port(&actual, From::Cluster),
        "10.1.0.1:8080 10.1.0.2:8080"
    );
    assert_eq!(node_port(&actual, From::Outside), "10.1.0.1:8080");
    assert_eq!(
        shown(&actual, "10.96.0.1", 80, Proto::TCP),
        "10.1.0.1:8080 10.1.0.2:8080"
    );
    let [everyone, outside] = [scope::EVERYONE, scope::OUTSIDE].map(|s| value(&actual, s).unwrap());
    assert_eq!(
        (everyone.flags, outside.flags),
        (frontend::OUTSIDE_OWN, frontend::SILENT)
    );
}

#[test]
fn without_a_backend_here_those_outside_are_dropped_in_silence_and_without_any_they_are_refused() {
    let service = typed("a", "NodePort", json!({LOCAL: "Local"}));
    let elsewhere = placed(&[("10.1.0.2", 'r', "n2")]);
    let mut index = index(&[service], &[elsewhere]);
    let outside = value(&programmed(&index), scope::OUTSIDE).unwrap();
    assert_eq!((outside.count, outside.flags), (0, frontend::SILENT));
    index.apply_slice(&placed(&[("10.1.0.2", 'n', "n2")]));
    let outside = value(&programmed(&index), scope::OUTSIDE).unwrap();
    assert_eq!((outside.count, outside.flags), (0, 0));
}

#[test]
fn internal_policy_local_leads_to_this_node_alone_and_refuses_without_a_backend_there() {
    let service = typed("a", "ClusterIP", json!({"internalTrafficPolicy": "Local"}));
    let slice = placed(&[("10.1.0.1", 'r', "n1"), ("10.1.0.2", 'r', "n2")]);
    let mut index = index(&[service], &[slice]);
    let shows = |index: &ServiceIndex| shown(&programmed(index), "10.96.0.1", 80, Proto::TCP);
    assert_eq!(shows(&index), "10.1.0.1:8080");
    index.apply_slice(&placed(&[("10.1.0.2", 'r', "n2")]));
    assert_eq!(shows(&index), "refused");
}

#[test]
fn the_fallback_to_terminating_endpoints_is_separate_for_the_cluster_and_for_the_node() {
    let service = typed("a", "NodePort", json!({LOCAL: "Local"}));
    let slice = placed(&[
        ("10.1.0.1", 't', "n1"),
        ("10.1.0.2", 'r', "n2"),
        ("10.1.0.3", 't', "n2"),
    ]);
    let mut index = index(&[service], &[slice]);
    let actual = programmed(&index);
    assert_eq!(node_port(&actual, From::Cluster), "10.1.0.2:8080");
    assert_eq!(node_port(&actual, From::Outside), "10.1.0.1:8080");
    index.apply_slice(&placed(&[("10.1.0.1", 't', "n1"), ("10.1.0.3", 't', "n2")]));
    let actual = programmed(&index);
    assert_eq!(
        node_port(&actual, From::Cluster),
        "10.1.0.1:8080 10.1.0.3:8080"
    );
    assert_eq!(node_port(&actual, From::Outside), "10.1.0.1:8080");
}

#[test]
fn a_ready_endpoint_that_no_set_has_keeps_its_flows_and_is_never_added() {
    use weir_abi::service::BackendState;

    let cluster = typed("a", "ClusterIP", json!({}));
    let slice = placed(&[("10.1.0.1", 'r', "n1"), ("10.1.0.2", 'r', "n2")]);
    let mut index = index(&[cluster], &[slice]);
    let mut actual = programmed(&index);
    let local = typed("a", "ClusterIP", json!({"internalTrafficPolicy": "Local"}));
    index.apply_service(&local);
    let change = plan(&actual, index.desired(), None);
    change.writes().for_each(|write| actual.apply(write));
    let states: Vec<_> = actual.backends().map(|(_, b)| b.state).collect();
    assert_eq!(
        states,
        [BackendState::Active as u32, BackendState::Draining as u32]
    );
    assert_eq!(change.retired, []);
    assert_eq!(programmed(&index).backends().count(), 1);
}

#[test]
fn affinity_has_the_services_timeout_or_three_hours() {
    let config = |seconds| json!({"clientIP": {"timeoutSeconds": seconds}});
    for (more, seconds, problems) in [
        (json!({}), 0, 0),
        (
            json!({"sessionAffinity": "None", "sessionAffinityConfig": config(5)}),
            0,
            0,
        ),
        (json!({"sessionAffinity": "ClientIP"}), 10_800, 0),
        (
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": config(1)}),
            1,
            0,
        ),
        (
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": config(86_400)}),
            86_400,
            0,
        ),
        (
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": config(86_401)}),
            10_800,
            1,
        ),
        (
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": config(0)}),
            10_800,
            1,
        ),
        (json!({"sessionAffinity": "Cookie"}), 0, 1),
    ] {
        let index = index(&[typed("a", "NodePort", more.clone())], &[]);
        let actual = programmed(&index);
        assert_eq!(value(&actual, 0).unwrap().affinity_secs, seconds, "{more}");
        assert_eq!(index.problems().len(), problems, "{more}");
    }
}

/// The source ranges of a load balancer's address, as `address/length`; `None`: everyone may.
fn ranges(service: &Service, address: &str) -> Option<Vec<String>> {
    let actual = programmed(&index(std::slice::from_ref(service), &[]));
    let address: std::net::IpAddr = address.parse().unwrap();
    let (.., ranges) = rules(&actual, address.into(), 80, From::Cluster).unwrap();
    let text = |key: &weir_abi::service::RangeKey| {
        let [word, ..] = key.addr;
        let ip: std::net::IpAddr = match key.family {
            4 => word.to_ne_bytes().into(),
            _ => weir_abi::Addr(key.addr).to_ip(),
        };
        format!("{ip}/{}", key.prefix_len - 64)
    };
    ranges.map(|keys| keys.iter().map(text).collect())
}

fn ranged(mut more: Value) -> Service {
    more["externalIPs"] = json!(["192.0.2.9"]);
    balanced(
        typed("a", "LoadBalancer", more),
        json!([{"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}]),
    )
}

#[test]
fn source_ranges_hold_for_the_load_balancers_addresses_and_for_no_other() {
    let service =
        ranged(json!({"loadBalancerSourceRanges": ["198.51.100.7/24", " 2001:db8:1::/48"]}));
    let both = Some(vec![
        "198.51.100.0/24".to_owned(),
        "2001:db8:1::/48".to_owned(),
    ]);
    assert_eq!(ranges(&service, "192.0.2.1"), both);
    assert_eq!(ranges(&service, "2001:db8::1"), both);
    for other in ["192.0.2.9", "10.96.0.1"] {
        assert_eq!(ranges(&service, other), None, "{other}");
    }
    assert_eq!(ranges(&ranged(json!({})), "192.0.2.1"), None);
}

#[test]
fn source_ranges_of_which_none_is_valid_let_nobody_in_and_are_named() {
    let service = ranged(json!({"loadBalancerSourceRanges": ["everyone", "10.0.0.0/33"]}));
    assert_eq!(ranges(&service, "192.0.2.1"), Some(vec![]));
    let problems = index(&[service], &[]).problems();
    assert_eq!(
        problems[0].to_string(),
        "Service default/a: spec.loadBalancerSourceRanges: \"10.0.0.0/33\" is not a prefix like 10.0.0.0/8"
    );
    assert_eq!(problems.len(), 2);
}

#[test]
fn the_annotation_for_source_ranges_counts_where_the_spec_has_none() {
    let annotated = |mut service: Service, text: &str| {
        let name = "service.beta.kubernetes.io/load-balancer-source-ranges".to_owned();
        service.metadata.annotations = Some([(name, text.to_owned())].into());
        service
    };
    let one = |text: &str| Some(vec![text.to_owned()]);
    let plain = annotated(ranged(json!({})), " 10.0.0.0/8 ");
    assert_eq!(ranges(&plain, "192.0.2.1"), one("10.0.0.0/8"));
    let spec = ranged(json!({"loadBalancerSourceRanges": ["10.1.0.0/16"]}));
    assert_eq!(
        ranges(&annotated(spec, "10.0.0.0/8"), "192.0.2.1"),
        one("10.1.0.0/16")
    );
    assert_eq!(
        ranges(&annotated(ranged(json!({})), " "), "192.0.2.1"),
        None
    );
}

#[test]
fn services_with_equal_source_ranges_share_them_and_the_last_takes_them_along() {
    let list = json!({"loadBalancerSourceRanges": ["10.0.0.0/8"]});
    let mut index = on_node("n1");
    let named = |name: &str, n: u8| {
        let mut more = list.clone();
        more["clusterIPs"] = json!([format!("10.96.0.{n}")]);
        let ingress = json!([{"ip": format!("192.0.2.{n}")}]);
        balanced(typed(name, "LoadBalancer", more), ingress)
    };
    let services = [named("a", 1), named("b", 2)];
    for service in &services {
        index.apply_service(service);
    }
    let mut actual = programmed(&index);
    assert_eq!(actual.source_ranges().count(), 1);
    for (service, left) in services.iter().zip([1, 0]) {
        let object = crate::state::Object::Service(Box::new(service.clone()));
        index.apply(&crate::state::Change::Delete(object.key()));
        let change = plan(&actual, index.desired(), None);
        change.writes().for_each(|write| actual.apply(write));
        // Clients may be let in by them for as long as a program may have read the frontend.
        assert_eq!(actual.source_ranges().count(), 1);
        let mut collector = Collector::default();
        collector.forget(&change);
        collector.note(std::time::Duration::ZERO, &change);
        let grace = std::time::Duration::from_secs(5);
        let due = collector.due(grace, grace, &actual);
        due.iter().for_each(|write| actual.apply(write));
        assert_eq!(actual.source_ranges().count(), left);
    }
}

#[test]
fn a_health_check_counts_the_ready_endpoints_of_this_node_once_each() {
    let more = json!({
        LOCAL: "Local",
        "healthCheckNodePort": 32000,
        "ports": [{"name": "web", "port": 80}, {"name": "more", "port": 81}],
    });
    let endpoints = [
        ("10.1.0.1", 'r', "n1"),
        ("10.1.0.2", 'r', "n1"),
        ("10.1.0.3", 't', "n1"),
        ("10.1.0.4", 'n', "n1"),
        ("10.1.0.5", 'r', "n2"),
    ];
    let mut index = index(&[typed("a", "LoadBalancer", more)], &[placed(&endpoints)]);
    let count = |index: &ServiceIndex| {
        let all = index.health_checks();
        all.map(|h| (h.service.to_string(), h.port, h.local_endpoints))
            .collect::<Vec<_>>()
    };
    assert_eq!(count(&index), [("default/a".to_owned(), 32000, 2)]);
    assert!(index.apply_slice(&placed(&endpoints[3..])));
    assert_eq!(count(&index), [("default/a".to_owned(), 32000, 0)]);
    for other in [
        json!({LOCAL: "Cluster", "healthCheckNodePort": 32000}),
        json!({LOCAL: "Local"}),
    ] {
        index.apply_service(&typed("a", "LoadBalancer", other));
        assert_eq!(count(&index), []);
    }
}
