//! One question about one flow, and its answer.

use std::net::IpAddr;

use weir_oracle::{Answer, Backend, End, Evaluator, Family, Protocol, Query, ServicePort};

use super::ends::{self, Place, Port};
use super::world::World;

/// A question as a probe or a command line asks it.
#[derive(Clone, Debug, Default)]
pub(super) struct Question {
    pub from: String,
    pub to: String,
    pub port: Option<String>,
    pub protocol: Option<String>,
    pub family: Option<String>,
    pub state: Option<String>,
    pub backend: Option<String>,
}

/// A flow, and what happens to it.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    pub query: Query,
    pub answer: Answer,
}

/// The answer to a [`Question`].
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// The first candidate's; the others have the same verdict.
    pub judged: Judged,
    /// With a Service: those of the further candidates, in their order.
    pub others: Vec<Judged>,
    /// With a Service: `namespace/name`.
    pub service: Option<String>,
    /// With a Service: its candidates, as people read them.
    pub candidates: Vec<String>,
}

/// Asks about the objects of one world, any number of times.
pub(super) struct Asker<'a> {
    world: &'a World,
    evaluator: Evaluator<'a>,
    namespace: &'a str,
}

/// A question, read.
struct Read {
    from: Place,
    to: Place,
    port: Option<Port>,
    /// [`None`]: not said, so TCP, unless a Service's port knows better.
    protocol: Option<Protocol>,
    family: Option<Family>,
    reply: bool,
    backend: Option<End>,
}

impl<'a> Asker<'a> {
    /// `namespace` is that of names without one.
    pub fn new(world: &'a World, namespace: &'a str) -> Self {
        Self {
            world,
            evaluator: Evaluator::new(&world.cluster),
            namespace,
        }
    }

