//! Certificates of a test, made by `openssl`.

use crate::programs;
use std::{fs, path::PathBuf};
use tempfile::TempDir;

/// Keys and certificates for 127.0.0.1: `NAME.key` and `NAME.pem`.
#[derive(Debug)]
pub struct Certificates {
    openssl: PathBuf,
    dir: TempDir,
}

impl Certificates {
    /// None yet.
    ///
    /// # Errors
    /// Where `openssl` is not installed.
    pub fn new() -> Result<Self, String> {
        let openssl = programs::find("openssl").ok_or("needs `openssl`, which `cargo xtask setup` installs")?;
        let dir = tempfile::Builder::new().prefix("mesh-test-certificates-").tempdir();
        Ok(Self { openssl, dir: dir.expect("a temporary directory can be made") })
    }

    /// Where a file lies.
    #[must_use]
    pub fn at(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// The same as text.
    #[must_use]
    pub fn text(&self, file: &str) -> String {
        self.at(file).display().to_string()
    }

    /// Makes a certificate that is signed by itself: one who signs others.
    pub fn authority(&self, name: &str) {
        let out = ["-x509", "-days", "2", "-out", &self.text(&format!("{name}.pem"))];
        self.request(name, &out);
    }

    /// Makes a certificate that is signed by an authority.
    ///
    /// # Panics
    /// Where the directory cannot be written.
    pub fn signed(&self, name: &str, by: &str) {
        let file = |name: &str, kind: &str| self.text(&format!("{name}.{kind}"));
        self.request(name, &["-out", &file(name, "csr")]);
        fs::write(self.at("ext"), "subjectAltName=IP:127.0.0.1\n").expect("a test's directory can be written");
        let of = ["-in", &file(name, "csr"), "-out", &file(name, "pem"), "-extfile", &self.text("ext")];
        let ca = ["-CA", &file(by, "pem"), "-CAkey", &file(by, "key"), "-CAcreateserial", "-days", "2"];
        self.run(&[&["x509", "-req"][..], &of, &ca].concat());
    }

    fn request(&self, name: &str, more: &[&str]) {
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout"];
        let subject = [&self.text(&format!("{name}.key")), "-subj", &format!("/CN={name}")];
        self.run(&[&["req"][..], &key, &subject, more].concat());
    }

    fn run(&self, arguments: &[&str]) {
        programs::run(&self.openssl, arguments).done();
    }
}
