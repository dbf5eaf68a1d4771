//! `weir policy verify`: every entry of this node's kernel tables against the reference evaluator.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;
use weir_api::client::Client;
use weir_api::endpoint::Endpoint as Listed;
use weir_oracle::{Cluster, Evaluator};

use super::args::VerifyArgs;
use super::color::Colors;
use super::output::{Done, json};
use super::world::World;
use crate::dataplane::PinnedView;
use crate::verify::objects::whose;
use crate::verify::{Endpoint, Pass, Progress, Tables};

/// Exit status if something disagrees.
const DISAGREES: u8 = 1;
/// Most disagreements that are listed, unless all are asked for.
const MOST_LISTED: usize = 20;
/// How often objects and maps are read to get them as of one moment.
const TRIES: usize = 5;
/// How often progress is shown.
const SHOW: Duration = Duration::from_millis(200);

/// Objects and maps of one moment.
struct Snapshot {
    world: World,
    tables: Tables,
    endpoints: Vec<Endpoint>,
    /// Whether nothing was written while they were read, as far as that is known.
    settled: bool,
}

/// Where the maps and the objects are.
struct Source<'a> {
    args: &'a VerifyArgs,
    view: PinnedView,
    /// This node's agent, if it answers.
    agent: Option<Client>,
}

impl Source<'_> {
    fn read_once(&self) -> anyhow::Result<Snapshot> {
        let before = self.writes()?;
        let world = World::load(&self.args.manifests, &self.args.socket.socket)?;
        let endpoints = match &self.agent {
            Some(client) => {
                let listed: Vec<Listed> = client.get("/v1/endpoints")?;
                listed
                    .iter()
                    .map(|one| endpoint(one, &world.cluster))
                    .collect()
            }
            None => self.view.known_endpoints()?,
        };
        let tables = self.view.tables()?;
        let settled = before == self.writes()?;
        Ok(Snapshot {
            world,
            tables,
            endpoints,
            settled,
        })
    }

    /// The agent's writes to maps so far: equal before and after means that nothing changed.
    fn writes(&self) -> anyhow::Result<Option<u64>> {
        let status = self.agent.as_ref().map(Client::status).transpose();
        Ok(status
            .context("the agent has gone")?
            .map(|s| s.activity.map_writes))
    }

    fn read(&self) -> anyhow::Result<Snapshot> {
        let mut snapshot = self.read_once()?;
        for _ in 1..TRIES {
            if snapshot.settled {
                break;
            }
            snapshot = self.read_once()?;
        }
        Ok(snapshot)
    }
}

fn endpoint(listed: &Listed, cluster: &Cluster) -> Endpoint {
    Endpoint {
        slot: listed.slot,
        addresses: listed.attachment.addresses.clone(),
        whose: whose(listed.attachment.pod.as_ref(), cluster),
    }
}

pub(super) fn run(args: &VerifyArgs, colors: Colors) -> anyhow::Result<Done> {
    let bpffs = args.bpffs.clone();
    let bpffs = bpffs.unwrap_or_else(|| weir_api::DEFAULT_BPFFS.into());
    let client = Client::new(&args.socket.socket);
    let source = Source {
        args,
        view: PinnedView::open(&bpffs)?,
        agent: client.status().is_ok().then_some(client),
    };
    let snapshot = source.read()?;
    let cluster = &snapshot.world.cluster;
    let evaluator = Evaluator::new(cluster);
    let mut pass = Pass::new(cluster, &evaluator, snapshot.tables, &snapshot.endpoints, 0);
    let progress = walk(&mut pass, args.limit);
    let mut settled = snapshot.settled;
    if pass.found_count() > 0 {
        // What was found may be a change that was on its way.
        let again = source.read()?;
        if same_objects(cluster, &again.world.cluster) {
            pass.check_again(0, &again.tables);
            settled = again.settled;
        } else {
            return Err(anyhow::anyhow!(
                "the objects change while they are compared with the maps: run it again"
            ));
        }
    }
    let mut done = if args.output.is_json() {
        Done::ok(json(&document(&pass, progress, &snapshot.endpoints))?)
    } else {
        Done::ok(text(&pass, progress, &snapshot.endpoints, args, colors))
    };
    if pass.found_count() > 0 {
        done.at_least(DISAGREES);
        if !settled {
            done.complain("the agent kept writing meanwhile: this may be a change on its way");
        }
    }
    for why in &pass.unjudged {
        done.complain(&format!("not judged: {why}"));
    }
    snapshot.world.complain(&args.manifests, false, &mut done);
    Ok(done)
}

