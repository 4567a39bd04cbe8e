//! The real `mesh` binary as one node's daemon, with everything it needs under names of its own.

use crate::{Container, Netns, Outcome, Value, bpffs::PinDirectory, http, json, kernel, poll, ports::Port, process};
use nix::sys::signal::Signal;
use std::{
    fmt, fs, io,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};
use tempfile::TempDir;

/// A daemon's files and names before it starts.
#[derive(Debug)]
pub struct Setup {
    /// The configuration: what `mesh.yaml` will hold (JSON is YAML).
    pub config: Value,
    dir: TempDir,
    admin: Port,
    /// Where it captures clients in the host's network namespace, unless a test says.
    capture: Option<Port>,
    /// None for one that puts nothing into the kernel.
    pins: Option<PinDirectory>,
    cgroup: PathBuf,
    /// A configuration that says where everything is, for clearing up.
    unload: Value,
    alone: bool,
    netns: Option<Arc<Netns>>,
    environment: Vec<(&'static str, PathBuf)>,
    /// Whether the daemon itself is in its cgroup.
    inside: bool,
    prepare: Vec<Prepare>,
    /// Where it and its command line run, if not on the host.
    container: Option<Container>,
}

/// Changes the command of a process before it starts.
struct Prepare(Box<dyn Fn(&mut Command) + Send + Sync>);

impl fmt::Debug for Prepare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prepare")
    }
}

/// A daemon. Dropped, it is ended, unloaded, and nothing may be left of it in the kernel.
#[derive(Debug)]
pub struct Daemon {
    setup: Setup,
    child: Option<Child>,
}

/// A process that was started to take over.
#[derive(Debug)]
pub struct Successor(Child);

impl Successor {
    /// Ends it as a crash does.
    pub fn kill(mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Waits for it to end by itself.
    ///
    /// # Panics
    /// Where it does not.
    pub fn wait(mut self) -> ExitStatus {
        let ended = poll::within(poll::PATIENCE, || self.0.try_wait().ok().flatten().ok_or(()));
        ended.unwrap_or_else(|()| {
            let _ = self.0.kill();
            let _ = self.0.wait();
            panic!("the daemon that takes over did not end")
        })
    }
}

/// For a daemon without explicit proxy.
fn no_proxy() -> Value {
    json!({ "http": "" })
}

impl Setup {
    /// A configuration for a daemon on `cgroup`, with only what keeps it apart from others.
    ///
    /// # Panics
    /// Where bpffs or a temporary directory cannot be had.
    #[must_use]
    pub fn new(cgroup: &Path, services: Value) -> Self {
        let pins = PinDirectory::new().expect("bpffs can be mounted");
        let places = json!({ "cgroup": cgroup, "bpffs": pins.path() });
        Self::placed(places, cgroup, Some(pins), services)
    }

    /// A configuration for a daemon that leaves the kernel alone, and so needs no root.
    #[must_use]
    pub fn userspace(services: Value) -> Self {
        // Two places that are not there, lest it looks for what other daemons have.
        let nowhere = Path::new("/nonexistent");
        let places = json!({ "mode": "userspace", "cgroup": nowhere, "bpffs": nowhere });
        Self::placed(places, nowhere, None, services)
    }

    fn placed(dataplane: Value, cgroup: &Path, pins: Option<PinDirectory>, services: Value) -> Self {
        let dir = tempfile::Builder::new().prefix("mesh-test-").tempdir().expect("a temporary directory can be made");
        let admin = Port::new();
        let mut config = json!({
            "node": { "name": "test-node", "state_dir": dir.path().join("state") },
            "admin": { "listen": admin.address(), "socket": dir.path().join("admin.sock") },
            "dataplane": dataplane,
            // The usual port is one for the whole machine.
            "proxy": no_proxy(),
        });
        let unload = config.clone();
        // The daemon checks from the host's network namespace, while the backends are in the test's: its checks would
        // leave the test, and fail. A test about health says so.
        config["defaults"] = json!({ "health_check": { "type": "none" } });
        config["services"] = services;
        Self {
            config,
            unload,
            dir,
            admin,
            capture: None,
            pins,
            cgroup: cgroup.to_owned(),
            alone: true,
            netns: None,
            environment: Vec::new(),
            inside: false,
            prepare: Vec::new(),
            container: None,
        }
    }

