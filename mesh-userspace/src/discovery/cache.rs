//! What was known before the daemon started: a file with all that sources said, for the time until they say it again.
//!
//! Without it a daemon that restarts while its source is down would take services away that work.

use super::{
    Description, Instance, Place, Said, Source,
    stored::{self, Each, Kept, Trouble},
};
use crate::model::{self, Endpoint, Protocol};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// The version of the format; files of another one are not read.
const VERSION: u32 = 1;

/// What was known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// What each source said of each service.
    pub said: Vec<(Source, String, Said)>,
    /// Where this node is.
    pub place: Option<Place>,
    /// What was wrong with the file.
    pub trouble: Trouble,
}

/// The file with what was known.
#[derive(Clone, Debug)]
pub struct Cache(PathBuf);

fn source_of(word: &str) -> Result<Source, String> {
    Source::from_word(word).ok_or_else(|| format!("there is no source {word:?}"))
}

impl Cache {
    /// In this directory.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self(directory.join("discovered.json"))
    }

    /// What was known; nothing where nothing was written. A file that makes no sense is set aside.
    #[must_use]
    pub fn read(&self) -> Known {
        let mut place = None;
        let Kept { records: said, mut trouble } = stored::read(
            &self.0,
            VERSION,
            |file: File<Each<Stored>>| {
                place = file.place;
                (file.version, file.services)
            },
            |stored| {
                let Stored { source, key, said } = stored;
                let source = source_of(&source)?;
                if let Some(name) = source.service(&key) {
                    model::check_service_name(&name).map_err(|bad| format!("{}: {bad}", source.word()))?;
                }
                Ok((source, key, said.into()))
            },
        );
        let place = place.and_then(|place: StoredPlace| match source_of(&place.source) {
            Ok(source) => Some(Place { source, zone: place.zone, region: place.region }),
            Err(why) => {
                trouble.add(stored::left_out(&self.0, format_args!("where the node is: {why}")));
                None
            }
        });
        Known { said, place, trouble }
    }

    /// Writes what is known, as a whole or not at all.
    ///
    /// # Errors
    /// Why it cannot be written.
    pub fn write<'a>(
        &self,
        said: impl Iterator<Item = (Source, &'a str, &'a Said)>,
        place: Option<&Place>,
    ) -> Result<(), String> {
        let stored = |(source, key, said): (Source, &str, &Said)| Stored {
            source: source.word().to_owned(),
            key: key.to_owned(),
            said: said.into(),
        };
        let mut services: Vec<Stored> = said.map(stored).collect();
        services.sort_by(|a, b| (&a.source, &a.key).cmp(&(&b.source, &b.key)));
        let place = place.map(|Place { source, zone, region }| StoredPlace {
            source: source.word().to_owned(),
            zone: zone.clone(),
            region: region.clone(),
        });
        stored::write(&self.0, &File { version: VERSION, place, services })
    }
}

#[derive(Serialize, Deserialize)]
struct File<S> {
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    place: Option<StoredPlace>,
    services: Vec<S>,
}

#[derive(Serialize, Deserialize)]
struct StoredPlace {
    source: String,
    zone: String,
    region: String,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    source: String,
    key: String,
    #[serde(flatten)]
    said: StoredSaid,
}

#[derive(Serialize, Deserialize)]
struct StoredSaid {
    instances: Vec<StoredInstance>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<StoredDescription>,
}

#[derive(Serialize, Deserialize)]
struct StoredInstance {
    id: String,
    address: SocketAddr,
    weight: u16,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    zone: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    region: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    node: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    draining: bool,
}

#[derive(Serialize, Deserialize)]
struct StoredDescription {
    addresses: Vec<SocketAddr>,
    hosts: Vec<String>,
    protocol: Option<String>,
    settings: BTreeMap<String, String>,
}

