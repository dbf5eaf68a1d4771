//! A real agent that is killed after every single write: each life makes one, and between any two
//! lives every verdict is the old one or the new one.
//!
//! (Stores into `POLICY_SLOTS` are no system calls: they go with the write before them. The tests
//! of the programs cut off after each of those as well.)

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};
use weir_agent::dataplane::PinnedView;
use weir_api::verdict::{FlowDirection, VerdictRequest};
use weir_lab::{Lab, Node, Pod, PodSpec};

/// `BPF_MAP_UPDATE_ELEM` and `BPF_MAP_DELETE_ELEM` (linux/bpf.h).
const WRITES: [u64; 2] = [2, 3];
/// How long all lives together may take.
const LIMIT: Duration = Duration::from_secs(45);

/// How a life ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// At its second write.
    Killed,
    /// It had become ready, and was told to end.
    Done,
}

/// Whether a stopped thread is about to write to a map.
fn is_write(pid: Pid) -> bool {
    let info = ptrace::syscall_info(pid).unwrap();
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return false;
    }
    // SAFETY: `op` says that it is the entry's part of the union.
    let entry = unsafe { info.u.entry };
    entry.nr == libc::SYS_bpf.cast_unsigned() && WRITES.contains(&entry.args[0])
}

/// One life of an agent: it is killed when it begins its second write.
#[expect(
    clippy::zombie_processes,
    reason = "the loop waits for it until it is dead"
)]
fn live(node: &Node) -> End {
    let (mut command, place) = node.agent_command().unwrap();
    // SAFETY: the closure makes system calls only and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            place.enter()?;
            Ok(ptrace::traceme()?)
        });
    }
    let child = command.spawn().unwrap();
    let leader = Pid::from_raw(child.id().cast_signed());
    std::thread::scope(|scope| {
        // Once it is ready it has done what there was to do.
        scope.spawn(|| {
            let alive = || kill(leader, None).is_ok();
            while alive() && !node.client().status().is_ok_and(|status| status.ready) {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = kill(leader, Signal::SIGTERM);
        });
        trace(leader)
    })
}

fn trace(leader: Pid) -> End {
    let wait = |pid| waitpid(pid, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)).unwrap();
    // The first stop is that of exec.
    assert!(matches!(
        wait(Some(leader)),
        WaitStatus::Stopped(_, Signal::SIGTRAP)
    ));
    let options =
        Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(leader, options).unwrap();
    ptrace::syscall(leader, None).unwrap();
    let mut writes = 0;
    loop {
        let (pid, signal) = match wait(None) {
            WaitStatus::PtraceSyscall(pid) => {
                writes += u32::from(is_write(pid));
                if writes == 2 {
                    kill(leader, Signal::SIGKILL).unwrap();
                    continue;
                }
                (pid, None)
            }
            WaitStatus::Stopped(pid, signal) => {
                // A new thread begins with SIGSTOP; other signals are the agent's own.
                let own = !matches!(signal, Signal::SIGSTOP | Signal::SIGTRAP);
                (pid, own.then_some(signal))
            }
            WaitStatus::Exited(pid, code) if pid == leader => {
                assert_eq!(code, 0);
                return End::Done;
            }
            WaitStatus::Signaled(pid, Signal::SIGKILL, _) if pid == leader => return End::Killed,
            WaitStatus::PtraceEvent(pid, ..) => (pid, None),
            _ => continue,
        };
        // A thread may be dead by now, with its process.
        let _ = ptrace::syscall(pid, signal);
    }
}

/// Allowed or not, and the rule, of each flow.
type Verdicts = BTreeMap<String, (bool, Value)>;

struct World {
    lab: Lab,
    servers: Vec<Arc<Pod>>,
    peers: Vec<IpAddr>,
}

impl World {
    fn verdicts(&self) -> Verdicts {
        let node = &self.lab.nodes[0];
        let view = PinnedView::open(&node.path("/sys/fs/bpf/weir")).unwrap();
        let mut all = Verdicts::new();
        for endpoint in self.servers.iter().flat_map(|pod| &pod.addresses) {
            let alike = self
                .peers
                .iter()
                .filter(|p| p.is_ipv4() == endpoint.is_ipv4());
            for (peer, port) in alike.flat_map(|peer| [80, 81].map(|port| (*peer, port))) {
                for direction in [FlowDirection::Ingress, FlowDirection::Egress] {
                    let request = VerdictRequest {
                        endpoint: *endpoint,
                        direction,
                        peer,
                        protocol: 6,
                        port,
                    };
                    let verdict = view.verdict(&request).unwrap().unwrap();
                    let name = verdict.rule.unwrap_or_else(|| json!(verdict.rule_id));
                    all.insert(format!("{request:?}"), (verdict.allowed, name));
                }
            }
        }
        all
    }

