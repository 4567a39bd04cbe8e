//! Comparing JSON with the shapes that the contract fixes: every named field, with the right type.

use crate::Value;

/// Fails the test unless `value` is an object that has each field with one of its types.
///
/// Types are `text`, `number`, `integer`, `flag`, `list`, `object` and `null`, joined by `|`. Fields that are not
/// named are allowed: the contract lets fields be added.
#[track_caller]
pub fn check(value: &Value, fields: &[(&str, &str)]) {
    let object = value.as_object().unwrap_or_else(|| panic!("ought to be an object: {value}"));
    for (name, types) in fields {
        let field = object.get(*name).unwrap_or_else(|| panic!("field {name:?} is missing: {value:#}"));
        assert!(types.split('|').any(|t| is(field, t)), "field {name:?} ought to be {types}, is {field}: {value:#}");
    }
}

/// Fails the test unless `value` is a list, not empty, whose entries all pass [`check`].
#[track_caller]
pub fn check_each(value: &Value, fields: &[(&str, &str)]) {
    let list = value.as_array().unwrap_or_else(|| panic!("ought to be a list: {value}"));
    assert!(!list.is_empty(), "ought not to be empty");
    for entry in list {
        check(entry, fields);
    }
}

/// Whether `value` is an RFC 3339 time in UTC with milliseconds, such as `2026-01-31T12:00:00.123Z`.
#[must_use]
pub fn is_time(value: &Value) -> bool {
    let pattern = "dddd-dd-ddTdd:dd:dd.dddZ";
    value.as_str().is_some_and(|text| {
        let fits = |(p, c): (char, char)| if p == 'd' { c.is_ascii_digit() } else { p == c };
        text.len() == pattern.len() && pattern.chars().zip(text.chars()).all(fits)
    })
}

fn is(value: &Value, kind: &str) -> bool {
    match kind {
        "text" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        "flag" => value.is_boolean(),
        "list" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        other => panic!("no such type: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_field_is_compared_with_its_types() {
        let value = json!({ "name": "web", "port": 80, "zone": null, "more": 1 });
        check(&value, &[("name", "text"), ("port", "integer|null"), ("zone", "text|null")]);
        assert!(std::panic::catch_unwind(|| check(&value, &[("name", "integer")])).is_err());
        assert!(std::panic::catch_unwind(|| check(&value, &[("missing", "null")])).is_err());
    }

    #[test]
    fn times_are_utc_with_milliseconds() {
        assert!(is_time(&json!("2026-01-31T12:00:00.123Z")));
        for other in ["2026-01-31T12:00:00Z", "2026-01-31T12:00:00.123+00:00", "now"] {
            assert!(!is_time(&json!(other)), "{other}");
        }
    }
}
