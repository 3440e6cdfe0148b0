//! The server's side of the protocol, for tests that hold its end of the line.

use bytes::BufMut;

/// A message of the server.
pub(crate) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.put_u32(body.len() as u32 + 4);
    bytes.extend(body);
    bytes
}

pub(crate) fn authentication(code: u32, payload: &[u8]) -> Vec<u8> {
    message(b'R', &[&code.to_be_bytes(), payload].concat())
}

pub(crate) fn parameter(name: &str, value: &str) -> Vec<u8> {
    message(b'S', format!("{name}\0{value}\0").as_bytes())
}

pub(crate) fn columns(names: &[&str]) -> Vec<u8> {
    let mut body = (names.len() as u16).to_be_bytes().to_vec();
    for name in names {
        body.extend(name.as_bytes());
        body.extend([0; 19]);
    }
    message(b'T', &body)
}

pub(crate) fn row(values: &[Option<&str>]) -> Vec<u8> {
    let mut body = (values.len() as u16).to_be_bytes().to_vec();
    for value in values {
        match value {
            Some(value) => {
                body.put_u32(value.len() as u32);
                body.extend(value.as_bytes());
            }
            None => body.put_i32(-1),
        }
    }
    message(b'D', &body)
}

pub(crate) fn complete(tag: &str) -> Vec<u8> {
    message(b'C', format!("{tag}\0").as_bytes())
}

pub(crate) fn report(tag: u8, severity: &str, code: &str, text: &str) -> Vec<u8> {
    message(tag, format!("S{severity}\0V{severity}\0C{code}\0M{text}\0\0").as_bytes())
}

pub(crate) fn copy_response(tag: u8) -> Vec<u8> {
    message(tag, &[0, 0, 0])
}

pub(crate) fn copy_data(payload: &[u8]) -> Vec<u8> {
    message(b'd', payload)
}

pub(crate) fn copy_done() -> Vec<u8> {
    message(b'c', b"")
}

pub(crate) fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}
