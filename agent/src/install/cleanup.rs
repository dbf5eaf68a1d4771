//! Takes everything of Weir off a node: what it has in the kernel and in files. It works without an
//! agent, and by what is there, not by what an agent remembers: names, the bpffs folder and the
//! routes' protocol tell what is Weir's.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::Value;
use weir_net::{
    Netlink,
    netlink::{Link, Route},
};

use super::{binaries, files};
use crate::{
    compile::route::PROTOCOL,
    dataplane::{
        filters,
        pins::{self, Lock},
    },
    engine::{
        endpoints::{self, Record},
        tunnel,
    },
    node::wireguard_key,
};
use weir_api::node_file::NodeFile;

/// Where Weir's things are on the node, as this process sees it.
#[derive(Clone, Debug)]
pub struct Places {
    /// Weir's folder in the BPF file system.
    pub bpffs: PathBuf,
    /// The state directory.
    pub state_dir: PathBuf,
    /// The agent's socket.
    pub socket: PathBuf,
    /// The CNI configuration.
    pub conflist: PathBuf,
    /// The runtime's directory of plugins.
    pub bin_dir: PathBuf,
}

/// What the plugin has in `ipam` below the state directory.
const IPAM: [&str; 3] = ["store.json", "store.json.tmp", "lock"];

/// One thing that is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Thing {
    /// The CNI configuration.
    Conflist(PathBuf),
    /// The node's side of a pod's pair, and whose.
    Interface(String, String),
    /// The device of tunnels between nodes.
    Device(String),
    /// A route of ours.
    Route(Box<Route>),
    /// A pinned link: it keeps a program attached to a device or cgroup.
    Link(PathBuf),
    /// A tc filter of ours, on kernels without such links.
    Filter(filters::Filter),
    /// A folder of pinned maps and programs.
    Pins(PathBuf),
    /// A file, or a link to one.
    File(PathBuf),
    /// A directory in which nothing is left then.
    Directory(PathBuf),
}

impl Thing {
    /// What it is, in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Conflist(_) => "configuration",
            Self::Interface(..) => "interface",
            Self::Device(_) => "device",
            Self::Route(_) => "route",
            Self::Link(_) => "link",
            Self::Filter(_) => "filter",
            Self::Pins(_) => "pins",
            Self::File(_) => "file",
            Self::Directory(_) => "directory",
        }
    }

    /// Which one.
    pub fn name(&self) -> String {
        match self {
            Self::Device(name) => name.clone(),
            Self::Interface(name, pod) if pod.is_empty() => name.clone(),
            Self::Interface(name, pod) => format!("{name} of {pod}"),
            Self::Route(route) => route.destination.to_string(),
            Self::Filter(filter) => filter.to_string(),
            Self::Conflist(path)
            | Self::Link(path)
            | Self::Pins(path)
            | Self::File(path)
            | Self::Directory(path) => path.display().to_string(),
        }
    }

    /// Removes it; what is gone already is fine.
    ///
    /// # Errors
    /// Why it is still there, naming it.
    pub fn remove(&self, netlink: &Netlink) -> Result<(), String> {
        let text = |e: &dyn std::fmt::Display| e.to_string();
        match self {
            Self::Interface(name, _) | Self::Device(name) => {
                netlink.delete_link(name).map(drop).map_err(|e| text(&e))
            }
            Self::Route(route) => netlink.delete_route(route).map(drop).map_err(|e| text(&e)),
            Self::Filter(filter) => filter.remove().map_err(|e| text(&e)),
            Self::Pins(path) => {
                gone(fs::remove_dir_all(path)).map_err(|e| files::named(path, &e).to_string())
            }
            // What somebody has put there since stays, and is told of.
            Self::Directory(path) => {
                gone(fs::remove_dir(path)).map_err(|e| files::named(path, &e).to_string())
            }
            Self::Conflist(path) | Self::Link(path) | Self::File(path) => {
                files::remove(path).map(drop).map_err(|e| text(&e))
            }
        }
    }
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// What there is on the node.
#[derive(Debug, Default)]
pub struct Survey {
    /// In the order in which it is to be removed.
    pub things: Vec<Thing>,
    /// Interfaces of pods that are attached, with the pods' names where they are known.
    pub attached: Vec<String>,
    /// Why nothing may be removed at all: an agent runs.
    pub running: Option<String>,
    /// As long as they live, no agent starts.
    _locks: Vec<Lock>,
}

