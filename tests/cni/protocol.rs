//! Sections 1 to 3 of the table: how the plugin is called, and what it refuses.

use serde_json::{Value, json};

use crate::support::{Call, Node, VERSIONS, pod};

#[test]
fn p1_p2_p3_p4_every_command_keeps_to_its_exit_code_and_its_stdout() {
    let (node, pod) = (Node::new(), pod());
    let add = node.add("c1", &pod);
    let result = add.ok();
    // One JSON document and nothing else; what is logged goes to stderr.
    assert_eq!(add.stdout.lines().count(), 1);
    assert!(
        add.stderr.contains("info weir-cni ADD c1/eth0: attached"),
        "{}",
        add.stderr
    );
    node.check("c1", &pod, &result).silent();
    node.status().silent();
    node.gc(&[("c1", "eth0")]).silent();
    node.del("c1", &pod).silent();
    // The failures of each: an error document on stdout, and exit code 1.
    let nothing = json!({});
    for command in ["ADD", "CHECK", "DEL"] {
        let failed = node.run(&Call::about(command, &nothing, "c1", pod.path()));
        assert_eq!(failed.status.code(), Some(1), "{command}");
        assert_eq!(failed.code(), 1, "{command}");
    }
    for command in ["GC", "STATUS"] {
        let failed = node.run(&Call::new(command, &nothing).env("CNI_PATH", "/x"));
        assert_eq!(failed.code(), 1, "{command}");
    }
}

#[test]
fn p5_works_from_any_directory_with_nothing_in_the_environment_but_the_calls_own() {
    // Call::command clears the environment and starts in `/`, where nothing relative is found.
    let (node, pod) = (Node::new(), pod());
    node.add("c1", &pod).ok();
    assert!(
        node.netlink()
            .links()
            .unwrap()
            .iter()
            .any(|link| link.name.starts_with("weir"))
    );
}

