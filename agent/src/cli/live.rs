//! `policy trace --live`: what the loaded programs do with the first packet of the connection, beside
//! what the objects say.

use std::net::IpAddr;

use serde_json::{Value as Json, json};
use weir_api::live::{LiveAnswer, LiveRequest, LiveVerdict};
use weir_oracle::{Decision, Family, Party, PartyKind, Protocol};

use super::ends::{self, Port};
use super::kernel::Kernels;
use super::question::{Judged, Outcome, Question};
use super::words::told;
use super::world::World;

/// What the programs say of one end.
#[derive(Clone, Debug)]
pub(super) enum Program {
    /// The same as the objects.
    Agrees(Box<Ran>),
    /// Something else.
    Disagrees(Box<Ran>),
    /// Nobody could be asked.
    NotAsked(String),
    /// No program judges at this end.
    NotSubject,
}

/// What a program did with the packet.
#[derive(Clone, Debug)]
pub(super) struct Ran {
    /// The verdict at the end in question, if the program judged there.
    verdict: Option<LiveVerdict>,
    answer: LiveAnswer,
    /// With a Service: the backend that was chosen, in words.
    backend: Option<String>,
}

/// What the programs say of both ends, as the question has them.
#[derive(Clone, Debug)]
pub(super) struct Live {
    pub egress: Program,
    pub ingress: Program,
}

impl Live {
    fn ends(&self) -> [&Program; 2] {
        [&self.egress, &self.ingress]
    }

    pub fn disagrees(&self) -> bool {
        self.ends()
            .iter()
            .any(|end| matches!(end, Program::Disagrees(_)))
    }

    pub fn is_unasked(&self) -> bool {
        self.ends()
            .iter()
            .any(|end| matches!(end, Program::NotAsked(_)))
    }
}

/// Whom to ask, and about what.
pub(super) struct Asked<'a> {
    pub kernels: &'a Kernels,
    pub world: &'a World,
    pub question: &'a Question,
    pub outcome: &'a Outcome,
    pub source_port: Option<u16>,
}

/// One end of the connection.
struct End<'a> {
    party: &'a Party,
    decision: &'a Decision,
}

impl End<'_> {
    fn is_pod(&self) -> bool {
        matches!(self.party.kind, PartyKind::Pod { .. })
    }
}

/// The ends of the connection: who opens it, and who serves. A reply's are the other way round.
fn ends_of(judged: &Judged) -> [End<'_>; 2] {
    let answer = &judged.answer;
    let from = End {
        party: &answer.from,
        decision: &answer.egress.decision,
    };
    let to = End {
        party: &answer.to,
        decision: &answer.ingress.decision,
    };
    if judged.query.reply {
        [to, from]
    } else {
        [from, to]
    }
}

/// Runs the packet where it leaves, and, if nobody has judged it there yet, where it arrives.
pub(super) fn ask(asked: &Asked<'_>) -> Live {
    let judged = &asked.outcome.judged;
    let [client, server] = match connection(asked, judged) {
        Ok(programs) => programs,
        Err(why) => {
            let of = |end: &End<'_>| match end.is_pod() {
                true => Program::NotAsked(why.clone()),
                false => Program::NotSubject,
            };
            ends_of(judged).each_ref().map(of)
        }
    };
    let (egress, ingress) = if judged.query.reply {
        (server, client)
    } else {
        (client, server)
    };
    Live { egress, ingress }
}

