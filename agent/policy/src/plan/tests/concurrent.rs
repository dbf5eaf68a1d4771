//! Programs that look at one map after the other while a phase is written.

use super::*;

/// The classes that an address may be found to have while a phase is written: by its entry, or, where
/// a program found none, by the prefix as it is then or later.
fn seen(actual: &mut Actual, phase: &[Write], addr: Addr) -> BTreeSet<weir_abi::policy::ClassId> {
    let mut seen = BTreeSet::from([actual.class(addr)]);
    let mut missed = !actual.peers.contains_key(&addr);
    for write in phase {
        actual.apply(write);
        seen.insert(actual.class(addr));
        if missed {
            seen.insert(actual.cidrs.lookup(addr).copied().unwrap_or_default());
        }
        missed |= !actual.peers.contains_key(&addr);
    }
    seen
}

#[test]
fn an_address_has_its_own_entry_a_phase_before_the_prefix_around_it_changes() {
    let rows = [deny(), allow(), ports()];
    let holds = prefix(0, 16);
    for before in [desired(&rows, &[], &[]), desired(&rows, &[], &[(holds, 2)])] {
        let mut actual = Actual::default();
        perform(&mut actual, &before);
        let old = actual.class(v4(1));
        // A node with this pod CIDR and a pod in it come to be known at once.
        let classes = if old.own() == 0 { [1, 2] } else { [1, 0] };
        let after = desired(&rows, &[(1, classes[1])], &[(holds, classes[0])]);
        let plan = plan(&actual, &after).unwrap();
        let mut all = BTreeSet::new();
        for phase in plan.phases() {
            all.extend(seen(&mut actual, phase, v4(1)));
        }
        let new = actual.class(v4(1));
        assert_ne!(old, new);
        assert_eq!(all, BTreeSet::from([old, new]), "{plan:?}");
    }
}
