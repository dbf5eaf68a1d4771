//! What a new flow costs in the kernel, with one policy and with many: the whole of `from_pod` in a
//! dry run, which judges both ends anew each time and enters nothing into conntrack.

use std::net::IpAddr;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use serde_json::json;
use weir_abi::dry_run::{CB, DRY_RUN, Report};
use weir_abi::endpoint::Endpoint;
use weir_abi::{Addr, Proto, map};
use weir_agent::dataplane::object;
use weir_agent::dataplane::pins::Pins;
use weir_agent::dataplane::policy::PolicyMaps;
use weir_agent::dataplane::table::{Table, Writes};
use weir_agent::engine::policy::Policy;
use weir_agent::packet::{Flow, Macs, first};
use weir_policy::{Established, Event, Limits};

use crate::pins::{isolated, with_policy_maps};
use crate::stats::{Section, median};
use crate::world::{NODE, Size};

/// Packets in one run of the kernel's: each goes on with the packet as the last one left it, with one
/// hop less to live.
const REPEAT: u32 = 60;
/// Runs in one measurement, of which the median counts, and measurements of each side, in turns.
const RUNS: usize = 1000;
const ROUNDS: usize = 15;
/// How much more a flow may cost among many policies.
const GOAL: f64 = 1.10;
const PORT: u16 = 8080;
const DEVICES: [&str; 2] = ["weira", "weirb"];
const MACS: Macs = Macs {
    source: [2, 0, 0, 0, 0, 1],
    destination: [2, 0, 0, 0, 0, 2],
};

/// Compares one policy with as many as `size` says.
pub fn run(size: &Size) -> Result<Section> {
    let size = size.clone();
    isolated(move || {
        for device in DEVICES {
            ip(&format!("link add {device} type veth peer name {device}p"))?;
            ip(&format!("link set {device} up"))?;
        }
        compare(&size)
    })
}

fn ip(args: &str) -> Result<()> {
    let done = Command::new("ip").args(args.split_whitespace()).output();
    let done = done.context("starting ip")?;
    ensure!(
        done.status.success(),
        "ip {args}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(())
}

fn compare(size: &Size) -> Result<Section> {
    let none = Size {
        policies: 0,
        ..size.clone()
    };
    let mut section = Section::new(format!(
        "New flow in the kernel, both ends judged: 1 policy beside {} (pod to pod on one node, medians \
         of {ROUNDS} rounds of {RUNS} times {REPEAT} packets in turns)",
        size.policies + 1
    ));
    let mut few = Side::new("few", &none)?;
    let mut many = Side::new("many", size)?;
    for (i, family) in ["IPv4", "IPv6"].into_iter().enumerate() {
        let frame = frame(size, i)?;
        let (mut of_few, mut of_many, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (a, b) = (few.cost(&frame)?, many.cost(&frame)?);
            of_few.push(a);
            of_many.push(b);
            ratios.push(b / a);
        }
        section.row(
            format!("{family}: 1 policy"),
            format!("{:.0} ns", median(of_few)),
        );
        section.row(
            format!("{family}: {} policies", size.policies + 1),
            format!("{:.0} ns", median(of_many)),
        );
        let ratio = median(ratios);
        let goal = format!("at most {GOAL:.2}");
        section.goal(
            format!("{family}: ratio"),
            format!("{ratio:.3}"),
            goal,
            ratio <= GOAL,
        );
    }
    Ok(section)
}

/// A kernel with some policies in it.
struct Side {
    ebpf: Ebpf,
    ifindex: u32,
}

impl Side {
    fn new(name: &str, size: &Size) -> Result<Self> {
        let pins = with_policy_maps(name)?;
        let maps = PolicyMaps::open(&pins, &Writes::default())?;
        let mut policy = Policy::new(NODE, maps, Limits::default(), Established::Apply);
        for event in size.all().chain([the_one()]) {
            policy.apply_event(event);
        }
        policy
            .sync(Instant::now())
            .map_err(|error| anyhow!(error))?;
        let ifindex = adopt(&pins, size)?;
        Ok(Self {
            ebpf: dry(&pins)?,
            ifindex,
        })
    }

    /// Nanoseconds a packet.
    fn cost(&mut self, frame: &[u8]) -> Result<f64> {
        let runs = (0..RUNS).map(|_| self.run(frame));
        Ok(median(runs.collect::<Result<Vec<f64>>>()?))
    }

    fn run(&mut self, frame: &[u8]) -> Result<f64> {
        let program = self.ebpf.program_mut("from_pod").context("from_pod")?;
        let program: &mut SchedClassifier = program.try_into()?;
        let mut words = [0u32; 48];
        // ingress_ifindex and ifindex
        (words[9], words[10]) = (self.ifindex, self.ifindex);
        let ctx: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut out = vec![0u8; ctx.len()];
        let ran = program.test_run(TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&ctx),
            ctx_out: Some(&mut out),
            repeat: REPEAT,
            ..TestRunOptions::default()
        })?;
        let word = |i: usize| {
            let at = 4 * (CB + i);
            u32::from_ne_bytes([out[at], out[at + 1], out[at + 2], out[at + 3]])
        };
        let report = Report::from_words(std::array::from_fn(word)).context("no report")?;
        let judged = |verdict: Option<weir_abi::policy::RuleVerdict>| {
            verdict
                .is_some_and(|v| v.allowed() && v.rule() >= weir_abi::policy::RuleId::FIRST_DYNAMIC)
        };
        ensure!(
            judged(report.egress()) && judged(report.ingress()),
            "the flow is not allowed by a rule at both ends: {report:?}"
        );
        Ok(ran.duration.as_nanos() as f64)
    }
}

