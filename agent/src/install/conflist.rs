//! The CNI configuration, by which the runtime finds the plugin. A node is Ready for pods as long
//! as there is one, so it is written when ADD can succeed, not before; and it is not removed while
//! the agent is down, as the runtime cannot even run DEL without it.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::json;

use super::files;
use crate::config::CniConf;

/// World-readable: nothing in it is secret, and kubelet's user may not be the runtime's.
const MODE: u32 = 0o644;

/// The file that is to be there.
#[derive(Debug)]
pub struct Conflist {
    dir: PathBuf,
    name: String,
    text: String,
}

impl Conflist {
    /// What to write, and where. Socket and state directory are named only where they are not the
    /// plugin's own defaults.
    pub fn new(conf: &CniConf, socket: &Path, state_dir: &Path) -> Self {
        Self {
            dir: conf.dir.clone(),
            name: conf.name.clone(),
            text: text(conf.log_file.as_deref(), socket, state_dir),
        }
    }

    /// Writes the file unless it is there and says the same; true if it was written. Anything else
    /// in the directory is left alone.
    ///
    /// # Errors
    /// The file system's, naming the file.
    pub fn ensure(&self) -> io::Result<bool> {
        let path = self.path();
        if files::read(&path)?.as_deref() == Some(self.text.as_bytes()) {
            return Ok(false);
        }
        fs::create_dir_all(&self.dir).map_err(|e| files::named(&self.dir, &e))?;
        // Runtimes pass over names that do not end in .conf, .conflist or .json.
        let temporary = format!("{}.tmp", self.name);
        files::replace(&path, &temporary, self.text.as_bytes(), MODE)?;
        Ok(true)
    }

    /// Removes the file; false if there is none.
    ///
    /// # Errors
    /// The file system's, naming the file.
    pub fn remove(&self) -> io::Result<bool> {
        files::remove(&self.path())
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    /// What keeps the runtime from using the file: configurations that it takes first, with the
    /// remedy.
    pub fn problems(&self) -> Vec<String> {
        let names = match fs::read_dir(&self.dir) {
            Ok(entries) => entries.flatten().map(|entry| entry.file_name()).collect(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return vec![files::named(&self.dir, &e).to_string()],
        };
        first_ones(names, &self.name)
            .into_iter()
            .map(|name| {
                format!(
                    "{}: sorts before {}, so that the runtime gives pods that network and not Weir's: remove it, or rename it to {name}.disabled",
                    self.dir.join(&name).display(),
                    self.name
                )
            })
            .collect()
    }
}

/// The names of configurations that a runtime takes before `own`, sorted.
fn first_ones(names: Vec<OsString>, own: &str) -> Vec<String> {
    let names = names.into_iter().filter_map(|name| name.into_string().ok());
    let mut first: Vec<String> = names
        .filter(|name| is_configuration(name) && name.as_str() < own)
        .collect();
    first.sort();
    first
}

/// What libcni looks at (`ConfFiles`).
fn is_configuration(name: &str) -> bool {
    let extension = Path::new(name).extension();
    extension.is_some_and(|e| e == "conf" || e == "conflist" || e == "json")
}

/// The file. `cniVersion` is what runtimes take that do not know `cniVersions` (containerd before
/// 2.0, CRI-O before 1.31); they know 1.0.0.
fn text(log_file: Option<&Path>, socket: &Path, state_dir: &Path) -> String {
    let mut plugin = json!({
        "type": "weir-cni",
        "capabilities": {"dns": true, "ips": true},
    });
    let mut set = |key: &str, path: &Path| plugin[key] = path.to_string_lossy().into();
    if socket != Path::new(weir_api::DEFAULT_SOCKET) {
        set("socket", socket);
    }
    if state_dir != Path::new(weir_api::DEFAULT_STATE_DIR) {
        set("stateDir", state_dir);
    }
    if let Some(path) = log_file {
        set("logFile", path);
    }
    let list = json!({
        "cniVersion": "1.0.0",
        "cniVersions": ["0.4.0", "1.0.0", "1.1.0"],
        "name": "weir",
        "plugins": [plugin],
    });
    // A value that was just made is always text.
    let mut text = serde_json::to_string_pretty(&list).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn conflist(dir: &Path) -> Conflist {
        let conf = CniConf {
            dir: dir.join("net.d"),
            name: "05-weir.conflist".into(),
            log_file: None,
        };
        let (socket, state) = (weir_api::DEFAULT_SOCKET, weir_api::DEFAULT_STATE_DIR);
        Conflist::new(&conf, Path::new(socket), Path::new(state))
    }

    #[test]
    fn the_file_is_written_once_and_again_only_when_it_differs() {
        let dir = TempDir::new().unwrap();
        let conflist = conflist(dir.path());
        assert!(conflist.ensure().unwrap());
        assert!(!conflist.ensure().unwrap());
        fs::write(conflist.path(), "{}").unwrap();
        assert!(conflist.ensure().unwrap());
        let text = fs::read(conflist.path()).unwrap();
        let list: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(list["name"], "weir");
        assert_eq!(list["plugins"][0]["type"], "weir-cni");
        assert_eq!(list["plugins"][0].get("socket"), None);
        assert!(conflist.remove().unwrap());
        assert!(!conflist.remove().unwrap());
    }

    #[test]
    fn paths_that_are_not_the_plugins_defaults_are_in_the_file() {
        let log = Some(Path::new("/var/log/weir-cni.log"));
        let text = text(log, Path::new("/x/agent.sock"), Path::new("/y"));
        let list: serde_json::Value = serde_json::from_str(&text).unwrap();
        let plugin = &list["plugins"][0];
        assert_eq!(plugin["socket"], "/x/agent.sock");
        assert_eq!(plugin["stateDir"], "/y");
        assert_eq!(plugin["logFile"], "/var/log/weir-cni.log");
    }

    #[test]
    fn other_files_are_never_touched_and_one_that_is_taken_first_is_a_problem() {
        let dir = TempDir::new().unwrap();
        let conflist = conflist(dir.path());
        assert_eq!(conflist.problems(), Vec::<String>::new());
        conflist.ensure().unwrap();
        let net_d = dir.path().join("net.d");
        let names = ["00-a.conf", "04.json", "05-a.conflist.tmp", "10-b.conflist"];
        for name in names {
            fs::write(net_d.join(name), name).unwrap();
        }
        let problems = conflist.problems();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].contains("net.d/00-a.conf: sorts before 05-weir.conflist"));
        assert!(problems[1].contains("04.json.disabled"), "{problems:?}");
        fs::write(conflist.path(), "").unwrap();
        conflist.ensure().unwrap();
        conflist.remove().unwrap();
        for name in names {
            assert_eq!(fs::read_to_string(net_d.join(name)).unwrap(), name);
        }
        assert_eq!(fs::read_dir(&net_d).unwrap().count(), names.len());
    }
}
