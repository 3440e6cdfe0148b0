use super::*;
use proptest::prelude::*;

/// Data that compresses, but not to nothing.
fn sample(length: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1Du64;
    (0..length)
        .map(|index| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if index % 64 < 16 { state as u8 } else { (index / 512) as u8 }
        })
        .collect()
}

fn method(codec: Codec, workers: usize) -> Method {
    let level = if codec == Codec::Gzip { 6 } else { 1 };
    Method::new(codec, level).with_workers(NonZeroUsize::new(workers).unwrap())
}

fn compress(plain: &[u8], method: Method, chunk: usize) -> (Vec<u8>, Vec<Frame>) {
    let mut writer = CompressedWriter::new(Vec::new(), method).unwrap();
    let mut frames = Vec::new();
    for piece in plain.chunks(chunk) {
        writer.write_all(piece).unwrap();
        frames.extend(writer.take_frames());
    }
    let (stored, rest) = writer.finish().unwrap();
    frames.extend(rest);
    (stored, frames)
}

fn decompress(stored: &[u8], codec: Codec) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    reader(stored, codec)?.read_to_end(&mut plain)?;
    Ok(plain)
}

#[test]
fn every_codec_gives_back_what_it_took() {
    let data = sample(2 * FRAME_SIZE + 7);
    for length in [0, 1, 100_000, FRAME_SIZE, FRAME_SIZE + 1, data.len()] {
        let plain = &data[..length];
        for codec in Codec::ALL {
            let (stored, frames) = compress(plain, method(codec, 1), 1 << 20);
            assert!(decompress(&stored, codec).unwrap() == plain, "{codec} {length}");
            assert!(codec == Codec::None || length < 1000 || stored.len() < length * 2 / 3);
            assert_eq!(frames.len(), length.div_ceil(FRAME_SIZE), "{codec} {length}");
            let mut end = (0, frames.first().map_or(0, |f| f.stored_offset));
            for frame in &frames {
                assert!(frame.plain_length <= FRAME_SIZE as u64);
                assert_eq!((frame.plain_offset, frame.stored_offset), end, "{codec} {length}");
                end = (end.0 + frame.plain_length, end.1 + frame.stored_length);
            }
            assert_eq!(end.0, length as u64, "{codec} {length}");
            // Behind the last frame there is nothing but gzip's trailer.
            let rest = stored.len() as u64 - end.1;
            assert!(rest == 0 || codec == Codec::Gzip || length == 0, "{codec} {length} {rest}");
            assert!(rest <= 32, "{codec} {length} {rest}");
        }
    }
}

#[test]
fn the_end_stays_the_end() {
    for codec in Codec::ALL {
        let (stored, _) = compress(&sample(300_000), method(codec, 1), 1 << 20);
        let mut reader = reader(&stored[..], codec).unwrap();
        io::copy(&mut reader, &mut io::sink()).unwrap();
        for _ in 0..3 {
            assert_eq!(reader.read(&mut [0; 100]).unwrap(), 0, "{codec}");
        }
    }
}

#[test]
fn a_frame_can_be_read_alone() {
    let plain = sample(2 * FRAME_SIZE + 1000);
    for codec in [Codec::Zstd, Codec::Lz4, Codec::None] {
        let (stored, frames) = compress(&plain, method(codec, 1), 1 << 20);
        for frame in frames {
            let part = |offset: u64, length: u64| offset as usize..(offset + length) as usize;
            let alone = &stored[part(frame.stored_offset, frame.stored_length)];
            let expected = &plain[part(frame.plain_offset, frame.plain_length)];
            assert!(decompress(alone, codec).unwrap() == expected, "{codec}");
        }
    }
    // In gzip it is a piece of a deflate stream that needs nothing from before it.
    let (stored, frames) = compress(&plain, method(Codec::Gzip, 1), 1 << 20);
    let second = frames[1];
    let mut inflate = flate2::read::DeflateDecoder::new(&stored[second.stored_offset as usize..]);
    let mut alone = vec![0; second.plain_length as usize];
    inflate.read_exact(&mut alone).unwrap();
    assert!(alone == plain[FRAME_SIZE..2 * FRAME_SIZE]);
}

