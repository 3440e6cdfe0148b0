//! What `show-servers` prints: every key of a server, its value, and who said so.

use serde_json::{Map, Value, json};

use super::Report;
use crate::settings::{Origin, ShownServer, ShownSetting};

impl Report for ShownServer {
    fn console(&self) -> String {
        let width = |text: fn(&ShownSetting) -> usize| self.settings.iter().map(text).max();
        let keys = width(|setting| setting.key.len()).unwrap_or_default();
        let values = width(|setting| setting.text().chars().count()).unwrap_or_default();
        // One long value should not push all that follows out of sight.
        let values = values.min(MOST);
        let mut text = format!("Server {}:\n", self.name);
        for setting in &self.settings {
            let (key, value, from) = (setting.key, setting.text(), setting.from());
            let key = format!("{key}:");
            text.push_str(&format!(
                "\t{key:<keys$}  {value:<values$}  ({from})\n",
                keys = keys + 1
            ));
        }
        text
    }

    fn barman(&self, document: &mut Map<String, Value>) {
        let settings = self.settings.iter();
        let settings: Map<_, _> =
            settings.map(|setting| (setting.key.to_owned(), setting.value.clone())).collect();
        document.insert(self.name.to_string(), Value::Object(settings));
    }

    fn clean(&self) -> Value {
        let settings: Map<_, _> = self
            .settings
            .iter()
            .map(|setting| {
                let value = json!({ "value": setting.value, "origin": origin(setting) });
                (setting.key.to_owned(), value)
            })
            .collect();
        json!({ "server": self.name.as_str(), "settings": settings })
    }
}

/// How wide the column with the values is at most.
const MOST: usize = 60;

fn origin(setting: &ShownSetting) -> Value {
    match &setting.origin {
        None => json!({ "kind": "default" }),
        Some(Origin::File { path, line }) => {
            json!({ "kind": "file", "file": path.to_string_lossy(), "line": line })
        }
        Some(Origin::Environment(name)) => json!({ "kind": "environment", "name": name }),
        Some(Origin::Argument(name)) => json!({ "kind": "argument", "name": name }),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::output::{Results, barman};

    fn shown() -> ShownServer {
        let origin = Origin::File { path: Path::new("/etc/x.toml").into(), line: 7 };
        let setting = |key, value: Value, origin| ShownSetting { key, value, origin };
        ShownServer {
            name: "main".parse().unwrap(),
            settings: vec![
                setting("active", json!(true), None),
                setting("conninfo", json!("host=db password=***"), Some(origin)),
                setting("wal_readers", json!(["a", "b"]), Some(Origin::Argument("--set".into()))),
                setting("description", Value::Null, None),
            ],
        }
    }

    #[test]
    fn values_stand_in_columns_with_their_origin() {
        assert_eq!(
            shown().console(),
            "Server main:\n\
             \tactive:       true                  (default)\n\
             \tconninfo:     host=db password=***  (/etc/x.toml:7)\n\
             \twal_readers:  a, b                  (--set)\n\
             \tdescription:                        (default)\n"
        );
    }

    #[test]
    fn barmans_shape_has_the_values_alone() {
        let document = barman(&Results::one(shown()));
        assert_eq!(
            document,
            json!({ "main": {
                "active": true,
                "conninfo": "host=db password=***",
                "wal_readers": ["a", "b"],
                "description": null,
            } })
        );
        let clean = shown().clean();
        assert_eq!(
            clean["settings"]["conninfo"]["origin"],
            json!({ "kind": "file", "file": "/etc/x.toml", "line": 7 })
        );
        assert_eq!(clean["settings"]["active"]["origin"], json!({ "kind": "default" }));
    }
}
