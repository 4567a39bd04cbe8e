//! The body of a registration: read field by field, so that what is wrong is named.

use super::{door::Registration, routes::HttpError, unique::Unique};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, net::SocketAddr};

const FIELDS: [&str; 5] = ["address", "weight", "zone", "metadata", "ttl"];

/// The registration of an instance, `body` read.
pub(super) fn read(service: String, id: String, body: &[u8]) -> Result<Registration, HttpError> {
    let Unique(value) = serde_json::from_slice(body).map_err(|e| {
        let expected = "expected {\"address\": \"ip:port\", …}";
        // Its words for what a key that stands twice is.
        let what = if e.is_data() { "" } else { "it is not JSON: " };
        HttpError::invalid(format!("the body: {what}{e}; {expected}"))
    })?;
    let Value::Object(mut fields) = value else {
        return Err(HttpError::invalid(format!("the body: expected an object with {}", FIELDS.join(", "))));
    };
    if let Some(unknown) = fields.keys().find(|key| !FIELDS.contains(&key.as_str())) {
        let known = FIELDS.join(", ");
        return Err(HttpError::invalid(format!("unknown field {unknown:?}; there are {known}")));
    }
    let weight = match take(&mut fields, "weight") {
        None => 1,
        Some(value) => {
            let weight = value.as_u64().and_then(|weight| u16::try_from(weight).ok());
            weight.ok_or_else(|| wrong("weight", "a whole number from 0 to 65535", &value))?
        }
    };
    Ok(Registration {
        service,
        id,
        address: address(take(&mut fields, "address"))?,
        weight,
        zone: text(&mut fields, "zone", "text")?.unwrap_or_default(),
        metadata: metadata(take(&mut fields, "metadata"))?,
        ttl: text(&mut fields, "ttl", "a duration such as \"60s\"")?,
    })
}

/// null is as good as nothing.
fn take(fields: &mut Map<String, Value>, name: &str) -> Option<Value> {
    fields.remove(name).filter(|value| !value.is_null())
}

fn text(fields: &mut Map<String, Value>, name: &str, expected: &str) -> Result<Option<String>, HttpError> {
    match take(fields, name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(wrong(name, expected, &other)),
    }
}

fn address(value: Option<Value>) -> Result<SocketAddr, HttpError> {
    let expected = "ip:port, like \"10.0.0.1:80\" or \"[fd00::1]:80\"";
    let Some(value) = value else {
        return Err(HttpError::invalid(format!("address: it is missing: expected {expected}")));
    };
    let parsed = value.as_str().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| wrong("address", &format!("{expected} (names are not looked up)"), &value))
}

fn metadata(value: Option<Value>) -> Result<BTreeMap<String, String>, HttpError> {
    let entries = match value {
        None => return Ok(BTreeMap::new()),
        Some(Value::Object(entries)) => entries,
        Some(other) => return Err(wrong("metadata", "an object of texts", &other)),
    };
    let entry = |(key, value): (String, Value)| match value {
        Value::String(text) => Ok((key, text)),
        other => Err(wrong(&format!("metadata.{key}"), "text", &other)),
    };
    entries.into_iter().map(entry).collect()
}

fn wrong(field: &str, expected: &str, found: &Value) -> HttpError {
    let mut found = found.to_string();
    if found.len() > 100 {
        found = found.chars().take(100).chain(['…']).collect();
    }
    HttpError::invalid(format!("{field}: expected {expected}, found {found}"))
}

/// What [`read`] reads.
pub(super) fn write(registration: &Registration) -> Value {
    let Registration { address, weight, zone, metadata, ttl, .. } = registration;
    json!({ "address": address, "weight": weight, "zone": zone, "metadata": metadata, "ttl": ttl })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &str) -> String {
        read("web".to_owned(), "a".to_owned(), body.as_bytes()).unwrap_err().message
    }

    #[test]
    fn only_the_address_must_be_said() {
        let body = r#"{"address":"10.0.0.1:80","zone":null}"#;
        let read = read("web".to_owned(), "a".to_owned(), body.as_bytes()).unwrap();
        assert_eq!((read.weight, read.zone.as_str(), read.ttl), (1, "", None));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, expected) in [
            ("", "the body: it is not JSON"),
            (r#"{"address":"10.0.0.1:80","address":"10.0.0.2:80"}"#, r#"the body: the key "address" stands twice"#),
            (r#"{"address":"10.0.0.1:80","metadata":{"a":"1","a":"2"}}"#, r#"the body: the key "a" stands twice"#),
            ("[]", "the body: expected an object with address, weight, zone, metadata, ttl"),
            ("{}", "address: it is missing"),
            (r#"{"address":"web:80"}"#, r#"address: expected ip:port, like "10.0.0.1:80""#),
            (r#"{"address":"10.0.0.1:65536"}"#, r#"found "10.0.0.1:65536""#),
            (r#"{"address":"10.0.0.1:80","wieght":2}"#, r#"unknown field "wieght"; there are address, weight"#),
            (r#"{"address":"10.0.0.1:80","weight":65536}"#, "weight: expected a whole number from 0 to 65535"),
            (r#"{"address":"10.0.0.1:80","weight":-1}"#, "weight: "),
            (r#"{"address":"10.0.0.1:80","weight":"1"}"#, "weight: "),
            (r#"{"address":"10.0.0.1:80","ttl":60}"#, r#"ttl: expected a duration such as "60s", found 60"#),
            (r#"{"address":"10.0.0.1:80","metadata":{"a":1}}"#, "metadata.a: expected text, found 1"),
            (r#"{"address":"10.0.0.1:80","metadata":"a"}"#, "metadata: expected an object"),
            (r#"{"address":"10.0.0.1:80","zone":["a"]}"#, "zone: expected text"),
        ] {
            assert!(message(body).contains(expected), "{body}: {}", message(body));
        }
        let long = message(&format!(r#"{{"address":"{}"}}"#, "x".repeat(100_000)));
        assert!(long.len() < 300, "{long}");
    }
}
