//! Images are imported once, into a store that is kept between clusters; each node gets a copy of it
//! made of hard links. containerd changes no file of a layer or a blob once it is there, so only its
//! databases have to be copies.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};

use super::{LIMIT, POLL, Up, write};
use crate::{
    api,
    args::Containerd,
    containerd::{self, Files},
    process,
    state::Node,
};

/// What a store has of an archive: enough to see that it is another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Archive {
    /// Bytes.
    len: u64,
    /// When it was written, in nanoseconds since 1970.
    written: u128,
}

/// The archives of a store, by path.
type Contents = BTreeMap<PathBuf, Archive>;

/// The store's list; it is there only if the store is whole.
const CONTENTS: &str = "contents.json";

impl Up {
    /// Brings the store up to date, gives each node its copy, and starts their containerds.
    pub(super) async fn start_containerds(&self) -> Result<()> {
        let (store, _lock) = self.lock_store().await?;
        let imported = self.refresh(&store).await?;
        let nodes = self.nodes();
        let copies = nodes.iter().map(|node| {
            let to = self.node_dir(&node.name).join("lib/containerd");
            copy_store(store.join("root"), to)
        });
        futures::future::try_join_all(copies).await?;
        for node in &nodes {
            self.start_containerd(node)?;
        }
        let answer = async {
            for node in &nodes {
                while !containerd::answers(node.holder.pid, &Files::of_node()) {
                    tokio::time::sleep(POLL).await;
                }
            }
            Ok(())
        };
        self.wait("containerd answers", LIMIT, answer).await?;
        let all = self.images.len();
        self.progress.done(&format!(
            "{all} images on each node, {imported} of them new"
        ));
        Ok(())
    }

    /// The store of this containerd, which no other `up` changes while the lock is held.
    async fn lock_store(&self) -> Result<(PathBuf, File)> {
        let version = match self.state().options.containerd {
            Containerd::Two => "2",
            Containerd::OneSix => "1.6",
        };
        let store = self
            .seeds
            .join(format!("{version}-{}", self.snapshotter.name()));
        fs::create_dir_all(&store).with_context(|| format!("cannot make {}", store.display()))?;
        let lock = File::create(store.join("lock")).context("cannot make the store's lock")?;
        let wait = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock));
        let lock = self
            .wait("another cluster imports images", LIMIT, async {
                Ok(wait.await??)
            })
            .await?;
        Ok((store, lock))
    }

    /// Imports what the store lacks; how many that were.
    async fn refresh(&self, store: &Path) -> Result<usize> {
        let wanted = contents(&self.images)?;
        let list = store.join(CONTENTS);
        let there: Option<Contents> = fs::read_to_string(&list)
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok());
        if there.as_ref() == Some(&wanted) {
            return Ok(0);
        }
        let root = store.join("root");
        if there.is_none() && root.exists() {
            fs::remove_dir_all(&root).context("cannot clear a store that is half made")?;
        }
        let there = there.unwrap_or_default();
        let new: Vec<&PathBuf> = wanted
            .iter()
            .filter(|(path, archive)| there.get(*path) != Some(archive))
            .map(|(path, _)| path)
            .collect();
        // Until all is well, the store counts as half made.
        let _ = fs::remove_file(&list);
        let first = self.state().node("n1")?.clone();
        let files = Files {
            root,
            state: "/run/weir-cluster/seed".into(),
        };
        let mut store_containerd = self.run_store(&first, &files)?;
        for image in &new {
            let name = image.file_stem().unwrap_or_default().to_string_lossy();
            let import = self.import(&first, &files, image);
            self.wait(&format!("image {name}"), LIMIT, import).await?;
        }
        self.stop_store(&mut store_containerd).await?;
        write(&list, &serde_json::to_string_pretty(&wanted)?)?;
        Ok(new.len())
    }

    /// Starts a containerd on the store. It dies with this `up`.
    fn run_store(&self, node: &Node, files: &Files) -> Result<Child> {
        let config = self.node_dir(&node.name).join("containerd-store.toml");
        write(&config, &containerd::config(self.snapshotter, files))?;
        let log = File::create(process::log_file(&self.logs, "containerd-store"))
            .context("cannot write the log of the store's containerd")?;
        let mut command = api::command_in(&self.dir, node, &self.containerd, "containerd")?;
        command
            .arg("--config")
            .arg(&config)
            .current_dir("/")
            .stdout(log.try_clone()?)
            .stderr(log);
        Command::from(command)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start containerd")
    }

    async fn import(&self, node: &Node, files: &Files, image: &Path) -> Result<()> {
        while !containerd::answers(node.holder.pid, files) {
            tokio::time::sleep(POLL).await;
        }
        let version = self.state().options.containerd;
        let mut command = api::command_in(&self.dir, node, &self.containerd, "ctr")?;
        command.args(containerd::import_args(
            version,
            self.snapshotter,
            files,
            image,
        ));
        let output = Command::from(command)
            .kill_on_drop(true)
            .output()
            .await
            .context("cannot run ctr")?;
        ensure!(
            output.status.success(),
            "cannot import {}: {}",
            image.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }

    async fn stop_store(&self, child: &mut Child) -> Result<()> {
        let pid = child.id().context("the store's containerd has ended")?;
        kill(
            nix::unistd::Pid::from_raw(pid.cast_signed()),
            Signal::SIGTERM,
        )
        .context("cannot stop the store's containerd")?;
        let end = async { Ok(child.wait().await?) };
        let status = self.wait("the store is closed", LIMIT, end).await?;
        ensure!(
            status.success(),
            "the store's containerd failed ({status}):\n{}",
            process::tail(&self.logs, "containerd-store")
        );
        Ok(())
    }
}

