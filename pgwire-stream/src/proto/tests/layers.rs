//! The layer's rule: no runtime, no TLS, no files, no clocks.

use std::path::Path;

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

#[test]
fn the_protocol_knows_neither_runtime_nor_files_nor_clocks() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/proto");
    let mut read = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let source = std::fs::read_to_string(&path).unwrap();
        let source = source.split("#[cfg(test)]").next().unwrap();
        assert_eq!(offences(source), [""; 0], "{}", path.display());
        read += 1;
    }
    assert!(read > 8, "only {read} files were looked at");
}

#[test]
fn the_rule_can_be_broken() {
    assert_eq!(offences("use tokio::net::TcpStream;"), ["tokio"]);
}
