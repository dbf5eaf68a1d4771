//! Requests without end, from a pod and from a node, each counted: what an interruption would show in.
//! Each on a connection of its own; and, beside them, all on one connection that is kept.

use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use super::objects::client;
use super::world::{World, eventually};

/// The fewest connections from each side that say anything.
const ENOUGH: u64 = 40;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// A new connection for each request: for where servers go, and their connections with them.
    New,
    /// That, and one connection that must last.
    NewAndKept,
}

/// What one side has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Requests that were answered.
    pub answered: u64,
    /// Requests that were not, and when.
    pub failed: Vec<String>,
    /// Of the connection that is kept.
    pub kept: Kept,
}

/// What was seen of the connection that is kept; all 0 if none was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Requests that were answered on it.
    pub answered: u64,
    /// Requests that were not.
    pub failed: u64,
    /// How many connections it took: 1, if it lasted.
    pub connections: u64,
}

/// One connection after the other to one URL.
#[derive(Debug)]
pub struct Load {
    world_pod: String,
    host: Group,
    host_name: String,
    connections: Connections,
}

/// A process group of our own, which ends with this.
#[derive(Debug)]
struct Group(Option<Child>);

impl Group {
    /// To the shell alone, which ends the rest, or to all of them.
    fn signal(&self, signal: Signal, all: bool) -> Result<()> {
        let id = self.0.as_ref().and_then(Child::id);
        let id = id.context("the load on the node has ended by itself")?;
        let pid = Pid::from_raw(i32::try_from(id)?);
        let sent = if all {
            killpg(pid, signal)
        } else {
            kill(pid, signal)
        };
        sent.context("cannot end the load on the node")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Nothing is left of one that was ended.
        let _ = self.signal(Signal::SIGKILL, true);
    }
}

impl Load {
    /// Begins, from a pod on `node` and from the node itself, and waits until both are answered.
    ///
    /// # Errors
    /// A side cannot be started.
    pub async fn start(
        world: &World,
        name: &str,
        node: &str,
        url: &str,
        connections: Connections,
    ) -> Result<Self> {
        let pod = format!("load-{name}");
        let script = script("curl", url, connections);
        world
            .start(&client(&pod, Some(node), Some(&script)))
            .await?;
        let mut command = Command::from(world.cluster.command_in(node, "sh")?);
        let host = command
            .args(["-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start a load on {node}"))?;
        let load = Self {
            world_pod: pod,
            host: Group(Some(host)),
            host_name: node.to_owned(),
            connections,
        };
        eventually("the first answer", super::world::READY, || async {
            let count = world
                .exec(&load.world_pod, &["sh", "-c", "cat /tmp/tmp.*/answered"])
                .await?;
            ensure!(!count.trim().is_empty(), "none yet");
            Ok(())
        })
        .await?;
        Ok(load)
    }

    /// Ends both; how many requests were answered.
    ///
    /// # Errors
    /// One was not, or there were too few to say anything.
    pub async fn end(mut self, world: &World) -> Result<String> {
        self.host.signal(Signal::SIGTERM, false)?;
        let host = self.host.0.take();
        let out = host.context("it has ended")?.wait_with_output().await?;
        let on_node =
            parse(&String::from_utf8_lossy(&out.stdout)).context("the load on the node")?;
        world.exec(&self.world_pod, &["touch", "/tmp/stop"]).await?;
        let in_pod = eventually(
            "the end of the load in a pod",
            super::world::READY,
            || async {
                let mut logs = world.kubectl();
                logs.args(["logs", "-n", &world.namespace, &self.world_pod]);
                let out = logs.output().await?;
                parse(&String::from_utf8_lossy(&out.stdout))
            },
        )
        .await?;
        for (seen, who) in [(&in_pod, "the pod"), (&on_node, self.host_name.as_str())] {
            if self.connections == Connections::NewAndKept {
                seen.kept.lasted(who)?;
            }
            ensure!(
                seen.failed.is_empty(),
                "{} of {} requests from {who} failed:\n{}",
                seen.failed.len(),
                seen.answered,
                seen.failed.join("\n")
            );
            ensure!(
                seen.answered >= ENOUGH,
                "only {} requests from {who}",
                seen.answered
            );
        }
        let kept = match self.connections {
            Connections::New => String::new(),
            Connections::NewAndKept => format!(
                "; {} and {} requests on one kept connection each",
                in_pod.kept.answered, on_node.kept.answered
            ),
        };
        Ok(format!(
            "{} connections from a pod and {} from its node, none failed{kept}",
            in_pod.answered, on_node.answered
        ))
    }
}

impl Kept {
    fn lasted(self, who: &str) -> Result<()> {
        ensure!(
            self.failed == 0 && self.connections == 1 && self.answered > 0,
            "the connection that {who} kept did not last: {} requests answered, {} failed, {} connections",
            self.answered,
            self.failed,
            self.connections
        );
        Ok(())
    }
}