    /// Changes the configuration.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.config);
        self
    }

    /// Says that another daemon has programs on this cgroup, which are not this one's to clear away.
    #[must_use]
    pub const fn beside_another(mut self) -> Self {
        self.alone = false;
        self
    }

    /// Puts the daemon into a network namespace, from where it reaches what is in there to check it. The harness asks it
    /// at its admin socket then.
    #[must_use]
    pub fn in_netns(mut self, netns: &Arc<Netns>) -> Self {
        self.netns = Some(netns.clone());
        // The usual port is free there.
        if self.config["proxy"] == no_proxy() {
            self.config["proxy"] = json!({});
        }
        self
    }

    /// Puts the daemon into the very cgroup whose connections it translates, as one that serves the whole node is.
    #[must_use]
    pub const fn inside(mut self) -> Self {
        self.inside = true;
        self
    }

    /// Puts the daemon and its command line into a container, which sees its directory under the same name.
    #[must_use]
    pub fn in_container(mut self, container: Container) -> Self {
        let dir = self.dir.path();
        self.container = Some(container.mount(dir, &dir.to_string_lossy(), false));
        self
    }

    /// Gives the daemon's process a variable, with a path.
    #[must_use]
    pub fn environment(mut self, name: &'static str, path: PathBuf) -> Self {
        self.environment.push((name, path));
        self
    }

    /// Changes the command of each process of the daemon, before it starts.
    #[must_use]
    pub fn prepared(mut self, change: impl Fn(&mut Command) + Send + Sync + 'static) -> Self {
        self.prepare.push(Prepare(Box::new(change)));
        self
    }

    /// Starts the daemon and waits until it is ready.
    ///
    /// # Panics
    /// Where it ends or does not become ready.
    #[must_use]
    pub fn start(self) -> Daemon {
        let mut daemon = self.idle();
        daemon.start();
        daemon
    }

    /// Writes the files and starts nothing.
    #[must_use]
    pub fn idle(mut self) -> Daemon {
        // Where clients are captured in the host's namespace, the usual port is one for the whole machine.
        if self.netns.is_none() && self.pins.is_some() && self.config["proxy"]["port"].is_null() {
            let port = self.capture.get_or_insert_with(Port::new);
            self.config["proxy"]["port"] = json!(port.number);
        }
        let daemon = Daemon { setup: self, child: None };
        daemon.write_config(&daemon.setup.config);
        daemon
    }
}

impl Daemon {
    /// Starts the process and waits until it says it is ready.
    ///
    /// # Panics
    /// Where it ends or does not become ready.
    pub fn start(&mut self) {
        self.spawn();
        self.wait_for("/ready", 200);
    }

