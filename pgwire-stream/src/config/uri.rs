//! URIs: `postgresql://user:password@host1:5432,[::1]:5433/database?sslmode=require`.
//!
//! Several hosts are allowed, and a host may be a percent-encoded directory: hence no general URL
//! parser can read these.

use zeroize::Zeroizing;

use super::ConfigError;
use super::pair::Pair;

/// What follows the scheme, if the text is a URI.
pub(super) fn strip_scheme(text: &str) -> Option<&str> {
    text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://"))
}

/// The pairs that a URI stands for, given what follows its scheme.
pub(super) fn parse(text: &str) -> Result<Vec<Pair>, ConfigError> {
    let mut pairs = Vec::new();
    let rest = match credentials(text) {
        Some((user, password, rest)) => {
            push(&mut pairs, "user", user)?;
            push(&mut pairs, "password", password)?;
            rest
        }
        None => text,
    };
    let (hosts, ports, rest) = locations(rest)?;
    push(&mut pairs, "host", &hosts)?;
    push(&mut pairs, "port", &ports)?;
    let (path, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    push(&mut pairs, "dbname", path.strip_prefix('/').unwrap_or(path))?;
    let mut rest = parameters;
    while !rest.is_empty() {
        let (parameter, tail) = rest.split_once('&').unwrap_or((rest, ""));
        pairs.push(query_parameter(parameter)?);
        rest = tail;
    }
    Ok(pairs)
}

/// Empty parts are as good as absent: the environment may fill them in.
fn push(pairs: &mut Vec<Pair>, keyword: &str, encoded: &str) -> Result<(), ConfigError> {
    if !encoded.is_empty() {
        pairs.push(Pair { keyword: keyword.to_owned(), value: decode(encoded)? });
    }
    Ok(())
}

/// User, password and what follows, if there is an `@` before the first `/`.
fn credentials(text: &str) -> Option<(&str, &str, &str)> {
    let at = text.find(['@', '/'])?;
    let (credentials, rest) = text.split_at_checked(at)?;
    let rest = rest.strip_prefix('@')?;
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    Some((user, password, rest))
}

/// The hosts and the ports, each joined by commas and still encoded, and what follows them.
fn locations(text: &str) -> Result<(String, String, &str), ConfigError> {
    let mut hosts = String::new();
    let mut ports = String::new();
    let mut rest = text;
    loop {
        rest = match rest.strip_prefix('[') {
            Some(bracketed) => {
                let Some((address, tail)) = bracketed.split_once(']') else {
                    return Err(syntax("an IPv6 address has no closing bracket"));
                };
                if address.is_empty() {
                    return Err(syntax("the brackets hold no IPv6 address"));
                }
                if !tail.is_empty() && !tail.starts_with([':', '/', '?', ',']) {
                    return Err(syntax("`:` or `/` must follow an IPv6 address in brackets"));
                }
                hosts.push_str(address);
                tail
            }
            None => take_until(rest, &[':', '/', '?', ','], &mut hosts),
        };
        if let Some(port) = rest.strip_prefix(':') {
            rest = take_until(port, &['/', '?', ','], &mut ports);
        }
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Ok((hosts, ports, rest)),
        }
        hosts.push(',');
        ports.push(',');
    }
}

/// Moves the text before any of `ends` to `taken`, and returns the rest.
fn take_until<'a>(text: &'a str, ends: &[char], taken: &mut String) -> &'a str {
    let at = text.find(ends).unwrap_or(text.len());
    let (head, tail) = text.split_at_checked(at).unwrap_or((text, ""));
    taken.push_str(head);
    tail
}

fn query_parameter(parameter: &str) -> Result<Pair, ConfigError> {
    let Some((keyword, value)) = parameter.split_once('=') else {
        return Err(syntax("a query parameter has no `=`"));
    };
    if value.contains('=') {
        return Err(syntax("a query parameter has more than one `=`"));
    }
    let pair = Pair { keyword: decode(keyword)?.to_string(), value: decode(value)? };
    // What JDBC's users write.
    if pair.keyword == "ssl" && pair.value.as_str() == "true" {
        return Ok(Pair {
            keyword: "sslmode".to_owned(),
            value: Zeroizing::new("require".to_owned()),
        });
    }
    Ok(pair)
}

