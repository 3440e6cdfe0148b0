//! Configuration that came with a backup, without what belongs to the machine it came from.
//!
//! A server reads `postgresql.conf`, the files that this includes, and `postgresql.auto.conf` at the
//! end. What we write there wins, but only for as long as it stands there: an `archive_command` of
//! the origin would come to life again as soon as archiving is switched on. So all that is restored
//! of the configuration is gone through, and what could do harm becomes a comment.

use std::collections::BTreeSet;

use super::beneath::Root;
use super::recovery::quoted;
use crate::storage::StorageError;

/// Larger than any configuration that a server reads in reasonable time.
pub(super) const CONF_LIMIT: u64 = 16 << 20;

/// More files than any configuration is made of.
const MOST: usize = 1000;

/// As deep as a server follows includes.
const DEEPEST: u32 = 10;

/// Settings that made sense on the machine that was backed up, and could do harm from a copy:
/// write into its archive, wait for its standbys, follow its primary, stop at its target, or even
/// start from its data directory.
const OF_THE_ORIGIN: &[&str] = &[
    "archive_cleanup_command",
    "archive_command",
    "archive_library",
    "archive_mode",
    "data_directory",
    "external_pid_file",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "recovery_end_command",
    "recovery_min_apply_delay",
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
    "restore_command",
    "standby_mode",
    "synchronous_standby_names",
    "trigger_file",
];

/// The directories that configuration is restored into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tree {
    /// The data directory.
    Data,
    /// The one beside it, where absolute paths of the origin lie below the root.
    Outside,
}

/// A file or directory in one of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Location {
    tree: Tree,
    path: Vec<u8>,
}

/// Goes through configuration files and those that they include.
pub(super) struct Neutraliser<'a> {
    data: &'a mut Root,
    outside: Option<&'a mut Root>,
    /// The mode of files in the data directory.
    file_mode: u32,
    seen: BTreeSet<Location>,
    /// What the operator should know.
    pub(super) notes: Vec<String>,
    /// `hba_file` and `ident_file`, where they are absolute: `(in which file, which)`.
    pub(super) pointers: Vec<(String, String)>,
}

impl<'a> Neutraliser<'a> {
    pub(super) fn new(data: &'a mut Root, outside: Option<&'a mut Root>, file_mode: u32) -> Self {
        let (seen, notes, pointers) = (BTreeSet::new(), Vec::new(), Vec::new());
        Self { data, outside, file_mode, seen, notes, pointers }
    }

