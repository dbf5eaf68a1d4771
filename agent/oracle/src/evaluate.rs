//! The judgement itself.

use crate::cluster::{Cluster, Evaluator};
use crate::decision::{Answer, Decision, Reason, Report, Verdict};
use crate::matching::{Direction, Flow};
use crate::party::{End, Family, PartyKind, Query, QueryError};
use crate::resolve::Candidate;

/// Answers one question. For many about the same objects build an [`Evaluator`].
///
/// # Errors
/// See [`QueryError`].
pub fn evaluate(cluster: &Cluster, query: &Query) -> Result<Answer, QueryError> {
    Evaluator::new(cluster).evaluate(query)
}

impl Evaluator<'_> {
    /// Answers one question.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn evaluate(&self, query: &Query) -> Result<Answer, QueryError> {
        if query.reply {
            return self.evaluate_reply(query);
        }
        let flow = self.flow(query)?;
        let egress = self.judge(&flow, Direction::Egress)?;
        let ingress = self.judge(&flow, Direction::Ingress)?;
        Ok(answer(flow, egress, ingress))
    }

    /// A reply passes an end that lets the connection pass. It is dropped where the connection is
    /// forbidden: a connection that policy cuts is cut both ways.
    fn evaluate_reply(&self, query: &Query) -> Result<Answer, QueryError> {
        let connection = self.evaluate(&Query {
            from: query.to.clone(),
            to: query.from.clone(),
            reply: false,
            ..query.clone()
        })?;
        let turn = |mut report: Report| {
            let exempt = matches!(report.decision.reason, Reason::NotSubject | Reason::Itself);
            if report.decision.verdict.allowed() && !exempt {
                report.decision = Decision::allow(Reason::Reply);
            }
            report
        };
        Ok(Answer {
            verdict: connection.verdict,
            egress: turn(connection.ingress),
            ingress: turn(connection.egress),
            from: connection.to,
            to: connection.from,
            family: connection.family,
        })
    }

    fn flow(&self, query: &Query) -> Result<Flow, QueryError> {
        let port = match (query.protocol.has_ports(), query.port) {
            (true, Some(port)) if port > 0 => port,
            (true, Some(_)) => return Err(QueryError::Port("0 is no port".to_owned())),
            (true, None) => {
                let text = format!("a {} flow needs a port", query.protocol);
                return Err(QueryError::Port(text));
            }
            (false, Some(_)) => {
                return Err(QueryError::Port(format!("{} has no ports", query.protocol)));
            }
            (false, None) => 0,
        };
        let from = self.resolve(&query.from)?;
        let to = self.resolve(&query.to)?;
        let family = settle_family(query, &from, &to)?;
        Ok(Flow {
            from: from.party(family),
            to: to.party(family),
            family,
            protocol: query.protocol,
            port,
        })
    }

    /// One end of the flow.
    fn judge(&self, flow: &Flow, direction: Direction) -> Result<Report, QueryError> {
        let subject = match direction {
            Direction::Egress => &flow.from,
            Direction::Ingress => &flow.to,
        };
        let Some(pod) = self.pod_of(subject) else {
            return Ok(Report::allow(Reason::NotSubject));
        };
        if flow.from.kind == flow.to.kind {
            return Ok(Report::allow(Reason::Itself));
        }
        let source_is_host = matches!(flow.from.kind, PartyKind::Node | PartyKind::HostPod { .. });
        if direction == Direction::Ingress && source_is_host {
            if pod.node.is_some() && pod.node == flow.from.node {
                return Ok(Report::allow(Reason::OwnNode));
            }
            let report = self.judge_by_policies(flow, direction, pod)?;
            let unknown = pod.node.is_none() || flow.from.node.is_none();
            if unknown && !report.decision.verdict.allowed() {
                return Err(QueryError::NeedsNode {
                    namespace: pod.namespace.clone(),
                    name: pod.name.clone(),
                    source_node: flow.from.to_string(),
                });
            }
            return Ok(report);
        }
        self.judge_by_policies(flow, direction, pod)
    }
}

fn answer(flow: Flow, egress: Report, ingress: Report) -> Answer {
    let both = egress.decision.verdict.allowed() && ingress.decision.verdict.allowed();
    Answer {
        verdict: if both { Verdict::Allow } else { Verdict::Deny },
        egress,
        ingress,
        from: flow.from,
        to: flow.to,
        family: flow.family,
    }
}

/// The family asked for, else the first that both ends have; an end without any address takes the
/// other's.
fn settle_family(
    query: &Query,
    from: &Candidate,
    to: &Candidate,
) -> Result<Option<Family>, QueryError> {
    let families = [Family::V4, Family::V6];
    if let Some(family) = query.family {
        for (end, name) in [(from, &query.from), (to, &query.to)] {
            let fixed = matches!(name, End::Address(_));
            if fixed && end.address(family).is_none() {
                return Err(QueryError::Family(format!("{name} is no {family} address")));
            }
        }
        return Ok(Some(family));
    }
    let has = |end: &Candidate, f: &Family| end.addresses.is_empty() || end.address(*f).is_some();
    let nothing_known = from.addresses.is_empty() && to.addresses.is_empty();
    let common = families.into_iter().find(|f| has(from, f) && has(to, f));
    match common {
        Some(_) if nothing_known => Ok(None),
        Some(family) => Ok(Some(family)),
        None => Err(QueryError::Family(format!(
            "{} and {} have no IP family in common",
            query.from, query.to
        ))),
    }
}
