//! Zstandard frames.

use std::io;

use super::frames::FrameCodec;

/// Compresses frames that say their size.
pub(super) struct ZstdFrames {
    compressor: zstd::bulk::Compressor<'static>,
}

impl ZstdFrames {
    pub(super) fn new(level: i32, checksums: bool) -> io::Result<Self> {
        let mut compressor = zstd::bulk::Compressor::new(level)?;
        compressor.set_parameter(zstd::zstd_safe::CParameter::ChecksumFlag(checksums))?;
        compressor.set_parameter(zstd::zstd_safe::CParameter::ContentSizeFlag(true))?;
        Ok(Self { compressor })
    }
}

impl FrameCodec for ZstdFrames {
    fn compress(&mut self, plain: &[u8], frame: &mut Vec<u8>) -> io::Result<()> {
        frame.clear();
        frame.reserve(zstd::zstd_safe::compress_bound(plain.len()));
        self.compressor.compress_to_buffer(plain, frame).map(drop)
    }
}
