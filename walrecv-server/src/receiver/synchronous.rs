//! Whether commits on the server wait for us.

/// Whether `synchronous_standby_names` names this `application_name`.
///
/// The setting is a list of names, or `FIRST n (names)`, `ANY n (names)` or `n (names)`. Names are
/// compared without regard to case, may be quoted, and `*` is any name.
///
/// Follows `src/backend/replication/syncrep_gram.y` and `SyncRepGetStandbyPriority`.
pub(crate) fn names(setting: &str, application_name: &str) -> bool {
    let list = match (setting.find('('), setting.rfind(')')) {
        (Some(open), Some(close)) if !before_is_quoted(setting, open) => {
            setting.get(open + 1..close).unwrap_or_default()
        }
        _ => setting,
    };
    split_names(list).iter().any(|name| name == "*" || name.eq_ignore_ascii_case(application_name))
}

/// A parenthesis within quotes belongs to a name.
fn before_is_quoted(setting: &str, at: usize) -> bool {
    setting.get(..at).unwrap_or_default().matches('"').count() % 2 == 1
}

fn split_names(list: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut name = String::new();
    let mut quoted = false;
    let mut characters = list.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                name.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => names.push(std::mem::take(&mut name)),
            c if c.is_ascii_whitespace() && !quoted => {}
            c => name.push(c),
        }
    }
    names.push(name);
    names.retain(|name| !name.is_empty());
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_the_list_is_read() {
        for setting in [
            "walrecv",
            "a, WalRecv ,b",
            "FIRST 2 (a, walrecv)",
            "ANY 1 (\"walrecv\", b)",
            "1(walrecv)",
            "*",
            "ANY 1 (*)",
        ] {
            assert!(names(setting, "walrecv"), "{setting}");
        }
        for setting in ["", "a, b", "FIRST 1 (a)", "walrecv2", "\"wal,recv\"", "ANY 1 ()"] {
            assert!(!names(setting, "walrecv"), "{setting}");
        }
        assert!(names("\"a (b)\", \"say \"\"hi\"\"\"", "say \"hi\""));
        assert!(names("\"a (b)\"", "a (b)"));
    }
}
