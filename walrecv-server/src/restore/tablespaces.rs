//! Where the tablespaces of a backup go.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Serialize;

use crate::catalog::Tablespace;
use crate::failure::{Class, Failure};

/// `--tablespace NAME|OID|LOCATION:DIRECTORY`: where one tablespace goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablespaceMapping {
    /// Which one: its name, its number, or its directory on the server.
    pub tablespace: String,
    /// Its directory here.
    pub directory: PathBuf,
}

/// A tablespace and the directory it is restored into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlacedTablespace {
    /// Its object identifier.
    pub oid: u32,
    /// Its name, if it is known.
    pub name: Option<String>,
    /// Its directory on the server.
    pub location: String,
    /// Its directory here.
    pub directory: PathBuf,
    /// Whether it is a directory within the data directory, as servers from 15 on have them for
    /// tests (`allow_in_place_tablespaces`), and not a link.
    pub in_place: bool,
}

/// Why the tablespaces cannot be placed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// Not two parts.
    #[error("`{text}` is not of the form TABLESPACE:DIRECTORY with an absolute directory")]
    Form {
        /// What was typed.
        text: String,
    },
    /// The backup has no such tablespace.
    #[error("the backup has no tablespace `{tablespace}`")]
    Unknown {
        /// What was asked for.
        tablespace: String,
        /// What the backup has.
        known: Vec<String>,
    },
    /// One tablespace, two directories.
    #[error("tablespace `{tablespace}` is to go to two directories")]
    Twice {
        /// Which one.
        tablespace: String,
    },
    /// It is a directory of the data directory and stays one.
    #[error("tablespace `{tablespace}` lies within the data directory and cannot be moved")]
    InPlace {
        /// Which one.
        tablespace: String,
    },
}

impl Failure for MappingError {
    fn class(&self) -> Class {
        Class::Usage
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Form { .. } => Some("for example `--tablespace 16386:/srv/fast`".to_owned()),
            Self::Unknown { known, .. } if known.is_empty() => {
                Some("it has none beside its data directory".to_owned())
            }
            Self::Unknown { known, .. } => Some(format!("it has {}", known.join(", "))),
            Self::Twice { .. } => None,
            Self::InPlace { .. } => Some("leave its --tablespace away".to_owned()),
        }
    }
}

impl FromStr for TablespaceMapping {
    type Err = MappingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || MappingError::Form { text: text.chars().take(200).collect() };
        // The directory is absolute, which tells its colon from one in the location.
        let at = text.rfind(":/").filter(|&at| at > 0).ok_or_else(form)?;
        let (tablespace, directory) = text.split_at(at);
        let directory = directory.strip_prefix(':').ok_or_else(form)?;
        Ok(Self { tablespace: tablespace.to_owned(), directory: PathBuf::from(directory) })
    }
}

/// Finds a directory for every tablespace: the one asked for, else the one it had.
///
/// # Errors
/// If a mapping fits no tablespace, or two fit one.
pub(super) fn place(
    tablespaces: &[Tablespace],
    mappings: &[TablespaceMapping],
    destination: &Path,
) -> Result<Vec<PlacedTablespace>, MappingError> {
    let mut wanted: Vec<Option<&Path>> = vec![None; tablespaces.len()];
    for mapping in mappings {
        let fits = |tablespace: &Tablespace| {
            tablespace.name.as_deref() == Some(&mapping.tablespace)
                || tablespace.oid.to_string() == mapping.tablespace
                || tablespace.location == mapping.tablespace
        };
        let found = tablespaces.iter().zip(&mut wanted).find(|(tablespace, _)| fits(tablespace));
        let Some((tablespace, directory)) = found else {
            let known = tablespaces.iter().map(shown).collect();
            return Err(MappingError::Unknown { tablespace: mapping.tablespace.clone(), known });
        };
        if is_in_place(tablespace) {
            return Err(MappingError::InPlace { tablespace: mapping.tablespace.clone() });
        }
        if directory.replace(&mapping.directory).is_some() {
            return Err(MappingError::Twice { tablespace: mapping.tablespace.clone() });
        }
    }
    let place = |(tablespace, wanted): (&Tablespace, Option<&Path>)| {
        let in_place = is_in_place(tablespace);
        // Named by its number, whatever a record may say of its location.
        let inside = || destination.join(format!("pg_tblspc/{}", tablespace.oid));
        PlacedTablespace {
            oid: tablespace.oid,
            name: tablespace.name.clone(),
            location: tablespace.location.clone(),
            directory: match wanted {
                Some(wanted) => wanted.to_owned(),
                None if in_place => inside(),
                None => PathBuf::from(&tablespace.location),
            },
            in_place,
        }
    };
    Ok(tablespaces.iter().zip(wanted).map(place).collect())
}

/// Servers say the location of such a tablespace relative to the data directory.
fn is_in_place(tablespace: &Tablespace) -> bool {
    !tablespace.location.starts_with('/')
}

fn shown(tablespace: &Tablespace) -> String {
    let Tablespace { oid, name, location } = tablespace;
    match name {
        Some(name) => format!("`{name}` ({oid}, `{location}`)"),
        None => format!("`{oid}` (`{location}`)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(text: &str) -> TablespaceMapping {
        text.parse().unwrap()
    }

    fn tablespaces() -> Vec<Tablespace> {
        let tablespace = |oid, name: Option<&str>, location: &str| Tablespace {
            oid,
            name: name.map(str::to_owned),
            location: location.to_owned(),
        };
        vec![
            tablespace(16386, Some("fast"), "/srv/fast"),
            tablespace(16400, None, "/srv/b:/c"),
            tablespace(16401, None, "pg_tblspc/16401"),
        ]
    }

    fn directories(mappings: &[&str]) -> Result<Vec<PathBuf>, MappingError> {
        let mappings: Vec<_> = mappings.iter().map(|text| mapping(text)).collect();
        let placed = place(&tablespaces(), &mappings, Path::new("/data"))?;
        Ok(placed.into_iter().map(|tablespace| tablespace.directory).collect())
    }

    #[test]
    fn a_tablespace_goes_by_name_number_or_location() {
        for one in ["fast:/x", "16386:/x", "/srv/fast:/x"] {
            assert_eq!(
                directories(&[one, "/srv/b:/c:/y"]).unwrap(),
                [Path::new("/x"), Path::new("/y"), Path::new("/data/pg_tblspc/16401")]
            );
        }
        assert_eq!(
            directories(&[]).unwrap(),
            [Path::new("/srv/fast"), Path::new("/srv/b:/c"), Path::new("/data/pg_tblspc/16401")]
        );
    }

    #[test]
    fn what_fits_nothing_or_twice_is_refused() {
        let unknown = directories(&["slow:/x"]).unwrap_err();
        assert_eq!(unknown.to_string(), "the backup has no tablespace `slow`");
        assert!(unknown.hint().unwrap().starts_with("it has `fast` (16386, `/srv/fast`), "));
        let twice = directories(&["fast:/x", "16386:/y"]).unwrap_err();
        assert!(matches!(twice, MappingError::Twice { .. }));
        assert!(matches!(directories(&["16401:/x"]), Err(MappingError::InPlace { .. })));
        for bad in ["", "fast", "fast:", "fast:relative", ":/x", "/x"] {
            assert!(bad.parse::<TablespaceMapping>().is_err(), "{bad}");
        }
    }
}
