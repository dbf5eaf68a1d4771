//! The reference client: `cnitool` of github.com/containernetworking/cni, which goes through libcni
//! as containerd and CRI-O do. Building it needs Go, which `cargo xtask test` must not: `.ci/cnitool`
//! runs this, with the program's path in `WEIR_CNITOOL`.
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

#[allow(dead_code, reason = "the other tests use the rest of it")]
mod support;

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};
use weir_net::NetNs;

use support::{Node, PLUGIN, pod};

/// Directories as a runtime has them.
struct Host {
    node: Node,
    tool: PathBuf,
}

impl Host {
    fn new() -> Self {
        let tool = std::env::var_os("WEIR_CNITOOL")
            .expect("WEIR_CNITOOL, see .ci/cnitool")
            .into();
        let node = Node::new();
        for name in ["bin", "net.d", "cache"] {
            std::fs::create_dir(node.path(name)).unwrap();
        }
        symlink(&*PLUGIN, node.path("bin/weir-cni")).unwrap();
        let mut plugin = node.config();
        for key in ["cniVersion", "name"] {
            plugin.as_object_mut().unwrap().remove(key);
        }
        let list = json!({
            "cniVersion": "1.0.0", "cniVersions": ["0.4.0", "1.0.0", "1.1.0"], "name": "weir",
            "plugins": [plugin],
        });
        std::fs::write(node.path("net.d/05-weir.conflist"), list.to_string()).unwrap();
        Self { node, tool }
    }

    fn run(&self, command: &str, netns: &Path) -> Output {
        let mut tool = Command::new(&self.tool);
        tool.args([command, "weir"]).arg(netns).env_clear();
        tool.env("NETCONFPATH", self.node.path("net.d"))
            .env("CNI_PATH", self.node.path("bin"));
        tool.env("CNI_IFNAME", "eth0").env("PATH", "/usr/bin:/bin");
        tool.env("HOME", self.node.path("cache"));
        self.node.ns.run(|| tool.output().unwrap()).unwrap()
    }

    #[track_caller]
    fn ok(&self, command: &str, pod: &NetNs) -> String {
        let output = self.run(command, Path::new(pod.path()));
        assert!(output.status.success(), "{command}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

#[test]
fn c7_v2_cnitool_attaches_checks_collects_and_detaches() {
    let (host, pod) = (Host::new(), pod());
    host.ok("status", &pod);
    let result: Value = serde_json::from_str(&host.ok("add", &pod)).unwrap();
    // libcni takes the highest of `cniVersions` that it knows.
    assert_eq!(result["cniVersion"], "1.1.0");
    assert_eq!(result["ips"][0]["address"], "10.66.0.1/32");
    host.ok("check", &pod);
    // cnitool's gc takes no attachment for valid: libcni detaches all it has cached.
    host.ok("gc", &pod);
    host.node.assert_clean(&pod, "after cnitool gc");
    host.ok("add", &pod);
    host.ok("del", &pod);
    host.node.assert_clean(&pod, "after cnitool del");
    host.ok("del", &pod);
}

#[test]
fn s2_a12_cnitool_shows_the_plugins_errors() {
    let (mut host, pod) = (Host::new(), pod());
    host.node.agent.down();
    for (command, word) in [("add", "nobody listens"), ("status", "nobody listens")] {
        let output = host.run(command, Path::new(pod.path()));
        let text = format!("{output:?}");
        assert!(
            !output.status.success() && text.contains(word),
            "{command}: {text}"
        );
    }
    host.ok("del", &pod);
    host.node.assert_clean(&pod, "after cnitool del");
}
