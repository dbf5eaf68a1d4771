//! Names for content: the first 128 bits of a BLAKE3 hash.

use weir_abi::policy::{IdKey, IdKind};

/// Content, named by its hash.
pub type Key = [u8; 16];

/// Hashes a sequence of fields, each with its length before it, so that no two sequences of
/// fields read alike.
pub(crate) struct ContentHasher(blake3::Hasher);

impl ContentHasher {
    /// `domain` says what kind of content follows.
    pub fn new(domain: &str) -> Self {
        let mut hasher = Self(blake3::Hasher::new());
        hasher.field(domain.as_bytes());
        hasher
    }

    pub fn field(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    pub fn text(&mut self, text: &str) -> &mut Self {
        self.field(text.as_bytes())
    }

    pub fn number(&mut self, number: u64) -> &mut Self {
        self.field(&number.to_le_bytes())
    }

    pub fn finish(&self) -> Key {
        let mut key = [0; 16];
        key.copy_from_slice(&self.0.finalize().as_bytes()[..16]);
        key
    }
}

/// The key in `IDS` of some content.
pub(crate) fn id_key(kind: IdKind, hash: Key) -> IdKey {
    IdKey {
        kind: kind as u32,
        hash,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_run_into_each_other() {
        let of = |fields: &[&str]| {
            let mut hasher = ContentHasher::new("test");
            for field in fields {
                hasher.text(field);
            }
            hasher.finish()
        };
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_ne!(of(&["ab"]), of(&["ab", ""]));
        assert_eq!(of(&["ab", "c"]), of(&["ab", "c"]));
        assert_ne!(
            ContentHasher::new("a").finish(),
            ContentHasher::new("b").finish()
        );
    }
}
