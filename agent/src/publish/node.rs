//! Nodes: pod CIDRs, the condition NetworkUnavailable and WireGuard's key.

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api,
    api::{ListParams, Patch},
};
use serde_json::json;

use super::{Publisher, Result, patch};
use crate::compile::{
    node_cidr::{Assignment, NodeCidrs, Nodes},
    wireguard::KEY_ANNOTATION,
};

/// Nodes in one answer of a list.
const PAGE: u32 = 500;

impl Publisher {
    /// A Node as it is now; `None` if there is none of that name.
    ///
    /// # Errors
    /// See [`super::Error`].
    pub async fn node(&self, name: &str) -> Result<Option<NodeCidrs>> {
        let api: Api<Node> = Api::all(self.client());
        let node = self
            .find(&format!("Node {name}"), name, api.get(name))
            .await?;
        Ok(node.as_ref().map(NodeCidrs::of))
    }

    /// All Nodes as they are now.
    ///
    /// # Errors
    /// See [`super::Error`].
    pub async fn nodes(&self) -> Result<Nodes> {
        let api: Api<Node> = Api::all(self.client());
        let mut nodes = Nodes::new();
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = self.call("Nodes", api.list(&params)).await?;
            for node in &page.items {
                let name = node.metadata.name.clone().unwrap_or_default();
                nodes.insert(name, NodeCidrs::of(node));
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(nodes),
            }
        }
    }

    /// Gives a Node its pod CIDRs, if it still has that UID. The API server refuses others than the
    /// Node has already.
    ///
    /// # Errors
    /// [`super::Error::Invalid`] for another UID or other CIDRs.
    pub async fn set_pod_cidrs(&self, assignment: &Assignment) -> Result<()> {
        let Assignment { name, uid, cidrs } = assignment;
        let cidrs: Vec<String> = cidrs.iter().map(ToString::to_string).collect();
        let change = json!({
            "metadata": {"uid": uid},
            "spec": {"podCIDR": cidrs.first(), "podCIDRs": cidrs},
        });
        let api: Api<Node> = Api::all(self.client());
        let params = patch();
        let change = Patch::Merge(&change);
        let what = format!("Node {name}: spec.podCIDRs");
        self.call(&what, api.patch_metadata(name, &params, &change))
            .await?;
        Ok(())
    }

    /// Has a Node say by which WireGuard key it is known, or by none.
    ///
    /// # Errors
    /// See [`super::Error`].
    pub async fn set_wireguard_key(&self, name: &str, key: Option<&str>) -> Result<()> {
        let change = json!({"metadata": {"annotations": {KEY_ANNOTATION: key}}});
        let api: Api<Node> = Api::all(self.client());
        let params = patch();
        let change = Patch::Merge(&change);
        let what = format!("Node {name}: annotation {KEY_ANNOTATION}");
        self.call(&what, api.patch_metadata(name, &params, &change))
            .await?;
        Ok(())
    }

    /// Sets a Node's condition NetworkUnavailable to False.
    ///
    /// # Errors
    /// See [`super::Error`].
    pub async fn set_network_available(&self, name: &str) -> Result<()> {
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let condition = json!({
            "type": NETWORK_UNAVAILABLE,
            "status": "False",
            "reason": "WeirIsUp",
            "message": "Weir is running on this node",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        });
        let change = json!({"status": {"conditions": [condition]}});
        let api: Api<Node> = Api::all(self.client());
        let params = patch();
        // Conditions are merged by their type; those of others stay.
        let change = Patch::Strategic(&change);
        let what = format!("Node {name}: condition {NETWORK_UNAVAILABLE}");
        self.call(&what, api.patch_status(name, &params, &change))
            .await?;
        Ok(())
    }
}

/// The condition that clouds set until there are routes.
pub const NETWORK_UNAVAILABLE: &str = "NetworkUnavailable";
