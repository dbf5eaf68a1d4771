//! `--source kube`: the API server, watched. Every kind has a watch of its own, which goes on whatever
//! happens to the others; what they tell goes out in batches, as many changes in one as arrive while
//! the last is being taken in.

mod answers;
mod appearance;
mod ask;
mod ask_pod;
mod definition;
mod held;
mod item;
#[cfg(test)]
mod tests;
mod trim;
mod trouble;
mod watch;

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use k8s_openapi::api::{
    core::v1::{Namespace, Node, Pod, Service},
    discovery::v1::EndpointSlice,
    networking::v1::NetworkPolicy,
};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use weir_crd::ClusterNetworkPolicy;

use self::watch::{Limits, Said, Served, Watch};
use super::{Batch, Question, Stage};
use crate::{
    kube_client::Connection,
    state::{Change, Kept, Kind},
};

/// How many messages of watches wait to be read. Each may be a page of objects.
const WAITING: usize = 8;
/// With so many changes that wait to be taken in, watches wait as well.
const MOST: usize = 10_000;
/// For so long nothing is said of kinds that have not been listed yet.
const SLOW: Duration = Duration::from_secs(10);

/// All kinds, by what lists them.
const KINDS: [Kind; 7] = [
    Kind::Namespace,
    Kind::Node,
    Kind::Pod,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::NetworkPolicy,
    Kind::ClusterNetworkPolicy,
];

/// Runs until `out` is closed; Pods that are asked for come with a batch as well. The first complete
/// batch has all kinds; until then batches may say what is wrong. Whatever fails is tried again.
pub async fn run(
    connection: Connection,
    questions: mpsc::Receiver<Question>,
    out: mpsc::Sender<Batch>,
) {
    run_within(Limits::default(), connection, questions, out).await;
}

async fn run_within(
    limits: Limits,
    connection: Connection,
    questions: mpsc::Receiver<Question>,
    out: mpsc::Sender<Batch>,
) {
    let (say, mut said) = mpsc::channel(WAITING);
    let mut watches = JoinSet::new();
    macro_rules! watch {
        ($kind:ty, $served:ident) => {
            let (connection, say) = (connection.clone(), say.clone());
            watches.spawn(Watch::new::<$kind>(connection, limits, Served::$served, say).run());
        };
        ($kind:ty, $served:ident, $answers:ident) => {
            let (connection, say) = (connection.clone(), say.clone());
            let watch = Watch::new::<$kind>(connection, limits, Served::$served, say);
            watches.spawn(watch.answered_by($answers).run());
        };
    }
    watch!(Namespace, Always);
    watch!(Node, Always);
    let (answer, answers) = mpsc::channel(1);
    watches.spawn(ask_pod::run(connection.clone(), questions, answer));
    watch!(Pod, Always, answers);
    watch!(Service, Always);
    watch!(EndpointSlice, Always);
    watch!(NetworkPolicy, Always);
    watch!(ClusterNetworkPolicy, ByDefinition);
    drop(say);
    let mut picture = Picture::new();
    let slow = tokio::time::sleep_until(Instant::now() + SLOW);
    tokio::pin!(slow);
    loop {
        let sends = picture.has_news();
        let reads = !picture.complete() || picture.changes.len() < MOST;
        tokio::select! {
            // Both at once only where the engine keeps up.
            biased;
            permit = out.reserve(), if sends => match permit {
                Ok(permit) => permit.send(picture.take()),
                Err(_) => return,
            },
            message = said.recv(), if reads => {
                let Some((kind, message)) = message else { return };
                picture.take_in(kind, message);
                while let Ok((kind, message)) = said.try_recv() {
                    picture.take_in(kind, message);
                }
            }
            () = &mut slow, if !picture.slow => picture.slow = true,
            () = out.closed() => return,
        }
    }
}

/// What the watches have told, and how much of it was handed on.
struct Picture {
    changes: Vec<Change<Kept>>,
    /// With more of them before everything is listed, what is overtaken goes.
    most: usize,
    /// Of the kinds not listed yet, none is there.
    listed: BTreeMap<Kind, bool>,
    problems: BTreeMap<Kind, Vec<String>>,
    /// Whether it takes long until all kinds are listed.
    slow: bool,
    /// What was last handed on.
    sent: Option<(Stage, Vec<String>)>,
}

impl Picture {
    fn new() -> Self {
        Self {
            changes: Vec::new(),
            most: MOST,
            listed: KINDS.into_iter().map(|kind| (kind, false)).collect(),
            problems: BTreeMap::new(),
            slow: false,
            sent: None,
        }
    }

    fn take_in(&mut self, kind: Kind, said: Said) {
        self.changes.extend(said.changes);
        self.listed.insert(kind, said.listed);
        self.problems.insert(kind, said.problems);
        if !self.complete() && self.changes.len() > self.most {
            self.forget_what_is_overtaken();
            self.most = MOST.max(2 * self.changes.len());
        }
    }

    /// Nobody has been told of anything yet: of each object the last word counts, and none of what is
    /// gone. One kind that may not be listed for days must not fill the memory with the others.
    fn forget_what_is_overtaken(&mut self) {
        let mut known = HashSet::new();
        let mut last = std::mem::take(&mut self.changes);
        last.reverse();
        last.retain(|change| match change {
            Change::Apply(object) => known.insert(object.key()),
            Change::Delete(key) => {
                known.insert(key.clone());
                false
            }
        });
        last.reverse();
        last.shrink_to_fit();
        self.changes = last;
    }

    fn complete(&self) -> bool {
        self.listed.values().all(|listed| *listed)
    }

    fn stage(&self) -> Stage {
        if self.complete() {
            Stage::Complete
        } else {
            Stage::Waiting
        }
    }

    fn all_problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self.problems.values().flatten().cloned().collect();
        if !self.complete() && (self.slow || !problems.is_empty()) {
            let missing = self.listed.iter().filter(|(_, listed)| !**listed);
            let missing: Vec<&str> = missing.map(|(kind, _)| kind.as_str()).collect();
            problems.push(format!(
                "no complete list yet of {}: until then nothing is changed in the kernel",
                missing.join(", ")
            ));
        }
        problems
    }

    fn has_news(&self) -> bool {
        let stage = self.stage();
        if stage == Stage::Complete && !self.changes.is_empty() {
            return true;
        }
        let now = (stage, self.all_problems());
        let nothing = (Stage::Waiting, Vec::new());
        *self.sent.as_ref().unwrap_or(&nothing) != now
    }

    fn take(&mut self) -> Batch {
        let (stage, problems) = (self.stage(), self.all_problems());
        self.sent = Some((stage, problems.clone()));
        let changes = match stage {
            Stage::Complete => std::mem::take(&mut self.changes),
            Stage::Waiting => Vec::new(),
        };
        Batch {
            changes,
            problems,
            stage,
        }
    }
}
