//! The routes.

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRef, Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use weir_api::error::{ApiError, Reason};

use crate::{
    dataplane::live,
    engine::{Command, Handle},
};

/// Largest body taken, bytes.
const BODY: usize = 1 << 20;

/// An error on its way out.
struct Failure(ApiError);

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self.0.reason {
            Reason::TryAgain => StatusCode::SERVICE_UNAVAILABLE,
            Reason::StaleUid => StatusCode::CONFLICT,
            Reason::NotFound => StatusCode::NOT_FOUND,
            Reason::BadRequest => StatusCode::BAD_REQUEST,
            Reason::Internal | Reason::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(self.0)).into_response()
    }
}

type Answer<T> = Result<Json<T>, Failure>;

/// Body of `PUT /v1/log-level`, and its answer.
#[derive(Debug, Serialize, Deserialize)]
struct LogLevel {
    level: String,
}

/// Whom the routes ask.
#[derive(Clone)]
struct Asked {
    engine: Handle,
    live: live::Shared,
}

impl FromRef<Asked> for Handle {
    fn from_ref(asked: &Asked) -> Self {
        asked.engine.clone()
    }
}

impl FromRef<Asked> for live::Shared {
    fn from_ref(asked: &Asked) -> Self {
        asked.live.clone()
    }
}

/// Every route, asking that engine, and the programs in a dry run.
pub fn router(engine: Handle, live: live::Shared) -> Router {
    Router::new()
        .route("/v1/endpoints", get(endpoints).post(adopt))
        .route(
            "/v1/endpoints/{container}/{ifname}",
            get(endpoint).delete(remove),
        )
        .route("/v1/status", get(status))
        .route("/v1/objects", get(objects))
        .route("/v1/services", get(services))
        .route("/v1/policies", get(policies))
        .route("/v1/policy/verdict", post(verdict))
        .route("/v1/policy/live", post(run_live))
        .route("/v1/log-level", put(log_level))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY))
        .with_state(Asked { engine, live })
}

/// Decodes a body whatever its content type says: curl sends forms unless told otherwise.
fn body<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|e| {
        Failure(ApiError {
            reason: Reason::BadRequest,
            message: format!("the body: {e}"),
        })
    })
}

async fn adopt(State(engine): State<Handle>, bytes: Bytes) -> Answer<impl Serialize> {
    let request = body(&bytes)?;
    Ok(Json(
        engine
            .ask(|reply| Command::Adopt(Box::new(request), reply))
            .await??,
    ))
}

async fn endpoints(State(engine): State<Handle>) -> Answer<impl Serialize> {
    Ok(Json(engine.ask(Command::Endpoints).await?))
}

async fn endpoint(
    State(engine): State<Handle>,
    Path((container, ifname)): Path<(String, String)>,
) -> Answer<impl Serialize> {
    let all = engine.ask(Command::Endpoints).await?;
    let found = all.into_iter().find(|endpoint| {
        endpoint.attachment.container_id == container && endpoint.attachment.ifname == ifname
    });
    found.map(Json).ok_or_else(|| {
        Failure(ApiError {
            reason: Reason::NotFound,
            message: format!("no endpoint of container {container} interface {ifname}"),
        })
    })
}

async fn remove(
    State(engine): State<Handle>,
    Path(key): Path<(String, String)>,
) -> Result<StatusCode, Failure> {
    engine.ask(|reply| Command::Remove(key, reply)).await??;
    Ok(StatusCode::NO_CONTENT)
}

async fn status(State(engine): State<Handle>) -> Answer<impl Serialize> {
    Ok(Json(engine.ask(Command::Status).await?))
}

async fn objects(State(engine): State<Handle>) -> Answer<impl Serialize> {
    Ok(Json(engine.ask(Command::Objects).await?))
}

async fn services(State(engine): State<Handle>) -> Answer<impl Serialize> {
    Ok(Json(engine.ask(Command::Services).await?))
}

async fn policies(State(engine): State<Handle>) -> Answer<impl Serialize> {
    Ok(Json(engine.ask(Command::Policies).await?))
}

async fn verdict(State(engine): State<Handle>, bytes: Bytes) -> Answer<impl Serialize> {
    let request = body(&bytes)?;
    Ok(Json(
        engine
            .ask(|reply| Command::Verdict(Box::new(request), reply))
            .await??,
    ))
}

/// The engine goes on meanwhile.
async fn run_live(State(live): State<live::Shared>, bytes: Bytes) -> Answer<impl Serialize> {
    let request = body(&bytes)?;
    let asked = tokio::task::spawn_blocking(move || live.ask(&request));
    let answer = asked.await.map_err(|e| ApiError {
        reason: Reason::Internal,
        message: format!("the dry run: {e}"),
    })?;
    Ok(Json(answer?))
}

