//! One flow at one of its ends: what the reference evaluator says of it, and what the maps say.

use std::net::IpAddr;

use serde_json::{Value, json};
use weir_abi::policy::{RuleId, RuleVerdict};
use weir_abi::{Addr, Proto};
use weir_oracle::{Decision, End, Evaluator, Protocol, Query, QueryError, Reason};
use weir_policy::{Actual, Direction};

use crate::coverage::Coverage;
use crate::rng::Rng;
use crate::world::World;
use crate::{PORTS, protocol_for};

/// A new flow, looked at where it leaves or reaches an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Probe {
    /// The endpoint.
    pub slot: u32,
    /// As seen from the endpoint.
    pub direction: Direction,
    /// Which of the endpoint's addresses.
    pub endpoint: IpAddr,
    /// The other end.
    pub peer: IpAddr,
    /// Protocol.
    pub proto: Proto,
    /// Destination port; 0 where there is none.
    pub port: u16,
}

/// What is said of a flow at one end.
#[derive(Clone, PartialEq, Debug)]
pub struct Judged {
    /// Whether it may pass.
    pub allowed: bool,
    /// What decides, in the evaluator's words.
    pub reason: Reason,
    /// The rule, or what isolates the pod, as `weir policy test` prints it.
    pub name: Value,
}

/// The evaluator's protocol.
pub fn oracle_protocol(proto: Proto) -> Protocol {
    match proto {
        Proto::TCP => Protocol::Tcp,
        Proto::UDP => Protocol::Udp,
        Proto::SCTP => Protocol::Sctp,
        _ => Protocol::Icmp,
    }
}

impl Probe {
    /// Between an endpoint and one of `addresses`, or itself.
    pub fn random(rng: &mut Rng, world: &World, addresses: &[IpAddr]) -> Self {
        let slots: Vec<_> = world.endpoints.values().collect();
        let endpoint = rng.pick(&slots);
        let own = rng.pick(&endpoint.addresses);
        let alike = addresses.iter().copied();
        let alike: Vec<_> = alike.filter(|a| a.is_ipv4() == own.is_ipv4()).collect();
        let peer = if rng.percent(3) {
            own
        } else {
            rng.pick(&alike)
        };
        let (proto, port) = rng.pick(PORTS);
        Self {
            slot: endpoint.slot,
            direction: rng.pick(&Direction::ALL),
            endpoint: own,
            peer,
            proto: protocol_for(peer, proto),
            port,
        }
    }

    /// The evaluator's decision at the endpoint; none if there is no pod behind it.
    ///
    /// # Errors
    /// The pod is not in this world, has ended, or is not what the probe takes it for.
    pub fn decision(
        &self,
        evaluator: &Evaluator<'_>,
        world: &World,
    ) -> Result<Option<Decision>, QueryError> {
        let endpoint = world.endpoints.get(&self.slot);
        let Some(pod) = endpoint.and_then(|endpoint| endpoint.pod.as_ref()) else {
            return Ok(None);
        };
        let pod = End::Pod {
            namespace: pod.name.namespace.clone(),
            name: pod.name.name.clone(),
        };
        let peer = End::Address(self.peer);
        let is_ingress = self.direction == Direction::Ingress;
        let (from, to) = if is_ingress { (peer, pod) } else { (pod, peer) };
        let answer = evaluator.evaluate(&Query {
            from,
            to,
            family: None,
            protocol: oracle_protocol(self.proto),
            port: (self.port != 0).then_some(self.port),
            reply: false,
        })?;
        let report = if is_ingress {
            answer.ingress
        } else {
            answer.egress
        };
        Ok(Some(report.decision))
    }

    /// What the maps say.
    pub fn verdict(&self, actual: &Actual) -> RuleVerdict {
        let peer = Addr::from(self.peer);
        let found = actual.verdict(self.slot, self.direction, peer, self.proto, self.port);
        found.verdict
    }

