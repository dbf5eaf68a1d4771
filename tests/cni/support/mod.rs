//! A runtime, a node and pods for one test.

pub mod agent;
pub mod trace;

use std::{
    collections::BTreeMap,
    io::Write,
    net::UdpSocket,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::LazyLock,
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt};
use serde_json::{Value, json};
use weir_net::{NetNs, Netlink, netlink::RouteKind};

use agent::Agent;

/// The plugin under test.
pub static PLUGIN: LazyLock<PathBuf> = LazyLock::new(|| weir_lab::bin("weir-cni").unwrap());

/// The versions that the plugin serves.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// A node: a namespace, a state directory and an agent.
pub struct Node {
    pub ns: NetNs,
    pub agent: Agent,
    pub dir: tempfile::TempDir,
}

/// What a call of the plugin came to.
#[derive(Debug)]
pub struct Outcome {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Outcome {
    /// The result of a call that must succeed; null if it printed nothing.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert!(self.status.success(), "{self:#?}");
        if self.stdout.is_empty() {
            Value::Null
        } else {
            self.json()
        }
    }

    /// A call that must succeed and print nothing.
    #[track_caller]
    pub fn silent(&self) {
        assert_eq!(self.ok(), Value::Null, "{self:#?}");
    }

    /// The code of a call that must fail with a well-formed error document.
    #[track_caller]
    pub fn code(&self) -> u64 {
        self.error()["code"].as_u64().unwrap()
    }

    /// The error document of a call that must fail.
    #[track_caller]
    pub fn error(&self) -> Value {
        assert!(!self.status.success(), "{self:#?}");
        let error = self.json();
        assert!(error["cniVersion"].is_string(), "{self:#?}");
        assert!(
            error["code"].as_u64().is_some_and(|code| code > 0),
            "{self:#?}"
        );
        assert!(
            error["msg"].as_str().is_some_and(|msg| !msg.is_empty()),
            "{self:#?}"
        );
        error
    }

    /// Text of message and details of a call that must fail.
    #[track_caller]
    pub fn text(&self) -> String {
        let error = self.error();
        format!(
            "{} {}",
            error["msg"].as_str().unwrap(),
            error["details"].as_str().unwrap_or("")
        )
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:#?}"))
    }
}

/// A call of the plugin: environment and configuration, to be changed before it is run.
#[derive(Clone)]
pub struct Call {
    pub env: BTreeMap<String, String>,
    pub stdin: Vec<u8>,
}

impl Call {
    pub fn new(command: &str, config: &Value) -> Self {
        let env = BTreeMap::from([("CNI_COMMAND".to_owned(), command.to_owned())]);
        Self {
            env,
            stdin: config.to_string().into_bytes(),
        }
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.env.remove(name);
        self
    }

    /// The call of a command that is about an attachment.
    pub fn about(command: &str, config: &Value, id: &str, netns: &str) -> Self {
        Self::new(command, config)
            .env("CNI_CONTAINERID", id)
            .env("CNI_NETNS", netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/opt/cni/bin")
    }

    /// The process, without stdio.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&*PLUGIN);
        command.env_clear().envs(&self.env).current_dir("/");
        command
    }
}