/// What the archives are now.
fn contents(images: &[PathBuf]) -> Result<Contents> {
    let one = |path: &PathBuf| {
        let data = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
        let written = data
            .modified()?
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let archive = Archive {
            len: data.len(),
            written: written.as_nanos(),
        };
        Ok((path.clone(), archive))
    };
    images.iter().map(one).collect()
}

/// Hard links to everything, but real copies of databases.
async fn copy_store(from: PathBuf, to: PathBuf) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    let output = Command::new("cp")
        .arg("-al")
        .args([&from, &to])
        .output()
        .await
        .context("cannot run cp")?;
    ensure!(
        output.status.success(),
        "cannot copy {} to {}: {}",
        from.display(),
        to.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    // Databases are directly in each part's folder.
    for part in fs::read_dir(&to)?.flatten().filter(|e| e.path().is_dir()) {
        for file in fs::read_dir(part.path())?.flatten() {
            if file.path().extension().is_some_and(|e| e == "db") {
                unshare(&file.path())?;
            }
        }
    }
    Ok(())
}

/// Puts a copy in the place of a hard link.
fn unshare(path: &Path) -> Result<()> {
    let copy = path.with_extension("db.copy");
    fs::copy(path, &copy)
        .and_then(|_| fs::rename(&copy, path))
        .with_context(|| format!("cannot copy {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[tokio::test]
    async fn a_nodes_copy_shares_layers_and_has_databases_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (
            dir.path().join("root"),
            dir.path().join("n1/lib/containerd"),
        );
        for (path, text) in [("meta/meta.db", "db"), ("snapshots/1/fs/sh", "sh")] {
            let path = from.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        copy_store(from.clone(), to.clone()).await.unwrap();
        let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
        let layer = "snapshots/1/fs/sh";
        assert_eq!(inode(from.join(layer)), inode(to.join(layer)));
        assert_ne!(
            inode(from.join("meta/meta.db")),
            inode(to.join("meta/meta.db"))
        );
        assert_eq!(fs::read(to.join("meta/meta.db")).unwrap(), b"db");
    }

    #[test]
    fn an_archive_that_was_written_again_is_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let image = vec![dir.path().join("a.tar")];
        fs::write(&image[0], "one").unwrap();
        let before = contents(&image).unwrap();
        assert_eq!(contents(&image).unwrap(), before);
        fs::write(&image[0], "another").unwrap();
        assert_ne!(contents(&image).unwrap(), before);
    }
}
