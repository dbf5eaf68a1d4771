//! The endpoints this node has adopted, remembered over restarts in `endpoints.json`.
//!
//! A record is written before anything is in the kernel and removed after everything is out of it,
//! so that nothing in the kernel is ever without a record, wherever the agent is killed.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use weir_abi::{endpoint::Endpoint, map::MAX_ENDPOINTS};
use weir_api::endpoint::AdoptRequest;

/// (container, interface): what the runtime calls an attachment.
pub type Key = (String, String);

/// One adopted endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What the plugin asked for.
    pub attachment: AdoptRequest,
    /// Index in `POLICY_SLOTS`.
    pub slot: u32,
    /// Tells it from every other endpoint since the last boot.
    pub incarnation: u32,
    /// The UID of its Pod object when it was adopted (a static pod's CNI arguments have another).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
}

/// `endpoints.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    version: u32,
    boot_id: String,
    next_incarnation: u32,
    endpoints: Vec<Record>,
}

/// All of them.
#[derive(Debug)]
pub struct Endpoints {
    path: PathBuf,
    boot_id: String,
    next_incarnation: u32,
    records: BTreeMap<Key, Record>,
    /// Slots not in use, the one that is free for longest first.
    free: VecDeque<u32>,
    is_first_of_boot: bool,
}

const VERSION: u32 = 1;
/// The file's name in the state directory.
pub const NAME: &str = "endpoints.json";

/// The key of a request.
pub fn key(request: &AdoptRequest) -> Key {
    (request.container_id.clone(), request.ifname.clone())
}

impl Endpoints {
    /// Reads the file. Records of a previous boot are dropped, for their devices are gone.
    /// `incarnation` is the largest that the kernel knows, `slots` how many there are, and
    /// `reserved` those that entries in the kernel use which no record may know.
    ///
    /// # Errors
    /// The file cannot be read or is damaged: to go on would forget endpoints that are at work.
    pub fn load(
        state_dir: &Path,
        boot_id: &str,
        incarnation: u32,
        slots: u32,
        reserved: &BTreeSet<u32>,
    ) -> io::Result<Self> {
        let path = state_dir.join(NAME);
        let file = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| {
                let message = format!(
                    "{}: {e}: remove the file to start afresh (pods of this node must then be made anew)",
                    path.display()
                );
                io::Error::new(io::ErrorKind::InvalidData, message)
            })?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => File::default(),
            Err(e) => return Err(named(&path, e)),
        };
        let same_boot = file.boot_id == boot_id;
        let records: BTreeMap<Key, Record> = if same_boot {
            file.endpoints
                .into_iter()
                .map(|r| (key(&r.attachment), r))
                .collect()
        } else {
            BTreeMap::new()
        };
        let known = if same_boot { file.next_incarnation } else { 0 };
        let used: BTreeSet<u32> = records
            .values()
            .map(|r| r.slot)
            .chain(reserved.iter().copied())
            .collect();
        let endpoints = Self {
            path,
            boot_id: boot_id.to_owned(),
            next_incarnation: known.max(incarnation.saturating_add(1)),
            free: (0..slots).filter(|slot| !used.contains(slot)).collect(),
            records,
            is_first_of_boot: !same_boot,
        };
        if endpoints.is_first_of_boot {
            // From now on a restart is known from a reboot, pods or none.
            endpoints.save()?;
        }
        Ok(endpoints)
    }

    /// Whether this is the first agent of this boot (or the first of all).
    pub fn is_first_of_boot(&self) -> bool {
        self.is_first_of_boot
    }

    /// Makes a record and writes it.
    ///
    /// # Errors
    /// Every slot is in use, or the file cannot be written; nothing is adopted then.
    pub fn adopt(
        &mut self,
        attachment: AdoptRequest,
        pod_uid: Option<String>,
    ) -> io::Result<Record> {
        let slot = self.free.pop_front().ok_or_else(|| {
            io::Error::other(
                "every policy slot is in use: this node has as many pods as Weir can serve",
            )
        })?;
        let incarnation = self.next_apart();
        let record = Record {
            slot,
            incarnation,
            attachment,
            pod_uid,
        };
        let key = key(&record.attachment);
        self.next_incarnation = incarnation.saturating_add(1);
        self.records.insert(key.clone(), record.clone());
        if let Err(e) = self.save() {
            self.records.remove(&key);
            self.free.push_front(slot);
            return Err(e);
        }
        Ok(record)
    }

    /// The next incarnation whose place in `INCARNATIONS` is nobody's.
    fn next_apart(&self) -> u32 {
        let place = Endpoint::place;
        let taken: BTreeSet<u32> = self
            .records
            .values()
            .map(|r| place(r.incarnation))
            .collect();
        let all = (self.next_incarnation..=u32::MAX).take(MAX_ENDPOINTS as usize);
        let apart = all.into_iter().find(|i| !taken.contains(&place(*i)));
        // If there are as many records as places, there is no slot for one more.
        apart.unwrap_or(self.next_incarnation)
    }

    /// Forgets a record, after nothing of it is in the kernel any more.
    ///
    /// # Errors
    /// The file cannot be written; the record stays.
    pub fn forget(&mut self, key: &Key) -> io::Result<()> {
        let Some(record) = self.records.remove(key) else {
            return Ok(());
        };
        if let Err(e) = self.save() {
            self.records.insert(key.clone(), record);
            return Err(e);
        }
        self.free.push_back(record.slot);
        Ok(())
    }

    /// One of them.
    pub fn get(&self, key: &Key) -> Option<&Record> {
        self.records.get(key)
    }

    /// All of them, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Record)> {
        self.records.iter()
    }

    fn save(&self) -> io::Result<()> {
        let file = File {
            version: VERSION,
            boot_id: self.boot_id.clone(),
            next_incarnation: self.next_incarnation,
            endpoints: self.records.values().cloned().collect(),
        };
        let text = serde_json::to_vec_pretty(&file)?;
        write_by_rename(&self.path, &text)
    }
}

