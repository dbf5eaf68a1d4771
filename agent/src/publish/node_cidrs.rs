//! The ConfigMap with the record of the Nodes' pod CIDRs.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;

use super::{Error, Publisher, Result, post};
use crate::compile::node_cidr::{LAST, Record};

/// Its name.
pub const NAME: &str = "weir-node-cidrs";

/// The record, and what it was read from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stored {
    /// The record; empty where there is no ConfigMap.
    pub record: Record,
    /// As read: its resource version says what may be replaced.
    map: ConfigMap,
}

impl Stored {
    /// Whether there is a ConfigMap.
    pub fn exists(&self) -> bool {
        self.map.metadata.resource_version.is_some()
    }
}

impl Publisher {
    /// Names the ConfigMap.
    pub fn node_cidrs_name(&self) -> String {
        format!("ConfigMap {}/{NAME}", self.namespace)
    }

    /// The record as it is now.
    ///
    /// # Errors
    /// [`Error::Invalid`] if an entry cannot be read.
    pub async fn node_cidrs(&self) -> Result<Stored> {
        let map = self
            .find(&self.node_cidrs_name(), NAME, self.config_maps().get(NAME))
            .await?;
        self.stored(map.unwrap_or_default())
    }

    /// Stores a record, if the ConfigMap is still as it was read, or still not there.
    ///
    /// # Errors
    /// [`Error::Conflict`] if somebody else was faster.
    pub async fn put_node_cidrs(&self, stored: &Stored, record: &Record) -> Result<Stored> {
        let mut map = stored.map.clone();
        map.metadata.name = Some(NAME.to_owned());
        map.metadata.managed_fields = None;
        let annotations = map.metadata.annotations.get_or_insert_default();
        annotations.insert(LAST.to_owned(), record.last());
        map.data = Some(record.data());
        let (api, what) = (self.config_maps(), self.node_cidrs_name());
        let map = match stored.exists() {
            true => self.call(&what, api.replace(NAME, &post(), &map)).await?,
            false => self
                .call(&what, api.create(&post(), &map))
                .await
                .map_err(|error| self.without_namespace(error))?,
        };
        self.stored(map)
    }

    fn stored(&self, map: ConfigMap) -> Result<Stored> {
        let annotations = map.metadata.annotations.as_ref();
        let last = annotations.and_then(|all| all.get(LAST));
        let data = map.data.clone().unwrap_or_default();
        let record =
            Record::parse(&data, last.map(String::as_str)).map_err(|reason| Error::Invalid {
                what: self.node_cidrs_name(),
                reason,
            })?;
        Ok(Stored { record, map })
    }

    fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client(), &self.namespace)
    }
}
