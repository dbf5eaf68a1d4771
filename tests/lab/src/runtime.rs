//! What a container runtime does with a CNI plugin, as containerd does it: environment,
//! configuration on standard input, the result on standard output, DEL after a failed ADD.

use std::net::IpAddr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ipnetwork::IpNetwork;
use serde_json::{Value, json};

use crate::bin;
use crate::node::Node;

/// The version of the CNI specification the lab's configuration asks for.
pub const CNI_VERSION: &str = "1.1.0";

/// The attachment a CNI call is about.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_NETNS`; empty when the namespace is gone.
    pub netns: String,
    /// Namespace, name and UID of the Pod, or none for a runtime without Kubernetes.
    pub pod: Option<(String, String, String)>,
}

/// What a plugin's call came to.
#[derive(Clone, Debug)]
pub struct Call {
    /// Exit code; -1 when killed.
    pub code: i32,
    /// Standard output as JSON; null when empty.
    pub stdout: Value,
    /// Standard error.
    pub stderr: String,
}

impl Call {
    /// The CNI error code in the answer, if it is an error.
    #[must_use]
    pub fn error_code(&self) -> Option<u64> {
        (self.code != 0)
            .then(|| self.stdout["code"].as_u64())
            .flatten()
    }

    /// The result of a call that succeeded.
    ///
    /// # Errors
    /// With the plugin's own message.
    pub fn ok(self) -> Result<Value> {
        if self.code == 0 {
            return Ok(self.stdout);
        }
        anyhow::bail!(
            "exit code {}: {} {}",
            self.code,
            self.stdout,
            self.stderr.trim()
        )
    }
}

/// The network configuration of a node, for one plugin.
#[must_use]
pub fn config(node: &Node) -> Value {
    json!({
        "cniVersion": CNI_VERSION,
        "name": "weir",
        "type": "weir-cni",
        "socket": "/run/weir/agent.sock",
        "stateDir": node.state_dir(),
        "logFile": format!("{}/cni.log", crate::hold::node_dir(&node.name, "lib")),
        "logLevel": "debug",
    })
}

/// Calls the plugin on a node.
///
/// # Errors
/// When it cannot be started; an error answer is an `Ok` with its code.
pub fn call(node: &Node, verb: &str, attachment: &Attachment, config: &Value) -> Result<Call> {
    let plugin = bin("weir-cni")?;
    let mut command = Command::new(&plugin);
    command
        .env_clear()
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", &attachment.container_id)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", plugin.parent().unwrap_or(&plugin));
    if !attachment.netns.is_empty() {
        command.env("CNI_NETNS", &attachment.netns);
    }
    if let Some((namespace, name, uid)) = &attachment.pod {
        command.env(
            "CNI_ARGS",
            format!(
                "K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={uid};IgnoreUnknown=1;\
                 K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}",
                attachment.container_id
            ),
        );
    }
    let output = node.run(command, config.to_string().as_bytes())?;
    let stdout = if output.stdout.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&output.stdout).with_context(|| {
            format!(
                "the plugin printed no JSON on {verb}: {:?}",
                String::from_utf8_lossy(&output.stdout)
            )
        })?
    };
    Ok(Call {
        code: output.status.code().unwrap_or(-1),
        stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// ADD; after a failure DEL, as runtimes do.
///
/// # Errors
/// The plugin's own message.
pub fn add(node: &Node, attachment: &Attachment) -> Result<Value> {
    let config = config(node);
    let answer = call(node, "ADD", attachment, &config)?.ok();
    if answer.is_err() {
        let _ = call(node, "DEL", attachment, &config);
    }
    answer
}

/// DEL with the result of ADD.
///
/// # Errors
/// The plugin's own message.
pub fn del(node: &Node, attachment: &Attachment, result: &Value) -> Result<()> {
    let mut config = config(node);
    config["prevResult"] = result.clone();
    call(node, "DEL", attachment, &config)?.ok().map(drop)
}

/// The addresses in the result of an ADD.
///
/// # Errors
/// When there is none, or one does not parse.
pub fn addresses_in(result: &Value) -> Result<Vec<IpAddr>> {
    let ips = result["ips"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let addresses: Vec<IpAddr> = ips
        .iter()
        .map(|ip| {
            let text = ip["address"].as_str().unwrap_or_default();
            let network: IpNetwork = text
                .parse()
                .with_context(|| format!("the address {text:?} in the result"))?;
            Ok(network.ip())
        })
        .collect::<Result<_>>()?;
    ensure!(!addresses.is_empty(), "the result has no address: {result}");
    Ok(addresses)
}
