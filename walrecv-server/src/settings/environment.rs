//! Settings in environment variables: `WALRECV_` and the key in capitals.

use super::error::Origin;
use super::value::{Given, Raw};

/// Where the value of an environment variable comes from; tests bring their own.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The process's own environment.
pub fn process(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The environment variable that gives this key.
fn variable(key: &str) -> String {
    format!("WALRECV_{}", key.to_ascii_uppercase())
}

/// What the environment says about this key.
pub(super) fn given(lookup: Lookup<'_>, key: &str) -> Option<Given> {
    let name = variable(key);
    let value = lookup(&name)?;
    Some(Given { raw: Raw::Text(value), origin: Origin::Environment(name) })
}