    /// How the maps differ from the evaluator, in words; counts what was compared.
    ///
    /// # Errors
    /// As [`Probe::decision`].
    pub fn difference(
        &self,
        actual: &Actual,
        evaluator: &Evaluator<'_>,
        world: &World,
        coverage: &mut Coverage,
    ) -> Result<Option<String>, QueryError> {
        let Some(decision) = self.decision(evaluator, world)? else {
            return Ok(None);
        };
        self.count(&decision, coverage);
        // A pod's way to itself and what comes from its own node pass before the maps are asked.
        let Some(expected) = Judged::of(&decision) else {
            return Ok(None);
        };
        let verdict = self.verdict(actual);
        let found = Judged::found(verdict, actual.rule(verdict.rule()), self.direction);
        let text = || format!("{self:?}:\n   maps {found:?}\n oracle {expected:?}");
        Ok((found != expected).then(text))
    }

    /// Counts it as what it is and what decided it.
    pub fn count(&self, decision: &Decision, coverage: &mut Coverage) {
        coverage.add("probes");
        coverage.add(decision.reason.to_string());
        if let Some(rule) = &decision.rule {
            let tier = rule
                .tier
                .map_or("NetworkPolicy".to_owned(), |t| t.to_string());
            let action = rule.action.map_or(String::new(), |a| format!(" {a}"));
            coverage.add(format!("{tier}{action} {}", self.direction.name()));
        }
        coverage.add(decision.verdict.to_string());
        coverage.add(if self.endpoint.is_ipv4() {
            "IPv4"
        } else {
            "IPv6"
        });
        coverage.add(self.direction.name());
        coverage.add(oracle_protocol(self.proto).to_string());
    }
}

/// What probes have to be: each decision, verdict, family, direction and protocol.
pub const OUTCOMES: &[&str] = &[
    "rule",
    "isolated",
    "pass",
    "not-selected",
    "self",
    "own-node",
    "allow",
    "deny",
    "Admin Accept ingress",
    "Admin Accept egress",
    "Admin Deny ingress",
    "Admin Deny egress",
    "Admin Pass ingress",
    "Admin Pass egress",
    "NetworkPolicy ingress",
    "NetworkPolicy egress",
    "Baseline Accept ingress",
    "Baseline Accept egress",
    "Baseline Deny ingress",
    "Baseline Deny egress",
    "Baseline Pass ingress",
    "Baseline Pass egress",
    "IPv4",
    "IPv6",
    "ingress",
    "egress",
    "TCP",
    "UDP",
    "SCTP",
    "ICMP",
];

impl Judged {
    /// The evaluator's decision, if policy makes it.
    pub fn of(decision: &Decision) -> Option<Self> {
        let name = match decision.reason {
            Reason::Rule | Reason::Pass => serde_json::to_value(&decision.rule).unwrap(),
            Reason::Isolated => json!({"isolatedBy": decision.isolated_by}),
            Reason::NotSelected => Value::Null,
            Reason::Itself | Reason::OwnNode | Reason::NotSubject | Reason::Reply => return None,
        };
        Some(Self {
            allowed: decision.verdict.allowed(),
            reason: decision.reason,
            name,
        })
    }

    /// A verdict of the maps and its rule's name in `RULES`.
    ///
    /// # Panics
    /// When the rule has no name, or one of another direction.
    pub fn found(verdict: RuleVerdict, name: Option<&str>, direction: Direction) -> Self {
        let allowed = verdict.allowed();
        if verdict.rule() == RuleId::NOT_SELECTED {
            return Self {
                allowed,
                reason: Reason::NotSelected,
                name: Value::Null,
            };
        }
        let name = name.expect("every rule has a name");
        let mut name: Value = serde_json::from_str(name).unwrap();
        let of = name.as_object_mut().unwrap().remove("direction");
        assert_eq!(of, Some(json!(direction.name())));
        let reason = if name.get("isolatedBy").is_some() {
            Reason::Isolated
        } else if name["action"] == "Pass" {
            Reason::Pass
        } else {
            Reason::Rule
        };
        Self {
            allowed,
            reason,
            name,
        }
    }
}
