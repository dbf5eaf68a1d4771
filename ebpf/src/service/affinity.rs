//! Session affinity: a client's flows to a frontend go where its last one went. Each new flow begins the
//! timeout anew.

use weir_abi::service::{
    Affinity, AffinityKey, Backend, BackendId, BackendState, Service, ServiceKey, SetId,
};

use super::{Ask, Tables};

#[inline(always)]
fn affinity_key(ask: &Ask, key: &ServiceKey) -> AffinityKey {
    AffinityKey {
        client: ask.client,
        frontend: *key,
        zero: 0,
    }
}

/// What is known of the client's last flow to a frontend.
pub(super) enum Last {
    /// Nothing; or where it went takes no new flows any more.
    Nowhere,
    /// It is too long ago.
    Expired,
    /// It went there, and the next one will.
    Kept(BackendId, Backend),
}

/// Where the client's last flow to the frontend went, if that is not too long ago and still takes
/// new flows: [`BackendState::Active`] is a member of its Service's set, whichever that is by now.
#[inline(always)]
pub(super) fn last<T: Tables>(tables: &T, ask: &Ask, key: &ServiceKey, service: &Service) -> Last {
    let Some(last) = tables.affinity(&affinity_key(ask, key)) else {
        return Last::Nowhere;
    };
    if ask.now.wrapping_sub(last.last_used) > ticks(service.affinity_secs) {
        return Last::Expired;
    }
    match tables.stable_backend(last.backend) {
        Some(backend)
            if backend.incarnation == last.incarnation
                && backend.state == BackendState::Active as u32 =>
        {
            Last::Kept(last.backend, backend)
        }
        _ => Last::Nowhere,
    }
}

/// Notes where the client's newest flow to the frontend goes.
#[inline(always)]
pub(super) fn remember<T: Tables>(
    tables: &T,
    ask: &Ask,
    key: &ServiceKey,
    set: SetId,
    (backend, incarnation): (BackendId, u32),
) {
    let now = Affinity {
        backend,
        incarnation,
        last_used: ask.now,
        set,
    };
    tables.set_affinity(&affinity_key(ask, key), &now);
}

/// Seconds in ticks of 2^30 ns, rounded up.
#[inline(always)]
fn ticks(seconds: u32) -> u32 {
    ((seconds as u64 * 1_000_000_000) >> 30) as u32 + 1
}
