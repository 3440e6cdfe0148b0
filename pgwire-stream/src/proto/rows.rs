//! Result sets in text format, the only one that replication commands use.

use bytes::{BufMut, Bytes, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{DataRowBody, Fields};

use super::frame::{TOO_LONG, put_text};
use crate::{Misuse, Violation};

/// One column of a result set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The OID of its type in `pg_type`, such as 25 for `text`.
    pub type_oid: u32,
}

/// The columns of a result set, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns(Vec<Column>);

/// The OID of `text`.
const TEXT: u32 = 25;

impl Columns {
    /// Columns of type `text` with these names.
    pub fn of_text(names: &[&str]) -> Self {
        names.iter().map(|name| Column { name: (*name).to_owned(), type_oid: TEXT }).collect()
    }

    /// # Errors
    /// If the fields are malformed.
    pub(super) fn from_fields(fields: Fields<'_>) -> std::io::Result<Self> {
        fields
            .map(|field| Ok(Column { name: field.name().to_owned(), type_oid: field.type_oid() }))
            .collect()
            .map(Self)
    }

    /// # Errors
    /// If there are too many, or a name contains a zero byte.
    pub(super) fn encode(&self, out: &mut BytesMut) -> Result<(), Misuse> {
        out.put_i16(i16::try_from(self.0.len()).map_err(|_| TOO_LONG)?);
        for column in &self.0 {
            put_text(&column.name, out)?;
            // Of no table.
            out.put_slice(&[0; 6]);
            out.put_u32(column.type_oid);
            out.put_i16(type_length(column.type_oid));
            // No modifier; text format.
            out.put_i32(-1);
            out.put_i16(0);
        }
        Ok(())
    }

    /// The names.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(|column| column.name.as_str())
    }

    /// Where the column of this name stands. Replication commands may gain columns in later
    /// versions, so columns are found by name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.names().position(|column| column == name)
    }
}

impl FromIterator<Column> for Columns {
    fn from_iter<I: IntoIterator<Item = Column>>(columns: I) -> Self {
        Self(columns.into_iter().collect())
    }
}

/// How long values of this type are in the server's memory; -1 where that varies.
fn type_length(type_oid: u32) -> i16 {
    match type_oid {
        20 => 8,
        23 | 26 => 4,
        _ => -1,
    }
}

/// One row: a value or NULL for each column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row(Vec<Option<Bytes>>);

impl Row {
    /// A row of texts; `None` is NULL.
    pub fn of_text(values: &[Option<&str>]) -> Self {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        values.iter().map(|value| value.map(bytes)).collect()
    }

    pub(super) fn decode(body: &DataRowBody) -> Option<Self> {
        let buffer = body.buffer_bytes();
        let mut ranges = body.ranges();
        let mut values = Vec::new();
        while let Some(range) = ranges.next().ok()? {
            values.push(match range {
                Some(range) if range.end <= buffer.len() => Some(buffer.slice(range)),
                Some(_) => return None,
                None => None,
            });
        }
        Some(Self(values))
    }

    /// # Errors
    /// If there are too many values, or one is too long.
    pub(super) fn encode(&self, out: &mut BytesMut) -> Result<(), Misuse> {
        out.put_i16(i16::try_from(self.0.len()).map_err(|_| TOO_LONG)?);
        for value in &self.0 {
            match value {
                Some(value) => {
                    out.put_i32(i32::try_from(value.len()).map_err(|_| TOO_LONG)?);
                    out.put_slice(value);
                }
                None => out.put_i32(-1),
            }
        }
        Ok(())
    }

    /// How many columns the row has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the row has no columns.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How much memory the row takes, about.
    pub fn memory(&self) -> usize {
        let values = self.0.iter().flatten().map(Bytes::len).sum::<usize>();
        values + self.0.len() * size_of::<Option<Bytes>>()
    }

    /// The bytes of a column; `None` for NULL and for a column that the row does not have.
    pub fn bytes(&self, column: usize) -> Option<&Bytes> {
        self.0.get(column)?.as_ref()
    }

    /// The text of a column; `None` also where it is not UTF-8.
    pub fn text(&self, column: usize) -> Option<&str> {
        str::from_utf8(self.bytes(column)?).ok()
    }
}

impl FromIterator<Option<Bytes>> for Row {
    fn from_iter<I: IntoIterator<Item = Option<Bytes>>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

/// The rows of one command's answer, by column name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResultSet {
    /// The command's name, for messages.
    pub command: &'static str,
    /// The columns.
    pub columns: Columns,
    /// The rows.
    pub rows: Vec<Row>,
}

impl ResultSet {
    /// The text of the first row's first column: the answer of a query that asks for one value.
    /// `None` for no row and for NULL.
    pub fn single(&self) -> Option<&str> {
        self.rows.first()?.text(0)
    }

    /// The bytes of a column in the first row; `None` for NULL.
    ///
    /// # Errors
    /// If there is no such column or no row.
    pub fn bytes(&self, column: &'static str) -> Result<Option<&Bytes>, Violation> {
        let error = Violation::Column { command: self.command, column };
        match (self.columns.position(column), self.rows.first()) {
            (Some(position), Some(row)) => Ok(row.bytes(position)),
            _ => Err(error),
        }
    }

    /// A column of the first row, parsed; `None` for NULL.
    ///
    /// # Errors
    /// If there is no such column, no row, or the value cannot be parsed.
    pub fn parsed<T: std::str::FromStr>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, Violation> {
        let error = || Violation::Column { command: self.command, column };
        self.bytes(column)?
            .map(|value| str::from_utf8(value).ok().and_then(|text| text.parse().ok()))
            .map(|parsed| parsed.ok_or_else(error))
            .transpose()
    }

    /// A column of the first row that must not be NULL, parsed.
    ///
    /// # Errors
    /// As [`ResultSet::parsed`], and for NULL.
    pub fn required<T: std::str::FromStr>(&self, column: &'static str) -> Result<T, Violation> {
        self.parsed(column)?.ok_or(Violation::Column { command: self.command, column })
    }
}
