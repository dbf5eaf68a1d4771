//! `/metrics`, `/healthz` (alive) and `/readyz` (synced and attached); and, at an address of its own,
//! the `/healthz` that load balancers ask.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use k8s_openapi::jiff::Timestamp;
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};

use crate::{
    compile::health,
    engine::{Command, Handle},
};

/// An engine that does not answer for so long is stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often an address is tried again that somebody else has.
const AGAIN: Duration = Duration::from_secs(5);

/// Answers at an address that kube-proxy has as well: while that still runs, it is waited for.
pub async fn take_over(key: &'static str, address: SocketAddr, app: Router) {
    let mut warned = false;
    let listener = loop {
        match bind_any(address).await {
            Ok(listener) => break listener,
            Err(e) if !warned => {
                warned = true;
                tracing::warn!("{key} {address}: {e}: tried again until it is free");
            }
            Err(_) => {}
        }
        sleep(AGAIN).await;
    };
    if let Err(e) = axum::serve(listener, app).await {
        tracing::error!("{key} {address}: {e}");
    }
}

/// Binds; a wildcard of IPv6 means IPv4 alone where there is no IPv6.
async fn bind_any(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(e) if e.raw_os_error() == Some(libc::EAFNOSUPPORT) && address.ip().is_unspecified() => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    }
}

/// Listens; `key` is what the address is configured by.
///
/// # Errors
/// The address cannot be bound: named, with the remedy.
pub async fn listen(key: &str, address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|e| {
        let message = format!("{key} {address}: {e}: give another by --{key}, or none");
        io::Error::new(e.kind(), message)
    })
}

/// The routes, asking that engine.
pub fn router(engine: Handle) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(engine)
}

/// What load balancers ask: the same path as kube-proxy's, and the same meaning.
pub fn node_router(engine: Handle) -> Router {
    Router::new()
        .route("/healthz", get(node_healthz))
        .with_state(engine)
}

/// What kube-proxy says at its status port: how Services are done.
pub fn mode_router() -> Router {
    Router::new().route("/proxyMode", get(async || "ebpf"))
}

async fn node_healthz(State(engine): State<Handle>) -> (StatusCode, String) {
    match timeout(PATIENCE, engine.ask(Command::Health)).await {
        Ok(Ok((ready, eligible))) => {
            let now = Timestamp::now().to_string();
            let (status, body) = health::node_answer(ready, eligible, &now);
            let unavailable = StatusCode::SERVICE_UNAVAILABLE;
            (StatusCode::from_u16(status).unwrap_or(unavailable), body)
        }
        _ => stuck(),
    }
}

async fn metrics(State(engine): State<Handle>) -> (StatusCode, String) {
    match timeout(PATIENCE, engine.ask(Command::Metrics)).await {
        Ok(Ok(page)) => (StatusCode::OK, page),
        _ => stuck(),
    }
}

async fn healthz(State(engine): State<Handle>) -> (StatusCode, String) {
    match timeout(PATIENCE, engine.ask(Command::Status)).await {
        Ok(Ok(_)) => (StatusCode::OK, "ok\n".into()),
        _ => stuck(),
    }
}

async fn readyz(State(engine): State<Handle>) -> (StatusCode, String) {
    match timeout(PATIENCE, engine.ask(Command::Status)).await {
        Ok(Ok(status)) if status.ready => (StatusCode::OK, "ok\n".into()),
        Ok(Ok(status)) => {
            let synced = if status.synced {
                "synced"
            } else {
                "the source has not synced"
            };
            let problems = status.degraded.join("\n");
            (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("not ready: {synced}\n{problems}\n"),
            )
        }
        _ => stuck(),
    }
}

fn stuck() -> (StatusCode, String) {
    (
        StatusCode::SERVICE_UNAVAILABLE,
        "the engine does not answer\n".into(),
    )
}
