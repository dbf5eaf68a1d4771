//! Reads the pinned maps and nothing else. It needs no agent: the `weir` command uses it, as root,
//! while the agent is down, and the agent answers `POST /v1/policy/verdict` with it.

use std::{net::IpAddr, path::Path};

use weir_abi::{
    Addr, Proto,
    endpoint::Endpoint,
    map,
    policy::{
        ClassId, Decision, DecisionKey, GroupId, Interval, LpmKey, PolicySlot, RuleId, RuleInfo,
        RuleVerdict,
    },
};
use weir_api::verdict::{FlowDirection, KernelVerdict, VerdictRequest};

use super::{
    Error,
    pins::Pins,
    table::{Elements, Table, Trie, Writes},
};

/// The pinned policy maps, open for reading.
///
/// ```no_run
/// # fn main() -> Result<(), weir_agent::dataplane::Error> {
/// let view = weir_agent::dataplane::PinnedView::open("/sys/fs/bpf/weir".as_ref())?;
/// for (ifindex, endpoint) in view.endpoints()? {
///     println!("{ifindex} {}", endpoint.addr4.to_ip());
/// }
/// # Ok(()) }
/// ```
pub struct PinnedView {
    pub(super) endpoints: Table<u32, Endpoint>,
    pub(super) local_pods: Table<Addr, Endpoint>,
    pub(super) slots: Elements<PolicySlot>,
    pub(super) peers: Table<Addr, ClassId>,
    pub(super) cidrs: Trie<ClassId>,
    pub(super) decisions: Table<DecisionKey, Decision>,
    pub(super) intervals: Elements<Interval>,
    pub(super) rules: Table<RuleId, RuleInfo>,
}

impl PinnedView {
    /// Opens the maps below `bpffs` (for example `/sys/fs/bpf/weir`).
    ///
    /// # Errors
    /// Nothing is pinned there (no agent has run since the last boot), or the caller is not root.
    pub fn open(bpffs: &Path) -> Result<Self, Error> {
        Self::of(&Pins::new(bpffs))
    }

    pub(super) fn of(pins: &Pins) -> Result<Self, Error> {
        let writes = Writes::default();
        Ok(Self {
            endpoints: Table::open(pins, map::ENDPOINTS, &writes)?,
            local_pods: Table::open(pins, map::LOCAL_PODS, &writes)?,
            slots: Elements::open(pins, map::POLICY_SLOTS, &writes)?,
            peers: Table::open(pins, map::PEERS, &writes)?,
            cidrs: Trie::open(pins, map::CIDRS, &writes)?,
            decisions: Table::open(pins, map::DECISIONS, &writes)?,
            intervals: Elements::open(pins, map::INTERVALS, &writes)?,
            rules: Table::open(pins, map::RULES, &writes)?,
        })
    }

    /// This node's endpoints by interface index, sorted.
    ///
    /// # Errors
    /// The kernel's.
    pub fn endpoints(&self) -> Result<Vec<(u32, Endpoint)>, Error> {
        let mut all: Vec<_> = self.endpoints.entries()?.into_iter().collect();
        all.sort_by_key(|(ifindex, _)| *ifindex);
        Ok(all)
    }

    /// The (ingress, egress) groups of a slot.
    ///
    /// # Errors
    /// The slot is outside the array, or the kernel's.
    pub fn groups(&self, slot: u32) -> Result<(GroupId, GroupId), Error> {
        Ok(PolicySlot::unpack(self.slots.get(slot)?.groups))
    }

    /// The name of a rule, as JSON; `None` for fixed reasons and for ids that nothing names.
    ///
    /// # Errors
    /// The kernel's.
    pub fn rule(&self, id: RuleId) -> Result<Option<serde_json::Value>, Error> {
        let Some(info) = self.rules.get(&id)? else {
            return Ok(None);
        };
        let text = info.text.get(..info.len as usize).unwrap_or(&info.text);
        Ok(serde_json::from_slice(text).ok())
    }

