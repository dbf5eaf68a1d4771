//! The choice for who comes from outside: a function of the client and the set alone, so that every
//! node comes to the same, and a set that changes by one of N backends moves about 1/N of the flows.

use core::hint::black_box;

use weir_abi::service::{BackendState, Service, SetId, Slot, SlotKey};

use super::{Ask, Pick, Tables, around, scale};

/// Most slots that one choice looks at.
pub(super) const WINDOW: u32 = 128;
/// What a client is to the choice: its address, port and protocol, with affinity its address only.
#[inline(always)]
pub(super) fn client_hash(ask: &Ask, affinity: bool) -> u64 {
    let [a, b, c, d] = ask.client.0;
    let mut hash = mix(pair(a, b));
    hash = mix(hash ^ pair(c, d));
    if affinity {
        return hash;
    }
    mix(hash ^ pair(ask.client_port.0 as u32, ask.proto.0 as u32))
}

#[inline(always)]
fn pair(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

/// splitmix64's finalizer: every bit of the result depends on every bit of the word.
#[inline(always)]
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Rendezvous: each backend has a weight for the client, the greatest wins. The weight is made of
/// the backend's incarnation, which is the same on every node.
///
/// Of sets above [`WINDOW`] only that many slots are looked at, from where the client's hash falls:
/// the same everywhere as long as the slots are.
#[inline(always)]
pub(super) fn consistent<T: Tables>(tables: &T, service: &Service, hash: u64) -> Pick {
    let best = Slot::unpack(best(tables, service.set, service.count, hash));
    match tables.stable_backend(best.backend) {
        Some(backend)
            if backend.incarnation == best.incarnation
                && backend.state != BackendState::Removed as u32 =>
        {
            Pick::Backend(best.backend, backend)
        }
        _ => Pick::Empty,
    }
}

/// The word of the slot with the greatest weight, 0 if there is none, or if the set is being collected.
///
/// One turn of the loop has but one way on: the verifier keeps a state of loops only now and then
/// (every 100 instructions), and until then each more would multiply the ways.
#[inline(never)]
fn best<T: Tables>(tables: &T, set: SetId, count: u32, hash: u64) -> u64 {
    let start = scale((hash >> 32) as u32, count);
    let (mut best, mut weight) = (0u64, 0u64);
    for step in 0..WINDOW {
        if step >= count {
            break;
        }
        let index = around(start, step, count);
        let Some(slot) = tables.slot(&SlotKey { set, index }) else {
            return 0;
        };
        // Below 2^63, which is what `less` needs, and not 0.
        let its = (mix(hash ^ slot.incarnation as u64) >> 1) | 1;
        let take = black_box(less(weight, its)).wrapping_neg();
        weight = (its & take) | (weight & !take);
        best = (slot.pack() & take) | (best & !take);
    }
    best
}

/// 1 if `a` is less than `b`, for numbers up to 2^63. Without a branch: the verifier would learn
/// something else of the numbers on each way through the loop, and walk on from all of them.
#[inline(always)]
fn less(a: u64, b: u64) -> u64 {
    a.wrapping_sub(b) >> 63
}
