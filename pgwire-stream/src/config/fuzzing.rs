//! What the fuzz targets need of the parsers that no API reaches.

use std::path::PathBuf;

use super::passfile::PassFile;
use super::{Endpoint, Host};

/// Looks up a password in the content of a password file, for a few hosts.
pub(crate) fn look_up(content: &[u8]) -> Option<Vec<u8>> {
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
