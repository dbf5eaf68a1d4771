//! Generic netlink: one family of the kernel's, whose number is asked for by its name.

use std::fmt::Debug;

use netlink_packet_core::{Emitable, NLM_F_ACK, NLM_F_REQUEST, ParseableParametrized};
use netlink_packet_generic::{
    GenlFamily, GenlHeader, GenlMessage,
    ctrl::{GenlCtrl, GenlCtrlCmd, nlas::GenlCtrlAttrs},
};
use netlink_sys::protocols::NETLINK_GENERIC;

use super::connection::Connection;
use crate::error::{Error, Result};

/// Number of the family that knows the others (`GENL_ID_CTRL`).
const CONTROL: u16 = 0x10;

/// A connection to one family.
#[derive(Debug)]
pub(super) struct Generic {
    connection: Connection,
    family: u16,
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
        let mut generic = Self {
            connection: Connection::open(NETLINK_GENERIC)?,
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
        let mut message = GenlMessage::from_payload(request);
        message.set_resolved_family_id(self.family);
        let mut inner = self.connection.lock();
        inner.send(call, object, message, flags)?;
        let answer = inner.receive::<GenlMessage<T>>(call, object)?;
        Ok(answer.messages.into_iter().map(|m| m.payload).collect())
    }
}
