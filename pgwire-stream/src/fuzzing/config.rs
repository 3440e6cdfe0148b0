//! How a connection is configured.

use crate::config::fuzzing;
use crate::{Config, Password};

/// A connection string in either form: never empty of hosts, and its password never shown.
pub fn conninfo(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(mut config) = text.parse::<Config>() else { return };
    assert!(!config.hosts.is_empty());
    if config.password.is_some() {
        let shown = format!("{config:?}");
        config.password = Some(Password::new("another"));
        assert_eq!(shown, format!("{config:?}"), "the password is shown");
    }
}

/// A URI, whatever its scheme was.
pub fn uri(data: &[u8]) {
    conninfo(&[b"postgresql://", data].concat());
}

/// A password file: what it gives is written in it.
pub fn passfile(data: &[u8]) {
    if let Some(password) = fuzzing::look_up_password(data) {
        assert!(!password.is_empty() && password.len() <= data.len());
        assert!(!password.contains(&b'\n'));
    }
}

/// A service file: a value that it gives is written in it.
pub fn service_file(data: &[u8]) {
    if let Some(host) = fuzzing::look_up_service(data) {
        let written = |line: &[u8]| line.trim_ascii() == format!("host={host}").as_bytes();
        assert!(data.split(|&byte| byte == b'\n').any(written), "{host:?}");
    }
}
