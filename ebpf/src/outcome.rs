//! What becomes of a packet. Pure.

use weir_abi::counter::Counter;

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Left to the kernel's stack and to the programs after ours.
    Stack,
    /// Redirected; which counter to raise.
    Redirected(u32),
    /// Dropped; which counter to raise.
    Drop(u32),
}

impl Outcome {
    /// Redirected, and counted so.
    #[inline(always)]
    pub const fn redirected(what: Counter) -> Self {
        Self::Redirected(what as u32)
    }

    /// Dropped, and why.
    #[inline(always)]
    pub const fn drop(why: Counter) -> Self {
        Self::Drop(why as u32)
    }

    /// As one word, for functions of their own in the kernel can answer with no more.
    #[inline(always)]
    pub const fn code(self) -> u32 {
        match self {
            Self::Stack => 0,
            Self::Redirected(counter) => REDIRECTED | counter,
            Self::Drop(counter) => DROPPED | counter,
        }
    }

    /// From [`Outcome::code`].
    #[inline(always)]
    pub const fn from_code(code: u32) -> Self {
        let counter = code & 0xff;
        if code & DROPPED != 0 {
            Self::Drop(counter)
        } else if code & REDIRECTED != 0 {
            Self::Redirected(counter)
        } else {
            Self::Stack
        }
    }
}

const REDIRECTED: u32 = 0x100;
const DROPPED: u32 = 0x200;
