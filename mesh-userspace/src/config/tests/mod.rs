//! Tests of the configuration, by subject.

mod documentation;
mod dump;
mod files;
mod http;
mod mistakes;
mod persist;
mod rules;
mod values;

use super::*;
use std::path::PathBuf;

/// Checks one file named `mesh.yaml`.
fn check(text: &str) -> Result<Loaded, Errors> {
    check_all(&[("mesh.yaml", text)])
}

/// Checks files in the order in which they apply.
fn check_all(files: &[(&str, &str)]) -> Result<Loaded, Errors> {
    let files = files.iter().map(|(name, text)| (PathBuf::from(name), text.as_bytes().to_vec()));
    Files::from_bytes(files)?.check(&Host { name: "node-a".to_owned(), addresses: vec![[192, 0, 2, 7].into()] })
}