/// Undoes percent-encoding. Spaces are dropped at both ends and refused between.
fn decode(encoded: &str) -> Result<Zeroizing<String>, ConfigError> {
    let encoded = encoded.trim_matches(' ');
    if encoded.contains(' ') {
        return Err(syntax("a URI cannot hold spaces; write `%20`"));
    }
    // The decoder takes a `%` that starts no sequence literally; libpq and we do not.
    let well_formed = encoded.split('%').skip(1).all(|after| {
        matches!(after.as_bytes(), [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit())
    });
    if !well_formed {
        return Err(syntax(
            "two hexadecimal digits must follow `%`; write `%25` for a percent sign",
        ));
    }
    let bytes: Zeroizing<Vec<u8>> =
        Zeroizing::new(percent_encoding::percent_decode_str(encoded).collect());
    match str::from_utf8(&bytes) {
        Ok(text) if text.contains('\0') => Err(syntax("`%00` is not allowed")),
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(syntax("percent-encoded bytes must be UTF-8 text")),
    }
}

fn syntax(problem: &str) -> ConfigError {
    ConfigError::Syntax { problem: problem.to_owned() }
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    use super::*;

    fn pairs(uri: &str) -> Vec<(String, String)> {
        parse(strip_scheme(uri).unwrap())
            .unwrap()
            .into_iter()
            .map(|pair| (pair.keyword, pair.value.as_str().to_owned()))
            .collect()
    }

    // The first fourteen are the examples of libpq's documentation; the results are those of
    // libpq's `PQconninfoParse`.
    #[test]
    fn reads_what_libpq_reads() {
        for (uri, expected) in [
            ("postgresql://", &[][..]),
            ("postgresql://localhost", &[("host", "localhost")]),
            ("postgresql://localhost:5433", &[("host", "localhost"), ("port", "5433")]),
            ("postgresql://localhost/mydb", &[("host", "localhost"), ("dbname", "mydb")]),
            ("postgresql://user@localhost", &[("user", "user"), ("host", "localhost")]),
            (
                "postgresql://user:secret@localhost",
                &[("user", "user"), ("password", "secret"), ("host", "localhost")],
            ),
            (
                "postgresql://other@localhost/otherdb?connect_timeout=10&application_name=myapp",
                &[
                    ("user", "other"),
                    ("host", "localhost"),
                    ("dbname", "otherdb"),
                    ("connect_timeout", "10"),
                    ("application_name", "myapp"),
                ],
            ),
            (
                "postgresql://host1:123,host2:456/somedb?target_session_attrs=any&application_name=myapp",
                &[
                    ("host", "host1,host2"),
                    ("port", "123,456"),
                    ("dbname", "somedb"),
                    ("target_session_attrs", "any"),
                    ("application_name", "myapp"),
                ],
            ),
            (
                "postgresql://user@localhost:5433/mydb?options=-c%20synchronous_commit%3Doff",
                &[
                    ("user", "user"),
                    ("host", "localhost"),
                    ("port", "5433"),
                    ("dbname", "mydb"),
                    ("options", "-c synchronous_commit=off"),
                ],
            ),
            (
                "postgresql:///mydb?host=localhost&port=5433",
                &[("dbname", "mydb"), ("host", "localhost"), ("port", "5433")],
            ),
            (
                "postgresql://[2001:db8::1234]/database",
                &[("host", "2001:db8::1234"), ("dbname", "database")],
            ),
            (
                "postgresql:///dbname?host=/var/lib/postgresql",
                &[("dbname", "dbname"), ("host", "/var/lib/postgresql")],
            ),
            (
                "postgresql://%2Fvar%2Flib%2Fpostgresql/dbname",
                &[("host", "/var/lib/postgresql"), ("dbname", "dbname")],
            ),
            ("postgres://localhost?ssl=true", &[("host", "localhost"), ("sslmode", "require")]),
            ("postgresql://[::1]:5433,b", &[("host", "::1,b"), ("port", "5433,")]),
            ("postgresql://a,b:2/", &[("host", "a,b"), ("port", ",2")]),
            ("postgresql://:@:?", &[]),
            ("postgresql://u:p:q@h", &[("user", "u"), ("password", "p:q"), ("host", "h")]),
            ("postgresql://u:p%40q@h", &[("user", "u"), ("password", "p@q"), ("host", "h")]),
            ("postgresql://u:p?q@h", &[("user", "u"), ("password", "p?q"), ("host", "h")]),
            ("postgresql://a@b@c", &[("user", "a"), ("host", "b@c")]),
            ("postgresql://h/a/b", &[("host", "h"), ("dbname", "a/b")]),
            ("postgresql://h/?user=a&", &[("host", "h"), ("user", "a")]),
            ("postgresql://h?user=", &[("host", "h"), ("user", "")]),
        ] {
            let expected: Vec<_> = expected
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect();
            assert_eq!(pairs(uri), expected, "{uri}");
        }
    }

    #[test]
    fn refuses_what_libpq_refuses() {
        for rest in [
            "[::1",
            "[]",
            "[::1]x",
            "h?user",
            "h?&user=a",
            "h?user=a=b",
            "h%zz",
            "h%4",
            "h%",
            "%00@h",
            "a b",
            "h?user=a%20b c",
        ] {
            assert!(matches!(parse(rest), Err(ConfigError::Syntax { .. })), "{rest}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        assert!(matches!(parse("u:%FF@h"), Err(ConfigError::Syntax { .. })));
    }

    proptest! {
        #[test]
        fn never_panics(text in any::<String>()) {
            let _ = parse(&text);
        }

        #[test]
        fn never_panics_on_what_is_almost_right(text in r"([a-z0-9]{0,3}|[@:/?,=&%\[\] ]|%[0-9A-F]{2})*") {
            let _ = parse(&text);
        }

        #[test]
        fn encoded_parts_come_back(user in "[^\0]{1,20}", password in "[^\0]{1,20}", database in "[^\0]{1,20}") {
            let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
            let uri = format!(
                "postgresql://{}:{}@h/{}?application_name={}",
                encode(&user), encode(&password), encode(&database), encode(&user),
            );
            prop_assert_eq!(pairs(&uri), vec![
                ("user".to_owned(), user.clone()),
                ("password".to_owned(), password),
                ("host".to_owned(), "h".to_owned()),
                ("dbname".to_owned(), database),
                ("application_name".to_owned(), user),
            ]);
        }
    }
}
