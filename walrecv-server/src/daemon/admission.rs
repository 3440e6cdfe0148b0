//! Who may ask the daemon for what.

use crate::restore::Owner;

/// The superuser, who could read the store anyway.
const ROOT: u32 = 0;

/// What somebody may want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    /// Everything the daemon can tell.
    Control,
    /// WAL files, for a restored server.
    ReadWal,
}

/// Who is let in: root and the owner of the store to everything, the configured readers to WAL.
#[derive(Clone, Debug)]
pub(super) struct Admission {
    /// Who owns the store.
    pub(super) owner: u32,
    /// Names or numbers, as configured.
    pub(super) readers: Vec<String>,
}

impl Admission {
    /// Whether the user with this number has this right.
    ///
    /// Names are looked up each time: an administrator who adds a user need not restart anything.
    pub(super) fn admits(&self, uid: u32, right: Right) -> bool {
        self.admits_with(uid, right, |name| Owner::by_name(name).map(|user| user.uid))
    }

    fn admits_with(&self, uid: u32, right: Right, lookup: impl Fn(&str) -> Option<u32>) -> bool {
        if uid == ROOT || uid == self.owner {
            return true;
        }
        // A name that is a number is a user without a name, unless there is one called so.
        let number = |reader: &str| lookup(reader).or_else(|| reader.parse().ok());
        right == Right::ReadWal && self.readers.iter().any(|reader| number(reader) == Some(uid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_get_wal_and_nothing_else() {
        let admission =
            Admission { owner: 500, readers: vec!["postgres".into(), "7".into(), "gone".into()] };
        let users = |name: &str| (name == "postgres").then_some(70);
        for (uid, control, wal) in [
            (0, true, true),
            (500, true, true),
            (70, false, true),
            (7, false, true),
            (8, false, false),
            (65534, false, false),
        ] {
            assert_eq!(admission.admits_with(uid, Right::Control, users), control, "{uid}");
            assert_eq!(admission.admits_with(uid, Right::ReadWal, users), wal, "{uid}");
        }
    }

    #[test]
    fn without_readers_only_root_and_the_owner_are_served() {
        let admission = Admission { owner: 500, readers: Vec::new() };
        assert!(admission.admits(500, Right::Control));
        assert!(!admission.admits(12_345, Right::ReadWal));
    }
}
