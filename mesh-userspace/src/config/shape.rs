//! What a file may contain, compiled from the schema of [`Config`]: the walk over a file follows it.

use super::{
    Config, later,
    text::{KIND_KEYWORD, KINDS, Kind},
};
use schemars::{Schema, generate::SchemaSettings};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, sync::LazyLock};

/// What a value may be.
#[derive(Clone)]
pub(super) enum Shape {
    Map(BTreeMap<String, Field>),
    List(Box<Self>),
    /// A mapping whose keys are the user's.
    Pairs {
        key: &'static Kind,
        value: Box<Self>,
    },
    /// One of a few words; some more are known and not supported yet.
    Word {
        words: Vec<String>,
        later: &'static [&'static str],
    },
    Text(&'static Kind),
    Bool,
    Integer {
        min: i128,
        max: i128,
    },
    /// A word, or a whole number.
    WordOrInteger {
        word: String,
        min: i128,
        max: i128,
    },
    /// A word, or true or false.
    WordOrBool {
        word: String,
    },
    /// Text of this kind, or a whole number.
    TextOrInteger {
        kind: &'static Kind,
        min: i128,
        max: i128,
    },
    /// A number that need not be whole.
    Number {
        min: f64,
        max: f64,
    },
}

/// What the value of a key may be.
#[derive(Clone)]
pub(super) struct Field {
    pub(super) shape: Shape,
    pub(super) required: bool,
}

/// The shape of a configuration, what is not supported yet included.
pub(super) fn shape() -> &'static Shape {
    static SHAPE: LazyLock<Shape> = LazyLock::new(|| {
        let mut shape = compile(schema().as_value());
        for (path, words) in later::words() {
            if let Some(Shape::Word { later, .. }) = shape.at(&path) {
                *later = words;
            }
        }
        shape
    });
    &SHAPE
}

/// The schema of [`Config`] with nothing left to look up, and with the kinds of its texts.
pub(super) fn schema() -> Schema {
    let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<Config>()
}

impl Shape {
    /// The shape at `path`, in which `[]` stands for the items of a list.
    fn at(&mut self, path: &str) -> Option<&mut Self> {
        path.split('.').try_fold(self, |shape, step| {
            let (key, items) = match step.strip_suffix("[]") {
                Some(key) => (key, true),
                None => (step, false),
            };
            let Self::Map(fields) = shape else { return None };
            let shape = &mut fields.get_mut(key)?.shape;
            match (shape, items) {
                (Self::List(item), true) => Some(&mut **item),
                (shape, _) => Some(shape),
            }
        })
    }
}

/// The shape of a schema. A schema that no shape fits becomes an integer without values: every file is refused there,
/// which the test over all fields sees.
fn compile(schema: &Value) -> Shape {
    let empty = Map::new();
    let schema = schema.as_object().unwrap_or(&empty);
    let text = |key: &str| schema.get(key).and_then(Value::as_str);
    let kind = |schema: &Map<String, Value>| {
        let name = schema.get(KIND_KEYWORD).and_then(Value::as_str)?;
        KINDS.iter().find(|kind| kind.name == name)
    };
    if let Some(kind) = kind(schema) {
        return Shape::Text(kind);
    }
    if let Some(alternatives) = schema.get("anyOf").and_then(Value::as_array)
        && let [word, number] = alternatives.as_slice()
        && let Some(word) = word.get("const").and_then(Value::as_str)
        && number.get("type").is_some_and(|t| t == "boolean")
    {
        return Shape::WordOrBool { word: word.to_owned() };
    }
    if let Some(alternatives) = schema.get("anyOf").and_then(Value::as_array)
        && let [word, number] = alternatives.as_slice()
        && let Some(word) = word.get("const").and_then(Value::as_str)
        && let Some((min, max)) = number.as_object().and_then(bounds)
    {
        return Shape::WordOrInteger { word: word.to_owned(), min, max };
    }
    if let Some(alternatives) = schema.get("anyOf").and_then(Value::as_array)
        && let [text, number] = alternatives.as_slice()
        && let Some(kind) = text.as_object().and_then(kind)
        && let Some((min, max)) = number.as_object().and_then(bounds)
    {
        return Shape::TextOrInteger { kind, min, max };
    }
    if let Some(words) = words(schema) {
        return Shape::Word { words, later: &[] };
    }
    match text("type") {
        Some("object") if schema.contains_key("propertyNames") => {
            let names = schema.get("propertyNames").and_then(Value::as_object).and_then(kind);
            let value = Box::new(compile(schema.get("additionalProperties").unwrap_or(&Value::Null)));
            names.map_or(Shape::Integer { min: 1, max: 0 }, |key| Shape::Pairs { key, value })
        }
        Some("object") => {
            let required = |name: &str| {
                schema.get("required").and_then(Value::as_array).is_some_and(|r| r.iter().any(|v| v == name))
            };
            let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
            let field = |(name, schema): (&String, &Value)| {
                (name.clone(), Field { shape: compile(schema), required: required(name) })
            };
            Shape::Map(properties.iter().map(field).collect())
        }
        Some("array") => Shape::List(Box::new(compile(schema.get("items").unwrap_or(&Value::Null)))),
        Some("boolean") => Shape::Bool,
        Some("number") => {
            let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
            match (bound("minimum"), bound("maximum")) {
                (Some(min), Some(max)) => Shape::Number { min, max },
                _ => Shape::Integer { min: 1, max: 0 },
            }
        }
        Some("integer") => match bounds(schema) {
            Some((min, max)) => Shape::Integer { min, max },
            None => Shape::Integer { min: 1, max: 0 },
        },
        _ => Shape::Integer { min: 1, max: 0 },
    }
}

/// The words of an enum without data: with descriptions a list of constants, without them a plain list.
fn words(schema: &Map<String, Value>) -> Option<Vec<String>> {
    let words = if let Some(variants) = schema.get("oneOf").and_then(Value::as_array) {
        variants.iter().map(|v| v.get("const").and_then(Value::as_str)).collect::<Option<Vec<_>>>()
    } else {
        schema.get("enum")?.as_array()?.iter().map(Value::as_str).collect()
    };
    words.map(|words| words.into_iter().map(str::to_owned).collect())
}

fn bounds(schema: &Map<String, Value>) -> Option<(i128, i128)> {
    let bound = |key: &str| schema.get(key).and_then(Value::as_i64).map(i128::from);
    let max = bound("maximum").or(match schema.get("format").and_then(Value::as_str) {
        Some("uint8") => Some(u8::MAX.into()),
        Some("uint16") => Some(u16::MAX.into()),
        Some("uint32") => Some(u32::MAX.into()),
        _ => None,
    });
    Some((bound("minimum")?, max?))
}
