use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::*;

/// Set, it has the documentation written anew.
const WRITE: &str = "WALRECV_WRITE_DOCS";

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

fn full_name(name: &str, unit: Option<&Unit>) -> String {
    let unit = unit.map(|unit| format!("_{}", unit.as_str())).unwrap_or_default();
    format!("{PREFIX}_{name}{unit}")
}

fn names() -> Vec<String> {
    let of_daemon = OF_DAEMON.iter().map(|metric| full_name(metric.name, metric.unit.as_ref()));
    of_daemon.chain(METRICS.iter().map(|m| full_name(m.name, m.unit.as_ref()))).collect()
}

fn table() -> String {
    let mut table = "| metric | labels | meaning |\n|---|---|---|\n".to_owned();
    for m in OF_DAEMON {
        let name = full_name(m.name, m.unit.as_ref());
        let label = m.label.map(|label| format!("`{label}`")).unwrap_or_default();
        writeln!(table, "| `{name}` | {label} | {} |", m.help).unwrap();
    }
    for m in METRICS {
        let name = full_name(m.name, m.unit.as_ref());
        let label = m.label.map(|label| format!(", `{label}`")).unwrap_or_default();
        writeln!(table, "| `{name}` | `server`{label} | {} |", m.help).unwrap();
    }
    table
}

#[test]
fn the_documentation_has_each_metric() {
    let path = docs().join("metrics.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = text.split_once("| metric |").unwrap();
    let tail = rest.split_once("\n\n").map_or("", |(_, tail)| tail);
    let wanted = format!("{head}{}\n{tail}", table());
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, &wanted).unwrap();
    } else {
        assert_eq!(text, wanted, "{WRITE}=1 writes it anew");
    }
}

/// The names in a text that are ours.
fn mentioned(text: &str) -> Vec<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !is_name(c))
        .filter(|word| word.starts_with("walrecv_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn dashboard_and_alerts_name_metrics_that_exist() {
    let names = names();
    for file in ["monitoring/grafana-dashboard.json", "monitoring/alerts.yml"] {
        let text = std::fs::read_to_string(docs().join(file)).unwrap();
        let mentioned = mentioned(&text);
        assert!(mentioned.len() > 5, "{file}");
        for name in mentioned {
            assert!(names.contains(&name), "{file} names {name}");
        }
    }
}

#[test]
fn no_metric_is_there_twice_and_units_are_in_the_names() {
    let mut names = names();
    names.sort();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}
