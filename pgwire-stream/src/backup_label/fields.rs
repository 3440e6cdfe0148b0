//! The lines of `backup_label` and of backup history files: `KEY: value`.

use super::BackupLabelError;

/// Every key that is known. What stands on other lines is passed over, as the server does: a label
/// with a line break in it makes such lines, and later versions may add some.
const KEYS: [&str; 12] = [
    "START WAL LOCATION",
    "STOP WAL LOCATION",
    "CHECKPOINT LOCATION",
    "BACKUP METHOD",
    "BACKUP FROM",
    "START TIME",
    "LABEL",
    "START TIMELINE",
    "STOP TIME",
    "STOP TIMELINE",
    "INCREMENTAL FROM LSN",
    "INCREMENTAL FROM TLI",
];

#[derive(Debug)]
struct Field<'a> {
    key: &'static str,
    line: usize,
    value: &'a [u8],
}

/// The lines by their keys.
#[derive(Debug)]
pub(super) struct Fields<'a>(Vec<Field<'a>>);

impl<'a> Fields<'a> {
    /// # Errors
    /// If a key is there twice, or the last line is cut short.
    pub(super) fn of(content: &'a [u8]) -> Result<Self, BackupLabelError> {
        let Some(lines) = content.strip_suffix(b"\n") else {
            let line = content.iter().filter(|&&byte| byte == b'\n').count() + 1;
            return Err(BackupLabelError::Unterminated { line });
        };
        let mut fields: Vec<Field<'a>> = Vec::new();
        for (index, text) in lines.split(|&byte| byte == b'\n').enumerate() {
            let line = index + 1;
            let Some((key, value)) = KEYS.into_iter().find_map(|key| {
                Some((key, text.strip_prefix(key.as_bytes())?.strip_prefix(b": ")?))
            }) else {
                continue;
            };
            if fields.iter().any(|field| field.key == key) {
                return Err(BackupLabelError::Repeated { line, key });
            }
            fields.push(Field { key, line, value });
        }
        Ok(Self(fields))
    }

    /// The value of a line that may be missing.
    ///
    /// # Errors
    /// If `read` does not understand the value.
    pub(super) fn optional<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&'a [u8]) -> Option<T>,
    ) -> Result<Option<T>, BackupLabelError> {
        self.0
            .iter()
            .find(|field| field.key == key)
            .map(|field| read(field.value).ok_or(BackupLabelError::Value { line: field.line, key }))
            .transpose()
    }

    /// The value of a line that has to be there.
    ///
    /// # Errors
    /// If it is not, or `read` does not understand its value.
    pub(super) fn required<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&'a [u8]) -> Option<T>,
    ) -> Result<T, BackupLabelError> {
        self.optional(key, read)?.ok_or(BackupLabelError::Missing { key })
    }
}

/// A value that is text of a type of ours.
pub(super) fn text<T: std::str::FromStr>(value: &[u8]) -> Option<T> {
    str::from_utf8(value).ok()?.parse().ok()
}
