//! `--source dir:PATH`: a directory tree of Kubernetes YAML, watched.
//!
//! `.yaml`, `.yml` and `.json` files, recursive, in name order; names that begin with a dot are
//! passed over, so that a writer can prepare a file there and rename it into place.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::sync::mpsc;

use super::{Batch, Stage, merge::Merge, parse, watch::Watcher};

/// How long the source waits before it looks again at what it could not watch.
const RETRY: Duration = Duration::from_secs(5);

/// What tells one version of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Signature {
    dev: u64,
    ino: u64,
    size: u64,
    changed: (i64, i64),
}

impl From<&fs::Metadata> for Signature {
    fn from(meta: &fs::Metadata) -> Self {
        Self {
            dev: meta.dev(),
            ino: meta.ino(),
            size: meta.size(),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// The tree as last scanned.
struct Scanner {
    root: PathBuf,
    merge: Merge,
    seen: BTreeMap<PathBuf, Signature>,
    /// Directories that could not be listed or watched.
    problems: Vec<String>,
}

/// One listing of the tree.
#[derive(Default)]
struct Listing {
    dirs: Vec<PathBuf>,
    files: BTreeMap<PathBuf, Signature>,
    /// What could not be listed: nothing below it is taken for deleted.
    failed: Vec<(PathBuf, io::Error)>,
}

/// Runs until `out` is closed. The first batch is the complete picture.
///
/// # Errors
/// The directory does not exist, or inotify fails: the agent cannot follow its source any more.
pub async fn run(root: PathBuf, out: mpsc::Sender<Batch>) -> io::Result<()> {
    let named = |error: io::Error| {
        io::Error::new(
            error.kind(),
            format!("source dir:{}: {error}", root.display()),
        )
    };
    fs::read_dir(&root).map_err(named)?;
    let mut watcher = Watcher::new().map_err(named)?;
    let mut scanner = Scanner::new(root.clone());
    let mut first = true;
    let mut force = BTreeSet::new();
    loop {
        let before = scanner.problems();
        let changes = scanner.scan(&force, |dir| watcher.add(dir));
        let problems = scanner.problems();
        if first || !changes.is_empty() || problems != before {
            if first {
                scanner.merge.refill();
            }
            first = false;
            let stage = Stage::Complete;
            let batch = Batch {
                changes,
                problems,
                stage,
            };
            if out.send(batch).await.is_err() {
                return Ok(());
            }
        }
        force = if scanner.problems.is_empty() {
            watcher.changed().await.map_err(named)?
        } else {
            // A directory that cannot be read sends no event when it can be again.
            match tokio::time::timeout(RETRY, watcher.changed()).await {
                Ok(paths) => paths.map_err(named)?,
                Err(_) => BTreeSet::new(),
            }
        };
    }
}

impl Scanner {
    fn new(root: PathBuf) -> Self {
        Self {
            root,
            merge: Merge::default(),
            seen: BTreeMap::new(),
            problems: Vec::new(),
        }
    }

    fn problems(&self) -> Vec<String> {
        self.problems
            .iter()
            .cloned()
            .chain(self.merge.problems())
            .collect()
    }

    /// Reads what is new, differs, or stands in `force`. `watch` is called for every directory
    /// before it is listed, so that nothing falls between the two.
    fn scan(
        &mut self,
        force: &BTreeSet<PathBuf>,
        mut watch: impl FnMut(&Path) -> io::Result<()>,
    ) -> Vec<crate::state::Change<crate::state::Kept>> {
        let mut listing = Listing::default();
        list(&self.root, &mut listing, &mut watch);
        let mut changes = Vec::new();
        for path in self.merge.paths() {
            let hidden = listing.failed.iter().any(|(dir, _)| path.starts_with(dir));
            if !listing.files.contains_key(&path) && !hidden {
                self.seen.remove(&path);
                changes.extend(self.merge.remove(&path));
            }
        }
        for (path, signature) in &listing.files {
            if self.seen.get(path) == Some(signature) && !force.contains(path) {
                continue;
            }
            match fs::read(path) {
                Ok(bytes) => {
                    changes.extend(self.merge.set(path, parse::parse(path, &bytes)));
                    self.seen.insert(path.clone(), *signature);
                }
                // Gone since it was listed: its event is on the way.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => {
                    self.seen.remove(path);
                    self.merge
                        .unreadable(path, format!("{}: {e}", path.display()));
                }
            }
        }
        self.problems = listing
            .failed
            .iter()
            .map(|(path, e)| format!("{}: {e}", path.display()))
            .collect();
        changes
    }
}

fn list(dir: &Path, out: &mut Listing, watch: &mut impl FnMut(&Path) -> io::Result<()>) {
    let entries = match watch(dir).and_then(|()| fs::read_dir(dir)) {
        Ok(entries) => entries,
        Err(e) => {
            out.failed.push((dir.to_owned(), e));
            return;
        }
    };
    out.dirs.push(dir.to_owned());
    for entry in entries {
        let path = match entry {
            Ok(entry) => entry.path(),
            Err(e) => {
                out.failed.push((dir.to_owned(), e));
                continue;
            }
        };
        let hidden = path
            .file_name()
            .is_none_or(|n| n.as_encoded_bytes().starts_with(b"."));
        if hidden {
            continue;
        }
        // Follows symbolic links, as a mounted ConfigMap is made of them.
        match fs::metadata(&path) {
            Ok(meta) if meta.is_dir() => list(&path, out, watch),
            Ok(meta) if meta.is_file() && weir_manifests::is_manifest(&path) => {
                out.files.insert(path, Signature::from(&meta));
            }
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => out.failed.push((path, e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::state::Change;

    fn write(dir: &TempDir, name: &str, text: &str) {
        let path = dir.path().join(name);
        let temporary = path.with_file_name(".being-written");
        fs::write(&temporary, text).unwrap();
        fs::rename(&temporary, &path).unwrap();
    }

    fn namespace(name: &str) -> String {
        format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n")
    }

    struct Run {
        batches: mpsc::Receiver<Batch>,
    }

    impl Run {
        fn start(dir: &TempDir) -> Self {
            let (out, batches) = mpsc::channel(64);
            tokio::spawn(run(dir.path().to_owned(), out));
            Self { batches }
        }

        async fn next(&mut self) -> Batch {
            tokio::time::timeout(Duration::from_secs(20), self.batches.recv())
                .await
                .unwrap()
                .unwrap()
        }

        /// `+name` and `-name` of the next batch.
        async fn names(&mut self) -> Vec<String> {
            let name = |change: &Change<crate::state::Kept>| match change {
                Change::Apply(o) => format!("+{}", o.key().name),
                Change::Delete(k) => format!("-{}", k.name),
            };
            self.next().await.changes.iter().map(name).collect()
        }
    }

    #[tokio::test]
    async fn the_first_batch_is_complete_and_later_ones_follow_the_files() {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        write(&dir, "a.yaml", &namespace("a"));
        write(&dir, "sub/b.yml", &namespace("b"));
        write(&dir, "notes.txt", "not a manifest");
        let mut run = Run::start(&dir);
        assert_eq!(run.names().await, ["+a", "+b"]);
        write(&dir, "c.yaml", &namespace("c"));
        assert_eq!(run.names().await, ["+c"]);
        fs::remove_file(dir.path().join("sub/b.yml")).unwrap();
        assert_eq!(run.names().await, ["-b"]);
    }

    #[tokio::test]
    async fn an_empty_directory_is_a_complete_picture() {
        let dir = TempDir::new().unwrap();
        let mut run = Run::start(&dir);
        assert_eq!(run.next().await, Batch::default());
    }

    #[tokio::test]
    async fn a_directory_made_later_is_watched_as_well() {
        let dir = TempDir::new().unwrap();
        let mut run = Run::start(&dir);
        run.next().await;
        fs::create_dir(dir.path().join("new")).unwrap();
        write(&dir, "new/x.yaml", &namespace("x"));
        assert_eq!(run.names().await, ["+x"]);
        write(&dir, "new/z.yaml", &namespace("z"));
        assert_eq!(run.names().await, ["+z"]);
    }

    #[tokio::test]
    async fn a_file_that_stops_parsing_is_named_with_its_line_and_keeps_its_objects() {
        let dir = TempDir::new().unwrap();
        write(&dir, "a.yaml", &namespace("a"));
        let mut run = Run::start(&dir);
        run.next().await;
        write(
            &dir,
            "a.yaml",
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: [\n",
        );
        let batch = run.next().await;
        assert!(batch.changes.is_empty(), "{batch:?}");
        assert!(batch.problems[0].contains("a.yaml:"), "{batch:?}");
        write(&dir, "a.yaml", &namespace("b"));
        let batch = run.next().await;
        assert_eq!(batch.changes.len(), 2, "{batch:?}");
        assert!(batch.problems.is_empty());
    }

    #[tokio::test]
    async fn a_source_that_does_not_exist_is_an_error_that_names_it() {
        let (out, _batches) = mpsc::channel(1);
        let error = run("/nowhere/at/all".into(), out).await.unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
    }

    #[test]
    fn what_lies_in_a_directory_that_cannot_be_listed_is_not_taken_for_deleted() {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        write(&dir, "sub/b.yaml", &namespace("b"));
        let mut scanner = Scanner::new(dir.path().to_owned());
        assert_eq!(scanner.scan(&BTreeSet::new(), |_| Ok(())).len(), 1);
        let refuse = |path: &Path| {
            if path.ends_with("sub") {
                Err(io::Error::from(io::ErrorKind::PermissionDenied))
            } else {
                Ok(())
            }
        };
        assert!(scanner.scan(&BTreeSet::new(), refuse).is_empty());
        assert_eq!(scanner.problems().len(), 1);
        assert!(scanner.scan(&BTreeSet::new(), |_| Ok(())).is_empty());
        assert!(scanner.problems().is_empty());
    }
}
