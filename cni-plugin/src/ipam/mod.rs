//! Which attachment has which addresses: one store for all networks of a node, so that two of them
//! can share a range.
//!
//! `<stateDir>/ipam/store.json` is only ever replaced by a rename of a file that is complete and on
//! the disk, under an exclusive lock of `<stateDir>/ipam/lock`: a reader sees the store as it was
//! before a change or after it, whatever dies when. The kernel drops the lock of a process that
//! dies. What a killed writer leaves is `store.json.tmp`, which nobody reads and the next writer
//! overwrites.

mod range;
mod state;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::error::{CniError, Code, Result};

pub use range::{Pool, Range};
pub use state::{Key, Record, Request, State};

/// The store's files.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// The store below a state directory, which need not exist.
    pub fn new(state_dir: &Path) -> Self {
        Self {
            dir: state_dir.join("ipam"),
        }
    }

    /// The store as it is, without waiting for a writer.
    pub fn read(&self) -> Result<State> {
        let path = self.path();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::default()),
            Err(error) => return Err(io_error("read", &path, &error)),
        };
        let state: Result<State, _> = serde_json::from_slice(&text);
        let checked = state
            .map_err(|e| e.to_string())
            .and_then(|s| s.validate().map(|()| s));
        checked.map_err(|reason| {
            let msg = format!("the address store {} cannot be used: {reason}", path.display());
            CniError::new(Code::Store, msg).details(
                "it is never reset by itself, as addresses in use would be given out again; restore \
                 it, or drain the node and remove the file",
            )
        })
    }

    /// Changes the store under its lock; nothing is written if `change` fails or changes nothing.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let _lock = self.lock()?;
        let before = self.read()?;
        let mut state = before.clone();
        let value = change(&mut state)?;
        if state != before {
            self.write(&state)?;
        }
        Ok(value)
    }

    /// Frees an attachment's addresses, if `expected` is still its record.
    pub fn release(&self, expected: &Record) -> Result<()> {
        self.change(|state| {
            if state.find(&expected.key) == Some(expected) {
                state.release(&expected.key);
            }
            Ok(())
        })
    }

    fn path(&self) -> PathBuf {
        self.dir.join("store.json")
    }

    /// Waits for the lock, which is held as long as the file is open: for one read and one write.
    fn lock(&self) -> Result<File> {
        let mut builder = fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o755).create(&self.dir);
        made.map_err(|error| io_error("create", &self.dir, &error))?;
        let path = self.dir.join("lock");
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        let file = opened.map_err(|error| io_error("open", &path, &error))?;
        loop {
            match file.lock() {
                Ok(()) => return Ok(file),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io_error("lock", &path, &error)),
            }
        }
    }

    fn write(&self, state: &State) -> Result<()> {
        let (path, temporary) = (self.path(), self.dir.join("store.json.tmp"));
        let text = serde_json::to_vec(state).map_err(|e| io_error("encode", &path, &e.into()))?;
        let replace = || -> io::Result<()> {
            let mut options = OpenOptions::new();
            let mut file = options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(&self.dir)?.sync_all()
        };
        replace().map_err(|error| io_error("write", &path, &error))
    }
}

fn io_error(call: &str, path: &Path, error: &io::Error) -> CniError {
    CniError::new(
        Code::Io,
        format!("cannot {call} {}: {error}", path.display()),
    )
}

/// This boot's id.
pub fn boot_id() -> Result<String> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = fs::read_to_string(path).map_err(|error| io_error("read", path, &error))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: &str, pools: &'static [Pool]) -> Request<'static> {
        Request {
            key: Key {
                network: "n".into(),
                container_id: id.into(),
                ifname: "eth0".into(),
            },
            pools,
            wanted: &[],
            host_ifname: "h".into(),
            boot_id: "b".into(),
            pod: None,
        }
    }

    fn pools() -> &'static [Pool] {
        let range = Range::new("10.0.0.0/24".parse().unwrap(), None, None, None).unwrap();
        Box::leak(
            Pool::from_sets(vec![vec![range]])
                .unwrap()
                .into_boxed_slice(),
        )
    }

    #[test]
    fn what_is_written_is_read_back_and_an_absent_store_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        assert_eq!(store.read().unwrap(), State::default());
        let record = store
            .change(|s| s.allocate(&request("a", pools())))
            .unwrap();
        assert_eq!(store.read().unwrap().records, std::slice::from_ref(&record));
        store.release(&record).unwrap();
        assert_eq!(store.read().unwrap().records, []);
    }

    #[test]
    fn a_stale_temporary_file_is_ignored_and_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        store
            .change(|s| s.allocate(&request("a", pools())))
            .unwrap();
        let temporary = dir.path().join("ipam/store.json.tmp");
        fs::write(&temporary, "{\"half\":").unwrap();
        store
            .change(|s| s.allocate(&request("b", pools())))
            .unwrap();
        assert_eq!(store.read().unwrap().records.len(), 2);
        assert!(!temporary.exists());
    }

    #[test]
    fn a_corrupt_store_is_an_error_that_names_the_file_and_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        let path = dir.path().join("ipam/store.json");
        fs::create_dir(dir.path().join("ipam")).unwrap();
        for text in [
            "",
            "{",
            "[]",
            "{\"version\":9,\"serial\":0,\"records\":[],\"freed\":[]}",
            "\u{0}",
        ] {
            fs::write(&path, text).unwrap();
            let error = store
                .change(|s| s.allocate(&request("a", pools())))
                .unwrap_err();
            assert_eq!(error.code, Code::Store, "{text:?}");
            assert!(error.msg.contains("ipam/store.json"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn a_record_is_released_only_if_it_is_still_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        let old = store
            .change(|s| s.allocate(&request("a", pools())))
            .unwrap();
        store.release(&old).unwrap();
        let new = store
            .change(|s| s.allocate(&request("a", pools())))
            .unwrap();
        store.release(&old).unwrap();
        assert_eq!(store.read().unwrap().records, [new]);
    }

    #[test]
    fn concurrent_changes_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let store = &store;
                scope.spawn(move || {
                    for n in 0..8 {
                        let id = format!("c{thread}x{n}");
                        store
                            .change(|s| s.allocate(&request(&id, pools())))
                            .unwrap();
                    }
                });
            }
        });
        assert_eq!(store.read().unwrap().records.len(), 64);
    }
}
