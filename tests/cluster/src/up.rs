//! `up`: starts a cluster, everything that can at the same time, and waits until it is ready.

use std::{
    fs::{self, File},
    future::Future,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    INTERRUPTED,
    api::{self, Cluster},
    args::{Cni, Dirs, UpArgs, folder},
    cgroup::Mounts,
    containerd::{self, Snapshotter},
    control_plane::Invocation,
    down,
    plan::Plan,
    process::{self, Output, Process},
    progress::Progress,
    state::{Node, State},
};

mod parts;
mod seed;
mod wait;

/// How long each step may take; machines with two cores are shared.
const LIMIT: Duration = Duration::from_secs(180);

/// A pause between two looks at a socket that tells nothing before it is there.
const POLL: Duration = Duration::from_millis(50);

/// How often it is looked whether a process has ended while something is waited for.
const LOOK: Duration = Duration::from_millis(200);

/// A cluster that is being made.
pub struct Up {
    /// Where its files are.
    pub dir: PathBuf,
    /// Its processes' logs.
    pub logs: PathBuf,
    /// The programs.
    pub bin: PathBuf,
    /// containerd's programs: another version's are elsewhere.
    pub containerd: PathBuf,
    /// Where stores of imported images are kept between clusters.
    pub seeds: PathBuf,
    /// Image archives.
    pub images: Vec<PathBuf>,
    /// The shipped manifests; none where Weir is not installed.
    pub manifests: Option<PathBuf>,
    /// Its addresses.
    pub plan: Plan,
    /// The machine's cgroup hierarchies.
    pub mounts: Mounts,
    /// How containerd keeps images.
    pub snapshotter: Snapshotter,
    /// What is said meanwhile.
    pub progress: Progress,
    state: Mutex<State>,
    /// Locked as long as a cluster is made in this folder.
    _lock: File,
}

/// Makes a cluster. What was made is taken down again if that fails or is interrupted.
///
/// # Errors
/// With the end of the log of what failed.
pub async fn up(args: &UpArgs) -> Result<ExitCode> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "a cluster needs namespaces, mounts and cgroups: run it as root"
    );
    let up = Up::begin(args)?;
    // Before the first thing is made: until then a signal just ends this program.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let result = tokio::select! {
        result = up.run() => Some(result),
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
        _ = hang_up.recv() => None,
    };
    match result {
        Some(Ok(())) => {
            up.say_ready()?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Err(error)) => {
            up.progress.done("failed; taking down what was made");
            let name = up.state().name.clone();
            down::down(&up.dir, &name).context("taking down what was made")?;
            Err(error)
        }
        None => {
            up.progress.done("interrupted; taking down what was made");
            let name = up.state().name.clone();
            down::down(&up.dir, &name).context("taking down what was made")?;
            Ok(INTERRUPTED.into())
        }
    }
}

impl Up {
    /// Looks whether everything is there, and takes away what an earlier boot has left.
    fn begin(args: &UpArgs) -> Result<Self> {
        let name = &args.which.name;
        let dir = Dirs::of(&args.which)?.state;
        let logs = dir.join("logs");
        fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
        let lock = File::create(dir.join("lock")).context("cannot make the lock")?;
        if lock.try_lock().is_err() {
            bail!("another `up` works in {}; wait for it", dir.display());
        }
        let stands = State::load(&dir)?;
        let this_boot = stands.as_ref().map_or(Ok(false), State::of_this_boot)?;
        if this_boot && stands.is_some_and(|s| s.all().any(Process::alive)) {
            bail!(
                "the cluster {name} is there already: look at it with `status`, remove it with `down`, \
                 or start another with --name"
            );
        }
        let bin = folder("WEIR_CLUSTER_BIN")?;
        let images = containerd::images(&folder("WEIR_CLUSTER_IMAGES")?)?;
        let manifests = match args.options.cni {
            Cni::Weir => Some(folder("WEIR_CLUSTER_MANIFESTS")?),
            Cni::None | Cni::Bridge => None,
        };
        let containerd = containerd::find(args.options.containerd, &bin)?;
        let mounts = Mounts::find()?;
        down::down(&dir, name).context("cannot clear what an earlier cluster has left")?;
        for entry in fs::read_dir(&logs)?.flatten() {
            fs::remove_file(entry.path()).context("cannot clear the logs")?;
        }
        let seeds = Dirs::default_state()?.join("seeds");
        fs::create_dir_all(&seeds).with_context(|| format!("cannot make {}", seeds.display()))?;
        let state = State::new(name, &args.options, &bin)?;
        state.save(&dir)?;
        Ok(Self {
            snapshotter: Snapshotter::for_dir(&dir),
            plan: Plan::new(&args.options),
            state: Mutex::new(state),
            progress: Progress::start(),
            _lock: lock,
            dir,
            logs,
            bin,
            containerd,
            images,
            seeds,
            manifests,
            mounts,
        })
    }