async fn log_level(bytes: Bytes) -> Answer<LogLevel> {
    let request: LogLevel = body(&bytes)?;
    crate::log::set_level(&request.level).map_err(|message| ApiError {
        reason: Reason::BadRequest,
        message: format!("level: {message}"),
    })?;
    tracing::info!(level = request.level, "log level changed");
    Ok(Json(request))
}

async fn unknown() -> Failure {
    Failure(ApiError {
        reason: Reason::NotFound,
        message: "no such path: docs/api.md lists those of /v1/".into(),
    })
}

async fn wrong_method() -> Response {
    let error = ApiError {
        reason: Reason::BadRequest,
        message: "this path has no such method: docs/api.md lists them".into(),
    };
    (StatusCode::METHOD_NOT_ALLOWED, Json(error)).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::UnixStream,
        sync::mpsc,
    };

    use std::sync::Arc;

    use super::*;
    use crate::{compile::endpoint::tests::request, dataplane::pins::Pins, engine::Event};

    /// Serves on a socket in a directory of its own; the engine's end is returned.
    fn serve() -> (tempfile::TempDir, std::path::PathBuf, mpsc::Receiver<Event>) {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("run/agent.sock");
        let listener = crate::cni::listen(&path).unwrap();
        let (sender, events) = mpsc::channel(8);
        let app = router(Handle::new(sender), live(dir.path()));
        tokio::spawn(async move { axum::serve(listener, app).await });
        (dir, path, events)
    }

    /// Where nothing is pinned.
    fn live(bpffs: &std::path::Path) -> live::Shared {
        live::Shared::new(Arc::new(Vec::new().into()), Pins::new(bpffs))
    }

    async fn http(path: &std::path::Path, head: &str, body: &str) -> (u16, serde_json::Value) {
        let mut stream = UnixStream::connect(path).await.unwrap();
        let length = body.len();
        let text = format!(
            "{head} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or_default())
    }

    #[tokio::test]
    async fn errors_are_json_with_a_reason_and_the_status_that_belongs_to_it() {
        let (_dir, path, _events) = serve();
        let (status, body) = http(&path, "GET /v1/nothing", "").await;
        assert_eq!((status, body["reason"].as_str()), (404, Some("not-found")));
        let (status, body) = http(&path, "POST /v1/endpoints", "{").await;
        assert_eq!(
            (status, body["reason"].as_str()),
            (400, Some("bad-request"))
        );
        let (status, body) = http(&path, "PATCH /v1/status", "").await;
        assert_eq!(
            (status, body["reason"].as_str()),
            (405, Some("bad-request"))
        );
        let (status, body) = http(&path, "PUT /v1/log-level", "{\"level\":\"loud=x=y\"}").await;
        assert_eq!(status, 400);
        assert!(
            body["message"].as_str().unwrap().contains("level"),
            "{body}"
        );
    }

    #[tokio::test]
    async fn an_adoption_reaches_the_engine_and_its_refusal_the_caller() {
        let (_dir, path, mut events) = serve();
        let asked = request("c", 7, &["10.0.0.5"]);
        let text = serde_json::to_string(&asked).unwrap();
        let answer = async {
            let Some(Event::Command(Command::Adopt(got, reply))) = events.recv().await else {
                panic!("no adoption");
            };
            assert_eq!(*got, asked);
            let message = "who is this?".into();
            let _ = reply.send(Err(ApiError {
                reason: Reason::StaleUid,
                message,
            }));
        };
        let (answer, ()) = tokio::join!(http(&path, "POST /v1/endpoints", &text), answer);
        assert_eq!(
            (answer.0, answer.1["message"].as_str()),
            (409, Some("who is this?"))
        );
    }

    #[tokio::test]
    async fn a_live_question_is_answered_without_the_engine() {
        let (_dir, path, events) = serve();
        drop(events);
        let (status, body) = http(&path, "POST /v1/policy/live", "{}").await;
        assert_eq!(
            (status, body["reason"].as_str()),
            (400, Some("bad-request"))
        );
        let question = r#"{"source":"10.0.0.1","destination":"10.0.0.2","protocol":6,"port":80}"#;
        let (status, body) = http(&path, "POST /v1/policy/live", question).await;
        assert_eq!((status, body["reason"].as_str()), (500, Some("internal")));
        let message = body["message"].as_str().unwrap();
        assert!(message.starts_with("eBPF object: "), "{message}");
    }

    #[tokio::test]
    async fn an_engine_that_is_gone_is_try_again() {
        let (_dir, path, events) = serve();
        drop(events);
        let (status, body) = http(&path, "GET /v1/status", "").await;
        assert_eq!((status, body["reason"].as_str()), (503, Some("try-again")));
    }

    #[tokio::test]
    async fn the_socket_is_for_its_owner_only_and_takes_the_place_of_a_dead_one() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_dir, path, _events) = serve();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(crate::cni::listen(&path).unwrap());
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}
