//! The user who is to own what is restored, and run the server from it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

/// A user of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// The name, or the number of a user without one.
    pub name: String,
    /// The user's number.
    pub uid: u32,
    /// The number of the user's own group.
    pub gid: u32,
    /// The numbers of all groups the user belongs to.
    groups: Vec<u32>,
}

/// What a user may do with a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Permission {
    Read,
    /// Or run, for a file.
    Enter,
}

impl Owner {
    /// The user with this name; `None` if there is none.
    ///
    /// Asks the files of the machine, and for users who come from a directory service `id`.
    pub fn by_name(name: &str) -> Option<Self> {
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let groups = fs::read_to_string("/etc/group").unwrap_or_default();
        Self::in_files(&passwd, &groups, |fields| fields.first() == Some(&name))
            .or_else(|| Self::from_id(name))
    }

    /// The user with this number, named or not.
    pub fn by_uid(uid: u32, gid: u32) -> Self {
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let groups = fs::read_to_string("/etc/group").unwrap_or_default();
        let number = uid.to_string();
        Self::in_files(&passwd, &groups, |fields| fields.get(2) == Some(&number.as_str()))
            .or_else(|| Self::from_id(&number))
            .unwrap_or(Self { name: number, uid, gid, groups: vec![gid] })
    }

    /// The user who runs this program.
    pub fn current() -> Self {
        Self::by_uid(rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
    }

    /// The user who owns a file or directory.
    ///
    /// # Errors
    /// If it cannot be looked at.
    pub fn of(path: &Path) -> std::io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::by_uid(metadata.uid(), metadata.gid()))
    }

    /// The numbers of all groups the user belongs to.
    pub fn groups(&self) -> &[u32] {
        &self.groups
    }

    /// Whether this is the superuser.
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    fn in_files(passwd: &str, groups: &str, wanted: impl Fn(&[&str]) -> bool) -> Option<Self> {
        let lines = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let fields = lines.into_iter().find(|fields| fields.len() >= 4 && wanted(fields))?;
        let [name, _, uid, gid, ..] = fields.as_slice() else { return None };
        let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
        let member_of = |line: &str| {
            let mut fields = line.split(':');
            let id = fields.nth(2)?.parse().ok()?;
            fields.next()?.split(',').any(|member| member == *name).then_some(id)
        };
        let mut all: Vec<u32> = groups.lines().filter_map(member_of).collect();
        all.push(gid);
        Some(Self { name: (*name).to_owned(), uid, gid, groups: all })
    }

    fn from_id(name: &str) -> Option<Self> {
        // An option is no user.
        if name.is_empty() || name.starts_with('-') {
            return None;
        }
        let ask = |what: &str| {
            let output = Command::new("id").args([what, name]).output().ok()?;
            output.status.success().then(|| String::from_utf8(output.stdout).ok()).flatten()
        };
        let groups = ask("-G")?.split_whitespace().filter_map(|id| id.parse().ok()).collect();
        Some(Self {
            name: ask("-un")?.trim().to_owned(),
            uid: ask("-u")?.trim().parse().ok()?,
            gid: ask("-g")?.trim().parse().ok()?,
            groups,
        })
    }

    /// Whether this user may read a file, or list a directory, by the permissions of it and of all
    /// directories above it.
    pub fn can_read(&self, path: &Path) -> bool {
        let Ok(path) = path.canonicalize() else { return false };
        // What is in a directory is read only by those who may also enter it.
        let enter = if path.is_dir() { Some(path.as_path()) } else { path.parent() };
        self.may(&path, Permission::Read) && enter.is_some_and(|enter| self.can_reach(enter))
    }

    /// Whether this user gets into a directory, by the permissions of it and of all above it.
    pub fn can_reach(&self, path: &Path) -> bool {
        let Ok(path) = path.canonicalize() else { return false };
        path.ancestors().all(|above| self.may(above, Permission::Enter))
    }

    /// Whether this user can run a program.
    pub fn can_run(&self, program: &Path) -> bool {
        let Ok(program) = program.canonicalize() else { return false };
        program.is_file() && program.ancestors().all(|above| self.may(above, Permission::Enter))
    }

    fn may(&self, path: &Path, permission: Permission) -> bool {
        if self.is_root() {
            return true;
        }
        let Ok(metadata) = fs::metadata(path) else { return false };
        let bit = match permission {
            Permission::Read => 0o4,
            Permission::Enter => 0o1,
        };
        // The first class that fits decides, even if a later one would allow more.
        let shift = if metadata.uid() == self.uid {
            6
        } else if metadata.gid() == self.gid || self.groups.contains(&metadata.gid()) {
            3
        } else {
            0
        };
        metadata.mode() & (bit << shift) != 0
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\n\nbroken\npostgres:x:70:71:a,b:/var:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nssl:x:102:a,postgres\nbackup:x:34:postgresql\n";

    #[test]
    fn users_are_found_with_their_groups() {
        let found = Owner::in_files(PASSWD, GROUP, |fields| fields[0] == "postgres").unwrap();
        assert_eq!((found.uid, found.gid), (70, 71));
        assert_eq!(found.groups, [102, 71]);
        assert_eq!(Owner::in_files(PASSWD, GROUP, |fields| fields[0] == "broken"), None);
    }

    #[test]
    fn nobody_is_called_by_an_option() {
        assert_eq!(Owner::by_name(""), None);
        assert_eq!(Owner::by_name("-u"), None);
        assert_eq!(Owner::by_name("no such user, surely"), None);
        assert!(Owner::by_name("root").unwrap().is_root());
    }

    #[test]
    fn the_first_class_that_fits_decides() {
        let dir = tempfile::tempdir().unwrap();
        let metadata = fs::metadata(dir.path()).unwrap();
        let user = |uid, gid| Owner { name: "x".to_owned(), uid, gid, groups: vec![gid] };
        let (owner, group) = (metadata.uid(), metadata.gid());
        let set = |mode| {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
        };
        set(0o750);
        assert!(!user(owner + 1, group + 1).may(dir.path(), Permission::Read));
        assert!(user(owner + 1, group).may(dir.path(), Permission::Read));
        set(0o705);
        assert!(!user(owner + 1, group).may(dir.path(), Permission::Enter));
        assert!(user(owner + 1, group + 1).may(dir.path(), Permission::Enter));
        assert!(!user(owner + 1, group + 1).can_read(&dir.path().join("absent")));
    }
}
