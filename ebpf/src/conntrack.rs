//! The conntrack maps. Kernel only.
//!
//! An LRU map recycles an element at once, so a pointer to an entry may become one to another
//! flow's. Programs therefore decide on a copy; what is written in place is a timestamp, or a
//! compare-and-exchange on a word that holds the flow's tag or an incarnation, or it is preceded
//! by a look at the tag.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use weir_abi::Proto;
use weir_abi::conntrack::{CtEntry, CtKey, Stamp, Tuple, flags};
use weir_abi::map::{MAX_CT_EST, MAX_CT_NEW};
use weir_abi::policy::RuleVerdict;

use crate::{atomic, dry_run};
use crate::scratch::Scratch;
use crate::state::{self, Ticks};

#[map(name = "CT_NEW")]
static NEW: LruHashMap<CtKey, CtEntry> = LruHashMap::with_max_entries(MAX_CT_NEW, 0);
#[map(name = "CT_EST")]
static ESTABLISHED: LruHashMap<CtKey, CtEntry> = LruHashMap::with_max_entries(MAX_CT_EST, 0);

/// How far an entry's clock may run ahead of its twin's: packets of one direction touch only one
/// of the two.
pub const TWIN_LAG: Ticks = 8;

/// Now, in nanoseconds, as of the kernel's last look at its clock.
#[inline(always)]
pub fn clock() -> u64 {
    // SAFETY: the helper takes nothing.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// A time in ticks.
#[inline(always)]
pub fn ticks(clock: u64) -> Ticks {
    (clock >> 30) as Ticks
}

/// Now, in ticks.
#[inline(always)]
pub fn now() -> Ticks {
    ticks(clock())
}

/// A tuple's key, and whether its source is the higher end.
#[inline(always)]
pub fn key(tuple: &Tuple, proto: Proto) -> (CtKey, bool) {
    CtKey::sorted(tuple, proto)
}

/// The entry under a key, whatever its state.
#[inline(always)]
fn entry(key: &CtKey) -> Option<&'static mut CtEntry> {
    let entry = match ESTABLISHED.get_ptr_mut(key) {
        Some(entry) => entry,
        None => NEW.get_ptr_mut(key)?,
    };
    // SAFETY: a map value, valid memory until the program ends; see the module's comment for its
    // content.
    Some(unsafe { &mut *entry })
}

/// The entry of an established flow, in place: another flow may get the element at any time.
#[inline(always)]
pub fn established(key: &CtKey) -> Option<*mut CtEntry> {
    ESTABLISHED.get_ptr_mut(key)
}

#[inline(always)]
fn over(key: &CtKey, entry: &CtEntry, now: Ticks) -> bool {
    entry.version != CtEntry::VERSION
        || state::expired(entry.seen, key.proto(), entry.last_seen, now)
}

/// Looks a wire tuple up: fills `s.key` and `s.from_high`, and if there is a live entry (then the
/// answer is 1) `s.entry` and `s.original`.
#[inline(never)]
pub fn find(s: &mut Scratch, tuple: &Tuple, proto: Proto) -> u32 {
    let (key, from_high) = key(tuple, proto);
    s.key = key;
    s.from_high = from_high as u32;
    let Some(found) = entry(&s.key) else {
        return 0;
    };
    // By words, into memory that is not the map's: a plain assignment may be a byte-wise loop.
    // SAFETY: both are valid entries, and in different maps.
    unsafe { core::ptr::copy_nonoverlapping(&raw const *found, &raw mut s.entry, 1) };
    if over(&s.key, &s.entry, s.now) {
        return 0;
    }
    s.original = ((s.entry.flags & flags::INITIATOR_HIGH != 0) == from_high) as u32;
    1
}

/// Removes `s.entry`, which stands under `s.key`, and its twin.
#[inline(never)]
pub fn remove(s: &mut Scratch) -> u32 {
    if dry_run::is_on() {
        dry_run::removed(s);
    } else {
        if s.entry.flags & flags::NAT != 0 {
            s.twin = CtKey::sorted(&s.entry.other, s.key.proto()).0;
            // The twin may have been evicted, and its tuple be another flow's by now.
            if entry(&s.twin).is_some_and(|twin| twin.tag == s.entry.tag) {
                delete(&s.twin);
            }
        }
        delete(&s.key);
    }
    0
}

/// Removes one key from both maps. That it stands in one of them only is no error.
#[inline(always)]
fn delete(key: &CtKey) {
    let _ = ESTABLISHED.remove(key);
    let _ = NEW.remove(key);
}

/// What became of a new entry.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// It stands.
    Yes = 0,
    /// The key is another flow's, or another CPU has just opened this one.
    Taken = 1,
    /// The map refused it.
    Full = 2,
}

/// Writes a new entry under a key, unless that is another flow's.
#[inline(always)]
pub fn insert_new(key: &CtKey, entry: &CtEntry, now: Ticks) -> Inserted {
    match insert(key, entry, now) {
        0 => Inserted::Yes,
        1 => Inserted::Taken,
        _ => Inserted::Full,
    }
}

#[inline(never)]
fn insert(key: &CtKey, new: &CtEntry, now: Ticks) -> u32 {
    const EEXIST: i32 = -17;
    if let Some(there) = entry(key) {
        let over = over(key, there, now);
        // A port of the node's is given on sooner.
        let own = flags::SNAT | flags::KEY_TRANSLATED;
        let spent = new.flags & own == own
            && there.flags & own == own
            && state::spent(there.seen, key.proto(), now.wrapping_sub(there.last_seen));
        if dry_run::is_on() {
            // What a dry run has not removed has the new flow's tag.
            let taken = !over && !spent && there.tag != new.tag;
            return if taken { Inserted::Taken } else { Inserted::Yes } as u32;
        }
        if !over && !spent {
            return Inserted::Taken as u32;
        }
        if !over {
            forget_first(key, there);
        }
        delete(key);
    }
    if dry_run::is_on() {
        return Inserted::Yes as u32;
    }
    match NEW.insert(key, new, BPF_NOEXIST as u64) {
        Ok(()) => Inserted::Yes as u32,
        Err(EEXIST) => Inserted::Taken as u32,
        Err(_) => Inserted::Full as u32,
    }
}

