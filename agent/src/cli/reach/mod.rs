//! Who reaches whom, over all pods and all ports: the objects are compiled as if every pod were an
//! endpoint of this node, and the tables are read. What `policy diff` and `policy matrix` have in
//! common.

mod census;
mod compiled;
mod difference;
mod ports;
mod tables;
mod title;
mod units;

pub(super) use census::{Census, Kind, Party};
pub(super) use compiled::{Compiled, View};
pub(super) use ports::PortSet;
pub(super) use tables::{Cause, Causes, Tables};
pub(super) use units::{Unit, units};
