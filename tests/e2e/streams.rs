//! One-way streams between pods. Both ends are sockets of this process, opened in the pods'
//! namespaces, so that every byte and every datagram is accounted for.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use weir_lab::spawn::run_in;
use weir_lab::{Pod, Proto};

/// How often each stream sends one message: its pace, by which all else is measured.
const TICK: Duration = Duration::from_millis(5);
/// Bytes of one message.
const MESSAGE: usize = 64;
/// How many ticks without a message make a stream a cut one: longer than three retransmissions.
const QUIET: u64 = 160;
/// How long anything that is waited for may take.
const LIMIT: Duration = Duration::from_secs(15);

/// Who sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Whoever opened the flow.
    Up,
    /// The other end, by replies only.
    Down,
}

/// A stream to open.
pub struct Spec<'a> {
    /// Opens the flow.
    pub client: &'a Pod,
    /// Answers it.
    pub server: &'a Pod,
    pub is_v4: bool,
    pub proto: Proto,
    pub way: Way,
    /// Whether the test will forbid it.
    pub victim: bool,
}

/// What has become of a stream so far.
#[derive(Clone, Debug)]
pub struct State {
    pub name: String,
    pub victim: bool,
    /// Messages that were given to the kernel.
    pub sent: u64,
    /// Messages that arrived, unchanged.
    pub received: u64,
    /// How often messages were missing between two that arrived.
    pub gaps: u64,
    /// The tick of the last arrival.
    pub last: u64,
    /// What is wrong with it.
    pub error: Option<String>,
}

enum Carrier {
    /// The stream's bytes so far: sent, received.
    Tcp {
        from: TcpStream,
        to: TcpStream,
        sent: u64,
        received: u64,
    },
    /// The number of the next datagram that is to arrive.
    Udp {
        from: UdpSocket,
        to: UdpSocket,
        next: u64,
    },
}

struct Line {
    carrier: Carrier,
    state: State,
}

/// Byte `i` of a TCP stream.
fn pattern(i: u64) -> u8 {
    (i % 251) as u8
}

fn would_block<T>(result: std::io::Result<T>) -> std::io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

impl Line {
    fn send(&mut self) -> std::io::Result<()> {
        match &mut self.carrier {
            Carrier::Tcp { from, sent, .. } => {
                let bytes: Vec<u8> = (*sent..).take(MESSAGE).map(pattern).collect();
                *sent += would_block(from.write(&bytes))?.unwrap_or(0) as u64;
                self.state.sent = *sent / MESSAGE as u64;
            }
            Carrier::Udp { from, .. } => {
                let mut message = [0; MESSAGE];
                message[..8].copy_from_slice(&self.state.sent.to_be_bytes());
                if would_block(from.send(&message))?.is_some() {
                    self.state.sent += 1;
                }
            }
        }
        Ok(())
    }

    fn receive(&mut self, tick: u64) -> std::io::Result<()> {
        let mut buffer = [0; 64 * 1024];
        let before = self.state.received;
        match &mut self.carrier {
            Carrier::Tcp { to, received, .. } => {
                while let Some(length) = would_block(to.read(&mut buffer))? {
                    if length == 0 {
                        return Err(std::io::Error::other("the stream has ended"));
                    }
                    for byte in &buffer[..length] {
                        if *byte != pattern(*received) {
                            return Err(std::io::Error::other("other bytes arrived"));
                        }
                        *received += 1;
                    }
                }
                self.state.received = *received / MESSAGE as u64;
            }
            Carrier::Udp { to, next, .. } => {
                while let Some(length) = would_block(to.recv(&mut buffer))? {
                    let number = buffer[..8].try_into().map(u64::from_be_bytes);
                    let number = number.unwrap_or_default();
                    if length != MESSAGE || number < *next {
                        return Err(std::io::Error::other("another datagram arrived"));
                    }
                    self.state.gaps += u64::from(number > *next);
                    *next = number + 1;
                    self.state.received += 1;
                }
            }
        }
        if self.state.received > before {
            self.state.last = tick;
        }
        Ok(())
    }

    fn turn(&mut self, tick: u64, sending: bool) {
        if self.state.error.is_some() {
            return;
        }
        let sent = if sending { self.send() } else { Ok(()) };
        if let Err(error) = sent.and_then(|()| self.receive(tick)) {
            self.state.error = Some(error.to_string());
        }
    }
}

#[derive(Default)]
struct Pump {
    lines: Vec<Line>,
    tick: u64,
    sending: bool,
    stopped: bool,
}

#[derive(Default)]
struct Shared {
    pump: Mutex<Pump>,
    ticked: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pump> {
        self.pump.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        loop {
            {
                let mut pump = self.lock();
                if pump.stopped {
                    return;
                }
                pump.tick += 1;
                let (tick, sending) = (pump.tick, pump.sending);
                pump.lines
                    .iter_mut()
                    .for_each(|line| line.turn(tick, sending));
            }
            self.ticked.notify_all();
            std::thread::sleep(TICK);
        }
    }
}

