//! Compressed files that stock tools open.

mod codec;

pub use codec::Codec;
