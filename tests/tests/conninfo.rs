//! Our reading of connection strings beside libpq's own.
//!
//! Both must accept the same strings, and find the same options in them. There are two differences,
//! both on purpose: a Rust string can hold a NUL, which we refuse and libpq never sees; and a value
//! that is not UTF-8 after percent-decoding, which we refuse.
// All of it is tests, which fail by panicking.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use pgwire_stream::fuzzing::{conninfo_keywords, conninfo_pairs};
use proptest::prelude::*;
use walrecv_libpq::Libpq;
use walrecv_tests::{installation, tools};

/// The libpq whose keywords are ours.
const MAJOR: i32 = 18;

static LIBPQ: LazyLock<Option<Libpq>> = LazyLock::new(|| {
    let installed = installation::all().iter().filter(|found| found.major == MAJOR as u32);
    let libraries: Vec<PathBuf> = installed
        .filter_map(|found| Some(found.bindir.parent()?.join("lib/libpq.so.5")))
        .chain([PathBuf::from("libpq.so.5")])
        .collect();
    let found = Libpq::first_of(libraries).filter(|libpq| libpq.major() == MAJOR);
    if found.is_none() {
        tools::missing("libpq 18", "the reading of connection strings");
    }
    found
});

/// Compares both readings of a string.
fn compare(text: &str) -> Result<(), TestCaseError> {
    let Some(libpq) = &*LIBPQ else { return Ok(()) };
    let map =
        |pairs: Vec<(String, String)>| -> BTreeMap<String, String> { pairs.into_iter().collect() };
    match (conninfo_pairs(text), libpq.conninfo_parse(text)) {
        (Ok(ours), Ok(theirs)) => prop_assert_eq!(map(ours), map(theirs), "{:?}", text),
        (Err(_), Err(_)) => {}
        (Ok(ours), Err(theirs)) => prop_assert!(false, "{text:?}: {ours:?}; libpq: {theirs}"),
        (Err(ours), Ok(theirs)) => prop_assert!(false, "{text:?}: {ours}; libpq: {theirs:?}"),
    }
    Ok(())
}

#[test]
fn the_keywords_and_their_variables_are_libpqs() {
    let Some(libpq) = &*LIBPQ else { return };
    let theirs: BTreeMap<_, _> = libpq.keywords().unwrap().into_iter().collect();
    let ours: BTreeMap<_, _> = conninfo_keywords()
        .into_iter()
        .map(|(name, variable)| (name.to_owned(), variable.map(str::to_owned)))
        .collect();
    assert_eq!(ours, theirs);
}

#[test]
fn the_table_is_read_alike() {
    for text in [
        "",
        " \t\r\n\u{b}\u{c}",
        "host",
        "host=",
        "host=a",
        "host = a",
        "host =",
        "=a",
        "=",
        "host==a",
        "host=a=b",
        "host=a port = 5",
        "host= port=5",
        "host='a b' user=c",
        "host='a'user=c",
        "host='a",
        "host='a\\'",
        "host='a\\\\'",
        r"host=a\ b",
        r"host=a\",
        r"host=\'a\'",
        "host=''",
        "host=a'b",
        "host=a#b",
        "HOST=a",
        "hosts=a",
        "user=a user=b",
        "requiressl=1",
        "requiressl=0 sslmode=disable",
        "sslmode=disable requiressl=1",
        "requiressl=",
        "user=\u{a0}x",
        "user\u{a0}=x",
        "user=ä",
        "password=a password=",
        "host=a;port=5",
        "service=x",
        "servicefile=x",
        "replication=database",
        "postgres:",
        "postgres:/",
        "postgres://",
        "postgresql://",
        "POSTGRES://h",
        "postgresql:///",
        "postgresql://h",
        "postgresql://h:",
        "postgresql://h:5",
        "postgresql://h:x/d",
        "postgresql://:5/d",
        "postgresql://@h",
        "postgresql://u@",
        "postgresql://u:@h",
        "postgresql://:p@h",
        "postgresql://u:p@h:5/d?user=v&password=q",
        "postgresql://u:p:q@h",
        "postgresql://u@v@h",
        "postgresql://u/v@h",
        "postgresql://u?v@h",
        "postgresql://[::1]",
        "postgresql://[::1]:5/d",
        "postgresql://[::1]x",
        "postgresql://[::1",
        "postgresql://[]",
        "postgresql://[a]b[c]",
        "postgresql://a[b]",
        "postgresql://[::1],[::2]:5",
        "postgresql://a,b",
        "postgresql://a:1,b:2,c",
        "postgresql://,",
        "postgresql://,:5",
        "postgresql://a,,b/d",
        "postgresql://a:1:2",
        "postgresql://h/d/e",
        "postgresql://h//d",
        "postgresql://h/d?",
        "postgresql://h/?",
        "postgresql://h?",
        "postgresql://h?user",
        "postgresql://h?user=",
        "postgresql://h?=u",
        "postgresql://h?user=a&",
        "postgresql://h?&user=a",
        "postgresql://h?user=a&&",
        "postgresql://h?user=a=b",
        "postgresql://h?user=a?b",
        "postgresql://h?user=a#b",
        "postgresql://h?User=a",
        "postgresql://h?us%65r=a",
        "postgresql://h?user%3Da",
        "postgresql://h?ssl=true",
        "postgresql://h?ssl=TRUE",
        "postgresql://h?ssl=false",
        "postgresql://h?s%73l=true",
        "postgresql://h?requiressl=1",
        "postgresql://h?host=i",
        "postgresql://h%2Fi",
        "postgresql://%2Ftmp:5/d",
        "postgresql://%",
        "postgresql://%4",
        "postgresql://%zz",
        "postgresql://%00",
        "postgresql://a%2Cb",
        "postgresql:// h",
        "postgresql://h ",
        "postgresql://h i",
        "postgresql://h/ d ",
        "postgresql://h?user= a ",
        "postgresql://h?user=a b",
        "postgresql://h? user=a",
        "postgresql://h/d\tx",
        "postgresql://ä:ö@ü/ß",
        " postgresql://h",
    ] {
        if let Err(difference) = compare(text) {
            panic!("{difference}");
        }
    }
}

