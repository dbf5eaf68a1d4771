//! How long plugins take: each is replaced on a node by this program, which runs the real one,
//! takes the time from before its start to after its end, and writes it down.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::kit::World;

/// Where the times are, on the node.
const LOG: &str = "/run/weir-cluster/plugin-times";
/// Where containerd looks for plugins, and where the real ones go.
const PLUGINS: &str = "/opt/cni/bin";

/// Arguments of `timed`.
#[derive(Args, Clone, Debug)]
pub struct TimedArgs {
    /// Where the time is written
    log: PathBuf,
    /// The program
    program: PathBuf,
}

/// One call of a plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    plugin: String,
    command: String,
    pod: String,
    seconds: f64,
}

/// Runs a plugin and writes its time down. Its exit code is ours.
///
/// # Errors
/// It cannot be started, or the time not be kept.
pub fn timed(args: &TimedArgs) -> Result<ExitCode> {
    let begin = Instant::now();
    let status = Command::new(&args.program)
        .status()
        .with_context(|| format!("cannot run {}", args.program.display()))?;
    let seconds = begin.elapsed().as_secs_f64();
    let call = Call {
        plugin: args
            .program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        command: std::env::var("CNI_COMMAND").unwrap_or_default(),
        pod: pod(&std::env::var("CNI_ARGS").unwrap_or_default()),
        seconds,
    };
    // One write, so that lines of plugins that run at once do not mix.
    let line = format!("{}\n", serde_json::to_string(&call)?);
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(&args.log)
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .with_context(|| format!("cannot write {}", args.log.display()))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.unwrap_or(1).into())
}

/// `NAMESPACE/NAME` of `K8S_POD_NAMESPACE=…;K8S_POD_NAME=…`; empty if it is not there.
fn pod(args: &str) -> String {
    let get = |key: &str| {
        let mut pairs = args.split(';').filter_map(|pair| pair.split_once('='));
        pairs
            .find(|(k, _)| *k == key)
            .map_or("", |(_, value)| value)
    };
    match get("K8S_POD_NAME") {
        "" => String::new(),
        name => format!("{}/{name}", get("K8S_POD_NAMESPACE")),
    }
}

/// Replaces the plugins of a node.
///
/// # Errors
/// Its shell refuses.
pub async fn install(world: &World, node: &str) -> Result<()> {
    let itself = std::env::current_exe().context("cannot find this program")?;
    let script = format!(
        "set -e; mkdir -p {PLUGINS}/real; cd {PLUGINS}
         for name in weir-cni loopback bridge portmap; do
           [ -f $name ] || continue
           mv $name real/$name
           printf '#!/bin/sh\\nexec %s timed {LOG} {PLUGINS}/real/%s\\n' '{}' $name >.$name
           chmod 755 .$name; mv .$name $name
         done; : >{LOG}",
        itself.display()
    );
    world.on_node(node, &["sh", "-c", &script]).await?;
    Ok(())
}

/// The seconds that the plugins' ADD took, by pod.
///
/// # Errors
/// The times cannot be read.
pub async fn adds(world: &World, node: &str) -> Result<BTreeMap<String, f64>> {
    sum(&world.on_node(node, &["cat", LOG]).await?)
}

fn sum(text: &str) -> Result<BTreeMap<String, f64>> {
    let mut sums = BTreeMap::new();
    for line in text.lines() {
        let call: Call = serde_json::from_str(line).with_context(|| format!("no time: {line}"))?;
        if call.command == "ADD" {
            *sums.entry(call.pod).or_default() += call.seconds;
        }
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plugins_of_one_pod_add_up() {
        let call = |plugin: &str, command: &str, pod: &str, seconds: f64| {
            let call = Call {
                plugin: plugin.to_owned(),
                command: command.to_owned(),
                pod: pod.to_owned(),
                seconds,
            };
            serde_json::to_string(&call).expect("JSON")
        };
        let text = [
            call("bridge", "ADD", "a/x", 0.5),
            call("portmap", "ADD", "a/x", 0.25),
            call("bridge", "DEL", "a/x", 9.0),
            call("bridge", "ADD", "a/y", 0.125),
        ]
        .join("\n");
        let sums = sum(&text).expect("sums");
        assert_eq!(sums.len(), 2);
        assert!((sums["a/x"] - 0.75).abs() < 1e-9 && (sums["a/y"] - 0.125).abs() < 1e-9);
        assert!(sum("half a li").is_err());
    }

    #[test]
    fn the_pod_is_in_the_arguments_of_cni() {
        let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=x;K8S_POD_UID=1";
        assert_eq!(pod(args), "a/x");
        assert_eq!(pod(""), "");
    }
}
