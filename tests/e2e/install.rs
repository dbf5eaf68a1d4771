//! What is on a node for its runtime, and how a node is rid of Weir.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use aya::programs::{SchedClassifier, TcAttachType};
use serde_json::Value;
use weir_agent::dataplane::attach::{Attacher, Hook, Role, Side};
use weir_agent::dataplane::pins::Pins;
use weir_agent::install::bpffs::is_bpffs;
use weir_lab::node::{Node, UPLINK};
use weir_lab::spawn::run_in;
use weir_lab::{Lab, PodSpec};
use weir_net::Netlink;

use crate::wait::await_that;

/// Folders of the test on its node, as the node sees them.
const CONF_DIR: &str = "/run/weir-lab/n1/net.d";
const BIN_DIR: &str = "/run/weir-lab/n1/bin";
const NAME: &str = "05-weir.conflist";

fn conf(node: &Node, name: &str) -> PathBuf {
    node.path(CONF_DIR).join(name)
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_cni_configuration_comes_with_readiness_stays_over_a_restart_and_goes_with_a_reboot() {
    let lab = Lab::builder()
        .nodes(1)
        .agent_arg(&format!("--cni-conf-dir={CONF_DIR}"))
        .start()
        .unwrap();
    let node = &lab.nodes[0];
    let file = conf(node, NAME);
    await_that("the configuration", || file.exists());
    let text = fs::read_to_string(&file).unwrap();
    let list: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(list["plugins"][0]["socket"], node.socket_inside());
    assert_eq!(list["plugins"][0]["stateDir"], node.state_dir());
    node.stop_agent().unwrap();
    assert!(file.exists(), "a stop leaves it");
    fs::write(&file, "{}").unwrap();
    fs::write(conf(node, "00-other.conf"), "{}").unwrap();
    node.start_agent().unwrap();
    await_that("it is as it should be again", || {
        fs::read_to_string(&file).unwrap() == text
    });
    assert!(!node.log().contains("of a former boot removed"));
    await_that("the other one is a problem", || {
        let degraded = node.client().status().unwrap().degraded;
        degraded
            .iter()
            .any(|p| p.contains("00-other.conf: sorts before"))
    });
    node.stop_agent().unwrap();
    let records = node.path(&format!("{}/endpoints.json", node.state_dir()));
    let text = fs::read_to_string(&records).unwrap();
    let mut value: Value = serde_json::from_str(&text).unwrap();
    value["bootId"] = "another".into();
    fs::write(&records, value.to_string()).unwrap();
    node.start_agent().unwrap();
    assert!(node.log().contains("of a former boot removed"));
    await_that("it is back", || file.exists());
    assert_eq!(
        fs::read_to_string(conf(node, "00-other.conf")).unwrap(),
        "{}"
    );
}

#[test]
fn install_mounts_a_bpf_file_system_where_there_is_none() {
    let lab = Lab::builder().nodes(1).without_agents().start().unwrap();
    let node = &lab.nodes[0];
    let plugin = weir_lab::bin("weir-cni").unwrap();
    let bpffs = "/run/weir-lab/n1/bpf";
    let install = || {
        let plugin = plugin.to_str().unwrap();
        let line = [
            "install",
            "--plugin",
            plugin,
            "--bin-dir",
            BIN_DIR,
            "--bpffs",
            bpffs,
        ];
        let output = node.weir(&line).unwrap();
        assert!(output.status.success(), "{output:?}");
        stdout(&output)
    };
    assert_eq!(install().matches("installed").count(), 3);
    assert!(is_bpffs(&node.path(bpffs)).unwrap());
    let same = fs::read(node.path(BIN_DIR).join("loopback")).unwrap() == fs::read(&plugin).unwrap();
    assert!(same, "loopback is the plugin");
    assert_eq!(install().matches("unchanged").count(), 3);
}

/// What a node has that Weir could have changed.
fn state(node: &Node) -> Vec<String> {
    let found = run_in(&node.place(), || {
        let netlink = Netlink::open()?;
        let mut found: Vec<String> = Vec::new();
        for link in netlink.links()? {
            found.push(format!("link {} {:?}", link.name, link.kind));
        }
        for side in [TcAttachType::Ingress, TcAttachType::Egress] {
            let (_, programs) = SchedClassifier::query_tcx(UPLINK, side)?;
            found.push(format!("{} programs on {UPLINK}", programs.len()));
        }
        let routes = netlink.routes()?;
        // What the kernel learns by itself comes and goes.
        let lasting = routes.iter().filter(|r| r.protocol != 2);
        found.extend(lasting.map(|r| format!("{r:?}")));
        found.extend(netlink.rules()?.iter().map(|r| format!("{r:?}")));
        let pins = fs::read_dir("/sys/fs/bpf")?;
        found.extend(pins.flatten().map(|pin| format!("{pin:?}")));
        Ok(found)
    });
    let mut found = found.unwrap();
    found.sort();
    found
}

fn cleanup(node: &Node, more: &[&str]) -> Output {
    let (state, socket) = (node.state_dir(), node.socket_inside());
    let mut line = vec!["cleanup", "--state-dir", &state, "--socket", &socket];
    line.extend(["--cni-conf-dir", CONF_DIR, "--bin-dir", BIN_DIR]);
    line.extend(more);
    node.weir(&line).unwrap()
}

#[test]
fn after_cleanup_a_node_is_as_it_was_before_weir() {
    let lab = Lab::builder()
        .nodes(1)
        .agent_arg(&format!("--cni-conf-dir={CONF_DIR}"))
        .without_agents()
        .start()
        .unwrap();
    let node = &lab.nodes[0];
    let before = state(node);
    fs::create_dir_all(node.path(BIN_DIR)).unwrap();
    fs::write(node.path(BIN_DIR).join("weir-cni"), "plugin").unwrap();
    fs::write(node.path(BIN_DIR).join("loopback"), "another's").unwrap();
    node.start_agent().unwrap();
    let _pod = lab.add_pod(&PodSpec::new("default", "a", 0)).unwrap();
    await_that("the configuration", || conf(node, NAME).exists());
    let with_weir = state(node);
    assert_ne!(with_weir, before);

    let running = cleanup(node, &["--yes", "--force"]);
    assert_eq!(running.status.code(), Some(1));
    assert!(stderr(&running).contains("another weir-agent"));
    node.stop_agent().unwrap();
    let attached = cleanup(node, &["--yes"]);
    assert_eq!(attached.status.code(), Some(1));
    let words = stderr(&attached);
    assert!(
        words.contains("1 pod is attached")
            && words.contains("of default/a")
            && words.contains("--force"),
        "{words}"
    );
    let dry = cleanup(node, &["--force", "-o", "json"]);
    assert_eq!(dry.status.code(), Some(0));
    let document: Value = serde_json::from_slice(&dry.stdout).unwrap();
    let items = document["items"].as_array().unwrap();
    assert!(items.iter().all(|item| item["state"] == "present"));
    let kinds = [
        "configuration",
        "interface",
        "route",
        "link",
        "pins",
        "file",
    ];
    for kind in kinds {
        assert!(items.iter().any(|item| item["kind"] == kind), "{kind}");
    }
    assert_eq!(state(node), with_weir, "a dry run changes nothing");

    let done = cleanup(node, &["--yes", "--force"]);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    assert!(!stdout(&done).contains("present"), "{}", stdout(&done));
    // The kernel takes a program off its hook some time after the last reference to the link went.
    await_that("the node is as it was", || state(node) == before);
    for gone in [conf(node, NAME), node.path(BIN_DIR).join("weir-cni")] {
        assert!(!gone.exists(), "{}", gone.display());
    }
    for name in ["endpoints.json", "node.json", "ipam"] {
        let path = node.path(&node.state_dir()).join(name);
        assert!(!path.exists(), "{name}");
    }
    assert!(node.path(BIN_DIR).join("loopback").exists(), "another's");
    assert_eq!(
        stdout(&cleanup(node, &[])),
        "nothing of Weir is on this node\n"
    );
}

#[test]
fn cleanup_finds_filters_of_kernels_without_tcx_by_the_names_of_their_programs() {
    let lab = Lab::builder().nodes(1).start().unwrap();
    let node = &lab.nodes[0];
    run_in(&node.place(), || {
        let netlink = Netlink::open()?;
        netlink.create_link("old", "bridge")?;
        let ifindex = netlink.link("old")?.index;
        let attacher = Attacher::new(&Pins::new(Path::new("/sys/fs/bpf/weir")), false);
        for side in [Side::In, Side::Out] {
            attacher.ensure(&Hook {
                ifindex,
                ifname: "old".into(),
                role: Role::Uplink,
                side,
            })?;
        }
        assert_eq!(netlink.bpf_filters(ifindex, true)?.len(), 1);
        Ok(())
    })
    .unwrap();
    node.stop_agent().unwrap();
    let done = cleanup(node, &["--yes"]);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    for filter in ["from_uplink on old", "to_uplink on old"] {
        assert!(stdout(&done).contains(filter), "{}", stdout(&done));
    }
    let left = run_in(&node.place(), || {
        let netlink = Netlink::open()?;
        let index = netlink.link("old")?.index;
        Ok(netlink.bpf_filters(index, true)?.len() + netlink.bpf_filters(index, false)?.len())
    });
    assert_eq!(left.unwrap(), 0);
}
