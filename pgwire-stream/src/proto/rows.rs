//! Result sets in text format, the only one that replication commands use.

use bytes::Bytes;
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{DataRowBody, RowDescriptionBody};

use crate::{DecodeError, Violation};

/// The names of a result set's columns, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns(Vec<String>);

impl Columns {
    pub(super) fn decode(body: &RowDescriptionBody) -> Result<Self, DecodeError> {
        body.fields().map(|field| Ok(field.name().to_owned())).collect().map(Self).map_err(|_| {
            DecodeError { message: "RowDescription", problem: "its fields do not fit its length" }
        })
    }

    /// The names.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// Where the column of this name stands. Replication commands may gain columns in later
    /// versions, so columns are found by name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|column| column == name)
    }
}

/// One row: a value or NULL for each column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row(Vec<Option<Bytes>>);

impl Row {
    pub(super) fn decode(body: &DataRowBody) -> Result<Self, DecodeError> {
        let error =
            || DecodeError { message: "DataRow", problem: "its fields do not fit its length" };
        let buffer = body.buffer_bytes();
        let mut ranges = body.ranges();
        let mut values = Vec::new();
        while let Some(range) = ranges.next().map_err(|_| error())? {
            values.push(match range {
                Some(range) if range.end <= buffer.len() => Some(buffer.slice(range)),
                Some(_) => return Err(error()),
                None => None,
            });
        }
        Ok(Self(values))
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
