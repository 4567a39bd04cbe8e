//! Services that only sources know, as `defaults` and what a source says of them have them.

use super::{Files, Finding, Host, settings::Settings};
use crate::{discovery::Describe, model};
use serde_json::{Map, Value};
use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
};

/// The most settings of one service: a source may be written to by whoever likes.
const MOST: usize = 64;

/// How often settings are checked without what was wrong with them: once for the shape of values, once for what they mean
/// together, and once to see that the rest is good.
const ATTEMPTS: usize = 4;

/// How many different settings are remembered.
const REMEMBERED: usize = 1024;

/// Makes services by what `defaults` say.
#[derive(Debug)]
pub struct Template {
    defaults: Settings,
    /// The keys of settings.
    keys: Vec<String>,
    /// What was made of settings before: most services of a cluster have none, or the same.
    made: RefCell<HashMap<BTreeMap<String, String>, Made>>,
}

type Made = (Arc<Settings>, Arc<model::Settings>, Vec<String>);

impl Template {
    /// By these settings.
    #[must_use]
    pub fn new(defaults: Settings) -> Self {
        let keys = serde_json::to_value(&defaults).ok().and_then(|value| match value {
            Value::Object(map) => Some(map.into_iter().map(|(key, _)| key).collect()),
            _ => None,
        });
        Self { defaults, keys: keys.unwrap_or_default(), made: RefCell::default() }
    }

    fn make(&self, settings: &BTreeMap<String, String>) -> Made {
        if let Some(made) = self.made.borrow().get(settings) {
            return made.clone();
        }
        let (settings_of_service, problems) = self.parse(settings);
        let facts = Arc::new(model::Settings::from(&settings_of_service));
        let made = (Arc::new(settings_of_service), facts, problems);
        if self.made.borrow().len() >= REMEMBERED {
            self.made.borrow_mut().clear();
        }
        self.made.borrow_mut().insert(settings.clone(), made.clone());
        made
    }

    /// What holds with `settings`. What is wrong is left out, and the rest counts.
    fn parse(&self, settings: &BTreeMap<String, String>) -> (Settings, Vec<String>) {
        if settings.len() > MOST {
            let why =
                format!("{} settings, of which a service has {MOST} at most: none of them counts", settings.len());
            return (self.defaults.clone(), vec![why]);
        }
        let (mut values, mut problems) = self.read(settings);
        for _ in 0..ATTEMPTS {
            match self.load(&values) {
                Ok(made) => return (made, problems),
                Err(wrong) => {
                    let before = values.len();
                    for (key, why) in wrong {
                        // Of several mistakes of a key the first one is named.
                        if values.remove(&key).is_some() {
                            problems.push(why);
                        }
                    }
                    if values.len() == before {
                        break;
                    }
                }
            }
        }
        if !values.is_empty() {
            let left = values.into_keys().collect::<Vec<_>>().join(", ");
            problems.push(format!("{left}: not taken, with so much else wrong"));
        }
        (self.defaults.clone(), problems)
    }

    /// The values of settings, by key, and which are none.
    fn read(&self, settings: &BTreeMap<String, String>) -> (BTreeMap<String, Value>, Vec<String>) {
        let (mut values, mut problems) = (BTreeMap::new(), Vec::new());
        for (key, text) in settings {
            let section = key.split('.').next().unwrap_or_default();
            if !self.keys.iter().any(|known| known == section) {
                problems.push(format!("{key}: no setting of a service; they are {}", self.keys.join(", ")));
                continue;
            }
            match serde_saphyr::from_str(text) {
                Ok(value) => drop(values.insert(key.clone(), value)),
                Err(_) => problems.push(format!("{key}: expected YAML, found {text:?}")),
            }
        }
        (values, problems)
    }

    /// Checks values as if a file had them: by the same rules, with the same words.
    ///
    /// # Errors
    /// What is wrong, and with which key.
    fn load(&self, values: &BTreeMap<String, Value>) -> Result<Settings, Vec<(String, String)>> {
        let mut service = Map::from_iter([("name".to_owned(), Value::from("described"))]);
        for (key, value) in values {
            insert(&mut service, key, value.clone());
        }
        let file = serde_json::json!({ "defaults": self.defaults, "services": [service] });
        // What was read can be written.
        let text = serde_json::to_vec(&file).map_err(|_| Vec::new())?;
        let loaded =
            Files::from_bytes([(PathBuf::from("settings"), text)]).and_then(|files| files.check(&Host::default()));
        match loaded {
            Ok(loaded) => {
                let settings = loaded.config.services.first().map(|service| Settings::clone(&service.settings));
                settings.ok_or_else(Vec::new)
            }
            Err(errors) => Err(errors.mistakes().iter().filter_map(|mistake| wrong(mistake, values)).collect()),
        }
    }
}

