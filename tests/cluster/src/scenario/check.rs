//! CNI CHECK, which containerd never calls: here with what containerd has kept of a pod's ADD.

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::node_view::NodeView;
use crate::kit::World;
use crate::kit::objects::client;

/// Where the plugin is on a node.
const PLUGIN: &str = "/opt/cni/bin/weir-cni";

/// CHECK of a running pod holds; not once its address was taken from its interface.
///
/// # Errors
/// It answers otherwise.
pub async fn check(world: World) -> Result<String> {
    let nodes = world.nodes();
    let node = nodes[nodes.len() - 1].as_str();
    world.start(&client("checked", Some(node), None)).await?;
    let view = NodeView::new(&world, node);
    let sandbox = view.sandbox(&world.namespace, "checked", None).await?;
    let call = Call::new(&view.kept(&sandbox).await?)?;
    if let Some(wrong) = call.run(&world, node).await? {
        bail!("CHECK of a sound pod: {wrong}");
    }
    let address = call.address.as_str();
    let net = format!("--net={}", call.netns);
    let delete = ["nsenter", &net, "ip", "addr", "del", address, "dev", "eth0"];
    world.on_node(node, &delete).await?;
    let said = call.run(&world, node).await?;
    let said = said.with_context(|| format!("CHECK holds though the pod has lost {address}"))?;
    ensure!(
        said.contains(address),
        "the error does not name {address}: {said}"
    );
    Ok(format!("of a pod that lost its address: {said}"))
}

/// A call of the plugin.
struct Call {
    /// `NAME=value` of its environment.
    env: Vec<String>,
    /// Its standard input.
    config: String,
    netns: String,
    /// The first address, with its prefix length.
    address: String,
}

impl Call {
    /// As libcni makes it of what it has kept.
    fn new(kept: &Value) -> Result<Self> {
        let text = |key: &str| {
            let value = kept[key].as_str().map(str::to_owned);
            value.with_context(|| format!("what is kept has no {key}"))
        };
        // Base 64, as all bytes in the API's JSON are.
        let list: ByteString = serde_json::from_value(kept["config"].clone())?;
        let list: Value = serde_json::from_slice(&list.0).context("the kept conflist")?;
        let mut config = list["plugins"][0].clone();
        config["name"] = list["name"].clone();
        config["cniVersion"] = kept["result"]["cniVersion"].clone();
        config["prevResult"] = kept["result"].clone();
        if kept["capabilityArgs"].is_object() {
            let capable = &list["plugins"][0]["capabilities"];
            let mut given = json!({});
            for (name, value) in kept["capabilityArgs"].as_object().into_iter().flatten() {
                if capable[name] == json!(true) {
                    given[name] = value.clone();
                }
            }
            config["runtimeConfig"] = given;
        }
        let args: Vec<String> = kept["cniArgs"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|pair| Some(format!("{}={}", pair[0].as_str()?, pair[1].as_str()?)))
            .collect();
        let netns = text("netns")?;
        let address = kept["result"]["ips"][0]["address"].as_str();
        Ok(Self {
            env: vec![
                "CNI_COMMAND=CHECK".to_owned(),
                format!("CNI_CONTAINERID={}", text("containerId")?),
                format!("CNI_NETNS={netns}"),
                format!("CNI_IFNAME={}", text("ifName")?),
                format!("CNI_ARGS={}", args.join(";")),
                "CNI_PATH=/opt/cni/bin".to_owned(),
            ],
            config: serde_json::to_string(&config)?,
            address: address.context("the result has no address")?.to_owned(),
            netns,
        })
    }

    /// What the plugin finds wrong; nothing if all is well.
    async fn run(&self, world: &World, node: &str) -> Result<Option<String>> {
        // An error is told by what the plugin prints, so that the shell's own errors are not taken for it.
        let script = format!("printf %s \"$1\" | {PLUGIN} 2>/dev/null; true");
        let env = self.env.iter().map(String::as_str);
        let shell = ["sh", "-c", &script, "sh", &self.config];
        let all: Vec<&str> = std::iter::once("env").chain(env).chain(shell).collect();
        let said = world.on_node(node, &all).await?;
        if said.trim().is_empty() {
            return Ok(None);
        }
        let error: Value = serde_json::from_str(&said)
            .with_context(|| format!("the plugin's answer is no JSON: {said}"))?;
        let message = error["msg"].as_str().context("an error without `msg`")?;
        Ok(Some(message.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_made_of_what_libcni_has_kept() {
        let list = json!({
            "name": "weir", "cniVersion": "1.0.0",
            "plugins": [{ "type": "weir-cni", "capabilities": { "dns": true } }],
        });
        let list = ByteString(list.to_string().into_bytes());
        let call = Call::new(&json!({
            "config": list, "containerId": "ab", "netns": "/n", "ifName": "eth0",
            "cniArgs": [["K8S_POD_NAME", "p"], ["K8S_POD_UID", "u"]],
            "capabilityArgs": { "dns": { "Servers": [] }, "cgroupPath": "/x" },
            "result": { "cniVersion": "1.1.0", "ips": [{ "address": "10.0.0.1/32" }] },
        }))
        .expect("a call");
        assert!(
            call.env
                .contains(&"CNI_ARGS=K8S_POD_NAME=p;K8S_POD_UID=u".to_owned())
        );
        let config: Value = serde_json::from_str(&call.config).expect("JSON");
        assert_eq!(config["name"], "weir");
        assert_eq!(config["cniVersion"], "1.1.0");
        assert_eq!(config["prevResult"]["ips"][0]["address"], "10.0.0.1/32");
        assert_eq!(config["runtimeConfig"], json!({ "dns": { "Servers": [] } }));
        assert_eq!(call.address, "10.0.0.1/32");
    }
}
