//! What a dry run reports. A second load of the object with `DRY_RUN` set judges packets of
//! BPF_PROG_TEST_RUN over the same maps and writes to none; what it found stands in the five words
//! of `__sk_buff.cb`, which come back in `ctx_out`. Programs that are in force never touch `cb`.

use crate::policy::RuleVerdict;
use crate::service::BackendId;

/// The name of the byte to set at load.
pub const DRY_RUN: &str = "DRY_RUN";

/// Index of the first word of `cb` in `struct __sk_buff`.
pub const CB: usize = 12;

/// The words of `cb`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// The verdict at the flow's source, if [`state::EGRESS`].
    pub egress: RuleVerdict,
    /// The verdict at its destination, if [`state::INGRESS`].
    pub ingress: RuleVerdict,
    /// Bits of [`state`].
    pub state: u32,
    /// The [`crate::counter::Counter`] that the packet would have raised.
    pub counter: u32,
    /// The backend that the flow goes to, if it is one to a Service; else 0.
    pub backend: BackendId,
}

/// Bits of [`Report::state`].
pub mod state {
    /// Always set: what is zero is no report.
    pub const REPORTED: u32 = 1;
    /// The flow was judged at its source.
    pub const EGRESS: u32 = 2;
    /// It was judged at its destination. Both ends are judged, also if the first denies.
    pub const INGRESS: u32 = 4;
    /// An entry of conntrack decided how the packet is treated.
    pub const TRACKED: u32 = 8;
}

impl Report {
    /// Number of words.
    pub const WORDS: usize = 5;

    /// As it stands in `cb`.
    #[inline(always)]
    pub const fn words(&self) -> [u32; Self::WORDS] {
        [
            self.egress.0,
            self.ingress.0,
            self.state,
            self.counter,
            self.backend.0,
        ]
    }

    /// From the words of `cb`; `None` if no dry run has written them.
    pub const fn from_words(words: [u32; Self::WORDS]) -> Option<Self> {
        let [egress, ingress, state, counter, backend] = words;
        if state & state::REPORTED == 0 {
            return None;
        }
        Some(Self {
            egress: RuleVerdict(egress),
            ingress: RuleVerdict(ingress),
            state,
            counter,
            backend: BackendId(backend),
        })
    }

    /// The verdict at the flow's source, if it was judged there.
    pub fn egress(&self) -> Option<RuleVerdict> {
        (self.state & state::EGRESS != 0).then_some(self.egress)
    }

    /// The verdict at its destination, if it was judged there.
    pub fn ingress(&self) -> Option<RuleVerdict> {
        (self.state & state::INGRESS != 0).then_some(self.ingress)
    }

    /// Whether an entry of conntrack decided how the packet is treated.
    pub const fn tracked(&self) -> bool {
        self.state & state::TRACKED != 0
    }
}
