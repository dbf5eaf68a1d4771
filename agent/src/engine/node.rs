//! The node's part of the engine: reads the network, keeps routes, node maps, sysctls, uplink
//! programs and the node file as they must be.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf};

use weir_abi::node::{config, node_addr};
use weir_api::status::Feature;
use weir_net::{IpNetwork, NetNs, Netlink, PublicKey};

use super::{
    endpoints::write_by_rename,
    guards::Guards,
    tunnel::{Ensured, Tunnel},
    xdp::XdpPart,
};
use crate::{
    compile::{
        self,
        node_cidr::Pools,
        node_ip,
        node_port::NodePortAddresses,
        overlay::Overlay,
        route::{self, Desired, Facts, NodeView},
    },
    config::{Config, flag_word},
    dataplane::{
        Error,
        attach::{Attacher, Hook, Role, Side},
        config_words::ConfigWords,
        netns::NetnsMap,
        nodes::NodeMaps,
    },
    node::{Network, Uplink, reverse_path, sysctl},
    state::Store,
};

/// The node's part.
pub struct NodePart {
    netlink: Netlink,
    maps: NodeMaps,
    config: ConfigWords,
    netns: NetnsMap,
    /// Of the node's own namespace, the one the agent runs in.
    cookie: u64,
    name: String,
    named_uplinks: Vec<String>,
    /// In the place of the Node's InternalIPs.
    configured_ips: Vec<IpAddr>,
    mtu: Option<u32>,
    /// As configured, and its device.
    overlay: Overlay,
    tunnel: Tunnel,
    node_ports: NodePortAddresses,
    pools: Pools,
    non_masquerade: Vec<IpNetwork>,
    /// Words of `CONFIG` and what they must say.
    words: [(u32, u64); 2],
    file: PathBuf,
    written: Option<Vec<u8>>,
    xdp: XdpPart,
    /// The tunnel's device as last found.
    ensured: Ensured,
    guards: Guards,
    /// As last read.
    pub network: Network,
    /// As last found.
    pub uplinks: Vec<Uplink>,
    /// As last computed.
    pub desired: Desired,
    /// What is no trouble by itself, with what to do where it is one.
    pub notes: Vec<String>,
    /// Routes written or removed so far.
    pub routes_changed: u64,
}

impl NodePart {
    /// With the network read for the first time.
    ///
    /// # Errors
    /// Netlink's; the tunnel's device cannot be made, or the node's key not be read.
    pub fn new(
        config: &Config,
        netlink: Netlink,
        maps: NodeMaps,
        words: ConfigWords,
        netns: NetnsMap,
    ) -> anyhow::Result<Self> {
        let tunnel = Tunnel::of(config)?;
        tunnel.begin(&netlink)?;
        let network = Network::read(&netlink)?;
        Ok(Self {
            netlink,
            maps,
            config: words,
            netns,
            cookie: NetNs::current_cookie()?,
            name: config.node_name.clone(),
            named_uplinks: config.uplinks.clone(),
            configured_ips: config.node_ips.clone(),
            mtu: config.mtu,
            overlay: Overlay {
                mode: config.routing.mode,
                encryption: config.routing.encryption,
                device: None,
            },
            tunnel,
            ensured: Ensured::default(),
            guards: Guards::default(),
            node_ports: config.node_ports.clone(),
            pools: config.pools.clone(),
            non_masquerade: config.non_masquerade.clone(),
            words: [
                (
                    config::FLAGS,
                    flag_word(config.socket_lb, config.node_port_mode, config.masquerade),
                ),
                (config::NAT_PORTS, config.nat_ports.word()),
            ],
            file: config.state_dir.join(weir_api::node_file::NodeFile::NAME),
            written: None,
            xdp: XdpPart::new(config),
            network,
            uplinks: Vec::new(),
            desired: Desired::default(),
            notes: Vec::new(),
            routes_changed: 0,
        })
    }

    /// Reads the network again.
    ///
    /// # Errors
    /// Netlink's.
    pub fn read(&mut self) -> weir_net::Result<()> {
        self.network = Network::read(&self.netlink)?;
        Ok(())
    }