/// What the fuzz targets have found worth keeping reaches every branch of our parser.
#[test]
fn what_fuzzing_has_found_is_read_alike() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    for (target, scheme) in [("conninfo", ""), ("uri", "postgresql://")] {
        let folders = ["seeds", "corpus"].map(|kind| fuzz.join(kind).join(target));
        let mut compared = 0;
        for file in folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten() {
            let Ok(text) = fs::read_to_string(file.unwrap().path()) else { continue };
            if text.contains('\0') {
                continue;
            }
            if let Err(difference) = compare(&format!("{scheme}{text}")) {
                panic!("{difference}");
            }
            compared += 1;
        }
        assert!(compared > 0);
    }
}

#[test]
fn the_differences_are_these_two() {
    let Some(libpq) = &*LIBPQ else { return };
    assert!(conninfo_pairs("user=a\0b").is_err());
    assert!(conninfo_pairs("postgresql://%FF@h").is_err());
    let theirs = libpq.conninfo_parse("postgresql://%FF@h").unwrap_err();
    assert_eq!(theirs, "it is not UTF-8", "libpq has found something wrong with it: {theirs}");
}

/// A keyword, more often than not one that exists.
fn keyword() -> impl Strategy<Value = String> {
    let known: Vec<_> = conninfo_keywords().into_iter().map(|(name, _)| name.to_owned()).collect();
    prop_oneof![
        20 => prop::sample::select(known),
        1 => Just("requiressl".to_owned()),
        1 => Just("ssl".to_owned()),
        1 => "[a-z_]{0,8}",
    ]
}

/// A value, quoted, escaped or left as it is.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9,./:@-]{0,8}",
        r"'([a-zä =\t\n]|\\.){0,8}'",
        r"([a-z']|\\[ a-z'\\]){0,8}",
        r"[ a-z'\\=\u{a0}]{0,6}",
        Just("true".to_owned()),
    ]
}

fn conninfo() -> impl Strategy<Value = String> {
    let blank = || r"[ \t\n\x0b\x0c\r]{0,2}";
    let equals = prop_oneof![8 => Just("="), 1 => Just(""), 1 => Just("==")];
    let pair = (blank(), keyword(), blank(), equals, blank(), value(), blank());
    prop::collection::vec(pair, 0..5).prop_map(|pairs| {
        pairs
            .into_iter()
            .map(|(a, key, b, equals, c, value, d)| format!("{a}{key}{b}{equals}{c}{value}{d} "))
            .collect()
    })
}

/// A part of a URI: mostly harmless, sometimes encoded, sometimes what does not belong there.
fn part() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop_oneof![
            12 => "[a-z0-9.-]{1,4}",
            3 => "%[0-7][0-9A-Fa-f]",
            1 => "[ @:/?,=&%\\[\\]#ä]",
        ],
        0..4,
    )
    .prop_map(|pieces| pieces.concat())
}

fn uri() -> impl Strategy<Value = String> {
    let maybe = |strategy: BoxedStrategy<String>| {
        prop::option::of(strategy).prop_map(Option::unwrap_or_default)
    };
    let credentials = (part(), maybe(part().prop_map(|p| format!(":{p}")).boxed()))
        .prop_map(|(user, password)| format!("{user}{password}@"));
    let address =
        prop_oneof![6 => part(), 1 => Just("[::1]".to_owned()), 1 => Just("[".to_owned())];
    let host = (address, maybe(part().prop_map(|p| format!(":{p}")).boxed()))
        .prop_map(|(host, port)| format!("{host}{port}"));
    let hosts = prop::collection::vec(host, 0..4).prop_map(|hosts| hosts.join(","));
    let parameter = (keyword(), part()).prop_map(|(key, value)| format!("{key}={value}"));
    let query =
        prop::collection::vec(parameter, 0..4).prop_map(|list| format!("?{}", list.join("&")));
    (
        prop::sample::select(vec!["postgres://", "postgresql://"]),
        maybe(credentials.boxed()),
        hosts,
        maybe(part().prop_map(|p| format!("/{p}")).boxed()),
        maybe(query.boxed()),
    )
        .prop_map(|(scheme, credentials, hosts, database, query)| {
            format!("{scheme}{credentials}{hosts}{database}{query}")
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(5000) })]

    #[test]
    fn generated_strings_are_read_alike(text in conninfo()) {
        compare(&text)?;
    }

    #[test]
    fn generated_uris_are_read_alike(text in uri()) {
        compare(&text)?;
    }

    #[test]
    fn any_text_is_read_alike(text in any::<String>(), scheme in prop::bool::ANY) {
        let scheme = if scheme { "postgresql://" } else { "" };
        compare(&format!("{scheme}{text}"))?;
    }
}
