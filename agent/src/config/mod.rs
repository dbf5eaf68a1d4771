//! The agent's configuration: flag > `WEIR_*` > `--config FILE` > default. One table,
//! [`keys::KEYS`], makes the flags, the variables and the keys of the file.

mod cluster;
mod cni;
mod keys;
mod layers;
mod masquerade;
mod overlay;
mod print;
mod service;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use axum::http::Uri;
use weir_net::IpNetwork;
use weir_policy::Established;

use crate::{
    compile::{
        nat_ports::NatPorts, node_cidr::Pools, node_port::NodePortAddresses, service::ServiceName,
    },
    dataplane::{
        sizes::{MapLimits, RESIZABLE, Sizes},
        xdp,
    },
    kube_client::Access,
};

pub use cni::CniConf;
pub use layers::{ConfigError, Layers, Origin, Value};
pub use masquerade::Masquerade;
pub use overlay::Routing;
pub use service::{NodePortMode, SocketLb, flag_word};

/// Where Kubernetes objects come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `dir:PATH`: a directory of Kubernetes YAML.
    Dir(PathBuf),
    /// `kube`: the API server.
    Kube,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The agent's configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// `source`.
    pub source: Source,
    /// `kubeconfig` and `api-server`: how the API server is reached.
    pub api: Access,
    /// `node-name`: the name of this node's Node object.
    pub node_name: String,
    /// `cluster-cidr` and the sizes of its parts: what Nodes without pod CIDRs are given.
    pub pools: Pools,
    /// `namespace` of the Lease and the ConfigMap; `None`: the pod's.
    pub namespace: Option<String>,
    /// `socket`: where the API listens.
    pub socket: PathBuf,
    /// `state-dir`.
    pub state_dir: PathBuf,
    /// `bpffs`: Weir's folder in a BPF file system.
    pub bpffs: PathBuf,
    /// `cgroup`: the cgroup2 directory whose sockets get the service hooks; `None`: the root of
    /// the machine's cgroup2 mount.
    pub cgroup: Option<PathBuf>,
    /// `uplinks`: names of devices, or how they begin, with a `*` behind; empty: those with a default route
    /// or the node's address.
    pub uplinks: Vec<String>,
    /// `node-ip`: at most one of each family, in the place of the Node's InternalIPs.
    pub node_ips: Vec<IpAddr>,
    /// `mode`, `overlay-port`, `encryption` and `encryption-port`: how packets get to pods on other nodes.
    pub routing: Routing,
    /// `mtu` of pods, bytes; `None`: the smallest of the uplinks, less what the overlay takes.
    pub mtu: Option<u32>,
    /// `adopt-timeout`: how long an ADD may wait for its Pod.
    pub adopt_timeout: Duration,
    /// `metrics-address`; `None` when switched off with `none`.
    pub metrics_address: Option<SocketAddr>,
    /// `healthz-address`: where load balancers ask for the node's health; `None` when `none`.
    pub healthz_address: Option<SocketAddr>,
    /// `proxy-mode-address`: where `/proxyMode` is answered; `None` when `none`.
    pub proxy_mode_address: Option<SocketAddr>,
    /// `nodeport-addresses`.
    pub node_ports: NodePortAddresses,
    /// `skip-services`: namespace and name of Services that are left alone.
    pub skip_services: BTreeSet<ServiceName>,
    /// `socket-lb`.
    pub socket_lb: SocketLb,
    /// `nat-ports`.
    pub nat_ports: NatPorts,
    /// `masquerade`.
    pub masquerade: Masquerade,
    /// `non-masquerade-cidrs`: what pods reach from their own addresses all the same.
    pub non_masquerade: Vec<IpNetwork>,
    /// `node-port-mode`.
    pub node_port_mode: NodePortMode,
    /// `xdp`: where the XDP program is used.
    pub xdp: xdp::Mode,
    /// `policy-established`: what a change of policy means to flows that are already there.
    pub policy_established: Established,
    /// `verify-interval`: zero when switched off.
    pub verify_interval: Duration,
    /// `max-peers` and its like: up to which sizes maps grow.
    pub map_limits: MapLimits,
    /// `cni-conf-dir` and its like; `None`: the agent writes no CNI configuration.
    pub cni: Option<CniConf>,
    /// `ebpf-object`: instead of the embedded one.
    pub ebpf_object: Option<PathBuf>,
    /// `log-format`.
    pub log_format: LogFormat,
    /// `log-level`: a `tracing` filter such as `info` or `weir_agent=debug`.
    pub log_level: String,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// Run the agent.
    Run(Box<Config>),
    /// `--print-config`: print this text and leave.
    Print(String),
}

