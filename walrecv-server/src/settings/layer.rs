//! What was given in one place, and values looked up through several places.

use std::collections::BTreeMap;

use super::error::{Mistake, Origin};
use super::value::{Given, Problem};

/// What one place gives: a file's `[defaults]`, the environment, the arguments.
#[derive(Clone, Default)]
pub(super) struct Layer {
    values: BTreeMap<String, Given>,
    /// Where the place itself begins, for what is missing in it.
    pub(super) place: Option<Origin>,
}

impl Layer {
    pub(super) fn insert(&mut self, key: &str, given: Given) {
        self.values.insert(key.to_owned(), given);
    }

    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Given> {
        self.values.get_mut(key)
    }

    pub(super) fn get(&self, key: &str) -> Option<&Given> {
        self.values.get(key)
    }
}

/// Layers, the one that counts most first, and the mistakes found while reading them.
pub(super) struct Layers<'a> {
    layers: Vec<&'a Layer>,
    mistakes: &'a mut Vec<Mistake>,
}

impl<'a> Layers<'a> {
    pub(super) fn new(layers: Vec<&'a Layer>, mistakes: &'a mut Vec<Mistake>) -> Self {
        Self { layers, mistakes }
    }

    /// What was given for this key where it counts most.
    pub(super) fn given(&self, key: &str) -> Option<&'a Given> {
        self.layers.iter().find_map(|layer| layer.get(key))
    }

    /// Notes that a key must be given, and is not.
    pub(super) fn missing(&mut self, problem: String, hint: &str) {
        if let Some(origin) = self.layers.iter().find_map(|layer| layer.place.clone()) {
            self.mistakes.push(Mistake { origin, problem, hint: Some(hint.to_owned()) });
        }
    }

    /// Notes a mistake in a value that is none by itself, if it was given.
    pub(super) fn mistake(&mut self, key: &str, problem: &str, hint: &str) {
        if let Some(given) = self.given(key) {
            self.mistakes.push(Mistake {
                origin: given.origin.clone(),
                problem: format!("`{key}`: {problem}"),
                hint: Some(hint.to_owned()),
            });
        }
    }

    /// The value of this key; a mistake is noted, and counts as not given.
    pub(super) fn value<T>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&Given) -> Result<T, Problem>,
    ) -> Option<T> {
        let given = self.given(key)?;
        match parse(given) {
            Ok(value) => Some(value),
            Err(Problem { text, hint }) => {
                self.mistakes.push(Mistake {
                    origin: given.origin.clone(),
                    problem: format!("`{key}`: {text}"),
                    hint,
                });
                None
            }
        }
    }
}
