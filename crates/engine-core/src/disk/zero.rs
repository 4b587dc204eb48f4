//! Whether bytes are all zero.

static ZEROES: [u8; 4096] = [0; 4096];

/// True for nothing but zeroes. What is not is seldom looked at for long.
pub fn is_zero(bytes: &[u8]) -> bool {
    // Comparing slices is the C library's memcmp, which takes as much at a time as there is.
    bytes.chunks(ZEROES.len()).all(|part| ZEROES.get(..part.len()) == Some(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_anywhere_is_seen() {
        for length in [0, 1, 7, 4095, 4096, 4097, 20_000] {
            let mut bytes = vec![0; length];
            assert!(is_zero(&bytes));
            for at in [0, length / 2, length.saturating_sub(1)] {
                if at < length {
                    bytes[at] = 1;
                    assert!(!is_zero(&bytes), "{at} of {length}");
                    bytes[at] = 0;
                }
            }
        }
    }
}
