//! Completions and manual pages.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::Report;

/// A text that is the whole result, printed as it is.
pub struct GeneratedText(pub String);

impl Report for GeneratedText {
    fn console(&self) -> String {
        self.0.clone()
    }

    fn barman(&self, document: &mut Map<String, Value>) {
        document.insert("text".to_owned(), json!(self.0));
    }

    fn clean(&self) -> Value {
        json!({"text": self.0})
    }
}

/// Manual pages that were written.
pub struct ManualPages {
    /// Where they are.
    pub directory: PathBuf,
    /// How many.
    pub pages: usize,
}

impl Report for ManualPages {
    fn console(&self) -> String {
        format!("Wrote {} manual pages to {}\n", self.pages, self.directory.display())
    }

    fn barman(&self, document: &mut Map<String, Value>) {
        document.insert("manual".to_owned(), self.clean());
    }

    fn clean(&self) -> Value {
        json!({"directory": self.directory, "pages": self.pages})
    }
}
