//! The password of a new server, in a file like `~/.pgpass` beside the configuration.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

use pgwire_stream::{Config, Endpoint, Host};

use super::WriteError;

/// What the file is called.
pub const PASSWORD_FILE: &str = "pgpass";

/// Adds the password of the conninfo's role on each of its hosts. Nobody but the file's owner may
/// read it: who owns the store, because its daemon needs the password.
pub fn write_password(
    file: &Path,
    home: &Path,
    config: &Config,
    password: &str,
) -> Result<(), WriteError> {
    let failed = |source| WriteError::new(file, source);
    let lines: String = lines(config, password).iter().map(|line| format!("{line}\n")).collect();
    let mut opened =
        OpenOptions::new().append(true).create(true).mode(0o600).open(file).map_err(failed)?;
    if let Ok(home) = fs::metadata(home)
        && home.uid() != opened.metadata().map_err(failed)?.uid()
    {
        fchown(&opened, Some(home.uid()), Some(home.gid())).map_err(failed)?;
    }
    let written = opened.write_all(lines.as_bytes()).and_then(|()| opened.sync_all());
    written.map_err(failed)
}

/// A line for each host. The first line that fits counts, so an older one has to go first.
fn lines(config: &Config, password: &str) -> Vec<String> {
    let field = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
    let user = config.user.as_deref().unwrap_or("*");
    let line = |host: &Host| {
        let name = match &host.endpoint {
            Endpoint::Tcp { name, .. } => name.clone(),
            Endpoint::Unix(directory) => directory.display().to_string(),
            _ => "*".to_owned(),
        };
        format!("{}:{}:*:{}:{}", field(&name), host.port, field(user), field(password))
    };
    config.hosts.iter().map(line).collect()
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
        write_password(&file, directory.path(), &config, password).unwrap();
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
