//! Commands and copies, with the server's bytes cut anywhere.

use proptest::prelude::*;

use super::*;
use crate::proto::{MAX_COPY_DATA, MAX_LOGIN_MESSAGE};
use crate::{Misuse, Violation};

/// Everything that a replication connection says after the login, at length.
fn transcript() -> Vec<Vec<u8>> {
    vec![
        columns(&["systemid", "timeline"]),
        row(&[Some("7357089276153"), None]),
        report(b'N', "WARNING", "01000", "by the way"),
        complete("IDENTIFY_SYSTEM"),
        copy_response(b'W'),
        copy_data(b"some WAL"),
        parameter("in_hot_standby", "off"),
        copy_data(&[7; 3000]),
        copy_done(),
        columns(&["next_tli"]),
        row(&[Some("2")]),
        complete("START_STREAMING"),
        complete("START_REPLICATION"),
        ready(),
    ]
}

fn described(events: &[Event]) -> Vec<String> {
    events.iter().map(|event| format!("{event:?}")).collect()
}

#[test]
fn a_long_transcript_is_understood() {
    let mut peer = Peer::executing("START_REPLICATION");
    let events = peer.hear(&transcript()).unwrap();
    assert_eq!(events.len(), 13);
    assert!(matches!(&events[6], Event::CopyData(data) if data.len() == 3000));
    assert!(peer.session.is_idle());
    assert_eq!(peer.session.parameter("in_hot_standby"), Some("off"));
    // The end of the copy is answered, and nothing else is.
    assert_eq!(peer.said(), copy_done());
}

