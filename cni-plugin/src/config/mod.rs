//! The network configuration on stdin. Keys that Weir does not know are passed over (SPEC: plugins
//! may ignore unknown fields); those it knows are checked, and errors name the key.

mod ipam;
mod keys;

use std::{
    collections::HashSet,
    io::Read,
    net::IpAddr,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};
use weir_api::node_file::NodeFile;

use crate::{
    env::check_name,
    error::{CniError, Code, Result},
    ipam::{Pool, Range},
    log::Level,
    version::Version,
};

use keys::{Object, insensitive};

/// Longest configuration, bytes: a GC's list of 100,000 attachments fits.
const MAX_STDIN: u64 = 16 << 20;
/// Smallest MTU of an IPv6 link (RFC 8200, section 5).
const MIN_MTU_V6: u32 = 1280;

/// The configuration of one call.
#[derive(Clone, Debug)]
pub struct Config {
    /// `cniVersion`.
    pub version: Version,
    /// `name`.
    pub name: String,
    /// `socket`: where the agent listens.
    pub socket: PathBuf,
    /// `stateDir`: where `node.json` and the address store are.
    pub state_dir: PathBuf,
    /// `mtu`; absent (or 0) means the node file's.
    pub mtu: Option<u32>,
    /// `logFile`.
    pub log_file: Option<PathBuf>,
    /// `logLevel`.
    pub log_level: Option<Level>,
    /// `ipam.ranges`; absent means the node file's pod CIDRs.
    pub pools: Option<Vec<Pool>>,
    /// `runtimeConfig.ips`, else `args.cni.ips`.
    pub ips: Vec<String>,
    /// `runtimeConfig.dns`, else `dns`, for the result.
    pub dns: Value,
    /// `prevResult`, as it came.
    pub prev_result: Option<Value>,
    /// `cni.dev/valid-attachments` and its older name: (container, interface). Absent is not empty.
    pub valid: Option<HashSet<(String, String)>>,
}

/// What an attachment needs to know of the node, from the configuration or the node file.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where addresses come from.
    pub pools: Vec<Pool>,
    /// IP MTU, bytes.
    pub mtu: u32,
}

/// Reads all of stdin.
pub fn read_stdin() -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let read = std::io::stdin()
        .lock()
        .take(MAX_STDIN + 1)
        .read_to_end(&mut text);
    read.map_err(|e| CniError::new(Code::Io, format!("cannot read the configuration: {e}")))?;
    if text.len() as u64 > MAX_STDIN {
        let msg = format!("the configuration is longer than {MAX_STDIN} bytes");
        return Err(CniError::new(Code::Decode, msg));
    }
    Ok(text)
}

/// The `cniVersion` of a configuration that may be anything; none if it has none.
pub fn version_of(text: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(text).ok()?;
    value
        .get("cniVersion")?
        .as_str()
        .filter(|v| !v.is_empty())
        .map(str::to_owned)
}

/// What every configuration has.
#[derive(Clone, Debug)]
pub struct Plain {
    /// `cniVersion`.
    pub version: Version,
    /// `prevResult`, as it came.
    pub prev_result: Option<Value>,
}

/// Reads that much of a configuration.
pub fn plain(text: &[u8]) -> Result<Plain> {
    let object = object(text)?;
    let version = Object::root(&object)
        .string("cniVersion")?
        .unwrap_or_default();
    Ok(Plain {
        version: Version::parse(version)?,
        prev_result: prev_result(&object),
    })
}

fn prev_result(object: &Map<String, Value>) -> Option<Value> {
    object.get("prevResult").filter(|v| !v.is_null()).cloned()
}

fn object(text: &[u8]) -> Result<Map<String, Value>> {
    let value: Value = serde_json::from_slice(text).map_err(|error| {
        let msg = "the network configuration on stdin is not JSON";
        CniError::new(Code::Decode, msg).details(error.to_string())
    })?;
    let Value::Object(object) = value else {
        let msg = "the network configuration on stdin is not a JSON object";
        return Err(CniError::new(Code::Decode, msg));
    };
    Ok(object)
}

fn invalid(msg: impl Into<String>) -> CniError {
    CniError::new(Code::InvalidConfig, msg)
}

impl Config {
    /// Reads a configuration.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let object = object(text)?;
        let root = Object::root(&object);
        let version = Version::parse(root.string("cniVersion")?.unwrap_or_default())?;
        let name = root.string("name")?.unwrap_or_default().to_owned();
        check_name("the network's name", &name).map_err(invalid)?;
        let level = root.string("logLevel")?.filter(|text| !text.is_empty());
        let log_level = level.map(|text| {
            Level::parse(text).ok_or_else(|| {
                invalid(format!(
                    "logLevel {text:?} is none of error, warn, info, debug"
                ))
            })
        });
        let runtime = root.object("runtimeConfig")?;
        let config = Self {
            version,
            name,
            socket: root
                .path("socket")?
                .unwrap_or_else(|| weir_api::DEFAULT_SOCKET.into()),
            state_dir: root
                .path("stateDir")?
                .unwrap_or_else(|| weir_api::DEFAULT_STATE_DIR.into()),
            mtu: mtu(&root)?,
            log_file: root.path("logFile")?,
            log_level: log_level.transpose()?,
            pools: ipam::pools(&root)?,
            ips: ips(&root, runtime.as_ref())?,
            dns: dns(&object),
            prev_result: prev_result(&object),
            valid: valid_attachments(&root)?,
        };
        if let (Some(pools), Some(mtu)) = (&config.pools, config.mtu) {
            check_mtu(pools, mtu, "mtu")?;
        }
        Ok(config)
    }

    /// Pools and MTU: the configuration's, and for what it does not have the node file's.
    pub fn node(&self) -> Result<Node> {
        if let (Some(pools), Some(mtu)) = (&self.pools, self.mtu) {
            return Ok(Node {
                pools: pools.clone(),
                mtu,
            });
        }
        let path = self.state_dir.join(NodeFile::NAME);
        let file = read_node_file(&path)?;
        let pools = match &self.pools {
            Some(pools) => pools.clone(),
            None => node_pools(&file).map_err(|reason| {
                CniError::new(Code::TryAgain, format!("{}: {reason}", path.display()))
            })?,
        };
        let mtu = self.mtu.unwrap_or(file.mtu);
        check_mtu(&pools, mtu, &path.display().to_string())?;
        Ok(Node { pools, mtu })
    }

    /// The addresses asked for: `runtimeConfig.ips` or `args.cni.ips`, else `CNI_ARGS`' `IP=`
    /// (CONVENTIONS: the former win).
    pub fn wanted(&self, from_args: &[String]) -> Result<Vec<IpAddr>> {
        let texts = if self.ips.is_empty() {
            from_args
        } else {
            &self.ips
        };
        let parse = |text: &String| {
            let bare = text.split('/').next().unwrap_or_default();
            bare.parse()
                .map_err(|_| invalid(format!("the address asked for, {text:?}, is none")))
        };
        texts.iter().map(parse).collect()
    }
}

