//! Policy routing rules.

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    rule::{RuleAction, RuleAttribute, RuleMessage},
};

use super::Netlink;
use crate::error::Result;

/// A rule that sends what matches to a routing table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// IPv6, else IPv4.
    pub ipv6: bool,
    /// Position; lower comes first.
    pub priority: u32,
    /// The table to look in.
    pub table: u32,
    /// The packet's mark, and which of its bits count.
    pub mark: Option<(u32, u32)>,
    /// Source prefix, of the rule's family.
    pub from: Option<IpNetwork>,
    /// Destination prefix, of the rule's family.
    pub to: Option<IpNetwork>,
    /// Name of the link the packet came in by.
    pub input: Option<String>,
}

impl Netlink {
    /// The rules of both families that look up a table, by family and priority.
    pub fn rules(&self) -> Result<Vec<Rule>> {
        let mut rules = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RuleMessage::default();
            request.header.family = family;
            let request = RouteNetlinkMessage::GetRule(request);
            rules.extend(
                self.dump("RTM_GETRULE", "rules", &request)?
                    .into_iter()
                    .filter_map(parse),
            );
        }
        rules.sort_by_key(|rule| (rule.ipv6, rule.priority));
        Ok(rules)
    }

    /// Adds a rule; [`crate::Error::exists`] if the same is there.
    pub fn add_rule(&self, rule: &Rule) -> Result<()> {
        let request = RouteNetlinkMessage::NewRule(message(rule));
        self.act(
            "RTM_NEWRULE",
            &object(rule),
            request,
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }

    /// Removes a rule; false if it is not there.
    pub fn delete_rule(&self, rule: &Rule) -> Result<bool> {
        let request = RouteNetlinkMessage::DelRule(message(rule));
        match self.act("RTM_DELRULE", &object(rule), request, 0) {
            Ok(()) => Ok(true),
            Err(error) if error.is_gone() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn object(rule: &Rule) -> String {
    let family = if rule.ipv6 { "IPv6" } else { "IPv4" };
    format!("{family} rule {} to table {}", rule.priority, rule.table)
}

fn message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = if rule.ipv6 {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    };
    message.header.action = RuleAction::ToTable;
    let attributes = &mut message.attributes;
    attributes.push(RuleAttribute::Priority(rule.priority));
    attributes.push(RuleAttribute::Table(rule.table));
    if let Some((mark, mask)) = rule.mark {
        attributes.extend([RuleAttribute::FwMark(mark), RuleAttribute::FwMask(mask)]);
    }
    if let Some(from) = rule.from {
        message.header.src_len = from.prefix();
        attributes.push(RuleAttribute::Source(from.network()));
    }
    if let Some(to) = rule.to {
        message.header.dst_len = to.prefix();
        attributes.push(RuleAttribute::Destination(to.network()));
    }
    attributes.extend(rule.input.clone().map(RuleAttribute::Iifname));
    message
}

fn parse(message: RouteNetlinkMessage) -> Option<Rule> {
    let RouteNetlinkMessage::NewRule(message) = message else {
        return None;
    };
    if message.header.action != RuleAction::ToTable {
        return None;
    }
    let (mut mark, mut mask) = (None, u32::MAX);
    let mut rule = Rule {
        ipv6: message.header.family == AddressFamily::Inet6,
        priority: 0,
        table: message.header.table.into(),
        mark: None,
        from: None,
        to: None,
        input: None,
    };
    for attribute in message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = priority,
            RuleAttribute::Table(table) => rule.table = table,
            RuleAttribute::FwMark(value) => mark = Some(value),
            RuleAttribute::FwMask(value) => mask = value,
            RuleAttribute::Source(ip) => {
                rule.from = IpNetwork::new(ip, message.header.src_len).ok();
            }
            RuleAttribute::Destination(ip) => {
                rule.to = IpNetwork::new(ip, message.header.dst_len).ok();
            }
            RuleAttribute::Iifname(name) => rule.input = Some(name),
            _ => {}
        }
    }
    rule.mark = mark.map(|mark| (mark, mask));
    Some(rule)
}
