//! Keyword/value strings, such as `host=db1 dbname='my db'`, by libpq's grammar.

use zeroize::Zeroizing;

use super::ConfigError;
use super::pair::Pair;

/// The pairs of a string, in order. Keywords are not looked at.
///
/// Blanks around `=` are allowed. A value in single quotes may hold blanks; a backslash takes the
/// next character as it is, in quotes and outside.
pub(super) fn parse(text: &str) -> Result<Vec<Pair>, ConfigError> {
    let mut pairs = Vec::new();
    let mut rest = skip_blanks(text);
    while !rest.is_empty() {
        let (keyword, tail) = split_where(rest, |c| c == '=' || is_blank(c));
        // The word may be a piece of an unquoted password: it is not quoted, only located.
        let Some(tail) = skip_blanks(tail).strip_prefix('=') else {
            let position = text.len() - rest.len() + 1;
            return Err(ConfigError::Syntax {
                problem: format!(
                    "no `=` follows the word at position {position}; \
                     a value with spaces needs single quotes"
                ),
            });
        };
        let tail = skip_blanks(tail);
        let (value, tail) = match tail.strip_prefix('\'') {
            Some(quoted) => quoted_value(quoted)?,
            None => bare_value(tail),
        };
        pairs.push(Pair { keyword: keyword.to_owned(), value });
        rest = skip_blanks(tail);
    }
    Ok(pairs)
}

/// C's `isspace`, which libpq splits at.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

fn skip_blanks(text: &str) -> &str {
    text.trim_start_matches(is_blank)
}

fn split_where(text: &str, end: impl Fn(char) -> bool) -> (&str, &str) {
    let at = text.find(end).unwrap_or(text.len());
    text.split_at_checked(at).unwrap_or((text, ""))
}

fn quoted_value(text: &str) -> Result<(Zeroizing<String>, &str), ConfigError> {
    let end = end_of_value(text, |c| c == '\'').and_then(|end| text.split_at_checked(end));
    let Some((raw, tail)) = end else {
        return Err(ConfigError::Syntax {
            problem: "a quoted value has no closing quote".to_owned(),
        });
    };
    Ok((unescape(raw), tail.strip_prefix('\'').unwrap_or(tail)))
}

fn bare_value(text: &str) -> (Zeroizing<String>, &str) {
    let end = end_of_value(text, is_blank).unwrap_or(text.len());
    let (raw, tail) = text.split_at_checked(end).unwrap_or((text, ""));
    (unescape(raw), tail)
}

/// Where the first character is that ends a value and has no backslash in front of it.
fn end_of_value(text: &str, ends: impl Fn(char) -> bool) -> Option<usize> {
    let mut escaped = false;
    text.find(|c| {
        let found = !escaped && ends(c);
        escaped = !escaped && c == '\\';
        found
    })
}

/// The value without its escapes. With room for all of it, no copy of a password is left behind in
/// memory that was outgrown.
fn unescape(raw: &str) -> Zeroizing<String> {
    let mut value = Zeroizing::new(String::with_capacity(raw.len()));
    let mut rest = raw.chars();
    while let Some(c) = rest.next() {
        // A backslash at the very end is dropped, as libpq does.
        value.extend(if c == '\\' { rest.next() } else { Some(c) });
    }
    value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text)
            .unwrap()
            .into_iter()
            .map(|pair| (pair.keyword, pair.value.as_str().to_owned()))
            .collect()
    }

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    // The results are those of libpq's `PQconninfoParse`.
    #[test]
    fn reads_what_libpq_reads() {
        for (text, expected) in [
            ("", &[][..]),
            (" \t\n", &[]),
            ("host=a", &[("host", "a")]),
            ("host = a port\t=\n5", &[("host", "a"), ("port", "5")]),
            ("host=", &[("host", "")]),
            ("host= port=5", &[("host", "port=5")]),
            ("host='' port=5", &[("host", ""), ("port", "5")]),
            ("user='a b'", &[("user", "a b")]),
            ("user='a'port=5", &[("user", "a"), ("port", "5")]),
            (r"user='it\'s'", &[("user", "it's")]),
            (r"user=it\'s", &[("user", "it's")]),
            (r"user=a\ b", &[("user", "a b")]),
            (r"user=a\\b", &[("user", r"a\b")]),
            ("user=it's", &[("user", "it's")]),
            (r"user=a\", &[("user", "a")]),
            ("options='-c a=b'", &[("options", "-c a=b")]),
            ("options=-ca=b", &[("options", "-ca=b")]),
            ("a=1\x0bb=2\x0cc=3", &[("a", "1"), ("b", "2"), ("c", "3")]),
            ("=x", &[("", "x")]),
            // A no-break space is not a blank.
            ("user=a\u{a0}b", &[("user", "a\u{a0}b")]),
        ] {
            assert_eq!(pairs(text), owned(expected), "{text:?}");
        }
    }

    #[test]
    fn refuses_what_libpq_refuses() {
        for text in ["host", "host a=b", "host=a port", "user='a", r"user='a\'", r"user='a\"] {
            assert!(matches!(parse(text), Err(ConfigError::Syntax { .. })), "{text:?}");
        }
    }

    #[test]
    fn a_word_of_a_password_is_not_quoted() {
        let error = parse("password=my secret host=a").err().unwrap().to_string();
        assert!(!error.contains("secret"), "{error}");
        assert!(error.contains("position 13"), "{error}");
    }

    #[test]
    fn values_take_no_more_memory_than_they_are_long() {
        for value in ["1 ", "'1' ", r"\1 ", r"'\'1' "] {
            let text = format!("a={value}").repeat(1000);
            let pairs = parse(&text).unwrap();
            let taken: usize = pairs.iter().map(|pair| pair.value.capacity()).sum();
            assert!(taken <= text.len(), "{value}: {taken}");
        }
    }

    fn quote(value: &str) -> String {
        format!("'{}'", value.replace('\\', r"\\").replace('\'', r"\'"))
    }

    fn escape(value: &str) -> String {
        value
            .chars()
            .flat_map(|c| {
                (is_blank(c) || matches!(c, '\\' | '\'')).then_some('\\').into_iter().chain([c])
            })
            .collect()
    }

    proptest! {
        #[test]
        fn never_panics(text in any::<String>()) {
            let _ = parse(&text);
        }

        #[test]
        fn never_panics_on_what_is_almost_right(text in r"([a-z]{0,3}|[ ='\\\n])*") {
            let _ = parse(&text);
        }

        #[test]
        fn quoted_values_come_back(values in prop::collection::vec(("[a-z_]{1,9}", any::<String>()), 0..5)) {
            let text: String = values.iter().map(|(key, value)| format!("{key} = {} ", quote(value))).collect();
            prop_assert_eq!(pairs(&text), values);
        }

        #[test]
        fn escaped_values_come_back(key in "[a-z_]{1,9}", value in any::<String>()) {
            prop_assume!(!value.is_empty());
            prop_assert_eq!(pairs(&format!("{key}={}", escape(&value))), vec![(key, value)]);
        }
    }
}
