//! Where a restore may write: a directory that is empty or not there yet, that the server's user
//! can reach and own, and that has nothing to do with the store.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::Access as Wanted;

use super::owner::Owner;
use crate::failure::{Class, Failure};
use crate::storage::StorageError;

/// Why a directory cannot be restored into.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    /// Something is in it.
    #[error("`{}` is not empty", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// It is a file.
    #[error("`{}` is not a directory", path.display())]
    NotADirectory {
        /// What it is called.
        path: PathBuf,
    },
    /// It lies in the store, or the store in it.
    #[error("`{}` lies inside the store `{}`", path.display(), home.display())]
    InsideStore {
        /// The directory.
        path: PathBuf,
        /// The store.
        home: PathBuf,
    },
    /// Two directories of one restore lie in one another.
    #[error("`{}` and `{}` lie in one another", path.display(), other.display())]
    Nested {
        /// A directory.
        path: PathBuf,
        /// Another.
        other: PathBuf,
    },
    /// There is no directory to make it in.
    #[error("`{}` cannot be made, because `{}` does not exist", path.display(), parent.display())]
    NoParent {
        /// The directory.
        path: PathBuf,
        /// The one that is missing.
        parent: PathBuf,
    },
    /// We may not write there.
    #[error("`{}` cannot be written into", path.display())]
    Unwritable {
        /// The directory.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A server wants to own its data directory.
    #[error("`{}` belongs to `{theirs}`, and the server will run as `{ours}`", path.display())]
    ForeignOwner {
        /// The directory.
        path: PathBuf,
        /// Who owns it.
        theirs: String,
        /// Who is to run the server.
        ours: String,
    },
    /// A directory above it is closed to the server's user.
    #[error("the user `{owner}` cannot reach `{}`", path.display())]
    Unreachable {
        /// The directory.
        path: PathBuf,
        /// Who is to run the server.
        owner: String,
    },
    /// It cannot be looked at.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Failure for DestinationError {
    fn class(&self) -> Class {
        match self {
            Self::Storage(error) => error.class(),
            Self::Unwritable { .. } => Class::Failed,
            _ => Class::Refused,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotEmpty { .. } => {
                "name a directory that is empty or does not exist; what is in this one is never \
                 overwritten"
                    .to_owned()
            }
            Self::NotADirectory { .. } | Self::InsideStore { .. } | Self::Nested { .. } => {
                "name another directory".to_owned()
            }
            Self::NoParent { parent, .. } => format!("create `{}` first", parent.display()),
            Self::Unwritable { .. } => {
                "run this as root with --owner, or as a user who may write there".to_owned()
            }
            Self::ForeignOwner { theirs, .. } => format!(
                "remove the directory so that it is made anew, run this as `{theirs}`, or run it \
                 as root with --owner"
            ),
            Self::Unreachable { owner, .. } => {
                format!(
                    "give `{owner}` the right to enter the directories above it, or name another"
                )
            }
            Self::Storage(error) => return error.hint(),
        })
    }
}

/// What lies at a path that is to be restored into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The path without links and dots.
    pub(super) path: PathBuf,
    /// Whether the directory is there, empty.
    pub(super) exists: bool,
    /// The directory that is there already: itself or its parent.
    pub(super) nearest: PathBuf,
}

