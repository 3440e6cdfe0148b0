//! A JSON schema of the configuration, for editors, made from the table of keys.

use serde_json::{Map, Value, json};

use super::keys::{self, Key, Kind, Section};

/// The first line of a configuration, by which editors find the schema that lies beside it.
pub const SCHEMA_LINE: &str = "#:schema ./walrecv-server.schema.json";

/// The schema, as JSON.
pub fn schema() -> String {
    let server = || keys::of(Section::Server);
    let mut document = object("The configuration of walrecv-server.", keys::of(Section::Global));
    if let Some(Value::Object(properties)) = document.get_mut("properties") {
        properties.insert(
            "http".to_owned(),
            object("Where the daemon answers browsers and monitoring.", keys::of(Section::Http))
                .into(),
        );
        properties.insert(
            "defaults".to_owned(),
            object("What holds for all servers.", server().filter(|key| !key.of_one_server)).into(),
        );
        let mut one = object("A server.", server());
        one.insert("required".to_owned(), json!(["conninfo"]));
        let servers = json!({
            "description": "The servers, by their names.",
            "type": "object",
            "additionalProperties": one,
        });
        properties.insert("servers".to_owned(), servers);
    }
    document.insert("$schema".to_owned(), json!("http://json-schema.org/draft-07/schema#"));
    document.insert("title".to_owned(), json!("walrecv-server"));
    format!("{:#}\n", Value::Object(document))
}

/// A table with these keys, and no others.
fn object(about: &str, keys: impl Iterator<Item = &'static Key>) -> Map<String, Value> {
    let properties: Map<_, _> =
        keys.map(|key| (key.name.to_owned(), Value::Object(property(key)))).collect();
    let mut object = Map::new();
    object.insert("description".to_owned(), json!(about));
    object.insert("type".to_owned(), json!("object"));
    object.insert("additionalProperties".to_owned(), json!(false));
    object.insert("properties".to_owned(), Value::Object(properties));
    object
}

fn property(key: &Key) -> Map<String, Value> {
    let values = match key.kind {
        Kind::Choice(words) => json!({ "enum": words }),
        Kind::FlagOr(word) => json!({ "enum": [true, false, word] }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Count(least, most) => {
            json!({ "type": "integer", "minimum": least, "maximum": most })
        }
        Kind::Duration | Kind::Rate | Kind::Size => {
            json!({ "type": ["string", "integer"], "minimum": 0 })
        }
        Kind::Words => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::Path | Kind::Secret => {
            json!({ "type": "string", "pattern": "^(/|\\$\\{CREDENTIALS_DIRECTORY\\}/)" })
        }
        Kind::Webhook => json!({ "type": "string", "pattern": "^https?://" }),
        Kind::Conninfo | Kind::Listen | Kind::Period | Kind::Schedule | Kind::Text => {
            json!({ "type": "string" })
        }
    };
    let mut property = Map::new();
    property.insert("description".to_owned(), json!(key.doc));
    if let Value::Object(values) = values {
        property.extend(values);
    }
    if let Some(default) = key.default_as_json() {
        property.insert("default".to_owned(), default);
    }
    if let Some(example) = key.example_as_json() {
        property.insert("examples".to_owned(), json!([example]));
    }
    property
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a value is one that its description allows; as much of JSON schema as is used here.
    fn fits(value: &Value, schema: &Value) -> bool {
        if let Some(words) = schema.get("enum").and_then(Value::as_array) {
            return words.contains(value);
        }
        let types = match &schema["type"] {
            Value::Array(several) => several.clone(),
            one => vec![one.clone()],
        };
        let own = match value {
            Value::String(text) => {
                let pattern = schema.get("pattern").and_then(Value::as_str).unwrap_or_default();
                let starts = match pattern {
                    "" => true,
                    "^https?://" => text.starts_with("http"),
                    _ => text.starts_with('/') || text.starts_with("${CREDENTIALS_DIRECTORY}/"),
                };
                if starts { "string" } else { "other" }
            }
            Value::Bool(_) => "boolean",
            Value::Array(items) => {
                assert!(items.iter().all(|item| fits(item, &schema["items"])));
                "array"
            }
            Value::Number(number) => {
                let number = number.as_i64().unwrap();
                let least = schema.get("minimum").and_then(Value::as_i64).unwrap_or(i64::MIN);
                let most = schema.get("maximum").and_then(Value::as_i64).unwrap_or(i64::MAX);
                if (least..=most).contains(&number) { "integer" } else { "other" }
            }
            _ => "other",
        };
        types.iter().any(|of| of == own)
    }

    #[test]
    fn defaults_and_examples_fit_the_schema() {
        let document: Value = serde_json::from_str(&schema()).unwrap();
        let server = &document["properties"]["servers"]["additionalProperties"];
        for key in keys::KEYS {
            let table = match key.section {
                Section::Global => &document,
                Section::Http => &document["properties"]["http"],
                Section::Server => server,
            };
            let property = &table["properties"][key.name];
            for value in key.default_as_json().into_iter().chain(key.example_as_json()) {
                assert!(fits(&value, property), "{}: {value} {property}", key.name);
            }
        }
        assert_eq!(server["required"], json!(["conninfo"]));
        let defaults = &document["properties"]["defaults"]["properties"];
        assert!(defaults.get("conninfo").is_none() && defaults.get("compression").is_some());
        assert!(!fits(&json!("zip"), &defaults["compression"]));
        assert!(!fits(&json!("relative"), &document["properties"]["home"]));
    }
}
