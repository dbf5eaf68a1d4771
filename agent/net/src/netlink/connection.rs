//! A socket that stays in its namespace, one request after the other, answered before the next.

use std::{
    fmt::Debug,
    sync::{Mutex, MutexGuard, PoisonError},
};

use netlink_packet_core::{
    NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};

use crate::error::{Error, Result};

/// `NLM_F_DUMP_INTR` (linux/netlink.h): the dump is not one state of the table.
const NLM_F_DUMP_INTR: u16 = 0x10;
/// `NLM_F_ACK_TLVS`: attributes follow in an acknowledgement.
const NLM_F_ACK_TLVS: u16 = 0x200;
/// `NLMSGERR_ATTR_MSG`: the kernel's explanation.
const NLMSGERR_ATTR_MSG: u16 = 1;
/// The kernel fills at most this much in one answer to a dump; larger answers are cut.
pub(super) const BUFFER_LEN: usize = 64 << 10;

/// Messages of one kind.
pub(super) trait Message: NetlinkSerializable + NetlinkDeserializable + Debug {}

impl<T: NetlinkSerializable + NetlinkDeserializable + Debug> Message for T {}

/// A connection that threads share.
#[derive(Debug)]
pub(super) struct Connection {
    inner: Mutex<Inner>,
}

/// It, while one thread has it.
#[derive(Debug)]
pub(super) struct Inner {
    socket: Socket,
    sequence: u32,
}

impl Connection {
    /// Opens one to the calling thread's namespace; `protocol` is one of `netlink_sys::protocols`.
    pub(super) fn open(protocol: isize) -> Result<Self> {
        let fail = |call, e| Error::call(call, "a netlink socket", e);
        let mut socket = Socket::new(protocol).map_err(|e| fail("socket", e))?;
        socket.bind_auto().map_err(|e| fail("bind", e))?;
        socket
            .connect(&SocketAddr::new(0, 0))
            .map_err(|e| fail("connect", e))?;
        // Errors shorter and clearer: no echo of the request, but the kernel's reason.
        socket
            .set_cap_ack(true)
            .map_err(|e| fail("setsockopt(NETLINK_CAP_ACK)", e))?;
        socket
            .set_ext_ack(true)
            .map_err(|e| fail("setsockopt(NETLINK_EXT_ACK)", e))?;
        Ok(Self {
            inner: Mutex::new(Inner {
                socket,
                sequence: 0,
            }),
        })
    }

    /// Waits for it.
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        // What the lock protects is consistent between calls, also after a panic in one: answers
        // to an older sequence number are passed over.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the kernel answered to one request.
pub(super) struct Answer<T> {
    pub(super) messages: Vec<T>,
    /// It is not one state of what was listed.
    pub(super) interrupted: bool,
}

impl Inner {
    /// Sends a request.
    pub(super) fn send<T: Message>(
        &mut self,
        call: &'static str,
        object: &str,
        message: T,
        flags: u16,
    ) -> Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut buffer = vec![0; message.buffer_len()];
        message.serialize(&mut buffer);
        self.socket
            .send(&buffer, 0)
            .map_err(|e| Error::call(call, object, e))?;
        Ok(())
    }

    /// Reads what is answered, to its end.
    pub(super) fn receive<T: Message>(
        &self,
        call: &'static str,
        object: &str,
    ) -> Result<Answer<T>> {
        let mut answer = Answer {
            messages: Vec::new(),
            interrupted: false,
        };
        let mut buffer = Vec::with_capacity(BUFFER_LEN);
        loop {
            buffer.clear();
            match self.socket.recv(&mut buffer, 0) {
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Error::call(call, object, e)),
            }
            if self.read_datagram(call, object, &buffer, &mut answer)? {
                return Ok(answer);
            }
        }
    }

    /// Reads one datagram's messages into `answer`; true once the answer is complete.
    fn read_datagram<T: Message>(
        &self,
        call: &'static str,
        object: &str,
        mut rest: &[u8],
        answer: &mut Answer<T>,
    ) -> Result<bool> {
        let broken = |reason: String| Error::Answer {
            call,
            object: object.to_owned(),
            reason,
        };
        while !rest.is_empty() {
            let message =
                NetlinkMessage::<T>::deserialize(rest).map_err(|e| broken(e.to_string()))?;
            // Messages are padded to 4 bytes; a length of 0 would never end.
            let len = (message.header.length as usize).next_multiple_of(4).max(16);
            rest = rest.get(len..).unwrap_or_default();
            if message.header.sequence_number != self.sequence {
                continue;
            }
            answer.interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
            match message.payload {
                NetlinkPayload::Done(done) if done.code == 0 => return Ok(true),
                NetlinkPayload::Done(done) => {
                    let source = std::io::Error::from_raw_os_error(done.code.saturating_abs());
                    return Err(Error::call(call, object, source));
                }
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok(true),
                NetlinkPayload::Error(error) => {
                    let detail = (message.header.flags & NLM_F_ACK_TLVS != 0)
                        .then(|| explanation(&error.header))
                        .flatten();
                    return Err(Error::Call {
                        call,
                        object: object.to_owned(),
                        source: error.to_io(),
                        detail,
                    });
                }
                NetlinkPayload::InnerMessage(message) => answer.messages.push(message),
                NetlinkPayload::Overrun(_) => return Err(broken("overrun".into())),
                _ => {}
            }
        }
        Ok(false)
    }
}

/// The kernel's text in an error message: what follows the code is the request's header (16 bytes)
/// and then attributes.
fn explanation(payload: &[u8]) -> Option<String> {
    let mut rest = payload.get(16..)?;
    while let [l0, l1, k0, k1, ..] = *rest {
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = rest.get(4..len)?;
        if u16::from_ne_bytes([k0, k1]) == NLMSGERR_ATTR_MSG {
            let text = value.split(|&b| b == 0).next()?;
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        rest = rest.get(len.next_multiple_of(4)..)?;
    }
    None
}
