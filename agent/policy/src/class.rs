//! Peer classes: one for each signature that addresses have.

use std::collections::HashMap;
use std::sync::Arc;

use weir_abi::policy::LpmKey;

use crate::hash::{ContentHasher, Key};
use crate::lpm::Lpm;
use crate::scope::Scope;

/// What the rules of this node's groups can tell of an address.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Signature {
    /// In a node's pod CIDR, but of no known pod.
    pub unknown_pod: bool,
    /// Sorted numbers of the selectors and blocks that match.
    pub peers: Vec<u32>,
    /// Named ports that rules for these peers ask for, as the pod has them: (index, port).
    pub ports: Vec<(u32, u16)>,
}

impl Signature {
    /// The port of this name, if the address is a pod's that has it.
    pub fn port(&self, index: u32) -> Option<u16> {
        self.ports
            .iter()
            .find(|(i, _)| *i == index)
            .map(|(_, port)| *port)
    }

    fn key(&self, scope: &Scope) -> Key {
        let mut hasher = ContentHasher::new("class");
        hasher
            .number(self.unknown_pod.into())
            .number(self.peers.len() as u64);
        for key in self.peers.iter().filter_map(|number| scope.key(*number)) {
            hasher.field(key);
        }
        for (index, port) in &self.ports {
            if let Some(name) = scope.port_name(*index) {
                hasher
                    .number(name.proto.0.into())
                    .text(&name.name)
                    .number((*port).into());
            }
        }
        hasher.finish()
    }
}

/// All signatures in use, numbered; the first one is that of an address outside that matches
/// nothing.
#[derive(Debug)]
pub(crate) struct Classes {
    pub signatures: Vec<Arc<Signature>>,
    pub keys: Vec<Key>,
    number: HashMap<Arc<Signature>, u32>,
}

impl Classes {
    pub fn new(scope: &Scope) -> Self {
        let mut classes = Self {
            signatures: Vec::new(),
            keys: Vec::new(),
            number: HashMap::new(),
        };
        classes.number(Signature::default(), scope);
        classes
    }

    pub fn number(&mut self, signature: Signature, scope: &Scope) -> u32 {
        if let Some(number) = self.number.get(&signature) {
            return *number;
        }
        let number = self.signatures.len() as u32;
        let signature = Arc::new(signature);
        self.keys.push(signature.key(scope));
        self.signatures.push(Arc::clone(&signature));
        self.number.insert(signature, number);
        number
    }
}

/// What holds for the addresses of one prefix, unless a longer one or a pod says otherwise.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Prefix {
    /// It lies in a node's pod CIDR.
    pub pods: bool,
    /// Sorted numbers of the blocks that hold it.
    pub blocks: Vec<u32>,
}

/// Every prefix that blocks, their excepts and nodes have, each with all that its ancestors say.
pub(crate) fn prefixes<'a>(
    scope: &Scope,
    pod_cidrs: impl Iterator<Item = &'a LpmKey>,
) -> Lpm<Prefix> {
    #[derive(Default)]
    struct Mark {
        pods: bool,
        begin: Vec<u32>,
        end: Vec<u32>,
    }
    let mut marks: HashMap<LpmKey, Mark> = HashMap::new();
    for key in pod_cidrs {
        marks.entry(*key).or_default().pods = true;
    }
    for (number, block) in scope.blocks() {
        marks.entry(block.cidr).or_default().begin.push(number);
        for except in &block.except {
            marks.entry(*except).or_default().end.push(number);
        }
    }
    let mut table = Lpm::default();
    for (key, mark) in marks {
        table.insert(key, mark);
    }
    let mut prefixes = Lpm::default();
    for (key, _) in table.iter() {
        let mut prefix = Prefix::default();
        let mut ended: Vec<u32> = Vec::new();
        for mark in table.holding(key) {
            prefix.pods |= mark.pods;
            prefix.blocks.extend(&mark.begin);
            ended.extend(&mark.end);
        }
        prefix.blocks.retain(|number| !ended.contains(number));
        prefix.blocks.sort_unstable();
        prefixes.insert(*key, prefix);
    }
    prefixes
}
