//! A Kubernetes API server for tests: within the process, over plain HTTP, without any knowledge of
//! kinds. It lists (in pages), watches, gets, creates, replaces, patches (merge) and deletes
//! whatever it is given, and can be told to fail, to hang, to stop and start again, to forget the
//! past (410 Gone), to refuse a token, and not to serve a resource.
//!
//! It runs on a thread of its own; [`FakeApi::stop`] breaks every connection before it returns.

mod rest;
mod state;
mod watch;

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{oneshot, watch as signal};

use state::State;

/// What a request of a resource meets, instead of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This HTTP status, as a Kubernetes `Status`.
    Status(u16),
    /// No answer at all.
    Hang,
    /// HTTP 404 as the API server gives it for a path that it does not know: plain text.
    NotServed,
    /// This HTTP status, as a page of a proxy.
    Proxy(u16),
    /// This HTTP status, as of a version that is still to come.
    Future(u16),
    /// An answer that ends as soon as it has begun.
    Ends,
}

/// The requests that a fault is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// Of a collection.
    List,
    /// Of a collection.
    Watch,
    /// Of one object.
    Get,
    /// Create, replace, patch or delete.
    Write,
}

impl Verb {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::List, Self::Watch, Self::Get, Self::Write];
}

/// Shared by the server's thread and the test.
struct Shared {
    state: Mutex<State>,
    /// Moves whenever watches may have something to say.
    moved: signal::Sender<u64>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.moved.send_modify(|n| *n += 1);
    }
}

struct Running {
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

/// The server. It ends when dropped.
pub struct FakeApi {
    shared: Arc<Shared>,
    address: SocketAddr,
    running: Option<Running>,
    files: TempDir,
}

impl FakeApi {
    /// Starts one at a free port of 127.0.0.1.
    ///
    /// # Errors
    /// There is no port or no temporary directory to be had.
    pub fn start() -> io::Result<Self> {
        let files = TempDir::new()?;
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            moved: signal::Sender::new(0),
        });
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let running = Some(serve(Arc::clone(&shared), listener)?);
        let api = Self {
            shared,
            address,
            running,
            files,
        };
        api.give_token("first")?;
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "fake",
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
            "clusters": [{"name": "fake", "cluster": {"server": api.url()}}],
            "users": [{"name": "fake", "user": {"tokenFile": api.files.path().join("token")}}],
        });
        fs::write(api.kubeconfig(), kubeconfig.to_string())?;
        Ok(api)
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A kubeconfig that leads here, with a token that is read from a file.
    pub fn kubeconfig(&self) -> PathBuf {
        self.files.path().join("kubeconfig")
    }

    /// A directory that lives as long as the server.
    pub fn dir(&self) -> &Path {
        self.files.path()
    }

    /// Writes the token that clients send.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn give_token(&self, token: &str) -> io::Result<()> {
        let path = self.files.path().join("token");
        let temporary = self.files.path().join("token.tmp");
        fs::write(&temporary, token)?;
        fs::rename(temporary, path)
    }

    /// From now on only this token is good (`None`: any), and watches end.
    pub fn accept_token(&self, token: Option<&str>) {
        self.shared.lock().token = token.map(str::to_owned);
        self.end_watches();
    }

    /// Breaks all connections and listens no more; the objects stay.
    pub fn stop(&mut self) {
        let Some(running) = self.running.take() else {
            return;
        };
        let _ = running.stop.send(());
        let _ = running.thread.join();
    }

    /// Listens again at the same port.
    ///
    /// # Errors
    /// The port has been taken meanwhile.
    pub fn start_again(&mut self) -> io::Result<()> {
        self.stop();
        let listener = std::net::TcpListener::bind(self.address)?;
        self.running = Some(serve(Arc::clone(&self.shared), listener)?);
        Ok(())
    }

    /// Creates or replaces an object of a resource (`pods`, `services`, …); returns its
    /// resourceVersion.
    pub fn put(&self, plural: &str, object: Value) -> u64 {
        let version = self.shared.lock().put(plural, object);
        self.shared.wake();
        version
    }

    /// Deletes an object; `namespace` is empty where there is none.
    pub fn delete(&self, plural: &str, namespace: &str, name: &str) {
        self.shared.lock().delete(plural, namespace, name);
        self.shared.wake();
    }

    /// An object as it is now.
    pub fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        self.shared.lock().get(plural, namespace, name).cloned()
    }

    /// Has requests of a resource meet a fault, until [`FakeApi::heal`]; running watches of it end.
    pub fn fail(&self, plural: &str, verbs: &[Verb], fault: &Fault) {
        let mut state = self.shared.lock();
        for verb in verbs {
            state
                .faults
                .insert((plural.to_owned(), *verb), fault.clone());
        }
        drop(state);
        self.end_watches();
    }

    /// Takes all faults of a resource away; hanging requests stay so.
    pub fn heal(&self, plural: &str) {
        self.shared.lock().faults.retain(|(of, _), _| of != plural);
        self.shared.wake();
    }

    /// Ends all running watches, as the server does after some minutes.
    pub fn end_watches(&self) {
        self.shared.lock().epoch += 1;
        self.shared.wake();
    }

    /// Holds back what watches of a resource have to say, until told to go on.
    pub fn hold_watches(&self, plural: &str, hold: bool) {
        let mut state = self.shared.lock();
        if hold {
            state.held.insert(plural.to_owned());
        } else {
            state.held.remove(plural);
        }
        drop(state);
        self.shared.wake();
    }

    /// Forgets the past: running watches are told 410, and so are those that begin before now.
    pub fn expire(&self) {
        self.shared.lock().expire();
        self.shared.wake();
    }

    /// Refuses, once, to go on with a list of a resource: its `continue` is too old.
    pub fn expire_continue(&self, plural: &str) {
        self.shared.lock().stale.insert(plural.to_owned());
    }

    /// Sends a bookmark to all running watches.
    pub fn bookmark(&self) {
        self.shared.lock().bookmark();
        self.shared.wake();
    }

    /// How many requests of that kind there were so far.
    pub fn requests(&self, plural: &str, verb: Verb) -> usize {
        let state = self.shared.lock();
        let asked = state.requests.get(&(plural.to_owned(), verb));
        asked.copied().unwrap_or_default()
    }
}

impl Drop for FakeApi {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Serves until told to stop; every connection is closed when the thread has ended.
fn serve(shared: Arc<Shared>, listener: std::net::TcpListener) -> io::Result<Running> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (stop, stopped) = oneshot::channel();
    let thread = thread::Builder::new()
        .name("fake-api".into())
        .spawn(move || {
            runtime.block_on(async {
                let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
                    return;
                };
                tokio::select! {
                    _ = axum::serve(listener, rest::router(shared)) => {}
                    _ = stopped => {}
                }
            });
        })?;
    Ok(Running { stop, thread })
}
