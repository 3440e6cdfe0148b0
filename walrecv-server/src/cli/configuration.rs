//! Arguments of the commands about the configuration itself.

use clap::{Args, ValueEnum};

use super::Selection;

/// Arguments of `config`.
#[derive(Args)]
pub struct ConfigArgs {
    /// What to print
    #[arg(value_enum)]
    pub what: ConfigArg,
}

/// What there is to say about every configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ConfigArg {
    /// Every key, with its default and what it means
    Reference,
    /// A JSON schema, by which editors complete and check keys and values
    Schema,
}

/// Arguments of `show-servers`.
#[derive(Args)]
pub struct ShowServersArgs {
    /// The servers; `all` for every configured one
    #[arg(required = true, value_name = "SERVER")]
    pub servers: Vec<Selection>,
}
