//! `cargo xtask bench library`: measures the library, and says how it compares with what it cannot
//! be faster than: the checksum of the same bytes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;
use walrecv_tests::{Context, Failure, Result};

use crate::{paths, table, tools};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A benchmark of the library, such as `decode`; may be repeated.
    #[arg(long = "bench", value_name = "NAME", default_value = "*")]
    benches: Vec<String>,
}

/// What others in its group are compared with.
const YARDSTICKS: [&str; 2] = ["crc32c", "sha256"];

/// What Criterion measured of one function.
struct Measured {
    nanoseconds: f64,
    /// Bytes in one call, where that makes sense.
    bytes: Option<f64>,
}

/// Functions by name, in groups by name.
type Groups = BTreeMap<String, BTreeMap<String, Measured>>;

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let begin = SystemTime::now();
    let mut bench = paths::cargo();
    bench.args(["bench", "--package", "pgwire-stream", "--features", "manifest"]);
    for name in &arguments.benches {
        bench.args(["--bench", name]);
    }
    tools::succeed(&mut bench)?;

    let mut groups = Groups::new();
    collect(&paths::workspace().join("target/criterion"), begin, &mut groups)?;
    if groups.is_empty() {
        return Err(Failure::new("nothing was measured"));
    }
    for line in table::align(&rows(&groups)) {
        println!("{line}");
    }
    Ok(())
}

/// Finds what was measured since `begin`: `…/new/benchmark.json` says what it is, and
/// `estimates.json` beside it how long it takes.
fn collect(directory: &Path, begin: SystemTime, groups: &mut Groups) -> Result<()> {
    let about = || format!("cannot read {}", directory.display());
    for entry in fs::read_dir(directory).context(about)? {
        let path = entry.context(about)?.path();
        let description = path.join("new/benchmark.json");
        let written = fs::metadata(&description).and_then(|metadata| metadata.modified());
        if written.is_ok_and(|written| written >= begin) {
            let description = json(description)?;
            let estimates = json(path.join("new/estimates.json"))?;
            let text = |name| description.get(name).and_then(Value::as_str).unwrap_or_default();
            let bytes = description.pointer("/throughput/Bytes").and_then(Value::as_f64);
            let nanoseconds = estimates
                .pointer("/median/point_estimate")
                .and_then(Value::as_f64)
                .context(|| format!("no estimate in {}", path.display()))?;
            let group = groups.entry(text("group_id").to_owned()).or_default();
            group.insert(text("function_id").to_owned(), Measured { nanoseconds, bytes });
        } else if path.is_dir() {
            collect(&path, begin, groups)?;
        }
    }
    Ok(())
}

fn json(path: PathBuf) -> Result<Value> {
    let about = || format!("cannot read {}", path.display());
    serde_json::from_slice(&fs::read(&path).context(about)?).context(about)
}

fn rows(groups: &Groups) -> Vec<[String; 5]> {
    let mut rows = vec![["group", "function", "time / us", "GB/s", "times"].map(String::from)];
    for (group, functions) in groups {
        let yardstick = YARDSTICKS.iter().find_map(|name| functions.get(*name));
        for (function, measured) in functions {
            // Bytes in a nanosecond are gigabytes in a second.
            let speed = measured.bytes.map(|bytes| bytes / measured.nanoseconds);
            let times = yardstick.map(|yardstick| measured.nanoseconds / yardstick.nanoseconds);
            let number = |number: Option<f64>| number.map(|x| format!("{x:.2}"));
            rows.push([
                group.clone(),
                function.clone(),
                format!("{:.2}", measured.nanoseconds / 1000.0),
                number(speed).unwrap_or_default(),
                number(times).unwrap_or_default(),
            ]);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_compared_with_the_yardstick_of_their_group() {
        let measured = |nanoseconds| Measured { nanoseconds, bytes: Some(1000.0) };
        let wal = [("crc32c", 100.0), ("validate", 120.0)];
        let functions = wal.map(|(name, time)| (name.to_owned(), measured(time)));
        let other = BTreeMap::from([("read".to_owned(), measured(50.0))]);
        let groups =
            Groups::from([("bulk".to_owned(), functions.into()), ("decode".to_owned(), other)]);
        let rows = rows(&groups);
        assert_eq!(rows[1], ["bulk", "crc32c", "0.10", "10.00", "1.00"]);
        assert_eq!(rows[2], ["bulk", "validate", "0.12", "8.33", "1.20"]);
        assert_eq!(rows[3], ["decode", "read", "0.05", "20.00", ""]);
    }
}