fn same_objects(a: &Cluster, b: &Cluster) -> bool {
    a.namespaces == b.namespaces
        && a.pods == b.pods
        && a.policies == b.policies
        && a.cluster_policies == b.cluster_policies
        && a.nodes == b.nodes
}

/// Looks at everything, or at so many flows; shows how far it is on a terminal.
fn walk(pass: &mut Pass<'_>, limit: Option<u64>) -> Progress {
    let mut stderr = std::io::stderr();
    let shows = stderr.is_terminal();
    let mut next = Instant::now() + SHOW;
    let mut shown = false;
    let progress = pass.step(|pass| {
        if shows && Instant::now() >= next {
            next = Instant::now() + SHOW;
            shown = true;
            let share = pass.looked() * 100 / pass.pairs().max(1);
            let (checked, found) = (pass.checked(), pass.found_count());
            let line = format!("\r{share:>3} %: {checked} flows compared, {found} disagree ");
            // Progress that cannot be shown is not worth an error.
            let _ = stderr.write_all(line.as_bytes());
        }
        limit.is_some_and(|limit| pass.checked() >= limit)
    });
    if shown {
        let _ = std::io::stderr().write_all(b"\r\x1b[K");
    }
    progress
}

fn document(pass: &Pass<'_>, progress: Progress, endpoints: &[Endpoint]) -> serde_json::Value {
    let left = pass.tables().leftovers(endpoints.iter().map(|e| e.slot));
    let sizes: serde_json::Map<_, _> = pass
        .tables()
        .sizes()
        .into_iter()
        .map(|(map, size)| (map.to_owned(), json!(size)))
        .collect();
    json!({
        "disagreements": pass.found().collect::<Vec<_>>(),
        "complete": progress == Progress::Done,
        "flowsCompared": pass.checked(),
        "endpoints": endpoints.len(),
        "notJudged": pass.unjudged,
        "entries": sizes,
        "leftovers": {"slots": left.slots, "decisions": left.decisions, "rules": left.rules},
    })
}

fn text(
    pass: &Pass<'_>,
    progress: Progress,
    endpoints: &[Endpoint],
    args: &VerifyArgs,
    colors: Colors,
) -> String {
    let mut lines = Vec::new();
    let most = if args.verbose {
        usize::MAX
    } else {
        MOST_LISTED
    };
    for one in pass.found().take(most) {
        let (endpoints, peers) = (one.endpoints_alike - 1, one.peers_alike - 1);
        let alike = match (endpoints, peers) {
            (0, 0) => String::new(),
            (e, p) => format!("; so for {e} more endpoints and {p} more addresses like these"),
        };
        lines.push(format!(
            "{} {one} [group {}, class {}{alike}]",
            colors.bad("DISAGREES"),
            one.group,
            one.class
        ));
    }
    let found = pass.found_count();
    if found > most {
        lines.push(format!("… {} more: --verbose lists them", found - most));
    }
    let left = pass.tables().leftovers(endpoints.iter().map(|e| e.slot));
    for (count, what) in [
        (left.slots, "slots of no endpoint"),
        (left.decisions, "rows that no group and address refer to"),
        (left.rules, "rules that no row refers to"),
    ] {
        if count > 0 {
            lines.push(format!("left over, to be swept: {count} {what}"));
        }
    }
    if progress == Progress::More {
        lines.push(format!(
            "stopped at --limit after {} of {} pairs of an endpoint and an address",
            pass.looked(),
            pass.pairs()
        ));
    }
    let entries: Vec<String> = pass
        .tables()
        .sizes()
        .into_iter()
        .map(|(map, size)| format!("{map} {size}"))
        .collect();
    let verdict = match found {
        0 => colors.good("kernel and objects agree"),
        1 => colors.bad("kernel and objects disagree once"),
        n => colors.bad(&format!("kernel and objects disagree {n} times")),
    };
    lines.push(format!(
        "{verdict}: {} flows of {} endpoints compared ({})",
        pass.checked(),
        endpoints.len(),
        entries.join(", ")
    ));
    lines.join("\n") + "\n"
}