/// What a mistake says, and about which key; the first one, where it is not about any in particular.
fn wrong(mistake: &Finding, values: &BTreeMap<String, Value>) -> Option<(String, String)> {
    let field = mistake.field.strip_prefix("services[0].").unwrap_or_default();
    let named = values.keys().filter(|key| is_at(field, key)).max_by_key(|key| key.len());
    let why = match &mistake.remedy {
        Some(remedy) => format!("{field}: {}; {remedy}", mistake.problem),
        None => format!("{field}: {}", mistake.problem),
    };
    Some((named.or_else(|| values.keys().next())?.clone(), why))
}

/// Whether a field is at a key, within it, or around it.
fn is_at(field: &str, key: &str) -> bool {
    let within = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    within(field, key) || within(key, field)
}

fn insert(map: &mut Map<String, Value>, key: &str, value: Value) {
    match key.split_once('.') {
        None => drop(map.insert(key.to_owned(), value)),
        Some((first, rest)) => {
            let inner = map.entry(first).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

impl Describe for Template {
    fn describe(
        &self,
        name: &str,
        protocol: Option<model::Protocol>,
        settings: &BTreeMap<String, String>,
    ) -> (model::Service, Vec<String>) {
        let (settings, facts, problems) = self.make(settings);
        let service = model::Service {
            name: name.to_owned(),
            addresses: Vec::new(),
            hosts: Vec::new(),
            routes: Arc::default(),
            protocol: protocol.unwrap_or_else(|| settings.protocol.into()),
            policy: settings.load_balancing.policy.into(),
            settings: facts,
            endpoints: Vec::new(),
        };
        (service, problems.into_iter().map(|why| format!("{name}: {why}")).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(settings: &[(&str, &str)]) -> (model::Service, Vec<String>) {
        let defaults = Settings { connect_timeout: super::super::Duration::from_millis(700), ..Settings::default() };
        let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Template::new(defaults).describe("cart.shop", None, &settings)
    }

    #[test]
    fn what_a_source_says_lies_over_the_defaults() {
        let (service, problems) =
            described(&[("load_balancing.policy", "maglev"), ("health_check", "{ type: none }"), ("protocol", "http")]);
        assert_eq!(problems, [""; 0]);
        assert_eq!((service.policy, service.protocol), (model::Policy::Maglev, model::Protocol::Http));
        assert_eq!(service.settings.health_check, None);
        assert_eq!(service.settings.connect_timeout.as_millis(), 700);
    }

    #[test]
    fn what_is_wrong_is_left_out_alone_and_named() {
        let (service, problems) = described(&[
            ("load_balancing.policy", "magic"),
            ("connect_timeout", "250ms"),
            ("name", "other"),
            ("retries.attempts", "[1"),
            ("idle_timeout.htp", "1s"),
        ]);
        assert_eq!(service.settings.connect_timeout.as_millis(), 250);
        assert_eq!((service.name.as_str(), service.policy), ("cart.shop", model::Policy::RoundRobin));
        assert_eq!(problems.len(), 4, "{problems:?}");
        assert!(
            problems.iter().any(|p| p.contains("cart.shop: load_balancing.policy: expected one of")),
            "{problems:?}"
        );
        assert!(problems.iter().any(|p| p.contains("idle_timeout.htp: unknown field")), "{problems:?}");
    }

    #[test]
    fn mistakes_are_found_together_however_many_there_are() {
        let keys =
            ["connect_timeout", "load_balancing.policy", "retries.attempts", "health_check.type", "idle_timeout.tcp"];
        let template = Template::new(Settings::default());
        let values = keys.map(|key| (key.to_owned(), Value::from("soon"))).into();
        let found: Vec<String> = template.load(&values).unwrap_err().into_iter().map(|(key, _)| key).collect();
        assert!(keys.iter().all(|key| found.iter().any(|found| found == key)), "{found:?}");
        let settings: Vec<(&str, &str)> = keys.iter().map(|key| (*key, "soon")).chain([("protocol", "http")]).collect();
        let (service, problems) = described(&settings);
        assert_eq!((service.protocol, problems.len()), (model::Protocol::Http, keys.len()), "{problems:?}");
    }
}
