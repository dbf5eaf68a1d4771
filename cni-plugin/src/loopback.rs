//! The plugin under the name `loopback`: what the reference plugin of that name does, which
//! containerd cannot do without. It needs no agent and keeps no state.

use std::{ffi::OsStr, io, path::Path};

use serde_json::{Value, json};
use weir_net::{NetNs, Netlink, netlink::Link, netlink::LinkChange};

use crate::{
    command,
    config::{self, Plain},
    env::{Call, Command},
    error::{CniError, Code, Result},
    version::Version,
};

/// The name that makes the plugin this one.
const NAME: &str = "loopback";
/// The only interface it is about, whatever `CNI_IFNAME` says (the reference plugin does so too).
const LO: &str = "lo";

/// Whether a process that was started so is the loopback plugin.
pub fn is_meant(argv0: Option<&OsStr>) -> bool {
    argv0.and_then(|path| Path::new(path).file_name()) == Some(OsStr::new(NAME))
}

/// Serves a call.
pub fn run(call: &Call, stdin: &[u8], print: impl FnOnce(&str) -> io::Result<()>) -> Result<()> {
    if call.command == Command::Version {
        return print(&command::version(stdin)).map_err(|e| unwritten(&e));
    }
    let config = config::plain(stdin)?;
    match call.command {
        Command::Add => {
            let netns = command::open_netns(call)?;
            let lo = set(&netns, true)?;
            let result = match &config.prev_result {
                Some(previous) => passed_on(previous, config.version),
                None => result(&config, &netns, &lo, &call.netns)?,
            };
            print(&result).map_err(|e| unwritten(&e))
        }
        Command::Check => {
            config.version.require(Version::V040, "CHECK")?;
            let netns = command::open_netns(call)?;
            let up = Netlink::open_in(&netns)?.link(LO)?.up;
            let down = || CniError::new(Code::CheckFailed, format!("lo is down in {}", call.netns));
            up.then_some(()).ok_or_else(down)
        }
        Command::Del => match NetNs::open(&call.netns) {
            // Without its namespace there is no loopback either.
            Err(_) => Ok(()),
            Ok(_) => set(&command::open_netns(call)?, false).map(drop),
        },
        Command::Gc => config.version.require(Version::V110, "GC"),
        Command::Status => config.version.require(Version::V110, "STATUS"),
        Command::Version => Ok(()),
    }
}

/// Sets the loopback up or down.
fn set(netns: &NetNs, up: bool) -> Result<Link> {
    let netlink = Netlink::open_in(netns)?;
    let lo = netlink.link(LO)?;
    let change = LinkChange {
        up: Some(up),
        ..LinkChange::default()
    };
    netlink.set_link(lo.index, change)?;
    Ok(lo)
}

/// The result of a plugin before it in the list, which stays what it is.
fn passed_on(previous: &Value, version: Version) -> String {
    let mut result = previous.clone();
    if let Value::Object(result) = &mut result {
        result.insert("cniVersion".into(), version.as_str().into());
    }
    result.to_string()
}

/// `lo` with the addresses that the kernel gives it.
fn result(config: &Plain, netns: &NetNs, lo: &Link, sandbox: &str) -> Result<String> {
    let addresses = Netlink::open_in(netns)?.addresses(lo.index)?;
    let ip = |address: &weir_net::netlink::Address| {
        let mut ip = json!({"address": address.network.to_string(), "interface": 0});
        if config.version < Version::V100 {
            let family = if address.network.is_ipv4() { "4" } else { "6" };
            ip["version"] = family.into();
        }
        ip
    };
    let result = json!({
        "cniVersion": config.version.as_str(),
        "interfaces": [{"name": LO, "mac": "00:00:00:00:00:00", "sandbox": sandbox}],
        "ips": addresses.iter().map(ip).collect::<Value>(),
        "dns": {},
    });
    Ok(result.to_string())
}

fn unwritten(error: &io::Error) -> CniError {
    CniError::new(Code::Io, format!("cannot write the result: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_alone_decides_wherever_the_file_is() {
        for name in ["loopback", "/opt/cni/bin/loopback", "./loopback"] {
            assert!(is_meant(Some(OsStr::new(name))), "{name}");
        }
        for name in ["weir-cni", "/loopback/weir-cni", "loopback2", ""] {
            assert!(!is_meant(Some(OsStr::new(name))), "{name}");
        }
        assert!(!is_meant(None));
    }
}
