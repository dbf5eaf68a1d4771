//! Starting processes inside a node: namespaces by setns, cgroup by its file, and a death signal so
//! that none outlives the lab, not even one killed with -9.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Arc, OnceLock, mpsc};

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns, unshare};

/// Where a process is to run. Clone it freely: the handles are shared.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Network namespace to enter.
    pub net: Option<Arc<OwnedFd>>,
    /// Mount namespace to enter.
    pub mnt: Option<Arc<OwnedFd>>,
    /// `cgroup.procs` of the cgroup to enter, open for writing.
    pub cgroup: Option<Arc<File>>,
    /// Whether the process gets a network namespace of its own, after the ones above.
    pub new_net: bool,
    /// Whether the process gets a mount namespace of its own, after the ones above.
    pub new_mnt: bool,
}

impl Place {
    /// The namespaces of a running process, as a place to start others in.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn of_process(pid: u32) -> Result<Self> {
        Ok(Self {
            net: Some(Arc::new(open_ns(pid, "net")?)),
            mnt: Some(Arc::new(open_ns(pid, "mnt")?)),
            ..Self::default()
        })
    }

    /// The same place, in another cgroup.
    ///
    /// # Errors
    /// When the cgroup does not exist.
    pub fn in_cgroup(mut self, cgroup: &Path) -> Result<Self> {
        let path = cgroup.join("cgroup.procs");
        let file = File::options()
            .write(true)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))?;
        self.cgroup = Some(Arc::new(file));
        Ok(self)
    }

    /// Only the network namespace of this place.
    #[must_use]
    pub fn net_only(&self) -> Self {
        Self {
            net: self.net.clone(),
            ..Self::default()
        }
    }

    /// The same place, with a new network namespace.
    #[must_use]
    pub fn with_new_net(mut self) -> Self {
        self.new_net = true;
        self
    }

    /// Enters the place. Runs between fork and exec, or on a thread of its own.
    ///
    /// # Errors
    /// The error of the first system call that failed.
    pub fn enter(&self) -> io::Result<()> {
        if let Some(mut cgroup) = self.cgroup.as_deref() {
            cgroup.write_all(b"0")?;
        }
        if let Some(net) = &self.net {
            setns(net.as_ref(), CloneFlags::CLONE_NEWNET)?;
        }
        if let Some(mnt) = &self.mnt {
            setns(mnt.as_ref(), CloneFlags::CLONE_NEWNS)?;
        }
        let mut new = CloneFlags::empty();
        new.set(CloneFlags::CLONE_NEWNET, self.new_net);
        new.set(CloneFlags::CLONE_NEWNS, self.new_mnt);
        if !new.is_empty() {
            unshare(new)?;
        }
        Ok(())
    }
}

/// Opens a namespace of a process (`net`, `mnt`).
///
/// # Errors
/// When the process is gone.
pub fn open_ns(pid: u32, kind: &str) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/ns/{kind}");
    Ok(File::open(&path)
        .with_context(|| format!("opening {path}"))?
        .into())
}

type Job = Box<dyn FnOnce() + Send>;

/// One thread starts all processes and lives as long as this process: the kernel sends the parent
/// death signal when the *thread* that forked ends, and tests run on threads that end.
fn spawner() -> &'static mpsc::Sender<Job> {
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    SPAWNER.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Job>();
        std::thread::spawn(move || receiver.into_iter().for_each(|job| job()));
        sender
    })
}

/// Starts a command in a place, in a process group of its own (a Ctrl-C at the terminal is for the
/// lab, which then stops its processes in order). The process dies with this one.
///
/// # Errors
/// When the program cannot be started or a namespace cannot be entered.
pub fn spawn(mut command: Command, place: Place) -> Result<Child> {
    let parent = std::process::id();
    let program = command.get_program().to_string_lossy().into_owned();
    command.process_group(0);
    // SAFETY: the closure makes system calls only (prctl, write, setns, unshare, getppid) and
    // allocates nothing.
    unsafe {
        command.pre_exec(move || {
            place.enter()?;
            nix::sys::prctl::set_pdeathsig(Some(nix::sys::signal::Signal::SIGKILL))?;
            if nix::unistd::getppid().as_raw() != parent.cast_signed() {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
    let (sender, receiver) = mpsc::channel();
    spawner()
        .send(Box::new(move || {
            let _ = sender.send(command.spawn());
        }))
        .map_err(|_| anyhow!("the thread that starts processes has ended"))?;
    receiver
        .recv()
        .context("the thread that starts processes has ended")?
        .with_context(|| format!("starting {program}"))
}

/// Runs `work` on a thread of its own inside a place.
///
/// # Errors
/// When the place cannot be entered, or the error of `work`.
pub fn run_in<T: Send>(place: &Place, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                if place.mnt.is_some() || place.new_mnt {
                    // setns to a mount namespace wants a file system context of its own.
                    unshare(CloneFlags::CLONE_FS)?;
                }
                place.enter().context("entering a namespace")?;
                work()
            })
            .join()
            .map_err(|_| anyhow!("a thread inside a namespace panicked"))?
    })
}

/// Lets go of the standard output and error that this process inherited, so that a lab that stays
/// up holds no pipe open that somebody reads to its end.
///
/// # Errors
/// The kernel's.
pub fn release_output() -> Result<()> {
    let null = File::options()
        .write(true)
        .open("/dev/null")
        .context("opening /dev/null")?;
    for standard in [1, 2] {
        // SAFETY: dup2 replaces a standard descriptor, which nobody here owns.
        if unsafe { libc::dup2(null.as_raw_fd(), standard) } < 0 {
            return Err(io::Error::last_os_error()).context("releasing standard output");
        }
    }
    Ok(())
}

/// Sends SIGKILL and reaps. For a process that ended already this does nothing.
pub fn kill(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}
