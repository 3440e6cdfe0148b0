//! What `strace -f -y -x` writes, as values: system calls, each with the moments at which it began
//! and ended.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::failure::{Context, Result};

/// A moment: the number of a line. Lines stand in the order in which the tracer stopped a thread
/// at the beginning or the end of a call.
pub type Moment = usize;

/// One system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// Its arguments, in strace's words.
    pub arguments: Vec<String>,
    /// What it returned, in strace's words; none if the thread ended in it.
    pub result: Option<String>,
    /// When it began.
    pub entered: Moment,
    /// When it ended.
    pub left: Moment,
}

impl Call {
    /// The number it returned; none if it failed, did not end, or was not carried out.
    pub fn returned(&self) -> Option<u64> {
        let result = self.result.as_deref().filter(|result| !result.contains("(INJECTED)"))?;
        let digits = result.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    }

    /// An argument, in strace's words.
    pub fn argument(&self, index: usize) -> &str {
        self.arguments.get(index).map_or("", String::as_str)
    }

    /// An argument that is a number.
    pub fn number(&self, index: usize) -> Option<u64> {
        self.argument(index).parse().ok()
    }

    /// An argument that is an open file: its number, and where it lies.
    pub fn file(&self, index: usize) -> Option<(u64, PathBuf)> {
        open_file(self.argument(index))
    }

    /// The open file that it returned.
    pub fn returned_file(&self) -> Option<(u64, PathBuf)> {
        open_file(self.result.as_deref()?)
    }

    /// An argument that is a path.
    pub fn path(&self, index: usize) -> Option<PathBuf> {
        let bytes = strings(self.argument(index)).pop()?;
        Some(PathBuf::from(String::from_utf8(bytes).ok()?))
    }

    /// The bytes that it was given to write, one string or a list of them, as far as strace shows
    /// them.
    pub fn bytes(&self, index: usize) -> Vec<u8> {
        strings(self.argument(index)).concat()
    }
}

/// Every call of a trace, in the order in which they began.
pub fn parse(trace: &str) -> Result<Vec<Call>> {
    let mut calls = Vec::new();
    let mut unfinished: HashMap<&str, (Moment, String)> = HashMap::new();
    for (moment, line) in trace.lines().enumerate() {
        let about = || format!("line {} of the trace is odd: {line}", moment + 1);
        let (thread, text) = line.split_once(' ').context(about)?;
        let text = text.trim_start();
        if text.starts_with("+++") || text.starts_with("---") {
            continue;
        }
        if let Some(begin) = text.strip_suffix("<unfinished ...>") {
            unfinished.insert(thread, (moment, begin.to_owned()));
        } else if text.starts_with("<...") {
            // Of a call that began before the tracer came, only the end is there.
            let Some((entered, begin)) = unfinished.remove(thread) else { continue };
            let (_, end) = text.split_once("resumed>").context(about)?;
            calls.push(call(&(begin + end), entered, moment).context(about)?);
        } else {
            calls.push(call(text, moment, moment).context(about)?);
        }
    }
    for (entered, begin) in unfinished.into_values() {
        calls.extend(call(&begin, entered, usize::MAX));
    }
    calls.sort_by_key(|call| call.entered);
    Ok(calls)
}

fn call(text: &str, entered: Moment, left: Moment) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    let (arguments, rest) = arguments(rest);
    let result = rest.trim_start().strip_prefix("= ");
    let result = result.filter(|result| !result.starts_with('?')).map(str::to_owned);
    Some(Call { name: name.to_owned(), arguments, result, entered, left })
}

/// Cuts the text behind an opening parenthesis into arguments, up to the closing one.
fn arguments(text: &str) -> (Vec<String>, &str) {
    let mut found = Vec::new();
    let (mut depth, mut quoted, mut escaped, mut begin) = (0_u32, false, false, 0);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '[' | '{' | '(' | '<' => depth += 1,
            ')' if depth == 0 => {
                found.extend(text.get(begin..at).map(|last| last.trim().to_owned()));
                return (found, text.get(at + 1..).unwrap_or_default());
            }
            ']' | '}' | ')' | '>' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                found.extend(text.get(begin..at).map(|one| one.trim().to_owned()));
                begin = at + 1;
            }
            _ => {}
        }
    }
    found.extend(text.get(begin..).map(|last| last.trim().to_owned()));
    (found, "")
}

/// `12</a/path>`.
fn open_file(text: &str) -> Option<(u64, PathBuf)> {
    let (number, path) = text.split_once('<')?;
    let path = path.rsplit_once('>')?.0;
    Some((number.parse().ok()?, PathBuf::from(path)))
}

/// The quoted strings of an argument.
fn strings(text: &str) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, quoted)) = rest.split_once('"') {
        let (string, behind) = unescape(quoted);
        found.push(string);
        rest = behind;
    }
    found
}

/// The bytes up to the closing quote, and what stands behind it.
fn unescape(quoted: &str) -> (Vec<u8>, &str) {
    let mut bytes = Vec::new();
    let mut rest = quoted;
    while let Some(c) = rest.chars().next() {
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
        if c == '"' {
            break;
        }
        if c != '\\' {
            bytes.extend(c.encode_utf8(&mut [0; 4]).bytes());
            continue;
        }
        let Some(kind) = rest.chars().next() else { break };
        let (digits, radix) = match kind {
            'x' => (rest.get(1..3).unwrap_or_default(), 16),
            '0'..='7' => {
                let octal = rest.chars().take(3).take_while(|c| c.is_digit(8)).count();
                (rest.get(..octal).unwrap_or_default(), 8)
            }
            _ => ("", 0),
        };
        match u8::from_str_radix(digits, radix.max(2)) {
            Ok(byte) => {
                bytes.push(byte);
                rest = rest.get(digits.len() + usize::from(radix == 16)..).unwrap_or_default();
            }
            Err(_) => {
                bytes.push(match kind {
                    'n' => b'\n',
                    'r' => b'\r',
                    't' => b'\t',
                    'v' => 0x0b,
                    'f' => 0x0c,
                    other => u8::try_from(other).unwrap_or(b'?'),
                });
                rest = rest.get(kind.len_utf8()..).unwrap_or_default();
            }
        }
    }
    (bytes, rest)
}
