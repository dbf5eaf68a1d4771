//! What a lab is to be.

use anyhow::{Result, ensure};

use crate::fabric::{Families, Knows, Wire};
use crate::{Lab, node};

/// What a lab is to be; see [`Lab::builder`].
#[derive(Clone, Debug)]
pub struct LabBuilder {
    pub(crate) nodes: u8,
    pub(crate) agents: bool,
    pub(crate) agent_args: Vec<String>,
    pub(crate) wire: Wire,
}

impl LabBuilder {
    /// How many nodes, 1 to 9; 2 by default.
    #[must_use]
    pub fn nodes(mut self, nodes: u8) -> Self {
        self.nodes = nodes;
        self
    }

    /// The MTU of the wire between the nodes, bytes; 1500 by default.
    #[must_use]
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.wire.mtu = mtu;
        self
    }

    /// A router between any two machines, whose ways have room for packets of no more than `mtu` bytes:
    /// senders of larger ones are told by ICMP. No machine is in a subnet of another's uplink.
    #[must_use]
    pub fn narrow(mut self, mtu: u32) -> Self {
        self.wire.narrow = Some(mtu);
        self
    }

    /// Which address families nodes, pods and the network have; both by default. The other's entry of
    /// [`crate::Node::addresses`] and [`crate::Node::pod_cidrs`] is nobody's then.
    #[must_use]
    pub fn families(mut self, families: Families) -> Self {
        self.wire.families = families;
        self
    }

    /// A network that has no routes to pods, as most networks: only nodes are reached from outside.
    #[must_use]
    pub fn unrouted(mut self) -> Self {
        self.wire.knows = Knows::Nodes;
        self
    }

    /// Makes the nodes without starting their agents.
    #[must_use]
    pub fn without_agents(mut self) -> Self {
        self.agents = false;
        self
    }

    /// One more argument for every agent.
    #[must_use]
    pub fn agent_arg(mut self, arg: &str) -> Self {
        self.agent_args.push(arg.to_owned());
        self
    }

    /// Makes the lab and waits until its agents are ready.
    ///
    /// # Errors
    /// When a namespace, mount or cgroup is refused (root is needed), or an agent does not start.
    /// Nothing is left then.
    pub fn start(self) -> Result<Lab> {
        ensure!(
            (1..=9).contains(&self.nodes),
            "a lab has 1 to 9 nodes, not {}",
            self.nodes
        );
        ensure!(
            nix::unistd::geteuid().is_root(),
            "the lab makes namespaces and mounts: run it as root"
        );
        let lab = Lab::make(&self)?;
        if self.agents {
            for node in &lab.nodes {
                node.launch_agent()?;
            }
            for node in &lab.nodes {
                node.await_ready(node::READY)?;
            }
        }
        Ok(lab)
    }
}
