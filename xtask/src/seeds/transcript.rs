//! A conversation as seeds: of the two ends' state machines, and of the decoders of what is said.

use walrecv_tests::recorder::{Conversation, Speaker};
use walrecv_tests::{Failure, Result};

use super::Seeds;
use super::shorten::shorten;

/// A whole message of one of them.
pub(super) type Message = (Speaker, Vec<u8>);

/// Writes the seeds that a conversation gives.
pub(super) fn write(name: &str, conversation: &Conversation, seeds: &Seeds) -> Result<()> {
    let messages = shorten(&split(conversation)?);
    let said = |wanted: Speaker| -> Vec<u8> {
        let by = messages.iter().filter(|(speaker, _)| *speaker == wanted);
        by.flat_map(|(_, message)| message.clone()).collect()
    };
    for target in ["session", "server_session"] {
        seeds.write(target, name, &steps(&messages))?;
    }
    // How they are cut, and whether passwords are steps of SASL.
    let sasl = u8::from(name == "login_scram");
    seeds.write("backend", name, &[vec![100], said(Speaker::Server)].concat())?;
    seeds.write("frontend", name, &[vec![20, sasl], said(Speaker::Client)].concat())?;
    let commands: Vec<Vec<u8>> = messages.iter().filter_map(command).collect();
    seeds.write_once("command", name, &commands.join(&0))?;
    match name {
        "base_backup" => seeds.write("backup", name, &backup(&messages, &seeds.prefix))?,
        "timelines" => stream(&messages, seeds)?,
        _ => {}
    }
    Ok(())
}

/// Finds the messages in what was heard, each where its last byte was.
fn split(conversation: &Conversation) -> Result<Vec<Message>> {
    let mut messages = Vec::new();
    let (mut client, mut server) = (Vec::new(), Vec::new());
    let mut started = false;
    for (speaker, said) in conversation {
        let pending = match speaker {
            Speaker::Client => &mut client,
            Speaker::Server => &mut server,
        };
        pending.extend_from_slice(said);
        loop {
            // The startup packet alone has no type.
            let tag = usize::from(started || *speaker == Speaker::Server);
            let length = pending.get(tag..tag + 4).and_then(|length| length.try_into().ok());
            let Some(length) = length.map(|length| tag + u32::from_be_bytes(length) as usize)
            else {
                break;
            };
            if pending.len() < length {
                break;
            }
            messages.push((*speaker, pending.drain(..length).collect()));
            started = true;
        }
    }
    if client.is_empty() && server.is_empty() {
        return Ok(messages);
    }
    Err(Failure::new("a conversation broke off in the middle of a message"))
}

/// The conversation as the state machines' targets take it: a byte of options, then steps of a
/// letter, a length and as many bytes.
fn steps(messages: &[Message]) -> Vec<u8> {
    let mut steps = vec![0];
    for (speaker, message) in messages {
        for piece in message.chunks(255) {
            steps.push(match speaker {
                Speaker::Client => b'C',
                Speaker::Server => b'S',
            });
            steps.push(piece.len() as u8);
            steps.extend_from_slice(piece);
        }
    }
    steps
}

/// The text of a command.
fn command(message: &Message) -> Option<Vec<u8>> {
    match message {
        (Speaker::Client, message) => Some(message.strip_prefix(b"Q")?.get(4..)?.to_vec())
            .and_then(|text| text.strip_suffix(b"\0").map(<[u8]>::to_vec)),
        (Speaker::Server, _) => None,
    }
}

/// The answer to `BASE_BACKUP`, behind the bytes that say which generation it is, and how it is cut.
fn backup(messages: &[Message], major: &str) -> Vec<u8> {
    let begin = |message: &Message| command(message).is_some_and(|text| text.starts_with(b"BASE"));
    let answer = messages.iter().skip_while(|message| !begin(message));
    let generation = match major {
        "pg10-" | "pg11-" | "pg12-" => 2,
        "pg13-" | "pg14-" => 1,
        _ => 0,
    };
    let mut bytes = vec![generation, 100];
    for (speaker, message) in answer {
        if *speaker == Speaker::Server {
            bytes.extend_from_slice(message);
        }
    }
    bytes
}

/// The first of each kind of message within a stream.
fn stream(messages: &[Message], seeds: &Seeds) -> Result<()> {
    for (kind, name) in [(b'w', "data"), (b'k', "keepalive"), (b'r', "status")] {
        let payload = |message: &Message| Some(message.1.strip_prefix(b"d")?.get(4..)?.to_vec());
        let mut payloads = messages.iter().filter_map(payload);
        if let Some(payload) = payloads.find(|payload| payload.first() == Some(&kind)) {
            seeds.write("wal_message", name, &payload)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_in_any_pieces() {
        let client = b"\0\0\0\x08\0\x03\0\0Q\0\0\0\x07hi\0";
        let server = b"Z\0\0\0\x05I";
        let conversation = vec![
            (Speaker::Client, client[..3].to_vec()),
            (Speaker::Client, client[3..8].to_vec()),
            (Speaker::Server, server.to_vec()),
            (Speaker::Client, client[8..].to_vec()),
        ];
        let messages = split(&conversation).unwrap();
        assert_eq!(messages[0], (Speaker::Client, client[..8].to_vec()));
        assert_eq!(messages[1], (Speaker::Server, server.to_vec()));
        assert_eq!(command(&messages[2]), Some(b"hi".to_vec()));
        assert_eq!(steps(&messages[1..2]), b"\0S\x06Z\0\0\0\x05I");
        assert!(split(&vec![(Speaker::Server, b"Z\0".to_vec())]).is_err());
    }
}