    /// Whether a device of that index and name is there.
    pub fn has_device(&self, index: u32, name: &str) -> bool {
        self.network
            .link(index)
            .is_some_and(|link| link.name == name)
    }

    /// Brings everything up to date, each part as far as it goes. Returns what is wrong with the
    /// objects and the configuration, and what the kernel refused: only that is worth a retry.
    pub fn sync(
        &mut self,
        store: &Store,
        synced: bool,
        attacher: &Attacher,
    ) -> (Vec<String>, Vec<String>) {
        let (mut problems, mut failures) = (Vec::new(), Vec::new());
        let mut nodes: Vec<NodeView> = store
            .nodes()
            .map(|node| NodeView::of(node, &mut problems))
            .collect();
        let own_ips = self.own_ips(&mut nodes, &mut problems);
        let (uplinks, missing) = self.network.uplinks(&self.named_uplinks, &own_ips);
        problems.extend(missing);
        self.uplinks = uplinks;
        self.sync_tunnel(&own_ips, &mut failures);
        let facts = Facts {
            name: &self.name,
            uplinks: &self.uplinks,
            addresses: &self.network.own_addresses(),
            mtu: self.mtu,
            node_ports: &self.node_ports,
            pools: &self.pools,
            overlay: self.overlay,
            non_masquerade: &self.non_masquerade,
        };
        self.desired = route::compile(&nodes, facts);
        if synced {
            problems.extend(self.desired.problems.iter().cloned());
        }
        if let Err(e) = self.tunnel.follow(self.ensured, &self.desired, synced) {
            failures.push(format!("{e:#}"));
        }
        for (word, value) in self.words {
            failures.extend(self.config.ensure(word, value).err().map(|e| e.to_string()));
        }
        if let Err(e) = self.maps.sync(&self.desired, synced) {
            failures.push(e.to_string());
        }
        failures.extend(self.sync_netns(&own_ips).err().map(|e| e.to_string()));
        if let Err(e) = sysctl::forward_node(&mut sysctl::Kernel) {
            failures.push(e.to_string());
        }
        self.take_notes();
        self.sync_uplinks(attacher, synced, &mut failures);
        self.xdp.sync(&self.uplinks, synced, &mut failures);
        self.sync_routes(synced, &mut failures);
        if synced {
            let removed = self.tunnel.remove_others(&self.netlink);
            failures.extend(removed.err().map(|e| e.to_string()));
        }
        self.sync_file(&mut failures);
        (problems, failures)
    }

    /// The addresses of this node: those of its Node object, unless others are configured.
    fn own_ips(&self, nodes: &mut [NodeView], problems: &mut Vec<String>) -> Vec<IpAddr> {
        let Some(own) = nodes.iter_mut().find(|node| node.name == self.name) else {
            return Vec::new();
        };
        let packs = !matches!(self.tunnel, Tunnel::None);
        let devices = self.network.own_addresses();
        problems.extend(node_ip::problems(
            &self.name,
            &self.configured_ips,
            &own.internal_ips,
            &devices,
            packs,
        ));
        node_ip::put(own, &self.configured_ips);
        own.internal_ips.clone()
    }

    /// Looks for what is worth a note, and logs what is new.
    fn take_notes(&mut self) {
        let mut notes = reverse_path::notes(&sysctl::Kernel, &self.uplinks);
        if matches!(self.tunnel, Tunnel::Overlay(_)) {
            notes.extend(self.guards.note());
        }
        for note in notes.iter().filter(|note| !self.notes.contains(note)) {
            tracing::warn!("{note}");
        }
        self.notes = notes;
    }

    /// Sees to the tunnel's device, and tells the programs of it.
    fn sync_tunnel(&mut self, own_ips: &[IpAddr], failures: &mut Vec<String>) {
        let narrowest = self.uplinks.iter().map(|uplink| uplink.mtu).min();
        let mtu = narrowest.map(|mtu| self.overlay.mtu(mtu, own_ips));
        self.ensured = match self.tunnel.ensure(&self.netlink, mtu) {
            Ok(ensured) => ensured,
            Err(e) => {
                failures.push(format!("{}: {e}", self.tunnel.remedy()));
                Ensured::default()
            }
        };
        self.overlay.device = self.ensured.index;
        self.guards = Guards::find(&self.uplinks, failures);
        let word = self.tunnel.word(self.ensured.index, self.guards);
        let told = self.config.ensure(config::OVERLAY, word);
        failures.extend(told.err().map(|e| e.to_string()));
    }