    /// The objects become others while no agent runs; then one comes for as long as it takes to be
    /// up to date.
    fn settle(&self, objects: &[Value]) -> Verdicts {
        objects
            .iter()
            .for_each(|object| self.lab.cluster.apply(object).unwrap());
        self.lab.nodes[0].start_agent().unwrap();
        self.lab.nodes[0].stop_agent().unwrap();
        self.verdicts()
    }

    /// From `old` to `new`, one write in each life; how many lives.
    fn change(&self, what: &str, objects: &[Value], old: &Verdicts, new: &Verdicts) -> u32 {
        objects
            .iter()
            .for_each(|object| self.lab.cluster.apply(object).unwrap());
        let mut lives = 0;
        loop {
            lives += 1;
            let end = live(&self.lab.nodes[0]);
            for (flow, verdict) in self.verdicts() {
                assert!(
                    verdict == old[&flow] || verdict == new[&flow],
                    "{what}, after {lives} lives: {flow} is {verdict:?}, neither {:?} nor {:?}",
                    old[&flow],
                    new[&flow]
                );
            }
            if end == End::Done {
                assert_eq!(self.verdicts(), *new, "{what}");
                return lives;
            }
            assert!(lives < 200, "{what}: it never ends");
        }
    }
}

fn policy(spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "default", "name": "server"}, "spec": spec,
    })
}

#[test]
fn an_agent_killed_after_each_write_leaves_old_or_new_verdicts_and_the_last_life_completes() {
    let lab = Lab::builder().nodes(2).start().unwrap();
    let pod = |name: &str, node, app: &str| {
        let spec = PodSpec::new("default", name, node).label("app", app);
        lab.add_pod(&spec).unwrap()
    };
    let servers = vec![
        pod("s0", 0, "server"),
        pod("s1", 0, "server"),
        pod("x", 0, "x"),
    ];
    let clients = [pod("red", 1, "red"), pod("blue", 1, "blue")];
    let peers = clients
        .iter()
        .chain(&servers)
        .flat_map(|pod| pod.addresses.clone());
    let outside = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    let peers = peers.chain(outside).collect();
    lab.nodes[0].stop_agent().unwrap();
    let world = World {
        lab,
        servers,
        peers,
    };
    let from = |app: &str| json!({"podSelector": {"matchLabels": {"app": app}}});
    let base = policy(&json!({
        "podSelector": {"matchLabels": {"app": "server"}},
        "ingress": [{"from": [from("red")], "ports": [{"port": 80}]}],
    }));
    let other = policy(&json!({
        "podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [from("blue"), {"ipBlock": {"cidr": "192.0.2.0/24"}}]}],
    }));
    let label = |name: &str, app: &str| {
        let mut object = world.lab.cluster.get("Pod", Some("default"), name).unwrap();
        object["metadata"]["labels"]["app"] = json!(app);
        object
    };
    // Another policy; labels of a peer and of an endpoint.
    let changes = [
        ("a policy", vec![other], vec![base.clone()]),
        (
            "labels",
            vec![label("blue", "red"), label("x", "server")],
            vec![label("blue", "blue"), label("x", "x")],
        ),
    ];
    let old = world.settle(&[base]);
    let started = Instant::now();
    let mut lives = 0;
    for (what, there, back) in changes {
        let new = world.settle(&there);
        assert_ne!(old, new, "{what} changes nothing");
        assert_eq!(world.settle(&back), old);
        lives += world.change(what, &there, &old, &new);
        lives += world.change(&format!("{what}, back"), &back, &new, &old);
    }
    let took = started.elapsed();
    println!("{lives} lives in {took:?}");
    assert!(lives > 12, "{lives} lives: nothing was cut off");
    assert!(took < LIMIT, "{took:?}");
}