    /// The state so far. The guard must not be kept over an await.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The nodes so far.
    pub fn nodes(&self) -> Vec<Node> {
        self.state().nodes.clone()
    }

    /// Where a node's files are.
    pub fn node_dir(&self, node: &str) -> PathBuf {
        self.dir.join("nodes").join(node)
    }

    /// Starts a program on a node; it goes on.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn launch(&self, node: &Node, name: &str, program: &Invocation) -> Result<()> {
        let mut command = api::command_in(&self.dir, node, &self.bin, program.program)?;
        if program.program == "containerd" {
            command.env("PATH", api::path_with(&self.containerd));
        }
        command.args(&program.args).current_dir("/");
        let (started, _) = process::launch(name, &self.logs, command, Output::Log)?;
        self.record(|state| state.processes.push(started))
    }

    /// Changes the state, in its file as well.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn record(&self, change: impl FnOnce(&mut State)) -> Result<()> {
        let mut state = self.state();
        change(&mut state);
        state.save(&self.dir)
    }

    /// Waits for something, but not for longer than `limit`, nor when one of the cluster's processes has
    /// ended.
    ///
    /// # Errors
    /// It failed, it took too long, or a process ended: with the end of its log.
    pub async fn wait<T>(
        &self,
        what: &str,
        limit: Duration,
        for_it: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        tokio::pin!(for_it);
        let deadline = tokio::time::Instant::now() + limit;
        let mut look = tokio::time::interval(LOOK);
        self.progress.waiting(what);
        loop {
            tokio::select! {
                result = &mut for_it => return result.with_context(|| what.to_owned()),
                () = tokio::time::sleep_until(deadline) => bail!(
                    "{what}: not within {} s; the logs in {} say more",
                    limit.as_secs(),
                    self.logs.display()
                ),
                _ = look.tick() => self.all_alive()?,
            }
        }
    }

    fn all_alive(&self) -> Result<()> {
        let dead = self
            .state()
            .dead()
            .first()
            .map(|process| process.name.clone());
        match dead {
            Some(name) => bail!("{name} has ended:\n{}", process::tail(&self.logs, &name)),
            None => Ok(()),
        }
    }

    /// All of it, in the order in which one thing needs another.
    async fn run(&self) -> Result<()> {
        self.progress.waiting("namespaces, cgroups and the wire");
        let pki = self.make_nodes()?;
        self.start_control_plane(&pki)?;
        self.start_world()?;
        let port = self.start_forwarder()?;
        pki.kubeconfig(
            &api::kubeconfig(&self.dir),
            "admin",
            &format!("https://127.0.0.1:{port}"),
        )?;
        let client = api::client(&api::kubeconfig(&self.dir)).await?;
        let control_plane = async {
            self.await_api(&client).await?;
            self.start_controllers(&pki)
        };
        tokio::try_join!(control_plane, self.start_containerds())?;
        for (number, node) in (1..).zip(self.nodes()) {
            self.start_kubelet(&pki, &node, number)?;
        }
        self.await_registered(&client).await?;
        let options = self.state().options.clone();
        match options.cni {
            Cni::None => {}
            Cni::Bridge => {
                self.install_bridge(&client).await?;
                self.route_to_pods(&client).await?;
                self.await_ready(&client).await?;
            }
            Cni::Weir => {
                self.install_weir().await?;
                self.route_to_pods(&client).await?;
                self.await_ready(&client).await?;
                self.await_system(&client).await?;
            }
        }
        self.record(|state| state.ready = true)
    }

    fn say_ready(&self) -> Result<()> {
        let cluster = Cluster::open(&self.dir)?;
        let state = cluster.state();
        let nodes = if state.options.cni == Cni::None {
            "nodes registered; NotReady, as nothing wires pods"
        } else {
            "nodes Ready"
        };
        self.progress
            .done(&format!("{} {nodes}", state.options.nodes));
        println!("export KUBECONFIG={}", cluster.kubeconfig().display());
        Ok(())
    }
}

/// A file's text, written.
///
/// # Errors
/// It cannot be.
pub fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