/// What is said of who opens the connection and of who serves it.
fn connection(asked: &Asked<'_>, judged: &Judged) -> Result<[Program; 2], String> {
    let [client, server] = ends_of(judged);
    let source = address(client.party)?;
    let frontend = frontend(asked, source);
    let (destination, port) = match frontend {
        Some(frontend) => frontend,
        None => (address(server.party)?, judged.query.port.unwrap_or(0)),
    };
    let request = |destination, port| LiveRequest {
        source,
        destination,
        protocol: number(judged.query.protocol, source),
        port,
        source_port: asked.source_port,
    };
    let node = |end: &End<'_>| end.party.node.clone();
    if !client.is_pod() {
        // No program judges it where it comes from, and none translates for it.
        let (address, port) = (address(server.party)?, judged.query.port.unwrap_or(0));
        let at_server = match server.is_pod() {
            true => run(asked, node(&server), &request(address, port)),
            false => return Ok([Program::NotSubject, Program::NotSubject]),
        };
        let ran = at_server.map(|answer| Ran::at_server(answer, None));
        return Ok([Program::NotSubject, compared(ran, judged, &server)]);
    }
    let first = match run(asked, node(&client), &request(destination, port)) {
        Ok(first) => first,
        Err(why) if frontend.is_some() || !server.is_pod() => return Err(why),
        Err(why) => {
            let at_server = run(asked, node(&server), &request(destination, port));
            let ran = at_server.map(|answer| Ran::at_server(answer, None));
            return Ok([Program::NotAsked(why), compared(ran, judged, &server)]);
        }
    };
    // A Service's backend is the program's choice: what it does is compared with that one.
    let (judged, backend) = match chosen(asked.outcome, &first) {
        Ok(chosen) => chosen,
        Err(unknown) if frontend.is_some() => {
            let ran = Ran {
                verdict: first.egress.clone(),
                answer: first,
                backend: Some(unknown.clone()),
            };
            let server = Program::NotAsked(format!("the backend is {unknown}"));
            return Ok([Program::Disagrees(Box::new(ran)), server]);
        }
        Err(unknown) => {
            return Err(format!(
                "the program sends the packet to a Service's backend, {unknown}: ask about the svc:"
            ));
        }
    };
    let [client, server] = ends_of(judged);
    let at_client = Ran {
        verdict: first.egress.clone(),
        answer: first.clone(),
        backend: backend.clone(),
    };
    let at_client = compared(Ok(at_client), judged, &client);
    let at_server = if !server.is_pod() {
        Program::NotSubject
    } else if first.ingress.is_some() || server.party.node == client.party.node {
        compared(Ok(Ran::at_server(first, backend)), judged, &server)
    } else {
        let (address, port) = (address(server.party)?, judged.query.port.unwrap_or(0));
        let answer = run(asked, node(&server), &request(address, port));
        let ran = answer.map(|answer| Ran::at_server(answer, backend));
        compared(ran, judged, &server)
    };
    Ok([at_client, at_server])
}

impl Ran {
    fn at_server(answer: LiveAnswer, backend: Option<String>) -> Self {
        Self {
            verdict: answer.ingress.clone(),
            answer,
            backend,
        }
    }

    fn passes(&self) -> bool {
        self.answer.action == "forwarded"
    }
}

fn run(
    asked: &Asked<'_>,
    node: Option<String>,
    request: &LiveRequest,
) -> Result<LiveAnswer, String> {
    asked.kernels.live(node.as_deref(), request)
}

/// Whether a program does what the objects say of an end.
fn compared(ran: Result<Ran, String>, judged: &Judged, end: &End<'_>) -> Program {
    let ran = match ran {
        Ok(ran) => ran,
        Err(why) => return Program::NotAsked(why),
    };
    let intended = end.decision.verdict.allowed();
    let as_judged = match &ran.verdict {
        Some(verdict) => verdict.allowed == intended,
        None => ran.passes() == intended,
    };
    // What is allowed at both ends must arrive.
    let arrives = ran.passes() || !judged.answer.verdict.allowed();
    if as_judged && arrives {
        Program::Agrees(Box::new(ran))
    } else {
        Program::Disagrees(Box::new(ran))
    }
}

/// The candidate that the program has chosen, and its name; an error names one that the objects do
/// not know.
fn chosen<'a>(
    outcome: &'a Outcome,
    answer: &LiveAnswer,
) -> Result<(&'a Judged, Option<String>), String> {
    let Some(backend) = answer.backend else {
        return Ok((&outcome.judged, None));
    };
    let shown = match backend.address {
        IpAddr::V4(address) => format!("{address}:{}", backend.port),
        IpAddr::V6(address) => format!("[{address}]:{}", backend.port),
    };
    let candidates = std::iter::once(&outcome.judged).chain(&outcome.others);
    let mut found = candidates.filter(|judged| {
        judged.answer.to.address == Some(backend.address) && judged.query.port == Some(backend.port)
    });
    match found.next() {
        Some(judged) if outcome.service.is_some() => {
            let name = format!("{} at {shown}", judged.answer.to);
            Ok((judged, Some(name)))
        }
        _ => Err(format!("{shown}, which the objects do not name")),
    }
}

