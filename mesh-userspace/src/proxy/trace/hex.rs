//! Ids as text: hexadecimal digits in lower case, as many as the id has room for.

/// The number that these digits are, 16 at most; `None`: they are none, or upper case.
pub(super) fn read(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number: u64, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(value))
    })
}

/// As [`read`], of 32 digits at most.
pub(super) fn read_long(digits: &[u8]) -> Option<u128> {
    let (high, low) = digits.split_at(digits.len().saturating_sub(16));
    Some(u128::from(read(high)?) << 64 | u128::from(read(low)?))
}

/// Writes the lowest digits of a number, as many as there is room for.
pub(super) fn write(number: u128, into: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let bytes = number.to_be_bytes();
    let skipped = bytes.len() - into.len() / 2;
    for (pair, byte) in into.chunks_exact_mut(2).zip(&bytes[skipped..]) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

/// An id in so many digits.
pub(in crate::proxy) fn digits<const DIGITS: usize>(id: u128) -> [u8; DIGITS] {
    let mut digits = [0; DIGITS];
    write(id, &mut digits);
    digits
}
