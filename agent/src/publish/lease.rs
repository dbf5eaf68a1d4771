//! The Lease of the cluster-wide duties.

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;

use super::{Publisher, Result, post};

/// Its name.
pub const NAME: &str = "weir";

impl Publisher {
    /// Names the Lease.
    pub fn lease_name(&self) -> String {
        format!("Lease {}/{NAME}", self.namespace)
    }

    /// The Lease as it is.
    ///
    /// # Errors
    /// See [`super::Error`].
    pub async fn lease(&self) -> Result<Option<Lease>> {
        self.find(&self.lease_name(), NAME, self.leases().get(NAME))
            .await
    }

    /// Writes the Lease if it is still as it was read, and makes it if it has no resource version.
    ///
    /// # Errors
    /// [`super::Error::Conflict`] if somebody else was faster.
    pub async fn put_lease(&self, mut lease: Lease) -> Result<Lease> {
        let api = self.leases();
        lease.metadata.name = Some(NAME.to_owned());
        if lease.metadata.resource_version.is_some() {
            self.call(&self.lease_name(), api.replace(NAME, &post(), &lease))
                .await
        } else {
            let made = self
                .call(&self.lease_name(), api.create(&post(), &lease))
                .await;
            made.map_err(|error| self.without_namespace(error))
        }
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client(), &self.namespace)
    }
}
