//! What all forms have in common in which mesh is handed out: which binary is in it, and where it is written.

use std::fs;
use std::path::PathBuf;

use clap::Args;

use crate::build::{self, Profile};

/// What is asked for, whatever the form.
#[derive(Args)]
pub(crate) struct Packing {
    /// Where it is written (default: `image` or `debian`, in cargo's target directory)
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// A mesh that is built already (default: build it, for release)
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

impl Packing {
    /// The binary to be packed, built if none was named.
    ///
    /// # Errors
    /// Why it cannot be built.
    pub(crate) fn binary(&self) -> Result<PathBuf, String> {
        self.binary.clone().map_or_else(|| build::run(Profile::Release), Ok)
    }

    /// The directory to write to, made if it is not there; by its absolute path, as others may write there from elsewhere.
    /// `usual`: its name in cargo's target directory, if none was named.
    ///
    /// # Errors
    /// Why it cannot be made.
    pub(crate) fn output(&self, usual: &str) -> Result<PathBuf, String> {
        let output = self.output.clone().unwrap_or_else(|| build::target_directory().join(usual));
        let at = |error: std::io::Error| format!("{}: {error}", output.display());
        let path = std::path::absolute(&output).map_err(at)?;
        fs::create_dir_all(&path).map_err(at)?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_is_taken_and_what_is_not_has_its_usual_place() {
        let named = std::env::temp_dir().join(format!("mesh-packing-{}", std::process::id())).join("a");
        let packing = Packing { output: Some(named.clone()), binary: Some(PathBuf::from("target/debug/mesh")) };
        assert_eq!(packing.binary(), Ok(PathBuf::from("target/debug/mesh")), "nothing is built");
        assert_eq!(packing.output("image"), Ok(named.clone()));
        assert!(named.is_dir(), "with what leads to it");
        let beneath = Packing { output: Some(PathBuf::from("/dev/null/a")), binary: None };
        assert!(beneath.output("image").unwrap_err().starts_with("/dev/null/a: "));
        let parent = named.parent().map(fs::remove_dir_all);
        assert!(parent.is_some_and(|removed| removed.is_ok()));
    }
}
