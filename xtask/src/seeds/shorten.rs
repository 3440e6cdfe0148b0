//! Conversations made short: what is copied is worth a few bytes of each kind.

use std::collections::HashMap;

use walrecv_tests::recorder::Speaker;

use super::transcript::Message;

/// How much of a message's copied data stays.
const DATA: usize = 96;

/// How many messages of a kind stay, of a stream or an archive.
const MESSAGES: u32 = 3;

/// What is left of a conversation.
pub(super) fn shorten(messages: &[Message]) -> Vec<Message> {
    let mut seen: HashMap<(bool, u8), u32> = HashMap::new();
    let mut short = Vec::new();
    for (speaker, message) in messages {
        let by_server = *speaker == Speaker::Server;
        let Some(data) = message.strip_prefix(b"d").and_then(|message| message.get(4..)) else {
            // It begins or ends a copy, or has nothing to do with one.
            seen.clear();
            short.push((*speaker, message.clone()));
            continue;
        };
        // Before 15, archives come without a kind.
        let kind = data.first().copied().filter(|kind| b"nmdpwkr".contains(kind)).unwrap_or(0);
        if let b'n' | b'm' = kind {
            seen.clear();
        }
        let count = seen.entry((by_server, kind)).or_default();
        *count += 1;
        if *count <= MESSAGES {
            short.push((*speaker, copy_data(data.get(..DATA).unwrap_or(data))));
        }
    }
    short
}

fn copy_data(data: &[u8]) -> Vec<u8> {
    let mut message = vec![b'd'];
    message.extend((data.len() as u32 + 4).to_be_bytes());
    message.extend(data);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_short_messages_of_each_kind_stay() {
        let said = |data: &[u8]| (Speaker::Server, copy_data(data));
        let (long, short) = ([b'd'; 500], [b'd'; DATA]);
        let progress = b"p\0\0\0\0\0\0\0\x09";
        let mut messages = vec![said(b"nbase.tar\0\0")];
        messages.extend((0..10).flat_map(|_| [said(&long), said(progress)]));
        messages.push(said(b"m"));
        messages.push(said(&long));
        let left = shorten(&messages);
        assert_eq!(left.len(), 1 + 3 + 3 + 1 + 1);
        assert_eq!(left[1], said(&short));
        assert_eq!(left[8], said(&short));
    }
}