/// Reads the command line, the environment and the file.
///
/// # Errors
/// An unknown key (naming the nearest), a value that does not parse, a missing required key: each
/// names the key and where its value came from. `--help` and `--version` are returned as
/// [`ConfigError::Usage`] with exit code 0.
pub fn from_process() -> Result<Invocation, ConfigError> {
    let args = std::env::args_os();
    let env = |name: &str| std::env::var(name).ok();
    let read = |path: &std::path::Path| std::fs::read_to_string(path);
    resolve(args, env, read)
}

/// [`from_process`] on given inputs.
fn resolve(
    args: impl Iterator<Item = std::ffi::OsString>,
    env: impl Fn(&str) -> Option<String>,
    read: impl Fn(&std::path::Path) -> std::io::Result<String>,
) -> Result<Invocation, ConfigError> {
    let (layers, print) = Layers::gather(args, env, read)?;
    let config = Config::from_layers(&layers);
    if print {
        // Shows what there is, also where it does not make a whole configuration.
        return Ok(Invocation::Print(print::render(
            &layers,
            config.as_ref().err(),
        )));
    }
    Ok(Invocation::Run(Box::new(config?)))
}

impl Config {
    fn from_layers(layers: &Layers) -> Result<Self, ConfigError> {
        Ok(Self {
            source: layers.require("source", parse_source)?,
            api: Access {
                kubeconfig: layers.optional("kubeconfig", parse_path)?,
                api_server: layers.optional("api-server", parse_api_server)?,
            },
            node_name: layers.require("node-name", parse_name)?,
            pools: cluster::pools(layers)?,
            namespace: layers.optional("namespace", cluster::parse_namespace)?,
            socket: layers.require("socket", parse_path)?,
            state_dir: layers.require("state-dir", parse_path)?,
            bpffs: layers.require("bpffs", parse_path)?,
            cgroup: layers.optional("cgroup", parse_path)?,
            uplinks: layers.optional("uplinks", parse_list)?.unwrap_or_default(),
            node_ips: layers
                .optional("node-ip", parse_node_ips)?
                .unwrap_or_default(),
            routing: overlay::from_layers(layers)?,
            mtu: layers.optional("mtu", parse_mtu)?,
            adopt_timeout: layers.require("adopt-timeout", cni::parse_adopt_timeout)?,
            metrics_address: layers.require("metrics-address", parse_listen_address)?,
            healthz_address: layers.require("healthz-address", parse_listen_address)?,
            proxy_mode_address: layers.require("proxy-mode-address", parse_listen_address)?,
            node_ports: layers
                .optional("nodeport-addresses", service::parse_node_ports)?
                .unwrap_or_default(),
            skip_services: layers
                .optional("skip-services", service::parse_services)?
                .unwrap_or_default(),
            socket_lb: layers.require("socket-lb", service::parse_socket_lb)?,
            nat_ports: layers.require("nat-ports", service::parse_nat_ports)?,
            masquerade: layers.require("masquerade", masquerade::parse_masquerade)?,
            non_masquerade: layers
                .optional("non-masquerade-cidrs", masquerade::parse_cidrs)?
                .unwrap_or_default(),
            node_port_mode: layers.require("node-port-mode", service::parse_node_port_mode)?,
            xdp: layers.require("xdp", str::parse)?,
            policy_established: layers.require("policy-established", parse_established)?,
            verify_interval: layers.require("verify-interval", parse_duration)?,
            map_limits: map_limits(layers)?,
            cni: cni::from_layers(layers)?,
            ebpf_object: layers.optional("ebpf-object", parse_path)?,
            log_format: layers.require("log-format", parse_log_format)?,
            log_level: layers.require("log-level", parse_log_level)?,
        })
    }
}

