//! The service file: named groups of connection options.
//!
//! Follows "The Connection Service File" in PostgreSQL's libpq documentation.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::environment::Environment;
use super::settings::Settings;
use super::value::Value;
use super::{ConfigError, keyword};

/// Far beyond any real file; a wrong path should not fill the memory.
const LARGEST: u64 = 4 << 20;

/// Sets from a service's group what is not set yet. The user's file (`PGSERVICEFILE`, or
/// `~/.pg_service.conf`) is searched first, then the system's.
pub(super) fn fill_in(
    settings: &mut Settings,
    environment: &Environment<'_>,
) -> Result<(), ConfigError> {
    let name = settings.value("service").text.to_owned();
    if name.is_empty() {
        return Ok(());
    }
    let mut searched = Vec::new();
    for path in environment.service_files() {
        let Some(text) = read(&path)? else {
            if environment.named_service_file().as_ref() == Some(&path) {
                return Err(refused(&path, None, "it does not exist"));
            }
            continue;
        };
        if apply(&text, &name, settings)
            .map_err(|(line, problem)| refused(&path, Some(line), problem))?
        {
            return Ok(());
        }
        searched.push(path.display().to_string());
    }
    let problem = match searched.as_slice() {
        [] => "there is no service file".to_owned(),
        files => format!("no such service is defined in {}", files.join(" or ")),
    };
    Err(settings.value("service").invalid(problem))
}

fn refused(path: &Path, line: Option<usize>, problem: impl Into<String>) -> ConfigError {
    let problem = match line {
        Some(line) => format!("line {line}: {}", problem.into()),
        None => problem.into(),
    };
    ConfigError::File { what: "service file", path: PathBuf::from(path), problem }
}

/// The file's text; `None` if it does not exist.
fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, ConfigError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(refused(path, None, error.to_string())),
    };
    let length = file.metadata().map_err(|error| refused(path, None, error.to_string()))?.len();
    if length > LARGEST {
        return Err(refused(path, None, format!("it is larger than {LARGEST} bytes")));
    }
    // With room for all of it, no copy of a password is left behind in memory that was outgrown.
    let capacity = usize::try_from(length).unwrap_or_default() + 1;
    let mut text = Zeroizing::new(Vec::with_capacity(capacity));
    file.take(LARGEST)
        .read_to_end(&mut text)
        .map_err(|error| refused(path, None, error.to_string()))?;
    Ok(Some(text))
}

/// Sets from the service's first group what is not set yet. False if there is no such group. An
/// error comes with the number of its line.
pub(super) fn apply(
    text: &[u8],
    service: &str,
    settings: &mut Settings,
) -> Result<bool, (usize, String)> {
    let mut found = false;
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        if let Some(header) = line.strip_prefix(b"[") {
            if found {
                break;
            }
            // libpq does not mind what follows the bracket.
            found =
                header.strip_prefix(service.as_bytes()).is_some_and(|rest| rest.starts_with(b"]"));
        } else if found {
            set(line, settings).map_err(|problem| (number, problem))?;
        }
    }
    Ok(found)
}

