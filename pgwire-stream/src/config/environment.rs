//! What a process inherits: `PG*` variables, and who and where its user is.

use std::ffi::OsString;
use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::account;

use super::ConfigError;
use super::keyword::{self, KEYWORDS, Keyword};
use super::settings::Settings;

/// Where servers listen by default: in Debian's and Red Hat's packages, and in all others.
pub(super) const SOCKET_DIRECTORIES: [&str; 3] = ["/var/run/postgresql", "/run/postgresql", "/tmp"];

/// Where the system's service file is: in Debian's and Red Hat's packages, and in others.
const SYSTEM_DIRECTORIES: [&str; 3] =
    ["/etc/postgresql-common", "/etc/sysconfig/pgsql", "/usr/local/pgsql/etc"];

/// Where connections go that name no host, as far as can be said without a look at the disk.
pub(super) fn default_socket_directory() -> PathBuf {
    let [first, ..] = SOCKET_DIRECTORIES;
    PathBuf::from(first)
}

/// What a process inherits.
pub(super) struct Environment<'a> {
    /// An environment variable's value.
    pub(super) variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// The operating system's name for the user.
    pub(super) user_name: &'a dyn Fn() -> Option<String>,
    /// The user's home directory.
    pub(super) home: Option<PathBuf>,
    /// Where servers may listen, safest first.
    pub(super) socket_directories: Vec<PathBuf>,
}

impl Environment<'_> {
    /// That of this process.
    pub(super) fn of_process() -> Self {
        Self {
            variable: &|name| std::env::var_os(name),
            user_name: &process_user_name,
            home: std::env::home_dir().filter(|home| !home.as_os_str().is_empty()),
            socket_directories: SOCKET_DIRECTORIES.map(PathBuf::from).to_vec(),
        }
    }

    /// Sets from `PG*` variables what is not set yet.
    pub(super) fn fill_in(&self, settings: &mut Settings) -> Result<(), ConfigError> {
        for keyword in KEYWORDS {
            self.fill_in_one(settings, keyword)?;
        }
        const REQUIRESSL: &str = "PGREQUIRESSL";
        if !settings.contains("sslmode")
            && let Some(value) = self.text(REQUIRESSL)?
            && value.starts_with('1')
        {
            settings.set_requiressl(REQUIRESSL, &value);
        }
        Ok(())
    }

    /// Sets the service from its variable, unless it is set: it decides about all the others.
    pub(super) fn fill_in_service(&self, settings: &mut Settings) -> Result<(), ConfigError> {
        keyword::find("service").map_or(Ok(()), |keyword| self.fill_in_one(settings, keyword))
    }

    fn fill_in_one(
        &self,
        settings: &mut Settings,
        keyword: &'static Keyword,
    ) -> Result<(), ConfigError> {
        if let Some(name) = keyword.variable
            && !settings.contains(keyword.name)
            && let Some(value) = self.text(name)?
        {
            settings.set(keyword, name, value);
        }
        Ok(())
    }

    fn text(&self, name: &'static str) -> Result<Option<Zeroizing<String>>, ConfigError> {
        let Some(value) = (self.variable)(name) else { return Ok(None) };
        match value.into_string() {
            Ok(text) => Ok(Some(Zeroizing::new(text))),
            Err(_) => {
                let problem = "it must be UTF-8 text".to_owned();
                Err(ConfigError::InvalidValue { key: name, problem })
            }
        }
    }

    /// Where servers listen on this machine: the first directory that exists, whether the server's
    /// socket is there or not. Anybody can make another one in the last of them, `/tmp`, and pose
    /// as a server that is down.
    pub(super) fn socket_directory(&self) -> PathBuf {
        let mut directories = self.socket_directories.iter();
        directories
            .find(|directory| directory.is_dir())
            .cloned()
            .unwrap_or_else(default_socket_directory)
    }

    /// The file that takes the place of the user's service file.
    pub(super) fn named_service_file(&self) -> Option<PathBuf> {
        (self.variable)("PGSERVICEFILE").map(PathBuf::from)
    }

    /// Where services may be defined, first the user's file; whether they exist or not.
    pub(super) fn service_files(&self) -> Vec<PathBuf> {
        let of_user = self
            .named_service_file()
            .or_else(|| self.home.as_ref().map(|home| home.join(".pg_service.conf")));
        let of_system = match (self.variable)("PGSYSCONFDIR") {
            Some(directory) => vec![PathBuf::from(directory)],
            None => SYSTEM_DIRECTORIES.map(PathBuf::from).to_vec(),
        };
        let of_system = of_system.into_iter().map(|directory| directory.join("pg_service.conf"));
        of_user.into_iter().chain(of_system).collect()
    }

    /// The user's password file, whether it exists or not.
    pub(super) fn password_file(&self) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(".pgpass"))
    }

    /// A file in the user's `~/.postgresql`, if it exists.
    pub(super) fn certificate_file(&self, name: &str) -> Option<PathBuf> {
        let path = self.home.as_ref()?.join(".postgresql").join(name);
        path.exists().then_some(path)
    }
}

/// libpq asks the user database for the effective user; the environment may be another user's.
fn process_user_name() -> Option<String> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    account::effective_user().or_else(|| variable("LOGNAME")).or_else(|| variable("USER"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_directory_decides_where_to_connect_whatever_is_in_the_next() {
        let [a, b] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        std::fs::write(b.path().join(".s.PGSQL.5432"), "").unwrap();
        let environment = Environment {
            variable: &|_| None,
            user_name: &|| None,
            home: None,
            socket_directories: vec!["/nonexistent".into(), a.path().into(), b.path().into()],
        };
        assert_eq!(environment.socket_directory(), a.path());
    }
}
