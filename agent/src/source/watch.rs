//! inotify over a directory tree, as "something under here changed".

use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsStr,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor},
};
use tokio::io::unix::AsyncFd;

/// Watches directories (not recursively: the owner adds each).
pub(super) struct Watcher {
    inotify: Inotify,
    ready: AsyncFd<OwnedFd>,
    dirs: HashMap<WatchDescriptor, PathBuf>,
}

impl Watcher {
    /// # Errors
    /// inotify is not to be had (for example `fs.inotify.max_user_instances`).
    pub fn new() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        // A duplicate shares the open file description, so its readiness is the same.
        let ready = crate::fd::readable(inotify.as_fd().try_clone_to_owned()?)?;
        Ok(Self {
            inotify,
            ready,
            dirs: HashMap::new(),
        })
    }

    /// Watches a directory; harmless when it is watched already.
    pub fn add(&mut self, dir: &Path) -> io::Result<()> {
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        let descriptor = self.inotify.add_watch(dir, flags)?;
        self.dirs.insert(descriptor, dir.to_owned());
        Ok(())
    }

    /// Waits for changes. Returns the paths that were written or renamed, which must be read
    /// again even if they look the same; the caller scans for everything else.
    pub async fn changed(&mut self) -> io::Result<BTreeSet<PathBuf>> {
        let mut paths = BTreeSet::new();
        loop {
            let mut guard = self.ready.readable().await?;
            let mut any = false;
            loop {
                match self.inotify.read_events() {
                    Ok(events) => {
                        any = true;
                        for event in events {
                            if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                                self.dirs.remove(&event.wd);
                            }
                            let dir = self.dirs.get(&event.wd);
                            let name = event.name.as_deref().unwrap_or(OsStr::new(""));
                            paths.extend(dir.map(|dir| dir.join(name)));
                        }
                    }
                    Err(Errno::EAGAIN) => break,
                    Err(Errno::EINTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            guard.clear_ready();
            if any {
                return Ok(paths);
            }
        }
    }
}
