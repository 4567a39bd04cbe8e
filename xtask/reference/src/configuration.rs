//! Keys of the configuration: type, default, range and meaning, all from the JSON Schema, which comes from the types that
//! files are decoded into.

use crate::table::{code, table};
use mesh_userspace::config;
use serde_json::Value;
use std::{cell::RefCell, collections::BTreeSet};

/// The keys, and which of them were written down.
pub(crate) struct Reference {
    keys: Vec<Key>,
    told: RefCell<BTreeSet<String>>,
}

/// A key with a value that is no mapping of keys.
struct Key {
    /// From the root, with dots; `[]` stands for the items of a list.
    path: String,
    kind: String,
    default: String,
    meaning: String,
}

impl Reference {
    pub(crate) fn new() -> Self {
        let schema = config::schema();
        let settings = schema["properties"]["defaults"]["properties"].clone();
        let mut keys = Vec::new();
        collect(&schema, "", &settings, &mut keys);
        Self { keys, told: RefCell::default() }
    }

    /// The keys at and below some paths.
    pub(crate) fn part(&self, paths: &[&str]) -> Result<String, String> {
        let mut rows = Vec::new();
        for path in paths {
            let start = format!("{path}.");
            // Items of a list have a part of their own.
            let wanted = |key: &&Key| {
                let below = key.path.strip_prefix(&start);
                key.path == *path || below.is_some_and(|below| !below.contains("[]"))
            };
            let before = rows.len();
            for key in self.keys.iter().filter(wanted) {
                self.told.borrow_mut().insert(key.path.clone());
                rows.push([code(&key.path), key.kind.clone(), key.default.clone(), key.meaning.clone()]);
            }
            if rows.len() == before {
                return Err(format!("there is no key {path}"));
            }
        }
        Ok(table(["key", "value", "default", "meaning"], rows))
    }

    /// Whether every key has been written down.
    pub(crate) fn nothing_left(&self) -> Result<(), String> {
        let told = self.told.borrow();
        let left: Vec<&str> = self.keys.iter().map(|key| &*key.path).filter(|path| !told.contains(*path)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("docs/configuration.md has no part for {}", left.join(", "))) }
    }
}

/// The keys of a mapping and of all below it, in the order of their declaration. `settings`: those that services inherit.
fn collect(mapping: &Value, path: &str, settings: &Value, keys: &mut Vec<Key>) {
    for (name, schema) in mapping["properties"].as_object().into_iter().flatten() {
        let inherited = match path {
            "services[]" => Some("as in `defaults`"),
            "services[].routes[]" => Some("the service's"),
            _ => None,
        };
        let inherited = inherited.filter(|_| !settings[name].is_null());
        let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let is_mapping = schema["properties"].is_object();
        if is_mapping && inherited.is_none() {
            collect(schema, &below, settings, keys);
            continue;
        }
        let required = mapping["required"].as_array().is_some_and(|required| required.iter().any(|r| r == name));
        let default = match inherited {
            Some(whose) => whose.to_owned(),
            None if required => "required".to_owned(),
            None => default(schema),
        };
        let (meaning, range) = meaning(schema);
        let meaning = if inherited.is_some() && path == "services[]" { String::new() } else { meaning };
        keys.push(Key { path: below.clone(), kind: format!("{}{range}", kind(schema)), default, meaning });
        if schema["items"]["properties"].is_object() {
            collect(&schema["items"], &format!("{below}[]"), settings, keys);
        }
    }
}

/// What it is set to where it is left out.
fn default(schema: &Value) -> String {
    match &schema["default"] {
        // A dump leaves these out, and so does the schema.
        Value::Null if schema["type"] == "boolean" => code("false"),
        Value::Null => code("\"\""),
        Value::String(text) if text.is_empty() => code("\"\""),
        Value::String(text) => code(text),
        // Marks are written in hexadecimal.
        Value::Number(number) if number.as_u64().is_some_and(|number| number > 0xff_ffff) => {
            code(&format!("{:#x}", number.as_u64().unwrap_or_default()))
        }
        value => code(&value.to_string()),
    }
}

/// What it means: its description, and that of each word that it may be. Apart from that the range of a duration.
fn meaning(schema: &Value) -> (String, String) {
    let words = words(if schema["items"].is_object() { &schema["items"] } else { schema });
    let description = schema["description"].as_str().unwrap_or_default();
    let (description, range) = match description.split_once(" Range: ") {
        Some((description, range)) => (description, format!(", {}", range.trim_end_matches('.'))),
        None => (description, String::new()),
    };
    let explained: Vec<String> = words
        .iter()
        .filter_map(|(word, meaning)| Some(format!("{}: {}", code(word), uncapitalised(meaning.as_deref()?))))
        .collect();
    if explained.is_empty() {
        (description.to_owned(), range)
    } else {
        (format!("{description} {}.", explained.join("; ")), range)
    }
}

