//! Running other programs: quiet while they work, loud when they fail.
//!
//! A step shows one live line on a terminal and a plain line now and then elsewhere; its whole
//! output is kept in `target/xtask/STEP.log`, and a failure prints the tail of it.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::signals;

/// How many lines of a failed step are shown.
const TAIL: usize = 60;
/// How often a plain (not terminal) log says that a step is still alive.
const HEARTBEAT: Duration = Duration::from_secs(20);

/// What a finished program said and how it ended.
pub struct Done {
    /// Exit status 0.
    pub ok: bool,
    /// The end of the output, oldest line first.
    pub tail: VecDeque<String>,
    /// Where the whole output is.
    pub log: PathBuf,
    /// How long it ran.
    pub took: Duration,
}

/// Runs `cmd`, showing `name` while it works.
///
/// # Errors
/// The program cannot be started, fails, or a signal asks us to stop; the error names the step
/// and carries the tail of its output.
pub fn run(logs: &Path, name: &str, cmd: &mut Command) -> Result<()> {
    let done = observe(logs, name, cmd, None, |_| ())?;
    if !done.ok {
        bail!("{}", failure(name, &done));
    }
    line(&format!("  {name}: done in {}", seconds(done.took)));
    Ok(())
}

/// The text for a failed step: its name, the tail of its output, where the rest is.
pub fn failure(name: &str, done: &Done) -> String {
    let tail: Vec<&str> = done.tail.iter().map(String::as_str).collect();
    format!(
        "step `{name}` failed after {}\n{}\n(whole output: {})",
        seconds(done.took),
        tail.join("\n"),
        done.log.display()
    )
}

/// Runs `cmd`, handing each line of its output to `each`; a failing program is not an error, nor is
/// one that is told to end after `limit`.
///
/// # Errors
/// The program cannot be started, its output cannot be kept, or a signal asks us to stop.
pub fn observe(
    logs: &Path,
    name: &str,
    cmd: &mut Command,
    mut limit: Option<Duration>,
    mut each: impl FnMut(&str),
) -> Result<Done> {
    signals::check()?;
    fs::create_dir_all(logs).with_context(|| format!("cannot make {}", logs.display()))?;
    let log = logs.join(format!("{}.log", slug(name)));
    let mut file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let started = Instant::now();
    let mut child = spawn(
        name,
        cmd.stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    )?;
    let lines = read_lines(&mut child);
    let mut view = Live::new(name, started);
    let mut tail = VecDeque::new();
    loop {
        match lines.recv_timeout(Duration::from_millis(200)) {
            Ok(text) => {
                writeln!(file, "{text}")
                    .with_context(|| format!("cannot write {}", log.display()))?;
                each(&text);
                view.show(&text);
                if tail.len() == TAIL {
                    tail.pop_front();
                }
                tail.push_back(text);
            }
            Err(RecvTimeoutError::Timeout) => {
                view.tick();
                if limit.is_some_and(|limit| started.elapsed() > limit) {
                    limit = None;
                    tail.push_back(format!(
                        "no end after {}: killed",
                        seconds(started.elapsed())
                    ));
                    signals::end(child.id());
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = child
        .wait()
        .with_context(|| format!("cannot wait for step `{name}`"))?;
    signals::forget();
    view.clear();
    signals::check()?;
    Ok(Done {
        ok: status.success(),
        tail,
        log,
        took: started.elapsed(),
    })
}

/// Runs `cmd` on our own terminal and returns its exit code (128 + n after signal n).
///
/// # Errors
/// The program cannot be started.
pub fn attached(name: &str, cmd: &mut Command) -> Result<i32> {
    use std::os::unix::process::ExitStatusExt;
    signals::check()?;
    let mut child = spawn(name, cmd)?;
    let status = child
        .wait()
        .with_context(|| format!("cannot wait for step `{name}`"))?;
    signals::forget();
    Ok(status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}

/// The standard output of a short command, or nothing if it is missing or fails.
pub fn output_of(cmd: &mut Command) -> Option<String> {
    let out = cmd
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    out.status
        .success()
        .then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

/// Prints a line of our own; everything that xtask says goes to stderr.
pub fn line(text: &str) {
    eprintln!("{text}");
}

/// A duration as people read it.
pub fn seconds(took: Duration) -> String {
    let all = took.as_secs();
    if all < 10 {
        format!("{:.1} s", took.as_secs_f64())
    } else if all < 60 {
        format!("{all} s")
    } else {
        format!("{} min {:02} s", all / 60, all % 60)
    }
}

fn spawn(name: &str, cmd: &mut Command) -> Result<Child> {
    let child = cmd.spawn().with_context(|| {
        format!(
            "step `{name}`: cannot start {}",
            cmd.get_program().to_string_lossy()
        )
    })?;
    signals::remember(child.id());
    Ok(child)
}

/// Both output streams of `child`, line by line, in the order in which they arrive.
fn read_lines(child: &mut Child) -> mpsc::Receiver<String> {
    let (send, receive) = mpsc::channel();
    let streams: [Option<Box<dyn Read + Send>>; 2] = [
        child
            .stdout
            .take()
            .map(|s| Box::new(s) as Box<dyn Read + Send>),
        child
            .stderr
            .take()
            .map(|s| Box::new(s) as Box<dyn Read + Send>),
    ];
    for stream in streams.into_iter().flatten() {
        let send = send.clone();
        thread::spawn(move || {
            for bytes in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
                if send.send(text).is_err() {
                    break;
                }
            }
        });
    }
    receive
}

fn slug(name: &str) -> String {
    let dashed: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .collect();
    dashed.trim_matches('-').to_lowercase()
}

/// The live line of a running step.
struct Live {
    name: String,
    started: Instant,
    spoke: Instant,
    last: String,
    terminal: bool,
}

impl Live {
    fn new(name: &str, started: Instant) -> Self {
        let terminal = std::io::stderr().is_terminal();
        if !terminal {
            line(&format!("  {name} …"));
        }
        Self {
            name: name.to_owned(),
            started,
            spoke: started,
            last: String::new(),
            terminal,
        }
    }

    fn show(&mut self, text: &str) {
        if !text.trim().is_empty() {
            text.trim().clone_into(&mut self.last);
        }
        self.tick();
    }

    fn tick(&mut self) {
        if self.terminal {
            let text: String = format!(
                "  {} ({}) {}",
                self.name,
                seconds(self.started.elapsed()),
                self.last
            )
            .chars()
            .filter(|c| !c.is_control())
            .take(terminal_columns() - 1)
            .collect();
            eprint!("\r\x1b[2K{text}");
        } else if self.spoke.elapsed() >= HEARTBEAT {
            self.spoke = Instant::now();
            line(&format!(
                "  {} … {} {}",
                self.name,
                seconds(self.started.elapsed()),
                self.last
            ));
        }
    }

    fn clear(&self) {
        if self.terminal {
            eprint!("\r\x1b[2K");
        }
    }
}

fn terminal_columns() -> usize {
    std::env::var("COLUMNS")
        .ok()
        .and_then(|c| c.parse().ok())
        .filter(|c| *c > 20)
        .unwrap_or(80)
}
