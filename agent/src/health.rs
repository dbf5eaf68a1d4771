//! The servers behind `healthCheckNodePort`: a load balancer asks them whether this node has a
//! Service's endpoints. They come, change and go with the Services.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{HeaderName, StatusCode, header},
    response::IntoResponse,
};
use tokio::{net::TcpListener, sync::oneshot, sync::watch, time::timeout};

use crate::compile::health::{Answer, HealthCheck, by_port};

/// How long until a port that could not be bound is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// What is to be served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Where; `None` is everywhere.
    pub addresses: Option<BTreeSet<IpAddr>>,
    /// What.
    pub checks: Vec<HealthCheck>,
}

/// What the engine and the servers tell each other.
#[derive(Clone, Debug)]
pub struct Shared {
    wanted: watch::Sender<Wanted>,
    problems: Arc<Mutex<Vec<String>>>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            wanted: watch::Sender::new(Wanted::default()),
            problems: Arc::default(),
        }
    }
}

impl Shared {
    /// Says what is to be served from now on.
    pub fn set(&self, wanted: Wanted) {
        self.wanted.send_if_modified(|now| {
            let differs = *now != wanted;
            *now = wanted;
            differs
        });
    }

    /// Ports that are not served, and why.
    pub fn problems(&self) -> Vec<String> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        // A list is whole whatever happened to who held it.
        self.problems.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_problems(&self, problems: Vec<String>) {
        let mut known = self.lock();
        for problem in problems.iter().filter(|problem| !known.contains(problem)) {
            tracing::warn!("{problem}");
        }
        *known = problems;
    }
}

/// Serves until the engine's end is gone.
pub async fn run(shared: Shared) {
    let mut wanted = shared.wanted.subscribe();
    let mut servers = Servers::default();
    loop {
        let now = wanted.borrow_and_update().clone();
        let problems = servers.become_as(&now).await;
        let is_whole = problems.is_empty();
        shared.set_problems(problems);
        let changed = if is_whole {
            wanted.changed().await
        } else {
            // Whoever has the port may let it go.
            timeout(RETRY, wanted.changed()).await.unwrap_or(Ok(()))
        };
        if changed.is_err() {
            return;
        }
    }
}

/// One listening socket.
struct Server {
    answer: watch::Sender<Answer>,
    /// Dropped, it ends the server and the connections that wait for another question.
    _stop: oneshot::Sender<()>,
}

/// All that listen.
#[derive(Default)]
struct Servers {
    servers: BTreeMap<SocketAddr, Server>,
}

impl Servers {
    /// Ends what is not wanted any more, changes answers, and listens where nothing did. Returns
    /// what is wrong.
    async fn become_as(&mut self, wanted: &Wanted) -> Vec<String> {
        let (ports, mut problems) = by_port(&wanted.checks);
        let everywhere = [
            IpAddr::from(Ipv6Addr::UNSPECIFIED),
            IpAddr::from(Ipv4Addr::UNSPECIFIED),
        ];
        let addresses: Vec<IpAddr> = match &wanted.addresses {
            None => everywhere.to_vec(),
            Some(addresses) => addresses.iter().copied().collect(),
        };
        self.servers
            .retain(|at, _| ports.contains_key(&at.port()) && addresses.contains(&at.ip()));
        // What was ended lets its port go when its task next runs.
        tokio::task::yield_now().await;
        for (port, check) in ports {
            let mut failures = Vec::new();
            for address in &addresses {
                let at = SocketAddr::new(*address, port);
                if let Err(error) = self.ensure(at, check.answer()).await {
                    failures.push((at, error));
                }
            }
            // A socket at `::` usually takes IPv4 as well, and a machine may have one family only.
            let one_will_do = wanted.addresses.is_none() && failures.len() < addresses.len();
            if one_will_do && failures.iter().all(|(_, error)| is_other_family(error)) {
                continue;
            }
            problems.extend(failures.into_iter().map(|(at, error)| {
                format!(
                    "Service {}/{}: spec.healthCheckNodePort: {at}: {error}: stop what has the port, or give the Service another",
                    check.namespace, check.name
                )
            }));
        }
        problems
    }

    /// Has an address answered so.
    async fn ensure(&mut self, at: SocketAddr, answer: Answer) -> io::Result<()> {
        if let Some(server) = self.servers.get(&at) {
            server.answer.send_replace(answer);
            return Ok(());
        }
        let listener = TcpListener::bind(at).await?;
        let (sender, answers) = watch::channel(answer);
        let (stop, stopped) = oneshot::channel::<()>();
        let app = Router::new().fallback(respond).with_state(answers);
        let served = axum::serve(listener, app).with_graceful_shutdown(async {
            // An error is the sender's end, too.
            let _ = stopped.await;
        });
        tokio::spawn(async { served.await });
        let server = Server {
            answer: sender,
            _stop: stop,
        };
        self.servers.insert(at, server);
        Ok(())
    }
}

/// Whether a wildcard address could not be bound because that of the other family has the port, or
/// because the machine lacks the family.
fn is_other_family(error: &io::Error) -> bool {
    let lacks = [Some(libc::EAFNOSUPPORT), Some(libc::EADDRNOTAVAIL)];
    error.kind() == io::ErrorKind::AddrInUse || lacks.contains(&error.raw_os_error())
}

async fn respond(State(answers): State<watch::Receiver<Answer>>) -> impl IntoResponse {
    let Answer {
        status,
        weight,
        body,
    } = answers.borrow().clone();
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (
            HeaderName::from_static("x-load-balancing-endpoint-weight"),
            weight.to_string(),
        ),
    ];
    (status, headers, body)
}

#[cfg(test)]
mod tests;