/// Removes the first entry of the translated flow whose second one this is.
#[inline(never)]
fn forget_first(key: &CtKey, second: &CtEntry) -> u32 {
    let first = CtKey::sorted(&second.other, key.proto()).0;
    if entry(&first).is_some_and(|first| first.tag == second.tag) {
        delete(&first);
    }
    0
}

/// Removes the second entry of a flow whose first one could not be written.
#[inline(always)]
pub fn undo(key: &CtKey) {
    if !dry_run::is_on() {
        delete(key);
    }
}

/// Notes a packet of the tracked flow `s.entry`. Uses `s.twin`, and changes `s.entry`.
#[inline(always)]
pub fn touch(s: &mut Scratch) {
    if dry_run::is_on() {
        return;
    }
    let (proto, tcp_flags) = (s.packet.proto, s.packet.tcp_flags);
    let seen = state::advance(s.entry.seen, proto, s.original != 0, tcp_flags);
    if seen == s.entry.seen {
        let idle = s.now.wrapping_sub(s.entry.last_seen);
        if idle == 0 || (idle < TWIN_LAG && s.entry.flags & flags::NAT != 0) {
            return;
        }
    }
    update(s, seen);
}

/// The slow part of [`touch`]: the state or the clock has moved.
#[inline(never)]
fn update(s: &mut Scratch, seen: u32) -> u32 {
    if s.entry.flags & flags::NAT != 0 {
        s.twin = CtKey::sorted(&s.entry.other, s.key.proto()).0;
        let tag = s.entry.tag;
        set(&s.twin, tag, seen, s.now);
    }
    set(&s.key, s.entry.tag, seen, s.now)
}

/// Brings one entry up to date, and into the map that its state belongs to.
#[inline(never)]
fn set(key: &CtKey, tag: u32, seen: u32, now: Ticks) -> u32 {
    let Some(entry) = entry(key) else {
        return 0;
    };
    if entry.tag != tag {
        return 0;
    }
    let was = state::established(entry.seen);
    let seen = seen | entry.seen;
    entry.seen = seen;
    entry.last_seen = now;
    let is = state::established(seen);
    // Of a flow that is answered from elsewhere, nothing shows that it is more than a forged packet or
    // two: it must not displace those that are known to be.
    let unseen = entry.flags & flags::DSR != 0 && entry.backend.0 != 0;
    if was == is || unseen {
        return 0;
    }
    // Another CPU may have moved the flow already, and the element be another flow's by now: of what
    // is read once, the tag says whose it was.
    let mut moved = MaybeUninit::<CtEntry>::uninit();
    // SAFETY: a map value, which is valid memory, and this function's own.
    unsafe { core::ptr::copy_nonoverlapping(&raw const *entry, moved.as_mut_ptr(), 1) };
    // SAFETY: just written whole.
    let moved = unsafe { moved.assume_init_ref() };
    if moved.tag != tag || moved.egress.tag() != tag & Stamp::TAG_BITS {
        return 0;
    }
    // The new place is written before the old one goes, so that the flow is never unknown.
    if is {
        if ESTABLISHED.insert(key, moved, BPF_ANY as u64).is_ok() {
            let _ = NEW.remove(key);
        }
    } else if NEW.insert(key, moved, BPF_ANY as u64).is_ok() {
        let _ = ESTABLISHED.remove(key);
    }
    0
}

/// Writes a new verdict into the entry under `s.key`, if that is still the flow's and nobody else
/// has.
#[inline(never)]
pub fn restamp(s: &mut Scratch, ingress: u32, rule: u32, new: u64) -> u32 {
    if dry_run::is_on() {
        return 0;
    }
    let Some(entry) = entry(&s.key) else {
        return 0;
    };
    let (stamp, shown, old) = if ingress != 0 {
        (
            &raw mut entry.ingress,
            &raw mut entry.ingress_rule,
            s.entry.ingress,
        )
    } else {
        (
            &raw mut entry.egress,
            &raw mut entry.egress_rule,
            s.entry.egress,
        )
    };
    if atomic::compare_exchange(stamp.cast(), old.0, Stamp(new).0) {
        // SAFETY: a field of a map value. It is for display: the stamp decides.
        unsafe { *shown = RuleVerdict(rule) };
    }
    0
}

/// Notes the way to and from the flow's end on another node in the entry under `s.key`, if that is still the
/// flow's.
#[inline(never)]
pub fn set_way(s: &mut Scratch, uplink: u32, generation: u32) -> u32 {
    if dry_run::is_on() {
        return 0;
    }
    if let Some(entry) = entry(&s.key) {
        let new = s.entry.way.by(uplink, generation);
        atomic::compare_exchange((&raw mut entry.way).cast(), s.entry.way.0, new.0);
    }
    0
}

/// Makes an end of the flow this endpoint's, if it was nobody's.
#[inline(never)]
pub fn adopt(s: &mut Scratch, initiator: u32, incarnation: u32) -> u32 {
    if dry_run::is_on() {
        return 0;
    }
    if let Some(entry) = entry(&s.key) {
        let field = if initiator != 0 {
            &raw mut entry.initiator
        } else {
            &raw mut entry.responder
        };
        atomic::compare_exchange32(field, 0, incarnation);
    }
    0
}
