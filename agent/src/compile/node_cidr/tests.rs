use proptest::prelude::*;

use super::*;

fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn pools(list: &[(&str, u8)]) -> Pools {
    let pools = list.iter().map(|(cidr, bits)| Pool::new(net(cidr), *bits));
    Pools::new(pools.collect::<Result<_, _>>().unwrap()).unwrap()
}

fn dual() -> Pools {
    pools(&[("10.244.0.0/22", 24), ("fd44::/60", 64)])
}

/// A Node whose UID is its name, with CIDRs.
fn node(name: &str, cidrs: &[&str]) -> (String, NodeCidrs) {
    let node = NodeCidrs {
        uid: format!("uid-{name}"),
        cidrs: cidrs.iter().map(|cidr| net(cidr)).collect(),
        is_unreadable: false,
    };
    (name.to_owned(), node)
}

fn nodes<const N: usize>(list: [(String, NodeCidrs); N]) -> Nodes {
    list.into_iter().collect()
}

fn none() -> BTreeSet<String> {
    BTreeSet::new()
}

/// What a step assigns: `NAME CIDR,CIDR`.
fn assigned(step: &Step) -> Vec<String> {
    let assign = step.assign.iter();
    assign
        .map(|a| {
            let cidrs: Vec<String> = a.cidrs.iter().map(ToString::to_string).collect();
            format!("{} {}", a.name, cidrs.join(","))
        })
        .collect()
}

#[test]
fn each_node_gets_one_cidr_of_each_family_and_the_record_says_so() {
    let all = nodes([node("a", &[]), node("b", &[])]);
    let first = step(&dual(), &Record::default(), &all, &none());
    assert_eq!(
        assigned(&first),
        [
            "a 10.244.0.0/24,fd44::/64",
            "b 10.244.1.0/24,fd44:0:0:1::/64"
        ]
    );
    assert_eq!(first.record.nodes["b"].uid, "uid-b");
    assert!(first.problems.is_empty());
    // Asked again before a Node was patched, the same.
    let again = step(&dual(), &first.record, &all, &none());
    assert_eq!(again, first);
    // The order is that of the configuration, as the first is spec.podCIDR.
    let turned = pools(&[("fd44::/60", 64), ("10.244.0.0/22", 24)]);
    let first = step(&turned, &Record::default(), &all, &none());
    assert_eq!(assigned(&first)[0], "a fd44::/64,10.244.0.0/24");
}

#[test]
fn what_nodes_have_already_is_taken_and_recorded_whoever_gave_it() {
    let all = nodes([
        node("a", &["10.244.0.0/23"]),
        node("b", &[]),
        node("c", &["10.244.2.128/25"]),
    ]);
    let pools = pools(&[("10.244.0.0/22", 24)]);
    let step = step(&pools, &Record::default(), &all, &none());
    assert_eq!(assigned(&step), ["b 10.244.3.0/24"]);
    assert_eq!(step.record.nodes.len(), 3);
    assert!(step.problems.is_empty());
}

#[test]
fn nodes_with_cidrs_outside_the_clusters_are_left_alone() {
    let all = nodes([node("a", &["192.168.7.0/24", "fd99::/64"])]);
    let step = step(&dual(), &Record::default(), &all, &none());
    assert_eq!(step, Step::default());
}

#[test]
fn a_node_with_one_family_of_two_is_named_with_the_remedy() {
    let all = nodes([node("a", &["10.244.1.0/24"])]);
    let step = step(&dual(), &Record::default(), &all, &none());
    assert!(step.assign.is_empty());
    let [problem] = &step.problems[..] else {
        panic!("{:?}", step.problems)
    };
    assert!(
        problem.starts_with("Node a: ") && problem.contains("fd44::/60"),
        "{problem}"
    );
}

#[test]
fn a_full_range_names_node_and_flag_and_dual_stack_gives_both_or_none() {
    // Room for four over IPv4, for two over IPv6.
    let pools = pools(&[("10.244.0.0/22", 24), ("fd44::/63", 64)]);
    let all = nodes([node("a", &[]), node("b", &[]), node("c", &[])]);
    let step = step(&pools, &Record::default(), &all, &none());
    assert_eq!(step.assign.len(), 2);
    assert!(!step.record.nodes.contains_key("c"));
    let [problem] = &step.problems[..] else {
        panic!("{:?}", step.problems)
    };
    for part in [
        "Node c",
        "/64",
        "--cluster-cidr fd44::/63",
        "--node-cidr-mask-size-ipv6",
    ] {
        assert!(problem.contains(part), "{problem}");
    }
}

