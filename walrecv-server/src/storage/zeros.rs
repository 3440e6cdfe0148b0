//! Zeros, by which servers fill up what is left of a segment of WAL.

/// Whether there is nothing but zeros.
pub fn is_zero(bytes: &[u8]) -> bool {
    // By as many at a time as the processor compares at once.
    let (chunks, rest) = bytes.as_chunks::<64>();
    chunks.iter().all(|chunk| *chunk == [0; 64]) && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_anywhere_is_not_zero() {
        assert!(is_zero(&[]));
        for length in [1, 63, 64, 65, 200] {
            assert!(is_zero(&vec![0; length]));
            for at in 0..length {
                let mut bytes = vec![0; length];
                bytes[at] = 1;
                assert!(!is_zero(&bytes), "{at} of {length}");
            }
        }
    }
}
