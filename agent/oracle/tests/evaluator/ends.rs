//! What the ends of a flow are: nodes, hostNetwork pods, ended pods, shared addresses, replies.

use crate::support::{ask, check, cluster, of, pod, policy, query, shown};
use serde_json::json;
use weir_oracle::{Cluster, End, Evaluator, Family, PartyKind, QueryError};

const FREE: &str = "allow not-selected";
const OUT: &str = "allow not-subject";

/// Every pod of namespace a is isolated in both directions; a pod of app db may call app web.
fn closed() -> Cluster {
    cluster(&[
        policy(
            "deny",
            json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
        ),
        policy(
            "web",
            json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [
                {"from": [{"podSelector": {"matchLabels": {"app": "db"}}}]},
            ]}),
        ),
        policy(
            "db",
            json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Egress"], "egress": [
                {"to": [{"podSelector": {}}]},
            ]}),
        ),
    ])
}

#[test]
fn a_pod_reaches_itself_whatever_the_policies() {
    check(
        &closed(),
        "a/web",
        "a/web",
        "80/tcp",
        "allow self",
        "allow self",
    );
    check(
        &closed(),
        "10.1.0.1",
        "a/web",
        "icmp",
        "allow self",
        "allow self",
    );
}

#[test]
fn a_node_reaches_its_own_pods_and_no_others() {
    let c = closed();
    check(&c, "node:n1", "a/web", "80/tcp", OUT, "allow own-node");
    check(&c, "192.168.0.1", "a/web", "icmp", OUT, "allow own-node");
    check(&c, "fd00::1", "a/web", "80/tcp", OUT, "allow own-node");
    check(&c, "a/host", "a/web", "80/tcp", OUT, "allow own-node");
    check(
        &c,
        "node:n2",
        "a/web",
        "80/tcp",
        OUT,
        "deny isolated deny+web",
    );
    // The other way round the pod's egress is judged.
    check(&c, "a/web", "node:n1", "80/tcp", "deny isolated deny", OUT);
}

#[test]
fn host_network_pods_are_not_subject_and_no_selector_matches_them() {
    let c = closed();
    check(&c, "a/db", "a/host", "80/tcp", "deny isolated db+deny", OUT);
    check(&c, "b/web", "a/host", "80/tcp", FREE, OUT);
    let answer = ask(&c, "a/db", "192.168.0.1", "80/tcp").unwrap();
    assert_eq!(answer.to.kind, PartyKind::Node);
}

#[test]
fn an_address_is_the_pod_or_node_that_owns_it() {
    let c = closed();
    for address in ["10.1.0.2", "fd01::2", "::ffff:10.1.0.2"] {
        let answer = ask(&c, address, "a/web", "80/tcp").unwrap();
        assert_eq!(answer.from.to_string(), "pod a/db", "{address}");
        assert_eq!(
            shown(&answer.egress.decision),
            "allow rule db:spec.egress[0]"
        );
        assert_eq!(
            shown(&answer.ingress.decision),
            "allow rule web:spec.ingress[0]"
        );
    }
}

