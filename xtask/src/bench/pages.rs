//! Results on the terminal, and in `BENCHMARKS.md`, whose text is written by hand around them.

use std::fs;

use walrecv_tests::{Context, Failure, Result};

use crate::{paths, table};

/// The results of one scenario.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// The name of its place in the file.
    pub(super) name: &'static str,
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Line(String),
    Table(Vec<Vec<String>>),
}

impl Page {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, parts: Vec::new() }
    }

    pub(super) fn line(&mut self, line: impl Into<String>) {
        self.parts.push(Part::Line(line.into()));
    }

    /// The first row is the heading.
    pub(super) fn table(&mut self, rows: Vec<Vec<String>>) {
        self.parts.push(Part::Table(rows));
    }

    /// For the terminal.
    pub(super) fn text(&self) -> String {
        self.render(table::align)
    }

    fn markdown(&self) -> String {
        self.render(table::markdown)
    }

    fn render(&self, table: impl Fn(&[Vec<String>]) -> Vec<String>) -> String {
        let parts = self.parts.iter().map(|part| match part {
            Part::Line(line) => line.clone(),
            Part::Table(rows) => table(rows).join("\n"),
        });
        parts.collect::<Vec<String>>().join("\n\n")
    }

    /// Puts it in its place in the file.
    pub(super) fn write(&self) -> Result<()> {
        let path = paths::workspace().join("BENCHMARKS.md");
        let about = || format!("cannot change {}", path.display());
        let text = fs::read_to_string(&path).context(about)?;
        let text = replace(&text, self.name, &self.markdown()).context(about)?;
        fs::write(&path, text).context(about)
    }
}

/// The text with the place of this name filled anew.
fn replace(text: &str, name: &str, content: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- begin {name} -->"), format!("<!-- end {name} -->"));
    let missing = || Failure::new(format!("it has no lines `{begin}` and `{end}`"));
    let (before, rest) = text.split_once(&begin).ok_or_else(missing)?;
    let (_, after) = rest.split_once(&end).ok_or_else(missing)?;
    Ok(format!("{before}{begin}\n\n{content}\n\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_place_is_filled() {
        let text =
            "a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n<!-- begin y -->\n<!-- end y -->\n";
        let filled = replace(text, "x", "new").unwrap();
        assert_eq!(
            filled,
            "a\n<!-- begin x -->\n\nnew\n\n<!-- end x -->\nb\n<!-- begin y -->\n<!-- end y -->\n"
        );
        assert_eq!(replace(&filled, "x", "new").unwrap(), filled);
        assert!(replace(text, "z", "new").is_err());
    }

    #[test]
    fn the_file_has_a_place_for_every_scenario() {
        let text = fs::read_to_string(paths::workspace().join("BENCHMARKS.md")).unwrap();
        for name in ["backlog", "sync", "fleet", "outage", "check"] {
            replace(&text, name, "").unwrap();
        }
    }
}
