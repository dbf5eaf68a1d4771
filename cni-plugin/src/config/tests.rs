//! Configurations, good and bad.

use serde_json::json;

use super::*;

fn parse(value: &Value) -> Result<Config> {
    Config::parse(value.to_string().as_bytes())
}

fn with(extra: &Value) -> Value {
    let mut value = json!({"cniVersion": "1.1.0", "name": "net", "type": "weir-cni"});
    for (key, extra) in extra.as_object().unwrap() {
        value[key] = extra.clone();
    }
    value
}

#[test]
fn defaults_are_those_of_the_api() {
    let config = parse(&with(&json!({}))).unwrap();
    assert_eq!(config.socket.to_str(), Some("/run/weir/agent.sock"));
    assert_eq!(config.state_dir.to_str(), Some("/var/lib/weir"));
    assert!(config.pools.is_none() && config.mtu.is_none() && config.valid.is_none());
    assert_eq!(config.dns, json!({}));
}

#[test]
fn c1_what_is_not_a_json_object_is_code_6() {
    let deep = "[".repeat(100_000);
    let deep_object = format!("{}1{}", "{\"a\":".repeat(5_000), "}".repeat(5_000));
    for text in [
        "",
        " ",
        "{",
        "[]",
        "null",
        "1",
        "\"x\"",
        "{\"name\":}",
        "{} {}",
        &deep,
        &deep_object,
    ] {
        assert_eq!(
            Config::parse(text.as_bytes()).unwrap_err().code,
            Code::Decode
        );
    }
    for bytes in [&b"\xff\xfe{}"[..], b"{\"name\":\"\xff\"}", b"\0"] {
        assert_eq!(Config::parse(bytes).unwrap_err().code, Code::Decode);
    }
}

#[test]
fn c2_name_is_checked() {
    for name in [
        json!(""),
        json!(null),
        json!("-x"),
        json!("a/b"),
        json!("ä"),
        json!(1),
        json!(["x"]),
    ] {
        let error = parse(&with(&json!({"name": name}))).unwrap_err();
        assert_eq!(error.code, Code::InvalidConfig, "{name}");
    }
}

#[test]
fn p6_unknown_keys_and_the_runtimes_own_are_passed_over() {
    let config = with(&json!({
        "futureKey": {"x": [1]}, "capabilities": {"portMappings": true, "mac": true},
        "args": {"cni": {"labels": [{"key": "a", "value": "b"}]}, "other": 1},
        "runtimeConfig": {"portMappings": [{"HostPort": 80}], "bandwidth": {"IngressRate": 1}},
        "cni.dev/other": [], "ipMasq": true,
    }));
    parse(&config).unwrap();
}

#[test]
fn c6_wrong_types_and_values_are_code_7_and_name_the_key() {
    let ranges = |value: Value| json!({"ipam": {"ranges": value}});
    for (extra, key) in [
        (json!({"mtu": "1500"}), "mtu"),
        (json!({"mtu": -1}), "mtu"),
        (json!({"mtu": 1.5}), "mtu"),
        (json!({"mtu": 67}), "mtu"),
        (json!({"mtu": 65536}), "mtu"),
        (json!({"mtu": 1e300}), "mtu"),
        (json!({"socket": 1}), "socket"),
        (json!({"socket": "relative"}), "socket"),
        (json!({"stateDir": "\u{0}/x"}), "stateDir"),
        (json!({"logLevel": "loud"}), "logLevel"),
        (json!({"ipam": []}), "ipam"),
        (json!({"ipam": "x"}), "ipam"),
        (json!({"runtimeConfig": 3}), "runtimeConfig"),
        (
            json!({"runtimeConfig": {"ips": "10.0.0.1"}}),
            "runtimeConfig.ips",
        ),
        (
            json!({"runtimeConfig": {"ips": [1]}}),
            "runtimeConfig.ips[0]",
        ),
        (json!({"args": {"cni": {"ips": {}}}}), "args.cni.ips"),
        (
            json!({"cni.dev/valid-attachments": {}}),
            "cni.dev/valid-attachments",
        ),
        (
            json!({"cni.dev/valid-attachments": [{}]}),
            "cni.dev/valid-attachments[0]",
        ),
        (
            json!({"cni.dev/attachments": ["x"]}),
            "cni.dev/attachments[0]",
        ),
        (ranges(json!({})), "ipam.ranges"),
        (ranges(json!([])), "ipam.ranges"),
        (ranges(json!([[]])), "ipam.ranges"),
        (ranges(json!([{"subnet": "10.0.0.0/24"}])), "ipam.ranges[0]"),
        (
            ranges(json!([[{"subnet": "10.0.0.0"}]])),
            "ipam.ranges[0][0].subnet",
        ),
        (
            ranges(json!([[{"subnet": "10.0.0.0/33"}]])),
            "ipam.ranges[0][0].subnet",
        ),
        (ranges(json!([[{"subnet": "10.0.0.1/24"}]])), "host bits"),
        (ranges(json!([[{}]])), "ipam.ranges[0][0].subnet"),
        (
            ranges(json!([[{"subnet": "10.0.0.0/24", "rangeStart": "x"}]])),
            "rangeStart",
        ),
        (
            ranges(json!([[{"subnet": "10.0.0.0/24"}, {"subnet": "10.0.0.0/25"}]])),
            "overlap",
        ),
    ] {
        let error = parse(&with(&extra)).unwrap_err();
        assert_eq!(error.code, Code::InvalidConfig, "{extra}");
        assert!(error.msg.contains(key), "{extra}: {error}");
    }
}

