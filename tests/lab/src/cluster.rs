//! The directory that all agents of a lab watch: one file for each Kubernetes object, replaced by
//! rename, so that no agent ever reads half an object.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// The source directory, as this process can open it.
#[derive(Clone, Debug)]
pub struct Cluster {
    dir: PathBuf,
}

impl Cluster {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Creates or replaces an object.
    ///
    /// # Errors
    /// When it has no kind or name, or the file cannot be written.
    pub fn apply(&self, object: &Value) -> Result<()> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = file_name(object)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let temporary = self.dir.join(format!(".{name}.{number}.tmp"));
        let path = self.dir.join(&name);
        fs::write(&temporary, serde_json::to_vec_pretty(object)?)
            .and_then(|()| fs::rename(&temporary, &path))
            .with_context(|| format!("writing {}", path.display()))
    }

    /// Deletes an object; one that is not there is passed over.
    ///
    /// # Errors
    /// When the file cannot be deleted.
    pub fn delete(&self, kind: &str, namespace: Option<&str>, name: &str) -> Result<()> {
        let object = json!({"kind": kind, "metadata": {"name": name, "namespace": namespace}});
        match fs::remove_file(self.dir.join(file_name(&object)?)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Reads an object back.
    ///
    /// # Errors
    /// When it was never applied.
    pub fn get(&self, kind: &str, namespace: Option<&str>, name: &str) -> Result<Value> {
        let object = json!({"kind": kind, "metadata": {"name": name, "namespace": namespace}});
        let path = self.dir.join(file_name(&object)?);
        let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Every object, in the order of their files' names.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn objects(&self) -> Result<Vec<Value>> {
        let mut paths: Vec<PathBuf> = fs::read_dir(&self.dir)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?;
        paths.retain(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        });
        paths.sort();
        paths
            .iter()
            .map(|path| Ok(serde_json::from_slice(&fs::read(path)?)?))
            .collect()
    }
}

fn file_name(object: &Value) -> Result<String> {
    let (Some(kind), Some(name)) = (object["kind"].as_str(), object["metadata"]["name"].as_str())
    else {
        bail!("an object without kind or name: {object}");
    };
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or("-");
    Ok(format!(
        "{}--{namespace}--{name}.json",
        kind.to_ascii_lowercase()
    ))
}

/// A Node object with its pod CIDRs and addresses.
#[must_use]
pub fn node_object(name: &str, pod_cidrs: &[String], addresses: &[String]) -> Value {
    let addresses: Vec<Value> = addresses
        .iter()
        .map(|address| json!({"type": "InternalIP", "address": address}))
        .chain([json!({"type": "Hostname", "address": name})])
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {"podCIDR": pod_cidrs[0], "podCIDRs": pod_cidrs},
        "status": {
            "addresses": addresses,
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

/// A Namespace object; it carries `kubernetes.io/metadata.name` as the API server would add it.
#[must_use]
pub fn namespace_object(name: &str, labels: &[(&str, &str)]) -> Value {
    let mut map = serde_json::Map::new();
    map.insert("kubernetes.io/metadata.name".into(), json!(name));
    for (key, value) in labels {
        map.insert((*key).to_owned(), json!(value));
    }
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": map}})
}