/// Sets what a line of the group says. There is no room for blanks around the `=`.
fn set(line: &[u8], settings: &mut Settings) -> Result<(), String> {
    if line.starts_with(b"ldap") {
        return Err("looking up services by LDAP is not supported".to_owned());
    }
    let line = str::from_utf8(line).map_err(|_| "it is not UTF-8 text".to_owned())?;
    let Some((name, text)) = line.split_once('=') else {
        return Err("there is no `=` in it".to_owned());
    };
    if text.contains('\0') {
        return Err("it contains a NUL character".to_owned());
    }
    if name == "service" {
        return Err("a service cannot refer to another one".to_owned());
    }
    let known = keyword::find(name).ok_or_else(|| keyword::unknown(name).to_string())?;
    // Whether used or not, so that the file and line can be told.
    known.check(&Value { name: known.name, text }).map_err(|error| error.to_string())?;
    if !settings.contains(known.name) {
        settings.set(known, known.name, Zeroizing::new(text.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::ffi::OsString;
    use std::fs;

    use super::*;
    use crate::Config;

    /// Loads with these variables, and a home and a system directory with these service files.
    fn load(
        text: &str,
        variables: &[(&str, &str)],
        of_user: &str,
        of_system: &str,
    ) -> Result<Config, ConfigError> {
        let [home, system] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        fs::write(home.path().join(".pg_service.conf"), of_user).unwrap();
        fs::write(system.path().join("pg_service.conf"), of_system).unwrap();
        let mut variables: HashMap<_, _> =
            variables.iter().map(|(name, value)| (*name, OsString::from(value))).collect();
        variables.insert("PGSYSCONFDIR", system.path().into());
        Config::load_in(
            text,
            &Environment {
                variable: &|name| variables.get(name).cloned(),
                user_name: &|| Some("operator".to_owned()),
                home: Some(home.path().to_owned()),
                socket_directories: vec!["/tmp".into()],
            },
        )
    }

    const PROD: &str = "# all of them\n[test]\nhost=t\n\n[prod] and more\n  host=p1,p2 \n\
                        port=6000\nuser=s\nport=7000\n[other]\nnonsense\n[prod]\nuser=late\n";

    #[test]
    fn a_service_yields_to_the_string_and_precedes_the_environment() {
        let variables = [("PGUSER", "env"), ("PGDATABASE", "env"), ("PGPORT", "1")];
        let loaded = load("service=prod user=own", &variables, PROD, "").unwrap();
        let expected = load("host=p1,p2 port=6000 user=own dbname=env", &[], "", "").unwrap();
        assert_eq!(loaded, expected);
        let loaded = load("postgresql://?service=prod", &variables, PROD, "").unwrap();
        assert_eq!(loaded.user.as_deref(), Some("s"));
    }

    #[test]
    fn the_environment_can_name_the_service_and_its_file() {
        let variables = [("PGSERVICE", "prod"), ("PGHOST", "env")];
        let loaded = load("", &variables, PROD, "").unwrap();
        assert_eq!(loaded.hosts[0].to_string(), "p1:6000");
        let loaded = load("service=test", &variables, PROD, "").unwrap();
        assert_eq!(loaded.hosts[0].to_string(), "t:5432");

        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "[prod]\nhost=elsewhere").unwrap();
        let path = file.path().to_str().unwrap();
        let loaded = load("service=prod", &[("PGSERVICEFILE", path)], PROD, "").unwrap();
        assert_eq!(loaded.hosts[0].to_string(), "elsewhere:5432");
        let error = load("service=prod", &[("PGSERVICEFILE", "/nonexistent")], PROD, PROD);
        assert!(error.unwrap_err().to_string().contains("/nonexistent"));
    }

    #[test]
    fn the_systems_file_comes_after_the_users() {
        let system = "[prod]\nhost=system\n[only]\nhost=only";
        let host = |service: &str| {
            let text = format!("service={service}");
            load(&text, &[], PROD, system).map(|config| config.hosts[0].to_string())
        };
        assert_eq!(host("prod").unwrap(), "p1:6000");
        assert_eq!(host("only").unwrap(), "only:5432");
        for unknown in ["pro", "prod2", "nowhere"] {
            let error = host(unknown).unwrap_err();
            assert!(matches!(error, ConfigError::InvalidValue { key: "service", .. }), "{error}");
            assert!(error.to_string().contains(".pg_service.conf or "), "{error}");
        }
        let error = load("", &[("PGSERVICE", "x")], "", "").unwrap_err();
        assert!(matches!(error, ConfigError::InvalidValue { key: "PGSERVICE", .. }), "{error}");
        assert!(load("service=''", &[("PGSERVICE", "x")], "", "").is_ok());
    }

    #[test]
    fn mistakes_are_told_with_file_and_line() {
        for (line, problem) in [
            ("nonsense", "there is no `=` in it"),
            ("service=other", "a service cannot refer to another one"),
            ("ldap://db.example/dc=x", "looking up services by LDAP is not supported"),
            ("sslmod=require", "did you mean `sslmode`?"),
            (" host =a", "`host ` is not a connection option"),
            ("sslmode=hunter2", "`sslmode` cannot be set to that"),
            ("connect_timeout=x", "`connect_timeout` cannot be set to that"),
            ("gssencmode=require", "not supported"),
        ] {
            let file = format!("[s]\nhost=a\n\n{line}\n");
            let error = load("service=s connect_timeout=1", &[], &file, "").unwrap_err();
            let message = error.to_string();
            assert!(message.contains(".pg_service.conf: line 4: "), "{message}");
            assert!(message.contains(problem), "{message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }
}
