//! The dry run: a load of the programs that judges and writes to no map of others. Kernel only.
//!
//! The verifier knows the byte below for a constant, so that of everything here nothing is left in
//! the programs that are in force.

use aya_ebpf::bindings::__sk_buff;
use weir_abi::dry_run::state;
use weir_abi::policy::RuleVerdict;
use weir_abi::service::BackendId;

use crate::policy::INGRESS;
use crate::scratch::{Mode, Scratch, scratch_again};

/// Set before load (`override_global`): judge, but write nothing.
#[unsafe(no_mangle)]
static DRY_RUN: u8 = 0;

/// Whether this load of the programs must not write to any map.
#[inline(always)]
pub fn is_on() -> bool {
    // SAFETY: a plain read of a constant, volatile so that the compiler does not assume its
    // initial value.
    unsafe { core::ptr::read_volatile(&raw const DRY_RUN) != 0 }
}

/// Forgets the packet before this one.
#[inline(always)]
pub fn begin(s: &mut Scratch) {
    if is_on() {
        s.report.state = state::REPORTED;
        s.mode = Mode::ALONE;
        s.removed = 0;
    }
}

/// Notes a verdict.
#[inline(always)]
pub fn judged(s: &mut Scratch, direction: u32, verdict: RuleVerdict) {
    if !is_on() {
        return;
    }
    if direction == INGRESS {
        s.report.ingress = verdict;
        s.report.state |= state::INGRESS;
    } else {
        s.report.egress = verdict;
        s.report.state |= state::EGRESS;
    }
}

/// Takes the flow of `s.entry` for removed: see [`tag`].
#[inline(always)]
pub fn removed(s: &mut Scratch) {
    s.removed = s.entry.tag;
}

/// The tag of a new flow: that of the one whose place it takes, by which its entries, which are
/// still there, are told from others'.
#[inline(always)]
pub fn tag(s: &Scratch, random: u32) -> u32 {
    if is_on() && s.removed != 0 {
        s.removed
    } else {
        random
    }
}

/// Hands the report over, in the packet's control block.
#[inline(always)]
pub fn report(skb: *mut __sk_buff, counter: u32) {
    let Some(s) = scratch_again() else {
        return;
    };
    let mut report = s.report;
    report.counter = counter;
    if s.mode == Mode::TRACKED {
        report.state |= state::TRACKED;
    }
    // In the other modes the entry is not this packet's.
    report.backend = if s.mode == Mode::TRACKED || s.mode == Mode::OPENS {
        s.entry.backend
    } else {
        BackendId(0)
    };
    for (i, word) in report.words().into_iter().enumerate() {
        // SAFETY: a tc program may write all five words; volatile keeps them one by one.
        unsafe { (&raw mut (*skb).cb[i]).write_volatile(word) };
    }
}

