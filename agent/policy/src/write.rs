//! Single writes to the kernel's maps.

use weir_abi::Addr;
use weir_abi::policy::{ClassId, Decision, DecisionKey, IdKey, Interval, LpmKey, RuleId};

/// One write to one element of one map. Nothing else ever changes a policy map, so that a list of
/// writes can be cut off anywhere.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Write {
    /// `IDS`: update.
    PutId {
        /// The content.
        key: IdKey,
        /// Its number.
        id: u32,
    },
    /// `IDS`: delete.
    DeleteId {
        /// The content.
        key: IdKey,
    },
    /// `RULES`: update; the text is at most [`weir_abi::policy::RuleInfo::TEXT`] bytes of JSON.
    PutRule {
        /// The rule.
        id: RuleId,
        /// Its name as JSON.
        text: String,
    },
    /// `RULES`: delete.
    DeleteRule {
        /// The rule.
        id: RuleId,
    },
    /// `INTERVALS`: set one element of the array.
    PutInterval {
        /// Index in the array.
        at: u32,
        /// What it becomes.
        interval: Interval,
    },
    /// `DECISIONS`: update.
    PutDecision {
        /// The row.
        key: DecisionKey,
        /// What it becomes.
        decision: Decision,
    },
    /// `DECISIONS`: delete.
    DeleteDecision {
        /// The row.
        key: DecisionKey,
    },
    /// `PEERS`: update.
    PutPeer {
        /// The address.
        addr: Addr,
        /// Its class.
        class: ClassId,
    },
    /// `PEERS`: delete.
    DeletePeer {
        /// The address.
        addr: Addr,
    },
    /// `CIDRS`: update.
    PutCidr {
        /// The prefix.
        key: LpmKey,
        /// The class of its addresses.
        class: ClassId,
    },
    /// `CIDRS`: delete.
    DeleteCidr {
        /// The prefix.
        key: LpmKey,
    },
    /// `POLICY_SLOTS`: store [`weir_abi::policy::PolicySlot::groups`].
    SetGroups {
        /// Index in the array.
        slot: u32,
        /// Both groups, packed.
        groups: u64,
    },
    /// `POLICY_SLOTS`: store [`weir_abi::policy::PolicySlot::epoch`].
    SetEpoch {
        /// Index in the array.
        slot: u32,
        /// The epoch in the low 32 bits, with or without [`crate::EPOCH_PENDING`].
        epoch: u64,
    },
}