#[test]
fn what_was_left_is_used_again_only_when_all_others_have_been() {
    let pools = pools(&[("10.244.0.0/22", 24)]);
    let mut record = Record::default();
    let mut given = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        // The one before it is gone.
        let gone = record
            .nodes
            .values()
            .map(|entry| entry.uid.clone())
            .collect();
        let step = step(&pools, &record, &nodes([node(name, &[])]), &gone);
        given.push(step.assign[0].cidrs[0].to_string());
        record = step.record;
    }
    assert_eq!(
        given,
        [
            "10.244.0.0/24",
            "10.244.1.0/24",
            "10.244.2.0/24",
            "10.244.3.0/24",
            "10.244.0.0/24"
        ]
    );
}

#[test]
fn an_entry_goes_only_when_its_uid_is_known_to_be_gone() {
    let pools = pools(&[("10.244.0.0/24", 24)]);
    let first = step(
        &pools,
        &Record::default(),
        &nodes([node("a", &[])]),
        &none(),
    );
    let other = nodes([node("b", &[])]);
    assert_eq!(
        maybe_gone(&first.record, &other),
        [("a".to_owned(), "uid-a".to_owned())]
    );
    let full = step(&pools, &first.record, &other, &none());
    assert!(full.assign.is_empty() && full.problems.len() == 1);
    let gone = BTreeSet::from(["uid-a".to_owned()]);
    let freed = step(&pools, &first.record, &other, &gone);
    assert_eq!(assigned(&freed), ["b 10.244.0.0/24"]);
    assert!(!freed.record.nodes.contains_key("a"));
}

#[test]
fn a_node_registered_anew_gets_nothing_before_the_old_one_is_known_to_be_gone() {
    let pools = pools(&[("10.244.0.0/22", 24)]);
    let first = step(
        &pools,
        &Record::default(),
        &nodes([node("a", &[])]),
        &none(),
    );
    let (name, mut again) = node("a", &[]);
    again.uid = "second".to_owned();
    let all = nodes([(name, again)]);
    assert_eq!(
        maybe_gone(&first.record, &all),
        [("a".to_owned(), "uid-a".to_owned())]
    );
    let waiting = step(&pools, &first.record, &all, &none());
    assert!(waiting.assign.is_empty());
    assert_eq!(waiting.record, first.record);
    let gone = BTreeSet::from(["uid-a".to_owned()]);
    let given = step(&pools, &first.record, &all, &gone);
    assert_eq!(given.assign[0].uid, "second");
}

#[test]
fn a_promise_that_somebody_else_gave_to_another_node_is_not_kept() {
    let pools = pools(&[("10.244.0.0/22", 24)]);
    let first = step(
        &pools,
        &Record::default(),
        &nodes([node("a", &[])]),
        &none(),
    );
    let all = nodes([node("a", &[]), node("b", &["10.244.0.0/24"])]);
    let step = step(&pools, &first.record, &all, &none());
    assert_eq!(assigned(&step), ["a 10.244.1.0/24"]);
}

#[test]
fn nodes_whose_cidrs_overlap_are_named_and_so_is_what_cannot_be_read() {
    let all = nodes([node("a", &["10.244.0.0/23"]), node("b", &["10.244.1.0/24"])]);
    let step = step(&dual(), &Record::default(), &all, &none());
    let overlap = "Nodes a and b: their pod CIDRs 10.244.0.0/23 and 10.244.1.0/24 overlap";
    assert!(
        step.problems.iter().any(|p| p.starts_with(overlap)),
        "{:?}",
        step.problems
    );
    let (name, mut wrong) = node("c", &[]);
    wrong.is_unreadable = true;
    let step = super::step(
        &dual(),
        &Record::default(),
        &nodes([(name, wrong)]),
        &none(),
    );
    assert!(step.assign.is_empty());
}

#[test]
fn the_record_is_read_as_it_was_written_and_a_bad_entry_is_named() {
    let record = step(
        &dual(),
        &Record::default(),
        &nodes([node("a.b", &[])]),
        &none(),
    )
    .record;
    let data = record.data();
    assert_eq!(data["a.b"], "10.244.0.0/24,fd44::/64 uid-a.b");
    assert_eq!(
        Record::parse(&data, Some(&record.last())),
        Ok(record.clone())
    );
    assert_eq!(Record::parse(&data, None).unwrap().nodes, record.nodes);
    for text in [
        "",
        "10.244.0.0/24",
        "10.244.0.0/24 ",
        "10.244.0.0 uid",
        "x/24 uid",
    ] {
        let data = BTreeMap::from([("n".to_owned(), text.to_owned())]);
        let error = Record::parse(&data, None).unwrap_err();
        assert!(error.contains("\"n\""), "{text:?} {error}");
    }
}

