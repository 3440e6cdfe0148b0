//! The password of a new server, in a file like `~/.pgpass` beside the configuration.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

use pgwire_stream::{Config, Endpoint, Host};
use zeroize::Zeroizing;

use super::WriteError;

/// What the file is called.
pub const PASSWORD_FILE: &str = "pgpass";

/// Notes the password of the conninfo's role on each of its hosts, in front: the first line that fits
/// counts. What was noted of the role there before goes.
///
/// Nobody but the file's owner may read it: whose it was before, or else who owns the store, because
/// its daemon needs the password.
pub fn write_password(
    file: &Path,
    home: &Path,
    config: &Config,
    password: &str,
) -> Result<(), WriteError> {
    // Where it is a link, what it leads to is changed.
    let file = &fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let new = file.with_extension("new");
    let replaced = || -> io::Result<()> {
        let before = match fs::read(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Zeroizing::default(),
            read => Zeroizing::new(read?),
        };
        let mut text = Zeroizing::new(Vec::with_capacity(before.len() + 4096));
        let whose = whose(config);
        for whose in &whose {
            text.extend_from_slice(whose.as_bytes());
            text.extend_from_slice(field(password).as_bytes());
            text.push(b'\n');
        }
        let is_older = |line: &[u8]| whose.iter().any(|whose| line.starts_with(whose.as_bytes()));
        for line in before.split_inclusive(|byte| *byte == b'\n').filter(|line| !is_older(line)) {
            text.extend_from_slice(line);
        }
        // One that was left behind may be somebody else's.
        let _ = fs::remove_file(&new);
        let mut opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        let owner = fs::metadata(file).or_else(|_| fs::metadata(home));
        if let Ok(owner) = owner
            && owner.uid() != opened.metadata()?.uid()
        {
            fchown(&opened, Some(owner.uid()), Some(owner.gid()))?;
        }
        opened.write_all(&text)?;
        opened.sync_all()?;
        fs::rename(&new, file)?;
        file.parent().map_or(Ok(()), |directory| fs::File::open(directory)?.sync_all())
    };
    replaced().map_err(|source| {
        // There are passwords in it.
        let _ = fs::remove_file(&new);
        WriteError::new(file, source)
    })
}

/// What the lines begin with that tell of this role: one for each host.
fn whose(config: &Config) -> Vec<String> {
    let user = config.user.as_deref().unwrap_or("*");
    let line = |host: &Host| {
        let name = match &host.endpoint {
            Endpoint::Tcp { name, .. } => name.clone(),
            Endpoint::Unix(directory) => directory.display().to_string(),
            _ => "*".to_owned(),
        };
        format!("{}:{}:*:{}:", field(&name), host.port, field(user))
    };
    config.hosts.iter().map(line).collect()
}

fn field(text: &str) -> String {
    text.replace('\\', "\\\\").replace(':', "\\:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_the_library_reads() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(PASSWORD_FILE);
        let config: Config = "host=db1,::1 port=5433 user='back:up'".parse().unwrap();
        let password = r"it's: a \ secret";
        // The first line that fits counts, so neither a wrong one nor one for everybody does.
        let others = b"# \xff theirs\n*:*:replication:*:old\ndb2:5432:*:other:theirs\n";
        let elsewhere = directory.path().join("elsewhere");
        fs::write(&elsewhere, others).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
        write_password(&file, directory.path(), &config, "wrong").unwrap();
        write_password(&file, directory.path(), &config, password).unwrap();
        assert!(fs::read(&elsewhere).unwrap().ends_with(others));
        assert!(file.is_symlink());
        assert_eq!(fs::read(&file).unwrap().split(|b| *b == b'\n').count(), 6);
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
        let loaded = Config::load(&format!(
            "host=db1,::1 port=5433 user='back:up' passfile='{}'",
            file.display()
        ));
        let loaded = loaded.unwrap();
        for host in &loaded.hosts {
            let found = loaded.password_for(host).map(|password| password.as_bytes());
            assert_eq!(found, Some(password.as_bytes()), "{host:?}");
        }
    }
}
