//! Conditions of ClusterNetworkPolicies.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch},
};
use serde_json::json;
use weir_crd::ClusterNetworkPolicy;

use super::{Publisher, Result, patch};

/// A ClusterNetworkPolicy's identity and conditions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicyStatus {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.resourceVersion`.
    pub version: String,
    /// `status.conditions`, those that can be read.
    pub conditions: Vec<Condition>,
}

impl Publisher {
    /// What a policy's status says now; `None` if there is no such policy.
    ///
    /// # Errors
    /// See [`super::Error`].
    pub async fn policy_status(&self, name: &str) -> Result<Option<PolicyStatus>> {
        let object = self
            .find(&what(name), name, self.policies().get(name))
            .await?;
        Ok(object.map(|object| {
            let conditions = object.data["status"]["conditions"].as_array();
            let conditions = conditions.into_iter().flatten();
            PolicyStatus {
                uid: object.metadata.uid.unwrap_or_default(),
                generation: object.metadata.generation.unwrap_or_default(),
                version: object.metadata.resource_version.unwrap_or_default(),
                conditions: conditions
                    .filter_map(|c| serde_json::from_value(c.clone()).ok())
                    .collect(),
            }
        }))
    }

    /// Sets a policy's conditions of these types, if it is still as it was read; those of others stay.
    ///
    /// # Errors
    /// [`super::Error::Conflict`] if it was changed.
    pub async fn set_policy_conditions(
        &self,
        name: &str,
        read: &PolicyStatus,
        conditions: &[Condition],
    ) -> Result<()> {
        let change = json!({
            "apiVersion": ClusterNetworkPolicy::API_VERSION,
            "kind": ClusterNetworkPolicy::KIND,
            "metadata": {"name": name, "uid": read.uid, "resourceVersion": read.version},
            "status": {"conditions": conditions},
        });
        let params = patch().force();
        let change = Patch::Apply(&change);
        let api = self.policies();
        self.call(&what(name), api.patch_status(name, &params, &change))
            .await?;
        Ok(())
    }

    fn policies(&self) -> Api<DynamicObject> {
        let (group, version) = ClusterNetworkPolicy::API_VERSION
            .split_once('/')
            .unwrap_or_default();
        let kind = GroupVersionKind::gvk(group, version, ClusterNetworkPolicy::KIND);
        let resource = ApiResource::from_gvk_with_plural(&kind, "clusternetworkpolicies");
        Api::all_with(self.client(), &resource)
    }
}

fn what(name: &str) -> String {
    format!("{} {name}: status", ClusterNetworkPolicy::KIND)
}
