//! The JSON Schema that users see: for editors, and for `mesh config schema`.

use super::{
    later::{self, Feature, Off},
    shape,
    text::KIND_KEYWORD,
};
use schemars::{Schema, transform::RecursiveTransform, transform::Transform};
use serde_json::{Map, Value, json};

/// The JSON Schema (draft 2020-12) of a configuration file. It accepts what the daemon accepts of one file, but for the
/// rules that look at several values, and for addresses, of which it checks the form only.
#[must_use]
pub fn schema() -> Value {
    let mut schema = shape::schema();
    RecursiveTransform(|schema: &mut Schema| {
        if let Some(object) = schema.as_object_mut() {
            object.remove(KIND_KEYWORD);
            // Rust's name for the width of an integer, which may be all that bounds it.
            if object.get("type") == Some(&json!("integer"))
                && object.remove("format").is_some_and(|format| format == "uint32")
            {
                object.entry("maximum").or_insert(u32::MAX.into());
            }
            if let Some(Value::String(description)) = object.get_mut("description") {
                *description = description.replace('\n', " ");
            }
        }
    })
    .transform(&mut schema);
    let mut schema = schema.to_value();
    for (path, feature) in later::features() {
        if let Some(accepted) = accepted(feature) {
            insert(&mut schema, &path, accepted);
        }
    }
    close(&mut schema);
    schema["title"] = json!("mesh.yaml");
    schema
}

/// What is accepted of a feature of later work: only what asks for nothing.
fn accepted(feature: &Feature) -> Option<Value> {
    let mut root = None;
    for (key, off) in feature.keys {
        let Some(value) = off.schema() else { continue };
        if key.is_empty() {
            root = Some(value);
        } else {
            insert(root.get_or_insert_with(|| json!({ "type": "object" })), key, value);
        }
    }
    let mut root = root?;
    root["description"] = json!("Not supported yet.");
    Some(root)
}

impl Off {
    fn schema(self) -> Option<Value> {
        Some(match self {
            Self::Never => return None,
            Self::Empty => json!({ "const": "" }),
            Self::EmptyList => json!({ "type": "array", "maxItems": 0 }),
            Self::False => json!({ "const": false }),
            Self::Zero => json!({ "const": 0 }),
        })
    }
}

/// Puts `value` at `path` of an object schema, as [`shape::Shape`] does; objects that are not there are made.
fn insert(schema: &mut Value, path: &str, value: Value) {
    let (step, rest) = path.split_once('.').map_or((path, None), |(step, rest)| (step, Some(rest)));
    let key = step.strip_suffix("[]").unwrap_or(step);
    let Some(object) = schema.as_object_mut() else { return };
    let properties = object.entry("properties").or_insert_with(|| json!({}));
    let Some(properties) = properties.as_object_mut() else { return };
    match rest {
        None => {
            properties.entry(key).or_insert(value);
        }
        Some(rest) => {
            let mut inner = properties.entry(key).or_insert_with(|| json!({ "type": "object" }));
            if step.ends_with("[]") {
                inner = &mut inner["items"];
            }
            insert(inner, rest, value);
        }
    }
}

/// Refuses fields that are not named.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object.get("properties").is_some_and(Value::is_object) {
                object.insert("additionalProperties".to_owned(), false.into());
            }
            close_all(object);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

fn close_all(object: &mut Map<String, Value>) {
    // A default is a value, not a schema: one that has a key `properties` would not be meant.
    object.iter_mut().filter(|(key, _)| *key != "default").for_each(|(_, value)| close(value));
}
