//! What the socket hooks remember of connected sockets, and the backends beside it: read only.

use std::collections::HashMap;

use weir_abi::{
    map,
    service::{Backend, BackendId},
    sock::SockConn,
};

use super::{
    Error,
    pins::Pins,
    service_arrays::BackendArray,
    table::{Table, Writes},
};

/// `SOCK_CONNS`, open for reading, and where `BACKENDS` is.
pub struct SockConns {
    conns: Table<u64, SockConn>,
    pins: Pins,
}

impl SockConns {
    /// Opens the pinned map.
    ///
    /// # Errors
    /// It is not pinned, or not of its shape.
    pub fn open(pins: &Pins) -> Result<Self, Error> {
        Ok(Self {
            conns: Table::open(pins, map::SOCK_CONNS, &Writes::default())?,
            pins: pins.clone(),
        })
    }

    /// Every entry, by the socket's cookie.
    ///
    /// # Errors
    /// The kernel's.
    pub fn entries(&self) -> Result<HashMap<u64, SockConn>, Error> {
        self.conns.entries()
    }

    /// Every backend of now. The map is opened for each call, as a larger one may have taken its
    /// place. What entries that were read before refer to is in it, unless it is gone.
    ///
    /// # Errors
    /// As [`BackendArray::open`].
    pub fn backends(&self) -> Result<HashMap<BackendId, Backend>, Error> {
        let backends = BackendArray::open(&self.pins, &Writes::default())?;
        Ok(backends.entries().into_iter().collect())
    }
}
