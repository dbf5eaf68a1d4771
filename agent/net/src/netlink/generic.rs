//! Generic netlink: one family of the kernel's, whose number is asked for by its name.

use std::{
    fmt::Debug,
    sync::{Mutex, PoisonError},
};

use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    ParseableParametrized,
};
use netlink_packet_generic::{
    GenlFamily, GenlHeader, GenlMessage,
    ctrl::{GenlCtrl, GenlCtrlCmd, nlas::GenlCtrlAttrs},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};

use super::BUFFER_LEN;
use crate::error::{Error, Result};

/// Number of the family that knows the others (`GENL_ID_CTRL`).
const CONTROL: u16 = 0x10;

/// A connection to one family.
#[derive(Debug)]
pub(super) struct Generic {
    inner: Mutex<Inner>,
    family: u16,
}

#[derive(Debug)]
struct Inner {
    socket: Socket,
    sequence: u32,
}

/// What this module needs of a family's messages.
pub(super) trait Message:
    GenlFamily + Emitable + ParseableParametrized<[u8], GenlHeader> + Debug
{
}

impl<T: GenlFamily + Emitable + ParseableParametrized<[u8], GenlHeader> + Debug> Message for T {}

impl Generic {
    /// Opens a connection to the calling thread's namespace, for the messages of a family.
    pub(super) fn open<T: Message>() -> Result<Self> {
        let fail = |call, e| Error::call(call, "a generic netlink socket", e);
        let mut socket = Socket::new(NETLINK_GENERIC).map_err(|e| fail("socket", e))?;
        socket.bind_auto().map_err(|e| fail("bind", e))?;
        socket
            .connect(&SocketAddr::new(0, 0))
            .map_err(|e| fail("connect", e))?;
        let mut generic = Self {
            inner: Mutex::new(Inner {
                socket,
                sequence: 0,
            }),
            family: CONTROL,
        };
        let name = T::family_name();
        let object = format!("netlink family {name}");
        let request = GenlCtrl {
            cmd: GenlCtrlCmd::GetFamily,
            nlas: vec![GenlCtrlAttrs::FamilyName(name.to_owned())],
        };
        let flags = NLM_F_REQUEST | NLM_F_ACK;
        let answers = generic.ask("CTRL_CMD_GETFAMILY", &object, request, flags)?;
        let mut attributes = answers.iter().flat_map(|answer| &answer.nlas);
        let number = attributes.find_map(|attribute| match attribute {
            GenlCtrlAttrs::FamilyId(number) => Some(*number),
            _ => None,
        });
        generic.family = number.ok_or(Error::Missing { object })?;
        Ok(generic)
    }

    /// Sends a request and reads what is answered, to its end.
    pub(super) fn ask<T: Message>(
        &self,
        call: &'static str,
        object: &str,
        request: T,
        flags: u16,
    ) -> Result<Vec<T>> {
        // What the lock protects is consistent between calls, also after a panic in one: answers
        // to an older sequence number are passed over.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.sequence = inner.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = inner.sequence;
        let mut request = GenlMessage::from_payload(request);
        request.set_resolved_family_id(self.family);
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut buffer = vec![0; message.buffer_len()];
        message.serialize(&mut buffer);
        let sent = inner.socket.send(&buffer, 0);
        sent.map_err(|e| Error::call(call, object, e))?;
        let mut answers = Vec::new();
        let mut buffer = Vec::with_capacity(BUFFER_LEN);
        loop {
            buffer.clear();
            match inner.socket.recv(&mut buffer, 0) {
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Error::call(call, object, e)),
            }
            if read(call, object, inner.sequence, &buffer, &mut answers)? {
                return Ok(answers);
            }
        }
    }
}

/// Reads one datagram's messages into `answers`; true once the answer is complete.
fn read<T: Message>(
    call: &'static str,
    object: &str,
    sequence: u32,
    mut rest: &[u8],
    answers: &mut Vec<T>,
) -> Result<bool> {
    let broken = |reason: String| Error::Answer {
        call,
        object: object.to_owned(),
        reason,
    };
    while !rest.is_empty() {
        let message = NetlinkMessage::<GenlMessage<T>>::deserialize(rest)
            .map_err(|e| broken(e.to_string()))?;
        // Messages are padded to 4 bytes; a length of 0 would never end.
        let len = (message.header.length as usize).next_multiple_of(4).max(16);
        rest = rest.get(len..).unwrap_or_default();
        if message.header.sequence_number != sequence {
            continue;
        }
        match message.payload {
            NetlinkPayload::Done(done) if done.code == 0 => return Ok(true),
            NetlinkPayload::Done(done) => {
                let source = std::io::Error::from_raw_os_error(done.code.saturating_abs());
                return Err(Error::call(call, object, source));
            }
            NetlinkPayload::Error(error) if error.code.is_none() => return Ok(true),
            NetlinkPayload::Error(error) => {
                return Err(Error::call(call, object, error.to_io()));
            }
            NetlinkPayload::InnerMessage(message) => answers.push(message.payload),
            NetlinkPayload::Overrun(_) => return Err(broken("overrun".into())),
            _ => {}
        }
    }
    Ok(false)
}
