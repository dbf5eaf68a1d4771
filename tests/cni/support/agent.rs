//! A stub of the agent: its socket API as far as the plugin uses it, and the moods a real one has.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use serde_json::{Value, json};
use weir_net::{NetNs, Netlink};

/// How the agent takes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Adopts at once, ready.
    InForce,
    /// Answers ADD with an error of this reason, and is ready.
    Refuses(&'static str),
    /// Adopts, but does not answer ADD before the connection is closed.
    AdoptsInSilence,
    /// Answers nothing at all.
    Hangs,
    /// Closes the connection without a word.
    HangsUp,
    /// Answers what is no JSON.
    Nonsense,
    /// Adopts, and removes the host interface from under the plugin.
    RemovesTheLink,
    /// Its source has not synced.
    NotSynced,
    /// Synced, with a datapath that is not in order.
    Degraded,
}

/// Keyed by container and interface, what was asked for.
type Endpoints = BTreeMap<(String, String), Value>;

struct State {
    mood: Mutex<Mood>,
    endpoints: Mutex<Endpoints>,
    /// Wakes who waits for a call.
    called: Condvar,
    calls: Mutex<Vec<String>>,
    attached: AtomicBool,
    stop: AtomicBool,
    /// A connection to the node's namespace.
    node: Netlink,
}

/// A running stub.
pub struct Agent {
    socket: PathBuf,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

impl Agent {
    pub fn start(socket: &Path, node: &NetNs) -> Self {
        let state = Arc::new(State {
            mood: Mutex::new(Mood::InForce),
            endpoints: Mutex::default(),
            called: Condvar::new(),
            calls: Mutex::default(),
            attached: AtomicBool::new(true),
            stop: AtomicBool::new(false),
            node: Netlink::open_in(node).unwrap(),
        });
        let mut agent = Self {
            socket: socket.to_owned(),
            state,
            thread: None,
        };
        agent.up();
        agent
    }

    /// Starts to listen, unless it does.
    pub fn up_if_down(&mut self) {
        if self.thread.is_none() {
            self.up();
        }
    }

    /// Starts to listen again, knowing what it knew; a new one removes the socket of an old one.
    pub fn up(&mut self) {
        self.down();
        let _ = std::fs::remove_file(&self.socket);
        self.state.stop.store(false, Ordering::SeqCst);
        let listener = UnixListener::bind(&self.socket).unwrap();
        let state = Arc::clone(&self.state);
        self.thread = Some(thread::spawn(move || {
            for stream in listener.incoming() {
                if state.stop.load(Ordering::SeqCst) {
                    return;
                }
                let (state, stream) = (Arc::clone(&state), stream.unwrap());
                thread::spawn(move || serve(&state, stream));
            }
        }));
    }

    /// Stops listening, and leaves the socket's file behind as a killed agent does.
    pub fn down(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.state.stop.store(true, Ordering::SeqCst);
            UnixStream::connect(&self.socket).unwrap();
            thread.join().unwrap();
        }
    }

    /// Stops listening and removes the socket.
    pub fn gone(&mut self) {
        self.down();
        std::fs::remove_file(&self.socket).unwrap();
    }

    pub fn mood(&self, mood: Mood) {
        *self.state.mood.lock().unwrap() = mood;
    }

    /// Whether it says that programs are attached.
    pub fn attached(&self, attached: bool) {
        self.state.attached.store(attached, Ordering::SeqCst);
    }

    /// What is adopted.
    pub fn endpoints(&self) -> Vec<(String, String)> {
        self.state
            .endpoints
            .lock()
            .unwrap()
            .keys()
            .cloned()
            .collect()
    }

    /// What ADD asked for.
    pub fn endpoint(&self, id: &str, ifname: &str) -> Option<Value> {
        self.state
            .endpoints
            .lock()
            .unwrap()
            .get(&(id.into(), ifname.into()))
            .cloned()
    }

    /// Forgets what is adopted.
    pub fn forget(&self) {
        self.state.endpoints.lock().unwrap().clear();
    }

    /// Forgets which calls have come.
    pub fn forget_calls(&self) {
        self.state.calls.lock().unwrap().clear();
    }

