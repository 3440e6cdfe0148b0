//! As much of JSON as a manifest has: texts, numbers, and where an object without others in it ends.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Why a piece of JSON is refused.
#[derive(Debug)]
pub(super) struct Refusal {
    /// How far into the piece; `None` if it is the piece as a whole.
    pub(super) at: Option<usize>,
    pub(super) reason: Cow<'static, str>,
}

impl Refusal {
    pub(super) fn entry(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { at: None, reason: reason.into() }
    }
}

/// Looks for the end of a flat object, in as many pieces as it comes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EndOfObject {
    in_text: bool,
    escaped: bool,
}

impl EndOfObject {
    /// Just behind the `}` that ends the object, if it is in these bytes.
    pub(super) fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, &byte) in bytes.iter().enumerate() {
            if !self.in_text {
                match byte {
                    b'}' => return Some(at + 1),
                    b'"' => self.in_text = true,
                    _ => {}
                }
            } else if self.escaped {
                self.escaped = false;
            } else {
                match byte {
                    b'"' => self.in_text = false,
                    b'\\' => self.escaped = true,
                    _ => {}
                }
            }
        }
        None
    }
}

/// A piece of JSON, token by token.
#[derive(Debug)]
pub(super) struct Lexer<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn refusal(&self, reason: &'static str) -> Refusal {
        Refusal { at: Some(self.at), reason: reason.into() }
    }

    /// Whether the next token is this one, and the last.
    pub(super) fn ends(&mut self, byte: u8) -> bool {
        self.skip_white_space();
        self.rest() == [byte]
    }

    /// Takes the token `byte`.
    pub(super) fn expect(&mut self, byte: u8, otherwise: &'static str) -> Result<(), Refusal> {
        self.skip_white_space();
        if self.rest().first() != Some(&byte) {
            return Err(self.refusal(otherwise));
        }
        self.at += 1;
        Ok(())
    }

    /// Takes a text or a number, as it would stand in a text.
    pub(super) fn text_or_number(&mut self) -> Result<Cow<'a, str>, Refusal> {
        self.skip_white_space();
        let rest = self.rest();
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        match (digits, rest.first()) {
            (0, _) => self.text("a text or a whole number is expected here"),
            (2.., Some(b'0')) => Err(self.refusal("a number does not begin with 0")),
            _ => {
                self.at += digits;
                let digits = rest.get(..digits).unwrap_or_default();
                Ok(String::from_utf8_lossy(digits))
            }
        }
    }

    /// Takes a text.
    pub(super) fn text(&mut self, otherwise: &'static str) -> Result<Cow<'a, str>, Refusal> {
        self.expect(b'"', otherwise)?;
        let rest = self.rest();
        let plain = rest.iter().position(|&byte| matches!(byte, b'"' | b'\\' | ..b' '));
        let plain = plain.unwrap_or(rest.len());
        let text = rest.get(..plain).unwrap_or_default();
        let text = str::from_utf8(text).map_err(|_| self.refusal("the text is not in UTF-8"))?;
        self.at += plain;
        if rest.get(plain) == Some(&b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(text));
        }
        self.escaped(text.to_owned()).map(Cow::Owned)
    }

    /// The rest of a text, from its first escape on.
    fn escaped(&mut self, mut text: String) -> Result<String, Refusal> {
        loop {
            match self.take() {
                Some(b'"') => return Ok(text),
                Some(b'\\') => text.push(self.escape()?),
                Some(byte @ b' '..=b'~') => text.push(char::from(byte)),
                Some(0x7F..) => {
                    self.at -= 1;
                    let rest = self.rest();
                    let end = rest.iter().position(|byte| matches!(byte, ..0x7F));
                    let part = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
                    text.push_str(
                        str::from_utf8(part)
                            .map_err(|_| self.refusal("the text is not in UTF-8"))?,
                    );
                    self.at += part.len();
                }
                Some(..b' ') | None => {
                    return Err(self.refusal("a text does not have unescaped control characters"));
                }
            }
        }
    }

    /// The character of an escape, from behind its backslash.
    fn escape(&mut self) -> Result<char, Refusal> {
        Ok(match self.take() {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{C}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let mut unit = self.four_digits();
                if let Some(high @ 0xD800..=0xDBFF) = unit {
                    let low = match (self.take(), self.take()) {
                        (Some(b'\\'), Some(b'u')) => self.four_digits(),
                        _ => None,
                    };
                    unit = low
                        .filter(|low| (0xDC00..=0xDFFF).contains(low))
                        .map(|low| 0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00));
                }
                // As in PostgreSQL, there is no zero character.
                unit.filter(|&unit| unit != 0)
                    .and_then(char::from_u32)
                    .ok_or_else(|| self.refusal("this escape is not one of a character"))?
            }
            _ => return Err(self.refusal("this escape is unknown")),
        })
    }

    fn four_digits(&mut self) -> Option<u32> {
        let digits = self.rest().get(..4)?;
        self.at += 4;
        let digit = |value: u32, byte: &u8| Some(value << 4 | char::from(*byte).to_digit(16)?);
        digits.iter().try_fold(0, digit)
    }

    fn take(&mut self) -> Option<u8> {
        let byte = self.rest().first().copied();
        self.at += usize::from(byte.is_some());
        byte
    }

    fn skip_white_space(&mut self) {
        let rest = self.rest();
        let space = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        self.at += rest.iter().take_while(space).count();
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }
}