    /// What the programs would say of a new flow; `None` when the address is no endpoint of this
    /// node.
    ///
    /// # Errors
    /// The kernel's.
    pub fn verdict(&self, request: &VerdictRequest) -> Result<Option<KernelVerdict>, Error> {
        let Some(endpoint) = self.endpoint(request.endpoint)? else {
            return Ok(None);
        };
        let (ingress, egress) = self.groups(endpoint.slot)?;
        let group = match request.direction {
            FlowDirection::Ingress => ingress,
            FlowDirection::Egress => egress,
        };
        let class = self.class(request.peer)?;
        let verdict = self.judge(group, class, request, &endpoint)?;
        Ok(Some(KernelVerdict {
            allowed: verdict.allowed(),
            rule_id: verdict.rule().0,
            rule: self.rule(verdict.rule())?,
            group: group.0,
            class: class.0,
        }))
    }

    /// The endpoint of this node that has the address.
    pub(super) fn endpoint(&self, address: IpAddr) -> Result<Option<Endpoint>, Error> {
        self.local_pods.get(&address.into())
    }

    fn class(&self, address: IpAddr) -> Result<ClassId, Error> {
        let address = Addr::from(address);
        if let Some(class) = self.peers.get(&address)? {
            return Ok(class);
        }
        Ok(self
            .cidrs
            .get(&LpmKey::host(address))?
            .unwrap_or(ClassId::WORLD))
    }

    fn judge(
        &self,
        group: GroupId,
        class: ClassId,
        request: &VerdictRequest,
        endpoint: &Endpoint,
    ) -> Result<RuleVerdict, Error> {
        let peer = Addr::from(request.peer);
        if peer == endpoint.addr4 || peer == endpoint.addr6 {
            return Ok(RuleVerdict::allow(RuleId::SELF));
        }
        if group == GroupId::OPEN {
            return Ok(RuleVerdict::NOT_SELECTED);
        }
        let Some(Decision { at, len }) = self.row(group, class)? else {
            return Ok(RuleVerdict::deny(RuleId::NO_ROW));
        };
        if len == 0 {
            return Ok(RuleVerdict(at));
        }
        let key = Interval::key(Proto(request.protocol), request.port);
        last_start_up_to(at, len, key, |index| self.intervals.get(index))
    }

    /// The row of a class, else that of its base, else that of the world.
    fn row(&self, group: GroupId, class: ClassId) -> Result<Option<Decision>, Error> {
        for class in [class, class.base(), ClassId::WORLD] {
            if let Some(decision) = self.decisions.get(&DecisionKey { group, class })? {
                return Ok(Some(decision));
            }
        }
        Ok(None)
    }
}

/// The verdict of the last of `len` intervals from `at` that starts at or before `key`.
fn last_start_up_to<E>(
    at: u32,
    len: u32,
    key: u32,
    get: impl Fn(u32) -> Result<Interval, E>,
) -> Result<RuleVerdict, E> {
    let (mut low, mut high) = (0, len);
    let mut verdict = RuleVerdict::deny(RuleId::NO_ROW);
    while low < high {
        let middle = low + (high - low) / 2;
        let interval = get(at + middle)?;
        if interval.start <= key {
            verdict = interval.verdict;
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_finds_the_interval_that_holds_the_key() {
        let verdict = |n| RuleVerdict::allow(RuleId(n));
        let starts = [0, 10, 11, 500, 1 << 22];
        let table: Vec<_> = (64..)
            .zip(starts)
            .map(|(n, start)| Interval {
                start,
                verdict: verdict(n),
            })
            .collect();
        let get = |index: u32| table.get(index as usize - 7).copied().ok_or(());
        for (key, rule) in [
            (0, 64),
            (9, 64),
            (10, 65),
            (11, 66),
            (499, 66),
            (500, 67),
            (u32::MAX, 68),
        ] {
            assert_eq!(
                last_start_up_to(7, 5, key, get),
                Ok(verdict(rule)),
                "key {key}"
            );
        }
        assert_eq!(last_start_up_to(7, 1, 3, get), Ok(verdict(64)));
    }
}
