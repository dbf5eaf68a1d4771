//! The least client of the agent's socket: enough for a lab that also wants to see raw answers.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Calls `METHOD path` and returns the status and the body (null when empty).
///
/// # Errors
/// When nobody listens, or the answer is no HTTP or no JSON.
pub fn call(socket: &Path, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, Value)> {
    let mut stream = UnixStream::connect(socket)
        .with_context(|| format!("connecting to {}", socket.display()))?;
    stream.set_read_timeout(Some(Duration::from_secs(15)))?;
    let body = body.map(Value::to_string).unwrap_or_default();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: weir\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .with_context(|| format!("reading the answer to {path}"))?;
    parse(&answer).with_context(|| format!("reading the answer to {method} {path}"))
}

fn parse(answer: &[u8]) -> Result<(u16, Value)> {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
        bail!("no HTTP header in {} bytes", answer.len());
    };
    let head = String::from_utf8_lossy(&answer[..end]);
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let Some(status) = status else {
        bail!("no HTTP status in {head:?}")
    };
    let mut body = answer[end + 4..].to_vec();
    if head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked")
    {
        body = unchunk(&body)?;
    }
    if body.is_empty() {
        return Ok((status, Value::Null));
    }
    let value = serde_json::from_slice(&body)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
    Ok((status, value))
}

fn unchunk(mut rest: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|window| window == b"\r\n") else {
            bail!("a chunk without a size");
        };
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end])?.trim(), 16)?;
        let data = &rest[end + 2..];
        if size == 0 {
            return Ok(body);
        }
        let Some(chunk) = data.get(..size) else {
            bail!("a chunk ends early")
        };
        body.extend_from_slice(chunk);
        rest = data.get(size + 2..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_plain_and_chunked_answers() {
        let plain = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 7\r\n\r\n{\"a\":1}";
        assert_eq!(parse(plain).unwrap(), (503, serde_json::json!({"a": 1})));
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n";
        assert_eq!(parse(chunked).unwrap(), (200, serde_json::json!([1, 2])));
        assert!(parse(b"HTTP/1.1 200 OK\r\n").is_err());
    }
}
