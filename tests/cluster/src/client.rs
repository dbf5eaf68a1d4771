//! A client of the cluster's API server.

use std::path::Path;

use anyhow::{Context, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};

/// A client by the kubeconfig at `path`.
///
/// # Errors
/// There is none, or it is none.
pub async fn connect(path: &Path) -> Result<kube::Client> {
    let hint = || {
        format!(
            "cannot use {}: is the cluster up? (`cargo xtask cluster up`)",
            path.display()
        )
    };
    let file = Kubeconfig::read_from(path).with_context(hint)?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .with_context(hint)?;
    kube::Client::try_from(config).context("cannot make a client of the API server")
}
