//! The entries of a manifest's lists: flat JSON objects of texts and numbers.

use std::borrow::Cow;

use super::json::{Lexer, Refusal};
use super::{ChecksumAlgorithm, ManifestFile, UnknownChecksumAlgorithm, WalRange, hex};
use crate::{Lsn, LsnParseError, TimelineId, TimelineParseError};

/// The values of these fields of an object, from behind its `{`.
fn fields<'a, const N: usize>(
    body: &'a [u8],
    names: [&'static str; N],
) -> Result<[Option<Cow<'a, str>>; N], Refusal> {
    let mut values = [const { None }; N];
    let mut lexer = Lexer::new(body);
    let mut first = true;
    while !lexer.ends(b'}') {
        if !first {
            lexer.expect(b',', "`,` or `}` is expected here")?;
        }
        first = false;
        let name = lexer.text("the name of a field is expected here")?;
        let Some((_, slot)) = names.iter().zip(&mut values).find(|(known, _)| **known == name)
        else {
            return Err(lexer.refusal("the name of this field is unknown"));
        };
        if slot.is_some() {
            return Err(lexer.refusal("this field is there twice"));
        }
        lexer.expect(b':', "`:` is expected here")?;
        // As in PostgreSQL, a number may stand in quotes.
        *slot = Some(lexer.text_or_number()?);
    }
    Ok(values)
}

/// Reads the entry of a file, from behind its `{`.
pub(super) fn file(body: &[u8]) -> Result<ManifestFile, Refusal> {
    let [path, encoded, size, modified, algorithm, checksum] = fields(
        body,
        ["Path", "Encoded-Path", "Size", "Last-Modified", "Checksum-Algorithm", "Checksum"],
    )?;
    let path = match (path, encoded) {
        (Some(path), None) => path.into_owned().into_bytes(),
        (None, Some(encoded)) => hex::bytes(&encoded)
            .ok_or_else(|| Refusal::entry("the encoded path is not hexadecimal"))?,
        (Some(_), Some(_)) => return Err(Refusal::entry("there is a path and an encoded path")),
        (None, None) => return Err(Refusal::entry("`Path` is missing")),
    };
    if path.is_empty() || path.contains(&0) {
        return Err(Refusal::entry("the path is not one of a file"));
    }
    let size = size.ok_or_else(|| Refusal::entry("`Size` is missing"))?;
    let size =
        number(&size).ok_or_else(|| Refusal::entry("the size is not a number of 64 bits"))?;
    let modified = modified.unwrap_or_default().into_owned();
    let checksum = match (algorithm, checksum) {
        (None, None) => None,
        (Some(algorithm), _) if algorithm.eq_ignore_ascii_case("NONE") => None,
        (Some(algorithm), Some(checksum)) => {
            let algorithm: ChecksumAlgorithm = algorithm
                .parse()
                .map_err(|err: UnknownChecksumAlgorithm| Refusal::entry(err.to_string()))?;
            let digest = hex::bytes(&checksum)
                .filter(|digest| digest.len() == algorithm.digest_len())
                .ok_or_else(|| Refusal::entry(format!("the checksum is not one of {algorithm}")))?;
            Some((algorithm, digest))
        }
        _ => return Err(Refusal::entry("a checksum and its algorithm belong together")),
    };
    Ok(ManifestFile { path, size, modified, checksum })
}

/// Reads the entry of a range of WAL, from behind its `{`.
pub(super) fn wal_range(body: &[u8]) -> Result<WalRange, Refusal> {
    let [Some(timeline), Some(start), Some(end)] =
        fields(body, ["Timeline", "Start-LSN", "End-LSN"])?
    else {
        return Err(Refusal::entry("a range of WAL has a timeline, a start and an end"));
    };
    let timeline: Result<TimelineId, TimelineParseError> = timeline.parse();
    let lsn = |text: &str| -> Result<Lsn, Refusal> {
        text.parse().map_err(|err: LsnParseError| Refusal::entry(err.to_string()))
    };
    Ok(WalRange {
        timeline: timeline.map_err(|err| Refusal::entry(err.to_string()))?,
        start: lsn(&start)?,
        end: lsn(&end)?,
    })
}

/// A number of decimal digits and nothing else.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}