#[test]
fn workers_change_nothing_but_the_time() {
    let plain = sample(6 * FRAME_SIZE + 12345);
    for codec in [Codec::Zstd, Codec::Lz4] {
        let alone = compress(&plain, method(codec, 1), 3 << 20);
        let together = compress(&plain, method(codec, 2), 3 << 20);
        assert!(alone == together, "{codec}");
    }
}

#[test]
fn files_that_share_their_threads_are_what_each_would_be_alone() {
    let (one, other) = (sample(5 * FRAME_SIZE + 7), sample(3 * FRAME_SIZE + 12345));
    for codec in [Codec::Zstd, Codec::Lz4] {
        let (method, workers) = (method(codec, 2), Workers::default());
        let begin = || CompressedWriter::with_workers(Vec::new(), method, &workers).unwrap();
        let (mut first, mut second) = (begin(), begin());
        for (ours, theirs) in one.chunks(1 << 20).zip(other.chunks(1 << 19)) {
            first.write_all(ours).unwrap();
            second.write_all(theirs).unwrap();
        }
        second.write_all(&other[other.len().min(one.len().div_ceil(1 << 20) << 19)..]).unwrap();
        // The threads outlive whoever began them.
        assert!(first.finish().unwrap().0 == compress(&one, method, 1 << 20).0, "{codec}");
        assert!(second.finish().unwrap().0 == compress(&other, method, 1 << 20).0, "{codec}");
    }
}

/// As a frame of ours.
fn decompress_lz4_frame(stored: &[u8], length: usize) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    assert!(lz4::decompress_frame(stored, length, &mut plain)?);
    Ok(plain)
}

#[test]
fn lz4_takes_what_does_not_compress_in_blocks_of_every_size() {
    let mut state = 1u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    })
    .take(FRAME_SIZE)
    .collect();
    for length in [1, 64 << 10, (64 << 10) + 1, 256 << 10, (256 << 10) + 1, FRAME_SIZE] {
        // The first blocks of a large one are noise, the others are not.
        let mut plain = noise[..length].to_vec();
        plain[length / 2..].fill(7);
        let method = method(Codec::Lz4, 1).with_frame_size(length);
        for method in [method, method.without_checksums()] {
            let (mut stored, _) = compress(&plain, method, 1 << 20);
            assert!(stored.len() < length / 2 + length / 100 + 64, "{length}: {}", stored.len());
            assert!(decompress(&stored, Codec::Lz4).unwrap() == plain, "{length}");
            assert!(decompress_lz4_frame(&stored, length).unwrap() == plain, "{length}");
            // The last block, in front of what ends it.
            let last = stored.len() - if method.checksums { 9 } else { 5 };
            stored[last] ^= 1;
            let damaged = decompress_lz4_frame(&stored, length);
            assert!(damaged.as_ref().ok() != Some(&plain), "{length}");
            assert!(!method.checksums || damaged.is_err(), "{length}");
            stored[last] ^= 1;
            // Behind the block's length: a byte of noise.
            stored[25.min(18 + length)] ^= 1;
            let damaged = decompress(&stored, Codec::Lz4);
            assert!(damaged.as_ref().ok() != Some(&plain), "{length}");
            assert!(!method.checksums || damaged.is_err(), "{length}");
        }
    }
}

