//! Which addresses were given to services: a file, so that a restart moves nobody.

use super::{
    Given,
    stored::{self, Each, Kept},
};
use crate::model;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::{Path, PathBuf},
};

/// The version of the format; files of another one are not read.
const VERSION: u32 = 1;

/// The file with the addresses that were given.
#[derive(Clone, Debug)]
pub struct Vips(PathBuf);

impl Vips {
    /// In this directory.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self(directory.join("vips.json"))
    }

    /// What was given; nothing where nothing was written. A file that makes no sense is set aside.
    #[must_use]
    pub fn read(&self) -> Kept<Given> {
        stored::read(
            &self.0,
            VERSION,
            |file: File<Each<Stored>>| (file.version, file.services),
            |stored| {
                model::check_service_name(&stored.service).map_err(|bad| format!("service: {bad}"))?;
                Ok(stored.into())
            },
        )
    }

    /// Writes what is given, as a whole or not at all.
    ///
    /// # Errors
    /// Why it cannot be written.
    pub fn write(&self, given: &[Given]) -> Result<(), String> {
        let services: Vec<Stored> = given.iter().cloned().map(Stored::from).collect();
        stored::write(&self.0, &File { version: VERSION, services })
    }
}

#[derive(Serialize, Deserialize)]
struct File<S> {
    version: u32,
    services: Vec<S>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    service: String,
    address: IpAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left: Option<u64>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    ports: BTreeSet<u16>,
}

impl From<Stored> for Given {
    fn from(Stored { service, address, left, ports }: Stored) -> Self {
        Self { service, address, left, ports }
    }
}

impl From<Given> for Stored {
    fn from(Given { service, address, left, ports }: Given) -> Self {
        Self { service, address, left, ports }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::stored::Trouble, *};
    use std::fs;

    fn given(service: &str, address: &str, left: Option<u64>) -> Given {
        let ports = if left.is_none() { [80, 443].into() } else { BTreeSet::new() };
        Given { service: service.to_owned(), address: address.parse().unwrap(), left, ports }
    }

    #[test]
    fn what_was_given_is_known_again() {
        let directory = tempfile::tempdir().unwrap();
        let vips = Vips::new(directory.path());
        assert_eq!(vips.read().records, []);
        let all = vec![given("a", "240.1.0.1", None), given("b", "fd00::1", Some(7))];
        vips.write(&all).unwrap();
        assert_eq!(vips.read(), Kept { records: all, trouble: Trouble::default() });
    }

    #[test]
    fn a_record_that_makes_no_sense_is_left_out_alone_and_one_without_ports_is_known() {
        let directory = tempfile::tempdir().unwrap();
        let (a, b) = (r#"{"service":"a","address":"240.1.0.1"}"#, r#"{"service":"a..b","address":"240.1.0.2"}"#);
        let text = format!(r#"{{"version":1,"services":[{b},{a},{{"service":"c","address":"nowhere"}}]}}"#);
        fs::write(directory.path().join("vips.json"), text).unwrap();
        let Kept { records, trouble } = Vips::new(directory.path()).read();
        assert_eq!((records.len(), records[0].service.as_str(), records[0].ports.len()), (1, "a", 0));
        assert_eq!(trouble.count(), 2);
    }

    #[test]
    fn a_torn_or_foreign_file_is_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let vips = Vips::new(directory.path());
        for text in ["{\"version\":1,\"serv", "{\"version\":2,\"services\":[]}", "[]"] {
            fs::write(directory.path().join("vips.json"), text).unwrap();
            let why = vips.read().trouble.summary().unwrap();
            assert!(why.contains("vips.json.bad"), "{why}");
            assert_eq!(vips.read().trouble, Trouble::default());
        }
    }
}
