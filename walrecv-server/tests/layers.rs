//! Dependencies run one way: each module of `lib.rs` uses those above it in that list, and none
//! below.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};

/// The modules in the order of `lib.rs`.
fn layers(source: &Path) -> Vec<String> {
    let text = fs::read_to_string(source.join("lib.rs")).unwrap();
    let modules = text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    modules.map(str::to_owned).collect()
}

/// The source files of a module, without those that hold nothing but tests.
fn files(source: &Path, module: &str) -> Vec<PathBuf> {
    let mut found = vec![source.join(format!("{module}.rs"))];
    let mut todo = vec![source.join(module)];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            match path.extension() {
                Some(extension) if extension == "rs" => found.push(path),
                _ => todo.push(path),
            }
        }
    }
    let is_source =
        |path: &PathBuf| path.is_file() && path.file_stem().is_some_and(|stem| stem != "tests");
    found.into_iter().filter(is_source).collect()
}

/// The modules below `module` that this text uses.
fn upward<'a>(text: &str, module: &str, layers: &'a [String]) -> Vec<&'a str> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let place = layers.iter().position(|layer| layer == module).unwrap();
    let below = layers.iter().skip(place + 1).map(String::as_str);
    below.filter(|layer| code.contains(&format!("crate::{layer}"))).collect()
}

#[test]
fn every_module_uses_only_what_stands_above_it() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let layers = layers(&source);
    assert!(layers.len() > 10, "{layers:?}");
    for module in &layers {
        let files = files(&source, module);
        assert!(!files.is_empty(), "`{module}` has no files");
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            let wrong = upward(&text, module, &layers);
            assert!(wrong.is_empty(), "{} uses {wrong:?}", file.display());
        }
    }
}

#[test]
fn the_rule_can_be_broken() {
    let layers = ["storage", "commands"].map(str::to_owned);
    assert_eq!(upward("use crate::commands::x;", "storage", &layers), ["commands"]);
    assert!(upward("use crate::storage::x;", "commands", &layers).is_empty());
}
