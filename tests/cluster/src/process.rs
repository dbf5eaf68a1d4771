//! Processes that outlive this one: started in a node's namespaces and cgroup, known by pid and
//! start time.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};

/// A process, told from a later one of the same pid by when it started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// What it is: `kubelet-n1`, `etcd`, …; its log is `logs/NAME.log`.
    pub name: String,
    /// Its process id.
    pub pid: u32,
    /// When it started, in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub started: u64,
}

impl Process {
    /// The process of that id, if there is one.
    #[must_use]
    pub fn find(name: &str, pid: u32) -> Option<Self> {
        let started = start_time(pid)?;
        Some(Self {
            name: name.to_owned(),
            pid,
            started,
        })
    }

    /// Whether it still runs.
    #[must_use]
    pub fn alive(&self) -> bool {
        start_time(self.pid) == Some(self.started)
    }

    /// Kills it, if it is still the one that was started.
    pub fn kill(&self) {
        if self.alive()
            && let Ok(pid) = i32::try_from(self.pid)
        {
            // It may end by itself just now, which is what is wanted.
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
    }
}

/// When a process started; none if it is gone or waits to be reaped.
fn start_time(pid: u32) -> Option<u64> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads `/proc/PID/stat`: what follows the name, which is in brackets and may contain anything.
fn parse_stat(text: &str) -> Option<u64> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    // Field 3 is the first of them: the state.
    match *fields.first()? {
        "Z" | "X" => None,
        _ => fields.get(19)?.parse().ok(),
    }
}

/// Where a process is to run: what another process (a node's holder) has.
#[derive(Debug)]
pub struct Place {
    net: File,
    mnt: File,
    uts: File,
    procs: File,
}

impl Place {
    /// The namespaces of a process, and a cgroup.
    ///
    /// # Errors
    /// The process or the cgroup is gone.
    pub fn new(holder: u32, cgroup: &Path) -> Result<Self> {
        let ns = |kind: &str| {
            let path = format!("/proc/{holder}/ns/{kind}");
            File::open(&path).with_context(|| format!("cannot open {path}: its holder is gone"))
        };
        Ok(Self {
            net: ns("net")?,
            mnt: ns("mnt")?,
            uts: ns("uts")?,
            procs: open_procs(cgroup)?,
        })
    }

    fn enter(&self) -> io::Result<()> {
        (&self.procs).write_all(b"0")?;
        setns(&self.net, CloneFlags::CLONE_NEWNET)?;
        setns(&self.uts, CloneFlags::CLONE_NEWUTS)?;
        setns(&self.mnt, CloneFlags::CLONE_NEWNS)?;
        Ok(())
    }

    /// A program that will run there.
    #[must_use]
    pub fn command(self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        // SAFETY: the closure only makes system calls (write, setns) on open files and allocates
        // nothing.
        unsafe {
            command.pre_exec(move || self.enter());
        }
        command
    }
}

/// A program that will run in a cgroup, in this process's own namespaces.
///
/// # Errors
/// The cgroup is gone.
pub fn command_in_cgroup(cgroup: &Path, program: &Path) -> Result<Command> {
    let procs = open_procs(cgroup)?;
    let mut command = Command::new(program);
    // SAFETY: the closure makes one system call (write) on an open file and allocates nothing.
    unsafe {
        command.pre_exec(move || (&procs).write_all(b"0"));
    }
    Ok(command)
}

fn open_procs(cgroup: &Path) -> Result<File> {
    let path = cgroup.join("cgroup.procs");
    File::options()
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))
}

/// Where a program's standard output goes; errors always go to its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Its log.
    Log,
    /// A pipe, for the one line that says that it is there.
    Pipe,
}

/// Starts a program that goes on when this one has ended: a session of its own (Ctrl-C is not for
/// it), output to its log.
///
/// # Errors
/// It cannot be started, or ends at once.
pub fn launch(
    name: &str,
    logs: &Path,
    mut command: Command,
    output: Output,
) -> Result<(Process, Child)> {
    let log = log_file(logs, name);
    let file = File::options()
        .create(true)
        .append(true)
        .open(&log)
        .with_context(|| format!("cannot write {}", log.display()))?;
    // SAFETY: the closure makes one system call.
    unsafe {
        command.pre_exec(|| Ok(nix::unistd::setsid().map(drop)?));
    }
    command.stdin(Stdio::null()).stdout(match output {
        Output::Log => Stdio::from(file.try_clone()?),
        Output::Pipe => Stdio::piped(),
    });
    let program = command.get_program().to_string_lossy().into_owned();
    let child = command
        .stderr(file)
        .spawn()
        .with_context(|| format!("cannot start {program} as {name}"))?;
    let process = Process::find(name, child.id())
        .with_context(|| format!("{name} ended at once:\n{}", tail(logs, name)))?;
    Ok((process, child))
}

/// The first line that a program writes to its pipe.
///
/// # Errors
/// It ends without one; the end of its log is in the message.
pub fn first_line(child: &mut Child, name: &str, logs: &Path) -> Result<String> {
    let mut line = String::new();
    if let Some(pipe) = child.stdout.take() {
        BufReader::new(pipe).read_line(&mut line)?;
    }
    ensure!(
        line.ends_with('\n'),
        "{name} ended before it was ready:\n{}",
        tail(logs, name)
    );
    Ok(line.trim().to_owned())
}

/// Where a process's output is.
#[must_use]
pub fn log_file(logs: &Path, name: &str) -> PathBuf {
    logs.join(format!("{name}.log"))
}

/// How much of a log an error shows.
const TAIL_LINES: usize = 12;

/// The end of a process's log, for an error message.
#[must_use]
pub fn tail(logs: &Path, name: &str) -> String {
    let path = log_file(logs, name);
    let text = fs::read(&path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
    format!("{last}\n(its log: {})", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_read_behind_a_name_that_looks_like_fields() {
        let stat = "7 (a) S 1 (b) S 1 7 7 0 -1 0 0 0 0 0 1 2 3 4 20 0 1 0 4242 0 0";
        assert_eq!(parse_stat(stat), Some(4242));
        assert_eq!(parse_stat(&stat.replace("(b) S", "(b) Z")), None);
        assert_eq!(parse_stat("7 (a"), None);
    }

    #[test]
    fn a_pid_that_was_given_to_another_process_is_not_ours() {
        let own = Process::find("own", std::process::id()).unwrap();
        assert!(own.alive());
        let before = Process {
            started: own.started - 1,
            ..own
        };
        assert!(!before.alive());
        // Would end this test if it were taken for the one that was started.
        before.kill();
    }

    #[test]
    fn a_process_that_was_killed_is_not_alive_even_before_it_is_reaped() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let process = Process::find("sleep", child.id()).unwrap();
        assert!(process.alive());
        process.kill();
        child.wait().unwrap();
        assert!(!process.alive());
    }
}
