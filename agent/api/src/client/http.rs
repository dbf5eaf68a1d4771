//! As much of HTTP/1.1 (RFC 9112) as one request and its answer on a connection of their own need.

use std::io::{self, Read};

/// Longest head of an answer, bytes.
const MAX_HEAD: usize = 16 << 10;
/// Most header fields of an answer.
const MAX_HEADERS: usize = 64;

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum HttpError {
    /// The connection failed; `UnexpectedEof` if it ended early.
    Io(io::Error),
    /// Not HTTP, or more than is allowed.
    Malformed(String),
}

impl From<io::Error> for HttpError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The bytes of a request, which asks the server to close the connection after its answer.
pub(super) fn request(method: &str, path: &str, body: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = format!(
        "{method} {path} HTTP/1.1\r\nHost: weir\r\nAccept: application/json\r\n\
         Connection: close\r\n"
    )
    .into_bytes();
    if let Some(body) = body {
        let head = format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        );
        bytes.extend_from_slice(head.as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body.unwrap_or_default());
    bytes
}

/// How an answer's body ends.
#[derive(Clone, Copy)]
enum Framing {
    Length(usize),
    Chunked,
    /// With the connection.
    Close,
}

/// Reads an answer whose body is at most `limit` bytes long.
pub(super) fn read_response(stream: impl Read, limit: usize) -> Result<Response, HttpError> {
    let mut input = Input {
        stream,
        buffer: Vec::new(),
    };
    loop {
        let (status, framing) = input.head()?;
        if (100..200).contains(&status) {
            continue;
        }
        let body = match framing {
            _ if status == 204 || status == 304 => Vec::new(),
            Framing::Length(len) if len > limit => return Err(too_large(limit)),
            Framing::Length(len) => input.take(len)?,
            Framing::Chunked => input.chunks(limit)?,
            Framing::Close => input.rest(limit)?,
        };
        return Ok(Response { status, body });
    }
}

fn malformed(what: impl Into<String>) -> HttpError {
    HttpError::Malformed(what.into())
}

fn too_large(limit: usize) -> HttpError {
    malformed(format!("the answer is longer than {limit} bytes"))
}

struct Input<R> {
    stream: R,
    /// Read and not yet used.
    buffer: Vec<u8>,
}

