//! `weir policy trace`: one flow, step by step at both ends, and what the kernel says of it.

use std::net::IpAddr;

use weir_api::verdict::{FlowDirection, VerdictRequest};
use weir_oracle::{PartyKind, Reason};

use super::args::TraceArgs;
use super::color::Colors;
use super::document;
use super::kernel::{Kernels, Said, Sockets};
use super::live::{self, Live, number};
use super::output::{Done, ERROR, json};
use super::question::{Asker, Judged, Question};
use super::report::{self, Kernel, Other, Report};
use super::world::World;

const DENIED: u8 = 1;
const DISAGREE: u8 = 3;

pub(super) fn run(args: &TraceArgs, colors: Colors) -> anyhow::Result<Done> {
    let sockets = Sockets::parse(&args.socket).map_err(anyhow::Error::msg)?;
    let default = std::env::var_os("WEIR_SOCKET").map(Into::into);
    let here = sockets.here.clone().or(default);
    let here = here.unwrap_or_else(|| weir_api::DEFAULT_SOCKET.into());
    let mut world = World::load(&args.manifests, &here);
    if world.is_err() && args.manifests.manifests.is_none() {
        // All agents hold the same objects: any of them can tell them.
        let any = sockets.named.iter().find_map(|(node, path)| {
            let mut world = World::of_agent(path).ok()?;
            let warning = format!("this node's agent is down: the objects are of {node}'s agent");
            world.warnings.push(warning);
            Some(world)
        });
        world = any.map_or(world, Ok);
    }
    let world = world?;
    // With manifests the kernel is none of our business unless it is named or asked for.
    let offline = args.manifests.manifests.is_some()
        && args.socket.is_empty()
        && args.bpffs.is_none()
        && !args.live
        && !args.require_kernel;
    let kernels = if offline {
        Kernels::none()
    } else {
        let sockets = Sockets {
            here: Some(here),
            ..sockets
        };
        Kernels::open(&sockets, args.bpffs.as_deref())
    };
    let mut done = trace(args, &world, &kernels, colors)?;
    world.complain(&args.manifests, true, &mut done);
    if let Some(problem) = kernels.problem() {
        done.complain(&format!("this node's kernel: {problem}"));
    }
    Ok(done)
}

/// The part that needs no agent.
pub(super) fn trace(
    args: &TraceArgs,
    world: &World,
    kernels: &Kernels,
    colors: Colors,
) -> anyhow::Result<Done> {
    let asker = Asker::new(world, &args.namespace);
    let text = |flag: &Option<String>, other: &Option<String>| {
        flag.clone().or_else(|| other.clone()).unwrap_or_default()
    };
    let question = Question {
        from: text(&args.from_flag, &args.from),
        to: text(&args.to_flag, &args.to),
        port: args.port.clone(),
        protocol: args.protocol.clone(),
        family: args.family.clone(),
        state: args.state.clone(),
        backend: args.backend.clone(),
    };
    let outcome = asker.ask(&question).map_err(anyhow::Error::msg)?;
    let judged = &outcome.judged;
    let answer = &judged.answer;
    let egress = ask(kernels, judged, End::Source);
    let ingress = ask(kernels, judged, End::Destination);
    let names = outcome.candidates.iter().skip(1);
    let others: Vec<Other<'_>> = names
        .zip(&outcome.others)
        .map(|(candidate, judged)| Other {
            candidate,
            judged,
            egress: ask(kernels, judged, End::Source),
            ingress: ask(kernels, judged, End::Destination),
        })
        .collect();
    let live = args.live.then(|| {
        live::ask(&live::Asked {
            kernels,
            world,
            question: &question,
            outcome: &outcome,
            source_port: args.source_port,
        })
    });
    let report = Report {
        question: &question,
        outcome: &outcome,
        egress: &egress,
        ingress: &ingress,
        others: &others,
        live: live.as_ref(),
    };
    let mut done = if args.output.is_json() {
        Done::ok(json(&document::document(&report))?)
    } else {
        Done::ok(report::text(&report, args.verbose, colors))
    };
    if !answer.verdict.allowed() {
        done.at_least(DENIED);
    }
    let further = others.iter().flat_map(|o| [&o.egress, &o.ingress]);
    let ends: Vec<&Kernel> = [&egress, &ingress].into_iter().chain(further).collect();
    let not_run = live.as_ref().is_some_and(Live::is_unasked);
    let unasked = not_run || ends.iter().any(|k| matches!(k, Kernel::NotAsked(_)));
    if args.require_kernel && unasked {
        done.complain("--require-kernel: the kernel of an end was not asked");
        done.code = ERROR;
    }
    let otherwise = live.as_ref().is_some_and(Live::disagrees);
    if otherwise || ends.iter().any(|k| matches!(k, Kernel::Disagrees(_))) {
        done.code = DISAGREE;
    }
    for service in asker.cluster_ip_owners(&question) {
        done.complain(&format!(
            "warning: {} is an address of service {service}: policies are judged at its backends, \
             ask about svc:{service}",
            question.to
        ));
    }
    for refusal in asker.refusals() {
        done.complain(&format!("warning: {refusal}"));
    }
    Ok(done)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Source,
    Destination,
}

/// What the kernel says of one end.
fn ask(kernels: &Kernels, judged: &Judged, end: End) -> Kernel {
    let answer = &judged.answer;
    let (this, other, decision) = match end {
        End::Source => (&answer.from, &answer.to, &answer.egress.decision),
        End::Destination => (&answer.to, &answer.from, &answer.ingress.decision),
    };
    if !matches!(this.kind, PartyKind::Pod { .. }) {
        return Kernel::NotSubject;
    }
    if decision.reason == Reason::OwnNode {
        return Kernel::Exempt;
    }
    let request = match (this.address, other.address) {
        (Some(endpoint), Some(peer)) => Some(request(judged, end, endpoint, peer)),
        _ => None,
    };
    let missing = [this, other].into_iter().find(|p| p.address.is_none());
    let missing = missing.map(|party| format!("{party} has no status.podIPs in the objects"));
    match kernels.ask(
        this.node.as_deref(),
        request.as_ref().ok_or(missing.unwrap_or_default()),
    ) {
        Said::NotAsked(why) => Kernel::NotAsked(why),
        Said::Verdict(verdict) if verdict.allowed == decision.verdict.allowed() => {
            Kernel::Agrees(verdict)
        }
        Said::Verdict(verdict) => Kernel::Disagrees(verdict),
    }
}

/// The question to the maps of one end.
fn request(judged: &Judged, end: End, endpoint: IpAddr, peer: IpAddr) -> VerdictRequest {
    // A reply passes by the verdict of the connection it answers.
    let at_source = (end == End::Source) != judged.query.reply;
    let direction = if at_source {
        FlowDirection::Egress
    } else {
        FlowDirection::Ingress
    };
    VerdictRequest {
        endpoint,
        direction,
        peer,
        protocol: number(judged.query.protocol, endpoint),
        port: judged.query.port.unwrap_or(0),
    }
}
