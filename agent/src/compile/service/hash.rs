//! What a set or a backend is: its content, by which a restarted agent finds it again.

use weir_abi::service::{Backend, BackendState, RangeKey};
use weir_abi::{Addr, PortBe, Proto};

/// What a backend is, all that its element in `BACKENDS` tells of it but its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Content {
    /// See [`Backend`].
    pub addr: Addr,
    /// See [`Backend`].
    pub port: PortBe,
    /// See [`Backend`].
    pub proto: Proto,
    /// First word of the hash of what the backend serves, where, and which pod it is.
    pub incarnation: u32,
    /// Second word of that hash.
    pub check: u32,
}

impl Content {
    /// The backend at an address and port (host order) that `fields` tell from all others there.
    pub(super) fn new(addr: Addr, port: u16, proto: Proto, fields: &[&[u8]]) -> Self {
        let mut all = vec![];
        all.extend_from_slice(fields);
        let octets = addr.octets();
        let number = port.to_be_bytes();
        all.extend([octets.as_slice(), &number, std::slice::from_ref(&proto.0)]);
        let [a, b, c, d, e, f, g, h, ..] = hash(&all);
        Self {
            addr,
            port: PortBe::new(port),
            proto,
            // 0 with the state Removed is no backend.
            incarnation: u32::from_le_bytes([a, b, c, d]).max(1),
            check: u32::from_le_bytes([e, f, g, h]),
        }
    }

    /// What an element of `BACKENDS` is.
    pub fn of(backend: &Backend) -> Self {
        Self {
            addr: backend.addr,
            port: backend.port,
            proto: backend.proto,
            incarnation: backend.incarnation,
            check: backend.check,
        }
    }

    /// The element of `BACKENDS`.
    pub fn in_state(self, state: BackendState) -> Backend {
        Backend {
            addr: self.addr,
            port: self.port,
            proto: self.proto,
            zero: 0,
            check: self.check,
            incarnation: self.incarnation,
            state: state as u32,
        }
    }
}

/// What a set is: 128 bits of the BLAKE3 hash of its members in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetHash([u8; 16]);

impl SetHash {
    /// The hash of a set.
    pub fn of(members: impl IntoIterator<Item = Content>) -> Self {
        let mut all = Vec::new();
        for member in members {
            let mut bytes = [0; 28];
            bytes[..16].copy_from_slice(&member.addr.octets());
            bytes[16..18].copy_from_slice(&member.port.0.to_ne_bytes());
            bytes[18] = member.proto.0;
            bytes[20..24].copy_from_slice(&member.incarnation.to_le_bytes());
            bytes[24..].copy_from_slice(&member.check.to_le_bytes());
            all.extend(bytes);
        }
        Self(first_half(&all))
    }
}

/// What a list of source ranges is: 128 bits of the BLAKE3 hash of its prefixes, which are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RangesHash([u8; 16]);

impl RangesHash {
    /// The hash of a list, whatever its number.
    pub fn of<'a>(prefixes: impl IntoIterator<Item = &'a RangeKey>) -> Self {
        let mut all = Vec::new();
        for prefix in prefixes {
            all.extend(prefix.prefix_len.to_le_bytes());
            all.extend(prefix.family.to_le_bytes());
            all.extend(prefix.addr.iter().flat_map(|word| word.to_ne_bytes()));
        }
        Self(first_half(&all))
    }
}

/// The hash of a list of fields. Each is preceded by its length, so that no two lists of fields
/// have the same bytes.
pub(super) fn hash(fields: &[&[u8]]) -> [u8; 16] {
    let mut all = Vec::with_capacity(fields.iter().map(|field| 8 + field.len()).sum());
    for field in fields {
        all.extend((field.len() as u64).to_le_bytes());
        all.extend(*field);
    }
    first_half(&all)
}

/// In one go: a hasher that takes parts is made ready for any length of them, which costs more than
/// most of these hashes.
fn first_half(bytes: &[u8]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
    half
}