/// Streams that run until they are dropped.
pub struct Streams {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Streams {
    /// Opens all of them, and waits until each runs.
    pub fn start(specs: &[Spec<'_>]) -> Self {
        let shared = Arc::new(Shared::default());
        {
            let mut pump = shared.lock();
            pump.lines = specs.iter().map(open).collect();
            pump.sending = true;
        }
        let own = Arc::clone(&shared);
        let thread = Some(std::thread::spawn(move || own.run()));
        let streams = Self { shared, thread };
        streams.advance("all run", |_| true, 20);
        streams
    }

    fn states(&self) -> Vec<State> {
        let pump = self.shared.lock();
        pump.lines.iter().map(|line| line.state.clone()).collect()
    }

    /// Waits, tick by tick, until something holds for every stream.
    fn await_each(&self, what: &str, holds: impl Fn(usize, &State, u64) -> bool) {
        let deadline = Instant::now() + LIMIT;
        let mut pump = self.shared.lock();
        loop {
            let lines = pump.lines.iter().enumerate();
            let late: Vec<&State> = lines
                .filter(|(i, line)| !holds(*i, &line.state, pump.tick))
                .map(|(_, line)| &line.state)
                .collect();
            if late.is_empty() {
                return;
            }
            let now = pump.tick;
            let broken = late.iter().find(|state| state.error.is_some());
            assert!(broken.is_none(), "{what}: {broken:?}");
            assert!(
                Instant::now() < deadline,
                "{what}: not these, at tick {now}: {late:#?}"
            );
            let waited = self.shared.ticked.wait_timeout(pump, LIMIT);
            pump = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until each of some streams has got `more` messages more.
    fn advance(&self, what: &str, which: impl Fn(&State) -> bool, more: u64) {
        let before = self.states();
        self.await_each(what, |i, state, _| {
            !which(state) || state.received >= before[i].received + more
        });
    }

    /// Waits until the victims are cut, while the others run.
    pub fn await_cut(&self, what: &str) {
        self.await_each(what, |_, state, tick| {
            !state.victim || state.last + QUIET < tick
        });
        self.advance(what, |state| !state.victim, 20);
    }

    /// Waits until all run, for long enough to tell.
    pub fn await_running(&self, what: &str) {
        self.advance(what, |_| true, QUIET);
    }

    /// Asserts that no message has been lost but of victims, and of those in one piece for each of
    /// `cuts`.
    pub fn assert_gaps(&self, what: &str, cuts: u64) {
        for state in self.states() {
            assert_eq!(state.error, None, "{what}: {state:?}");
            let is_udp = state.name.contains("UDP");
            let expected = if state.victim && is_udp { cuts } else { 0 };
            assert_eq!(state.gaps, expected, "{what}: {state:?}");
        }
    }

    /// Ends them: what streams that were never cut have sent has arrived, to the last message.
    pub fn finish(self, what: &str) {
        self.shared.lock().sending = false;
        self.await_each(what, |_, state, _| {
            state.victim || state.received == state.sent
        });
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn open(spec: &Spec<'_>) -> Line {
    let address = |pod: &Pod| if spec.is_v4 { pod.v4() } else { pod.v6() };
    let (client, server) = (address(spec.client), address(spec.server));
    let carrier = match spec.proto {
        Proto::Tcp => open_tcp(spec, server),
        _ => open_udp(spec, client, server),
    };
    let name = format!(
        "{} {client} to {server} {:?} (victim: {})",
        spec.proto.name(),
        spec.way,
        spec.victim
    );
    let state = State {
        name,
        victim: spec.victim,
        sent: 0,
        received: 0,
        gaps: 0,
        last: 0,
        error: None,
    };
    Line { carrier, state }
}

fn within<T: Send>(pod: &Pod, work: impl FnOnce() -> std::io::Result<T> + Send) -> T {
    run_in(&pod.place().unwrap().net_only(), || Ok(work()?)).unwrap()
}

fn open_tcp(spec: &Spec<'_>, server: IpAddr) -> Carrier {
    let listener = within(spec.server, || TcpListener::bind((server, 0)));
    let target = listener.local_addr().unwrap();
    let client = within(spec.client, || TcpStream::connect_timeout(&target, LIMIT));
    let server = listener.accept().unwrap().0;
    for end in [&client, &server] {
        end.set_nonblocking(true).unwrap();
        end.set_nodelay(true).unwrap();
    }
    let (from, to) = match spec.way {
        Way::Up => (client, server),
        Way::Down => (server, client),
    };
    Carrier::Tcp {
        from,
        to,
        sent: 0,
        received: 0,
    }
}

fn open_udp(spec: &Spec<'_>, client: IpAddr, server: IpAddr) -> Carrier {
    let bind = |address: IpAddr| move || UdpSocket::bind(SocketAddr::new(address, 0));
    let at_server = within(spec.server, bind(server));
    let at_client = within(spec.client, bind(client));
    at_client.connect(at_server.local_addr().unwrap()).unwrap();
    at_server.connect(at_client.local_addr().unwrap()).unwrap();
    let (from, to) = match spec.way {
        Way::Up => (at_client, at_server),
        Way::Down => {
            // The one datagram of its client: all others are replies to it.
            at_server.set_read_timeout(Some(LIMIT)).unwrap();
            at_client.send(b"open").unwrap();
            at_server.recv(&mut [0; 4]).unwrap();
            (at_server, at_client)
        }
    };
    for end in [&from, &to] {
        end.set_nonblocking(true).unwrap();
    }
    Carrier::Udp { from, to, next: 0 }
}