    /// What the API server would refuse, in words.
    pub fn refusals(&self) -> Vec<String> {
        self.evaluator
            .messages()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    /// The Services (`namespace/name`) that have the address that a question names as its target.
    pub fn cluster_ip_owners(&self, question: &Question) -> Vec<String> {
        let text = question.to.strip_prefix("ip:").unwrap_or(&question.to);
        let Ok(wanted) = text.parse::<IpAddr>() else {
            return Vec::new();
        };
        let is_wanted = |ip: &String| ip.parse() == Ok(wanted);
        let services = self.world.cluster.services.iter();
        let owners = services.filter(|service| {
            let spec = service.spec.as_ref();
            spec.is_some_and(|spec| {
                let more = spec.cluster_ips.iter().flatten();
                spec.cluster_ip.iter().chain(more).any(is_wanted)
            })
        });
        let metadata = owners.map(|service| &service.metadata);
        let named = metadata.map(|m| {
            let namespace = m.namespace.as_deref().unwrap_or("default");
            format!("{namespace}/{}", m.name.as_deref().unwrap_or_default())
        });
        named.collect()
    }

    pub fn ask(&self, question: &Question) -> Result<Outcome, String> {
        let read = self.read(question)?;
        match (&read.from, &read.to) {
            (Place::Service { .. }, _) => {
                Err("svc: stands only for the target; name a pod as the source".to_owned())
            }
            (Place::End(_), Place::Service { .. }) if read.reply => {
                Err("a reply goes to the client: name its pod, not a svc:".to_owned())
            }
            (Place::End(from), Place::Service { namespace, name }) => {
                self.ask_service(&read, from, namespace, name)
            }
            (Place::End(from), Place::End(to)) => {
                if read.backend.is_some() {
                    return Err("backend needs a svc: as the target".to_owned());
                }
                let protocol = read.protocol.unwrap_or(Protocol::Tcp);
                let server = if read.reply { from } else { to };
                let port = self.port(&read, server, protocol)?;
                let query = Query {
                    from: from.clone(),
                    to: to.clone(),
                    family: read.family,
                    protocol,
                    port,
                    reply: read.reply,
                };
                Ok(Outcome {
                    judged: self.judge(query)?,
                    others: Vec::new(),
                    service: None,
                    candidates: Vec::new(),
                })
            }
        }
    }

    fn read(&self, question: &Question) -> Result<Read, String> {
        let in_field = |field: &'static str| move |e: String| format!("{field}: {e}");
        let (port, over) = match question.port.as_deref().map(ends::port).transpose() {
            Ok(Some((port, over))) => (Some(port), over),
            Ok(None) => (None, None),
            Err(e) => return Err(format!("port: {e}")),
        };
        let said = question.protocol.as_deref().map(ends::protocol).transpose();
        let said = said.map_err(in_field("protocol"))?;
        let protocol = match (said, over) {
            (Some(a), Some(b)) if a != b => {
                return Err(format!("port says {b}, protocol says {a}"));
            }
            (a, b) => a.or(b),
        };
        let family = question.family.as_deref().map(ends::family).transpose();
        let reply = question.state.as_deref().map(ends::is_reply).transpose();
        let backend = question.backend.as_deref();
        let backend = backend
            .map(|text| ends::pod(text, self.namespace, self.world))
            .transpose();
        Ok(Read {
            from: ends::place(&question.from, self.namespace, self.world)
                .map_err(in_field("from"))?,
            to: ends::place(&question.to, self.namespace, self.world).map_err(in_field("to"))?,
            port,
            protocol,
            family: family.map_err(in_field("family"))?,
            reply: reply.map_err(in_field("state"))?.unwrap_or(false),
            backend: backend.map_err(in_field("backend"))?,
        })
    }

    /// The number of the port, which a name means on the server.
    fn port(&self, read: &Read, server: &End, protocol: Protocol) -> Result<Option<u16>, String> {
        match &read.port {
            None if protocol.has_ports() => Err(format!(
                "{protocol} needs a port (--protocol icmp takes none)"
            )),
            None => Ok(None),
            Some(_) if !protocol.has_ports() => Err(format!("{protocol} takes no port")),
            Some(Port::Number(number)) => Ok(Some(*number)),
            Some(Port::Name(port)) => {
                let number = match server {
                    End::Pod { namespace, name } => {
                        self.evaluator.named_port(namespace, name, port, protocol)
                    }
                    End::Node(_) | End::Address(_) => None,
                };
                match number {
                    Some(number) => Ok(Some(number)),
                    None => Err(format!(
                        "port: {server} has no {protocol} port named {port:?}"
                    )),
                }
            }
        }
    }

    fn judge(&self, query: Query) -> Result<Judged, String> {
        match self.evaluator.evaluate(&query) {
            Ok(answer) => Ok(Judged { query, answer }),
            Err(error) => Err(error.to_string()),
        }
    }

    fn ask_service(
        &self,
        read: &Read,
        from: &End,
        namespace: &str,
        name: &str,
    ) -> Result<Outcome, String> {
        let service = format!("{namespace}/{name}");
        if read.protocol == Some(Protocol::Icmp) {
            return Err(format!("service {service} has no ICMP: name a pod"));
        }
        let port = match &read.port {
            None => return Err(format!("service {service}: which port?")),
            Some(Port::Number(number)) => ServicePort::Number(*number),
            Some(Port::Name(name)) => ServicePort::Name(name.clone()),
        };
        let backends = self
            .evaluator
            .backends(namespace, name, &port, read.protocol)
            .map_err(|e| e.to_string())?;
        let backends = match &read.backend {
            None => backends,
            Some(wanted) => {
                let all = listed(&backends);
                let mut only = backends;
                only.retain(|b| b.end == *wanted);
                if only.is_empty() {
                    return Err(format!(
                        "{wanted} is no backend of service {service}: {all}"
                    ));
                }
                only
            }
        };
        let family = read.family.or_else(|| self.only_family(namespace, name));
        let mut judged = Vec::new();
        for backend in &backends {
            let query = Query {
                from: from.clone(),
                to: backend.end.clone(),
                family,
                protocol: backend.protocol,
                port: Some(backend.port),
                reply: false,
            };
            let one = self.judge(query);
            judged.push(one.map_err(|e| format!("service {service}: {e}"))?);
        }
        self.agreed(&service, &backends, judged)
    }

    /// All candidates must have one verdict.
    fn agreed(
        &self,
        service: &str,
        backends: &[Backend],
        judged: Vec<Judged>,
    ) -> Result<Outcome, String> {
        let verdicts: Vec<_> = judged.iter().map(|j| j.answer.verdict).collect();
        let with_verdict = backends.iter().zip(&verdicts);
        let candidates: Vec<String> = with_verdict
            .map(|(backend, verdict)| format!("{} {verdict}", shown(backend)))
            .collect();
        let differ = verdicts.windows(2).any(|pair| pair[0] != pair[1]);
        let mut judged = judged.into_iter();
        match judged.next() {
            Some(first) if !differ => Ok(Outcome {
                judged: first,
                others: judged.collect(),
                service: Some(service.to_owned()),
                candidates,
            }),
            _ => Err(format!(
                "service {service}: its backends differ, name one as backend: {}",
                candidates.join(", ")
            )),
        }
    }

    /// The family of a Service that has just one.
    fn only_family(&self, namespace: &str, name: &str) -> Option<Family> {
        let mut services = self.world.cluster.services.iter();
        let service = services.find(|s| {
            s.metadata.namespace.as_deref() == Some(namespace)
                && s.metadata.name.as_deref() == Some(name)
        })?;
        match service.spec.as_ref()?.ip_families.as_deref()? {
            [one] if one == "IPv4" => Some(Family::V4),
            [one] if one == "IPv6" => Some(Family::V6),
            _ => None,
        }
    }
}

fn shown(backend: &Backend) -> String {
    format!("{} {}/{}", backend.end, backend.port, backend.protocol)
}

fn listed(backends: &[Backend]) -> String {
    let all: Vec<String> = backends.iter().map(shown).collect();
    all.join(", ")
}
