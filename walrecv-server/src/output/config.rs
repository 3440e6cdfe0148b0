//! What `config` prints: the document as it is, in whatever format.

use serde_json::{Map, Value, json};

use super::Report;
use crate::commands::config::ConfigDocument;

impl ConfigDocument {
    /// The schema is JSON; the reference is a text in it.
    fn value(self) -> Value {
        let text = self.text();
        match self {
            Self::Reference => json!({ "reference": text }),
            Self::Schema => serde_json::from_str(&text).unwrap_or_default(),
        }
    }
}

impl Report for ConfigDocument {
    fn console(&self) -> String {
        self.text()
    }

    fn barman(&self, document: &mut Map<String, Value>) {
        if let Value::Object(value) = self.value() {
            document.extend(value);
        }
    }

    fn clean(&self) -> Value {
        self.value()
    }
}
