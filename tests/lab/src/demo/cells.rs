//! The cells of the matrix: who probes whom, and what the oracle expects.

use std::collections::HashMap;
use std::net::IpAddr;

use anyhow::{Context, Result};
use serde_json::Value;
use weir_oracle::{Cluster, End, Evaluator, Family, Protocol, Query, QueryError, ServicePort};

use super::plan::{self, Plan, list, number};
use crate::wire::{Listen, Proto};

/// One end of a cell: an index into the plan's pods, its outside hosts, or its services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Party {
    /// A pod.
    Pod(usize),
    /// A host outside the cluster.
    Outside(usize),
    /// A Service; only a target.
    Service(usize),
}

/// One question that is asked of the oracle and of the network.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Who probes.
    pub from: Party,
    /// Who is probed.
    pub to: Party,
    /// The address that is dialled.
    pub address: IpAddr,
    /// The port that is dialled.
    pub listen: Listen,
    /// Whether a manifest names the port.
    pub declared: bool,
    /// Who may answer, by name, and whether the oracle lets the flow to it pass.
    pub backends: Vec<(String, bool)>,
}

impl Cell {
    /// Whether the oracle lets some flow of this cell pass.
    #[must_use]
    pub fn some_allowed(&self) -> bool {
        self.backends.iter().any(|(_, allowed)| *allowed)
    }

    /// Whether the oracle denies some flow of this cell.
    #[must_use]
    pub fn some_denied(&self) -> bool {
        self.backends.iter().any(|(_, allowed)| !*allowed)
    }

    /// Who is expected to do what: `allowed`, `denied`, `refused` (a Service without endpoints) or
    /// `allowed or denied` (it depends on the backend that is chosen).
    #[must_use]
    pub fn expected(&self) -> &'static str {
        match (self.some_allowed(), self.some_denied()) {
            (true, false) => "allowed",
            (false, true) => "denied",
            (true, true) => "allowed or denied",
            (false, false) => "refused",
        }
    }
}

/// The objects of a lab, as the oracle wants them.
///
/// # Errors
/// When an object does not decode.
pub fn cluster_of(objects: &[Value]) -> Result<Cluster> {
    let mut cluster = Cluster::default();
    for object in objects {
        let name = plan::key(object);
        let object = object.clone();
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        let pushed = match kind.as_str() {
            "Namespace" => serde_json::from_value(object).map(|o| cluster.namespaces.push(o)),
            "Pod" => serde_json::from_value(object).map(|o| cluster.pods.push(o)),
            "NetworkPolicy" => serde_json::from_value(object).map(|o| cluster.policies.push(o)),
            "ClusterNetworkPolicy" => {
                serde_json::from_value(object).map(|o| cluster.cluster_policies.push(o))
            }
            "Node" => serde_json::from_value(object).map(|o| cluster.nodes.push(o)),
            "Service" => serde_json::from_value(object).map(|o| cluster.services.push(o)),
            "EndpointSlice" => {
                serde_json::from_value(object).map(|o| cluster.endpoint_slices.push(o))
            }
            _ => Ok(()),
        };
        pushed.with_context(|| format!("decoding {kind} {name}"))?;
    }
    Ok(cluster)
}

/// All cells of a plan whose pods have these addresses, with what the oracle expects of the
/// objects as they are now.
///
/// # Errors
/// When the oracle has no answer to a question.
pub fn all(plan: &Plan, addresses: &[Vec<IpAddr>], cluster: &Cluster) -> Result<Vec<Cell>> {
    let evaluator = Evaluator::new(cluster);
    let mut builder = Builder {
        plan,
        addresses,
        evaluator,
        cells: Vec::new(),
    };
    let pods = (0..plan.pods.len()).map(Party::Pod);
    let outside = (0..plan.outside.len()).map(Party::Outside);
    for from in pods.clone().chain(outside.clone()) {
        let inside = matches!(from, Party::Pod(_));
        for to in pods.clone().filter(|to| *to != from) {
            builder.add_direct(from, to)?;
        }
        if inside {
            for to in outside.clone() {
                builder.add_direct(from, to)?;
            }
            for index in 0..plan.services.len() {
                builder.add_service(from, index)?;
            }
        }
    }
    Ok(builder.cells)
}

/// Brings what is expected of the cells up to date with changed objects.
///
/// # Errors
/// When the oracle has no answer to a question.
pub fn expect_anew(
    plan: &Plan,
    addresses: &[Vec<IpAddr>],
    cluster: &Cluster,
) -> Result<Vec<Vec<(String, bool)>>> {
    Ok(all(plan, addresses, cluster)?
        .into_iter()
        .map(|cell| cell.backends)
        .collect())
}

struct Builder<'a> {
    plan: &'a Plan,
    addresses: &'a [Vec<IpAddr>],
    evaluator: Evaluator<'a>,
    cells: Vec<Cell>,
}

