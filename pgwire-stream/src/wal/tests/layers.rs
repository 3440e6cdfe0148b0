//! The module's rule: no I/O, no clock, and nothing of the layers above.

use std::path::Path;

#[test]
fn validating_wal_needs_neither_files_nor_clocks_nor_a_runtime() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/wal");
    let mut read = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let source = std::fs::read_to_string(&path).unwrap();
        for word in ["std::fs", "std::io", "std::time", "tokio", "crate::proto", "crate::client"] {
            assert!(!source.contains(word), "{} in {}", word, path.display());
        }
        read += 1;
    }
    assert!(read > 6, "only {read} files were looked at");
}
