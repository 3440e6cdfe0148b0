//! The password of a new server, in a file like `~/.pgpass` beside the configuration.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

use pgwire_stream::{Config, Endpoint, Host};

use super::WriteError;

/// What the file is called.
pub const PASSWORD_FILE: &str = "pgpass";

/// Notes the password of the conninfo's role on each of its hosts, instead of the one that was
/// noted before. Nobody but the file's owner may read it: who owns the store, because its daemon
/// needs the password.
pub fn write_password(
    file: &Path,
    home: &Path,
    config: &Config,
    password: &str,
) -> Result<(), WriteError> {
    let replaced = || -> io::Result<()> {
        let before = match fs::read_to_string(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read?,
        };
        let whose = whose(config);
        let other = |line: &&str| !whose.iter().any(|whose| line.starts_with(whose.as_str()));
        let mut text: String =
            before.lines().filter(other).map(|line| format!("{line}\n")).collect();
        for whose in &whose {
            text.push_str(&format!("{whose}{}\n", field(password)));
        }
        let new = file.with_extension("new");
        // One that was left behind may be somebody else's.
        let _ = fs::remove_file(&new);
        let mut opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        if let Ok(home) = fs::metadata(home)
            && home.uid() != opened.metadata()?.uid()
        {
            fchown(&opened, Some(home.uid()), Some(home.gid()))?;
        }
        opened.write_all(text.as_bytes())?;
        opened.sync_all()?;
        fs::rename(new, file)
    };
    replaced().map_err(|source| WriteError::new(file, source))
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
        let other = "db2:5432:*:other:theirs\n";
        fs::write(&file, other).unwrap();
        // The first line that fits counts, so a wrong one does not stay.
        write_password(&file, directory.path(), &config, "wrong").unwrap();
        write_password(&file, directory.path(), &config, password).unwrap();
        assert!(fs::read_to_string(&file).unwrap().starts_with(other));
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
