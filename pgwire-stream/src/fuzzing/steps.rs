//! Transcripts: what a client and a server say to each other, and when.

use std::time::Duration;

use bytes::Buf;

/// A step of a transcript. `C` and `S` have a length of one byte behind them, and as many bytes;
/// `P`, `R`, `W` stand alone, and so does anything else, which is a time in seconds.
#[derive(Debug)]
pub(super) enum Step<'a> {
    /// `C`: the client says something.
    Client(&'a [u8]),
    /// `S`: the server says something.
    Server(&'a [u8]),
    /// `P`: the consumer takes no more.
    Pause,
    /// `R`: it does again.
    Resume,
    /// `W`: there is something to report.
    Ask,
    /// Time passes.
    Wait(Duration),
}

/// The steps of a transcript; the last may be cut short.
pub(super) fn steps(mut data: &[u8]) -> impl Iterator<Item = Step<'_>> {
    std::iter::from_fn(move || {
        let step = data.try_get_u8().ok()?;
        let mut bytes = || {
            let length = usize::from(data.try_get_u8().unwrap_or(0)).min(data.len());
            let (bytes, rest) = data.split_at(length);
            data = rest;
            bytes
        };
        Some(match step {
            b'C' => Step::Client(bytes()),
            b'S' => Step::Server(bytes()),
            b'P' => Step::Pause,
            b'R' => Step::Resume,
            b'W' => Step::Ask,
            seconds => Step::Wait(Duration::from_secs(u64::from(seconds))),
        })
    })
}