fn map_limits(layers: &Layers) -> Result<MapLimits, ConfigError> {
    let mut configured = Sizes::new();
    for resizable in RESIZABLE {
        if let Some(limit) = layers.optional(resizable.flag, parse_map_size)? {
            configured.insert(resizable.map, limit);
        }
    }
    Ok(MapLimits::new(configured))
}

fn parse_map_size(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(size @ 16..=0x0100_0000) => Ok(size),
        _ => Err("expected a number of entries, 16 to 16777216".into()),
    }
}

fn parse_source(text: &str) -> Result<Source, String> {
    match text.split_once(':') {
        Some(("dir", path)) if !path.is_empty() => Ok(Source::Dir(path.into())),
        _ if text == "kube" => Ok(Source::Kube),
        _ => Err("expected kube or dir:PATH".into()),
    }
}

fn parse_api_server(text: &str) -> Result<Uri, String> {
    let uri: Option<Uri> = text.parse().ok();
    let is_whole =
        |uri: &Uri| matches!(uri.scheme_str(), Some("https" | "http")) && uri.host().is_some();
    uri.filter(is_whole)
        .ok_or_else(|| "expected a URL such as https://10.0.0.1:6443".into())
}

fn parse_name(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("expected the name of a Node object".into());
    }
    Ok(text.to_owned())
}

fn parse_path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("expected a path".into());
    }
    Ok(text.into())
}

fn parse_list(text: &str) -> Result<Vec<String>, String> {
    Ok(text
        .split(',')
        .map(str::trim)
        .filter(|s| !s.is_empty())
        .map(str::to_owned)
        .collect())
}

fn parse_node_ips(text: &str) -> Result<Vec<IpAddr>, String> {
    let expected = "expected addresses of this node by comma, at most one of each family";
    let mut ips: Vec<IpAddr> = Vec::new();
    for part in parse_list(text)? {
        let ip: IpAddr = part.parse().map_err(|_| expected)?;
        let again = ips.iter().any(|other| other.is_ipv4() == ip.is_ipv4());
        if again || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() {
            return Err(expected.into());
        }
        ips.push(ip);
    }
    Ok(ips)
}

fn parse_mtu(text: &str) -> Result<u32, String> {
    // RFC 8200 §5: no IPv6 link has less than 1280.
    match text.parse() {
        Ok(mtu @ 1280..=65535) => Ok(mtu),
        _ => Err("expected bytes, 1280 to 65535".into()),
    }
}

/// `10s`, `500ms`, `2m`, or seconds without a unit.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number
        .parse()
        .map_err(|_| "expected a duration such as 10s or 500ms")?;
    match unit {
        "" | "s" => Ok(Duration::from_secs(number)),
        "ms" => Ok(Duration::from_millis(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        _ => Err(format!("unknown unit {unit:?}: use ms, s or m")),
    }
}

fn parse_listen_address(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "none" {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|_| "expected ADDRESS:PORT, or none".into())
}

fn parse_established(text: &str) -> Result<Established, String> {
    match text {
        "apply" => Ok(Established::Apply),
        "keep" => Ok(Established::Keep),
        _ => Err("expected apply or keep".into()),
    }
}

fn parse_log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("expected text or json".into()),
    }
}

fn parse_log_level(text: &str) -> Result<String, String> {
    crate::log::parse_filter(text)?;
    Ok(text.to_owned())
}