/// Replaces a file as a whole: a reader sees the old one or the new one.
///
/// # Errors
/// The file system's, naming the file.
pub fn write_by_rename(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(|e| named(path, e))
}

fn named(path: &Path, e: io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::compile::endpoint::tests::request;

    fn load(dir: &TempDir, boot: &str) -> Endpoints {
        Endpoints::load(dir.path(), boot, 0, 8, &BTreeSet::new()).unwrap()
    }

    #[test]
    fn a_restart_knows_the_same_slots_and_incarnations() {
        let dir = TempDir::new().unwrap();
        let mut endpoints = load(&dir, "boot");
        let a = endpoints
            .adopt(request("a", 1, &["10.0.0.1"]), None)
            .unwrap();
        let b = endpoints
            .adopt(request("b", 2, &["10.0.0.2"]), None)
            .unwrap();
        assert_ne!((a.slot, a.incarnation), (b.slot, b.incarnation));
        endpoints.forget(&key(&a.attachment)).unwrap();
        let mut again = load(&dir, "boot");
        assert_eq!(again.iter().map(|(_, r)| r).collect::<Vec<_>>(), [&b]);
        let c = again.adopt(request("c", 3, &["10.0.0.1"]), None).unwrap();
        assert!(c.incarnation > b.incarnation && c.slot != b.slot);
    }

    #[test]
    fn records_of_a_previous_boot_are_dropped() {
        let dir = TempDir::new().unwrap();
        load(&dir, "boot")
            .adopt(request("a", 1, &["10.0.0.1"]), None)
            .unwrap();
        assert_eq!(load(&dir, "next").iter().count(), 0);
    }

    #[test]
    fn a_restart_is_known_from_a_reboot_even_where_no_pod_has_ever_been() {
        let dir = TempDir::new().unwrap();
        assert!(load(&dir, "boot").is_first_of_boot());
        assert!(!load(&dir, "boot").is_first_of_boot());
        assert!(load(&dir, "next").is_first_of_boot());
    }

    #[test]
    fn an_incarnation_that_the_kernel_knows_is_never_given_again() {
        let dir = TempDir::new().unwrap();
        let mut endpoints = Endpoints::load(dir.path(), "boot", 41, 8, &BTreeSet::new()).unwrap();
        assert_eq!(
            endpoints
                .adopt(request("a", 1, &["10.0.0.1"]), None)
                .unwrap()
                .incarnation,
            42
        );
    }

    #[test]
    fn no_two_endpoints_that_are_there_share_a_place_among_the_incarnations() {
        let dir = TempDir::new().unwrap();
        let mut endpoints = load(&dir, "boot");
        let mut adopt = |name: &str| {
            let record = endpoints.adopt(request(name, 1, &["10.0.0.1"]), None);
            let record = record.unwrap();
            endpoints.next_incarnation += MAX_ENDPOINTS - 1;
            record.incarnation
        };
        let (a, b, c) = (adopt("a"), adopt("b"), adopt("c"));
        assert_eq!((b - a, c - b), (4097, 4097));
        assert_eq!([a, b, c].map(Endpoint::place), [1, 2, 3]);
    }

    #[test]
    fn slots_that_entries_without_a_record_use_are_not_given_out() {
        let dir = TempDir::new().unwrap();
        let mut endpoints = Endpoints::load(dir.path(), "b", 0, 2, &BTreeSet::from([0])).unwrap();
        assert_eq!(
            endpoints
                .adopt(request("a", 1, &["10.0.0.1"]), None)
                .unwrap()
                .slot,
            1
        );
        let error = endpoints
            .adopt(request("b", 2, &["10.0.0.2"]), None)
            .unwrap_err();
        assert!(error.to_string().contains("slot"), "{error}");
    }

    #[test]
    fn the_slot_that_is_free_for_longest_is_given_first() {
        let dir = TempDir::new().unwrap();
        let mut endpoints = load(&dir, "boot");
        let a = endpoints
            .adopt(request("a", 1, &["10.0.0.1"]), None)
            .unwrap();
        endpoints.forget(&key(&a.attachment)).unwrap();
        let slots: Vec<u32> = (0..8)
            .map(|i| {
                endpoints
                    .adopt(request(&format!("x{i}"), 9 + i, &["10.0.0.9"]), None)
                    .unwrap()
                    .slot
            })
            .collect();
        assert_eq!(slots, [1, 2, 3, 4, 5, 6, 7, 0]);
    }

    #[test]
    fn a_damaged_file_is_named_with_the_remedy() {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join(NAME), "{").unwrap();
        let error = Endpoints::load(dir.path(), "b", 0, 8, &BTreeSet::new()).unwrap_err();
        assert!(
            error.to_string().contains(NAME) && error.to_string().contains("remove"),
            "{error}"
        );
    }

    #[test]
    fn what_cannot_be_written_is_not_adopted() {
        let dir = TempDir::new().unwrap();
        let mut endpoints = load(&dir, "boot");
        drop(dir);
        assert!(
            endpoints
                .adopt(request("a", 1, &["10.0.0.1"]), None)
                .is_err()
        );
        assert_eq!(endpoints.iter().count(), 0);
    }
}
