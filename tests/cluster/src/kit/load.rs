//! Connections without end, from a pod and from a node, each counted: what an interruption would
//! show in.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use super::objects::client;
use super::world::{World, eventually};

/// The fewest connections from each side that say anything.
const ENOUGH: u64 = 100;

/// What one side has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Requests that were answered.
    pub answered: u64,
    /// Requests that were not, and when.
    pub failed: Vec<String>,
}

/// One connection after the other to one URL.
#[derive(Debug)]
pub struct Load {
    world_pod: String,
    host: Child,
    host_name: String,
}

impl Load {
    /// Begins, from a pod on `node` and from the node itself, and waits until both are answered.
    ///
    /// # Errors
    /// A side cannot be started.
    pub async fn start(world: &World, name: &str, node: &str, url: &str) -> Result<Self> {
        let pod = format!("load-{name}");
        world
            .start(&client(&pod, Some(node), Some(&script("curl", url))))
            .await?;
        let script = script("curl", url);
        let mut command = Command::from(world.cluster.command_in(node, "sh")?);
        let host = command
            .args(["-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start a load on {node}"))?;
        let load = Self {
            world_pod: pod,
            host,
            host_name: node.to_owned(),
        };
        eventually("the first answer", super::world::READY, || async {
            let count = world
                .exec(&load.world_pod, &["cat", "/tmp/answered"])
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
    pub async fn end(self, world: &World) -> Result<String> {
        let host = self.host.id().and_then(|pid| i32::try_from(pid).ok());
        kill(
            Pid::from_raw(host.context("the load on the node has ended by itself")?),
            Signal::SIGTERM,
        )
        .context("cannot end the load on the node")?;
        let out = self.host.wait_with_output().await?;
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
        Ok(format!(
            "{} connections from a pod and {} from its node, none failed",
            in_pod.answered, on_node.answered
        ))
    }
}

/// Counts until it is told to end (SIGTERM, or the file), then says what it counted.
fn script(curl: &str, url: &str) -> String {
    format!(
        "answered=0; failed=0; on=1; trap 'on=0' TERM
         while [ $on = 1 ] && [ ! -e /tmp/stop ]; do
           if {curl} -gsSf --noproxy '*' --max-time 5 -o /dev/null '{url}' 2>/tmp/why-$$; then
             answered=$((answered+1)); [ $((answered % 20)) = 1 ] && echo $answered >/tmp/answered
           else
             # Ended amid a request by the signal: no verdict.
             [ $on = 1 ] || break
             failed=$((failed+1)); echo \"failed at $(date +%T): $(cat /tmp/why-$$)\"
           fi
         done
         rm -f /tmp/why-$$; echo \"counted $answered $failed\""
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
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_load_says_at_its_end_is_read() {
        let seen = parse("failed at 10:00:00: wget: timed out\ncounted 812 1\n").expect("a count");
        assert_eq!((seen.answered, seen.failed.len()), (812, 1));
        assert!(parse("failed at 10:00:00: x\n").is_err(), "it was cut off");
        assert!(parse("counted 5 1\n").is_err(), "a failure was lost");
    }

    #[test]
    fn the_script_counts_what_fails_and_ends_on_request() {
        let dir = tempfile::tempdir().expect("a folder");
        let stop = dir.path().join("stop");
        // `false` stands for a curl that gets no answer; the file for the request to end.
        let script = script("false", "http://x/").replace("/tmp/stop", &stop.display().to_string());
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
    }
}