/// Appends a text as the server's `escape_json` writes it.
pub(super) fn push_text(into: &mut String, text: &str) {
    into.push('"');
    for character in text.chars() {
        match character {
            '"' => into.push_str("\\\""),
            '\\' => into.push_str("\\\\"),
            '\u{8}' => into.push_str("\\b"),
            '\u{C}' => into.push_str("\\f"),
            '\n' => into.push_str("\\n"),
            '\r' => into.push_str("\\r"),
            '\t' => into.push_str("\\t"),
            control @ ..' ' => {
                // Writing to a String cannot fail.
                let _ = write!(into, "\\u{:04x}", u32::from(control));
            }
            other => into.push(other),
        }
    }
    into.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(json: &[u8]) -> Option<String> {
        let mut lexer = Lexer::new(json);
        let text = lexer.text("").ok()?;
        lexer.rest().is_empty().then(|| text.into_owned())
    }

    #[test]
    fn escapes_are_those_of_json() {
        assert_eq!(text(br#""\u00e9\uD83D\uDE00\/\b\f""#).unwrap(), "é😀/\u{8}\u{C}");
        for bad in [
            &br#""\u0000""#[..],
            br#""\uD83D""#,
            br#""\uDE00""#,
            br#""\uD83D\u0041""#,
            br#""\u12""#,
            br#""\x""#,
            b"\"\xFF\"",
            b"\"\\n\xFF\"",
            b"\"a\nb\"",
            b"\"a",
            b"\"\\",
            b"a",
        ] {
            assert_eq!(text(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn numbers_are_whole_and_plain() {
        let number = |json: &'static str| Lexer::new(json.as_bytes()).text_or_number().ok();
        assert_eq!(number(" 120}").as_deref(), Some("120"));
        assert_eq!(number("0,").as_deref(), Some("0"));
        assert_eq!(number("\"7\"").as_deref(), Some("7"));
        for bad in ["01", "-1", "+1", ".5", "true", "null", ""] {
            assert_eq!(number(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn texts_are_read_as_by_another_parser(
            json in r#"("([ -~é😀]|\\\\|\\n|\\"|\\u[0-9a-dD][0-9a-f]{3}){0,12}"?|.{0,8})"#,
        ) {
            let theirs = serde_json::from_str::<String>(&json).ok();
            // White space around a text is not the lexer's business, nor is zero a character.
            let theirs = theirs.filter(|text| !text.contains('\0') && json.trim() == json);
            prop_assert_eq!(text(json.as_bytes()), theirs);
        }

        #[test]
        fn what_is_written_is_read_back_by_both(original: String) {
            let mut json = String::new();
            push_text(&mut json, &original);
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), original.clone());
            let expected = (!original.contains('\0')).then_some(original);
            prop_assert_eq!(text(json.as_bytes()), expected);
        }

        #[test]
        fn the_end_of_an_object_is_found_in_any_cut(json in "[\"\\\\}a]{0,12}", cut: prop::sample::Index) {
            let whole = EndOfObject::default().find(json.as_bytes());
            let (head, tail) = json.as_bytes().split_at(cut.index(json.len() + 1));
            let mut end = EndOfObject::default();
            let found = end.find(head).or_else(|| Some(head.len() + end.find(tail)?));
            prop_assert_eq!(found, whole);
        }
    }
}
