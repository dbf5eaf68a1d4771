//! What a set or a backend is, in 128 bits.

use weir_abi::policy::{IdKey, IdKind};

/// First 128 bits of the BLAKE3 hash of a set's or a backend's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 16]);

impl Hash {
    /// The hash of a list of fields. Each is preceded by its length, so that no two lists of fields
    /// have the same bytes.
    pub(super) fn of(fields: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for field in fields {
            hasher.update(&(field.len() as u64).to_le_bytes());
            hasher.update(field);
        }
        let mut hash = [0; 16];
        hash.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(hash)
    }

    /// Its key in `IDS`.
    pub(super) fn key(self, kind: IdKind) -> IdKey {
        IdKey {
            kind: kind as u32,
            hash: self.0,
        }
    }

    /// Its first 32 bits.
    pub(super) fn word(self) -> u32 {
        let [a, b, c, d, ..] = self.0;
        u32::from_le_bytes([a, b, c, d])
    }
}