fn address(party: &Party) -> Result<IpAddr, String> {
    party
        .address
        .ok_or_else(|| format!("{party} has no status.podIPs in the objects"))
}

/// The Service's own address and port, unless one backend is asked for or there is no address.
fn frontend(asked: &Asked<'_>, source: IpAddr) -> Option<(IpAddr, u16)> {
    let Question { port, backend, .. } = asked.question;
    let (namespace, name) = asked.outcome.service.as_deref()?.split_once('/')?;
    if backend.is_some() {
        return None;
    }
    let services = asked.world.cluster.services.iter().rev();
    let mut named = services.filter(|service| {
        let metadata = &service.metadata;
        metadata.namespace.as_deref().unwrap_or("default") == namespace
            && metadata.name.as_deref() == Some(name)
    });
    let spec = named.next()?.spec.as_ref()?;
    let all = spec
        .cluster_ip
        .iter()
        .chain(spec.cluster_ips.iter().flatten());
    let mut addresses = all.filter_map(|text| text.parse::<IpAddr>().ok());
    let family = Family::of(source);
    let address = addresses.find(|address| Family::of(*address) == family)?;
    let number = match ends::port(port.as_deref()?).ok()?.0 {
        Port::Number(number) => number,
        Port::Name(name) => {
            let mut ports = spec.ports.iter().flatten();
            let port = ports.find(|port| port.name.as_deref() == Some(&name))?;
            u16::try_from(port.port).ok()?
        }
    };
    Some((address, number))
}

/// IP protocol numbers (IANA).
pub(super) fn number(protocol: Protocol, addr: IpAddr) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
        Protocol::Icmp if addr.is_ipv6() => 58,
        Protocol::Icmp => 1,
    }
}

/// What a program says of an end, for people; nothing where none judges.
pub(super) fn line(program: &Program) -> Option<String> {
    let line = match program {
        Program::Agrees(ran) => words(ran),
        Program::Disagrees(ran) => format!("DISAGREES ({})", words(ran)),
        Program::NotAsked(why) => format!("not asked ({why})"),
        Program::NotSubject => return None,
    };
    Some(format!("  program: {line}"))
}

fn words(ran: &Ran) -> String {
    let LiveAnswer {
        action,
        reason,
        tracked,
        ..
    } = &ran.answer;
    let verdict = match &ran.verdict {
        Some(verdict) => told(verdict.allowed, verdict.rule_id, verdict.rule.as_ref()),
        None => "not judged".to_owned(),
    };
    let outcome = match (action.as_str(), reason.as_str()) {
        ("forwarded", "delivered") => "delivered".to_owned(),
        ("forwarded", "to-node") => "sent to another node".to_owned(),
        ("forwarded", "to-stack") => "left to the node's stack".to_owned(),
        _ => format!("{action}: {reason}"),
    };
    let backend = ran
        .backend
        .iter()
        .map(|backend| format!("; backend {backend}"));
    let known = tracked.then(|| "; of a known flow".to_owned());
    let more: String = backend.chain(known).collect();
    format!("{verdict}; {outcome}{more}")
}

/// The same for programs.
pub(super) fn document(program: &Program) -> Json {
    let ran = |state, ran: &Ran| {
        json!({
            "state": state,
            "verdict": ran.verdict,
            "backend": ran.backend,
            "answer": ran.answer,
        })
    };
    match program {
        Program::Agrees(it) => ran("agrees", it),
        Program::Disagrees(it) => ran("disagrees", it),
        Program::NotAsked(why) => json!({"state": "not-asked", "why": why}),
        Program::NotSubject => json!({"state": "not-subject"}),
    }
}
