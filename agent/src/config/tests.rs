use std::{ffi::OsString, io, path::Path, time::Duration};

use super::*;

fn run(args: &[&str], env: &[(&str, &str)], file: &str) -> Result<Invocation, ConfigError> {
    let args = std::iter::once("weir-agent")
        .chain(args.iter().copied())
        .map(OsString::from);
    let env = |name: &str| {
        env.iter()
            .find(|(n, _)| *n == name)
            .map(|(_, v)| (*v).to_owned())
    };
    resolve(args, env, |path| {
        if path == Path::new("/etc/weir.yaml") {
            Ok(file.to_owned())
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    })
}

fn config(args: &[&str], env: &[(&str, &str)], file: &str) -> Config {
    match run(args, env, file).unwrap() {
        Invocation::Run(config) => *config,
        Invocation::Print(text) => panic!("printed {text}"),
    }
}

fn failure(args: &[&str], env: &[(&str, &str)], file: &str) -> String {
    run(args, env, file).unwrap_err().to_string()
}

const BASE: [&str; 4] = ["--source", "dir:/m", "--node-name", "n1"];

#[test]
fn flag_wins_over_environment_over_file_over_default() {
    let file = "mtu: 1400\nadopt-timeout: 3s\nlog-level: debug\nuplinks: [eth0, eth1]\n";
    let env = [("WEIR_MTU", "1450"), ("WEIR_ADOPT_TIMEOUT", "4s")];
    let args = [&BASE[..], &["--mtu", "1460", "--config", "/etc/weir.yaml"]].concat();
    let config = config(&args, &env, file);
    assert_eq!(config.mtu, Some(1460));
    assert_eq!(config.adopt_timeout, Duration::from_secs(4));
    assert_eq!(config.log_level, "debug");
    assert_eq!(config.uplinks, ["eth0", "eth1"]);
    assert_eq!(config.socket, Path::new(weir_api::DEFAULT_SOCKET));
}

#[test]
fn unknown_key_is_an_error_that_names_the_nearest() {
    let args = [&BASE[..], &["--config", "/etc/weir.yaml"]].concat();
    let message = failure(&args, &[], "node_nam: n1\n");
    assert!(
        message.contains("\"node_nam\"") && message.contains("\"node-name\""),
        "{message}"
    );
    let message = failure(&["--sorce", "dir:/m"], &[], "");
    assert!(message.contains("--source"), "{message}");
}

#[test]
fn source_is_required_and_the_message_says_how_to_give_it() {
    let message = failure(&["--node-name", "n1"], &[], "");
    assert!(
        message.contains("--source") && message.contains("WEIR_SOURCE"),
        "{message}"
    );
}

#[test]
fn a_source_that_there_is_not_is_refused_with_those_there_are() {
    let message = failure(&["--source", "etcd", "--node-name", "n1"], &[], "");
    assert!(message.contains("kube or dir:PATH"), "{message}");
}

#[test]
fn the_api_server_is_reached_by_service_account_kubeconfig_or_a_given_address() {
    let kube = ["--source", "kube", "--node-name", "n1"];
    let plain = config(&kube, &[], "");
    assert_eq!(plain.source, Source::Kube);
    assert_eq!((plain.api.kubeconfig, plain.api.api_server), (None, None));
    let env = [("WEIR_API_SERVER", "https://[fd31::11]:6443")];
    let args = [&kube[..], &["--kubeconfig", "/etc/k"]].concat();
    let given = config(&args, &env, "").api;
    assert_eq!(given.kubeconfig.as_deref(), Some(Path::new("/etc/k")));
    let server = given.api_server.unwrap();
    assert_eq!(
        (server.host(), server.port_u16()),
        (Some("[fd31::11]"), Some(6443))
    );
    for bad in ["10.0.0.1:6443", "ftp://a", "https://", ""] {
        let message = failure(&[&kube[..], &["--api-server", bad]].concat(), &[], "");
        assert!(message.contains("api-server"), "{message}");
        assert!(message.contains("https://10.0.0.1:6443"), "{message}");
    }
}

#[test]
fn a_bad_value_names_key_and_origin() {
    let message = failure(&BASE, &[("WEIR_MTU", "70000")], "");
    assert!(
        message.contains("mtu") && message.contains("WEIR_MTU"),
        "{message}"
    );
    let args = [&BASE[..], &["--config", "/etc/weir.yaml"]].concat();
    let message = failure(&args, &[], "log-format: xml\n");
    assert!(
        message.contains("log-format") && message.contains("/etc/weir.yaml"),
        "{message}"
    );
}

#[test]
fn a_file_that_is_not_there_or_not_a_mapping_is_named() {
    let args = [&BASE[..], &["--config", "/nowhere"]].concat();
    assert!(failure(&args, &[], "").contains("/nowhere"));
    let args = [&BASE[..], &["--config", "/etc/weir.yaml"]].concat();
    assert!(failure(&args, &[], "- a\n- b\n").contains("/etc/weir.yaml"));
    assert!(failure(&args, &[], "mtu: {a: 1}\n").contains("mtu"));
}

#[test]
fn print_config_shows_values_and_origins_even_where_one_is_missing() {
    let args = ["--print-config", "--mtu", "1400"];
    let Invocation::Print(text) = run(&args, &[("WEIR_NODE_NAME", "n1")], "").unwrap() else {
        panic!("did not print");
    };
    assert!(text.contains("mtu: \"1400\" # flag\n"), "{text}");
    assert!(
        text.contains("node-name: \"n1\" # environment WEIR_NODE_NAME\n"),
        "{text}"
    );
    assert!(text.contains("log-format: \"text\" # default\n"), "{text}");
    assert!(text.contains("# source: not set\n"), "{text}");
    assert!(text.contains("source is required"), "{text}");
}

#[test]
fn an_empty_file_is_an_empty_layer() {
    let args = [&BASE[..], &["--config", "/etc/weir.yaml"]].concat();
    assert_eq!(config(&args, &[], "# nothing\n").node_name, "n1");
}

#[test]
fn durations_take_units() {
    assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
    assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
    assert_eq!(parse_duration("7"), Ok(Duration::from_secs(7)));
    assert!(parse_duration("s").is_err());
    assert!(parse_duration("5h").is_err());
}

#[test]
fn verification_runs_by_default_and_0_switches_it_off() {
    assert_eq!(
        config(&BASE, &[], "").verify_interval,
        Duration::from_secs(300)
    );
    let off = [&BASE[..], &["--verify-interval", "0"]].concat();
    assert!(config(&off, &[], "").verify_interval.is_zero());
}

#[test]
fn every_map_that_grows_has_a_key_and_its_default_limit_is_as_the_help_says() {
    use crate::dataplane::sizes::{MapLimits, RESIZABLE, Sizes};
    use weir_abi::map;
    let args = [&BASE[..], &["--max-peers", "1000"]].concat();
    let config = config(&args, &[("WEIR_MAX_RULES", "32")], "");
    assert_eq!(
        config.map_limits,
        MapLimits::new(Sizes::from([(map::PEERS, 1000), (map::RULES, 32)]))
    );
    assert!(failure(&[&BASE[..], &["--max-ids", "3"]].concat(), &[], "").contains("max-ids"));
    for resizable in RESIZABLE {
        let flag = resizable.flag;
        let key = keys::KEYS.iter().find(|k| k.name == flag).unwrap();
        let default = format!("[default: {}]", resizable.limit);
        assert!(key.help.contains(&default), "{flag}: {}", key.help);
        assert!(key.help.contains(resizable.map), "{flag}: {}", key.help);
    }
}

#[test]
fn established_flows_are_judged_again_unless_the_configuration_says_keep() {
    let established = |args: &[&str]| config(&[&BASE[..], args].concat(), &[], "");
    assert_eq!(established(&[]).policy_established, Established::Apply);
    for (text, value) in [("apply", Established::Apply), ("keep", Established::Keep)] {
        let config = established(&["--policy-established", text]);
        assert_eq!(config.policy_established, value);
    }
    let args = [&BASE[..], &["--policy-established", "cut"]].concat();
    let message = failure(&args, &[], "");
    assert!(
        message.contains("policy-established") && message.contains("apply or keep"),
        "{message}"
    );
}

#[test]
fn the_keys_around_services_have_kube_proxys_defaults_and_name_themselves_in_errors() {
    use std::collections::BTreeSet;

    let config_of = |args: &[&str]| config(&[&BASE[..], args].concat(), &[], "");
    let default = config_of(&[]);
    assert_eq!(default.node_ports, NodePortAddresses::All);
    assert_eq!(default.skip_services, BTreeSet::new());
    assert_eq!(default.socket_lb, SocketLb::All);
    assert_eq!(default.node_port_mode, NodePortMode::Snat);
    assert_eq!(default.nat_ports.to_string(), "61000-65535");
    assert_eq!(default.healthz_address, None);
    let other = config_of(&["--socket-lb", "host-only", "--node-port-mode", "dsr"]);
    assert_eq!(other.socket_lb, SocketLb::HostOnly);
    assert_eq!(other.node_port_mode, NodePortMode::Dsr);
    for (flag, bad) in [
        ("--nodeport-addresses", "eth0"),
        ("--skip-services", "kube-dns"),
        ("--socket-lb", "pods"),
        ("--nat-ports", "61000"),
        ("--masquerade", "maybe"),
        ("--non-masquerade-cidrs", "10.0.0.1"),
        ("--node-port-mode", "ipvs"),
        ("--healthz-address", "10256"),
    ] {
        let message = failure(&[&BASE[..], &[flag, bad]].concat(), &[], "");
        assert!(
            message.contains(&flag[2..]) && message.contains(bad),
            "{message}"
        );
    }
    let file = "skip-services: [kube-system/kube-dns, a/b]\n";
    let args = [&BASE[..], &["--config", "/etc/weir.yaml"]].concat();
    assert_eq!(config(&args, &[], file).skip_services.len(), 2);
}

/// The file that an installation has, and its lines.
fn shipped_file() -> String {
    let manifest = include_str!("../../../manifests/kustomize/base/config.yaml");
    let (_, block) = manifest.split_once("  config.yaml: |\n").unwrap();
    let lines = block.lines().map(|line| line.strip_prefix("    ").unwrap());
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_shipped_config_map_documents_every_key_with_its_default() {
    let file = shipped_file();
    for key in keys::KEYS {
        let (set, unset) = (format!("{}: ", key.name), format!("# {}:", key.name));
        let mut said = file.lines().filter_map(|line| {
            let given = line.starts_with(&set);
            let text = line.strip_prefix(&unset).map(str::trim);
            (given || text.is_some()).then_some(text)
        });
        let Some(text) = said.next() else {
            panic!(
                "manifests/kustomize/base/config.yaml says nothing of {}",
                key.name
            )
        };
        if let Some(text) = text {
            assert_eq!(text, key.default.unwrap_or_default(), "{}", key.name);
        }
        assert_eq!(said.next(), None, "{} stands there twice", key.name);
    }
}

#[test]
fn what_the_shipped_config_map_sets_or_offers_is_a_key() {
    let file = shipped_file();
    // A line that could be uncommented, not a sentence.
    let offered = file.lines().filter_map(|line| {
        let (name, _) = line.strip_prefix("# ").unwrap_or(line).split_once(':')?;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        (!name.is_empty() && name.chars().all(plain)).then_some(name)
    });
    let mut known = 0;
    for name in offered {
        let key = keys::KEYS.iter().find(|key| key.name == name);
        assert!(
            key.is_some(),
            "manifests/kustomize/base/config.yaml offers {name}, which is no key"
        );
        known += 1;
    }
    assert_eq!(known, keys::KEYS.len());
}

#[test]
fn the_shipped_config_map_makes_an_agent_of_a_cluster_that_writes_the_cni_configuration() {
    let args = ["--config", "/etc/weir.yaml"];
    let config = config(&args, &[("WEIR_NODE_NAME", "n1")], &shipped_file());
    assert_eq!(config.source, Source::Kube);
    assert_eq!(config.cgroup.as_deref(), Some(Path::new("/host/cgroup")));
    let cni = config.cni.unwrap();
    assert_eq!(cni.dir, Path::new("/host/cni/net.d"));
    assert_eq!(cni.name, "05-weir.conflist");
}

#[test]
fn cluster_cidrs_are_cut_by_family_and_what_makes_no_sense_is_refused() {
    let sizes = ["--node-cidr-mask-size", "25"];
    let with = |cidrs| [&BASE[..], &sizes[..], &["--cluster-cidr", cidrs]].concat();
    let pools = config(&with("10.244.0.0/16, fd44::/56"), &[], "").pools;
    let cut: Vec<(String, u8)> = pools.iter().map(|p| (p.to_string(), p.bits())).collect();
    assert_eq!(
        cut,
        [
            ("10.244.0.0/16".to_owned(), 25),
            ("fd44::/56".to_owned(), 64)
        ]
    );
    assert!(config(&BASE, &[], "").pools.is_empty());
    for (cidrs, part) in [
        ("10.244.0.0", "no CIDR"),
        ("10.0.0.0/16,10.1.0.0/16", "at most one"),
        ("10.244.0.0/26", "--node-cidr-mask-size must be 26 to 30"),
    ] {
        let message = failure(&with(cidrs), &[], "");
        assert!(
            message.contains("cluster-cidr") && message.contains(part),
            "{message}"
        );
    }
}

#[test]
fn the_namespace_is_a_name_of_one() {
    let with = |name| [&BASE[..], &["--namespace", name]].concat();
    assert_eq!(config(&BASE, &[], "").namespace, None);
    assert_eq!(
        config(&with("net-1"), &[], "").namespace.as_deref(),
        Some("net-1")
    );
    for bad in ["", "a/b", "-a", "a-", "A", "a.b"] {
        let message = failure(&BASE, &[("WEIR_NAMESPACE", bad)], "");
        assert!(message.contains("WEIR_NAMESPACE"), "{bad}: {message}");
    }
}

#[test]
fn a_node_has_at_most_one_configured_address_of_each_family() {
    let ips = |text: &str| {
        let arg = format!("--node-ip={text}");
        let args = [&BASE[..], &[arg.as_str()]].concat();
        run(&args, &[], "")
    };
    let config = match ips("2001:db8::1, 192.0.2.1").unwrap() {
        Invocation::Run(config) => config,
        Invocation::Print(text) => panic!("printed {text}"),
    };
    let texts: Vec<String> = config.node_ips.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["2001:db8::1", "192.0.2.1"]);
    for bad in ["192.0.2.1,192.0.2.2", "127.0.0.1", "::", "eth0"] {
        let message = ips(bad).unwrap_err().to_string();
        assert!(message.contains("one of each family"), "{bad}: {message}");
    }
}
