//! Takes out what is nobody else's business: what a configuration tells endpoints in headers, passwords in URLs, queries,
//! credentials; and these wherever else they stand.

use crate::api::Status;
use regex::{Captures, Regex};
use serde_json::{Map, Value};
use std::{collections::BTreeSet, sync::LazyLock};

/// Stands where something was.
pub(super) const MASK: &str = "***";

/// What is shorter is too common a word to be taken out wherever it stands.
const TELLING: usize = 6;

/// Parts of names of things that are secret.
const NAMES: [&str; 9] =
    ["authorization", "cookie", "credential", "password", "passwd", "secret", "token", "api_key", "apikey"];

/// Mappings whose values are the user's own: headers, and what they are compared with.
const USERS: [&str; 5] = ["set", "add", "headers", "query", "metadata"];

/// What is secret: what is so by its name or form, and values that are known.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    known: BTreeSet<String>,
    /// Whether all of the user's own mappings are, whatever the names in them.
    strict: bool,
}

/// `user:password@` in a URL.
static USERINFO: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"([a-zA-Z][a-zA-Z0-9+.-]*://)([^/@\s"'\\]+)@"#).ok());
/// The query of a path or URL.
static QUERY: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"^((?:[a-zA-Z][a-zA-Z0-9+.-]*:/)?/[^\s?]*)\?.+$"#).ok());
/// The query of a URL within a text.
static URL_QUERY: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"([a-zA-Z][a-zA-Z0-9+.-]*://[^\s"?]+)\?[^\s"]+"#).ok());
/// A parameter of a part of a path: `;jsessionid=...`.
static PARAMETER: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r#"(/[^\s?;]*;[^\s=/?;]+=)[^\s/?;"]+"#).ok());
/// Credentials as HTTP has them.
static CREDENTIALS: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"(?i)\b(bearer|basic|digest)\s+[a-z0-9._~+/=-]{4,}"#).ok());
/// What a mistake in a configuration quotes: what was found, and a key that is no plain name, as where `:` has no space
/// after it.
static FOUND: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r#"(\bfound |\.)"(?:[^"\\]|\\.)*""#).ok());

impl Secrets {
    /// For what leaves the machine.
    pub(super) fn strict() -> Self {
        Self { strict: true, ..Self::default() }
    }

    /// Finds the secrets in a document.
    pub(super) fn learn(&mut self, value: &Value) {
        self.learn_in(value, false);
    }

    fn learn_in(&mut self, value: &Value, secret: bool) {
        match value {
            Value::String(text) => {
                if secret {
                    self.know(text);
                }
                for found in USERINFO.iter().flat_map(|userinfo| userinfo.captures_iter(text)) {
                    self.know(&found[2]);
                    found[2].split(':').skip(1).for_each(|password| self.know(password));
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.learn_in(item, secret)),
            Value::Object(map) => {
                map.iter().for_each(|(key, value)| self.learn_in(value, secret || self.is_secret(key, value)));
            }
            _ => {}
        }
    }

    fn know(&mut self, text: &str) {
        if text.len() >= TELLING {
            self.known.insert(text.to_owned());
        }
    }

    /// A document without secrets.
    pub(super) fn without(&self, mut value: Value) -> Value {
        self.clean_in(&mut value, false);
        value
    }

    /// A document without secrets, as text.
    pub(super) fn cleaned(&self, value: &Value) -> Vec<u8> {
        let value = self.without(value.clone());
        // What was read as JSON can be written.
        let mut text = serde_json::to_vec_pretty(&value).unwrap_or_default();
        text.push(b'\n');
        text
    }

    fn clean_in(&self, value: &mut Value, secret: bool) {
        match value {
            Value::Null | Value::Bool(_) => {}
            _ if secret && !value.is_array() && !value.is_object() => {
                if value.as_str() != Some("") {
                    *value = MASK.into();
                }
            }
            Value::String(text) => *text = self.clean(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.clean_in(item, secret)),
            Value::Object(map) => self.clean_map(map, secret),
            Value::Number(_) => {}
        }
    }

    fn clean_map(&self, map: &mut Map<String, Value>, secret: bool) {
        // Of the user's own, a key may be half of what was meant as one and its value.
        let is_name = |key: &String| key.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if secret && !map.keys().all(is_name) {
            *map =
                std::mem::take(map).into_iter().map(|(k, v)| (if is_name(&k) { k } else { MASK.into() }, v)).collect();
        }
        for (key, value) in map {
            let secret = secret || self.is_secret(key, value);
            self.clean_in(value, secret);
        }
    }

    /// Cleans what a daemon says of itself: its errors quote configurations and URLs.
    pub(super) fn clean_status(&self, status: &mut Status) {
        let sources = status.sources.iter_mut().map(|source| &mut source.error);
        for error in sources.chain([&mut status.config.error]).flatten() {
            *error = self.clean(error);
        }
    }

    /// Whether what stands under `key` is secret: by its name, or because it is a mapping of the user's own.
    fn is_secret(&self, key: &str, value: &Value) -> bool {
        let users = || value.is_object() && USERS.contains(&key.to_ascii_lowercase().replace('-', "_").as_str());
        is_named_so(key) || (self.strict && users())
    }

    /// A text without secrets.
    pub(super) fn clean(&self, text: &str) -> String {
        let mut clean = text.to_owned();
        let replaced = |pattern: &Option<Regex>, text: &str, with: &dyn Fn(&Captures<'_>) -> String| match pattern {
            Some(pattern) => pattern.replace_all(text, |found: &Captures<'_>| with(found)).into_owned(),
            None => MASK.to_owned(),
        };
        clean = replaced(&USERINFO, &clean, &|found| format!("{}{MASK}@", &found[1]));
        clean = replaced(&QUERY, &clean, &|found| format!("{}?{MASK}", &found[1]));
        clean = replaced(&URL_QUERY, &clean, &|found| format!("{}?{MASK}", &found[1]));
        clean = replaced(&PARAMETER, &clean, &|found| format!("{}{MASK}", &found[1]));
        clean = replaced(&CREDENTIALS, &clean, &|found| format!("{} {MASK}", &found[1]));
        if self.strict {
            clean = replaced(&FOUND, &clean, &|found| format!("{}\"{MASK}\"", &found[1]));
        }
        // The longest first: one may be a part of another.
        let mut known: Vec<&String> = self.known.iter().collect();
        known.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        for secret in known {
            if clean.contains(secret.as_str()) {
                clean = clean.replace(secret.as_str(), MASK);
            }
        }
        clean
    }
}

/// Whether what has this name is secret. A file is not: `password_file` is a path.
pub(super) fn is_named_so(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    !name.ends_with("_file") && NAMES.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn cleaned(value: &Value) -> (Secrets, Value) {
        let mut secrets = Secrets::strict();
        secrets.learn(value);
        let clean = serde_json::from_slice(&secrets.cleaned(value)).unwrap();
        (secrets, clean)
    }

    #[test]
    fn what_a_configuration_keeps_secret_is_taken_out_and_the_rest_stays() {
        let config = json!({
            "discovery": {
                "registry": { "token_file": "/etc/token", "ttl": "60s" },
                "etcd": { "endpoints": ["https://admin:hunter22@etcd:2379"], "username": "u", "password": "short" },
            },
            "services": [{ "name": "web", "health_check": { "path": "/live?key=abc", "expected_status": [200] }, "routes": [{
                "match": { "headers": { "x-tenant": "tenant-seven" }, "query": {}, "path": "/v2" },
                "headers": { "request": { "set": { "Authorization": "Basic Zm9vOmJhcg==" }, "add": {}, "remove": ["x"] } },
            }] }],
        });
        let (_, clean) = cleaned(&config);
        assert_eq!(
            clean,
            json!({
                "discovery": {
                    "registry": { "token_file": "/etc/token", "ttl": "60s" },
                    "etcd": { "endpoints": ["https://***@etcd:2379"], "username": "u", "password": "***" },
                },
                "services": [{ "name": "web", "health_check": { "path": "/live?***", "expected_status": [200] }, "routes": [{
                    "match": { "headers": { "x-tenant": "***" }, "query": {}, "path": "/v2" },
                    "headers": { "request": { "set": { "Authorization": "***" }, "add": {}, "remove": ["***"] } },
                }] }],
            })
        );
    }

    #[test]
    fn a_secret_that_is_known_is_taken_out_wherever_it_stands() {
        let (secrets, _) = cleaned(&json!({ "set": { "x-key": "s3cr3t-value" }, "etcd": "http://u:hunter22@e" }));
        assert_eq!(secrets.clean("refused: s3cr3t-value, hunter22"), "refused: ***, ***");
        assert_eq!(secrets.clean("nothing to hide"), "nothing to hide");
    }

    #[test]
    fn queries_credentials_and_what_mistakes_quote_are_taken_out_of_any_text() {
        let secrets = Secrets::strict();
        let clean = |text: &str| secrets.clean(text);
        assert_eq!(clean("/login?password=x&y"), "/login?***");
        assert_eq!(clean("http://a/b?c=d"), "http://a/b?***");
        assert_eq!(clean("what? why"), "what? why");
        assert_eq!(clean("/a;jsessionid=12/b;v=2?c=d"), "/a;jsessionid=***/b;v=***?***");
        assert_eq!(clean("one; two=2"), "one; two=2");
        assert_eq!(clean("sent authorization: Bearer abc.def-ghi"), "sent authorization: Bearer ***");
        assert_eq!(clean("postgres://u:p@h/db and http://x@y"), "postgres://***@h/db and http://***@y");
        assert_eq!(
            clean(r#"a.yaml:1:2: x: expected a value, found "a\"b c"; do"#),
            r#"a.yaml:1:2: x: expected a value, found "***"; do"#
        );
        assert_eq!(
            clean(r#"a.yaml:1:2: routes[0].set."x-api-key:SECRET": expected a name"#),
            r#"a.yaml:1:2: routes[0].set."***": expected a name"#
        );
        // On this machine what was found helps, but for what is secret by its form.
        let mistake = r#"found "http://u:p@host/x?key=of-it"; found "web""#;
        assert_eq!(Secrets::default().clean(mistake), r#"found "http://***@host/x?***"; found "web""#);
    }

    #[test]
    fn a_key_that_holds_its_value_is_taken_out() {
        let (_, clean) = cleaned(&json!({ "set": { "x-key:SECRET": null, "x-other": "v" } }));
        assert_eq!(clean, json!({ "set": { "***": null, "x-other": "***" } }));
    }
}