impl Node {
    /// A node with a /24 and a /64 and an agent that adopts at once.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("weir-cni-test")
            .tempdir()
            .unwrap();
        let ns = NetNs::create().unwrap();
        let agent = Agent::start(&dir.path().join("agent.sock"), &ns);
        let node = Self { ns, agent, dir };
        node.write_node_file(&["10.66.0.0/24", "fd66::/64"]);
        node
    }

    pub fn write_node_file(&self, cidrs: &[&str]) {
        let file = json!({"version": 1, "podCIDRs": cidrs, "mtu": 1450});
        std::fs::write(self.dir.path().join("node.json"), file.to_string()).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A configuration of version 1.1.0 for this node.
    pub fn config(&self) -> Value {
        json!({
            "cniVersion": "1.1.0", "name": "weir", "type": "weir-cni",
            "socket": self.path("agent.sock"), "stateDir": self.dir.path(),
        })
    }

    /// The same with more keys.
    pub fn config_with(&self, extra: Value) -> Value {
        let mut config = self.config();
        let Value::Object(extra) = extra else {
            panic!("{extra}")
        };
        for (key, value) in extra {
            config[key] = value;
        }
        config
    }

    /// Starts the plugin in the node's namespace and gives it its configuration.
    pub fn spawn(&self, call: &Call) -> Child {
        let mut command = call.command();
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // A child gets the namespace of the thread that starts it.
        let mut child = self.ns.run(|| command.spawn().unwrap()).unwrap();
        // The plugin may refuse the call before it has read its configuration.
        let _ = child.stdin.take().unwrap().write_all(&call.stdin);
        child
    }

    /// Runs the plugin in the node's namespace.
    pub fn run(&self, call: &Call) -> Outcome {
        let started = Instant::now();
        let output = self.spawn(call).wait_with_output().unwrap();
        Outcome {
            status: output.status,
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            took: started.elapsed(),
        }
    }

    pub fn add(&self, id: &str, pod: &NetNs) -> Outcome {
        self.run(&Call::about("ADD", &self.config(), id, pod.path()))
    }

    pub fn del(&self, id: &str, pod: &NetNs) -> Outcome {
        self.run(&Call::about("DEL", &self.config(), id, pod.path()))
    }

    pub fn check(&self, id: &str, pod: &NetNs, result: &Value) -> Outcome {
        let config = self.config_with(json!({"prevResult": result}));
        self.run(&Call::about("CHECK", &config, id, pod.path()))
    }

    pub fn status(&self) -> Outcome {
        self.run(&Call::new("STATUS", &self.config()))
    }

    /// GC with these valid attachments.
    pub fn gc(&self, valid: &[(&str, &str)]) -> Outcome {
        let list: Vec<Value> = valid
            .iter()
            .map(|(id, ifname)| json!({"containerID": id, "ifname": ifname}))
            .collect();
        let config = self
            .config_with(json!({"cni.dev/valid-attachments": list, "cni.dev/attachments": list}));
        self.run(&Call::new("GC", &config).env("CNI_PATH", "/opt/cni/bin"))
    }

    /// Netlink in the node's namespace.
    pub fn netlink(&self) -> Netlink {
        Netlink::open_in(&self.ns).unwrap()
    }

    /// The address store as JSON; null if there is none.
    pub fn store(&self) -> Value {
        match std::fs::read(self.path("ipam/store.json")) {
            Ok(text) => serde_json::from_slice(&text).unwrap(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Value::Null,
            Err(error) => panic!("{error}"),
        }
    }

    /// Addresses that the store holds as used, of all records; panics if one is there twice.
    pub fn used(&self) -> Vec<String> {
        let mut all = Vec::new();
        for record in self.store()["records"].as_array().into_iter().flatten() {
            for address in record["addresses"].as_array().unwrap() {
                all.push(address.as_str().unwrap().to_owned());
            }
        }
        all.sort();
        let before = all.len();
        all.dedup();
        assert_eq!(all.len(), before, "an address twice in {}", self.store());
        all
    }

    /// Everything about the node that an attachment could leave behind.
    pub fn traces(&self) -> Vec<String> {
        let mut traces = traces_of(&self.ns);
        traces.extend(self.used());
        traces.extend(
            self.agent
                .endpoints()
                .into_iter()
                .map(|e| format!("endpoint {e:?}")),
        );
        traces
    }

    /// Fails if an attachment left anything behind, in the node or in the pod.
    #[track_caller]
    pub fn assert_clean(&self, pod: &NetNs, when: &str) {
        assert_eq!(self.traces(), Vec::<String>::new(), "on the node, {when}");
        assert_eq!(traces_of(pod), Vec::<String>::new(), "in the pod, {when}");
    }
}

/// A pod's namespace.
pub fn pod() -> NetNs {
    NetNs::create().unwrap()
}

/// Links but for the loopback, addresses, unicast routes and permanent neighbours of a namespace.
/// (The loopback may be up, and then has its addresses.)
fn traces_of(ns: &NetNs) -> Vec<String> {
    let netlink = Netlink::open_in(ns).unwrap();
    let mut links = netlink.links().unwrap();
    for link in &mut links {
        // The kernel writes it down some time after what caused it.
        link.active = false;
    }
    let lo = links
        .iter()
        .find(|link| link.loopback)
        .map_or(0, |link| link.index);
    let mut all: Vec<String> = links
        .iter()
        .filter(|link| !link.loopback)
        .map(|link| format!("{link:?}"))
        .collect();
    let addresses = netlink.addresses(0).unwrap();
    all.extend(
        addresses
            .iter()
            .filter(|a| a.index != lo)
            .map(|a| format!("{a:?}")),
    );
    let routes = netlink.routes().unwrap();
    let made = routes
        .iter()
        .filter(|r| r.index != Some(lo) && r.kind == RouteKind::Unicast);
    all.extend(made.map(|r| format!("{r:?}")));
    let neighbours = netlink.neighbours(0).unwrap();
    all.extend(
        neighbours
            .iter()
            .filter(|n| n.permanent)
            .map(|n| format!("{n:?}")),
    );
    all
}

/// The source address that the kernel takes towards a destination, from a namespace; with `device`
/// for a socket bound to that interface.
pub fn source_towards(ns: &NetNs, to: &str, device: Option<&str>) -> String {
    let any = if to.contains(':') {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    ns.run(|| {
        let socket = UdpSocket::bind(any).unwrap();
        if let Some(device) = device {
            setsockopt(&socket, sockopt::BindToDevice, &device.into()).unwrap();
        }
        socket.connect((to, 9)).unwrap();
        socket.local_addr().unwrap().ip().to_string()
    })
    .unwrap()
}

/// Reads a file of `/proc/sys/net` as a namespace has it.
pub fn sysctl(ns: &NetNs, key: &str) -> String {
    ns.run(|| weir_net::sysctl::read(key).unwrap()).unwrap()
}

/// All regular files below a directory with their contents, to compare before and after.
pub fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            all.extend(files(&entry.path()));
        } else if entry.file_type().unwrap().is_file() {
            all.insert(entry.path(), std::fs::read(entry.path()).unwrap());
        }
    }
    all
}
