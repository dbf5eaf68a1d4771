//! The agent's memory in a small cluster, and with many objects in its API server: objects of which
//! no node is real, so that only the agents see them.

use std::fs;
use std::future::Future;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::Cluster;
use crate::args::{Dirs, Which};
use crate::kit::World;
use crate::kit::objects::typed;
use crate::live::Live;

/// Requests to the API server at a time.
const AT_ONCE: usize = 32;
/// Nodes that no kubelet stands behind.
const FAKE_NODES: u32 = 50;
/// An agent has come to rest when its memory changes by less than this, in KiB, …
const STILL: u64 = 1024;
/// … for this long.
const REST: Duration = Duration::from_secs(30);
/// How long it may take to come to rest.
const LIMIT: Duration = Duration::from_secs(600);

/// Arguments of `bench memory`.
#[derive(Args, Clone, Debug)]
pub struct MemoryArgs {
    /// Which cluster
    #[command(flatten)]
    which: Which,
    /// Services
    #[arg(long, default_value_t = 30_000)]
    services: u32,
    /// Endpoints of each Service
    #[arg(long, default_value_t = 4)]
    endpoints: u32,
    /// Pods
    #[arg(long, default_value_t = 20_000)]
    pods: u32,
    /// NetworkPolicies
    #[arg(long, default_value_t = 1_000)]
    policies: u32,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

/// Memory of an agent, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Memory {
    /// All that is resident: `VmRSS`.
    rss: u64,
    /// Of it what is not a file's: `RssAnon`.
    anonymous: u64,
    /// The most that was resident at a time: `VmHWM`.
    peak: u64,
}

/// Measures and prints.
///
/// # Errors
/// There is no cluster of Weir's, or the API server refuses an object.
pub async fn run(args: &MemoryArgs) -> Result<()> {
    let cluster = Cluster::open(&Dirs::of(&args.which)?.state)?;
    let live = Live::default();
    let idle = at_rest(&cluster, &live).await?;
    let full = World::with(&cluster, "bench-memory", |world| async move {
        let filled = fill(&world, args, &live).await;
        let full = match filled {
            Ok(()) => at_rest(&world.cluster, &live).await,
            Err(error) => Err(error),
        };
        live.say("removing the nodes that are none");
        let nodes: Api<Node> = Api::all(world.client.clone());
        let fake = ListParams::default().labels("weir-cluster/fake=yes");
        nodes
            .delete_collection(&DeleteParams::default(), &fake)
            .await?;
        world
            .api::<Pod>()
            .delete_collection(
                &DeleteParams::default().grace_period(0),
                &ListParams::default(),
            )
            .await?;
        live.clear();
        full
    })
    .await?;
    if args.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&json!({ "idleKiB": idle, "fullKiB": full }))?
        );
        return Ok(());
    }
    println!(
        "{:<8} {:>6} {:>12} {:>12} {:>12}",
        "", "node", "resident", "anonymous", "peak"
    );
    let what = format!(
        "{} Services with {} endpoints each, {} pods, {} NetworkPolicies",
        args.services, args.endpoints, args.pods, args.policies
    );
    for (name, memory) in [("idle", idle), ("full", full)] {
        for (node, memory) in memory {
            println!(
                "{name:<8} {node:>6} {:>8.1} MiB {:>8.1} MiB {:>8.1} MiB",
                mib(memory.rss),
                mib(memory.anonymous),
                mib(memory.peak)
            );
        }
    }
    println!("full: {what}");
    Ok(())
}

/// MiB of KiB.
fn mib(kib: u64) -> f64 {
    // Exact below 2^53 KiB.
    u32::try_from(kib).map_or(f64::MAX, f64::from) / 1024.0
}

type Memories = Vec<(String, Memory)>;

