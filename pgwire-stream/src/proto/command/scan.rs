//! The tokens of replication commands.
//!
//! Follows `src/backend/replication/repl_scanner.l`, of which 19 knows `""` in a quoted name and
//! the older ones do not.

use super::grammar::MAX_NAME;
use super::syntax_error::CommandSyntaxError;
use crate::Lsn;

/// A token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A name without quotes, as it was written, or a keyword.
    Word(&'a str),
    /// A name in double quotes.
    Quoted(String),
    /// A string in single quotes.
    Text(String),
    /// An unsigned number.
    Number(u32),
    /// A position in the WAL.
    Position(Lsn),
    /// `( ) , . ;`
    Symbol(u8),
    /// There is nothing more.
    End,
}

/// Cuts a command into tokens.
#[derive(Debug)]
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The next token, and where it begins.
    pub(super) fn next(&mut self) -> Result<(usize, Token<'a>), CommandSyntaxError> {
        self.take_while(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 0x0B | 0x0C));
        let begin = self.at;
        let error = |expected| CommandSyntaxError::Unexpected { at: begin, expected };
        if let Some(position) = self.position() {
            let lsn = position.parse().map_err(|_| error("at most eight digits on each side"))?;
            return Ok((begin, Token::Position(lsn)));
        }
        let token = match self.byte() {
            None => Token::End,
            Some(b'0'..=b'9') => {
                let digits = self.take_while(|b| b.is_ascii_digit());
                Token::Number(digits.parse().map_err(|_| error("a number of 32 bits"))?)
            }
            Some(b) if is_name_start(b) => Token::Word(self.take_while(is_name_part)),
            Some(b'\'') => Token::Text(self.quoted('\'').ok_or_else(|| error("a closing quote"))?),
            Some(b'"') => Token::Quoted(
                self.quoted('"').map(truncate).ok_or_else(|| error("a closing quote"))?,
            ),
            Some(symbol @ (b'(' | b')' | b',' | b'.' | b';')) => {
                self.at += 1;
                Token::Symbol(symbol)
            }
            Some(_) => return Err(error("a word of a command")),
        };
        Ok((begin, token))
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn byte(&self) -> Option<u8> {
        self.rest().bytes().next()
    }

    /// The bytes that are such. Either all or none of a character of several bytes are.
    fn take_while(&mut self, is: impl Fn(u8) -> bool) -> &'a str {
        let rest = self.rest();
        let length = rest.bytes().position(|b| !is(b)).unwrap_or(rest.len());
        self.at += length;
        rest.get(..length).unwrap_or_default()
    }

    /// `hex/hex`, which is longer than any other token that could begin here.
    fn position(&mut self) -> Option<&'a str> {
        let begin = self.at;
        let high = self.take_while(|b| b.is_ascii_hexdigit());
        let slash = self.byte() == Some(b'/');
        self.at += usize::from(slash);
        let low = self.take_while(|b| b.is_ascii_hexdigit());
        if high.is_empty() || !slash || low.is_empty() {
            self.at = begin;
            return None;
        }
        self.text.get(begin..self.at)
    }

    /// What is between quotes, of which two stand for one.
    fn quoted(&mut self, quote: char) -> Option<String> {
        let mut content = String::new();
        self.at += 1;
        loop {
            let rest = self.rest();
            let length = rest.find(quote)?;
            content.push_str(rest.get(..length)?);
            self.at += length + 1;
            if !self.rest().starts_with(quote) {
                return Some(content);
            }
            content.push(quote);
            self.at += 1;
        }
    }
}

/// A name without quotes is in lower case; what is not ASCII stays as it is.
pub(super) fn fold(word: &str) -> String {
    truncate(word.to_ascii_lowercase())
}

fn truncate(mut name: String) -> String {
    while name.len() > MAX_NAME {
        name.pop();
    }
    name
}

fn is_name_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || !byte.is_ascii()
}

fn is_name_part(byte: u8) -> bool {
    is_name_start(byte) || byte.is_ascii_digit() || byte == b'$'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<Token<'_>> {
        let mut scanner = Scanner::new(text);
        std::iter::from_fn(|| Some(scanner.next().unwrap().1))
            .take_while(|token| *token != Token::End)
            .collect()
    }

    #[test]
    fn tokens_are_as_long_as_they_can_be() {
        let at = |address| Token::Position(Lsn::from_u64(address));
        assert_eq!(tokens("0/3000000 A/b"), [at(0x300_0000), at(0xA_0000_000B)]);
        assert_eq!(
            tokens("12a$1,ab"),
            [Token::Number(12), Token::Word("a$1"), Token::Symbol(b','), Token::Word("ab"),]
        );
        assert_eq!(tokens("\t\x0B\nö1"), [Token::Word("ö1")]);
    }

    #[test]
    fn quotes_are_doubled_and_backslashes_are_literal() {
        assert_eq!(
            tokens(r"'it''s \' '' "),
            [Token::Text(r"it's \".into()), Token::Text(String::new())]
        );
        assert_eq!(
            tokens(r#""a""B" """#),
            [Token::Quoted("a\"B".into()), Token::Quoted(String::new())]
        );
    }

    #[test]
    fn names_are_cut_between_characters() {
        let long = "ä".repeat(40);
        assert_eq!(tokens(&format!("\"{long}\"")), [Token::Quoted("ä".repeat(31))]);
        assert_eq!(fold(&format!("A{long}")), format!("a{}", "ä".repeat(31)));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for wrong in ["'open", "\"open", "-1", "/0", "4294967296", "123456789/0", "\0"] {
            assert!(Scanner::new(wrong).next().is_err(), "{wrong:?}");
        }
    }
}
