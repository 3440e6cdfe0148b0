//! A whole session: arbitrary bytes of the server in arbitrary cuts, arbitrary commands of ours, and
//! arbitrary steps of time.

use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};

use crate::proto::{
    Action, BackupDecoder, CopyBothMessage, Credentials, Event, Feedback, Intervals, MAX_COPY_DATA,
    ProtocolRange, Session,
};
use crate::{
    BackupTarget, BaseBackupOptions, CompressionMethod, Password, ServerCompression, ServerVersion,
};

/// The answer to a login without a password.
const GREETING: &[u8] =
    b"R\0\0\0\x08\0\0\0\0S\0\0\0\x19server_version\x0015.20\0K\0\0\0\x0c\0\0\0\0\0\0\0\0Z\0\0\0\x05I";

/// What a buffer may have of room beyond the message that it waits for.
const SPARE: usize = 1 << 20;

/// Steps of one byte each, some with an argument behind it: `0` bytes of the server (one byte of
/// length, then as many), `1` to `6` what we do, anything else a step of time.
///
/// The first byte chooses whether the login is part of it. Asserted: no panic, buffers stay within
/// the limits, a failure stays one, and everything that is sent parses.
pub fn session(data: &[u8]) {
    let mut data = data;
    let Ok(first) = data.try_get_u8() else { return };
    let mut output = BytesMut::new();
    let mut session = begin(&mut output);
    let mut input = BytesMut::new();
    let mut sent = Vec::new();
    if first & 1 == 1 {
        input.extend(GREETING);
    }
    let start = Instant::now();
    let mut now = start;
    let limit = |bit: u8, seconds| (first & bit != 0).then(|| Duration::from_secs(seconds));
    let mut feedback =
        Feedback::new(Intervals { status: limit(2, 10), receive: limit(4, 60) }, now);
    let mut failed = false;
    loop {
        match session.handle(&mut input, &mut output) {
            Ok(Some(event)) => {
                assert!(!failed, "it came back from a failure");
                feedback.received(now);
                if let Event::CopyData(payload) = event {
                    let _ = CopyBothMessage::decode(payload);
                }
                continue;
            }
            Ok(None) => assert!(!failed, "it came back from a failure"),
            Err(_) => {
                failed = true;
                input.clear();
            }
        }
        assert!(input.capacity() <= MAX_COPY_DATA + SPARE, "{}", input.capacity());
        sent.extend_from_slice(&output.split());
        let Ok(step) = data.try_get_u8() else { break };
        match step {
            0 => {
                let length = usize::from(data.try_get_u8().unwrap_or(0)).min(data.len());
                input.extend(&data[..length]);
                data.advance(length);
            }
            1 => drop(session.query("IDENTIFY_SYSTEM", &mut output)),
            2 => drop(session.copy_data(b"status", &mut output)),
            3 => drop(session.copy_done(&mut output)),
            4 => feedback.pause(now),
            5 => feedback.resume(now),
            6 => feedback.want_report(),
            seconds => now += Duration::from_secs(u64::from(seconds)),
        }
        report(&mut feedback, now);
    }
    assert!(parses(&sent), "what was sent does not parse");
}

/// Reports until nothing is due: that comes to an end.
fn report(feedback: &mut Feedback, now: Instant) {
    for _ in 0..3 {
        match feedback.poll(now) {
            Action::Report { ask_for_reply } => feedback.reported(now, ask_for_reply),
            Action::Wait(next) => {
                assert!(next.is_none_or(|next| next > now), "it would spin");
                return;
            }
            Action::TimedOut => return,
        }
    }
    panic!("reports have no end");
}

/// Whether these are a startup packet and whole frontend messages.
fn parses(mut sent: &[u8]) -> bool {
    let Ok(length) = sent.try_get_u32() else { return false };
    let Some(mut rest) = sent.get(length as usize - 4..) else { return false };
    while let Ok(tag) = rest.try_get_u8() {
        let length = rest.try_get_u32().unwrap_or(0) as usize;
        let (true, true) = (b"QpdcX".contains(&tag), (4..=rest.len() + 4).contains(&length)) else {
            return false;
        };
        rest.advance(length - 4);
    }
    true
}

/// The answer to `BASE_BACKUP`, in both generations. The first byte chooses; the second is how the
/// rest is cut. Asserted: archives are announced before their data and end before the next, and
/// success has its start and its end.
pub fn backup(data: &[u8]) {
    let [choice, cut, answer @ ..] = data else { return };
    let version = ServerVersion::from_num(if choice % 3 == 0 { 150_000 } else { 140_000 });
    let mut options = BaseBackupOptions::default();
    if choice & 2 != 0 {
        options.manifest = None;
    }
    if choice & 4 != 0 {
        options.compression = Some(ServerCompression::new(CompressionMethod::Zstd));
    }
    if choice & 8 != 0 {
        options.target = BackupTarget::Blackhole;
    }
    let mut output = BytesMut::new();
    let mut session = begin(&mut output);
    let mut input = BytesMut::from(GREETING);
    while let Ok(Some(_)) = session.handle(&mut input, &mut output) {}
    session.query("BASE_BACKUP", &mut output).unwrap();
    let mut decoder = BackupDecoder::new(&options, version);
    let mut open = false;
    for piece in answer.chunks(usize::from(*cut) + 1) {
        input.extend(piece);
        loop {
            match session.handle(&mut input, &mut output) {
                Ok(None) => break,
                Ok(Some(event)) => {
                    if decoder.handle(event).is_err() {
                        return;
                    }
                }
                Err(_) => return,
            }
            while let Some(event) = decoder.next_event() {
                open = follows(open, &event);
            }
        }
    }
    if decoder.end().is_ok() {
        assert!(decoder.start().is_some() && !decoder.tablespaces().is_empty() && !open);
    }
}

/// Whether an archive is open after this event.
fn follows(open: bool, event: &crate::BackupEvent) -> bool {
    use crate::BackupEvent as E;
    match event {
        E::ArchiveStart(archive) => {
            assert!(!open, "an archive begins within another");
            let suffix = archive.compression.map_or("", CompressionMethod::suffix);
            let stem = archive.name.strip_suffix(suffix).unwrap().strip_suffix(".tar").unwrap();
            assert!(stem == "base" || stem.parse::<u32>().is_ok(), "{stem:?}");
            true
        }
        E::ArchiveEnd => {
            assert!(open, "nothing to end");
            false
        }
        E::ArchiveData(data) => {
            assert!(open && !data.is_empty());
            true
        }
        E::ManifestStart | E::ManifestData(_) => {
            assert!(!open, "a manifest within an archive");
            false
        }
        E::Progress(_) => open,
    }
}

fn begin(output: &mut BytesMut) -> Session {
    Session::new(credentials(), ProtocolRange::default(), [("user", "walrecv")], output).unwrap()
}

fn credentials() -> Credentials {
    Credentials::new("walrecv", Some(Password::new("secret")))
}
