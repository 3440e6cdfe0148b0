//! A connection on which a bit is flipped, once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::failure::Result;
use crate::proxy;

/// The byte that is spoilt in the text that is looked for; its neighbours stay as they are.
const SPOILT: usize = 3;

/// Flips a bit in the first of these texts in `bytes`; whether there was one.
pub fn spoil(bytes: &mut [u8], text: &[u8]) -> bool {
    let found = bytes.windows(text.len()).position(|window| window == text);
    match found.and_then(|at| bytes.get_mut(at + SPOILT)) {
        Some(byte) => {
            *byte ^= 1;
            true
        }
        None => false,
    }
}

/// Passes on what is said between clients and the server behind a port, for as long as the process
/// lives. In what the server says, the first time that it says `text`, a bit is flipped.
#[derive(Debug)]
pub struct SpoilingProxy {
    port: u16,
    done: Arc<AtomicBool>,
}

impl SpoilingProxy {
    /// A proxy of the server behind `server`.
    pub fn start(server: u16, text: &'static [u8]) -> Result<Self> {
        let done = Arc::new(AtomicBool::new(false));
        let spoilt = Arc::clone(&done);
        let port = proxy::listen(server, move |said| {
            if !spoilt.load(Ordering::SeqCst) && spoil(said, text) {
                spoilt.store(true, Ordering::SeqCst);
            }
            said.len()
        })?;
        Ok(Self { port, done })
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether it has flipped its bit.
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_is_flipped_where_the_text_is() {
        let mut bytes = *b"..MARK..MARK";
        assert!(spoil(&mut bytes, b"MARK"));
        assert_eq!(&bytes, b"..MARJ..MARK");
        assert!(!spoil(&mut bytes, b"NONE"));
    }
}