#[test]
fn p6_p7_unknown_keys_and_variables_are_passed_over() {
    let (node, pod) = (Node::new(), pod());
    let config = node.config_with(json!({
        "future": {"a": [1]}, "capabilities": {"portMappings": true, "ips": true},
        "args": {"cni": {"labels": []}}, "cni.dev/x": 1,
        "runtimeConfig": {"portMappings": [], "io.kubernetes.cri.pod-annotations": {"a": "b"}},
    }));
    let call = Call::about("ADD", &config, "c1", pod.path())
        .env(
            "TRACEPARENT",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
        .env("BAGGAGE", "x=y");
    node.run(&call).ok();
}

#[test]
fn p8_run_by_hand_it_says_what_it_is_on_stderr() {
    let node = Node::new();
    let outcome = node.run(&Call::new("ADD", &node.config()).without("CNI_COMMAND"));
    outcome.silent();
    assert!(
        outcome.stderr.contains("0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn p9_an_unknown_command_is_code_4() {
    let node = Node::new();
    let outcome = node.run(&Call::new("FOO", &node.config()));
    assert_eq!(outcome.code(), 4);
    assert_eq!(outcome.error()["msg"], "unknown CNI_COMMAND: FOO");
}

#[test]
fn e1_each_missing_variable_is_code_4_and_named() {
    let (node, pod) = (Node::new(), pod());
    for (command, names) in [
        ("ADD", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"][..]),
        ("CHECK", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"][..]),
        ("DEL", &["CNI_CONTAINERID", "CNI_IFNAME"][..]),
        ("GC", &["CNI_PATH"][..]),
    ] {
        let whole = Call::about(command, &node.config(), "c1", pod.path());
        for name in names {
            for call in [whole.clone().without(name), whole.clone().env(name, "")] {
                let outcome = node.run(&call);
                assert_eq!(outcome.code(), 4, "{command} without {name}");
                assert!(outcome.text().contains(name), "{outcome:?}");
            }
        }
        let none = names.iter().fold(whole, |call, name| call.without(name));
        let text = node.run(&none).text();
        assert!(names.iter().all(|name| text.contains(name)), "{text}");
    }
    node.run(&Call::new("STATUS", &node.config())).silent();
    node.run(&Call::new("VERSION", &json!({"cniVersion": "1.1.0"})))
        .ok();
    node.assert_clean(&pod, "after refused calls");
}

#[test]
fn e2_only_gc_demands_cni_path() {
    let (node, pod) = (Node::new(), pod());
    let result =
        node.run(&Call::about("ADD", &node.config(), "c1", pod.path()).without("CNI_PATH"));
    let config = node.config_with(json!({"prevResult": result.ok()}));
    for command in ["CHECK", "DEL"] {
        node.run(&Call::about(command, &config, "c1", pod.path()).without("CNI_PATH"))
            .silent();
    }
}

#[test]
fn e3_a_bad_container_id_is_code_4() {
    let (node, pod) = (Node::new(), pod());
    for id in ["a/b", "-a", ".a", "é", "a b", "../../x"] {
        for command in ["ADD", "DEL", "CHECK"] {
            let outcome = node.run(&Call::about(command, &node.config(), id, pod.path()));
            assert_eq!(outcome.code(), 4, "{command} {id}");
        }
    }
    node.add("0aZ_.-", &pod).ok();
}

#[test]
fn e4_e5_a_bad_interface_name_is_code_4_and_15_bytes_work() {
    let (node, pod) = (Node::new(), pod());
    let add = |name: &str| {
        node.run(&Call::about("ADD", &node.config(), "c1", pod.path()).env("CNI_IFNAME", name))
    };
    for name in [".", "..", "a/b", "a:b", "a b", "0123456789abcdef", "lo"] {
        assert_eq!(add(name).code(), 4, "{name}");
        node.assert_clean(&pod, name);
    }
    add("0123456789abcde").ok();
    // A name the kernel itself refuses: it takes `%` for a pattern.
    let outcome = add("x%y");
    assert!(outcome.code() >= 4, "{outcome:?}");
}

#[test]
fn e6_arguments_of_every_runtime_work_and_broken_ones_are_code_4() {
    let node = Node::new();
    for (id, args) in [
        (
            "containerd",
            "K8S_POD_UID=u;IgnoreUnknown=1;K8S_POD_NAMESPACE=n;K8S_POD_INFRA_CONTAINER_ID=i;K8S_POD_NAME=p",
        ),
        ("podman", "IgnoreUnknown=1;K8S_POD_NAME=web"),
        ("cnitool", ""),
        ("other", "IgnoreUnknown=true;X=1"),
    ] {
        let pod = pod();
        node.run(&Call::about("ADD", &node.config(), id, pod.path()).env("CNI_ARGS", args))
            .ok();
        let asked = node.agent.endpoint(id, "eth0").unwrap();
        let expected = if id == "containerd" {
            json!({"namespace": "n", "name": "p", "uid": "u"})
        } else {
            Value::Null
        };
        assert_eq!(asked["pod"], expected, "{id}");
    }
    let pod = pod();
    for args in ["X=1", "novalue", "IgnoreUnknown=1;novalue"] {
        let call = Call::about("ADD", &node.config(), "c9", pod.path()).env("CNI_ARGS", args);
        assert_eq!(node.run(&call).code(), 4, "{args}");
        // A DEL has no use for them, and must not fail for them.
        node.run(&call.env("CNI_COMMAND", "DEL")).silent();
    }
}

#[test]
fn e7_addresses_asked_for_in_the_configuration_win_over_those_of_cni_args() {
    let (node, pod) = (Node::new(), pod());
    let config = node.config_with(json!({"runtimeConfig": {"ips": ["10.66.0.77", "fd66::77/64"]}}));
    let call = Call::about("ADD", &config, "c1", pod.path()).env("CNI_ARGS", "IP=10.66.0.99");
    let result = node.run(&call).ok();
    assert_eq!(result["ips"][0]["address"], "10.66.0.77/32");
    assert_eq!(result["ips"][1]["address"], "fd66::77/128");
    let other = crate::support::pod();
    let taken = node.run(&Call::about("ADD", &config, "c2", other.path()));
    assert_eq!(taken.code(), 105);
    let call =
        Call::about("ADD", &node.config(), "c3", other.path()).env("CNI_ARGS", "IP=10.67.0.1");
    assert_eq!(node.run(&call).code(), 7);
}

#[test]
fn e8_v1_v2_version_looks_at_nothing_and_lists_all() {
    let node = Node::new();
    let probe = Call::new("VERSION", &json!({"cniVersion": "1.1.0"}))
        .env("CNI_NETNS", "dummy")
        .env("CNI_IFNAME", "dummy")
        .env("CNI_PATH", "dummy");
    let expected = json!({"cniVersion": "1.1.0", "supportedVersions": VERSIONS});
    assert_eq!(node.run(&probe).ok(), expected);
    let old = Call::new("VERSION", &json!({"cniVersion": "0.2.0"}));
    assert_eq!(node.run(&old).ok()["cniVersion"], "0.2.0");
    for stdin in ["", "garbage", "[]"] {
        let mut call = probe.clone();
        call.stdin = stdin.into();
        assert_eq!(node.run(&call).ok(), expected, "{stdin}");
    }
}

#[test]
fn e9_the_nodes_own_namespace_or_none_at_all_is_code_8_and_leaves_nothing() {
    let (node, pod) = (Node::new(), pod());
    let file = node.path("not-a-namespace");
    std::fs::write(&file, "").unwrap();
    let add = |netns: &str| Call::about("ADD", &node.config(), "c1", netns);
    for netns in [
        "/proc/self/ns/net",
        "/proc/thread-self/ns/net",
        node.ns.path(),
        "/nonexistent/netns",
        file.to_str().unwrap(),
        "/proc/self/ns/mnt",
    ] {
        assert_eq!(node.run(&add(netns)).code(), 8, "{netns}");
        node.assert_clean(&pod, netns);
    }
    let overridden = add(node.ns.path()).env("CNI_NETNS_OVERRIDE", "true");
    node.run(&overridden).ok();
    assert!(node.netlink().find_link("eth0").unwrap().is_some());
}

#[test]
fn c1_what_is_no_json_object_is_code_6_for_every_command() {
    let (node, pod) = (Node::new(), pod());
    let deep = "[".repeat(1 << 20);
    let huge = format!("{{\"name\":\"{}\"", "x".repeat(17 << 20));
    let texts: [&[u8]; 9] = [
        b"",
        b"{",
        b"[]",
        b"nul",
        b"\xff\xfe\x00",
        b"{\"cniVersion\":\"\xc3\x28\"}",
        b"{}{}",
        deep.as_bytes(),
        huge.as_bytes(),
    ];
    for command in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
        for text in texts {
            let mut call = Call::about(command, &Value::Null, "c1", pod.path());
            call.stdin = text.to_vec();
            assert_eq!(
                node.run(&call).code(),
                6,
                "{command} {:?}",
                &text[..text.len().min(20)]
            );
        }
    }
    node.assert_clean(&pod, "after refused configurations");
}

#[test]
fn c2_a_missing_or_bad_network_name_is_code_7() {
    let (node, pod) = (Node::new(), pod());
    for name in [
        Value::Null,
        json!(""),
        json!("-n"),
        json!("a/b"),
        json!("../x"),
        json!(7),
    ] {
        let config = node.config_with(json!({"name": name}));
        let outcome = node.run(&Call::about("ADD", &config, "c1", pod.path()));
        assert_eq!(outcome.code(), 7, "{name}");
    }
    node.assert_clean(&pod, "after refused names");
}

#[test]
fn c3_a_version_not_served_is_code_1_with_the_list_of_those_that_are() {
    let (node, pod) = (Node::new(), pod());
    for version in [
        json!("0.1.0"),
        json!("0.2.0"),
        json!("1.1"),
        json!("1.1.1"),
        json!("2.0.0"),
        json!(""),
        Value::Null,
    ] {
        for command in ["ADD", "DEL", "CHECK"] {
            let config = node.config_with(json!({"cniVersion": version}));
            let error = node
                .run(&Call::about(command, &config, "c1", pod.path()))
                .error();
            assert_eq!(error["code"], 1, "{command} {version}");
            let details = error["details"].as_str().unwrap();
            assert!(VERSIONS.iter().all(|v| details.contains(v)), "{details}");
        }
    }
}

#[test]
fn c4_one_configuration_does_for_all_versions() {
    for version in VERSIONS {
        let (node, pod) = (Node::new(), pod());
        let config =
            node.config_with(json!({"cniVersion": version, "mtu": 1400, "logLevel": "debug"}));
        node.run(&Call::about("ADD", &config, "c1", pod.path()))
            .ok();
        node.run(&Call::about("DEL", &config, "c1", pod.path()))
            .silent();
        node.assert_clean(&pod, version);
    }
}

#[test]
fn c5_c6_refused_and_senseless_values_are_codes_2_and_7_and_leave_nothing() {
    let (node, pod) = (Node::new(), pod());
    for (extra, code, word) in [
        (
            json!({"ipam": {"type": "host-local"}}),
            2,
            "ipam.type \"host-local\"",
        ),
        (
            json!({"ipam": {"subnet": "10.0.0.0/8"}}),
            2,
            "ipam.subnet \"10.0.0.0/8\"",
        ),
        (
            json!({"ipam": {"ranges": [[{"subnet": "10.0.0.0/99"}]]}}),
            7,
            "ipam.ranges[0][0].subnet",
        ),
        (
            json!({"ipam": {"ranges": [[{"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.9", "rangeEnd": "10.0.0.8"}]]}}),
            7,
            "empty",
        ),
        (json!({"mtu": 10}), 7, "mtu 10"),
        (json!({"mtu": "x"}), 7, "mtu"),
        (json!({"logLevel": []}), 7, "logLevel"),
    ] {
        let config = node.config_with(extra.clone());
        let outcome = node.run(&Call::about("ADD", &config, "c1", pod.path()));
        assert_eq!(outcome.code(), code, "{extra}");
        assert!(outcome.text().contains(word), "{extra}: {outcome:?}");
        node.assert_clean(&pod, &extra.to_string());
    }
}

#[test]
fn p3_the_log_file_gets_what_stderr_gets_and_stdout_nothing_of_it() {
    let (node, pod) = (Node::new(), pod());
    let config = node.config_with(json!({"logFile": node.path("cni.log"), "logLevel": "debug"}));
    let outcome = node.run(&Call::about("ADD", &config, "c1", pod.path()));
    outcome.ok();
    let file = std::fs::read_to_string(node.path("cni.log")).unwrap();
    assert_eq!(file, outcome.stderr);
    assert!(
        file.contains(" debug weir-cni ADD c1/eth0: allocated [10.66.0.1, fd66::1]"),
        "{file}"
    );
    // A log that cannot be written fails nothing.
    let config = node.config_with(json!({"logFile": "/nonexistent/x.log"}));
    node.run(&Call::about("DEL", &config, "c1", pod.path()))
        .silent();
}