fn read_node_file(path: &Path) -> Result<NodeFile> {
    let text = std::fs::read(path).map_err(|error| {
        let path = path.display();
        let msg = format!("{path}: {error}; weir-agent writes it when it knows its node");
        let later = error.kind() == std::io::ErrorKind::NotFound;
        CniError::new(if later { Code::TryAgain } else { Code::Io }, msg)
    })?;
    let broken = |reason: String| CniError::new(Code::Io, format!("{}: {reason}", path.display()));
    let file: NodeFile = serde_json::from_slice(&text).map_err(|e| broken(e.to_string()))?;
    if file.version != NodeFile::VERSION {
        let (own, theirs) = (NodeFile::VERSION, file.version);
        return Err(broken(format!(
            "its version is {theirs}, this plugin reads {own}; install the plugin of the agent's release"
        )));
    }
    Ok(file)
}

fn node_pools(file: &NodeFile) -> Result<Vec<Pool>, String> {
    if file.pod_cidrs.is_empty() {
        return Err("the node has no pod CIDRs yet".into());
    }
    let set = |cidr: &weir_net::IpNetwork| Range::new(*cidr, None, None, None).map(|r| vec![r]);
    Pool::from_sets(file.pod_cidrs.iter().map(set).collect::<Result<_, _>>()?)
}

fn mtu(root: &Object<'_>) -> Result<Option<u32>> {
    match root.number("mtu")? {
        None | Some(0) => Ok(None),
        Some(mtu @ 68..=65535) => Ok(u32::try_from(mtu).ok()),
        Some(mtu) => Err(invalid(format!("mtu {mtu} is not between 68 and 65535"))),
    }
}

fn check_mtu(pools: &[Pool], mtu: u32, whence: &str) -> Result<()> {
    if mtu < MIN_MTU_V6 && pools.iter().any(|pool| !pool.is_ipv4()) {
        let msg = format!("{whence}: mtu {mtu} is too small for IPv6, which needs {MIN_MTU_V6}");
        return Err(invalid(msg));
    }
    Ok(())
}

fn ips(root: &Object<'_>, runtime: Option<&Object<'_>>) -> Result<Vec<String>> {
    let from_runtime = runtime
        .map(|object| object.strings("ips"))
        .transpose()?
        .flatten();
    let from_args = || -> Result<Option<Vec<String>>> {
        let Some(args) = root.object("args")? else {
            return Ok(None);
        };
        let Some(cni) = args.object("cni")? else {
            return Ok(None);
        };
        cni.strings("ips")
    };
    Ok(match from_runtime {
        Some(ips) => ips,
        None => from_args()?.unwrap_or_default(),
    })
}

/// `dns` for the result. go-cni writes Go's field names (`Servers`), so case does not count.
fn dns(root: &Map<String, Value>) -> Value {
    let runtime = root.get("runtimeConfig").and_then(Value::as_object);
    let given = runtime
        .and_then(|runtime| insensitive(runtime, "dns"))
        .or_else(|| root.get("dns"))
        .and_then(Value::as_object);
    let mut dns = Map::new();
    for (key, other) in [
        ("nameservers", "servers"),
        ("domain", "domain"),
        ("search", "searches"),
        ("options", "options"),
    ] {
        let value = given.and_then(|g| insensitive(g, key).or_else(|| insensitive(g, other)));
        let filled = value.filter(|v| match v {
            Value::String(text) => !text.is_empty(),
            Value::Array(list) => !list.is_empty(),
            _ => false,
        });
        dns.extend(filled.map(|value| (key.to_owned(), value.clone())));
    }
    Value::Object(dns)
}

/// Both keys, as libcni sends both: an attachment is valid if either says so.
fn valid_attachments(root: &Object<'_>) -> Result<Option<HashSet<(String, String)>>> {
    let mut valid: Option<HashSet<_>> = None;
    for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
        let Some(list) = root.list(key)? else {
            continue;
        };
        let known = valid.get_or_insert_default();
        for (at, item) in list.iter().enumerate() {
            let object = Object::of(format!("{key}[{at}]"), item)?;
            let (id, ifname) = (object.string("containerID")?, object.string("ifname")?);
            let (Some(id), Some(ifname)) = (id, ifname) else {
                return Err(invalid(format!("{key}[{at}] lacks containerID or ifname")));
            };
            known.insert((id.to_owned(), ifname.to_owned()));
        }
    }
    Ok(valid)
}

#[cfg(test)]
mod tests;
