//! Failures in words: what happened, why, and what to do.

use std::error::Error;
use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use serde_json::{Value, json};

use super::{Failed, causes};
use crate::failure::Class;
use crate::settings::ServerName;

const ERROR: Style = AnsiColor::Red.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();
const CAUSE: Style = AnsiColor::Red.on_default();

/// The failure for people.
pub(super) fn text(failed: &Failed, about: Option<&ServerName>) -> String {
    let failure = &*failed.failure;
    let mut text = format!("{ERROR}error:{ERROR:#} {}\n", sentence(failed));
    for cause in causes(failure) {
        let _ = writeln!(text, "  {CAUSE}caused by:{CAUSE:#} {}", indented(&cause));
    }
    if let Some(hint) = hint(failed, about) {
        let _ = writeln!(text, "{HINT}hint:{HINT:#} {}", indented(&hint));
    }
    text
}

/// An error of printing itself.
pub(super) fn plain(what: &str, error: &dyn Error) -> String {
    format!("{ERROR}error:{ERROR:#} {what}: {error}\n")
}

/// The one sentence that says what happened.
pub(super) fn sentence(failed: &Failed) -> String {
    let text = failed.failure.to_string();
    match &failed.server {
        // Most failures name their server themselves.
        Some(server) if !text.contains(&format!("`{server}`")) => {
            format!("server `{server}`: {text}")
        }
        _ => text,
    }
}

/// The failure for machines.
pub(super) fn json(failed: &Failed, about: Option<&ServerName>) -> Value {
    let class = match failed.failure.class() {
        Class::Failed => "failed",
        Class::Usage => "usage",
        Class::Refused => "refused",
        Class::Interrupted => "interrupted",
    };
    json!({
        "server": failed.server,
        "message": failed.failure.to_string(),
        "causes": causes(&*failed.failure),
        "hint": hint(failed, about),
        "class": class,
    })
}

fn hint(failed: &Failed, about: Option<&ServerName>) -> Option<String> {
    match failed.server.as_ref().or(about) {
        Some(server) => failed.failure.hint_about(server.as_str()),
        None => failed.failure.hint(),
    }
}

/// The lines after the first, set in.
fn indented(text: &str) -> String {
    text.replace('\n', "\n    ")
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;

    use crate::output::Results;
    use crate::settings::SettingsError;

    use super::*;

    fn unreadable() -> Failed {
        Failed {
            server: Some("main".parse().unwrap()),
            failure: Box::new(SettingsError::Unreadable {
                path: PathBuf::from("/etc/x.toml"),
                source: io::Error::other("disk on fire"),
            }),
        }
    }

    #[test]
    fn a_failure_is_a_sentence_its_causes_and_a_hint() {
        let text = anstream::adapter::strip_str(&text(&unreadable(), None)).to_string();
        assert_eq!(
            text,
            "error: server `main`: cannot read the configuration /etc/x.toml\n  \
             caused by: disk on fire\n\
             hint: run as the user that owns it, or name another with --config\n"
        );
    }

    #[test]
    fn machines_get_the_same_in_both_forms() {
        let results = Results { failures: vec![unreadable()], ..Results::default() };
        assert_eq!(
            super::super::barman(&results),
            json!({"_ERROR": ["server `main`: cannot read the configuration /etc/x.toml"]})
        );
        assert_eq!(
            super::super::clean(&results),
            json!({
                "results": [],
                "errors": [{
                    "server": "main",
                    "message": "cannot read the configuration /etc/x.toml",
                    "causes": ["disk on fire"],
                    "hint": "run as the user that owns it, or name another with --config",
                    "class": "usage",
                }],
                "exit_code": 2,
            })
        );
    }
}