/// PostgreSQL 10 does this in logical streams.
#[test]
fn a_keepalive_behind_the_end_of_a_stopped_stream_is_passed_over() {
    let mut peer = Peer::executing("START_REPLICATION");
    peer.hear(&[copy_response(b'W')]).unwrap();
    peer.session.copy_done(&mut peer.output).unwrap();
    let events = peer.hear(&[
        copy_data(b"late"),
        copy_done(),
        copy_data(b"later"),
        complete("COPY 0"),
        complete("SELECT"),
        ready(),
    ]);
    let events = events.unwrap();
    assert!(matches!(
        &events[..],
        [Event::CopyData(late), Event::CopyDone, Event::Complete, Event::Complete, Event::Ready]
            if late == "late"
    ));
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_events(cuts in prop::collection::vec(1usize..64, 1..400)) {
        let bytes = transcript().concat();
        let mut whole = Peer::executing("x");
        let expected = described(&whole.hear(&transcript()).unwrap());

        let mut peer = Peer::executing("x");
        let mut events = Vec::new();
        let mut rest = bytes.as_slice();
        for cut in cuts.iter().cycle() {
            let (piece, tail) = rest.split_at((*cut).min(rest.len()));
            peer.input.extend(piece);
            events.extend(peer.drain().unwrap());
            rest = tail;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(described(&events), expected);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>, logged_in: bool) {
        let mut peer = if logged_in { Peer::executing("x") } else { Peer::new(credentials()) };
        peer.input.extend(bytes);
        let _ = peer.drain();
    }

    #[test]
    fn arbitrary_messages_never_panic(
        messages in prop::collection::vec((0u8..128, prop::collection::vec(any::<u8>(), 0..64)), 0..8),
    ) {
        let mut peer = Peer::executing("x");
        let messages: Vec<_> = messages.iter().map(|(tag, body)| message(*tag, body)).collect();
        let _ = peer.hear(&messages);
    }
}

#[test]
fn payloads_are_slices_of_the_input() {
    let mut peer = Peer::executing("START_REPLICATION");
    peer.hear(&[copy_response(b'W')]).unwrap();
    peer.input.reserve(1 << 16);
    peer.input.extend(copy_data(&[1; 5000]));
    let buffer = peer.input.as_ptr_range();
    let events = peer.drain().unwrap();
    let [Event::CopyData(data)] = &events[..] else { panic!("{events:?}") };
    assert!(buffer.contains(&data.as_ptr()));
}

#[test]
fn lengths_are_checked_before_anything_is_allocated() {
    let header = |tag: u8, length: usize| [&[tag][..], &(length as u32).to_be_bytes()].concat();
    for (tag, length) in [(b'd', MAX_COPY_DATA + 1), (b'T', 1 << 30), (b'E', u32::MAX as usize)] {
        let mut peer = Peer::executing("x");
        let error = peer.hear(&[header(tag, length)]).unwrap_err();
        assert!(matches!(error, Error::Violation(Violation::TooLong { .. })), "{error}");
        assert!(peer.input.capacity() < 1 << 20);
    }
    let mut stranger = Peer::new(credentials());
    let error = stranger.hear(&[header(b'R', MAX_LOGIN_MESSAGE + 1)]).unwrap_err();
    assert!(matches!(error, Error::Violation(Violation::TooLong { .. })), "{error}");
    let mut peer = Peer::executing("x");
    assert!(matches!(peer.hear(&[header(b'C', 3)]), Err(Error::Decode(_))));
}

#[test]
fn a_failed_command_leaves_the_session_usable() {
    for before in [vec![], vec![copy_response(b'W'), copy_data(b"x")], vec![copy_response(b'H')]] {
        let mut peer = Peer::executing("x");
        peer.hear(&before).unwrap();
        let events = peer.hear(&[report(b'E', "ERROR", "57014", "canceled"), ready()]).unwrap();
        assert!(matches!(&events[..], [Event::Error(error), Event::Ready]
            if error.code.unwrap().as_str() == "57014"));
        assert!(peer.session.query("IDENTIFY_SYSTEM", &mut peer.output).is_ok());
    }
}

#[test]
fn copy_data_flow_until_both_sides_are_done() {
    let mut peer = Peer::executing("START_REPLICATION");
    peer.hear(&[copy_response(b'W')]).unwrap();
    peer.session.copy_data(b"status", &mut peer.output).unwrap();
    peer.session.copy_done(&mut peer.output).unwrap();
    assert_eq!(peer.said(), [copy_data(b"status"), copy_done()].concat());
    assert!(peer.session.copy_data(b"late", &mut peer.output).is_err());
    let events = peer.hear(&[copy_data(b"on its way"), copy_done()]).unwrap();
    assert!(matches!(events[..], [Event::CopyData(_), Event::CopyDone]));
    assert!(peer.said().is_empty(), "our side was done already");
}

#[test]
fn a_shutdown_ends_the_stream_with_a_bare_completion() {
    let mut peer = Peer::executing("START_REPLICATION");
    let events = peer.hear(&[copy_response(b'W'), complete("COPY 0")]).unwrap();
    assert!(matches!(events[..], [Event::CopyBoth, Event::Complete]));
}

#[test]
fn copy_in_takes_data_until_it_is_done() {
    let mut peer = Peer::executing("UPLOAD_MANIFEST");
    assert!(peer.session.copy_data(b"early", &mut peer.output).is_err());
    peer.hear(&[copy_response(b'G')]).unwrap();
    peer.session.copy_data(b"manifest", &mut peer.output).unwrap();
    peer.session.copy_done(&mut peer.output).unwrap();
    let events = peer.hear(&[complete("UPLOAD_MANIFEST"), ready()]).unwrap();
    assert!(matches!(events[..], [Event::Complete, Event::Ready]));
}

#[test]
fn messages_out_of_place_are_violations() {
    for message in [copy_data(b"x"), copy_done(), complete("x"), copy_response(b'W')] {
        let error = Peer::logged_in().hear(std::slice::from_ref(&message)).unwrap_err();
        assert!(matches!(error, Error::Violation(Violation::Unexpected { .. })), "{error}");
    }
    let error = Peer::executing("x").hear(&[authentication(0, b"")]).unwrap_err();
    assert!(matches!(error, Error::Violation(_)), "{error}");
}

#[test]
fn rows_have_a_value_for_each_column() {
    let row_of = |count| row(&vec![Some("x"); count]);
    for (before, count) in [(vec![columns(&["a", "b"])], 2), (vec![], 0)] {
        for other in (0..4).filter(|other| *other != count) {
            let mut peer = Peer::executing("x");
            peer.hear(&before).unwrap();
            peer.hear(&[row_of(count)]).unwrap();
            let error = peer.hear(&[row_of(other)]).unwrap_err();
            assert!(matches!(error, Error::Violation(Violation::Unexpected { .. })), "{error}");
        }
    }
}

#[test]
fn commands_wait_for_their_turn() {
    let mut peer = Peer::executing("x");
    assert!(peer.session.query("y", &mut peer.output).is_err());
    let mut idle = Peer::logged_in();
    assert!(idle.session.query("a\0b", &mut idle.output).is_err());
}

#[test]
fn parameters_are_kept_in_bounds() {
    let mut peer = Peer::logged_in();
    let flood: Vec<_> = (0..1000).map(|i| parameter(&format!("p{i}"), "x")).collect();
    peer.hear(&flood).unwrap();
    assert_eq!(peer.session.parameter("p999"), None);
    peer.hear(&[parameter("server_version", "16.1")]).unwrap();
    assert_eq!(peer.session.parameter("server_version"), Some("16.1"));
}

#[test]
fn after_a_violation_nothing_is_said_any_more() {
    let mut peer = Peer::executing("x");
    assert!(peer.hear(&[copy_done(), ready()]).is_err());
    assert!(matches!(peer.drain(), Err(Error::Misuse(Misuse::Failed))));
    assert!(peer.session.query("y", &mut peer.output).is_err());
    assert!(peer.said().is_empty());
}

#[test]
fn a_shutdown_may_follow_an_error() {
    let mut peer = Peer::executing("x");
    let fatal = report(b'E', "FATAL", "57P01", "terminating");
    let events = peer.hear(&[report(b'E', "ERROR", "58P01", "removed"), fatal]).unwrap();
    assert!(matches!(events[..], [Event::Error(_), Event::Error(_)]));
}