impl Place {
    /// Looks at a path that is to be restored into, and changes nothing.
    ///
    /// # Errors
    /// If it is anything but an empty directory or a name that is free.
    pub(super) fn look(path: &Path) -> Result<Self, DestinationError> {
        let absolute = std::path::absolute(path).map_err(StorageError::of("resolve", path))?;
        match fs::metadata(&absolute) {
            Ok(metadata) if metadata.is_dir() => Self::existing(&absolute),
            Ok(_) => Err(DestinationError::NotADirectory { path: absolute }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::absent(&absolute),
            Err(error) => Err(StorageError::of("look at", &absolute)(error).into()),
        }
    }

    fn existing(path: &Path) -> Result<Self, DestinationError> {
        let path = canonical(path)?;
        let mut entries =
            fs::read_dir(&path).map_err(StorageError::of("read the directory", &path))?;
        if entries.next().is_some() {
            return Err(DestinationError::NotEmpty { path });
        }
        Ok(Self { nearest: path.clone(), path, exists: true })
    }

    fn absent(path: &Path) -> Result<Self, DestinationError> {
        // A link that leads nowhere: what would be made is not what its name says.
        if fs::symlink_metadata(path).is_ok() {
            return Err(DestinationError::NotADirectory { path: path.to_owned() });
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(DestinationError::NotADirectory { path: path.to_owned() });
        };
        if !parent.is_dir() {
            let (path, parent) = (path.to_owned(), parent.to_owned());
            return Err(DestinationError::NoParent { path, parent });
        }
        let nearest = canonical(parent)?;
        Ok(Self { path: nearest.join(name), exists: false, nearest })
    }

    /// Who owns the directory, or will if nobody says otherwise: the owner of its parent.
    ///
    /// # Errors
    /// If the operating system does not tell.
    pub(super) fn natural_owner(&self) -> Result<Owner, DestinationError> {
        let owner = Owner::of(&self.nearest).map_err(StorageError::of("look at", &self.nearest))?;
        match self.path.parent() {
            // An empty directory of root's, made ready by hand, says less than where it lies.
            Some(parent) if self.exists && owner.is_root() => {
                Ok(Owner::of(parent).map_err(StorageError::of("look at", parent))?)
            }
            _ => Ok(owner),
        }
    }

    /// Refuses what could not be written, or what the server of `owner` would not start from.
    ///
    /// # Errors
    /// If so.
    pub(super) fn check(&self, owner: &Owner, home: &Path) -> Result<(), DestinationError> {
        let path = || self.path.clone();
        let home = canonical(home)?;
        if self.path.starts_with(&home) || home.starts_with(&self.path) {
            return Err(DestinationError::InsideStore { path: path(), home });
        }
        rustix::fs::access(&self.nearest, Wanted::WRITE_OK | Wanted::EXEC_OK).map_err(|errno| {
            DestinationError::Unwritable { path: self.nearest.clone(), source: errno.into() }
        })?;
        if self.exists && !rustix::process::geteuid().is_root() {
            let metadata =
                fs::metadata(&self.path).map_err(StorageError::of("look at", &self.path))?;
            if metadata.uid() != owner.uid {
                let theirs = Owner::by_uid(metadata.uid(), metadata.gid()).name;
                let ours = owner.name.clone();
                return Err(DestinationError::ForeignOwner { path: path(), theirs, ours });
            }
        }
        // The directory itself will be the owner's.
        let above = self.path.parent().unwrap_or(&self.path);
        if !owner.can_reach(above) {
            let owner = owner.name.clone();
            return Err(DestinationError::Unreachable { path: path(), owner });
        }
        Ok(())
    }

    /// Refuses two directories of which one contains the other.
    ///
    /// # Errors
    /// If so.
    pub(super) fn check_apart(&self, other: &Self) -> Result<(), DestinationError> {
        if self.path.starts_with(&other.path) || other.path.starts_with(&self.path) {
            let (path, other) = (self.path.clone(), other.path.clone());
            return Err(DestinationError::Nested { path, other });
        }
        Ok(())
    }
}

fn canonical(path: &Path) -> Result<PathBuf, StorageError> {
    path.canonicalize().map_err(StorageError::of("resolve", path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_empty_or_absent_directory_will_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        let empty = Place::look(&path).unwrap();
        assert_eq!(empty, Place { path: path.clone(), exists: true, nearest: path.clone() });
        let absent = Place::look(&path.join("data")).unwrap();
        assert_eq!(absent, Place { path: path.join("data"), exists: false, nearest: path.clone() });
        let home = tempfile::tempdir().unwrap();
        absent.check(&Owner::current(), home.path()).unwrap();
        assert!(!path.join("data").exists());
    }

    #[test]
    fn anything_else_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        fs::write(path.join("file"), b"x").unwrap();
        std::os::unix::fs::symlink(path.join("nowhere"), path.join("link")).unwrap();
        let error = |name: &str| Place::look(&path.join(name)).unwrap_err();
        assert!(matches!(Place::look(&path), Err(DestinationError::NotEmpty { .. })));
        assert!(matches!(error("file"), DestinationError::NotADirectory { .. }));
        assert!(matches!(error("link"), DestinationError::NotADirectory { .. }));
        assert!(matches!(error("a/b"), DestinationError::NoParent { .. }));
        assert_eq!(error("a/b").class(), Class::Refused);
    }

    #[test]
    fn store_and_destinations_stay_apart() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        fs::create_dir_all(home.join("main")).unwrap();
        let owner = Owner::current();
        for inside in ["home/main/x", "home/main", "home/x"] {
            let place = Place::look(&dir.path().join(inside)).unwrap();
            let error = place.check(&owner, &home).unwrap_err();
            assert!(matches!(error, DestinationError::InsideStore { .. }), "{inside}: {error}");
        }
        let place = |name: &str| Place {
            path: PathBuf::from(name),
            exists: false,
            nearest: PathBuf::from("/srv"),
        };
        place("/srv/a").check_apart(&place("/srv/ab")).unwrap();
        place("/srv/a").check_apart(&place("/srv/a/b")).unwrap_err();
        place("/srv/a/b").check_apart(&place("/srv/a")).unwrap_err();
        place("/srv/a").check_apart(&place("/srv/a")).unwrap_err();
    }

    #[test]
    fn a_directory_that_the_user_cannot_reach_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let home = tempfile::tempdir().unwrap();
        let nobody = Owner::by_uid(54_321, 54_321);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let place = Place::look(&dir.path().join("data")).unwrap();
        let error = place.check(&nobody, home.path()).unwrap_err();
        assert!(matches!(error, DestinationError::Unreachable { .. }), "{error}");
    }
}
