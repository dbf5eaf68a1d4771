//! An agent that answers what it is told to.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Answers by path; [`Value::Null`] is a 404. Verdicts by the endpoint's address.
pub struct FakeAgent {
    dir: TempDir,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl FakeAgent {
    /// An agent of that node, with these objects, and verdicts by endpoint address.
    pub fn start(node: &str, objects: Value, verdicts: &[(&str, bool)]) -> Self {
        let status = json!({
            "version": "1.2.3", "node": node, "synced": true, "ready": true, "degraded": [],
            "features": [{"name": "tcx", "state": "used"}], "podCIDRs": ["10.1.0.0/24"],
            "counts": {"endpoints": 1, "services": 2, "policies": 3, "pods": 4},
        });
        let answers = BTreeMap::from([
            ("GET /v1/status".to_owned(), status),
            ("GET /v1/objects".to_owned(), objects),
        ]);
        Self::with(answers, verdicts)
    }

    /// The same, that says `answer` of every packet.
    pub fn live(node: &str, objects: Value, verdicts: &[(&str, bool)], answer: Value) -> Self {
        let answers = BTreeMap::from([
            ("GET /v1/status".to_owned(), json!({"node": node})),
            ("GET /v1/objects".to_owned(), objects),
            ("POST /v1/policy/live".to_owned(), answer),
        ]);
        Self::with(answers, verdicts)
    }

    pub fn with(answers: BTreeMap<String, Value>, verdicts: &[(&str, bool)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("agent.sock")).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let verdicts: BTreeMap<String, bool> = verdicts
            .iter()
            .map(|(a, v)| ((*a).to_owned(), *v))
            .collect();
        let seen = Arc::clone(&asked);
        // Ends with the test's process: accepting is all it does.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                serve(stream.unwrap(), &answers, &verdicts, &seen);
            }
        });
        Self { dir, asked }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("agent.sock")
    }

    /// The bodies of verdict and live requests so far.
    pub fn asked(&self) -> Vec<Value> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(
    mut stream: UnixStream,
    answers: &BTreeMap<String, Value>,
    verdicts: &BTreeMap<String, bool>,
    asked: &Mutex<Vec<Value>>,
) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let request = line.rsplit_once(' ').unwrap().0.to_owned();
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let answer = if request == "POST /v1/policy/verdict" {
        let question: Value = serde_json::from_slice(&body).unwrap();
        let verdict = verdicts
            .get(question["endpoint"].as_str().unwrap())
            .copied();
        asked.lock().unwrap().push(question);
        verdict.map(|allowed| {
            json!({"allowed": allowed, "ruleId": 64, "group": 16, "class": 3,
                   "rule": {"kind": "NetworkPolicy", "namespace": "shop", "name": "k", "path": "spec.ingress[0]"}})
        })
    } else {
        if request == "POST /v1/policy/live" {
            asked
                .lock()
                .unwrap()
                .push(serde_json::from_slice(&body).unwrap());
        }
        answers.get(&request).cloned()
    };
    let (status, body) = match answer {
        Some(body) => ("200 OK", body),
        None => (
            "404 Not Found",
            json!({"reason": "not-found", "message": "no such thing"}),
        ),
    };
    let body = body.to_string();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
}

/// The manifests of a file, as `GET /v1/objects` lists them.
pub fn objects(text: &str) -> Value {
    let parsed = weir_manifests::parse_text(Path::new("x"), text);
    let items: Vec<Value> = parsed
        .objects
        .iter()
        .map(|l| l.object.to_json().unwrap())
        .collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}
