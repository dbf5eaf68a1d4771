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

/// Where the client's last flow to the frontend went, if that is not too long ago and still takes
/// new flows: [`BackendState::Active`] is a member of its Service's set, whichever that is by now.
#[inline(always)]
pub(super) fn kept<T: Tables>(
    tables: &T,
    ask: &Ask,
    key: &ServiceKey,
    service: &Service,
) -> Option<(BackendId, Backend)> {
    let last = tables.affinity(&affinity_key(ask, key))?;
    if ask.now.wrapping_sub(last.last_used) > ticks(service.affinity_secs) {
        return None;
    }
    let backend = tables.stable_backend(last.backend)?;
    if backend.incarnation != last.incarnation || backend.state != BackendState::Active as u32 {
        return None;
    }
    Some((last.backend, backend))
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