/// The policy that lets the flow pass, with ports around it to be searched through.
fn the_one() -> Event {
    let ports = json!([{"port": 5432}, {"port": PORT}, {"port": 9000, "endPort": 9100}]);
    let pods = json!([{"podSelector": {}}]);
    let object = json!({
        "metadata": {"namespace": "ns-0", "name": "the-one"},
        "spec": {
            "podSelector": {}, "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": pods, "ports": ports}],
            "egress": [{"to": pods, "ports": ports}],
        },
    });
    Event::ApplyPolicy(Box::new(serde_json::from_value(object).expect("decodes")))
}

/// Puts the two pods at their devices; the first one's index.
fn adopt(pins: &Pins, size: &Size) -> Result<u32> {
    let writes = Writes::default();
    let mut endpoints: Table<u32, Endpoint> = Table::open(pins, map::ENDPOINTS, &writes)?;
    let mut local: Table<Addr, Endpoint> = Table::open(pins, map::LOCAL_PODS, &writes)?;
    let nodes = size.nodes();
    let mut first = 0;
    for (i, device) in pods(size)?.into_iter().zip(DEVICES) {
        let [v4, v6] = size.pod(i).addresses;
        let addr = |text: String| text.parse::<IpAddr>().map(Addr::from);
        let endpoint = Endpoint {
            addr4: addr(v4)?,
            addr6: addr(v6)?,
            ifindex: nix::net::if_::if_nametoindex(device)?,
            slot: (i / nodes) as u32,
            incarnation: 1,
            flags: 0,
            pod_mac: MACS.source,
            host_mac: MACS.destination,
            mtu: 1500,
        };
        endpoints.insert(&endpoint.ifindex, &endpoint)?;
        local.insert(&endpoint.addr4, &endpoint)?;
        local.insert(&endpoint.addr6, &endpoint)?;
        if first == 0 {
            first = endpoint.ifindex;
        }
    }
    Ok(first)
}

/// The programs over these maps, to judge only.
fn dry(pins: &Pins) -> Result<Ebpf> {
    let object = object::bytes(None)?;
    let parsed = aya_obj::Object::parse(&object).context("the object")?;
    let mut loader = EbpfLoader::new();
    loader.override_global(DRY_RUN, &1u8, true);
    let shared = parsed.maps.keys().filter(|name| !name.starts_with('.'));
    for name in shared.filter(|name| !map::WORKING_MEMORY.contains(&name.as_str())) {
        loader.map_pin_path(name, pins.map(name));
    }
    let mut ebpf = loader.load(&object).context("loading the object")?;
    let program = ebpf.program_mut("from_pod").context("from_pod")?;
    let program: &mut SchedClassifier = program.try_into()?;
    program.load().context("loading from_pod")?;
    Ok(ebpf)
}

/// Two pods of this node in the namespace of the policy that lets the flow pass.
fn pods(size: &Size) -> Result<[usize; 2]> {
    let here = (0..size.local).map(|i| i * size.nodes());
    let mut inside = here.filter(|i| size.pod(*i).namespace == "ns-0");
    match (inside.next(), inside.next()) {
        (Some(a), Some(b)) => Ok([a, b]),
        _ => bail!("no two of the local pods are in one namespace: raise --local (101 will do)"),
    }
}

/// The first packet of the flow, of the family with this index.
fn frame(size: &Size, family: usize) -> Result<Vec<u8>> {
    let [from, to] = pods(size)?;
    let address = |pod: usize| size.pod(pod).addresses[family].parse::<IpAddr>();
    let flow = Flow {
        source: address(from)?,
        destination: address(to)?,
        protocol: Proto::TCP,
        source_port: 40_000,
        port: PORT,
    };
    first(&flow, MACS).map_err(|error| anyhow!(error))
}