    /// Waits until a call of this method has come.
    pub fn wait_for(&self, method: &str) {
        let calls = self.state.calls.lock().unwrap();
        let come = |calls: &mut Vec<String>| !calls.iter().any(|call| call.starts_with(method));
        drop(self.state.called.wait_while(calls, come).unwrap());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.down();
    }
}

fn serve(state: &State, mut stream: UnixStream) {
    let Some((method, path, body)) = read_request(&mut stream) else {
        return;
    };
    state.calls.lock().unwrap().push(format!("{method} {path}"));
    state.called.notify_all();
    let mood = *state.mood.lock().unwrap();
    if mood == Mood::Hangs {
        wait_for_close(&mut stream);
        return;
    }
    if mood == Mood::HangsUp {
        return;
    }
    let (status, answer) = answer(state, mood, &method, &path, &body);
    if mood == Mood::AdoptsInSilence && method == "POST" {
        wait_for_close(&mut stream);
        return;
    }
    let text = if mood == Mood::Nonsense {
        "<html>".into()
    } else {
        answer.to_string()
    };
    let len = text.len();
    // The plugin may be dead by now.
    let _ = write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Length: {len}\r\n\r\n{text}"
    );
}

fn answer(state: &State, mood: Mood, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
    let error = |status, reason: &str| (status, json!({"reason": reason, "message": "stub agent"}));
    let mut endpoints = state.endpoints.lock().unwrap();
    let parts: Vec<&str> = path.split('/').skip(2).collect();
    match (method, &parts[..], mood) {
        ("POST", ["endpoints"], Mood::Refuses(reason)) => error(503, reason),
        ("POST", ["endpoints"], _) => {
            let asked: Value = serde_json::from_slice(body).unwrap();
            let text = |key: &str| asked[key].as_str().unwrap().to_owned();
            // As the real one: what has gone meanwhile is not adopted.
            let host = text("hostIfname");
            if state.node.find_link(&host).unwrap().is_none() {
                return error(500, "internal");
            }
            endpoints.insert((text("containerId"), text("ifname")), asked.clone());
            if mood == Mood::RemovesTheLink {
                assert!(state.node.delete_link(&host).unwrap());
            }
            (200, endpoint(state, &asked))
        }
        ("GET", ["endpoints"], _) => (
            200,
            endpoints
                .values()
                .map(|asked| endpoint(state, asked))
                .collect(),
        ),
        ("GET", ["endpoints", id, ifname], _) => {
            match endpoints.get(&((*id).into(), (*ifname).into())) {
                Some(asked) => (200, endpoint(state, asked)),
                None => error(404, "not-found"),
            }
        }
        ("DELETE", ["endpoints", id, ifname], _) => {
            match endpoints.remove(&((*id).into(), (*ifname).into())) {
                Some(_) => (200, json!({})),
                None => error(404, "not-found"),
            }
        }
        ("GET", ["status"], mood) => {
            let synced = mood != Mood::NotSynced;
            let ready = synced && mood != Mood::Degraded;
            (
                200,
                json!({"synced": synced, "ready": ready, "degraded": ["because"]}),
            )
        }
        _ => error(404, "not-found"),
    }
}

fn endpoint(state: &State, asked: &Value) -> Value {
    let mut endpoint = asked.clone();
    endpoint["slot"] = 1.into();
    endpoint["ingress"] = json!({"group": 1});
    endpoint["egress"] = json!({"group": 1});
    endpoint["attached"] = state.attached.load(Ordering::SeqCst).into();
    endpoint
}

fn read_request(stream: &mut UnixStream) -> Option<(String, String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let len = stream.read(&mut chunk).ok().filter(|len| *len > 0)?;
        bytes.extend_from_slice(&chunk[..len]);
        let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        if bytes.len() < end + 4 + length {
            continue;
        }
        let mut words = head.split(' ');
        let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
        return Some((method, path, bytes[end + 4..].to_vec()));
    }
}

fn wait_for_close(stream: &mut UnixStream) {
    let mut rest = [0; 64];
    while stream.read(&mut rest).is_ok_and(|len| len > 0) {}
}
