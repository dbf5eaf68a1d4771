//! The plugin under the name `loopback`.

use std::{
    io::Write as _,
    os::unix::process::CommandExt as _,
    process::{Output, Stdio},
};

use serde_json::{Value, json};
use weir_net::{NetNs, Netlink};

use crate::support::{Call, VERSIONS, pod};

/// A namespace to run in, a pod, and the configuration that containerd gives.
struct Rig {
    host: NetNs,
    pod: NetNs,
}

impl Rig {
    fn new() -> Self {
        let host = NetNs::create().unwrap();
        Self { host, pod: pod() }
    }

    fn run(&self, call: &Call) -> Output {
        let mut command = call.command();
        command.arg0("/opt/cni/bin/loopback");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = self.host.run(|| command.spawn().unwrap()).unwrap();
        child.stdin.take().unwrap().write_all(&call.stdin).unwrap();
        child.wait_with_output().unwrap()
    }

    fn about(&self, command: &str, config: &Value) -> Output {
        let call = Call::about(command, config, "c1", self.pod.path());
        self.run(&call.env("CNI_IFNAME", "lo"))
    }

    fn is_up(&self) -> bool {
        let netlink = Netlink::open_in(&self.pod).unwrap();
        netlink.link("lo").unwrap().up
    }
}

fn config(version: &str) -> Value {
    json!({"cniVersion": version, "name": "cni-loopback", "type": "loopback"})
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

#[test]
fn loopback_comes_up_with_its_addresses_and_goes_down_in_every_version() {
    for version in VERSIONS {
        let rig = Rig::new();
        let config = config(version);
        assert!(!rig.is_up());
        let added = rig.about("ADD", &config);
        assert!(added.status.success(), "{version}: {added:?}");
        assert!(rig.is_up(), "{version}");
        let result = json_of(&added);
        assert_eq!(result["cniVersion"], version);
        let lo = json!({"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": rig.pod.path()});
        assert_eq!(result["interfaces"], json!([lo]));
        let ips = result["ips"].as_array().unwrap();
        let addresses: Vec<_> = ips.iter().map(|ip| ip["address"].as_str()).collect();
        assert_eq!(addresses, [Some("127.0.0.1/8"), Some("::1/128")]);
        let has_family = ips.iter().all(|ip| ip["version"].is_string());
        assert_eq!(has_family, version.starts_with('0'), "{version}");
        let again = rig.about("ADD", &config);
        assert_eq!(json_of(&again), result, "a second ADD changes nothing");
        let removed = rig.about("DEL", &config);
        assert!(removed.status.success() && removed.stdout.is_empty());
        assert!(!rig.is_up(), "{version}");
    }
}

#[test]
fn loopback_passes_the_result_of_a_plugin_before_it_on() {
    let rig = Rig::new();
    let mut config = config("1.0.0");
    let previous = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "eth0", "sandbox": "/x"}],
        "ips": [{"address": "10.0.0.5/32", "interface": 0}],
        "foreign": {"kept": true},
    });
    config["prevResult"] = previous.clone();
    assert_eq!(json_of(&rig.about("ADD", &config)), previous);
    assert!(rig.is_up());
}

#[test]
fn loopback_check_fails_exactly_while_lo_is_down_and_before_0_4_0() {
    let rig = Rig::new();
    let checked = |version| rig.about("CHECK", &config(version));
    let down = checked("1.0.0");
    assert_eq!(json_of(&down)["code"], 104);
    assert!(!rig.is_up(), "CHECK repairs nothing");
    rig.about("ADD", &config("1.0.0"));
    assert!(checked("1.0.0").status.success());
    assert!(checked("0.4.0").status.success());
    assert_eq!(json_of(&checked("0.3.1"))["code"], 1);
}

#[test]
fn loopback_del_succeeds_without_its_namespace_again_and_again() {
    let rig = Rig::new();
    for netns in ["", "/nowhere/netns"] {
        let call = Call::about("DEL", &config("1.1.0"), "c1", netns);
        assert!(rig.run(&call).status.success(), "{netns}");
    }
    for _ in 0..2 {
        assert!(rig.about("DEL", &config("1.1.0")).status.success());
    }
}

#[test]
fn loopback_leaves_the_namespace_it_runs_in_alone() {
    let rig = Rig::new();
    let host = Netlink::open_in(&rig.host).unwrap();
    host.set_up(host.link("lo").unwrap().index).unwrap();
    for command in ["ADD", "CHECK", "DEL"] {
        let call = Call::about(command, &config("1.1.0"), "c1", rig.host.path());
        assert_eq!(json_of(&rig.run(&call))["code"], 8, "{command}");
    }
    assert!(host.link("lo").unwrap().up);
}

#[test]
fn loopback_answers_version_status_and_gc() {
    let rig = Rig::new();
    let version = rig.run(&Call::new("VERSION", &json!({"cniVersion": "1.0.0"})));
    assert_eq!(json_of(&version)["supportedVersions"], json!(VERSIONS));
    for command in ["STATUS", "GC"] {
        let call = |version| Call::new(command, &config(version)).env("CNI_PATH", "/x");
        let done = rig.run(&call("1.1.0"));
        assert!(done.status.success() && done.stdout.is_empty(), "{command}");
        assert_eq!(json_of(&rig.run(&call("1.0.0")))["code"], 1, "{command}");
    }
}
