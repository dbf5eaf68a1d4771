//! `protocols` of ClusterNetworkPolicy rules.

use weir_abi::Proto;
use weir_crd::{Port, Protocol, ProtocolPorts};

use super::{check_count, join, unknown};
use crate::port::{PortName, PortSet, RulePorts, number, range};
use crate::selector::Refusal;

/// `only_pods`: every peer of the rule names pods, which have named ports. The error is (field below
/// the rule, reason).
pub(super) fn parse(protocols: &[Protocol], only_pods: bool) -> Result<RulePorts, Refusal> {
    check_count("protocols", protocols.len())?;
    let (mut ranges, mut named) = (Vec::new(), Vec::new());
    for (i, protocol) in protocols.iter().enumerate() {
        let below = |(field, reason): Refusal| (join(&format!("protocols[{i}]"), &field), reason);
        match one(protocol).map_err(below)? {
            Ports::Range(found) => ranges.push(found),
            Ports::Named(name) => {
                if !only_pods {
                    let reason =
                        "stands beside networks, nodes or domainNames, which have no named ports";
                    let refusal = ("destinationNamedPort".to_owned(), reason.to_owned());
                    return Err(below(refusal));
                }
                // The name alone says nothing of the protocol.
                named.extend([Proto::TCP, Proto::UDP, Proto::SCTP].map(|proto| PortName {
                    proto,
                    name: name.clone(),
                }));
            }
        }
    }
    named.sort();
    named.dedup();
    Ok(RulePorts {
        numeric: PortSet::new(ranges),
        named,
    })
}

enum Ports {
    Range((u32, u32)),
    Named(String),
}

fn one(protocol: &Protocol) -> Result<Ports, Refusal> {
    let refuse = |reason: &str| Err((String::new(), reason.to_owned()));
    if let Some((field, reason)) = unknown(&protocol.other) {
        return Err((field, reason.to_owned()));
    }
    let named = protocol.destination_named_port.as_ref();
    let numbered = [
        ("tcp", Proto::TCP, &protocol.tcp),
        ("udp", Proto::UDP, &protocol.udp),
        ("sctp", Proto::SCTP, &protocol.sctp),
    ];
    let mut set = numbered
        .into_iter()
        .filter_map(|(field, proto, ports)| Some((field, proto, ports.as_ref()?)));
    match (named, set.next(), set.next()) {
        (None, None, _) => refuse("names no protocol"),
        (Some(name), None, _) if name.is_empty() => refuse("names no protocol"),
        (Some(name), None, _) => Ok(Ports::Named(name.clone())),
        (None, Some((field, proto, ports)), None) => ports_of(proto, ports)
            .map(Ports::Range)
            .map_err(|(below, reason)| (join(field, &below), reason)),
        _ => refuse("has more than one field"),
    }
}

fn ports_of(proto: Proto, ports: &ProtocolPorts) -> Result<(u32, u32), Refusal> {
    if let Some((field, reason)) = unknown(&ports.other) {
        return Err((field, reason.to_owned()));
    }
    let Some(port) = &ports.destination_port else {
        return Err((String::new(), "names no destinationPort".to_owned()));
    };
    let (first, last) =
        bounds(port).map_err(|(below, reason)| (join("destinationPort", &below), reason))?;
    Ok(range(proto, first, last))
}

/// First and last port.
fn bounds(port: &Port) -> Result<(u16, u16), Refusal> {
    let refuse = |field: &str, reason: &str| Err((field.to_owned(), reason.to_owned()));
    if let Some((field, reason)) = unknown(&port.other) {
        return refuse(&field, reason);
    }
    let valid = |field: &str, value: i64| {
        number(value).ok_or_else(|| (field.to_owned(), format!("{value} is not in 1-65535")))
    };
    match (port.number, &port.range) {
        (None, None) => refuse("", "has neither number nor range"),
        (Some(_), Some(_)) => refuse("", "has both number and range"),
        (Some(single), None) => {
            let single = valid("number", single)?;
            Ok((single, single))
        }
        (None, Some(range)) => {
            if let Some((field, reason)) = unknown(&range.other) {
                return refuse(&format!("range.{field}"), reason);
            }
            let (Some(start), Some(end)) = (range.start, range.end) else {
                return refuse("range", "lacks start or end");
            };
            let (first, last) = (valid("range.start", start)?, valid("range.end", end)?);
            if first >= last {
                return refuse("range", &format!("start {first} is not below end {last}"));
            }
            Ok((first, last))
        }
    }
}
