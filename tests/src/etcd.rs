//! Real members of etcd, with data of their own: one alone, or three together.

use crate::{Value, http, json, poll, ports::Port, process, programs};
use base64::{Engine, engine::general_purpose::STANDARD};
use nix::sys::signal::Signal;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};
use tempfile::TempDir;

/// A member. Dropped, it is killed, and its data with it.
#[derive(Debug)]
pub struct Etcd {
    name: &'static str,
    /// The others and itself, where they are: `NAME=URL,NAME=URL`.
    cluster: String,
    program: PathBuf,
    dir: TempDir,
    clients: Port,
    peers: Port,
    /// The certificate, its key, and who signs those of clients, where it speaks TLS.
    tls: Option<[PathBuf; 3]>,
    more: Vec<String>,
    child: Option<Child>,
}

impl Etcd {
    /// One that runs.
    ///
    /// # Errors
    /// Where it is not installed.
    pub fn new() -> Result<Self, String> {
        Self::with(&[])
    }

    /// One with more options.
    ///
    /// # Errors
    /// Where it is not installed.
    pub fn with(options: &[&str]) -> Result<Self, String> {
        Self::make(None, options)
    }

    /// One that speaks TLS only, to clients with a certificate only.
    ///
    /// # Errors
    /// Where it is not installed.
    pub fn with_tls(certificate: &Path, key: &Path, ca: &Path) -> Result<Self, String> {
        Self::make(Some([certificate, key, ca].map(Path::to_owned)), &[])
    }

    /// Three that are one cluster.
    ///
    /// # Errors
    /// Where it is not installed.
    pub fn three() -> Result<[Self; 3], String> {
        let [one, two, three] = ["one", "two", "three"].map(|name| Self::prepare(name, None, &[]));
        let mut members = [one?, two?, three?];
        let cluster = members.iter().map(|member| member.cluster.clone()).collect::<Vec<_>>().join(",");
        for member in &mut members {
            member.cluster.clone_from(&cluster);
            member.spawn();
        }
        members.iter_mut().for_each(Self::wait);
        Ok(members)
    }

    fn make(tls: Option<[PathBuf; 3]>, options: &[&str]) -> Result<Self, String> {
        let mut etcd = Self::prepare("one", tls, options)?;
        etcd.start();
        Ok(etcd)
    }

    fn prepare(name: &'static str, tls: Option<[PathBuf; 3]>, options: &[&str]) -> Result<Self, String> {
        let program = programs::find("etcd").ok_or("needs `etcd`, which `cargo xtask setup` installs")?;
        let dir = tempfile::Builder::new().prefix("mesh-test-etcd-").tempdir();
        let dir = dir.expect("a temporary directory can be made");
        let more = options.iter().map(|option| (*option).to_owned()).collect();
        let (clients, peers) = (Port::new(), Port::new());
        let cluster = format!("{name}=http://{}", peers.address());
        Ok(Self { name, cluster, more, program, dir, clients, peers, tls, child: None })
    }