impl From<&Said> for StoredSaid {
    fn from(said: &Said) -> Self {
        let instance = |i: &Instance| {
            let Endpoint { address, weight, zone, region, node, draining, tripped: _ } = i.endpoint.clone();
            StoredInstance { id: i.id.clone(), address, weight, zone, region, node, draining }
        };
        let description = said.description.clone().map(|d| StoredDescription {
            addresses: d.addresses,
            hosts: d.hosts,
            protocol: d.protocol.map(|p| p.word().to_owned()),
            settings: d.settings,
        });
        Self { instances: said.instances.iter().map(instance).collect(), description }
    }
}

impl From<StoredSaid> for Said {
    fn from(said: StoredSaid) -> Self {
        let instance = |i: StoredInstance| {
            let StoredInstance { id, address, weight, zone, region, node, draining } = i;
            Instance { id, endpoint: Endpoint { address, weight, zone, region, node, draining, tripped: false } }
        };
        let description = said.description.map(|d| Description {
            addresses: d.addresses,
            hosts: d.hosts,
            protocol: d.protocol.as_deref().and_then(Protocol::from_word),
            settings: d.settings,
        });
        Self { instances: said.instances.into_iter().map(instance).collect(), description }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn said() -> Said {
        let endpoint =
            Endpoint { weight: 3, zone: "a".to_owned(), draining: true, ..Endpoint::new(([10, 0, 0, 1], 80).into()) };
        Said {
            instances: vec![Instance { id: "one".to_owned(), endpoint }],
            description: Some(Description {
                addresses: vec![([10, 96, 0, 1], 80).into()],
                hosts: vec!["web.shop.svc".to_owned()],
                protocol: Some(Protocol::Http),
                settings: [("load_balancing.policy".to_owned(), "maglev".to_owned())].into(),
            }),
        }
    }

    #[test]
    fn what_was_known_is_known_again() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::new(directory.path());
        assert_eq!(cache.read(), Known::default());
        let (one, other) = (said(), Said::default());
        let place = Place { source: Source::Kubernetes, zone: "a".to_owned(), region: String::new() };
        let said = [(Source::Kubernetes, "shop/web", &one), (Source::Etcd, "b", &other)];
        cache.write(said.into_iter(), Some(&place)).unwrap();
        let said = vec![(Source::Etcd, "b".to_owned(), other), (Source::Kubernetes, "shop/web".to_owned(), one)];
        assert_eq!(cache.read(), Known { said, place: Some(place), trouble: Trouble::default() });
    }

    #[test]
    fn a_file_of_a_daemon_that_wrote_no_place_is_read() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("discovered.json"), r#"{"version":1,"services":[]}"#).unwrap();
        assert_eq!(Cache::new(directory.path()).read(), Known::default());
    }

    #[test]
    fn a_record_that_makes_no_sense_is_left_out_alone() {
        let directory = tempfile::tempdir().unwrap();
        let record = |source: &str, key: &str| format!(r#"{{"source":"{source}","key":"{key}","instances":[]}}"#);
        let instance = r#"{"source":"etcd","key":"c","instances":[{"id":"x","address":"nowhere","weight":1}]}"#;
        let records =
            [record("etcd", "a..b"), record("etcd", "b"), record("consul", "b"), instance.to_owned()].join(",");
        let text = format!(r#"{{"version":1,"services":[{records}]}}"#);
        fs::write(directory.path().join("discovered.json"), text).unwrap();
        let Known { said, trouble, .. } = Cache::new(directory.path()).read();
        assert_eq!(said, [(Source::Etcd, "b".to_owned(), Said::default())]);
        assert_eq!(trouble.count(), 3);
    }

    #[test]
    fn a_torn_or_foreign_file_is_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::new(directory.path());
        for text in ["{\"version\":1,\"serv", "{\"version\":99,\"services\":[]}", ""] {
            fs::write(directory.path().join("discovered.json"), text).unwrap();
            let why = cache.read().trouble.summary().unwrap();
            assert!(why.contains("discovered.json.bad"), "{why}");
            assert_eq!(cache.read().said, []);
        }
    }
}
