//! Peers of ClusterNetworkPolicy rules.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use weir_crd::{EgressPeer, IngressPeer, NamespacedPod, Other};

use super::{check_count, namespaced_pods, required, unknown};
use crate::cidr::Block;
use crate::policy::{Namespaces, PeerKind};
use crate::selector::{Refusal, Selector};
use crate::tier::Action;

/// Most characters of a CIDR (`MaxLength`).
const MOST_CIDR: usize = 43;

/// A peer of either direction.
#[derive(Default)]
pub(super) struct Raw<'a> {
    namespaces: Option<&'a LabelSelector>,
    pods: Option<&'a NamespacedPod>,
    nodes: Option<&'a LabelSelector>,
    networks: Option<&'a [String]>,
    domain_names: Option<&'a [String]>,
    other: Option<&'a Other>,
}

impl<'a> From<&'a IngressPeer> for Raw<'a> {
    fn from(peer: &'a IngressPeer) -> Self {
        Self {
            namespaces: peer.namespaces.as_ref(),
            pods: peer.pods.as_ref(),
            other: Some(&peer.other),
            ..Self::default()
        }
    }
}

impl<'a> From<&'a EgressPeer> for Raw<'a> {
    fn from(peer: &'a EgressPeer) -> Self {
        Self {
            namespaces: peer.namespaces.as_ref(),
            pods: peer.pods.as_ref(),
            nodes: peer.nodes.as_ref(),
            networks: peer.networks.as_deref(),
            domain_names: peer.domain_names.as_deref(),
            other: Some(&peer.other),
        }
    }
}

/// What a peer matches.
pub(super) struct Parsed {
    /// Any of them; none for names, which match nothing yet.
    pub kinds: Vec<PeerKind>,
    /// It names pods, which have named ports.
    pub are_pods: bool,
    /// It names domains.
    pub domain_names: bool,
}

/// The error is (field below the peer, reason).
pub(super) fn parse(raw: &Raw<'_>, action: Action) -> Result<Parsed, Refusal> {
    let refuse = |field: &str, reason: &str| Err((field.to_owned(), reason.to_owned()));
    if let Some((field, reason)) = raw.other.and_then(unknown) {
        return refuse(&field, reason);
    }
    let fields = [
        raw.namespaces.is_some(),
        raw.pods.is_some(),
        raw.nodes.is_some(),
        raw.networks.is_some(),
        raw.domain_names.is_some(),
    ];
    match fields.iter().filter(|there| **there).count() {
        0 => return refuse("", "names no peer"),
        1 => {}
        _ => return refuse("", "has more than one field"),
    }
    let mut parsed = Parsed {
        kinds: Vec::new(),
        are_pods: raw.namespaces.is_some() || raw.pods.is_some(),
        domain_names: raw.domain_names.is_some(),
    };
    if raw.namespaces.is_some() {
        parsed.kinds.push(PeerKind::Pods {
            namespaces: Namespaces::Selected(required(raw.namespaces, "namespaces")?),
            pods: Selector::default(),
        });
    }
    if let Some(pods) = raw.pods {
        parsed.kinds.push(namespaced_pods(pods)?);
    }
    if raw.nodes.is_some() {
        parsed
            .kinds
            .push(PeerKind::Nodes(required(raw.nodes, "nodes")?));
    }
    if let Some(networks) = raw.networks {
        check_count("networks", networks.len())?;
        for (i, text) in networks.iter().enumerate() {
            let field = || format!("networks[{i}]");
            if text.len() > MOST_CIDR {
                return refuse(&field(), "has more than 43 characters");
            }
            let block = Block::whole(text).map_err(|reason| (field(), reason))?;
            parsed.kinds.push(PeerKind::Block(block));
        }
    }
    if let Some(names) = raw.domain_names {
        check_domain_names(names, action)?;
    }
    Ok(parsed)
}

fn check_domain_names(names: &[String], action: Action) -> Result<(), Refusal> {
    if action != Action::Accept {
        let reason = format!(
            "stands in a rule of action {}, it is for Accept only",
            action.name()
        );
        return Err(("domainNames".to_owned(), reason));
    }
    check_count("domainNames", names.len())?;
    match names.iter().position(|name| !is_domain_name(name)) {
        None => Ok(()),
        Some(i) => Err((
            format!("domainNames[{i}]"),
            format!("{:?} is not a domain name", names[i]),
        )),
    }
}

/// The CRD's pattern:
/// `^(\*\.)?([a-zA-z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.)+[a-zA-z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.?$`
fn is_domain_name(name: &str) -> bool {
    let name = name.strip_prefix("*.").unwrap_or(name);
    let name = name.strip_suffix('.').unwrap_or(name);
    let label_is_good = |label: &str| match label.as_bytes() {
        [] => false,
        [first, rest @ ..] => {
            // `A-z`, as upstream has it, reaches over the signs between Z and a.
            (first.is_ascii_digit() || (b'A'..=b'z').contains(first))
                && rest.last().is_none_or(u8::is_ascii_alphanumeric)
                && rest
                    .iter()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(b))
        }
    };
    name.contains('.') && name.split('.').all(label_is_good)
}