impl<R: Read> Input<R> {
    /// Reads some more bytes; false at the end of the connection.
    fn more(&mut self) -> Result<bool, HttpError> {
        let mut chunk = [0; 8192];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(len) => {
                    self.buffer.extend_from_slice(&chunk[..len]);
                    return Ok(len > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn need_more(&mut self) -> Result<(), HttpError> {
        if self.more()? {
            Ok(())
        } else {
            Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
        }
    }

    fn head(&mut self) -> Result<(u16, Framing), HttpError> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut response = httparse::Response::new(&mut headers);
            let parsed = response
                .parse(&self.buffer)
                .map_err(|e| malformed(e.to_string()))?;
            if let httparse::Status::Complete(len) = parsed {
                let status = response.code.unwrap_or_default();
                let framing = framing(response.headers)?;
                self.buffer.drain(..len);
                return Ok((status, framing));
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(malformed(format!(
                    "the answer's head is longer than {MAX_HEAD} bytes"
                )));
            }
            self.need_more()?;
        }
    }

    fn take(&mut self, len: usize) -> Result<Vec<u8>, HttpError> {
        while self.buffer.len() < len {
            self.need_more()?;
        }
        let rest = self.buffer.split_off(len);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    fn rest(&mut self, limit: usize) -> Result<Vec<u8>, HttpError> {
        loop {
            if self.buffer.len() > limit {
                return Err(too_large(limit));
            }
            if !self.more()? {
                break;
            }
        }
        Ok(std::mem::take(&mut self.buffer))
    }

    fn chunks(&mut self, limit: usize) -> Result<Vec<u8>, HttpError> {
        let mut body = Vec::new();
        loop {
            let (used, len) = loop {
                match httparse::parse_chunk_size(&self.buffer) {
                    Ok(httparse::Status::Complete(found)) => break found,
                    Ok(httparse::Status::Partial) if self.buffer.len() <= MAX_HEAD => {
                        self.need_more()?;
                    }
                    _ => return Err(malformed("bad chunk size")),
                }
            };
            self.buffer.drain(..used);
            let len = usize::try_from(len).map_err(|_| too_large(limit))?;
            if len > limit - body.len() {
                return Err(too_large(limit));
            }
            if len == 0 {
                // Trailers, if any, say nothing to us; the connection ends here anyway.
                return Ok(body);
            }
            body.append(&mut self.take(len)?);
            if self.take(2)? != b"\r\n" {
                return Err(malformed("a chunk does not end where it says"));
            }
        }
    }
}

fn framing(headers: &[httparse::Header<'_>]) -> Result<Framing, HttpError> {
    let mut framing = Framing::Close;
    for header in headers {
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            if header.value.eq_ignore_ascii_case(b"chunked") {
                return Ok(Framing::Chunked);
            }
            return Err(malformed("unknown transfer encoding"));
        }
        if header.name.eq_ignore_ascii_case("content-length") {
            let length = std::str::from_utf8(header.value)
                .ok()
                .and_then(|v| v.trim().parse().ok());
            framing = Framing::Length(length.ok_or_else(|| malformed("bad content length"))?);
        }
    }
    Ok(framing)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives out one byte at a time, as a slow server would.
    struct Trickle<'a>(&'a [u8]);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Some((first, rest)) = self.0.split_first() else {
                return Ok(0);
            };
            buffer[0] = *first;
            self.0 = rest;
            Ok(1)
        }
    }

    fn read(bytes: &[u8]) -> Result<Response, HttpError> {
        let whole = read_response(bytes, 64);
        let slow = read_response(Trickle(bytes), 64);
        match (&whole, &slow) {
            (Ok(a), Ok(b)) => assert_eq!(a, b),
            (Err(_), Err(_)) => {}
            _ => panic!("whole {whole:?}, byte by byte {slow:?}"),
        }
        whole
    }

    #[test]
    fn body_by_length_by_chunks_and_to_the_end_is_the_same() {
        let expected = Response {
            status: 200,
            body: b"hello world".to_vec(),
        };
        for answer in [
            "HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\nhello world",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\nhello world",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world",
        ] {
            assert_eq!(read(answer.as_bytes()).expect(answer), expected, "{answer}");
        }
    }

    #[test]
    fn no_content_has_no_body() {
        let answer = read(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        assert_eq!(
            answer,
            Response {
                status: 204,
                body: vec![]
            }
        );
    }

    #[test]
    fn what_is_cut_short_is_an_early_end() {
        for answer in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        ] {
            let error = read(answer.as_bytes()).unwrap_err();
            assert!(
                matches!(&error, HttpError::Io(e) if e.kind() == io::ErrorKind::UnexpectedEof),
                "{answer:?}: {error:?}"
            );
        }
    }

    #[test]
    fn what_is_not_http_or_too_long_is_refused() {
        let long = "x".repeat(65);
        for answer in [
            "SSH-2.0-OpenSSH\r\n\r\n".to_owned(),
            format!("HTTP/1.1 200 OK\r\n\r\n{long}"),
            format!("HTTP/1.1 200 OK\r\nContent-Length: 65\r\n\r\n{long}"),
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n41\r\n{long}\r\n0\r\n\r\n"
            ),
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n".to_owned(),
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n".to_owned(),
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n".to_owned(),
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nhello\r\n".to_owned(),
            format!(
                "HTTP/1.1 200 OK\r\nX: {}\r\n\r\n",
                "y".repeat(MAX_HEAD + 9000)
            ),
        ] {
            let error = read(answer.as_bytes()).unwrap_err();
            assert!(
                matches!(error, HttpError::Malformed(_)),
                "{answer:?}: {error:?}"
            );
        }
    }

    #[test]
    fn request_says_its_length() {
        let text = String::from_utf8(request("POST", "/v1/endpoints", Some(b"{}"))).unwrap();
        assert!(
            text.starts_with("POST /v1/endpoints HTTP/1.1\r\n"),
            "{text}"
        );
        assert!(text.ends_with("Content-Length: 2\r\n\r\n{}"), "{text}");
        let text = String::from_utf8(request("GET", "/v1/status", None)).unwrap();
        assert!(
            !text.contains("Content-Length") && text.ends_with("\r\n\r\n"),
            "{text}"
        );
    }
}
