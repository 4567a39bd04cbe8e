//! The JSON Schema that users see: for editors, for `mesh config schema`, and for the reference in `docs/configuration.md`.

use super::{
    bounds, shape,
    text::{KIND_KEYWORD, KINDS},
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
            if let Some(Value::String(name)) = object.remove(KIND_KEYWORD)
                && let Some(kind) = KINDS.iter().find(|kind| kind.name == name)
            {
                object.insert("title".to_owned(), kind.expected.into());
            }
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
    for (path, words) in bounds::all() {
        if let Some(Value::String(description)) = at(&mut schema, &path).and_then(|s| s.get_mut("description")) {
            description.push_str(&format!(" Range: {words}."));
        }
    }
    close(&mut schema);
    schema["title"] = json!("mesh.yaml");
    schema
}

/// The schema of the value at `path`, in which `[]` stands for the items of a list.
fn at<'s>(schema: &'s mut Value, path: &str) -> Option<&'s mut Value> {
    path.split('.').try_fold(schema, |schema, step| {
        let key = step.strip_suffix("[]");
        let value = schema.get_mut("properties")?.get_mut(key.unwrap_or(step))?;
        if key.is_some() { value.get_mut("items") } else { Some(value) }
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bounded_duration_says_so() {
        let mut schema = schema();
        for (path, words) in bounds::all() {
            let description = at(&mut schema, &path).and_then(|s| s["description"].as_str()).unwrap_or_default();
            assert!(description.ends_with(&format!(" Range: {words}.")), "{path}: {description}");
        }
    }
}
