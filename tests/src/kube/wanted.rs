//! What a request asks for.

use serde_json::{Value, json};

/// What a request is about.
pub(super) struct Wanted {
    pub(super) plural: String,
    namespace: Option<String>,
    params: Vec<(String, String)>,
    pub(super) watch: bool,
}

impl Wanted {
    pub(super) fn new(resource: &str, query: &str) -> Self {
        let parts: Vec<&str> = resource.split('/').collect();
        let namespace = parts.iter().position(|part| *part == "namespaces").and_then(|i| parts.get(i + 1));
        let params: Vec<(String, String)> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), unescape(value)))
            .collect();
        Self {
            plural: (*parts.last().unwrap_or(&"")).to_owned(),
            namespace: namespace.map(|n| (*n).to_owned()),
            watch: params.iter().any(|(key, value)| key == "watch" && value == "1"),
            params,
        }
    }

    pub(super) fn param(&self, key: &str) -> Option<&str> {
        self.params.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    pub(super) fn matches(&self, plural: &str, object: &Value) -> bool {
        let metadata = &object["metadata"];
        let label = |part: &str| match (part.strip_prefix('!'), part.split_once('=')) {
            (Some(key), None) => metadata["labels"][key].is_null(),
            (_, Some((key, value))) => metadata["labels"][key] == value,
            _ => !metadata["labels"][part].is_null(),
        };
        let field = |part: &str| match part.split_once('=') {
            Some((path, value)) => object.pointer(&format!("/{}", path.replace('.', "/"))) == Some(&json!(value)),
            None => false,
        };
        let parts = |key| self.param(key).unwrap_or_default().split(',').filter(|part| !part.is_empty());
        plural == self.plural
            && self.namespace.as_ref().is_none_or(|n| metadata["namespace"] == **n)
            && parts("labelSelector").all(label)
            && parts("fieldSelector").all(field)
    }
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let hex: Vec<u8> = rest.by_ref().take(2).collect();
            bytes.push(u8::from_str_radix(&String::from_utf8_lossy(&hex), 16).unwrap_or(b'?'));
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