    /// Goes through a file and those that it includes; the answer is whether it is there.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub(super) fn file(&mut self, tree: Tree, path: &[u8]) -> Result<bool, StorageError> {
        let location = Location { tree, path: path.to_vec() };
        let Some(content) = self.read(&location)? else { return Ok(false) };
        self.treat(location, &content, 0)?;
        Ok(true)
    }

    fn root(&mut self, tree: Tree) -> Option<&mut Root> {
        match tree {
            Tree::Data => Some(self.data),
            Tree::Outside => self.outside.as_deref_mut(),
        }
    }

    fn read(&mut self, at: &Location) -> Result<Option<Vec<u8>>, StorageError> {
        match self.root(at.tree) {
            Some(root) => root.read(&at.path, CONF_LIMIT),
            None => Ok(None),
        }
    }

    fn treat(&mut self, at: Location, content: &[u8], depth: u32) -> Result<(), StorageError> {
        if !self.seen.insert(at.clone()) {
            return Ok(());
        }
        let mode = if at.tree == Tree::Data { self.file_mode } else { 0o600 };
        let rewritten = rewrite(content, |kind, value| self.include(&at, kind, value, depth))?;
        let Some(root) = self.root(at.tree) else { return Ok(()) };
        let name = match at.tree {
            Tree::Data => String::from_utf8_lossy(&at.path).into_owned(),
            Tree::Outside => root.resolve(&at.path).display().to_string(),
        };
        if rewritten.content != content {
            root.replace(&at.path, &rewritten.content, mode)?;
        }
        if !rewritten.disabled.is_empty() {
            let disabled = rewritten.disabled.join(", ");
            self.notes.push(format!("turned into comments in `{name}`: {disabled}"));
        }
        self.pointers.extend(rewritten.pointers.into_iter().map(|setting| (name.clone(), setting)));
        Ok(())
    }

    /// Follows an include, as far as it leads to what was restored.
    fn include(
        &mut self,
        from: &Location,
        kind: &str,
        value: &[u8],
        depth: u32,
    ) -> Result<Include, StorageError> {
        let absolute = value.starts_with(b"/");
        let Some(target) = from.resolve(value).filter(|_| depth < DEEPEST) else {
            return Ok(Include::Gone);
        };
        let files = match kind {
            "include_dir" => self.directory(&target),
            _ => Some(vec![target.clone()]),
        };
        let mut found = files.is_some();
        for file in files.unwrap_or_default() {
            // One that cannot be read ends the server as one that is not there.
            let content = self.read(&file).ok().flatten();
            found = content.is_some() && self.seen.len() < MOST;
            match content {
                Some(content) if found => self.treat(file, &content, depth + 1)?,
                _ => break,
            }
        }
        Ok(match self.root(target.tree).map(|root| root.resolve(&target.path)) {
            Some(path) if found && absolute => match path.to_str() {
                Some(path) => Include::Moved(path.to_owned()),
                None => Include::Gone,
            },
            _ if found => Include::Kept,
            // That is what it is for.
            _ if kind == "include_if_exists" && !absolute => Include::Kept,
            _ => Include::Gone,
        })
    }

    /// The files that an `include_dir` means; `None` if there is no such directory.
    fn directory(&mut self, at: &Location) -> Option<Vec<Location>> {
        let names = self.root(at.tree)?.names(&at.path, MOST).ok()?;
        let wanted =
            names.into_iter().filter(|name| name.ends_with(b".conf") && !name.starts_with(b"."));
        let below = |name: Vec<u8>| [at.path.as_slice(), &name].join(&b'/');
        Some(wanted.map(|name| Location { tree: at.tree, path: below(name) }).collect())
    }
}

impl Location {
    /// Where a path leads that stands in this file; `None` if out of all that was restored, or if
    /// it is written with escapes.
    fn resolve(&self, value: &[u8]) -> Option<Self> {
        if value.contains(&b'\\') {
            return None;
        }
        let absolute = value.starts_with(b"/");
        let mut parts: Vec<&[u8]> = Vec::new();
        if !absolute {
            parts.extend(self.path.split(|&byte| byte == b'/'));
            parts.pop();
        }
        for part in value.split(|&byte| byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    parts.pop()?;
                }
                part => parts.push(part),
            }
        }
        let tree = if absolute { Tree::Outside } else { self.tree };
        (!parts.is_empty()).then(|| Self { tree, path: parts.join(&b'/') })
    }
}

/// What becomes of an include.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Include {
    /// It stays as it is.
    Kept,
    /// It leads here now.
    Moved(String),
    /// It leads to nothing that was restored.
    Gone,
}

/// A configuration file without the settings that belong to the machine it came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rewritten {
    /// The file, with those lines turned into comments.
    content: Vec<u8>,
    /// What was found, in the order of the file.
    disabled: Vec<String>,
    /// `hba_file` and `ident_file`, if they are absolute.
    pointers: Vec<String>,
}

