use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::*;

fn check(name: &str, port: u16, local: usize) -> HealthCheck {
    HealthCheck {
        namespace: "shop".into(),
        name: name.into(),
        port,
        local,
    }
}

fn wanted(addresses: &[&str], checks: &[HealthCheck]) -> Wanted {
    let named = addresses.iter().map(|text| text.parse().unwrap());
    Wanted {
        // None is everywhere.
        addresses: (!addresses.is_empty()).then(|| named.collect()),
        checks: checks.to_vec(),
    }
}

/// A port that nobody has just now.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// The whole answer, or nothing if nobody listens.
async fn get(at: &str, port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect((at, port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    Some(answer)
}

/// Asks until the answer is as it should be.
async fn get_until(at: &str, port: u16, holds: impl Fn(Option<&str>) -> bool) -> Option<String> {
    let asked = async {
        loop {
            let answer = get(at, port, "/").await;
            if holds(answer.as_deref()) {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), asked).await.unwrap()
}

#[tokio::test]
async fn any_path_is_answered_as_kube_proxy_answers_and_answers_follow_the_endpoints() {
    let (shared, port) = (Shared::default(), free_port());
    tokio::spawn(run(shared.clone()));
    shared.set(wanted(&["127.0.0.1", "::1"], &[check("web", port, 3)]));
    for at in ["127.0.0.1", "::1"] {
        let answer = get_until(at, port, |answer| answer.is_some())
            .await
            .unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let lower = answer.to_lowercase();
        for header in [
            "content-type: application/json\r\n",
            "x-content-type-options: nosniff\r\n",
            "x-load-balancing-endpoint-weight: 3\r\n",
        ] {
            assert!(lower.contains(header), "{answer}");
        }
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let service = serde_json::json!({"namespace": "shop", "name": "web"});
        assert_eq!(
            (&body["service"], &body["localEndpoints"]),
            (&service, &3.into())
        );
        assert_eq!(body["serviceProxyHealthy"], true);
        assert_eq!(get(at, port, "/any/path?x").await, Some(answer));
    }
    shared.set(wanted(&["127.0.0.1", "::1"], &[check("web", port, 0)]));
    let unavailable = |answer: Option<&str>| answer.is_some_and(|a| a.contains("503"));
    let answer = get_until("127.0.0.1", port, unavailable).await.unwrap();
    assert!(answer.contains("\"localEndpoints\":0"), "{answer}");
}

#[tokio::test]
async fn servers_come_and_go_with_services_and_addresses() {
    let (shared, port, other) = (Shared::default(), free_port(), free_port());
    tokio::spawn(run(shared.clone()));
    let both = [check("web", port, 1), check("api", other, 1)];
    shared.set(wanted(&[], &both));
    for at in ["127.0.0.1", "::1"] {
        get_until(at, port, |answer| answer.is_some()).await;
        get_until(at, other, |answer| answer.is_some()).await;
    }
    assert_eq!(shared.problems(), [""; 0]);
    shared.set(wanted(&[], &both[..1]));
    get_until("127.0.0.1", other, |answer| answer.is_none()).await;
    assert!(get("127.0.0.1", port, "/").await.is_some());
    shared.set(wanted(&["127.0.0.1"], &both[..1]));
    get_until("::1", port, |answer| answer.is_none()).await;
    get_until("127.0.0.1", port, |answer| answer.is_some()).await;
}

#[tokio::test]
async fn a_port_that_somebody_has_is_a_problem_and_is_taken_when_it_is_free() {
    let shared = Shared::default();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    tokio::spawn(run(shared.clone()));
    shared.set(wanted(&["127.0.0.1"], &[check("web", port, 1)]));
    let named = async {
        while shared.problems().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), named).await.unwrap();
    let problems = shared.problems();
    assert!(
        problems[0].contains("shop/web") && problems[0].contains(&port.to_string()),
        "{problems:?}"
    );
    drop(taken);
    get_until("127.0.0.1", port, |answer| answer.is_some()).await;
    let gone = async {
        while !shared.problems().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), gone).await.unwrap();
}
