//! The record of who has which CIDR, as the ConfigMap has it.

use std::collections::BTreeMap;

use weir_net::IpNetwork;

/// The ConfigMap's annotation that says which CIDRs were given out last.
pub const LAST: &str = "weir-cni/last-node-cidrs";

/// What a Node has, or is to be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The Node's `metadata.uid`.
    pub uid: String,
    /// One per family.
    pub cidrs: Vec<IpNetwork>,
}

/// Who has which CIDR.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// By name of the Node.
    pub nodes: BTreeMap<String, Entry>,
    /// Given out last, at most one per family, sorted.
    pub last: Vec<IpNetwork>,
}

impl Record {
    /// Of the ConfigMap's data (`NAME: CIDR[,CIDR] UID`), and the annotation [`LAST`].
    ///
    /// # Errors
    /// An entry cannot be read; it is named. Nothing can be given out then, as what it stands for is
    /// taken.
    pub fn parse(data: &BTreeMap<String, String>, last: Option<&str>) -> Result<Self, String> {
        let mut nodes = BTreeMap::new();
        for (name, text) in data {
            let entry = parse_entry(text).ok_or_else(|| {
                format!("data[{name:?}] is {text:?} instead of CIDRs by comma, a space and the Node's UID: correct it, or remove the line if there is no such Node")
            })?;
            nodes.insert(name.clone(), entry);
        }
        // Without it the search begins at the first.
        let last = last.and_then(parse_cidrs).unwrap_or_default();
        Ok(Self { nodes, last })
    }

    /// The ConfigMap's data.
    pub fn data(&self) -> BTreeMap<String, String> {
        let entries = self.nodes.iter();
        entries
            .map(|(name, entry)| {
                (
                    name.clone(),
                    format!("{} {}", list(&entry.cidrs), entry.uid),
                )
            })
            .collect()
    }

    /// The annotation's value.
    pub fn last(&self) -> String {
        list(&self.last)
    }
}

fn list(cidrs: &[IpNetwork]) -> String {
    let cidrs: Vec<String> = cidrs.iter().map(ToString::to_string).collect();
    cidrs.join(",")
}

fn parse_entry(text: &str) -> Option<Entry> {
    let (cidrs, uid) = text.split_once(' ')?;
    Some(Entry {
        uid: Some(uid.trim()).filter(|uid| !uid.is_empty())?.to_owned(),
        cidrs: parse_cidrs(cidrs)?,
    })
}

fn parse_cidrs(text: &str) -> Option<Vec<IpNetwork>> {
    text.split(',')
        .map(|part| part.contains('/').then(|| part.parse().ok()).flatten())
        .collect()
}
