//! The CNI plugin as a runtime drives it: the real binary in network namespaces of the test's own,
//! with a stub of the agent. Names begin with the id of the line of `docs/cni.md`'s table that they
//! test. Also here, as it needs root: what `weir-net` does to the kernel.
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

mod support;

mod add;
mod check;
mod del;
mod docs;
mod faults;
mod gc;
mod ipam;
mod kill;
mod loopback;
mod net;
mod parallel;
mod protocol;
mod status;
