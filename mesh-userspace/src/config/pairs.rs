//! Mappings whose keys are the user's: headers, and parameters of a query. They keep the order of the file.

use super::http::{ChangedHeader, HeaderName, HeaderValue, QueryName, QueryValue};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserializer, Serializer, de, ser::SerializeMap};
use std::{borrow::Cow, fmt, marker::PhantomData};

/// Names, each with its value.
pub(super) type Pairs = Vec<(String, String)>;

pub(super) fn serialize<S: Serializer>(pairs: &[(String, String)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(pairs.len()))?;
    for (name, value) in pairs {
        map.serialize_entry(name, value)?;
    }
    map.end()
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Pairs, D::Error> {
    struct Visitor;
    impl<'de> de::Visitor<'de> for Visitor {
        type Value = Pairs;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a mapping of names to texts")
        }

        fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
            let mut pairs = Vec::with_capacity(map.size_hint().unwrap_or(0).min(64));
            while let Some(pair) = map.next_entry()? {
                pairs.push(pair);
            }
            Ok(pairs)
        }
    }
    deserializer.deserialize_map(Visitor)
}

/// The schema of a mapping from `K` to `V`.
pub(super) struct PairsOf<K, V>(PhantomData<(K, V)>);

/// Headers that a request has to have.
pub(super) type MatchedHeaders = PairsOf<HeaderName, HeaderValue>;
/// Headers that are set or added.
pub(super) type ChangedHeaders = PairsOf<ChangedHeader, HeaderValue>;
/// Parameters that a query has to have.
pub(super) type MatchedQuery = PairsOf<QueryName, QueryValue>;

impl<K: JsonSchema, V: JsonSchema> JsonSchema for PairsOf<K, V> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Pairs_{}_{}", K::schema_name(), V::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (name, value) = (K::json_schema(generator), V::json_schema(generator));
        json_schema!({ "type": "object", "propertyNames": name, "additionalProperties": value })
    }
}
