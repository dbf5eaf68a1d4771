//! The plugin killed at every system call, of every command that changes anything: after DEL or GC
//! nothing is left, and the store opens and holds no duplicate.

use serde_json::json;
use weir_net::NetNs;

use crate::support::{Call, Node, agent::Mood, pod, trace::End};

/// More system calls than any command makes.
const MANY: usize = 5000;

/// A node for a test that makes and removes hundreds of attachments: one bystander is attached all
/// the while, and must not be touched.
struct Scene {
    node: Node,
    bystander: NetNs,
    pod: NetNs,
}

impl Scene {
    fn new() -> Self {
        let scene = Self {
            node: Node::new(),
            bystander: pod(),
            pod: pod(),
        };
        scene.node.add("bystander", &scene.bystander).ok();
        scene
    }

    fn call(&self, command: &str) -> Call {
        Call::about(command, &self.node.config(), "victim", self.pod.path())
    }

    /// Cleans up as a runtime would: by DEL, or by a GC that knows the bystander alone.
    fn clean_up(&self, at: usize) {
        if at.is_multiple_of(2) {
            self.node.del("victim", &self.pod).silent();
        } else {
            self.node.gc(&[("bystander", "eth0")]).silent();
        }
    }

    #[track_caller]
    fn assert_only_the_bystander(&self, when: &str) {
        let node = &self.node;
        assert_eq!(node.used().len(), 2, "{when}");
        let links: Vec<String> = node
            .netlink()
            .links()
            .unwrap()
            .into_iter()
            .map(|link| link.name)
            .collect();
        assert_eq!(links.len(), 2, "{when}: {links:?}");
        assert_eq!(node.agent.endpoints().len(), 1, "{when}");
        let inside = weir_net::Netlink::open_in(&self.pod)
            .unwrap()
            .links()
            .unwrap();
        assert_eq!(inside.len(), 1, "{when}: {inside:?}");
        let routes = node.netlink().routes().unwrap();
        assert_eq!(
            routes.iter().filter(|r| r.table == 254).count(),
            2,
            "{when}: {routes:?}"
        );
    }
}

/// Kills a command at its first, second, … system call until it gets through; the number of calls.
fn at_every_call(mut kill: impl FnMut(usize) -> End) -> usize {
    for at in 1..MANY {
        match kill(at) {
            End::Killed => {}
            End::Exited { code, calls } => {
                assert_eq!(code, 0, "at {at}");
                return calls;
            }
        }
    }
    panic!("more than {MANY} system calls");
}

#[test]
fn a11_a14_d1_add_killed_at_every_system_call_leaves_nothing_that_del_or_gc_does_not_find() {
    let scene = Scene::new();
    let calls = at_every_call(|at| {
        let end = scene.node.run_until(&scene.call("ADD"), at);
        scene.clean_up(at);
        scene.assert_only_the_bystander(&format!("after ADD was killed at call {at}"));
        end
    });
    // Fewer would mean that the tracer does not see what the plugin does.
    assert!(calls > 100, "{calls}");
}

/// How the register that holds a call's number is written is known for this architecture alone; the
/// tests in `faults` run on all.
#[cfg(target_arch = "x86_64")]
#[test]
fn a11_each_system_call_of_add_failing_in_turn_is_undone_or_does_no_harm() {
    let scene = Scene::new();
    let (mut failed, mut unharmed) = (0, 0);
    for at in 1..MANY {
        let when = format!("after call {at} failed");
        match scene.node.run_failing(&scene.call("ADD"), at) {
            End::Exited { code: 0, calls } => {
                assert_eq!(scene.node.used().len(), 4, "{when}");
                assert_eq!(scene.node.agent.endpoints().len(), 2, "{when}");
                unharmed += 1;
                scene.node.del("victim", &scene.pod).silent();
                scene.assert_only_the_bystander(&when);
                if calls < at {
                    // The last call has been reached: nothing failed this time.
                    assert!(failed > 40 && unharmed > 40, "{failed} {unharmed}");
                    return;
                }
            }
            End::Exited { .. } => {
                failed += 1;
                // Nobody has called DEL: ADD has undone itself.
                scene.assert_only_the_bystander(&when);
            }
            // The C library or the runtime ended the process: DEL finds what there is.
            End::Killed => {
                scene.node.del("victim", &scene.pod).silent();
                scene.assert_only_the_bystander(&when);
            }
        }
    }
    panic!("more than {MANY} system calls");
}

#[test]
fn a11_add_killed_while_it_waits_for_the_agent_leaves_nothing_after_del_or_gc() {
    let scene = Scene::new();
    for (at, mood) in [Mood::AdoptsInSilence, Mood::Hangs].into_iter().enumerate() {
        scene.node.agent.mood(mood);
        let mut child = scene.node.spawn(&scene.call("ADD"));
        scene.node.agent.wait_for("POST");
        child.kill().unwrap();
        child.wait().unwrap();
        scene.node.agent.mood(Mood::InForce);
        scene.clean_up(at);
        scene.assert_only_the_bystander(&format!("{mood:?}"));
        scene.node.agent.forget_calls();
    }
}

#[test]
fn d1_del_killed_at_every_system_call_is_completed_by_the_next_del_or_gc() {
    let scene = Scene::new();
    let calls = at_every_call(|at| {
        scene.node.add("victim", &scene.pod).ok();
        let end = scene.node.run_until(&scene.call("DEL"), at);
        scene.clean_up(at);
        scene.assert_only_the_bystander(&format!("after DEL was killed at call {at}"));
        end
    });
    assert!(calls > 50, "{calls}");
}

#[test]
fn g1_gc_killed_at_every_system_call_is_completed_by_the_next_one() {
    let scene = Scene::new();
    let valid = json!([{"containerID": "bystander", "ifname": "eth0"}]);
    let config = scene
        .node
        .config_with(json!({"cni.dev/valid-attachments": valid}));
    let gc = Call::new("GC", &config).env("CNI_PATH", "/x");
    let calls = at_every_call(|at| {
        scene.node.add("victim", &scene.pod).ok();
        let end = scene.node.run_until(&gc, at);
        scene.clean_up(1);
        scene.assert_only_the_bystander(&format!("after GC was killed at call {at}"));
        end
    });
    assert!(calls > 50, "{calls}");
}

#[test]
fn a11_sigterm_while_add_waits_for_the_agent_undoes_it() {
    let (node, pod) = (Node::new(), pod());
    for mood in [Mood::AdoptsInSilence, Mood::Hangs] {
        node.agent.mood(mood);
        let call = Call::about("ADD", &node.config(), "c1", pod.path());
        let child = node.spawn(&call);
        node.agent.wait_for("POST");
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let output = child.wait_with_output().unwrap();
        let error: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(error["code"], 106, "{error}");
        // An agent that hangs cannot be told; it has adopted nothing either.
        node.assert_clean(&pod, &format!("{mood:?}"));
        node.agent.forget_calls();
    }
}
