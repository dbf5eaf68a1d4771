//! Other programs on the same cgroup.

use crate::families;
use crate::rig::{Rig, attach, cgroup};
use crate::servers::{ask, dial, exchange, frontend, start, udp};

families! {
    fn a_foreign_program_that_was_there_first_stays_and_ours_works(family) {
        start(family);
        let foreign = attach(&cgroup());
        let mut rig = Rig::new();
        rig.serve(family, 1, &[1]);
        let stream = dial(family, 1);
        assert_eq!(ask(&stream), 1);
        assert_eq!(stream.peer_addr().unwrap(), frontend(family, 1));
        drop(foreign);
        assert_eq!(ask(&dial(family, 1)), 1);
    }

    fn a_foreign_program_that_comes_later_does_not_displace_ours(family) {
        start(family);
        let mut rig = Rig::new();
        rig.serve(family, 1, &[1]);
        let foreign = attach(&cgroup());
        assert_eq!(ask(&dial(family, 1)), 1);
        assert_eq!(exchange(&udp(family), frontend(family, 1)), (1, frontend(family, 1)));
        drop(foreign);
        assert_eq!(exchange(&udp(family), frontend(family, 1)), (1, frontend(family, 1)));
    }
}