#[test]
fn c6_an_mtu_too_small_for_ipv6_is_refused() {
    let config = json!({"mtu": 1279, "ipam": {"ranges": [[{"subnet": "fd00::/64"}]]}});
    assert_eq!(parse(&with(&config)).unwrap_err().code, Code::InvalidConfig);
    let config = json!({"mtu": 1279, "ipam": {"ranges": [[{"subnet": "10.0.0.0/24"}]]}});
    parse(&with(&config)).unwrap();
}

#[test]
fn c5_another_ipam_is_code_2_and_the_message_has_key_and_value() {
    for (ipam, text) in [
        (json!({"type": "host-local"}), "ipam.type \"host-local\""),
        (
            json!({"subnet": "10.0.0.0/24"}),
            "ipam.subnet \"10.0.0.0/24\"",
        ),
    ] {
        let error = parse(&with(&json!({"ipam": ipam}))).unwrap_err();
        assert_eq!(error.code, Code::UnsupportedField);
        assert!(error.msg.contains(text), "{error}");
    }
    parse(&with(&json!({"ipam": {"type": "weir-cni"}}))).unwrap();
    parse(&with(&json!({"ipam": {}}))).unwrap();
}

#[test]
fn g2_g5_both_keys_are_read_and_absent_is_not_empty() {
    let valid = |extra: Value| parse(&with(&extra)).unwrap().valid;
    let one = json!([{"containerID": "a", "ifname": "eth0", "more": 1}]);
    let set = HashSet::from([("a".to_owned(), "eth0".to_owned())]);
    assert_eq!(valid(json!({})), None);
    assert_eq!(
        valid(json!({"cni.dev/valid-attachments": []})),
        Some(HashSet::new())
    );
    assert_eq!(
        valid(json!({"cni.dev/valid-attachments": one})),
        Some(set.clone())
    );
    assert_eq!(
        valid(json!({"cni.dev/attachments": one})),
        Some(set.clone())
    );
    let both = json!({"cni.dev/valid-attachments": [], "cni.dev/attachments": one});
    assert_eq!(valid(both), Some(set));
}

#[test]
fn e7_runtime_config_wins_over_args_and_both_over_cni_args() {
    let wanted = |extra: Value| parse(&with(&extra)).unwrap().wanted(&["10.0.0.3".into()]);
    let one = |text: &str| Ok(vec![text.parse().unwrap()]);
    let args = json!({"cni": {"ips": ["10.0.0.2"]}});
    assert_eq!(wanted(json!({})), one("10.0.0.3"));
    assert_eq!(wanted(json!({"args": args})), one("10.0.0.2"));
    assert_eq!(
        wanted(json!({"args": args, "runtimeConfig": {"ips": ["10.0.0.1/24"]}})),
        one("10.0.0.1")
    );
    assert_eq!(
        wanted(json!({"args": {"cni": {"ips": ["x"]}}}))
            .unwrap_err()
            .code,
        Code::InvalidConfig
    );
}

#[test]
fn a9_dns_comes_from_the_runtime_in_any_case_or_from_the_configuration() {
    let dns = |extra: Value| parse(&with(&extra)).unwrap().dns;
    let own = json!({"nameservers": ["10.0.0.53"], "search": ["x"], "domain": "y"});
    assert_eq!(dns(json!({"dns": own})), own);
    let go = json!({"dns": {"Servers": ["10.0.0.9"], "Searches": ["a"], "Options": []}});
    let expected = json!({"nameservers": ["10.0.0.9"], "search": ["a"]});
    assert_eq!(dns(json!({"dns": own, "runtimeConfig": go})), expected);
}

#[test]
fn the_node_file_gives_what_the_configuration_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let state = json!({"stateDir": dir.path()});
    let config = parse(&with(&state)).unwrap();
    assert_eq!(config.node().unwrap_err().code, Code::TryAgain);
    let file = dir.path().join("node.json");
    let write = |text: Value| std::fs::write(&file, text.to_string()).unwrap();
    write(json!({"version": 1, "podCIDRs": ["10.1.0.0/24", "fd01::/64"], "mtu": 1450, "new": 1}));
    let node = config.node().unwrap();
    assert_eq!((node.pools.len(), node.mtu), (2, 1450));
    let mtu = parse(&with(&json!({"stateDir": dir.path(), "mtu": 1400}))).unwrap();
    assert_eq!(mtu.node().unwrap().mtu, 1400);
    write(json!({"version": 1, "podCIDRs": [], "mtu": 1450}));
    assert_eq!(config.node().unwrap_err().code, Code::TryAgain);
    write(json!({"version": 2, "podCIDRs": ["10.1.0.0/24"], "mtu": 1450}));
    assert_eq!(config.node().unwrap_err().code, Code::Io);
    write(json!([]));
    assert_eq!(config.node().unwrap_err().code, Code::Io);
}
