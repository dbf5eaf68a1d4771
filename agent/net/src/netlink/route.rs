//! Routes.

use std::{fmt, net::IpAddr};

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    RouteNetlinkMessage,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
        RouteProtocol, RouteScope, RouteType,
    },
};

use super::{Netlink, addr::family};
use crate::error::Result;

/// How far a route's destination is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Behind a gateway, or anywhere.
    #[default]
    Universe,
    /// On the link itself.
    Link,
    /// This host.
    Host,
}

/// What a route does with a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RouteKind {
    /// Sends it on.
    #[default]
    Unicast,
    /// Drops it in silence.
    Blackhole,
    /// Refuses it with an ICMP error.
    Unreachable,
    /// Anything else (local, broadcast, …); only in lists.
    Other,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to; `0.0.0.0/0` or `::/0` for the default route.
    pub destination: IpNetwork,
    /// Index of the outgoing link.
    pub index: Option<u32>,
    /// The next hop.
    pub gateway: Option<IpAddr>,
    /// The source address the host itself takes.
    pub source: Option<IpAddr>,
    /// IPv4 only; IPv6 routes have no scope.
    pub scope: Scope,
    /// The next hop is on the link, whatever the routes say.
    pub onlink: bool,
    /// Table; 254 is `main`.
    pub table: u32,
    /// Metric; none is 0 for IPv4 and 1024 for IPv6.
    pub priority: Option<u32>,
    /// Path MTU, bytes.
    pub mtu: Option<u32>,
    /// Who installed it (`RTPROT_…`, linux/rtnetlink.h): 3 boot, 4 static, 2 the kernel.
    pub protocol: u8,
    /// What it does.
    pub kind: RouteKind,
}

impl Route {
    /// `RT_TABLE_MAIN`.
    pub const MAIN: u32 = RouteHeader::RT_TABLE_MAIN as u32;
    /// `RTPROT_BOOT`: what `ip route add` writes.
    pub const BOOT: u8 = 3;
    /// `RTPROT_STATIC`.
    pub const STATIC: u8 = 4;

    /// A unicast route of the main table, scope universe, protocol boot.
    pub fn to(destination: IpNetwork) -> Self {
        Self {
            destination,
            index: None,
            gateway: None,
            source: None,
            scope: Scope::Universe,
            onlink: false,
            table: Self::MAIN,
            priority: None,
            mtu: None,
            protocol: Self::BOOT,
            kind: RouteKind::Unicast,
        }
    }

    /// The same through a link, where the destination itself is (`scope link`).
    #[must_use]
    pub fn on_link(mut self, index: u32) -> Self {
        self.index = Some(index);
        self.scope = Scope::Link;
        self
    }

    /// The same through a link and a gateway.
    #[must_use]
    pub fn via(mut self, index: u32, gateway: IpAddr) -> Self {
        self.index = Some(index);
        self.gateway = Some(gateway);
        self.scope = Scope::Universe;
        self
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "route {}", self.destination)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        if let Some(index) = self.index {
            write!(f, " dev #{index}")?;
        }
        if self.table != Self::MAIN {
            write!(f, " table {}", self.table)?;
        }
        Ok(())
    }
}

impl Netlink {
    /// All routes of all tables and both families, but for what the kernel clones.
    pub fn routes(&self) -> Result<Vec<Route>> {
        let mut request = RouteMessage::default();
        request.header.kind = RouteType::Unspec;
        let request = RouteNetlinkMessage::GetRoute(request);
        let all = self.dump("RTM_GETROUTE", "routes", &request)?;
        Ok(all.into_iter().filter_map(parse).collect())
    }

    /// Adds a route; [`crate::Error::exists`] if there is one to that destination with that
    /// priority.
    pub fn add_route(&self, route: &Route) -> Result<()> {
        let request = RouteNetlinkMessage::NewRoute(message(route));
        self.act(
            "RTM_NEWROUTE",
            &route.to_string(),
            request,
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }

    /// Adds a route, or puts it in the place of the one to the same destination, table and
    /// priority.
    pub fn replace_route(&self, route: &Route) -> Result<()> {
        let request = RouteNetlinkMessage::NewRoute(message(route));
        self.act(
            "RTM_NEWROUTE",
            &route.to_string(),
            request,
            NLM_F_CREATE | NLM_F_REPLACE,
        )
    }

    /// Removes a route; false if it is not there.
    pub fn delete_route(&self, route: &Route) -> Result<bool> {
        let request = RouteNetlinkMessage::DelRoute(message(route));
        match self.act("RTM_DELROUTE", &route.to_string(), request, 0) {
            Ok(()) => Ok(true),
            Err(error) if error.is_gone() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = family(route.destination.ip());
    header.destination_prefix_length = route.destination.prefix();
    header.table = u8::try_from(route.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    header.protocol = RouteProtocol::from(route.protocol);
    header.scope = match route.scope {
        Scope::Universe => RouteScope::Universe,
        Scope::Link => RouteScope::Link,
        Scope::Host => RouteScope::Host,
    };
    header.kind = match route.kind {
        RouteKind::Unicast | RouteKind::Other => RouteType::Unicast,
        RouteKind::Blackhole => RouteType::BlackHole,
        RouteKind::Unreachable => RouteType::Unreachable,
    };
    if route.onlink {
        header.flags |= RouteFlags::Onlink;
    }
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Table(route.table));
    if route.destination.prefix() > 0 {
        let network = route.destination.network();
        attributes.push(RouteAttribute::Destination(RouteAddress::from(network)));
    }
    attributes.extend(route.index.map(RouteAttribute::Oif));
    attributes.extend(route.gateway.map(|g| RouteAttribute::Gateway(g.into())));
    attributes.extend(route.source.map(|s| RouteAttribute::PrefSource(s.into())));
    attributes.extend(route.priority.map(RouteAttribute::Priority));
    attributes.extend(
        route
            .mtu
            .map(|m| RouteAttribute::Metrics(vec![RouteMetric::Mtu(m)])),
    );
    message
}

fn parse(message: RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = message else {
        return None;
    };
    let header = &message.header;
    if header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let any = match u8::from(header.address_family) {
        f if i32::from(f) == libc::AF_INET => IpAddr::from([0; 4]),
        f if i32::from(f) == libc::AF_INET6 => IpAddr::from([0; 16]),
        _ => return None,
    };
    let prefix = header.destination_prefix_length;
    let mut route = Route::to(IpNetwork::new(any, prefix).ok()?);
    route.table = header.table.into();
    route.protocol = header.protocol.into();
    route.onlink = header.flags.contains(RouteFlags::Onlink);
    route.scope = match header.scope {
        RouteScope::Link => Scope::Link,
        RouteScope::Host => Scope::Host,
        _ => Scope::Universe,
    };
    route.kind = match header.kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::BlackHole => RouteKind::Blackhole,
        RouteType::Unreachable => RouteKind::Unreachable,
        _ => RouteKind::Other,
    };
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => {
                route.destination = IpNetwork::new(address(&to)?, prefix).ok()?;
            }
            RouteAttribute::Gateway(hop) => route.gateway = address(&hop),
            RouteAttribute::PrefSource(source) => route.source = address(&source),
            RouteAttribute::Oif(index) => route.index = Some(index),
            RouteAttribute::Table(table) => route.table = table,
            RouteAttribute::Priority(priority) => route.priority = Some(priority),
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(route)
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}
