//! The fenced blocks of a page, in order.

use std::fs;
use std::path::{Path, PathBuf};

use walrecv_tests::{Context, Result};

/// A fenced block.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Where it begins, for whoever has to mend it.
    pub(super) line: usize,
    /// What it is written in.
    pub(super) language: String,
    /// What else is said of it behind the language.
    marks: Vec<String>,
    /// What it says.
    pub(super) text: String,
}

impl Block {
    /// Whether this was said of it.
    pub(super) fn is(&self, mark: &str) -> bool {
        self.marks.iter().any(|said| said == mark)
    }

    /// What was said of this, as `name=value`.
    pub(super) fn mark(&self, name: &str) -> Option<&str> {
        self.marks.iter().find_map(|said| said.strip_prefix(name)?.strip_prefix('='))
    }
}

/// The root of the repository.
pub(super) fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// The blocks of a page.
pub(super) fn blocks(page: &str) -> Result<Vec<Block>> {
    let path = repository().join(page);
    let text = fs::read_to_string(&path).context(|| format!("cannot read {}", path.display()))?;
    Ok(parse(&text))
}

fn parse(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (index, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(words), None) => {
                let mut words = words.split_whitespace().map(str::to_owned);
                open = Some(Block {
                    line: index + 1,
                    language: words.next().unwrap_or_default(),
                    marks: words.collect(),
                    text: String::new(),
                });
            }
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}