/// Waits until no agent's memory changes any more.
async fn at_rest(cluster: &Cluster, live: &Live) -> Result<Memories> {
    let (begin, mut since, mut before) = (Instant::now(), Instant::now(), memories(cluster)?);
    while since.elapsed() < REST {
        ensure!(
            begin.elapsed() < LIMIT,
            "the agents' memory still changes after {} s",
            LIMIT.as_secs()
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = memories(cluster)?;
        live.show(&format!(
            "waiting for {} s without a change: {now:?}",
            REST.as_secs()
        ));
        let moved = now
            .iter()
            .zip(&before)
            .any(|(a, b)| a.1.rss.abs_diff(b.1.rss) >= STILL);
        if moved || now.len() != before.len() {
            (since, before) = (Instant::now(), now);
        }
    }
    live.clear();
    memories(cluster)
}

fn memories(cluster: &Cluster) -> Result<Memories> {
    let nodes = cluster.nodes().iter();
    nodes
        .map(|node| {
            let pid = agent_in(&node.cgroup).with_context(|| {
                format!(
                    "no agent runs on {}: is this a cluster of Weir's?",
                    node.name
                )
            })?;
            let path = format!("/proc/{pid}/status");
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
            Ok((
                node.name.clone(),
                parse(&text).with_context(|| format!("in {path}"))?,
            ))
        })
        .collect()
}

/// The agent's process, somewhere below a cgroup.
fn agent_in(cgroup: &Path) -> Option<u32> {
    let pids = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let found = pids
        .lines()
        .filter_map(|pid| pid.parse().ok())
        .find(|pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|name| name.trim() == "weir-agent")
        });
    found.or_else(|| {
        let below = fs::read_dir(cgroup).ok()?.filter_map(Result::ok);
        below
            .filter(|entry| entry.path().is_dir())
            .find_map(|entry| agent_in(&entry.path()))
    })
}

fn parse(status: &str) -> Result<Memory> {
    let get = |key: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.with_context(|| format!("no {key}"))
    };
    Ok(Memory {
        rss: get("VmRSS")?,
        anonymous: get("RssAnon")?,
        peak: get("VmHWM")?,
    })
}

/// Makes all objects.
async fn fill(world: &World, args: &MemoryArgs, live: &Live) -> Result<()> {
    let nodes: Api<Node> = Api::all(world.client.clone());
    each(live, "nodes", FAKE_NODES, |number| {
        let nodes = nodes.clone();
        async move {
            let fake = typed(fake_node(number));
            nodes.create(&PostParams::default(), &fake).await.map(drop)
        }
    })
    .await?;
    let pods: Api<Pod> = world.api();
    each(live, "pods", args.pods, |number| {
        let pods = pods.clone();
        async move {
            pods.create(&PostParams::default(), &typed(fake_pod(number)))
                .await?;
            let status = json!({ "status": pod_status(number) });
            let name = format!("pod-{number}");
            pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status))
                .await
                .map(drop)
        }
    })
    .await?;
    let services: Api<Service> = world.api();
    let slices: Api<EndpointSlice> = world.api();
    each(live, "Services", args.services, |number| {
        let (services, slices) = (services.clone(), slices.clone());
        async move {
            services
                .create(&PostParams::default(), &typed(fake_service(number)))
                .await?;
            let slice = typed(fake_slice(number, args.endpoints, args.pods.max(1)));
            slices
                .create(&PostParams::default(), &slice)
                .await
                .map(drop)
        }
    })
    .await?;
    let policies: Api<NetworkPolicy> = world.api();
    each(live, "NetworkPolicies", args.policies, |number| {
        let policies = policies.clone();
        async move {
            policies
                .create(&PostParams::default(), &typed(fake_policy(number)))
                .await
                .map(drop)
        }
    })
    .await
}

async fn each<F: Future<Output = kube::Result<()>>>(
    live: &Live,
    what: &str,
    count: u32,
    make: impl Fn(u32) -> F,
) -> Result<()> {
    let mut made = 0_u32;
    let mut all =
        stream::iter((0..count).map(|number| Ok(make(number)))).try_buffer_unordered(AT_ONCE);
    while all
        .next()
        .await
        .transpose()
        .with_context(|| format!("cannot make {what}"))?
        .is_some()
    {
        made += 1;
        if made.is_multiple_of(100) {
            live.show(&format!("{made} of {count} {what}"));
        }
    }
    live.say(&format!("{count} {what} made"));
    Ok(())
}

/// How many sorts of pods there are; policies choose by them.
const SORTS: u32 = 200;

