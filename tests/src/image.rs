//! The container image, as `cargo xtask image` writes it, and as runtimes read it.

use crate::{Outcome, process};
use flate2::read::GzDecoder;
use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, OciLayout};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

/// An image in a directory of its own, gone when dropped.
#[derive(Debug)]
pub struct Image {
    dir: TempDir,
    /// The only manifest of the index.
    pub entry: Descriptor,
    /// What it says.
    pub manifest: ImageManifest,
    /// What a runtime is told.
    pub config: ImageConfiguration,
    /// The only layer, unpacked to a tar archive.
    pub layer: Vec<u8>,
}

impl Image {
    /// Has `cargo xtask image` make one around a binary, and reads it.
    ///
    /// # Errors
    /// Where xtask has not been built.
    ///
    /// # Panics
    /// Where the image cannot be made, or breaks a rule: a digest, a size, a second manifest or layer.
    pub fn around(binary: &Path) -> Result<Self, String> {
        let dir =
            tempfile::Builder::new().prefix("mesh-test-image-").tempdir().expect("a temporary directory can be made");
        xtask(&["image", "--binary", &binary.to_string_lossy(), "--output", &dir.path().to_string_lossy()])?.done();
        let oci = dir.path().join("oci");
        let layout = OciLayout::from_file(oci.join("oci-layout")).expect("a layout");
        assert_eq!(layout.image_layout_version(), "1.0.0");
        let index = ImageIndex::from_file(oci.join("index.json")).expect("an index");
        let [entry] = index.manifests().as_slice() else { panic!("{index:?}: one manifest") };
        let manifest: ImageManifest = parsed(&blob(&oci, entry));
        let config: ImageConfiguration = parsed(&blob(&oci, manifest.config()));
        let [described] = manifest.layers().as_slice() else { panic!("{manifest:?}: one layer") };
        let mut layer = Vec::new();
        GzDecoder::new(blob(&oci, described).as_slice()).read_to_end(&mut layer).expect("the layer is gzip");
        assert_eq!(config.rootfs().diff_ids().as_slice(), [digest(&layer)], "the digest of what is unpacked");
        let blobs = fs::read_dir(oci.join("blobs/sha256")).expect("blobs").count();
        assert_eq!(blobs, 3, "nothing that is not referred to");
        Ok(Self { entry: entry.clone(), manifest, config, layer, dir })
    }

    /// The OCI layout.
    #[must_use]
    pub fn layout(&self) -> PathBuf {
        self.dir.path().join("oci")
    }

    /// The root file system that lies beside it.
    #[must_use]
    pub fn tree(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    /// Unpacks the layer as a runtime does, for as long as the image is there.
    ///
    /// # Panics
    /// Where it cannot be unpacked.
    #[must_use]
    pub fn unpack(&self) -> PathBuf {
        let to = self.dir.path().join("unpacked");
        if to.exists() {
            return to;
        }
        let mut archive = tar::Archive::new(self.layer.as_slice());
        archive.set_preserve_permissions(true);
        archive.unpack(&to).expect("a layer can be unpacked");
        to
    }

    /// The program that a container of it runs, as a path in the tree.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn entrypoint(&self) -> PathBuf {
        let config = self.config.config().as_ref().expect("a configuration");
        let entrypoint = config.entrypoint().as_ref().expect("an entrypoint");
        PathBuf::from(&entrypoint[0])
    }
}

/// Runs `cargo xtask`, as it was last built.
///
/// # Errors
/// Where it has not been built.
pub fn xtask(arguments: &[&str]) -> Result<Outcome, String> {
    let program = process::beside("xtask");
    if !program.is_file() {
        return Err(format!("needs {}, which every `cargo xtask` builds", program.display()));
    }
    Ok(process::run_long(Command::new(program).args(arguments)))
}

/// The content that a descriptor describes.
fn blob(oci: &Path, described: &Descriptor) -> Vec<u8> {
    let path = oci.join("blobs").join(described.digest().algorithm().to_string()).join(described.digest().digest());
    let content = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(described.digest().to_string(), digest(&content), "{}", path.display());
    assert_eq!(described.size(), content.len() as u64, "{}", path.display());
    content
}

fn parsed<T: DeserializeOwned>(content: &[u8]) -> T {
    serde_json::from_slice(content).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(content)))
}

fn digest(content: &[u8]) -> String {
    let hex: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
