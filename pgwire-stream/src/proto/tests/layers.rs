//! The layer's rule: no runtime, no TLS, no files, no clocks.

use std::path::{Path, PathBuf};

const FORBIDDEN: &[&str] = &[
    "tokio",
    "rustls",
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "Instant::now",
    "SystemTime::now",
    "crate::client",
    "crate::connection",
    "crate::net",
    "crate::tls",
];

fn offences(source: &str) -> Vec<&'static str> {
    FORBIDDEN.iter().copied().filter(|word| source.contains(word)).collect()
}

/// Every source file below the folder, but for tests.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "tests") {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn the_protocol_knows_neither_runtime_nor_files_nor_clocks() {
    let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/proto"));
    assert!(sources.len() > 20, "only {} files were looked at", sources.len());
    assert!(sources.iter().any(|path| path.ends_with("server/session.rs")));
    for path in sources {
        let source = std::fs::read_to_string(&path).unwrap();
        let source = source.split("#[cfg(test)]").next().unwrap();
        assert_eq!(offences(source), [""; 0], "{}", path.display());
    }
}

#[test]
fn the_rule_can_be_broken() {
    assert_eq!(offences("use tokio::net::TcpStream;"), ["tokio"]);
}
