//! What the contract names and this version does not do yet: the one list of it.
//!
//! Such a word is refused by name, never accepted and ignored. When a feature lands, its row goes.

/// Words of later work, for keys that exist. `service` means both `defaults` and `services[]`.
const WORDS: &[(&str, &[&str])] = &[("service.protocol", &["udp"])];

/// Words of later work with the path of their key.
pub(super) fn words() -> impl Iterator<Item = (String, &'static [&'static str])> {
    WORDS.iter().flat_map(|(path, words)| paths(path).map(move |path| (path, *words)))
}

fn paths(path: &'static str) -> impl Iterator<Item = String> {
    match path.strip_prefix("service.") {
        Some(key) => vec![format!("defaults.{key}"), format!("services[].{key}")].into_iter(),
        None => vec![path.to_owned()].into_iter(),
    }
}