#[test]
fn a_reply_passes_where_its_connection_does_and_nowhere_else() {
    let c = closed();
    let reply = |from: &str, to: &str| {
        let mut query = query(from, to, "80/tcp");
        query.reply = true;
        let answer = weir_oracle::evaluate(&c, &query).unwrap();
        (
            shown(&answer.egress.decision),
            shown(&answer.ingress.decision),
        )
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    // db → web is allowed at both ends; web itself may open nothing.
    assert_eq!(reply("a/web", "a/db"), pair("allow reply", "allow reply"));
    assert_eq!(reply("a/web", "node:n1"), pair("allow reply", OUT));
    // web → db is forbidden at both ends.
    assert_eq!(
        reply("a/db", "a/web"),
        pair("deny isolated deny", "deny isolated deny")
    );
    assert_eq!(reply("203.0.113.1", "b/web"), pair(OUT, "allow reply"));
    assert_eq!(reply("a/web", "a/web"), pair("allow self", "allow self"));
}

#[test]
fn ended_pods_leave_selectors_and_free_their_address() {
    for phase in ["Succeeded", "Failed"] {
        let mut c = closed();
        c.pods[1].status.as_mut().unwrap().phase = Some(phase.to_owned());
        check(
            &c,
            "10.1.0.2",
            "a/web",
            "80/tcp",
            OUT,
            "deny isolated deny+web",
        );
        let error = ask(&c, "a/db", "a/web", "80/tcp").unwrap_err();
        assert!(matches!(error, QueryError::EndedPod { .. }), "{error}");
    }
}

#[test]
fn terminating_pods_are_still_selected() {
    let mut c = closed();
    for pod in &mut c.pods {
        pod.metadata.deletion_timestamp = Some(of(json!("2026-01-01T00:00:00Z")));
    }
    check(
        &c,
        "a/db",
        "a/web",
        "80/tcp",
        "allow rule db:spec.egress[0]",
        "allow rule web:spec.ingress[0]",
    );
    check(
        &c,
        "b/web",
        "a/web",
        "80/tcp",
        FREE,
        "deny isolated deny+web",
    );
}

#[test]
fn of_two_pods_with_one_address_the_newest_live_one_owns_it() {
    let made = |name: &str, app: &str, when: Option<&str>, phase: &str| {
        let change = json!({"metadata": {"creationTimestamp": when}, "status": {"phase": phase}});
        of(pod(name, app, &["10.1.0.9"], change))
    };
    let owner = |c: &Cluster| {
        ask(c, "10.1.0.9", "b/web", "80/tcp")
            .unwrap()
            .from
            .to_string()
    };
    let mut c = cluster(&[]);
    c.pods
        .push(made("x", "web", Some("2026-01-02T00:00:00Z"), "Running"));
    c.pods
        .push(made("y", "web", Some("2026-01-01T00:00:00Z"), "Running"));
    c.pods.push(made("z", "web", None, "Running"));
    c.pods
        .push(made("w", "web", Some("2026-01-03T00:00:00Z"), "Succeeded"));
    assert_eq!(owner(&c), "pod a/x");
    c.pods.reverse();
    assert_eq!(owner(&c), "pod a/x");
    let error = ask(&c, "a/y", "b/web", "80/tcp").unwrap_err();
    assert!(
        error.to_string().contains("10.1.0.9 to the newer pod a/x"),
        "{error}"
    );
    // Of equally new ones the greater name.
    c.pods
        .push(made("xx", "web", Some("2026-01-02T00:00:00Z"), "Running"));
    assert_eq!(owner(&c), "pod a/xx");
}

#[test]
fn the_family_is_the_first_both_have_or_the_one_asked_for() {
    let c = cluster(&[]);
    let family = |from: &str, to: &str| ask(&c, from, to, "80/tcp").map(|a| a.family);
    assert_eq!(family("a/web", "a/db").unwrap(), Some(Family::V4));
    assert_eq!(family("a/web", "2001:db8::1").unwrap(), Some(Family::V6));
    assert!(matches!(
        family("10.1.0.1", "2001:db8::1"),
        Err(QueryError::Family(_))
    ));
    let mut asked = query("a/web", "192.0.2.1", "80/tcp");
    asked.family = Some(Family::V6);
    assert!(matches!(
        weir_oracle::evaluate(&c, &asked),
        Err(QueryError::Family(_))
    ));
}

/// Pods `a/old` and `a/new` without addresses; old may only reach this block.
fn unaddressed(cidr: &str) -> Cluster {
    let mut c = cluster(&[policy(
        "p",
        json!({"podSelector": {"matchLabels": {"app": "old"}}, "policyTypes": ["Egress"], "egress": [
            {"to": [{"ipBlock": {"cidr": cidr}}], "ports": [{"port": 80}]},
            {"ports": [{"port": 81}]},
        ]}),
    )]);
    c.pods.push(of(pod("old", "old", &[], json!({}))));
    c.pods.push(of(pod("new", "new", &[], json!({}))));
    c
}

#[test]
fn a_verdict_that_hangs_on_a_missing_address_is_an_error() {
    let c = unaddressed("10.0.0.0/8");
    let error = ask(&c, "a/old", "a/new", "80/tcp").unwrap_err();
    assert!(matches!(&error, QueryError::NeedsAddress { party, .. } if party == "pod a/new"));
    assert!(
        error
            .to_string()
            .contains("NetworkPolicy a/p spec.egress[0]"),
        "{error}"
    );
}

#[test]
fn a_verdict_that_does_not_hang_on_the_missing_address_is_given() {
    let c = unaddressed("10.0.0.0/8");
    // Another rule allows it; the port excludes it; the source's address is nobody's business.
    let port_81 = ask(&c, "a/old", "a/new", "81/tcp").unwrap();
    assert_eq!(
        shown(&port_81.egress.decision),
        "allow rule p:spec.egress[1]"
    );
    let port_82 = ask(&c, "a/old", "a/new", "82/tcp").unwrap();
    assert_eq!(shown(&port_82.egress.decision), "deny isolated p");
    let known = ask(&c, "a/old", "a/db", "80/tcp").unwrap();
    assert_eq!(shown(&known.egress.decision), "allow rule p:spec.egress[0]");
    // With the family known, a block of the other family matches nothing, and all of it everything.
    for (cidr, family, wanted) in [
        ("0.0.0.0/0", Family::V4, "allow rule p:spec.egress[0]"),
        ("0.0.0.0/0", Family::V6, "deny isolated p"),
        ("::/0", Family::V6, "allow rule p:spec.egress[0]"),
    ] {
        let mut asked = query("a/old", "a/new", "80/tcp");
        asked.family = Some(family);
        let answer = weir_oracle::evaluate(&unaddressed(cidr), &asked).unwrap();
        assert_eq!(shown(&answer.egress.decision), wanted, "{cidr} {family}");
    }
}

#[test]
fn a_verdict_that_hangs_on_an_unknown_node_is_an_error() {
    let mut c = closed();
    c.pods[0].spec.as_mut().unwrap().node_name = None;
    let error = ask(&c, "node:n1", "a/web", "80/tcp").unwrap_err();
    assert!(matches!(error, QueryError::NeedsNode { .. }), "{error}");
    c.policies.clear();
    check(&c, "node:n1", "a/web", "80/tcp", OUT, FREE);
}

#[test]
fn questions_without_sense_are_errors() {
    let c = cluster(&[]);
    assert!(matches!(
        ask(&c, "a/nix", "a/db", "80/tcp"),
        Err(QueryError::UnknownPod { .. })
    ));
    assert!(matches!(
        ask(&c, "node:nix", "a/db", "80/tcp"),
        Err(QueryError::UnknownNode(_))
    ));
    assert!(matches!(
        ask(&c, "a/web", "a/db", "0/tcp"),
        Err(QueryError::Port(_))
    ));
    let mut bare = query("a/web", "a/db", "80/tcp");
    bare.port = None;
    assert!(matches!(
        weir_oracle::evaluate(&c, &bare),
        Err(QueryError::Port(_))
    ));
    let mut icmp = query("a/web", "a/db", "icmp");
    icmp.port = Some(80);
    assert!(matches!(
        weir_oracle::evaluate(&c, &icmp),
        Err(QueryError::Port(_))
    ));
}

#[test]
fn a_node_that_only_pods_name_exists() {
    let mut c = closed();
    c.nodes.clear();
    let answer = ask(&c, "node:n1", "a/web", "80/tcp").unwrap();
    assert_eq!(shown(&answer.ingress.decision), "allow own-node");
    // Its hostNetwork pod says what its address is.
    let answer = Evaluator::new(&c)
        .evaluate(&query("192.168.0.1", "a/web", "80/tcp"))
        .unwrap();
    assert_eq!(shown(&answer.ingress.decision), "allow own-node");
    assert_eq!(answer.from.kind, PartyKind::Node);
    assert_eq!(
        query("node:n1", "a/web", "80/tcp").from,
        End::Node("n1".to_owned())
    );
}
