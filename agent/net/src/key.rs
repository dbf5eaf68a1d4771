//! WireGuard's keys (Curve25519, 32 bytes), as `wg` writes them: 44 characters of Base64.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// What others know a device by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// From its bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for PublicKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        decode(text).map(Self)
    }
}

/// A device's own key. It is never shown: only [`PrivateKey::secret_text`] writes it out.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey([u8; 32]);

impl PrivateKey {
    /// From 32 random bytes, or a key's: the bits that every key has alike are set (RFC 7748 §5),
    /// as the kernel does by itself.
    pub const fn from_bytes(mut bytes: [u8; 32]) -> Self {
        bytes[0] &= 248;
        bytes[31] = (bytes[31] & 127) | 64;
        Self(bytes)
    }

    /// Its bytes.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Its text, for a file that only root reads.
    pub fn secret_text(&self) -> String {
        STANDARD.encode(self.0)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

impl FromStr for PrivateKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        decode(text).map(Self::from_bytes)
    }
}

/// The error does not repeat the text: it may be a secret.
fn decode(text: &str) -> Result<[u8; 32], String> {
    let bytes = STANDARD.decode(text.trim()).ok();
    let key = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    key.ok_or_else(|| "no WireGuard key: expected 44 characters of Base64".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_key_is_clamped_and_never_shown() {
        let key = PrivateKey::from_bytes([255; 32]);
        assert_eq!((key.bytes()[0], key.bytes()[31]), (248, 127));
        let text = key.secret_text();
        assert!(!format!("{key:?}").contains(&text));
        assert_eq!(text.parse(), Ok(key));
        let error = "c2VjcmV0".parse::<PrivateKey>().unwrap_err();
        assert!(!error.contains("c2VjcmV0"), "{error}");
    }

    #[test]
    fn a_public_key_is_the_same_after_its_text_and_others_are_refused() {
        let key = PublicKey::from_bytes([7; 32]);
        assert_eq!(key.to_string().len(), 44);
        assert_eq!(format!("{key}\n").parse(), Ok(key));
        for bad in ["", "x", "AAAA", &"A".repeat(44), &"A".repeat(43)] {
            assert!(bad.parse::<PublicKey>().is_err(), "{bad}");
        }
    }
}