    /// Starts the process and waits for nothing.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        self.child = Some(self.process(&[]));
    }

    /// As [`Daemon::start`], with more options of `mesh run`.
    ///
    /// # Panics
    /// Where it ends or does not become ready.
    pub fn start_with(&mut self, options: &[&str]) {
        assert!(self.child.is_none(), "it runs already");
        self.child = Some(self.process(options));
        self.wait_for("/ready", 200);
    }

    /// The `mesh` program, before it is run.
    pub(crate) fn program(&self, arguments: &[&str]) -> Command {
        match &self.setup.container {
            Some(container) => container.command(arguments),
            None => {
                let mut command = Command::new(process::mesh());
                command.args(arguments);
                command
            }
        }
    }

    fn process(&self, more: &[&str]) -> Child {
        let log = fs::File::options().create(true).append(true).open(self.log_path()).expect("the log can be written");
        let mut command = self.command(&["run", "--config", &self.config_path().to_string_lossy()]);
        let cgroup = self.setup.inside.then_some(self.setup.cgroup.as_path());
        process::place(&mut command, cgroup, self.setup.netns.as_deref()).expect("a test's places can be entered");
        command.envs(self.setup.environment.iter().map(|(name, path)| (name, path)));
        self.setup.prepare.iter().for_each(|Prepare(change)| change(&mut command));
        command.args(more).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("mesh starts")
    }

    /// Starts a process that takes over, and waits for nothing. It logs where this one does.
    ///
    /// # Panics
    /// Where it does not start.
    #[must_use]
    pub fn successor(&self) -> Successor {
        Successor(self.process(&["--takeover"]))
    }

    /// Lets another process take over; it is this daemon from then on.
    ///
    /// # Panics
    /// Where this one does not end with exit code 0, or the new one is not ready.
    pub fn take_over(&mut self) {
        let successor = self.successor();
        let status = self.wait();
        assert!(status.success(), "{status}\n{}", self.log());
        self.follow(successor);
        self.wait_for("/ready", 200);
    }

    /// Takes the process for this daemon's, which has ended.
    ///
    /// # Panics
    /// Where it has not.
    pub fn follow(&mut self, successor: Successor) {
        assert!(!self.is_running(), "it runs still");
        self.child = Some(successor.0);
    }

    /// Whether the process has not ended. One that has is forgotten.
    pub fn is_running(&mut self) -> bool {
        let running = self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)));
        if !running {
            self.child = None;
        }
        running
    }

    /// Waits until a path of the admin port answers with `status`.
    ///
    /// # Panics
    /// Where the process ends meanwhile, or time runs out.
    pub fn wait_for(&mut self, path: &str, status: u16) {
        poll::eventually(&format!("{path} answers {status}"), || {
            if let Some(ended) = self.child.as_mut().and_then(|c| c.try_wait().ok()).flatten() {
                panic!("the daemon ended: {ended}\n{}", self.log());
            }
            match self.try_http("GET", path) {
                Ok(response) if response.status == status => Ok(()),
                other => Err(format!("{other:?}\n{}", self.log())),
            }
        });
    }

    /// Stops the process in its tracks, or lets it go on.
    pub fn freeze(&self, frozen: bool) {
        process::signal(self.pid(), if frozen { Signal::SIGSTOP } else { Signal::SIGCONT });
    }

    /// A request to the admin port; to the admin socket of a daemon in a namespace of its own.
    ///
    /// # Errors
    /// Where no answer comes.
    pub fn try_http(&self, method: &str, path: &str) -> io::Result<http::Response> {
        match &self.setup.netns {
            Some(_) => http::unix(&self.socket_path(), method, path, ""),
            None => http::tcp(&self.setup.admin.address(), method, path, ""),
        }
    }

    /// The process id.
    ///
    /// # Panics
    /// Where it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Sends SIGHUP: reload.
    pub fn hang_up(&self) {
        process::signal(self.pid(), Signal::SIGHUP);
    }

    /// Ends it as an init system does.
    ///
    /// # Panics
    /// Where it does not end.
    pub fn terminate(&mut self) -> ExitStatus {
        process::signal(self.pid(), Signal::SIGTERM);
        self.wait()
    }

    /// Ends it as a crash does.
    ///
    /// # Panics
    /// Where it does not end.
    pub fn kill(&mut self) {
        process::signal(self.pid(), Signal::SIGKILL);
        let status = self.wait();
        assert_eq!(status.signal(), Some(9), "ended by SIGKILL and nothing else");
    }

    /// Waits for the process to end by itself.
    ///
    /// # Panics
    /// Where it does not.
    pub fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        let ended = poll::within(poll::PATIENCE, || child.try_wait().ok().flatten().ok_or(()));
        ended.unwrap_or_else(|()| {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the daemon did not end\n{}", self.log())
        })
    }

    /// What it wrote to stderr so far, over all its starts.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.dir().join("log")
    }

    /// Its directory: `mesh.yaml`, `conf.d`, `admin.sock`, `state`.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.setup.dir.path()
    }

    /// Its configuration file.
    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.dir().join("mesh.yaml")
    }

    /// Its admin socket.
    #[must_use]
    pub fn socket_path(&self) -> PathBuf {
        self.dir().join("admin.sock")
    }

    /// The address of its admin HTTP.
    #[must_use]
    pub fn admin(&self) -> String {
        self.setup.admin.address()
    }

    /// Everything it has pinned.
    #[must_use]
    pub fn pins(&self) -> Vec<PathBuf> {
        self.setup.pins.as_ref().map(PinDirectory::pins).unwrap_or_default()
    }

    /// The configuration as it was last set.
    #[must_use]
    pub const fn config(&self) -> &Value {
        &self.setup.config
    }

    /// Changes the configuration and its file. The daemon notices by itself, or is told with [`Daemon::reload`].
    pub fn configure(&mut self, change: impl FnOnce(&mut Value)) {
        change(&mut self.setup.config);
        self.write_config(&self.setup.config);
    }

    /// Replaces the services in the file and reloads.
    pub fn set_services(&mut self, services: Value) {
        self.configure(|config| config["services"] = services);
        self.reload();
    }

    /// Writes other text as the configuration file, the way editors do: a new file under the old name.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn write_text(&self, text: &str) {
        let new = self.dir().join("mesh.yaml.new");
        fs::write(&new, text).expect("the configuration can be written");
        fs::rename(&new, self.config_path()).expect("the configuration can be replaced");
    }

    fn write_config(&self, config: &Value) {
        self.write_text(&format!("{config:#}\n"));
    }

    /// Writes `conf.d/NAME`.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn write_fragment(&self, name: &str, text: &str) {
        let directory = self.dir().join("conf.d");
        fs::create_dir_all(&directory).expect("conf.d can be made");
        fs::write(directory.join(name), text).expect("a fragment can be written");
    }

    /// `mesh config reload`, which must succeed.
    pub fn reload(&self) {
        self.cli(&["config", "reload"]).done();
    }

    /// `mesh unload`, which works on files and pins and needs no daemon.
    pub fn unload(&self, more: &[&str]) -> Outcome {
        self.cli(&[&["unload", "--config", &self.config_path().to_string_lossy()], more].concat())
    }

    /// What is left in the kernel: pins, and programs on the cgroup.
    #[must_use]
    pub fn left_behind(&self) -> (Vec<PathBuf>, u32) {
        (self.pins(), kernel::attached_programs(&self.setup.cgroup).unwrap_or_default())
    }

    fn end(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        process::signal(child.id(), Signal::SIGTERM);
        if poll::within(Duration::from_secs(10), || child.try_wait().ok().flatten().ok_or(())).is_err() {
            eprintln!("the daemon ignored SIGTERM");
            let _ = child.kill();
        }
        let _ = child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end();
        if self.setup.pins.is_none() {
            if thread::panicking() {
                eprintln!("--- the daemon's log\n{}---", self.log());
            } else {
                assert!(!self.log().contains("panicked"), "the daemon panicked: {}", self.log());
            }
            return;
        }
        // Not the test's own file, which may be a broken one by now.
        let file = self.dir().join("unload.yaml");
        let written = fs::write(&file, self.setup.unload.to_string());
        let unload = self.cli(&["unload", "--force", "--config", &file.to_string_lossy()]);
        if thread::panicking() {
            eprintln!("--- the daemon's log\n{}---", self.log());
            return;
        }
        written.expect("a test's directory can be written");
        assert!(!self.log().contains("panicked"), "the daemon panicked: {}", self.log());
        let left = poll::within(Duration::from_secs(5), || match self.left_behind() {
            (pins, programs) if pins.is_empty() && (programs == 0 || !self.setup.alone) => Ok(()),
            left => Err(left),
        });
        assert_eq!(unload.code, 0, "{unload}");
        assert_eq!(left, Ok(()), "pins and programs left after: {unload}");
    }
}
