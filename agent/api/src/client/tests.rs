//! The client against small servers in threads.

use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    thread,
    time::Instant,
};

use super::*;
use crate::error::Reason;

/// A directory for one test's socket.
struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn socket(&self) -> PathBuf {
        self.0.path().join("agent.sock")
    }

    /// Serves one connection.
    fn serve(&self, serve: impl FnOnce(UnixStream) + Send + 'static) -> Client {
        let listener = UnixListener::bind(self.socket()).unwrap();
        thread::spawn(move || serve(listener.accept().unwrap().0));
        Client::new(self.socket())
    }
}

fn answer(stream: &mut UnixStream, status: &str, body: &str) {
    let mut request = [0; 4096];
    assert!(stream.read(&mut request).unwrap() > 0);
    let len = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {len}\r\n\r\n{body}"
    )
    .unwrap();
}

#[test]
fn an_answer_is_parsed_and_unknown_fields_are_ignored() {
    let dir = Dir::new();
    let client =
        dir.serve(|mut s| answer(&mut s, "200 OK", r#"{"node":"n1","ready":true,"new":[1]}"#));
    let status = client.status().unwrap();
    assert!(status.ready && status.node == "n1");
}

#[test]
fn an_api_error_keeps_its_reason_and_is_not_unavailability() {
    let dir = Dir::new();
    let client = dir.serve(|mut s| {
        answer(
            &mut s,
            "503 X",
            r#"{"reason":"try-again","message":"not synced"}"#,
        );
    });
    match client.status().unwrap_err() {
        ClientError::Api(error) => {
            assert_eq!(error.reason, Reason::TryAgain);
            assert_eq!(error.to_string(), "not synced");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_missing_socket_and_one_nobody_listens_on_are_told_apart() {
    let dir = Dir::new();
    let client = Client::new(dir.socket());
    let error = client.status().unwrap_err();
    assert!(
        matches!(error, ClientError::NoSocket { .. }) && error.is_unavailable(),
        "{error:?}"
    );
    drop(UnixListener::bind(dir.socket()).unwrap());
    let error = client.status().unwrap_err();
    assert!(
        matches!(error, ClientError::Refused { .. }) && error.is_unavailable(),
        "{error:?}"
    );
}

#[test]
fn a_silent_agent_is_a_timeout_within_the_deadline() {
    let dir = Dir::new();
    let _listener = UnixListener::bind(dir.socket()).unwrap();
    let started = Instant::now();
    let error = Client::new(dir.socket())
        .timeout(Duration::from_millis(80))
        .status()
        .unwrap_err();
    assert!(
        matches!(error, ClientError::Timeout { .. }) && error.is_unavailable(),
        "{error:?}"
    );
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn an_agent_that_trickles_bytes_is_a_timeout_all_the_same() {
    let dir = Dir::new();
    let client = dir.serve(|mut s| {
        s.write_all(b"HTTP/1.1 200 OK\r\nX: ").unwrap();
        while s.write_all(b"y").is_ok() {
            thread::sleep(Duration::from_millis(10));
        }
    });
    let started = Instant::now();
    let error = client
        .timeout(Duration::from_millis(100))
        .status()
        .unwrap_err();
    assert!(
        matches!(
            error,
            ClientError::Timeout { .. } | ClientError::Answer { .. }
        ),
        "{error:?}"
    );
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn a_full_backlog_is_a_timeout_too() {
    let dir = Dir::new();
    let listener = UnixListener::bind(dir.socket()).unwrap();
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let _waiting = UnixStream::connect(dir.socket()).unwrap();
    let started = Instant::now();
    let error = Client::new(dir.socket())
        .timeout(Duration::from_millis(80))
        .status()
        .unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error:?}");
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn an_agent_that_goes_away_in_the_middle_is_lost_and_unavailable() {
    let dir = Dir::new();
    let client = dir.serve(|mut s| {
        let mut request = [0; 4096];
        assert!(s.read(&mut request).unwrap() > 0);
        write!(s, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").unwrap();
    });
    let error = client.status().unwrap_err();
    assert!(
        matches!(error, ClientError::Lost { .. }) && error.is_unavailable(),
        "{error:?}"
    );
}

#[test]
fn what_is_no_answer_of_the_api_is_named() {
    let dir = Dir::new();
    let client = dir.serve(|mut s| answer(&mut s, "502 Bad Gateway", "<html>"));
    let error = client.status().unwrap_err();
    assert!(
        matches!(error, ClientError::Answer { .. }) && !error.is_unavailable(),
        "{error:?}"
    );
    assert!(error.to_string().contains("502"), "{error}");
}

#[test]
fn a_call_is_given_up_from_another_thread_and_so_are_later_ones() {
    let dir = Dir::new();
    let (reached, wait) = std::sync::mpsc::channel();
    let client = dir.serve(move |mut s| {
        let mut request = [0; 4096];
        assert!(s.read(&mut request).unwrap() > 0);
        reached.send(()).unwrap();
        // Ends when the client has shut the connection down.
        assert_eq!(s.read(&mut request).unwrap(), 0);
    });
    let canceller = client.canceller();
    let cancelled = thread::spawn(move || {
        wait.recv().unwrap();
        canceller.cancel();
    });
    let error = client.status().unwrap_err();
    assert!(matches!(error, ClientError::Cancelled { .. }), "{error:?}");
    cancelled.join().unwrap();
    assert!(client.canceller().is_cancelled());
}

#[test]
fn names_are_percent_encoded_in_paths() {
    assert_eq!(
        endpoint_path("a-b.c_d", "eth0"),
        "/v1/endpoints/a-b.c_d/eth0"
    );
    assert_eq!(
        endpoint_path("a", "e?0#%é"),
        "/v1/endpoints/a/e%3F0%23%25%C3%A9"
    );
}
