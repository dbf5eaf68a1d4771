use super::*;

/// RFC 1071 over bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u64 = bytes
        .chunks(2)
        .map(|pair| u64::from(u16::from_ne_bytes([pair[0], pair[1]])))
        .sum();
    !fold(sum)
}

#[test]
fn a_replaced_word_gives_the_checksum_of_the_changed_bytes() {
    let mut bytes: Vec<u8> = (0..40u8).map(|i| i.wrapping_mul(37)).collect();
    for new in [0u32, 1, 0xffff_ffff, 0xffff, 0xdead_beef] {
        let before = checksum(&bytes);
        let old = u32::from_ne_bytes(bytes[8..12].try_into().unwrap());
        bytes[8..12].copy_from_slice(&new.to_ne_bytes());
        assert_eq!(replace32(before, old, new), checksum(&bytes));

        let before = checksum(&bytes);
        let old = u16::from_ne_bytes(bytes[20..22].try_into().unwrap());
        bytes[20..22].copy_from_slice(&(new as u16).to_ne_bytes());
        assert_eq!(replace16(before, old, new as u16), checksum(&bytes));
    }
}

#[test]
fn a_sum_of_all_ones_folds_without_losing_a_carry() {
    assert_eq!(fold(0), 0);
    assert_eq!(fold(0xffff), 0xffff);
    assert_eq!(fold(0x1_0000), 1);
    assert_eq!(fold(u64::from(u32::MAX)), 0xffff);
    assert_eq!(fold(0x12_ffff_ffff), 0x12);
}

/// CRC32c, bit by bit (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[test]
fn the_reference_crc_is_crc32c() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}

#[test]
fn a_changed_word_changes_the_crc_by_what_its_distance_says() {
    for len in [4usize, 5, 12, 100, 1480, 9000, 65_515] {
        let mut bytes: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
        for at in [0, (len - 4) / 2, len - 4] {
            let before = crc32c(&bytes);
            let old = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            let new = old ^ 0x8051_7f02;
            bytes[at..at + 4].copy_from_slice(&new.to_le_bytes());
            let change = crc32c_change(old ^ new, (len - at - 4) as u32);
            assert_eq!(
                before ^ change,
                crc32c(&bytes),
                "word at {at} of {len} bytes"
            );
        }
    }
}
