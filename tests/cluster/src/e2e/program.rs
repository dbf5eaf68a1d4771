//! One run of an upstream program: its output in a file, a limit of time, and an end on request.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::watch;

/// How long a program that was told to end may clean up.
const GRACE: Duration = Duration::from_secs(60);

/// Why a program is no longer running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself.
    Itself,
    /// Its time was over.
    Late,
    /// The whole run is to stop.
    Stopped,
}

/// A request to stop that every part of a run listens to.
pub type Stop = watch::Receiver<bool>;

/// A request that comes with the first Ctrl-C or SIGTERM.
///
/// # Errors
/// The signals cannot be caught.
pub fn stop_on_signal() -> Result<Stop> {
    use tokio::signal::unix::{SignalKind, signal};
    let (tell, stop) = watch::channel(false);
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => (),
            _ = terminate.recv() => (),
        }
        tell.send_replace(true);
        // Stays, so that the channel does until the run has ended.
        std::future::pending::<()>().await;
    });
    Ok(stop)
}

/// Starts `program` with its output in `log`. It is in a process group of its own: Ctrl-C reaches
/// this program, which tells it to clean up.
///
/// # Errors
/// It cannot be started, or the log not be written.
pub fn start(program: &mut Command, log: &Path) -> Result<Child> {
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let other = file.try_clone().context("cannot share the log")?;
    let name = program
        .as_std()
        .get_program()
        .to_string_lossy()
        .into_owned();
    program
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(other)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {name}: `cargo xtask e2e` builds it"))
}

/// Waits for the end; after `limit` or on `stop` the program is told to end, then killed.
///
/// # Errors
/// It cannot be waited for.
pub async fn finish(child: &mut Child, limit: Duration, stop: &mut Stop) -> Result<End> {
    let end = tokio::select! {
        status = child.wait() => {
            status.context("cannot wait for the program")?;
            return Ok(End::Itself);
        }
        () = tokio::time::sleep(limit) => End::Late,
        _ = stop.wait_for(|stop| *stop) => End::Stopped,
    };
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        // It may have ended just now.
        let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
    }
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        child.kill().await.context("cannot end the program")?;
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(script: &str, limit: Duration, stop: &mut Stop) -> (End, String) {
        let dir = tempfile::tempdir().expect("a folder");
        let log = dir.path().join("log");
        let mut program = Command::new("sh");
        program.args(["-c", script]);
        let mut child = start(&mut program, &log).expect("started");
        let end = finish(&mut child, limit, stop).await.expect("an end");
        (end, std::fs::read_to_string(log).expect("a log"))
    }

    const TRAP: &str = "trap 'echo cleaned; exit 1' INT; echo up; while :; do sleep 0.05; done";

    #[tokio::test]
    async fn output_of_both_kinds_is_kept() {
        let (_tell, mut stop) = watch::channel(false);
        let limit = Duration::from_secs(20);
        let (end, log) = run("echo one; echo two >&2", limit, &mut stop).await;
        assert_eq!((end, log.as_str()), (End::Itself, "one\ntwo\n"));
    }

    #[tokio::test]
    async fn a_program_that_is_late_may_clean_up() {
        let (_tell, mut stop) = watch::channel(false);
        let (end, log) = run(TRAP, Duration::from_millis(500), &mut stop).await;
        assert_eq!((end, log.as_str()), (End::Late, "up\ncleaned\n"));
    }

    #[tokio::test]
    async fn a_request_to_stop_ends_a_program_that_has_time_left() {
        let (tell, mut stop) = watch::channel(false);
        let later = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            tell.send_replace(true);
            tell
        });
        let (end, log) = run(TRAP, Duration::from_secs(60), &mut stop).await;
        assert_eq!((end, log.as_str()), (End::Stopped, "up\ncleaned\n"));
        later.await.expect("told");
    }
}