impl Survey {
    /// Looks, and keeps agents from starting.
    ///
    /// # Errors
    /// Something cannot be read, by name.
    pub fn take(places: &Places, netlink: &Netlink) -> anyhow::Result<Self> {
        let mut survey = Self::default();
        let layouts = pins::layouts(&places.bpffs)?;
        for layout in &layouts {
            match pins::lock(layout) {
                Ok(lock) => survey._locks.push(lock),
                Err(e) => survey.running = Some(e.to_string()),
            }
        }
        // Without it the node is not Ready for pods: none comes in between.
        survey.add(places.conflist.clone(), Thing::Conflist);
        let links = netlink.links()?;
        let pods = pods(&places.state_dir);
        for link in links.iter().filter(|link| is_ours(link)) {
            let pod = pods.get(&link.name).cloned().unwrap_or_default();
            let thing = Thing::Interface(link.name.clone(), pod);
            survey.attached.push(thing.name());
            survey.things.push(thing);
        }
        let routes = netlink.routes()?;
        let ours = routes.into_iter().filter(|r| r.protocol == PROTOCOL);
        survey
            .things
            .extend(ours.map(|r| Thing::Route(Box::new(r))));
        for layout in &layouts {
            let links = pins::names(&layout.join("links")).unwrap_or_default();
            let paths = links.iter().map(|name| layout.join("links").join(name));
            survey.things.extend(paths.map(Thing::Link));
        }
        let devices = links.iter().filter(|link| !is_ours(link));
        for device in devices {
            let found = filters::find(&device.name, device.index)?;
            survey.things.extend(found.into_iter().map(Thing::Filter));
        }
        let tunnels = links.iter().filter(|link| tunnel::is_ours(link));
        let tunnels = tunnels.map(|link| Thing::Device(link.name.clone()));
        survey.things.extend(tunnels);
        let pins = layouts.iter().cloned().map(Thing::Pins);
        survey.things.extend(pins);
        survey.add_folder(&places.bpffs, |path| {
            layouts.iter().any(|layout| layout == path)
        });
        survey.add(places.socket.clone(), Thing::File);
        for name in [
            endpoints::NAME,
            NodeFile::NAME,
            wireguard_key::FILE,
            tunnel::PUBLIC_KEY_FILE,
        ] {
            survey.add(places.state_dir.join(name), Thing::File);
        }
        let ipam = places.state_dir.join("ipam");
        let stores = IPAM.map(|name| ipam.join(name));
        for path in &stores {
            survey.add(path.clone(), Thing::File);
        }
        survey.add_folder(&ipam, |path| stores.iter().any(|store| store == path));
        if binaries::is_our_loopback(&places.bin_dir) {
            survey.add(places.bin_dir.join(binaries::LOOPBACK), Thing::File);
        }
        survey.add(places.bin_dir.join(binaries::PLUGIN), Thing::File);
        Ok(survey)
    }

    /// A folder that is empty once what is `ours` in it is gone; else it stays, as a path that was
    /// given by mistake may be one that others use.
    fn add_folder(&mut self, path: &Path, ours: impl Fn(&Path) -> bool) {
        let Ok(entries) = fs::read_dir(path) else {
            return;
        };
        let is_ours = |entry: io::Result<fs::DirEntry>| entry.is_ok_and(|e| ours(&e.path()));
        if entries.into_iter().all(is_ours) {
            self.add(path.to_owned(), Thing::Directory);
        }
    }

    fn add(&mut self, path: PathBuf, thing: fn(PathBuf) -> Thing) {
        // Also a link that leads nowhere.
        if fs::symlink_metadata(&path).is_ok() {
            self.things.push(thing(path));
        }
    }
}

/// Whether a link is the node's side of a pair that the plugin makes: `weir` and 11 hex digits.
fn is_ours(link: &Link) -> bool {
    let digits = link.name.strip_prefix("weir").unwrap_or_default();
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    link.kind.as_deref() == Some("veth") && digits.len() == 11 && digits.bytes().all(hex)
}

/// Pods by the names of their interfaces; for messages only, so a file that cannot be read is none.
fn pods(state_dir: &Path) -> BTreeMap<String, String> {
    let read = || {
        let text = fs::read(state_dir.join(endpoints::NAME)).ok()?;
        let mut file: Value = serde_json::from_slice(&text).ok()?;
        serde_json::from_value::<Vec<Record>>(file["endpoints"].take()).ok()
    };
    let records = read().unwrap_or_default().into_iter();
    let named = records.filter_map(|Record { attachment, .. }| {
        let pod = attachment.pod?;
        Some((
            attachment.host_ifname,
            format!("{}/{}", pod.namespace, pod.name),
        ))
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_goes_only_if_nothing_but_what_is_ours_is_in_it() {
        let dir = tempfile::TempDir::new().unwrap();
        let (ours, folder) = (dir.path().join("v1"), dir.path().to_owned());
        fs::create_dir(&ours).unwrap();
        let look = || {
            let mut survey = Survey::default();
            survey.add_folder(&folder, |path| path == ours);
            survey.things
        };
        assert_eq!(look(), [Thing::Directory(folder.clone())]);
        fs::write(folder.join("cilium"), "").unwrap();
        assert_eq!(look(), []);
    }

    #[test]
    fn only_pairs_with_names_that_the_plugin_gives_are_ours() {
        let link = |name: &str, kind: Option<&str>| Link {
            name: name.into(),
            kind: kind.map(Into::into),
            ..Link::default()
        };
        assert!(is_ours(&link("weir0123456789a", Some("veth"))));
        for (name, kind) in [
            ("weir0123456789a", Some("dummy")),
            ("weir0123456789a", None),
            ("weir0123456789", Some("veth")),
            ("weir0123456789A", Some("veth")),
            ("weirwolf", Some("veth")),
            ("eth0", Some("veth")),
        ] {
            assert!(!is_ours(&link(name, kind)), "{name} {kind:?}");
        }
    }
}
