//! What a key with its value says.

use crate::{
    discovery::Instance,
    model::{self, Endpoint, LONGEST_NAME as LONGEST},
};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use std::net::SocketAddr;

/// The value of an instance: JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Where it listens: `ip:port`.
    pub address: SocketAddr,
    /// Its share, 0 to 65535; 0 gets nothing.
    #[serde(default = "one", deserialize_with = "weight")]
    pub weight: u16,
    /// The zone it is in; empty: not known.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub zone: String,
    /// The region it is in; empty: not known.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub region: String,
    /// The node it runs on; empty: not known.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// Anything, for others.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
}

const fn one() -> u16 {
    1
}

// Writers that have no value for a field write null as often as nothing.
fn weight<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_else(one))
}

fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Record {
    /// At this address, with weight 1.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        let (zone, region, node) = Default::default();
        Self { address, weight: one(), zone, region, node, metadata: Map::new() }
    }

    /// The record in a value. Fields that are not known are passed over.
    pub(super) fn parse(value: &[u8]) -> Result<Self, String> {
        let record: Self = serde_json::from_slice(value).map_err(|e| format!("not the JSON of an instance: {e}"))?;
        record.check()?;
        Ok(record)
    }

    /// Says what is wrong with it.
    ///
    /// # Errors
    /// That.
    pub fn check(&self) -> Result<(), String> {
        for (field, text) in [("zone", &self.zone), ("region", &self.region), ("node", &self.node)] {
            model::check_place(text).map_err(|expected| format!("{field}: expected {expected}"))?;
        }
        model::check_endpoint(self.address).map_err(|why| format!("address: {}: {why}", self.address))
    }

    pub(super) fn instance(self, id: &str) -> Instance {
        let Self { address, weight, zone, region, node, metadata: _ } = self;
        Instance { id: id.to_owned(), endpoint: Endpoint { weight, zone, region, node, ..Endpoint::new(address) } }
    }
}

/// The service and the instance that a key below `prefix` names.
pub(super) fn split<'a>(prefix: &str, key: &'a [u8]) -> Result<(&'a str, &'a str), String> {
    let key = std::str::from_utf8(key).map_err(|_| "its key is not text".to_owned())?;
    let names = key.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/')).and_then(|rest| rest.split_once('/'));
    let (service, id) = names.ok_or_else(|| format!("its key is not {prefix}/SERVICE/INSTANCE"))?;
    check_service(service)?;
    check_id(id)?;
    Ok((service, id))
}

/// The key of an instance.
pub(super) fn key(prefix: &str, service: &str, id: &str) -> Vec<u8> {
    format!("{prefix}/{service}/{id}").into_bytes()
}

/// Says what is wrong with the name of a service.
///
/// # Errors
/// That.
pub fn check_service(name: &str) -> Result<(), String> {
    model::check_service_name(name).map_err(|bad| format!("the name of the service: {bad}"))
}

/// Says what is wrong with the name of an instance.
///
/// # Errors
/// That.
pub fn check_id(id: &str) -> Result<(), String> {
    if !id.is_empty() && id.len() <= LONGEST && !id.chars().any(|c| c == '/' || c.is_control()) {
        return Ok(());
    }
    Err(format!(
        "{}: an instance's name has 1 to {LONGEST} bytes, no '/' and no control characters",
        shown(id.as_bytes())
    ))
}

/// A key or a name as it is logged: one line, not too long.
pub(super) fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut shown: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_address_is_needed_and_what_is_not_known_is_passed_over() {
        let record = Record::parse(br#"{"address":"10.0.0.5:80","colour":"red","metadata":{"a":[1]},"zone":null}"#);
        let record = record.unwrap();
        assert_eq!((record.address, record.weight), (([10, 0, 0, 5], 80).into(), 1));
        let all = br#"{"address":"[fd00::1]:80","weight":0,"zone":"a","region":"r","node":"n"}"#;
        let instance = Record::parse(all).unwrap().instance("one");
        assert_eq!((instance.id.as_str(), instance.endpoint.weight), ("one", 0));
        assert_eq!((instance.endpoint.zone.as_str(), instance.endpoint.node.as_str()), ("a", "n"));
    }

    #[test]
    fn what_is_no_instance_is_refused_with_a_reason() {
        for value in [
            "",
            "null",
            "[]",
            "{}",
            "not json",
            r#"{"address":"10.0.0.5"}"#,
            r#"{"address":"10.0.0.5:65536"}"#,
            r#"{"address":"10.0.0.5:0"}"#,
            r#"{"address":"0.0.0.0:80"}"#,
            r#"{"address":"224.0.0.1:80"}"#,
            r#"{"address":"255.255.255.255:80"}"#,
            r#"{"address":"[fe80::1]:80"}"#,
            r#"{"address":"shop.internal:80"}"#,
            r#"{"address":"10.0.0.5:80","weight":65536}"#,
            r#"{"address":"10.0.0.5:80","weight":-1}"#,
            r#"{"address":"10.0.0.5:80","zone":"a\nb"}"#,
        ] {
            assert!(Record::parse(value.as_bytes()).is_err(), "{value}");
        }
        assert!(Record::parse(b"\xff\xfe").is_err());
    }

    #[test]
    fn a_key_names_a_service_and_an_instance() {
        let prefix = "/mesh/services";
        assert_eq!(split(prefix, b"/mesh/services/shop.a/10.0.0.5:80"), Ok(("shop.a", "10.0.0.5:80")));
        assert_eq!(split(prefix, &key(prefix, "shop", "x")), Ok(("shop", "x")));
        for key in ["/mesh/services/shop", "/mesh/services/shop/", "/mesh/services//x", "/mesh/services/shop/a/b"] {
            assert!(split(prefix, key.as_bytes()).is_err(), "{key}");
        }
        for key in [
            "/mesh/services/Shop/a",
            "/mesh/services/a..b/a",
            "/mesh/services/10.0.0.1/a",
            "/mesh/services/shop/a\nb",
            "/other/shop/a",
        ] {
            assert!(split(prefix, key.as_bytes()).is_err(), "{key}");
        }
        assert!(split(prefix, b"/mesh/services/shop/\xff").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(key in prop::collection::vec(any::<u8>(), 0..40), value in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = split("/p", &key);
            let _ = Record::parse(&value);
            prop_assert!(!shown(&key).contains('\n'));
        }

        #[test]
        fn what_is_written_is_read(weight: u16, zone in "[a-z]{0,8}", port in 1u16..) {
            let record = Record {
                address: ([10, 0, 0, 5], port).into(),
                weight,
                zone,
                region: String::new(),
                node: String::new(),
                metadata: Map::new(),
            };
            prop_assert_eq!(Record::parse(&serde_json::to_vec(&record).unwrap()), Ok(record));
        }
    }
}
