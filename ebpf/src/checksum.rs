//! Checksum arithmetic. Pure.

/// Folds a sum of 16-bit words to 16 bits (RFC 1071).
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The checksum after one 16-bit word under it has changed (RFC 1624, equation 3). All words as
/// they stand in memory; the sum does not depend on byte order.
#[inline(always)]
pub const fn replace16(check: u16, old: u16, new: u16) -> u16 {
    !fold((!check) as u64 + (!old) as u64 + new as u64)
}

/// The same for a 32-bit word.
#[inline(always)]
pub const fn replace32(check: u16, old: u32, new: u32) -> u16 {
    !fold((!check) as u64 + (!old) as u64 + new as u64)
}

/// x^0 in the reflected notation of CRC32c.
const ONE: u32 = 1 << 31;
/// The polynomial of CRC32c, reflected (RFC 9260, appendix A).
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// The product of two polynomials over GF(2), modulo CRC32c's.
const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 0;
    while bit < 32 {
        // Without branches: the verifier would walk both ways of each.
        product ^= b & ((a >> (31 - bit)) & 1).wrapping_neg();
        b = (b >> 1) ^ (POLYNOMIAL & (b & 1).wrapping_neg());
        bit += 1;
    }
    product
}

/// x^(8 * 2^k): what 2^k bytes of zeros multiply by.
const ZEROS: [u32; 16] = {
    let mut table = [0; 16];
    // x^8
    table[0] = ONE >> 8;
    let mut k = 1;
    while k < 16 {
        table[k] = multiply(table[k - 1], table[k - 1]);
        k += 1;
    }
    table
};

/// The change of a CRC32c when four bytes of the message are changed: CRC is linear, so it is the
/// CRC (without its inversions) of the difference, moved on over the bytes behind it.
///
/// `difference` is old XOR new of the four bytes as a little-endian word, `behind` the number of
/// bytes after them (at most 65,535). XOR the result into the CRC, read little-endian.
#[inline(always)]
pub fn crc32c_change(difference: u32, behind: u32) -> u32 {
    // Four bytes enter the register at once: x^32, i.e. 4 bytes of zeros behind the difference.
    let mut crc = difference;
    let distance = behind + 4;
    for (k, zeros) in ZEROS.iter().enumerate() {
        // Multiplies by one instead of branching, for the verifier's sake as above.
        let take = ((distance >> k) & 1).wrapping_neg();
        crc = multiply(crc, (zeros & take) | (ONE & !take));
    }
    crc
}

#[cfg(test)]
mod tests;
