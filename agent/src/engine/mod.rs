//! The one loop that applies: it takes in what has piled up, compiles once, and performs all writes
//! to the kernel in a safe order. It runs on a thread of its own, as its work blocks.

mod adopt;
mod apply;
mod closer;
mod conflist;
pub mod endpoints;
mod event;
mod grow;
mod guards;
mod local;
mod metrics;
mod node;
mod overlay;
mod policies;
pub mod policy;
mod report;
mod services;
pub mod tunnel;
mod verify;
mod wireguard;
mod xdp;

use std::{
    borrow::Cow,
    collections::BTreeMap,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use weir_net::Netlink;

pub use event::{Command, Event, Handle, Reply};

use self::{
    adopt::Pending, closer::Closer, grow::Growth, local::Local, node::NodePart, policy::Policy,
    services::Services,
};
use crate::{
    cluster,
    compile::{nat_ports::NatPortUse, service::ServiceOptions},
    config::Config,
    dataplane::{
        Counters, Features, PinnedView,
        attach::Attacher,
        cgroup,
        config_words::ConfigWords,
        endpoints::EndpointMaps,
        live,
        load::Loaded,
        netns::{Kept, NetnsMap},
        nodes::NodeMaps,
        pins::{Lock, Pins},
        policy::PolicyMaps,
        service::ServiceMaps,
        table::Writes,
    },
    health,
    install::conflist::Conflist,
    source::{Question, Stage},
    state::Store,
    verify::background::Shared,
};

/// How often everything is compared with the kernel even if nothing is heard: an attached program
/// can be removed without a message.
const SELF_CHECK: Duration = Duration::from_secs(30);
/// Least time between two readings of the network that only messages ask for: a routing daemon may
/// send thousands.
const NETWORK_PAUSE: Duration = Duration::from_millis(50);
/// First pause after a failed write; doubles up to [`SELF_CHECK`].
const RETRY: Duration = Duration::from_millis(200);

/// What the agent has taken over at start.
pub struct Kernel {
    /// Held as long as the agent lives.
    pub lock: Lock,
    /// Where everything is pinned.
    pub pins: Pins,
    /// What the kernel can do.
    pub features: Features,
    /// What loading the object changed, and what was replaced since.
    pub loaded: Loaded,
    /// The object that is loaded.
    pub object: Arc<Cow<'static, [u8]>>,
    /// Its second load, for dry runs.
    pub live: live::Shared,
}

/// The loop's state.
pub struct Engine {
    config: Config,
    kernel: Kernel,
    writes: Writes,
    attacher: Attacher,
    view: PinnedView,
    counters: Counters,
    store: Store,
    synced: bool,
    /// Whether a whole round has been applied since the source synced.
    in_force: bool,
    policy: Policy,
    services: Services,
    nat_ports: NatPortUse,
    local: Local,
    node: NodePart,
    pending: Vec<Pending>,
    /// Where the source is asked for a Pod; nobody listens if it has no more to say.
    questions: mpsc::Sender<Question>,
    /// What is wrong, by part of the agent.
    problems: BTreeMap<&'static str, Vec<String>>,
    dirty: Dirty,
    /// When the network was last read, and when it is to be read because something changed.
    network_read: Instant,
    network_due: Option<Instant>,
    retry: Retry,
    stats: Stats,
    growth: Growth,
    /// Maps and programs are pinned that are not in use yet: see [`Engine::take_up`].
    stale: bool,
    verify: Arc<Shared>,
    health: health::Shared,
    conflist: Option<Conflist>,
    cluster: cluster::Shared,
}

/// Which parts have something to do.
#[derive(Clone, Copy, Default)]
struct Dirty {
    network: bool,
    node: bool,
    policy: bool,
    services: bool,
    /// Endpoints that are not in place yet, or leave.
    endpoints: bool,
    /// All endpoints, also those that were in place when last looked at.
    check: bool,
}

impl Dirty {
    const ALL: Self = Self {
        network: true,
        node: true,
        policy: true,
        services: true,
        endpoints: true,
        check: true,
    };

    /// Whether there is something to do. Before the source has synced that is only the node itself.
    fn any(self, synced: bool) -> bool {
        let Self {
            network,
            node,
            policy,
            services,
            endpoints,
            check,
        } = self;
        network || node || (synced && (policy || services || endpoints || check))
    }
}

/// When to try a failed write again.
#[derive(Default)]
struct Retry {
    at: Option<Instant>,
    failures: u32,
}

/// For metrics.
#[derive(Default)]
struct Stats {
    applies: u64,
    apply_seconds: f64,
    apply_errors: u64,
    adopted: u64,
    refused: u64,
}

impl Engine {
    /// Takes over what is pinned. `cluster` is what the duties for all nodes share with the engine.
    ///
    /// # Errors
    /// A map cannot be read, the state file is damaged, netlink fails: each named.
    pub fn new(
        config: Config,
        kernel: Kernel,
        boot_id: &str,
        questions: mpsc::Sender<Question>,
        cluster: cluster::Shared,
    ) -> anyhow::Result<Self> {
        let writes = Writes::default();
        let pins = &kernel.pins;
        let attacher = Attacher::new(pins, kernel.features.tcx);
        let policy = Policy::new(
            &config.node_name,
            PolicyMaps::open(pins, &writes)?,
            config.map_limits.policy(),
            config.policy_established,
        );
        let cgroup = config.cgroup.clone().map_or_else(cgroup::mount_root, Ok)?;
        let options = ServiceOptions {
            node_name: config.node_name.clone(),
            skip_services: config.skip_services.clone(),
        };
        let closer = match kernel.features.sock_destroy {
            true => Closer::spawn(pins)?,
            false => Closer::idle(),
        };
        let services = Services::new(options, ServiceMaps::open(pins, &writes)?, cgroup, closer);
        let words = ConfigWords::open(pins, &writes)?;
        let netns = |kept| NetnsMap::open(pins, kept, &writes);
        let nodes = NodeMaps::open(pins, &writes)?;
        let own = netns(Kept::Node)?;
        let node = NodePart::new(&config, Netlink::open()?, nodes, words, own)?;
        let maps = EndpointMaps::open(pins, &writes)?;
        let pods = netns(Kept::Pods)?;
        let local = Local::take_over(&config.state_dir, boot_id, maps, pods, policy.slots())?;
        let mut engine = Self {
            view: PinnedView::open(&config.bpffs)?,
            counters: Counters::open(pins)?,
            writes,
            attacher,
            store: Store::default(),
            synced: false,
            in_force: false,
            policy,
            services,
            nat_ports: NatPortUse::new(config.nat_ports),
            local,
            node,
            pending: Vec::new(),
            questions,
            problems: BTreeMap::new(),
            dirty: Dirty::ALL,
            network_read: Instant::now(),
            network_due: None,
            retry: Retry::default(),
            stats: Stats::default(),
            growth: Growth::default(),
            // A former agent may have been killed while a table grew.
            stale: true,
            verify: Arc::default(),
            health: health::Shared::default(),
            conflist: None,
            cluster,
            kernel,
            config,
        };
        for (_, record) in engine.local.records.iter() {
            engine.policy.apply_endpoint(record);
        }
        engine.take_over_conflist()?;
        Ok(engine)
    }

    /// What the background comparison of kernel and objects shares with this engine.
    pub fn verify(&self) -> Arc<Shared> {
        Arc::clone(&self.verify)
    }

    /// What the servers of health checks share with this engine.
    pub fn health(&self) -> health::Shared {
        self.health.clone()
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    /// The source can deliver no more.
    pub async fn run(mut self, mut events: mpsc::Receiver<Event>) -> io::Result<()> {
        let mut self_check = Instant::now() + SELF_CHECK;
        loop {
            self.apply();
            let wake = self.wake_at(self_check);
            let first = tokio::select! {
                event = events.recv() => event,
                () = tokio::time::sleep_until(wake.into()) => None,
            };
            let now = Instant::now();
            if now >= self_check {
                self_check = now + SELF_CHECK;
                self.dirty = Dirty::ALL;
            }
            if first.is_none() && events.is_closed() {
                return Ok(());
            }
            // All that has piled up while the last round was applied is taken in at once.
            let mut next = first;
            while let Some(event) = next {
                match event {
                    Event::Stop => return Ok(()),
                    Event::SourceFailed(message) => return Err(io::Error::other(message)),
                    event => self.take_in(event),
                }
                next = events.try_recv().ok();
            }
        }
    }

    fn wake_at(&self, self_check: Instant) -> Instant {
        if self.dirty.any(self.synced) {
            // The last round has left work for the next, such as a slot that became free.
            return Instant::now();
        }
        let deadlines = self.pending.iter().map(|p| p.deadline);
        let others = [self.retry.at, self.network_due, self.due()]
            .into_iter()
            .flatten();
        deadlines.chain(others).fold(self_check, Instant::min)
    }

    /// When something wants to be deleted after its grace period. After a failure that waits for the
    /// next try, too: or what is due would be tried again without a pause.
    fn due(&self) -> Option<Instant> {
        if self.retry.at.is_some() {
            return None;
        }
        [self.policy.due(), self.services.due()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Cheap: changes plain data and marks what is dirty.
    fn take_in(&mut self, event: Event) {
        match event {
            Event::Source(batch) => {
                for change in batch.changes {
                    if self.store.apply(change.clone()) {
                        let change = change.unpack();
                        let policy = self.policy.apply(&change);
                        self.dirty.policy |= policy;
                        self.dirty.services |= self.services.apply(&change);
                        self.nat_ports.apply(&change);
                        let node = change.key().kind == crate::state::Kind::Node;
                        self.dirty.node |= node;
                        if policy || node {
                            self.verify.touched();
                        }
                    }
                }
                self.set_problems("source", batch.problems);
                if !self.synced && batch.stage == Stage::Complete {
                    tracing::info!(objects = self.store.len(), "the source has synced");
                    self.synced = true;
                    self.dirty = Dirty::ALL;
                }
            }
            Event::Network => {
                let pause = self.network_read + NETWORK_PAUSE;
                self.network_due.get_or_insert(pause.max(Instant::now()));
            }
            Event::Command(command) => self.command(command),
            // Handled by the loop.
            Event::Stop | Event::SourceFailed(_) => {}
        }
    }

    /// Replaces what is wrong with a part, and logs what is new.
    fn set_problems(&mut self, part: &'static str, problems: Vec<String>) {
        let old = self.problems.insert(part, problems).unwrap_or_default();
        for problem in self.problems.get(part).into_iter().flatten() {
            if !old.contains(problem) {
                tracing::warn!(part, "{problem}");
            }
        }
        for problem in old {
            if !self
                .problems
                .get(part)
                .is_some_and(|now| now.contains(&problem))
            {
                tracing::info!(part, "no longer: {problem}");
            }
        }
    }
}
