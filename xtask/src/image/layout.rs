//! The OCI image layout (image-spec 1.1): `oci-layout`, `index.json`, and blobs named by their SHA-256.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

use super::at;
use super::root::{BINARY, Entries, Entry};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The unit says what the daemon may do, and why. Everything else that grants it anything is compared with it.
const UNIT: &str = include_str!("../../../deploy/mesh.service");

/// Writes an image of one layer into the empty `directory`. Says how to name it to tools.
pub(super) fn write(entries: &Entries, architecture: &str, directory: &Path) -> Result<String, String> {
    let version = env!("CARGO_PKG_VERSION");
    let blobs = Blobs(directory.join("blobs/sha256"));
    fs::create_dir_all(&blobs.0).map_err(at(&blobs.0))?;

    let archive = archive(entries).map_err(|error| format!("the layer: {error}"))?;
    let uncompressed = digest(&archive);
    // No name and no time in its head.
    let mut packed = GzBuilder::new().write(Vec::new(), Compression::default());
    let packed =
        packed.write_all(&archive).and_then(|()| packed.finish()).map_err(|error| format!("the layer: {error}"))?;
    let layer = blobs.add(LAYER, &packed)?;
    let config = blobs.add(CONFIG, &text(&config(architecture, version, &uncompressed)?))?;
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
    let mut named = blobs.add(MANIFEST, &text(&manifest))?;
    named["platform"] = json!({ "architecture": architecture, "os": "linux" });
    // The first is what skopeo and the like call it, the second what containerd does when it imports it.
    named["annotations"] = json!({
        "io.containerd.image.name": format!("docker.io/library/mesh:{version}"),
        "org.opencontainers.image.ref.name": version,
    });
    put(directory, "oci-layout", &text(&json!({ "imageLayoutVersion": "1.0.0" })))?;
    put(directory, "index.json", &text(&json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [named] })))?;
    Ok(format!("oci:{}:{version}", directory.display()))
}

/// What a runtime is told.
fn config(architecture: &str, version: &str, layer: &str) -> Result<Value, String> {
    Ok(json!({
        "architecture": architecture,
        "os": "linux",
        "config": {
            // As root: see deploy/Dockerfile.
            "User": "0:0",
            "Env": ["PATH=/usr/bin"],
            "Entrypoint": [format!("/{BINARY}")],
            "Cmd": ["run"],
            "WorkingDir": "/",
            "StopSignal": "SIGTERM",
            "Labels": labels(version)?,
        },
        "rootfs": { "type": "layers", "diff_ids": [layer] },
        "history": [{ "created_by": "cargo xtask image" }],
    }))
}

fn labels(version: &str) -> Result<Value, String> {
    Ok(json!({
        "dev.mesh.capabilities": capabilities(UNIT).ok_or("deploy/mesh.service has no CapabilityBoundingSet")?,
        "org.opencontainers.image.description": "eBPF-accelerated service mesh: the node daemon and its command line",
        "org.opencontainers.image.licenses": env!("CARGO_PKG_LICENSE"),
        "org.opencontainers.image.title": "mesh",
        "org.opencontainers.image.version": version,
    }))
}

/// The capabilities that a unit leaves its service.
fn capabilities(unit: &str) -> Option<&str> {
    unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="))
}

/// The tree as a tar archive, uncompressed.
fn archive(entries: &Entries) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, entry) in entries {
        let mut header = Header::new_gnu();
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        match entry {
            Entry::Directory(mode) => {
                header.set_entry_type(EntryType::Directory);
                header.set_mode(*mode);
                header.set_size(0);
                let mut name = path.clone().into_os_string();
                name.push("/");
                archive.append_data(&mut header, name, std::io::empty())?;
            }
            Entry::File(mode, content) => {
                header.set_entry_type(EntryType::Regular);
                header.set_mode(*mode);
                header.set_size(content.len() as u64);
                archive.append_data(&mut header, path, content.as_slice())?;
            }
        }
    }
    archive.into_inner()
}

struct Blobs(PathBuf);

impl Blobs {
    /// Writes one, and describes it as others refer to it.
    fn add(&self, media_type: &str, content: &[u8]) -> Result<Value, String> {
        let digest = digest(content);
        put(&self.0, digest.trim_start_matches("sha256:"), content)?;
        Ok(json!({ "mediaType": media_type, "digest": digest, "size": content.len() }))
    }
}

fn put(directory: &Path, name: &str, content: &[u8]) -> Result<(), String> {
    let path = directory.join(name);
    fs::write(&path, content).map_err(at(&path))
}

fn digest(content: &[u8]) -> String {
    let hex: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn text(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Entries {
        let mut entries = Entries::new();
        entries.insert("a".into(), Entry::Directory(0o700));
        entries.insert("a/file".into(), Entry::File(0o644, b"content".to_vec()));
        entries
    }

    #[test]
    fn the_same_tree_gives_the_same_archive_without_times_and_owners() {
        let made = archive(&tree()).unwrap();
        assert_eq!(made, archive(&tree()).unwrap());
        let mut read = tar::Archive::new(made.as_slice());
        let mut seen = Vec::new();
        for entry in read.entries().unwrap() {
            let header = entry.unwrap().header().clone();
            assert_eq!((header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap()), (0, 0, 0));
            seen.push((header.path().unwrap().display().to_string(), header.mode().unwrap()));
        }
        assert_eq!(seen, [("a/".into(), 0o700), ("a/file".into(), 0o644)]);
    }

    #[test]
    fn the_digest_is_that_of_the_standard() {
        assert_eq!(digest(b"abc"), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn the_unit_names_capabilities() {
        assert!(capabilities(UNIT).unwrap().contains("CAP_BPF"));
        assert_eq!(capabilities("[Unit]\n"), None);
    }
}