    /// By which key other nodes are to know this one, or by none; `None` while that cannot be said.
    pub fn key_to_publish(&self) -> Option<Option<PublicKey>> {
        self.tunnel.key_to_publish(self.ensured)
    }

    /// Where health checks are answered; `None` for everywhere.
    pub fn health_addresses(&self) -> Option<BTreeSet<IpAddr>> {
        if self.node_ports == NodePortAddresses::All {
            return None;
        }
        let all = self.desired.node_addrs.iter();
        let serving = all.filter(|(_, value)| value.flags & node_addr::NODE_PORTS != 0);
        Some(serving.map(|(addr, _)| addr.to_ip()).collect())
    }

    /// The device through which other nodes' pods are reached, if there is one.
    pub fn tunnel_feature(&self) -> Option<Feature> {
        self.tunnel.feature(self.ensured.index)
    }

    /// Where the XDP program runs.
    pub fn xdp_feature(&self) -> Feature {
        self.xdp.feature()
    }

    /// Whether the node file is there, as the objects have it.
    pub fn has_file(&self) -> bool {
        self.desired.file.is_some() && self.written.is_some()
    }

    /// The hooks of uplinks and of the tunnel's device that the object has programs for.
    pub fn hooks(&self, attacher: &Attacher) -> Vec<Hook> {
        let uplinks = self.uplinks.iter();
        let uplinks = uplinks.map(|uplink| (uplink.index, &*uplink.name, Role::Uplink));
        let tunnel = self.overlay.device.zip(self.tunnel.role());
        let tunnel = tunnel.map(|(index, (name, role))| (index, name, role));
        let hooks = uplinks.chain(tunnel).flat_map(|(ifindex, name, role)| {
            [Side::In, Side::Out].map(|side| Hook {
                ifindex,
                ifname: name.to_owned(),
                role,
                side,
            })
        });
        hooks.filter(|hook| attacher.has_program(hook)).collect()
    }

    /// Makes the socket hooks know the node's own namespace, and no other for it.
    fn sync_netns(&mut self, own_ips: &[IpAddr]) -> Result<(), Error> {
        let owner = compile::netns::node(&self.uplinks, own_ips);
        self.netns.set(self.cookie, Some(owner))?;
        self.netns.retain(|cookie, _| cookie == self.cookie)
    }

    fn sync_uplinks(&self, attacher: &Attacher, synced: bool, problems: &mut Vec<String>) {
        let mut wanted = BTreeSet::new();
        for hook in self.hooks(attacher) {
            if let Err(e) = attacher.ensure(&hook).and_then(|_| attacher.check(&hook)) {
                problems.push(e.to_string());
            }
            wanted.insert(hook.link());
        }
        if !synced {
            return;
        }
        for link in attacher.pinned().unwrap_or_default() {
            if !link.starts_with("ep-") && !wanted.contains(&link) {
                problems.extend(attacher.detach(&link).err().map(|e| e.to_string()));
            }
        }
    }

    fn sync_routes(&mut self, synced: bool, problems: &mut Vec<String>) {
        let change = route::diff_routes(&self.network.routes, &self.desired.routes);
        for route in &change.replace {
            self.routes_changed += 1;
            if let Err(e) = self.netlink.replace_route(route) {
                problems.push(e.to_string());
            }
        }
        if synced {
            for route in &change.remove {
                self.routes_changed += 1;
                problems.extend(
                    self.netlink
                        .delete_route(route)
                        .err()
                        .map(|e| e.to_string()),
                );
            }
        }
    }

    fn sync_file(&mut self, problems: &mut Vec<String>) {
        let Some(file) = &self.desired.file else {
            return;
        };
        let bytes = serde_json::to_vec_pretty(file).unwrap_or_default();
        if self.written.as_ref() == Some(&bytes) {
            return;
        }
        match write_by_rename(&self.file, &bytes) {
            Ok(()) => self.written = Some(bytes),
            Err(e) => problems.push(e.to_string()),
        }
    }
}