impl Builder<'_> {
    fn end(&self, party: Party) -> End {
        match party {
            Party::Outside(index) => End::Address(self.plan.outside[index].address),
            Party::Pod(index) | Party::Service(index) => {
                let object = &self.plan.pods[index].object;
                End::Pod {
                    namespace: plan::namespace(object).to_owned(),
                    name: object["metadata"]["name"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned(),
                }
            }
        }
    }

    fn addresses(&self, party: Party) -> Vec<IpAddr> {
        match party {
            Party::Pod(index) => self.addresses[index].clone(),
            Party::Outside(index) => vec![self.plan.outside[index].address],
            Party::Service(_) => Vec::new(),
        }
    }

    fn has_family(&self, party: Party, address: IpAddr) -> bool {
        self.addresses(party)
            .iter()
            .any(|own| own.is_ipv4() == address.is_ipv4())
    }

    fn allowed(&self, from: Party, to: End, address: IpAddr, listen: Listen) -> Result<bool> {
        let query = Query {
            from: self.end(from),
            to,
            family: Some(Family::of(address)),
            protocol: protocol(listen.proto),
            port: Some(listen.port),
            reply: false,
        };
        let answer = self.evaluator.evaluate(&query);
        Ok(answer
            .with_context(|| format!("asking the oracle: {query:?}"))?
            .verdict
            .allowed())
    }

    fn add_direct(&mut self, from: Party, to: Party) -> Result<()> {
        let declared = match to {
            Party::Pod(index) => self.plan.pods[index].declared.clone(),
            Party::Outside(index) => self.plan.outside[index].declared.clone(),
            Party::Service(_) => Vec::new(),
        };
        let ports = declared
            .into_iter()
            .map(|listen| (listen, true))
            .chain([(self.plan.undeclared, false)]);
        for (listen, declared) in ports {
            for address in self.addresses(to) {
                if self.has_family(from, address) {
                    let allowed = self.allowed(from, self.end(to), address, listen)?;
                    let backends = vec![(name_of(self.plan, to), allowed)];
                    self.cells.push(Cell {
                        from,
                        to,
                        address,
                        listen,
                        declared,
                        backends,
                    });
                }
            }
        }
        Ok(())
    }

    fn add_service(&mut self, from: Party, index: usize) -> Result<()> {
        let service = &self.plan.services[index];
        let ips = list(&service["spec"]["clusterIPs"]);
        for address in ips
            .iter()
            .filter_map(|ip| ip.as_str()?.parse::<IpAddr>().ok())
        {
            if !self.has_family(from, address) {
                continue;
            }
            for port in list(&service["spec"]["ports"]) {
                let proto = Proto::parse(port["protocol"].as_str());
                let (Some(proto), Some(port)) = (proto, number(&port["port"])) else {
                    continue;
                };
                let listen = Listen { proto, port };
                let backends = self.backends(from, index, address, listen)?;
                let to = Party::Service(index);
                self.cells.push(Cell {
                    from,
                    to,
                    address,
                    listen,
                    declared: true,
                    backends,
                });
            }
        }
        Ok(())
    }

    fn backends(
        &self,
        from: Party,
        index: usize,
        address: IpAddr,
        listen: Listen,
    ) -> Result<Vec<(String, bool)>> {
        let service = &self.plan.services[index];
        let namespace = plan::namespace(service);
        let name = service["metadata"]["name"].as_str().unwrap_or_default();
        let port = ServicePort::Number(listen.port);
        let proto = Some(protocol(listen.proto));
        let found = match self.evaluator.backends(namespace, name, &port, proto) {
            Ok(found) => found,
            // The Service and its port are in the plan, so this says: no endpoints.
            Err(QueryError::Service { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut verdicts: HashMap<String, bool> = HashMap::new();
        for backend in found {
            let of_family = |own: &IpAddr| own.is_ipv4() == address.is_ipv4();
            if !backend.addresses.iter().any(of_family) {
                continue;
            }
            let name = backend.end.to_string();
            let at = Listen {
                proto: listen.proto,
                port: backend.port,
            };
            let allowed = self.allowed(from, backend.end, address, at)?;
            verdicts.insert(name, allowed);
        }
        let mut backends: Vec<(String, bool)> = verdicts.into_iter().collect();
        backends.sort();
        Ok(backends)
    }
}

/// The name a party answers with, and is called by in reports.
#[must_use]
pub fn name_of(plan: &Plan, party: Party) -> String {
    match party {
        Party::Pod(index) => plan.pods[index].key(),
        Party::Outside(index) => format!("ip:{}", plan.outside[index].address),
        Party::Service(index) => format!("svc:{}", plan::key(&plan.services[index])),
    }
}

fn protocol(proto: Proto) -> Protocol {
    match proto {
        Proto::Tcp => Protocol::Tcp,
        Proto::Udp => Protocol::Udp,
        Proto::Sctp => Protocol::Sctp,
    }
}
