//! Endpoints and ports as people write them (docs/cli.md).

use std::net::IpAddr;
use std::str::FromStr;

use weir_oracle::{End, Family, Protocol};

use super::world::World;

/// One end of a question, resolved against the objects as far as names go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    End(End),
    Service { namespace: String, name: String },
}

/// `NS/NAME`, or `NAME` in the default namespace.
fn qualified(text: &str, namespace: &str) -> Result<(String, String), String> {
    let (namespace, name) = text.split_once('/').unwrap_or((namespace, text));
    if namespace.is_empty() || name.is_empty() || name.contains('/') {
        return Err(format!("{text:?} is not of the form NS/NAME"));
    }
    Ok((namespace.to_owned(), name.to_owned()))
}

/// `NS/POD`, `NS/WORKLOAD`, `svc:NS/NAME`, `node:NAME`, `ip:ADDR` or an address.
pub(super) fn place(text: &str, namespace: &str, world: &World) -> Result<Place, String> {
    if let Some(rest) = text.strip_prefix("svc:") {
        let (namespace, name) = qualified(rest, namespace)?;
        return Ok(Place::Service { namespace, name });
    }
    if let Some(name) = text.strip_prefix("node:") {
        return Ok(Place::End(End::Node(name.to_owned())));
    }
    if let Some(rest) = text.strip_prefix("ip:") {
        let addr = rest
            .parse()
            .map_err(|_| format!("{rest:?} is no IP address"))?;
        return Ok(Place::End(End::Address(addr)));
    }
    if let Ok(addr) = IpAddr::from_str(text) {
        return Ok(Place::End(End::Address(addr)));
    }
    if text.is_empty() {
        return Err("an end is empty: write NS/POD, svc:NS/NAME, node:NAME or ip:ADDR".to_owned());
    }
    Ok(Place::End(pod(text, namespace, world)?))
}

/// `NS/POD` or `NS/WORKLOAD`.
pub(super) fn pod(text: &str, namespace: &str, world: &World) -> Result<End, String> {
    let (namespace, name) = qualified(text, namespace)?;
    let (namespace, name) = world.pod(&namespace, &name)?;
    Ok(End::Pod { namespace, name })
}

/// A number or a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Port {
    Number(u16),
    Name(String),
}

/// `N|NAME[/PROTOCOL]`.
pub(super) fn port(text: &str) -> Result<(Port, Option<Protocol>), String> {
    let (port, over) = match text.split_once('/') {
        Some((port, name)) => (port, Some(protocol(name)?)),
        None => (text, None),
    };
    let looks_numeric = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let port = if looks_numeric {
        match port.parse() {
            Ok(number) if number > 0 => Port::Number(number),
            _ => return Err(format!("{port} is no port: it must be 1 to 65535")),
        }
    } else if port.is_empty() || port.starts_with('-') {
        return Err(format!("{text:?} is no port: write a number or a name"));
    } else {
        Port::Name(port.to_owned())
    };
    Ok((port, over))
}

/// In any case.
pub(super) fn protocol(text: &str) -> Result<Protocol, String> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "sctp" => Ok(Protocol::Sctp),
        "icmp" | "icmpv6" => Ok(Protocol::Icmp),
        _ => Err(format!("{text:?} is none of tcp, udp, sctp, icmp")),
    }
}

/// `IPv4` or `IPv6`, in any case.
pub(super) fn family(text: &str) -> Result<Family, String> {
    match text.to_ascii_lowercase().as_str() {
        "ipv4" => Ok(Family::V4),
        "ipv6" => Ok(Family::V6),
        _ => Err(format!("{text:?} is neither IPv4 nor IPv6")),
    }
}

/// `reply`, or `new` for the first packet of a connection.
pub(super) fn is_reply(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "reply" => Ok(true),
        "new" => Ok(false),
        _ => Err(format!("state {text:?} is neither reply nor new")),
    }
}