fn address(number: u32) -> Ipv4Addr {
    // 11.0.0.0/8 is in no use here.
    Ipv4Addr::from(u32::from(Ipv4Addr::new(11, 0, 0, 1)) + number)
}

fn fake_node(number: u32) -> Value {
    json!({
        "metadata": { "name": format!("fake-{number}"), "labels": { "weir-cluster/fake": "yes" } },
        // So that no DaemonSet and nothing else is put there.
        "spec": { "unschedulable": true, "taints": [{ "key": "weir-cluster/fake", "effect": "NoExecute" }] },
    })
}

fn fake_pod(number: u32) -> Value {
    json!({
        "metadata": { "name": format!("pod-{number}"), "labels": {
            "app": format!("app-{}", number % SORTS), "sort": format!("sort-{}", number % 7), "tier": "web",
        } },
        "spec": {
            "nodeName": format!("fake-{}", number % FAKE_NODES),
            // Nobody evicts them from nodes that never report.
            "tolerations": [{ "operator": "Exists" }],
            "automountServiceAccountToken": false,
            "containers": [{ "name": "web", "image": "none", "ports": [{ "name": "http", "containerPort": 8080 }] }],
        },
    })
}

fn pod_status(number: u32) -> Value {
    let ip = address(number).to_string();
    json!({
        "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }],
        "conditions": [{ "type": "Ready", "status": "True" }],
    })
}

/// Without a selector, so that the only EndpointSlice is the one that is made for it.
fn fake_service(number: u32) -> Value {
    json!({
        "metadata": { "name": format!("service-{number}") },
        "spec": { "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }] },
    })
}

fn fake_slice(number: u32, endpoints: u32, pods: u32) -> Value {
    let endpoints: Vec<Value> = (0..endpoints)
        .map(|n| {
            let pod = (number * endpoints + n) % pods;
            json!({
                "addresses": [address(pod).to_string()],
                "nodeName": format!("fake-{}", pod % FAKE_NODES),
                "conditions": { "ready": true, "serving": true, "terminating": false },
                "targetRef": { "kind": "Pod", "name": format!("pod-{pod}") },
            })
        })
        .collect();
    json!({
        "metadata": { "name": format!("service-{number}-a"), "labels": {
            "kubernetes.io/service-name": format!("service-{number}"),
        } },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
    })
}

fn fake_policy(number: u32) -> Value {
    json!({
        "metadata": { "name": format!("policy-{number}") },
        "spec": {
            "podSelector": { "matchLabels": { "app": format!("app-{}", number % SORTS) } },
            "policyTypes": ["Ingress"],
            "ingress": [{
                "from": [
                    { "podSelector": { "matchLabels": { "app": format!("app-{}", (number + 1) % SORTS) } } },
                    { "ipBlock": { "cidr": format!("192.{}.{}.0/24", 168 + number / 65536, number / 256 % 256) } },
                ],
                "ports": [{ "port": 8080 + i64::from(number % 4) }],
            }],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_objects_are_of_their_kinds() {
        let _: Node = typed(fake_node(1));
        let pod: Pod = typed(fake_pod(3));
        assert_eq!(
            pod.spec.and_then(|spec| spec.node_name).as_deref(),
            Some("fake-3")
        );
        let _: Service = typed(fake_service(1));
        let _: NetworkPolicy = typed(fake_policy(999));
        let slice: EndpointSlice = typed(fake_slice(5, 4, 10));
        let addresses: Vec<String> = slice
            .endpoints
            .unwrap_or_default()
            .into_iter()
            .flat_map(|e| e.addresses)
            .collect();
        assert_eq!(addresses, ["11.0.0.1", "11.0.0.2", "11.0.0.3", "11.0.0.4"]);
    }

    #[test]
    fn memory_is_read_from_the_process_s_status() {
        let text = "Name:\tweir-agent\nVmHWM:\t  9000 kB\nVmRSS:\t  8000 kB\nRssAnon:\t 5000 kB\n";
        let memory = parse(text).expect("a memory");
        assert_eq!(
            (memory.rss, memory.anonymous, memory.peak),
            (8000, 5000, 9000)
        );
        assert!(parse("Name:\tx\n").is_err(), "a kernel thread has none");
    }
}
