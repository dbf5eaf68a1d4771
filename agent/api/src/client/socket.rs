//! The connection: a unix socket with a deadline for the whole call, and a way to give it up.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt,
        },
        time::TimeVal,
    },
};

use super::{
    Client, ClientError,
    http::{self, HttpError, Response},
};

/// Ends calls from another thread, such as one that waits for a signal.
#[derive(Clone, Debug, Default)]
pub struct Canceller(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    cancelled: bool,
    stream: Option<UnixStream>,
}

impl Canceller {
    /// Ends the call that runs, if one does, and all later ones with [`ClientError::Cancelled`].
    pub fn cancel(&self) {
        let mut state = self.lock();
        state.cancelled = true;
        if let Some(stream) = &state.stream {
            // Fails only if the server has closed the connection, and then the call ends anyway.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Whether [`Canceller::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.lock().cancelled
    }

    /// Notes the stream of the call that begins; false if it must not begin.
    fn begin(&self, stream: &UnixStream) -> io::Result<bool> {
        let mut state = self.lock();
        state.stream = Some(stream.try_clone()?);
        Ok(!state.cancelled)
    }

    fn end(&self) {
        self.lock().stream = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// Sends a request and reads the answer.
    pub(super) fn exchange(&self, request: &[u8]) -> Result<Response, ClientError> {
        let until = Instant::now() + self.timeout;
        let stream = self.connect(until)?;
        let lost = |source| self.lost(source);
        if !self.canceller.begin(&stream).map_err(lost)? {
            return Err(ClientError::Cancelled {
                socket: self.name(),
            });
        }
        let answer = transfer(&stream, until, request, self.limit);
        self.canceller.end();
        match answer {
            Ok(response) => Ok(response),
            Err(_) if self.canceller.is_cancelled() => Err(ClientError::Cancelled {
                socket: self.name(),
            }),
            Err(HttpError::Io(source)) => Err(self.lost(source)),
            Err(HttpError::Malformed(reason)) => Err(self.unexpected(reason)),
        }
    }

    /// Connects; waits when the agent's backlog is full, but not beyond the deadline.
    fn connect(&self, until: Instant) -> Result<UnixStream, ClientError> {
        let connected = open(
            &self.socket,
            remaining(until).unwrap_or(Duration::from_micros(1)),
        );
        connected.map_err(|errno| match errno {
            Errno::ENOENT | Errno::ENOTDIR => ClientError::NoSocket {
                socket: self.name(),
            },
            Errno::ECONNREFUSED => ClientError::Refused {
                socket: self.name(),
            },
            Errno::EAGAIN | Errno::ETIMEDOUT => self.late(),
            errno => ClientError::Socket {
                socket: self.name(),
                source: errno.into(),
            },
        })
    }

    fn lost(&self, source: io::Error) -> ClientError {
        match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => self.late(),
            _ => ClientError::Lost {
                socket: self.name(),
                source,
            },
        }
    }

    fn late(&self) -> ClientError {
        ClientError::Timeout {
            socket: self.name(),
            after: self.timeout,
        }
    }
}

/// Opens a connection. The standard library has no connect with a timeout for unix sockets; the
/// kernel bounds it by the send timeout (unix(7)).
fn open(path: &Path, timeout: Duration) -> nix::Result<UnixStream> {
    let fd = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let micros = i64::try_from(timeout.as_micros()).unwrap_or(i64::MAX);
    // The C library's types of time are narrower on 32-bit architectures.
    #[allow(
        clippy::useless_conversion,
        reason = "time_t differs between architectures"
    )]
    let timeout = TimeVal::new(
        (micros / 1_000_000).try_into().map_err(|_| Errno::EINVAL)?,
        (micros % 1_000_000).try_into().map_err(|_| Errno::EINVAL)?,
    );
    setsockopt(&fd, sockopt::SendTimeout, &timeout)?;
    let address = UnixAddr::new(path)?;
    loop {
        match connect(std::os::fd::AsRawFd::as_raw_fd(&fd), &address) {
            Ok(()) => return Ok(fd.into()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn transfer(
    stream: &UnixStream,
    until: Instant,
    request: &[u8],
    limit: usize,
) -> Result<Response, HttpError> {
    let mut timed = Timed { stream, until };
    match timed.write_all(request) {
        Ok(()) => {}
        // A server may answer and close before it has read everything: its answer counts.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => return Err(error.into()),
    }
    http::read_response(timed, limit)
}

/// Time left, or none.
fn remaining(until: Instant) -> Option<Duration> {
    until
        .checked_duration_since(Instant::now())
        .filter(|left| left.as_micros() > 0)
}

/// A stream on which no single call outlasts the deadline of all.
struct Timed<'a> {
    stream: &'a UnixStream,
    until: Instant,
}

impl Timed<'_> {
    fn left(&self) -> io::Result<Option<Duration>> {
        remaining(self.until)
            .map(Some)
            .ok_or_else(|| io::ErrorKind::TimedOut.into())
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buffer)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
