//! Endpoints that change their groups.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use weir_abi::policy::{GroupId, PolicySlot};

use super::Plan;
use crate::EPOCH_PENDING;
use crate::actual::Actual;
use crate::desired::{Desired, Subject};
use crate::established::Established;
use crate::slab::Number;
use crate::write::Write;

/// An endpoint's slot, as it is and as it is to be.
pub(super) struct SlotChange {
    pub slot: u32,
    pub old: PolicySlot,
    /// (ingress, egress).
    pub new: (GroupId, GroupId),
}

impl SlotChange {
    /// Whether its groups change.
    pub fn flips(&self) -> bool {
        self.old.groups != PolicySlot::pack(self.new.0, self.new.1)
    }

    /// Its part of a plan; what raises its epoch comes after everything else that changes verdicts.
    pub fn write(
        &self,
        aliases: &BTreeMap<GroupId, GroupId>,
        changed: &BTreeSet<GroupId>,
        established: Established,
        plan: &mut Plan,
        epochs: &mut Vec<Write>,
    ) {
        let slot = self.slot;
        let is_changed = [self.new.0, self.new.1]
            .iter()
            .any(|group| changed.contains(group));
        let is_pending = self.old.epoch & EPOCH_PENDING != 0;
        let keeps = established == Established::Keep;
        if self.flips() {
            let (ingress, egress) = PolicySlot::unpack(self.old.groups);
            let pick = |old, new| {
                if old == new {
                    new
                } else {
                    *aliases.get(&new).unwrap_or(&new)
                }
            };
            let first = PolicySlot::pack(pick(ingress, self.new.0), pick(egress, self.new.1));
            let last = PolicySlot::pack(self.new.0, self.new.1);
            plan.flip.push(Write::SetGroups {
                slot,
                groups: first,
            });
            if first != last {
                plan.shrink.push(Write::SetGroups { slot, groups: last });
            }
        } else if !is_changed && (keeps || !is_pending) {
            return;
        }
        let epoch = u64::from(self.old.epoch as u32);
        if !is_pending {
            let epoch = epoch | EPOCH_PENDING;
            plan.extend.push(Write::SetEpoch { slot, epoch });
        }
        if !keeps {
            let epoch = u64::from((epoch as u32).wrapping_add(1));
            epochs.push(Write::SetEpoch { slot, epoch });
        }
    }
}

/// Every slot that the kernel has or is to have. `groups` has the kernel's number of each desired
/// group.
pub(super) fn slots(
    actual: &Actual,
    desired: &Desired,
    groups: &HashMap<Number, GroupId>,
) -> Vec<SlotChange> {
    let all: BTreeSet<u32> = actual
        .slots
        .keys()
        .chain(desired.slots.keys())
        .copied()
        .collect();
    let group = |subject: Subject| match subject {
        Subject::Closed => GroupId::CLOSED,
        Subject::Open => GroupId::OPEN,
        Subject::Group(number) => groups.get(&number).copied().unwrap_or(GroupId::CLOSED),
    };
    all.into_iter()
        .map(|slot| {
            let closed = [Subject::Closed; 2];
            let [ingress, egress] = desired.slots.get(&slot).copied().unwrap_or(closed);
            SlotChange {
                slot,
                old: actual.slot(slot),
                new: (group(ingress), group(egress)),
            }
        })
        .collect()
}
