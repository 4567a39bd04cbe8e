//! JSON in which no key stands twice: of two values nobody knows which one is meant, and readers differ.

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};
use std::fmt;

/// A value, no object in which has a key twice.
#[derive(Debug, PartialEq)]
pub(super) struct Unique(pub(super) Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Unique;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Unique, E> {
        Ok(Unique(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Unique, E> {
        Ok(Unique(Value::Bool(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Unique, E> {
        Ok(Unique(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Unique, E> {
        Ok(Unique(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Unique, E> {
        Ok(Unique(Number::from_f64(value).map_or(Value::Null, Value::Number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Unique, E> {
        Ok(Unique(Value::String(value.to_owned())))
    }

    fn visit_string<E>(self, value: String) -> Result<Unique, E> {
        Ok(Unique(Value::String(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Unique, A::Error> {
        let mut list = Vec::new();
        while let Some(Unique(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Unique(Value::Array(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Unique, A::Error> {
        let mut map = Map::new();
        while let Some((key, Unique(value))) = entries.next_entry::<String, Unique>()? {
            if map.contains_key(&key) {
                let key: String = key.chars().take(100).collect();
                return Err(A::Error::custom(format_args!("the key {key:?} stands twice")));
            }
            map.insert(key, value);
        }
        Ok(Unique(Value::Object(map)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_that_stands_twice_is_refused_wherever_it_is() {
        for text in [r#"{"a":1,"a":1}"#, r#"[{"b":{"a":1,"c":2,"a":3}}]"#, r#"{"a":1,"\u0061":2}"#] {
            let error = serde_json::from_str::<Unique>(text).unwrap_err();
            assert!(error.is_data() && error.to_string().starts_with("the key \"a\" stands twice"), "{error}");
        }
        assert!(serde_json::from_str::<Unique>(r#"{"a":{"a":1},"A":[{"a":1},{"a":2}]}"#).is_ok());
    }

    proptest! {
        #[test]
        fn all_else_is_read_as_it_stands(text in r#"[\[\]{}:,"a1.e-]{0,12}|null|true|-?[0-9]{1,25}(\.[0-9]{1,3})?"#) {
            let unique = serde_json::from_str::<Unique>(&text);
            let plain = serde_json::from_str::<Value>(&text);
            match (unique, plain) {
                (Ok(Unique(unique)), Ok(plain)) => prop_assert_eq!(unique, plain),
                (Err(_), Err(_)) => {}
                (Err(e), Ok(_)) => prop_assert!(e.to_string().contains("stands twice"), "{}", e),
                (Ok(_), Err(e)) => prop_assert!(false, "{}", e),
            }
        }
    }
}
