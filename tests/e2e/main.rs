//! End to end: real agents, the real plugin and real sockets, in the lab.

mod lab;
mod pods;
mod restart;
