//! `config`: what can be configured at all.

use crate::settings;

/// A document about every configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigDocument {
    /// The annotated reference.
    Reference,
    /// The schema.
    Schema,
}

impl ConfigDocument {
    /// The document.
    pub fn text(self) -> String {
        match self {
            Self::Reference => settings::reference(),
            Self::Schema => settings::schema(),
        }
    }
}
