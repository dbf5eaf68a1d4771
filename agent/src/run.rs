//! Wires the parts together and runs them until a signal.

use std::{fs, path::PathBuf, process::ExitCode, sync::Arc, thread};

use anyhow::Context as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use weir_api::status::Feature;

use crate::{
    cluster::{self, Duties},
    cni,
    config::{self, Config, Invocation, Source},
    dataplane::{Features, drop_log, live, load, object, pins::Pins},
    engine::{Command, Engine, Event, Handle, Kernel},
    health,
    kube_client::Connection,
    log, memory, metrics,
    node::monitor::Monitor,
    source::{self, Question},
    verify,
};

/// `weir-agent`'s main: 0 after a signal, 1 on failure, 2 on a wrong command line.
pub fn main() -> ExitCode {
    memory::one_heap();
    let config = match config::from_process() {
        Ok(Invocation::Run(config)) => *config,
        Ok(Invocation::Print(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(config::ConfigError::Usage(error)) => error.exit(),
        Err(error) => {
            eprintln!("weir-agent: {error}");
            return ExitCode::from(2);
        }
    };
    if let Err(error) = log::init(config.log_format, &config.log_level) {
        eprintln!("weir-agent: log-level: {error}");
        return ExitCode::from(2);
    }
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config) -> anyhow::Result<()> {
    let Taken { kernel, logs_drops } = take_over(&config)?;
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .context("/proc/sys/kernel/random/boot_id")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting threads")?;
    runtime.block_on(async {
        if logs_drops {
            tokio::spawn(watch_drops(kernel.pins.clone()));
        }
        serve(config, kernel, boot_id.trim().to_owned()).await
    })
}

/// What is there once the kernel is taken over.
struct Taken {
    kernel: Kernel,
    /// Whether the object logs the packets that it drops.
    logs_drops: bool,
}

/// Everything that can refuse to start: kernel, bpffs, lock, object.
fn take_over(config: &Config) -> anyhow::Result<Taken> {
    let features = Features::detect()?;
    for feature in features.list() {
        let Feature {
            name,
            state,
            detail,
        } = feature;
        tracing::info!(name, state, detail, "kernel feature");
    }
    fs::create_dir_all(&config.state_dir)
        .with_context(|| format!("state directory {}", config.state_dir.display()))?;
    let pins = Pins::new(&config.bpffs);
    let lock = pins.prepare()?;
    let object = object::bytes(config.ebpf_object.as_deref())?;
    let loaded = load::load(&object, &pins, &config.map_limits)?;
    tracing::info!(
        kernel = features.release,
        programs = loaded.programs,
        replaced = loaded.replaced,
        "programs loaded"
    );
    let logs_drops = drop_log::is_in(&object);
    let object = Arc::new(object);
    let kernel = Kernel {
        lock,
        features,
        loaded,
        live: live::Shared::new(Arc::clone(&object), pins.clone()),
        pins,
        object,
    };
    Ok(Taken { kernel, logs_drops })
}

async fn watch_drops(pins: Pins) {
    if let Err(e) = drop_log::follow(pins).await {
        tracing::error!("log of the eBPF programs: {e:#}");
    }
}

/// Where objects come from, once it can be asked.
#[derive(Clone)]
enum Objects {
    Dir(PathBuf),
    Kube(Connection),
}

impl Objects {
    async fn of(config: &Config) -> anyhow::Result<Self> {
        Ok(match &config.source {
            Source::Dir(path) => Self::Dir(path.clone()),
            Source::Kube => {
                let connection = Connection::open(config.api.clone()).await;
                Self::Kube(connection.context("source kube")?)
            }
        })
    }
}

async fn serve(config: Config, kernel: Kernel, boot_id: String) -> anyhow::Result<()> {
    let (sender, events) = mpsc::channel(1024);
    let handle = Handle::new(sender);
    // Subscribed before the engine reads the network for the first time.
    let monitor = Monitor::new().context("rtnetlink subscription")?;
    let listener = cni::listen(&config.socket)?;
    if let Some(address) = config.metrics_address {
        let listener = metrics::server::listen("metrics-address", address).await?;
        let app = metrics::server::router(handle.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
    }
    if let Some(address) = config.healthz_address {
        let app = metrics::server::node_router(handle.clone());
        tokio::spawn(metrics::server::take_over("healthz-address", address, app));
    }
    if let Some(address) = config.proxy_mode_address {
        let app = metrics::server::mode_router();
        tokio::spawn(metrics::server::take_over(
            "proxy-mode-address",
            address,
            app,
        ));
    }
    tokio::spawn(watch_network(monitor, handle.clone()));
    let objects = Objects::of(&config).await?;
    let (ask, questions) = mpsc::channel(64);
    let cluster = cluster::Shared::new(&config.node_name);
    tokio::spawn(watch_source(
        objects.clone(),
        questions,
        cluster.clone(),
        handle.clone(),
    ));
    let duties = start_duties(&config, objects, cluster.clone());
    let app = cni::router(handle.clone(), kernel.live.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let verifying = handle.clone();
    tokio::spawn(watch_signals(handle));
    let (bpffs, interval) = (config.bpffs.clone(), config.verify_interval);
    let engine = Engine::new(config, kernel, &boot_id, ask, cluster)?;
    verify::background::spawn(verifying, engine.verify(), bpffs, interval)?;
    tokio::spawn(health::run(engine.health()));
    let (done, result) = tokio::sync::oneshot::channel();
    thread::Builder::new()
        .name("engine".into())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build();
            // Whoever waits for the result is this process's main task.
            let _ = done.send(runtime.and_then(|runtime| runtime.block_on(engine.run(events))));
        })?;
    let result = result.await;
    if let Some(duties) = duties {
        duties.stop().await;
    }
    result.context("the engine has died")??;
    tracing::info!("stopped; everything stays in force in the kernel");
    Ok(())
}

async fn watch_network(mut monitor: Monitor, engine: Handle) {
    loop {
        if let Err(e) = monitor.changed().await {
            tracing::error!("rtnetlink subscription: {e}");
            return;
        }
        if !engine.send(Event::Network).await {
            return;
        }
    }
}

/// The duties for the whole cluster, where there is an API server.
fn start_duties(config: &Config, objects: Objects, shared: cluster::Shared) -> Option<Duties> {
    let Objects::Kube(connection) = objects else {
        if !config.pools.is_empty() {
            tracing::warn!("cluster-cidr: of no use with a source other than kube");
        }
        return None;
    };
    let options = cluster::Options {
        node_name: config.node_name.clone(),
        pools: config.pools.clone(),
        namespace: config.namespace.clone(),
    };
    Some(Duties::start(connection, options, shared))
}

async fn watch_source(
    objects: Objects,
    questions: mpsc::Receiver<Question>,
    cluster: cluster::Shared,
    engine: Handle,
) {
    // While the engine is busy, what happens is gathered by the source, in one batch.
    let (batches, mut received) = mpsc::channel(1);
    let forward = async {
        while let Some(batch) = received.recv().await {
            cluster.take(&batch);
            let sent = engine.send(Event::Source(batch)).await;
            if !sent || engine.ask(Command::TakenIn).await.is_err() {
                return;
            }
        }
    };
    let source = async {
        match objects {
            Objects::Dir(path) => {
                // A directory has no more than what is read already.
                drop(questions);
                source::dir::run(path, batches).await
            }
            Objects::Kube(connection) => {
                source::kube::run(connection, questions, batches).await;
                Ok(())
            }
        }
    };
    let (result, ()) = tokio::join!(source, forward);
    if let Err(e) = result {
        engine.send(Event::SourceFailed(e.to_string())).await;
    }
}

async fn watch_signals(engine: Handle) {
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    engine.send(Event::Stop).await;
}