/// Turns into comments what could do harm from a copy, and asks about includes.
fn rewrite<E>(
    conf: &[u8],
    mut include: impl FnMut(&str, &[u8]) -> Result<Include, E>,
) -> Result<Rewritten, E> {
    let mut rewritten = Rewritten::default();
    for line in conf.split_inclusive(|&byte| byte == b'\n') {
        let (name, value) = setting(line);
        let mut instead = None;
        match name.as_str() {
            "include" | "include_if_exists" | "include_dir" => match include(&name, &value)? {
                Include::Kept => {}
                Include::Moved(path) => instead = Some(format!("{name} {}\n", quoted(&path))),
                Include::Gone => {
                    instead = Some(String::new());
                    rewritten.disabled.push(format!("{name} {}", String::from_utf8_lossy(&value)));
                }
            },
            "hba_file" | "ident_file" if value.starts_with(b"/") => rewritten.pointers.push(name),
            known if OF_THE_ORIGIN.contains(&known) => {
                instead = Some(String::new());
                rewritten.disabled.push(name);
            }
            _ => {}
        }
        if instead.is_some() {
            rewritten.content.extend_from_slice(b"# disabled by restore: ");
        }
        rewritten.content.extend_from_slice(line);
        if !line.ends_with(b"\n") {
            rewritten.content.push(b'\n');
        }
        rewritten.content.extend_from_slice(instead.unwrap_or_default().as_bytes());
    }
    Ok(rewritten)
}

/// The lower-case name that a line sets, empty for a line that sets nothing, and the value.
fn setting(line: &[u8]) -> (String, Vec<u8>) {
    let line = line.trim_ascii_start();
    let in_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$');
    let end = line.iter().position(|byte| !in_name(byte)).unwrap_or(line.len());
    let (name, rest) = line.split_at_checked(end).unwrap_or((line, b""));
    let name = name.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect();
    let rest = rest.trim_ascii_start();
    (name, value(rest.strip_prefix(b"=").unwrap_or(rest).trim_ascii_start()))
}

