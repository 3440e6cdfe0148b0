//! What the fuzz targets need of the parsers that no API reaches.

use std::path::PathBuf;

use super::keyword::KEYWORDS;
use super::passfile::PassFile;
use super::settings::Settings;
use super::{ConfigError, Endpoint, Host, service};

/// Looks up a password in the content of a password file, for a few hosts.
pub(crate) fn look_up_password(content: &[u8]) -> Option<Vec<u8>> {
    let file = PassFile::from_content(content.to_vec());
    let endpoints = [
        Endpoint::Tcp { name: "db".to_owned(), address: None },
        Endpoint::Unix(PathBuf::from("/tmp")),
    ];
    endpoints.into_iter().find_map(|endpoint| {
        let host = Host { endpoint, port: 5432, password: None };
        file.password(&host, "replication", "walrecv").map(|password| password.as_bytes().to_vec())
    })
}

/// Looks up the host of a service in the content of a service file.
pub(crate) fn look_up_service(content: &[u8]) -> Option<String> {
    let mut settings = Settings::parse("").ok()?;
    service::apply(content, "walrecv", &mut settings).ok().filter(|&found| found)?;
    settings.contains("host").then(|| settings.value("host").text.to_owned())
}

/// The options that a connection string sets, as libpq's `PQconninfoParse` tells them: the last
/// setting of each, before any value is looked at.
pub fn conninfo_pairs(text: &str) -> Result<Vec<(String, String)>, ConfigError> {
    let settings = Settings::parse(text)?;
    let pair = |key: &'static str| (key.to_owned(), settings.value(key).text.to_owned());
    Ok(settings.keys().map(pair).collect())
}

/// Every keyword, with the environment variable that sets it.
pub fn conninfo_keywords() -> Vec<(&'static str, Option<&'static str>)> {
    KEYWORDS.iter().map(|keyword| (keyword.name, keyword.variable)).collect()
}