    /// Starts it, with the data that it has.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn start(&mut self) {
        self.spawn();
        self.wait();
    }

    /// Starts it and waits for nothing: a member among others has no leader before most of them are there.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let (url, peers) = (self.url(), format!("http://{}", self.peers.address()));
        let log = fs::File::options().create(true).append(true).open(self.dir.path().join("log"));
        let log = log.expect("a test's directory can be written");
        let mut command = Command::new(&self.program);
        command.args(["--name", self.name, "--initial-cluster", &self.cluster]).arg("--data-dir").arg(self.data());
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
        command.args(&self.more);
        if let Some([certificate, key, ca]) = &self.tls {
            command.arg("--cert-file").arg(certificate).arg("--key-file").arg(key);
            command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(ca);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file can be shared")).stderr(log);
        self.child = Some(command.spawn().unwrap_or_else(|e| panic!("etcd does not start: {e}")));
    }

    /// Waits until it has a leader.
    fn wait(&mut self) {
        poll::eventually("etcd has a leader", || {
            if let Some(Ok(Some(ended))) = self.child.as_mut().map(Child::try_wait) {
                panic!("etcd ended: {ended}\n{}", self.log());
            }
            if self.tls.is_some() {
                return if self.log().contains("ready to serve client requests") { Ok(()) } else { Err(self.log()) };
            }
            match http::tcp(&self.address(), "GET", "/health", "") {
                Ok(answer) if answer.body.contains("\"true\"") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }

    /// Whether it leads the others.
    ///
    /// # Panics
    /// Where it does not say.
    #[must_use]
    pub fn leads(&self) -> bool {
        let status = self.ask("maintenance/status", &json!({}));
        status["leader"].is_string() && status["leader"] == status["header"]["member_id"]
    }

    /// Where clients reach it.
    #[must_use]
    pub fn address(&self) -> String {
        self.clients.address()
    }

    /// The same as a URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls.is_some() { "https" } else { "http" }, self.address())
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Takes its data away.
    ///
    /// # Panics
    /// Where it runs.
    pub fn wipe(&self) {
        assert!(self.child.is_none(), "it runs");
        fs::remove_dir_all(self.data()).expect("its data can be removed");
    }

    /// Stops the process in its tracks, or lets it go on.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn freeze(&self, frozen: bool) {
        let child = self.child.as_ref().expect("it runs");
        process::signal(child.id(), if frozen { Signal::SIGSTOP } else { Signal::SIGCONT });
    }

    /// Asks its JSON gateway: `kv/put` and the like. Bytes are in base64.
    ///
    /// # Errors
    /// Where that fails.
    pub fn try_ask(&self, path: &str, body: &Value) -> Result<Value, String> {
        let answer = http::tcp(&self.address(), "POST", &format!("/v3/{path}"), &body.to_string());
        let answer = answer.map_err(|e| format!("{path}: {e}"))?;
        if answer.status != 200 {
            return Err(format!("{path}: {answer:?}"));
        }
        serde_json::from_str(&answer.body).map_err(|e| format!("{path}: {e}: {answer:?}"))
    }

    /// As [`Etcd::try_ask`], of one that is there.
    ///
    /// # Panics
    /// Where that fails.
    pub fn ask(&self, path: &str, body: &Value) -> Value {
        self.try_ask(path, body).unwrap_or_else(|why| panic!("{why}"))
    }

    /// Puts any bytes at any key.
    pub fn put(&self, key: &str, value: &[u8]) -> Value {
        self.ask("kv/put", &json!({ "key": base64(key.as_bytes()), "value": base64(value) }))
    }

    /// Puts an instance where mesh looks for it by default, as soon as there is a leader who can.
    pub fn instance(&self, service: &str, id: &str, address: &str) -> Value {
        let (key, value) = (format!("/mesh/services/{service}/{id}"), json!({ "address": address }).to_string());
        let put = json!({ "key": base64(key.as_bytes()), "value": base64(value.as_bytes()) });
        poll::eventually("the instance is put", || self.try_ask("kv/put", &put))
    }

    /// Removes a key, as soon as there is a leader who can.
    pub fn delete(&self, key: &str) {
        let key = json!({ "key": base64(key.as_bytes()) });
        poll::eventually("the key is removed", || self.try_ask("kv/deleterange", &key));
    }

    /// Forgets what was before the last change.
    ///
    /// # Panics
    /// Where that fails.
    pub fn compact(&self) {
        let header = self.put("/compacted", b"")["header"].clone();
        let revision = header["revision"].as_str().expect("a put has a revision").to_owned();
        self.ask("kv/compaction", &json!({ "revision": revision, "physical": true }));
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("--- the log of etcd at {}\n{}---", self.address(), self.log());
        }
    }
}

/// Bytes as JSON of gRPC has them.
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}