/// Counts until it is told to end (SIGTERM, or the file), then says what it counted. No `$$`, which
/// Kubernetes takes for an escaped `$`.
fn script(curl: &str, url: &str, connections: Connections) -> String {
    let kept = match connections {
        Connections::New => String::new(),
        // One curl reuses its connection for all the numbers; what it writes to its errors is there at
        // once, also when it is killed.
        Connections::NewAndKept => format!(
            "{curl} -sf --noproxy '*' --max-time 5 --rate 10/s -o /dev/null \
             -w '%{{stderr}}%{{http_code}} %{{num_connects}}\n' '{url}?[1-99999999]' 2>\"$dir/kept\" & kept=$!"
        ),
    };
    format!(
        "answered=0; failed=0; on=1; kept=; trap 'on=0' TERM
         dir=$(mktemp -d); : >\"$dir/kept\"
         {kept}
         while [ $on = 1 ] && [ ! -e /tmp/stop ]; do
           if {curl} -gsSf --noproxy '*' --max-time 5 -o /dev/null '{url}' 2>\"$dir/why\"; then
             answered=$((answered+1)); [ $((answered % 20)) = 1 ] && echo $answered >\"$dir/answered\"
           else
             # Ended amid a request by the signal: no verdict.
             [ $on = 1 ] || break
             failed=$((failed+1)); echo \"failed at $(date +%T): $(cat \"$dir/why\")\"
           fi
         done
         [ -z \"$kept\" ] || {{ kill $kept; wait $kept; }} 2>/dev/null
         good=0; bad=0; made=0
         while read -r code connects; do
           if [ \"$code\" = 200 ]; then good=$((good+1)); else bad=$((bad+1)); fi
           made=$((made+connects))
         done <\"$dir/kept\"
         rm -rf \"$dir\"
         echo \"kept $good $bad $made\"; echo \"counted $answered $failed\""
    )
}

fn parse(text: &str) -> Result<Seen> {
    let counted = text.lines().find_map(|line| line.strip_prefix("counted "));
    let (answered, count) = counted
        .and_then(|rest| rest.split_once(' '))
        .context("it has not said what it counted")?;
    let failed: Vec<String> = text
        .lines()
        .filter(|line| line.starts_with("failed at "))
        .map(str::to_owned)
        .collect();
    let count: usize = count.trim().parse()?;
    ensure!(
        count == failed.len(),
        "{count} failed, but {} are named",
        failed.len()
    );
    Ok(Seen {
        answered: answered.parse()?,
        failed,
        kept: parse_kept(text)?,
    })
}

fn parse_kept(text: &str) -> Result<Kept> {
    let line = text.lines().find_map(|line| line.strip_prefix("kept "));
    let numbers: Vec<u64> = line
        .context("it has not said what became of the kept connection")?
        .split(' ')
        .map(|number| Ok(number.trim().parse()?))
        .collect::<Result<_>>()?;
    let [answered, failed, connections] = numbers[..] else {
        bail!("it has said of the kept connection: {numbers:?}");
    };
    Ok(Kept {
        answered,
        failed,
        connections,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_load_says_at_its_end_is_read() {
        let seen = parse("failed at 10:00:00: curl: timed out\nkept 40 0 1\ncounted 812 1\n")
            .expect("a count");
        assert_eq!((seen.answered, seen.failed.len()), (812, 1));
        assert_eq!((seen.kept.answered, seen.kept.connections), (40, 1));
        assert!(seen.kept.lasted("x").is_ok());
        assert!(parse("failed at 10:00:00: x\n").is_err(), "it was cut off");
        assert!(
            parse("kept 1 0 1\ncounted 5 1\n").is_err(),
            "a failure was lost"
        );
    }

    #[test]
    fn a_connection_that_was_made_again_or_failed_has_not_lasted() {
        let kept = |answered, failed, connections| Kept {
            answered,
            failed,
            connections,
        };
        assert!(kept(9, 0, 1).lasted("x").is_ok());
        for wrong in [kept(9, 0, 2), kept(9, 1, 1), kept(0, 0, 0)] {
            assert!(wrong.lasted("x").is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_script_counts_what_fails_and_ends_on_request() {
        let dir = tempfile::tempdir().expect("a folder");
        let stop = dir.path().join("stop");
        // `false` stands for a curl that gets no answer; the file for the request to end.
        let script = script("false", "http://x/", Connections::NewAndKept)
            .replace("/tmp/stop", &stop.display().to_string());
        let script = script.replace(
            "failed=$((failed+1));",
            &format!("failed=$((failed+1)); touch {};", stop.display()),
        );
        let out = std::process::Command::new("sh")
            .args(["-c", &script])
            .output()
            .expect("run");
        let seen = parse(&String::from_utf8_lossy(&out.stdout)).expect("a count");
        assert_eq!((seen.answered, seen.failed.len()), (0, 1));
        assert_eq!(seen.kept, Kept::default());
    }
}