/// `Each in turn.` within a sentence: `each in turn`. Not `HTTP/2.`, which is a name.
fn uncapitalised(sentence: &str) -> String {
    let sentence = sentence.strip_suffix('.').unwrap_or(sentence);
    let mut letters = sentence.chars();
    match (letters.next(), letters.clone().next()) {
        (Some(first), Some(second)) if second.is_lowercase() || second == ' ' => {
            format!("{}{}", first.to_lowercase(), letters.as_str())
        }
        _ => sentence.to_owned(),
    }
}

/// The words that a value may be, each with its description, if it has one.
fn words(schema: &Value) -> Vec<(String, Option<String>)> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let described = schema["oneOf"].as_array().into_iter().flatten();
    let described = described.filter_map(|word| Some((text(&word["const"])?, text(&word["description"]))));
    let bare = schema["enum"].as_array().into_iter().flatten().filter_map(|word| Some((text(word)?, None)));
    described.chain(bare).collect()
}

/// What may be written: its type and its range.
fn kind(schema: &Value) -> String {
    let words = words(schema);
    if let [first @ .., (last, _)] = words.as_slice() {
        let first: Vec<String> = first.iter().map(|(word, _)| code(word)).collect();
        return format!("{} or {}", first.join(", "), code(last));
    }
    if let Some([first, second]) = schema["anyOf"].as_array().map(Vec::as_slice) {
        return match first["const"].as_str() {
            Some(word) => format!("{}, or {}", code(word), kind(second)),
            // A number is another way to write the text.
            None => kind(first),
        };
    }
    let range = match (schema["minimum"].as_f64(), schema["maximum"].as_f64()) {
        (Some(min), Some(max)) => format!(", {min} to {max}"),
        _ => String::new(),
    };
    match schema["type"].as_str().unwrap_or_default() {
        "string" => text_kind(schema),
        "integer" => format!("whole number{range}"),
        "number" => format!("number{range}"),
        "boolean" => "`true` or `false`".to_owned(),
        "array" if schema["items"]["properties"].is_object() => "list of mappings".to_owned(),
        "array" => format!("list of {}", kind(&schema["items"])),
        "object" if schema["propertyNames"].is_object() => {
            format!("mapping, each key {}", text_kind(&schema["propertyNames"]))
        }
        _ => "mapping".to_owned(),
    }
}

/// The kind of a text, without its example, and how long it may be.
fn text_kind(schema: &Value) -> String {
    let title = schema["title"].as_str().unwrap_or("text");
    let (start, example) = title.split_once(" such as ").unwrap_or((title, ""));
    let start = start.trim_start_matches("a ").trim_start_matches("an ").trim_end_matches(',');
    let empty = if example.ends_with(", or \"\"") { ", or `\"\"`" } else { "" };
    // Nobody comes near the longest path.
    let longest = schema["maxLength"].as_u64().filter(|longest| *longest < 1000);
    let longest = longest.map_or_else(String::new, |longest| format!(", at most {longest} bytes"));
    format!("{}{empty}{longest}", start.replace("\"\"", "`\"\"`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_key_says_what_may_be_written_and_what_holds_otherwise() {
        let schema = json!({ "properties": { "policy": {
            "description": "How.", "default": "a",
            "oneOf": [{ "const": "a", "description": "Each in turn." }, { "const": "b", "description": "HTTP/2." }],
        }, "n": { "type": "integer", "minimum": 1, "maximum": 9, "description": "So many." } }, "required": ["n"] });
        let mut keys = Vec::new();
        collect(&schema, "x", &Value::Null, &mut keys);
        let [policy, n] = keys.as_slice() else { panic!("{}", keys.len()) };
        assert_eq!(
            (policy.path.as_str(), policy.default.as_str(), policy.kind.as_str()),
            ("x.policy", "`a`", "`a` or `b`")
        );
        assert_eq!(policy.meaning, "How. `a`: each in turn; `b`: HTTP/2.");
        assert_eq!((n.kind.as_str(), n.default.as_str()), ("whole number, 1 to 9", "required"));
    }

    #[test]
    fn the_range_of_a_duration_stands_with_its_type() {
        let schema = json!({ "type": "string", "description": "How long. Range: 1s to 1h; 0s ends it." });
        assert_eq!(meaning(&schema), ("How long.".to_owned(), ", 1s to 1h; 0s ends it".to_owned()));
    }

    #[test]
    fn a_text_says_its_kind_and_not_its_example() {
        let kind = |title: &str| text_kind(&json!({ "type": "string", "title": title }));
        assert_eq!(kind("a duration such as 250ms, 5s or 1m30s"), "duration");
        assert_eq!(kind("ADDRESS:PORT such as 0.0.0.0:9902, or \"\""), "ADDRESS:PORT, or `\"\"`");
        assert_eq!(kind("an absolute path, or \"\""), "absolute path, or `\"\"`");
    }
}
