//! Names in statements that an operator is told to run.

/// A name as SQL and `pg_hba.conf` take it.
pub fn quoted_role(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_plain_is_quoted() {
        for (name, quoted) in [
            ("walrecv", "walrecv"),
            ("_r2", "_r2"),
            ("2r", "\"2r\""),
            ("Backup", "\"Backup\""),
            ("a\"b", "\"a\"\"b\""),
            ("", "\"\""),
        ] {
            assert_eq!(quoted_role(name), quoted);
        }
    }
}
