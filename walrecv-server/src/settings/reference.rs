//! The annotated configuration with every key, made from the table of keys.

use super::keys::{self, Key, Section};
use super::schema::SCHEMA_LINE;

/// How long the lines of comments are at most.
const WIDTH: usize = 96;

const HEAD: &str = "\
Every key that the configuration of walrecv-server may have, with its default, or an example \
where it has none. Nothing here has to be set but a server's `conninfo`.

It is looked for in /etc/walrecv-server/walrecv-server.toml, or where --config or WALRECV_CONFIG \
say. Files with further [servers.NAME] sections may lie in servers.d/*.toml beside it. Every key \
outside of [http] can also come from the environment (WALRECV_ and its name in capitals) or an \
argument (--set KEY=VALUE).

Durations are written as \"500ms\", \"2 minutes\" or \"1h 30m\"; sizes as \"500 MiB\" or \"2 GB\".";

/// The annotated configuration: every key as a comment, with what it has if it is not set.
pub fn reference() -> String {
    let server = |one: bool| keys::of(Section::Server).filter(move |key| key.of_one_server == one);
    let mut text = format!("{SCHEMA_LINE}\n\n");
    comment(&mut text, HEAD);
    section(&mut text, None, "", keys::of(Section::Global));
    section(
        &mut text,
        Some("[http]"),
        "Where the daemon answers browsers and monitoring.",
        keys::of(Section::Http),
    );
    section(
        &mut text,
        Some("[defaults]"),
        "What holds for all servers. Each of these keys can stand in a server's section, too, and \
         counts more there.",
        server(false),
    );
    section(
        &mut text,
        Some("#[servers.main]"),
        "A server, by the name that it has here. What follows describes one server, and cannot be \
         among the defaults.",
        server(true),
    );
    text
}

/// These keys as comments, each with an example that is its default where that says something.
pub fn explained(names: &[&str]) -> String {
    let keys = names.iter().filter_map(|name| keys::anywhere().find(|key| key.name == *name));
    let mut texts = Vec::new();
    for key in keys {
        let mut text = String::new();
        comment(&mut text, key.doc);
        text.push_str(&format!("#{} = {}\n", key.name, key.example()));
        texts.push(text);
    }
    texts.join("\n")
}

fn section(
    text: &mut String,
    name: Option<&str>,
    about: &str,
    keys: impl Iterator<Item = &'static Key>,
) {
    if let Some(name) = name {
        text.push('\n');
        comment(text, about);
        text.push_str(name);
        text.push('\n');
    }
    for key in keys {
        text.push('\n');
        comment(text, key.doc);
        let value = key.default().unwrap_or_else(|| key.example());
        text.push_str(&format!("#{} = {value}\n", key.name));
        if value != key.example() {
            comment(text, &format!("As: {}", key.example()));
        }
    }
}

/// Adds paragraphs as comments, with lines that are not too long.
fn comment(text: &mut String, paragraphs: &str) {
    for line in paragraphs.lines() {
        let mut length = 0;
        for word in line.split(' ').filter(|word| !word.is_empty()) {
            if length == 0 || length + 1 + word.chars().count() > WIDTH {
                text.push_str(if length == 0 { "#" } else { "\n#" });
                length = 1;
            }
            text.push(' ');
            text.push_str(word);
            length += 1 + word.chars().count();
        }
        if length == 0 {
            text.push('#');
        }
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};

    use super::super::{Settings, Typed, schema};
    use super::*;

    fn document(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)
    }

    /// Compares a generated file with the one in the repository. With `WALRECV_REWRITE_DOCS` set it
    /// is written instead.
    fn compare(name: &str, generated: &str) {
        let path = document(name);
        if std::env::var_os("WALRECV_REWRITE_DOCS").is_some() {
            fs::write(&path, generated).unwrap();
        }
        let there = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            there == generated,
            "{} is out of date: run this test once with WALRECV_REWRITE_DOCS=1",
            path.display()
        );
    }

    #[test]
    fn the_documents_in_the_repository_are_those_of_the_table() {
        compare("walrecv-server.toml", &reference());
        compare("walrecv-server.schema.json", &schema());
    }

    /// The settings that a text makes.
    fn load(text: &str) -> Settings {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.toml");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let typed = Typed { config: Some(path), ..Typed::default() };
        let mut settings = Settings::load(&typed, &|_| None).unwrap();
        // It lay somewhere else each time.
        settings.file = None;
        for server in &mut settings.servers {
            server.hooks.configuration = None;
        }
        settings
    }

    /// The reference with those of its keys set that `wanted` says.
    fn uncommented(wanted: impl Fn(&str) -> bool) -> String {
        let lines = reference();
        let lines = lines.lines().map(|line| match line.strip_prefix('#') {
            Some(key) if key.starts_with('[') => key.to_owned(),
            Some(key) if !key.starts_with([' ', ':']) && !key.is_empty() => {
                let name = key.split(' ').next().unwrap();
                if wanted(name) { key.to_owned() } else { line.to_owned() }
            }
            _ => line.to_owned(),
        });
        lines.map(|line| format!("{line}\n")).collect()
    }

    #[test]
    fn every_key_can_be_used_as_it_stands_there() {
        let settings = load(&uncommented(|_| true));
        let [server] = settings.servers.as_slice() else { panic!("{settings:?}") };
        assert_eq!(server.description.as_deref(), Some("orders"));
        assert_eq!(server.hooks.commands.len(), 20);
        assert!(server.backup_schedule.is_some() && server.failure_webhook.is_some());
        for key in keys::KEYS {
            assert!(uncommented(|_| true).contains(&format!("\n{} = ", key.name)), "{}", key.name);
        }
        // As it lies there, it says nothing.
        let mut nothing = load(&reference());
        assert!(nothing.servers.is_empty());
        nothing.servers = settings.servers;
        assert_eq!(nothing.http, Settings::of(Path::new("/x")).http);
    }

    #[test]
    fn the_defaults_of_the_table_are_the_real_ones() {
        let with_default = |name: &str| {
            let key = keys::KEYS.iter().find(|key| key.name == name).unwrap();
            key.default().is_some() || name == "conninfo"
        };
        let set = load(&uncommented(with_default));
        let unset = load(&uncommented(|name| name == "conninfo"));
        assert_eq!(set, unset);
        assert_eq!(set.home, Path::new("/var/lib/walrecv-server"));
    }

    #[test]
    fn every_default_is_told() {
        // What the table does not know cannot be compared: each key that has no default there is
        // one whose absence means something.
        let unset = ["conninfo", "time_zone", "backup_compression_workers"];
        let server = &load("[servers.a]\nconninfo = \"host=a\"").servers[0];
        let shown = format!("{server:?}");
        for key in keys::of(Section::Server).filter(|key| key.default().is_none()) {
            let absent = shown.contains(&format!("{}: None", key.name));
            let is_hook = key.name.ends_with("_script");
            assert!(absent || is_hook || unset.contains(&key.name), "{}", key.name);
        }
    }

    #[test]
    fn examples_are_other_than_the_defaults() {
        for key in keys::KEYS {
            if let keys::Value::DefaultAs(default, example) = key.value {
                assert_ne!(default, example, "{}", key.name);
            }
            assert!(key.doc.ends_with(['.', '?']), "{}", key.name);
        }
    }
}