#[test]
fn an_lz4_frame_without_its_end_is_not_whole() {
    let (stored, _) = compress(&sample(1000), method(Codec::Lz4, 1), 1 << 20);
    // Before the end mark and the checksum, all blocks are there; after four bytes, the magic is.
    for length in [stored.len() - 8, 4] {
        let error = decompress(&stored[..length], Codec::Lz4).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
    let twice = [&stored[..], &stored[..4]].concat();
    assert!(decompress(&twice, Codec::Lz4).is_err());
}

#[test]
fn an_error_of_the_sink_is_reported() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for codec in Codec::ALL {
        let mut writer = CompressedWriter::new(Full, method(codec, 2)).unwrap();
        let written = writer.write_all(&sample(100)).and_then(|()| writer.finish().map(drop));
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::StorageFull, "{codec}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_truncated_or_damaged_file_is_never_taken_for_whole(
        length in 1usize..300_000,
        at in any::<prop::sample::Index>(),
        codec in prop::sample::select(vec![Codec::Zstd, Codec::Lz4, Codec::Gzip]),
    ) {
        let plain = sample(length);
        let (stored, _) = compress(&plain, method(codec, 1), 1 << 16);
        let cut = &stored[..at.index(stored.len() - 1) + 1];
        prop_assert!(cut.len() == stored.len() || decompress(cut, codec).is_err());
    }

    #[test]
    fn lz4_frames_are_taken_as_the_library_takes_them(
        length in 1usize..300_000,
        noise in 0usize..300_000,
        frame_size in prop::sample::select(vec![64 << 10, 256 << 10, 1 << 20]),
        checksums: bool,
        damage in prop::option::of((any::<prop::sample::Index>(), 1u8..)),
    ) {
        let mut plain = sample(length);
        let mut state = length as u32;
        for byte in plain.iter_mut().take(noise) {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (state >> 24) as u8;
        }
        plain.truncate(frame_size);
        let whole = method(Codec::Lz4, 1).with_frame_size(frame_size);
        let whole = if checksums { whole } else { whole.without_checksums() };
        let (mut stored, _) = compress(&plain, whole, 1 << 20);
        if let Some((at, flip)) = damage {
            let at = at.index(stored.len());
            stored[at] ^= flip;
        }
        let mut ours = Vec::new();
        let taken = lz4::decompress_frame(&stored, plain.len(), &mut ours);
        let theirs = decompress(&stored, Codec::Lz4);
        match taken {
            Ok(true) => {
                prop_assert!(theirs.is_ok_and(|theirs| theirs == ours));
                prop_assert!(ours == plain || (damage.is_some() && !checksums));
            }
            Ok(false) => prop_assert!(damage.is_some()),
            Err(_) => prop_assert!(theirs.map_or(true, |theirs| theirs.len() != plain.len())),
        }
    }

    #[test]
    fn lz4_frames_survive_anything_behind_their_beginning(
        bytes: Vec<u8>,
        length in 0usize..2000,
        checksums: bool,
    ) {
        let whole = method(Codec::Lz4, 1);
        let whole = if checksums { whole } else { whole.without_checksums() };
        let (mut stored, _) = compress(&vec![7; length], whole, 1 << 20);
        stored.truncate(15);
        let empty = lz4::decompress_frame(&stored, length, &mut Vec::new());
        prop_assert!(empty.is_err());
        stored.extend(bytes);
        let mut plain = Vec::new();
        if let Ok(taken) = lz4::decompress_frame(&stored, length, &mut plain) {
            prop_assert!(taken && plain.len() == length);
        }
    }

    #[test]
    fn decoders_survive_anything(bytes: Vec<u8>, codec in prop::sample::select(Codec::ALL.to_vec())) {
        let _ = decompress(&bytes, codec);
    }
}

#[test]
fn only_what_has_checksums_of_its_own_goes_without_those_of_frames() {
    let plain = sample(FRAME_SIZE + 7);
    for codec in [Codec::Zstd, Codec::Lz4] {
        let (with, frames) = compress(&plain, method(codec, 1), 1 << 20);
        let (without, _) = compress(&plain, method(codec, 1).without_checksums(), 1 << 20);
        // Each frame's takes four bytes.
        assert_eq!(with.len() - without.len(), 4 * frames.len(), "{codec}");
        assert!(decompress(&without, codec).unwrap() == plain, "{codec}");
    }
}
