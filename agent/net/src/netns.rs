//! Network namespaces: handles, identity, and running code inside one.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::net::UnixDatagram,
    },
    panic,
    path::Path,
    thread,
};

use nix::{
    mount::{MntFlags, MsFlags},
    sched::CloneFlags,
    sys::{
        stat::fstat,
        statfs::{FsType, fstatfs},
    },
};

use crate::error::{Error, Result};

/// `NSFS_MAGIC` of linux/magic.h: the file system of namespace files.
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);

/// Which namespace a handle refers to: equal exactly when the namespaces are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetNsId {
    /// Device of the namespace file.
    pub dev: u64,
    /// Its inode.
    pub ino: u64,
}

/// An open network namespace: it lives at least as long as the handle. Two handles are equal when
/// they refer to the same namespace.
#[derive(Debug)]
pub struct NetNs {
    file: File,
    id: NetNsId,
    path: String,
}

impl PartialEq for NetNs {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for NetNs {}

impl NetNs {
    /// Opens the namespace a path names (`/run/netns/NAME`, `/proc/PID/ns/net`). A path that names
    /// anything else, such as the empty file that a dead namespace leaves behind, is
    /// [`Error::NotANamespace`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let file = File::open(path).map_err(|e| Error::call("open", &name, e))?;
        let kind = fstatfs(&file).map_err(|e| Error::call("fstatfs", &name, e))?;
        if kind.filesystem_type() != NSFS_MAGIC {
            let reason = "it is not a namespace file (the namespace is gone, or never was)".into();
            return Err(Error::NotANamespace { path: name, reason });
        }
        if namespace_type(file.as_fd())
            .map_err(|e| Error::call("ioctl(NS_GET_NSTYPE)", &name, e))?
            != libc::CLONE_NEWNET
        {
            let reason = "it is a namespace of another kind".into();
            return Err(Error::NotANamespace { path: name, reason });
        }
        let stat = fstat(&file).map_err(|e| Error::call("fstat", &name, e))?;
        // The C library's types differ between architectures; nothing is lost on any of them.
        #[allow(
            clippy::unnecessary_cast,
            reason = "st_dev is narrower on some architectures"
        )]
        let id = NetNsId {
            dev: stat.st_dev as u64,
            ino: stat.st_ino as u64,
        };
        Ok(Self {
            file,
            id,
            path: name,
        })
    }

    /// The calling thread's namespace (which need not be the process's).
    pub fn current() -> Result<Self> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// A process's namespace.
    pub fn of_process(pid: u32) -> Result<Self> {
        Self::open(format!("/proc/{pid}/ns/net"))
    }

    /// Makes a namespace that lives as long as the handle. Its [`NetNs::path`] is good for other
    /// processes too, as long as this one lives. The loopback is down in it.
    pub fn create() -> Result<Self> {
        let mut made = on_thread(|| {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|e| Error::call("unshare(CLONE_NEWNET)", "a new network namespace", e))?;
            Self::current()
        })??;
        made.path = format!("/proc/{}/fd/{}", std::process::id(), made.file.as_raw_fd());
        Ok(made)
    }

    /// Makes a namespace and binds it to a path, as `ip netns add` does; the path must not exist.
    /// The loopback is down in it.
    pub fn create_at(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let name = path.display().to_string();
        File::create_new(path).map_err(|e| Error::call("create", &name, e))?;
        let bound = on_thread(|| {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|e| Error::call("unshare(CLONE_NEWNET)", &name, e))?;
            let own = Some("/proc/thread-self/ns/net");
            nix::mount::mount(own, path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .map_err(|e| Error::call("mount", &name, e))
        })
        .and_then(|made| made)
        .and_then(|()| Self::open(path));
        if bound.is_err() {
            // The caller gets the first error; what could be made is unmade as far as possible.
            let _ = Self::remove_at(path);
        }
        bound
    }

    /// Undoes [`NetNs::create_at`]: unmounts and removes the path. The namespace itself goes when
    /// its last process and handle do. A path that is not there is success.
    pub fn remove_at(path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let name = path.display().to_string();
        match nix::mount::umount2(path, MntFlags::MNT_DETACH) {
            // EINVAL: nothing is mounted there; the file is all there is.
            Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
            Err(e) => return Err(Error::call("umount", &name, e)),
        }
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::call("unlink", &name, e)),
            _ => Ok(()),
        }
    }

    /// Which namespace this is.
    pub fn id(&self) -> NetNsId {
        self.id
    }

    /// The path it was opened by.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The namespace's cookie (`SO_NETNS_COOKIE`, Linux 5.14): what programs know it by
    /// (`bpf_get_netns_cookie`). Unique until the next boot, never 0, never given again.
    pub fn cookie(&self) -> Result<u64> {
        self.run(|| cookie_here().map_err(|e| Error::call("SO_NETNS_COOKIE", &self.path, e)))?
    }

    /// [`NetNs::cookie`] of the calling thread's namespace.
    pub fn current_cookie() -> Result<u64> {
        cookie_here()
            .map_err(|e| Error::call("SO_NETNS_COOKIE", "the thread's network namespace", e))
    }

    /// Runs `f` inside the namespace, on a thread of its own that ends with it: the caller's
    /// thread stays where it is. A panic in `f` is the caller's. Sockets and `/proc/sys/net` files
    /// opened in `f` belong to the namespace.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        on_thread(|| {
            nix::sched::setns(&self.file, CloneFlags::CLONE_NEWNET)
                .map_err(|e| Error::call("setns", &self.path, e))?;
            Ok(f())
        })
        .and_then(|entered| entered)
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Runs `f` on a thread of its own and waits for it.
fn on_thread<T: Send>(f: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, f)
            .map_err(|e| Error::call("clone", "a thread for a network namespace", e))?;
        match thread.join() {
            Ok(value) => Ok(value),
            Err(panic) => panic::resume_unwind(panic),
        }
    })
}

/// The cookie of the namespace that the calling thread is in: any socket tells it.
#[expect(unsafe_code, reason = "getsockopt has no safe wrapper for this option")]
fn cookie_here() -> io::Result<u64> {
    let socket = UnixDatagram::unbound()?;
    let mut cookie = 0u64;
    let mut len = size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: the option writes at most `len` bytes, the cookie's, and their number to `len`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(cookie)
    }
}

/// `NS_GET_NSTYPE` (linux/nsfs.h, Linux 4.11): the `CLONE_NEW…` flag of a namespace file.
#[expect(unsafe_code, reason = "ioctl has no safe wrapper")]
fn namespace_type(fd: BorrowedFd<'_>) -> io::Result<i32> {
    // SAFETY: the request takes no argument and writes nothing; the descriptor is open, as it is
    // borrowed.
    let kind = unsafe { libc::ioctl(fd.as_raw_fd(), libc::NS_GET_NSTYPE) };
    if kind < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(kind)
    }
}