#[test]
fn pools_that_make_no_sense_are_refused_by_the_key_to_change() {
    let error = Pool::new(net("10.244.0.0/24"), 16).unwrap_err();
    assert!(
        error.contains("--node-cidr-mask-size must be 24 to 30"),
        "{error}"
    );
    assert!(Pool::new(net("10.244.0.0/24"), 31).is_err());
    assert!(
        Pool::new(net("fd00::/64"), 127)
            .unwrap_err()
            .contains("ipv6")
    );
    let two = vec![Pool::new(net("10.0.0.0/16"), 24).unwrap(); 2];
    assert!(Pools::new(two).is_err());
}

#[test]
fn the_largest_ranges_are_searched_without_counting_them_out() {
    let pools = pools(&[("0.0.0.0/0", 30), ("::/0", 126)]);
    let all = nodes([
        node("a", &["0.0.0.0/1", "::/1"]),
        node("b", &["255.255.255.252/30"]),
        node("c", &[]),
    ]);
    let record = Record {
        last: vec![net("255.255.255.248/30"), net("7fff::/126")],
        ..Record::default()
    };
    let step = step(&pools, &record, &all, &none());
    assert_eq!(assigned(&step), ["c 128.0.0.0/30,8000::/126"]);
}

/// What may happen to a cluster.
#[derive(Clone, Debug)]
enum Op {
    /// A Node registers.
    Join(u8),
    /// Somebody registers a Node with a CIDR of its own choice.
    Foreign(u8, u8, u8),
    /// A Node is deleted.
    Leave(u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..8_u8).prop_map(Op::Join),
        1 => (0..8_u8, 0..8_u8, 22..26_u8).prop_map(|(n, part, bits)| Op::Foreign(n, part, bits)),
        2 => (0..8_u8).prop_map(Op::Leave),
    ]
}

proptest! {
    #[test]
    fn cidrs_never_overlap_and_stay_with_their_node(ops in prop::collection::vec(op(), 1..40)) {
        let pools = dual();
        let (mut cluster, mut record, mut uids) = (Nodes::new(), Record::default(), 0);
        for op in ops {
            let (name, cidrs) = match op {
                Op::Join(n) => (format!("n{n}"), Vec::new()),
                Op::Foreign(n, part, bits) => {
                    (format!("n{n}"), vec![net(&format!("10.244.{}.0/{bits}", part & !3))])
                }
                Op::Leave(n) => {
                    cluster.remove(&format!("n{n}"));
                    continue;
                }
            };
            if cluster.contains_key(&name) {
                continue;
            }
            uids += 1;
            let uid = uids.to_string();
            cluster.insert(name, NodeCidrs { uid, cidrs, is_unreadable: false });
            let gone = maybe_gone(&record, &cluster).into_iter().map(|(_, uid)| uid).collect();
            let step = step(&pools, &record, &cluster, &gone);
            prop_assert!(Record::parse(&step.record.data(), Some(&step.record.last())).as_ref() == Ok(&step.record));
            record = step.record;
            for Assignment { name, uid, cidrs } in step.assign {
                prop_assert_eq!(cidrs.len(), 2);
                let node = cluster.get_mut(&name).unwrap();
                prop_assert!(node.cidrs.is_empty() && node.uid == uid);
                for other in record.nodes.iter().filter(|(other, _)| **other != name) {
                    for (a, b) in cidrs.iter().flat_map(|a| other.1.cidrs.iter().map(move |b| (a, b))) {
                        prop_assert!(!pool::overlapping(a, b), "{} {}", a, b);
                    }
                }
                cluster.get_mut(&name).unwrap().cidrs = cidrs;
            }
            // Who got nothing is named, and there is a family without room.
            for (name, node) in cluster.iter().filter(|(_, node)| node.cidrs.is_empty()) {
                let named = format!("Node {name}: no pod CIDR");
                prop_assert!(step.problems.iter().any(|p| p.starts_with(&named)), "{:?}", node);
            }
        }
    }
}