/// A value without its quotes, as `GUC_scanstr` takes it apart, but with its escapes.
fn value(text: &[u8]) -> Vec<u8> {
    let Some(quoted) = text.strip_prefix(b"'") else {
        let ends = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'#';
        return text.split(ends).next().unwrap_or_default().to_vec();
    };
    let mut value = Vec::new();
    let mut bytes = quoted.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\'' if bytes.next_if_eq(&b'\'').is_none() => break,
            b'\\' => value.extend([byte].into_iter().chain(bytes.next())),
            byte => value.push(byte),
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn neutralise(conf: &[u8]) -> Rewritten {
        let kept = |_: &str, _: &[u8]| Ok::<_, Infallible>(Include::Kept);
        rewrite(conf, kept).unwrap()
    }

    /// What a file became.
    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn settings_of_the_origin_become_comments() {
        let conf = b"# primary_conninfo = 'kept'\nwork_mem = '4MB'\nPrimary_ConnInfo = 'host=x'\n \
                     archive_command='cp %p /a'\nrestore_command_x = 1\nrecovery_target_xid 7";
        let result = neutralise(conf);
        assert_eq!(result.disabled, ["primary_conninfo", "archive_command", "recovery_target_xid"]);
        insta::assert_snapshot!(String::from_utf8(result.content).unwrap(), @r"
        # primary_conninfo = 'kept'
        work_mem = '4MB'
        # disabled by restore: Primary_ConnInfo = 'host=x'
        # disabled by restore:  archive_command='cp %p /a'
        restore_command_x = 1
        # disabled by restore: recovery_target_xid 7
        ");
        assert_eq!(neutralise(b"").content, b"");
        let pointers = b"port = 1\n#hba_file = '/a'\nhba_file 'relative'\nIDENT_FILE='/etc/x'\n";
        assert_eq!(neutralise(pointers).pointers, ["ident_file"]);
    }

    #[test]
    fn values_are_read_as_by_a_server() {
        for (line, name, expected) in [
            ("include = 'a''b\\'c' # x", "include", "a'b\\'c"),
            ("  INCLUDE_DIR conf.d#x\n", "include_dir", "conf.d"),
            ("include'x'", "include", "x"),
            ("# include 'x'", "", "include"),
            ("include", "include", ""),
        ] {
            let (read, value) = setting(line.as_bytes());
            assert_eq!(read, name);
            if !name.is_empty() {
                assert_eq!(String::from_utf8(value).unwrap(), expected, "{line}");
            }
        }
    }

    #[test]
    fn includes_are_followed_as_far_as_they_were_restored() {
        let dir = tempfile::tempdir().unwrap();
        let (data, outside) = (dir.path().join("data"), dir.path().join("data.config"));
        for made in [&data.join("conf.d"), &outside.join("etc/pg/conf.d")] {
            fs::create_dir_all(made).unwrap();
        }
        let dangerous = "archive_command = 'cp'\n";
        let conf = "include_dir 'conf.d'\ninclude_if_exists 'absent'\ninclude '../out.conf'\n\
                    include '/etc/pg/extra.conf'\ninclude '/etc/other.conf'\n\
                    include_if_exists '/etc/absent.conf'\ninclude_dir '/etc/pg/conf.d'\n\
                    include 'link.conf'\ninclude 'postgresql.conf'\ninclude_dir 'gone'\n\
                    include_if_exists '\\057etc/x'\n";
        fs::write(data.join("postgresql.conf"), conf).unwrap();
        fs::write(data.join("conf.d/a.conf"), dangerous).unwrap();
        fs::write(data.join("conf.d/.hidden.conf"), dangerous).unwrap();
        fs::write(dir.path().join("out.conf"), dangerous).unwrap();
        std::os::unix::fs::symlink(dir.path().join("out.conf"), data.join("link.conf")).unwrap();
        fs::write(outside.join("etc/pg/extra.conf"), "include 'conf.d/b.conf'\n").unwrap();
        fs::write(outside.join("etc/pg/conf.d/b.conf"), dangerous).unwrap();

        let mut root = Root::open(&data, None).unwrap();
        let mut beside = Root::open(&outside, None).unwrap();
        let mut neutraliser = Neutraliser::new(&mut root, Some(&mut beside), 0o600);
        assert!(neutraliser.file(Tree::Data, b"postgresql.conf").unwrap());
        assert!(!neutraliser.file(Tree::Data, b"absent.conf").unwrap());

        let disabled = "# disabled by restore: archive_command = 'cp'\n";
        assert_eq!(read(&data.join("conf.d/a.conf")), disabled);
        assert_eq!(read(&outside.join("etc/pg/conf.d/b.conf")), disabled);
        assert_eq!(read(&data.join("conf.d/.hidden.conf")), dangerous);
        assert_eq!(read(&dir.path().join("out.conf")), dangerous);
        let beside = outside.to_str().unwrap();
        let shown = read(&data.join("postgresql.conf")).replace(beside, "BESIDE");
        insta::assert_snapshot!(shown, @r"
        include_dir 'conf.d'
        include_if_exists 'absent'
        # disabled by restore: include '../out.conf'
        # disabled by restore: include '/etc/pg/extra.conf'
        include 'BESIDE/etc/pg/extra.conf'
        # disabled by restore: include '/etc/other.conf'
        # disabled by restore: include_if_exists '/etc/absent.conf'
        # disabled by restore: include_dir '/etc/pg/conf.d'
        include_dir 'BESIDE/etc/pg/conf.d'
        # disabled by restore: include 'link.conf'
        include 'postgresql.conf'
        # disabled by restore: include_dir 'gone'
        # disabled by restore: include_if_exists '\057etc/x'
        ");
    }

    #[test]
    fn files_that_include_each_other_end_somewhere() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..30 {
            let next = format!("include 'f{}'\n", number + 1);
            fs::write(dir.path().join(format!("f{number}")), next).unwrap();
        }
        let mut root = Root::open(dir.path(), None).unwrap();
        let mut neutraliser = Neutraliser::new(&mut root, None, 0o600);
        neutraliser.file(Tree::Data, b"f0").unwrap();
        assert_eq!(neutraliser.notes, ["turned into comments in `f10`: include f11"]);
    }

    proptest! {
        #[test]
        fn neutralising_twice_changes_nothing(conf: Vec<u8>) {
            let once = neutralise(&conf);
            let twice = neutralise(&once.content);
            prop_assert_eq!(&twice.content, &once.content);
            prop_assert!(twice.disabled.is_empty());
        }
    }
}
