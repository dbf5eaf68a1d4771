//! Runs the plugin up to its N-th system call, counted over all its threads, and kills it there:
//! N - 1 calls have been made, and the N-th has not begun.
//!
//! (`strace --inject=all:signal=KILL:when=N` counts each thread and each call by itself, so that
//! many boundaries cannot be named with it.)

use std::{fs::File, os::unix::process::CommandExt, process::Stdio};

use nix::{
    sys::{
        ptrace::{self, Options},
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use super::{Call, Node};

/// How a traced run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, after as many calls as this.
    Exited { code: i32, calls: usize },
    /// By the signal that was sent at the N-th call, or by one of its own.
    Killed,
}

/// What is done at the N-th call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Kill,
    /// The call is not made, and answers ENOSYS.
    Fail,
}

impl Node {
    /// Runs a call and kills it at its `at`-th system call, if it gets there.
    pub fn run_until(&self, call: &Call, at: usize) -> End {
        self.ns.run(|| self.trace(call, at, At::Kill)).unwrap()
    }

    /// Runs a call whose `at`-th system call fails with ENOSYS.
    #[cfg(target_arch = "x86_64")]
    pub fn run_failing(&self, call: &Call, at: usize) -> End {
        self.ns.run(|| self.trace(call, at, At::Fail)).unwrap()
    }

    #[expect(
        clippy::zombie_processes,
        reason = "the loop waits for it until it is dead"
    )]
    fn trace(&self, call: &Call, at: usize, what: At) -> End {
        let stdin = self.path("traced-stdin");
        std::fs::write(&stdin, &call.stdin).unwrap();
        let mut command = call.command();
        command.stdin(File::open(&stdin).unwrap());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: between fork and exec only ptrace(2) is called, which takes no lock.
        unsafe { command.pre_exec(|| ptrace::traceme().map_err(Into::into)) };
        let child = command.spawn().unwrap();
        let leader = Pid::from_raw(child.id().cast_signed());
        // A tracee is waited for by the thread that traces it: not by other tests' threads.
        let wait = |pid: Option<Pid>| {
            let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
            waitpid(pid, Some(flags)).unwrap()
        };
        // The first stop is that of exec.
        assert!(matches!(
            wait(Some(leader)),
            WaitStatus::Stopped(_, Signal::SIGTRAP)
        ));
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_EXITKILL;
        ptrace::setoptions(leader, options).unwrap();
        ptrace::syscall(leader, None).unwrap();
        let mut inside = std::collections::HashSet::new();
        let mut calls = 0;
        let mut killed = false;
        loop {
            let (pid, signal) = match wait(None) {
                WaitStatus::PtraceSyscall(pid) => {
                    // Stops come in pairs: at the beginning of a call and at its end.
                    if !inside.remove(&pid) {
                        calls += 1;
                        if calls == at && what == At::Fail {
                            skip_call(pid);
                        } else if calls == at {
                            kill(leader, Signal::SIGKILL).unwrap();
                            killed = true;
                            continue;
                        }
                        inside.insert(pid);
                    }
                    (pid, None)
                }
                WaitStatus::Stopped(pid, signal) => {
                    // A new thread begins with SIGSTOP; other signals are the plugin's own.
                    (
                        pid,
                        Some(signal).filter(|s| !matches!(s, Signal::SIGSTOP | Signal::SIGTRAP)),
                    )
                }
                WaitStatus::Exited(pid, code) if pid == leader => {
                    return End::Exited { code, calls };
                }
                WaitStatus::Signaled(pid, ..) if pid == leader => {
                    assert!(killed || what == At::Fail, "killed by something else");
                    return End::Killed;
                }
                WaitStatus::PtraceEvent(pid, ..) => (pid, None),
                _ => continue,
            };
            // A thread may be dead by now, with its process.
            let _ = ptrace::syscall(pid, signal);
        }
    }
}

/// Makes the call that a thread is about to make one that does not exist, but for those that
/// cannot fail. The register is the
/// architecture's.
#[cfg(target_arch = "x86_64")]
fn skip_call(pid: Pid) {
    let mut registers = ptrace::getregs(pid).unwrap();
    // The kernel does not lose wake-ups between threads, and does not refuse a process its end.
    let spared = [libc::SYS_futex, libc::SYS_exit_group, libc::SYS_exit];
    if spared.contains(&registers.orig_rax.cast_signed()) {
        return;
    }
    registers.orig_rax = u64::MAX;
    ptrace::setregs(pid, registers).unwrap();
}

/// Not written for this architecture, where no test asks for it.
#[cfg(not(target_arch = "x86_64"))]
fn skip_call(_: Pid) {
    panic!("cannot make a system call fail on this architecture");
}
