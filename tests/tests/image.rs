//! The container image: what is in it, what a runtime is told, and the daemon in it with nothing else around.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{
    Container, Image, Scripted, Wire, World, daemon, get, http_service, json, ports::Port, process, program, programs,
    server, service, world,
};
use std::{
    collections::BTreeMap,
    fs,
    net::TcpStream,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

const VIP: &str = "10.96.0.10:80";
const E1: &str = "10.1.0.1:8080";

/// A program that is there wherever tests run: the layout is the same around it, and made sooner.
const SMALL: &str = "/bin/true";

fn repository(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The capabilities that the unit leaves the daemon.
fn capabilities() -> String {
    let unit = repository("deploy/mesh.service");
    let found = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    found.expect("the unit bounds capabilities").to_owned()
}

/// Every path below `tree`, with kind, permissions and content.
fn listing(tree: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut ahead = vec![tree.to_owned()];
    while let Some(directory) = ahead.pop() {
        for path in fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()) {
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = if meta.is_dir() {
                ahead.push(path.clone());
                Vec::new()
            } else {
                fs::read(&path).unwrap()
            };
            found.insert(path.strip_prefix(tree).unwrap().to_owned(), (meta.mode(), content));
        }
    }
    found
}

#[test]
fn a_runtime_is_told_what_to_start_and_what_it_needs() {
    let image = server!(Image::around(Path::new(SMALL)));
    let config = image.config.config().as_ref().unwrap();
    assert_eq!(config.entrypoint().as_deref(), Some(["/usr/bin/mesh".to_owned()].as_slice()));
    assert_eq!(config.cmd().as_deref(), Some(["run".to_owned()].as_slice()));
    assert_eq!(config.user().as_deref(), Some("0:0"));
    let labels = config.labels().as_ref().unwrap();
    assert_eq!(labels["dev.mesh.capabilities"], capabilities());
    assert_eq!(labels["org.opencontainers.image.version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(labels["org.opencontainers.image.licenses"], "Apache-2.0 OR MIT");
    assert_eq!(image.entry.platform().as_ref().unwrap().architecture(), image.config.architecture());

    // The other way to the same image says the same.
    let dockerfile = repository("deploy/Dockerfile");
    let instruction =
        |name: &str| dockerfile.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
    assert_eq!(instruction("ENTRYPOINT"), r#"["/usr/bin/mesh"]"#);
    assert_eq!(instruction("CMD"), r#"["run"]"#);
    assert_eq!(instruction("USER"), "0:0");
    for (name, value) in labels {
        assert!(dockerfile.contains(&format!("{name}=\"{value}\"")), "deploy/Dockerfile: {name}={value}");
    }
}

#[test]
fn the_tree_and_the_layer_hold_the_same_and_nothing_but_what_is_needed() {
    let image = server!(Image::around(Path::new(SMALL)));
    let tree = listing(&image.tree());
    let same = tree == listing(&image.unpack());
    assert!(same, "{:?}", tree.keys().collect::<Vec<_>>());
    let is_file = |(_, (mode, _)): &(&PathBuf, &(u32, Vec<u8>))| mode & libc::S_IFMT == libc::S_IFREG;
    for (path, _) in tree.iter().filter(is_file) {
        let text = path.to_str().unwrap();
        let library = text.contains(".so");
        let known = ["usr/bin/mesh", "etc/nsswitch.conf", "etc/ssl/certs/ca-certificates.crt"].contains(&text);
        assert!(known || library || text.starts_with("usr/share/doc/mesh/LICENSE-"), "{text}: what for?");
    }
    let mode = |path: &str| tree[Path::new(path)].0 & 0o7777;
    assert_eq!(["usr/bin/mesh", "var/lib/mesh", "run/mesh", "tmp"].map(mode), [0o755, 0o700, 0o700, 0o1777]);
    assert!(image.tree().metadata().unwrap().permissions().mode() & 0o055 == 0o055, "everybody may look in");
}

#[test]
fn the_same_files_give_the_same_image() {
    let [one, two] = [(); 2].map(|()| Image::around(Path::new(SMALL)));
    let (one, two) = (server!(one), server!(two));
    assert_eq!(one.entry, two.entry);
}

#[test]
fn tools_of_others_read_it() {
    let skopeo = program!("skopeo");
    let image = server!(Image::around(Path::new(SMALL)));
    let from = format!("oci:{}:{}", image.layout().display(), env!("CARGO_PKG_VERSION"));
    let told = programs::run(&skopeo, &["inspect", "--config", &from]).json();
    assert_eq!(told["config"]["Entrypoint"], json!(["/usr/bin/mesh"]));
    // It looks at every digest and every size on the way.
    let copied = image.layout().with_file_name("copied");
    programs::run(&skopeo, &["--insecure-policy", "copy", &from, &format!("dir:{}", copied.display())]).done();
    assert!(copied.join("manifest.json").is_file());
}

/// A daemon's container: from the layer, with the capabilities that the image asks for, and its files read-only.
fn container(image: &Image) -> Container {
    let kept = capabilities();
    Container::new(&image.unpack(), &image.entrypoint()).capabilities(kept.split(' '))
}

#[test]
fn the_daemon_runs_in_it_with_the_capabilities_it_names_and_leaves_connections_in_place() {
    let world: World = world!();
    let image = server!(Image::around(&process::mesh()));
    let _backend = world.backend("B1", E1);
    let setup = world.setup(json!([service("web", &[VIP], &[E1])]));
    let mut mesh = setup.in_container(container(&image)).start();
    assert_eq!(mesh.cli(&["--version"]).done().trim(), format!("mesh {}", env!("CARGO_PKG_VERSION")));
    let works = |status: &mesh_tests::Value| status["interception_ok"] == json!(true);
    let status = mesh_tests::holds("interception works", || mesh.json(&["status"]), works);
    assert_eq!(status["mode"], json!("ebpf"), "{status}");
    assert_eq!(status["warnings"], json!([]), "{status}");
    assert_eq!(mesh.http("GET", "/health").status, 200);
    assert_eq!(world.ask(VIP).unwrap(), "B1");

    // What SYS_ADMIN, SYS_PTRACE and DAC_READ_SEARCH are for: who it is, in another network namespace, in which cgroup.
    let client = world.client(VIP);
    let seen = mesh_tests::holds("the connection", || mesh.json(&["connections"]), |all| all[0]["client"].is_object());
    let shown = &seen[0]["client"];
    assert_eq!(shown["pid"], json!(client.pid()), "{seen}");
    assert_eq!(shown["cgroup"], json!(world.cgroup().name()), "{seen}");
    drop(client);

    assert!(mesh.terminate().success());
    assert_eq!(world.ask(VIP).unwrap(), "B1", "the kernel goes on");
    mesh.unload(&[]).done();
    assert!(world.ask(VIP).is_err(), "and not after `mesh unload`");
}

#[test]
fn nobody_without_capabilities_serves_http_by_the_explicit_proxy() {
    if !nix::unistd::geteuid().is_root() {
        mesh_tests::skip!("needs root, to become nobody in a container");
    }
    let image = server!(Image::around(&process::mesh()));
    let (endpoint, port) = (Scripted::named("B1"), Port::new());
    let setup = daemon::Setup::userspace(json!([http_service("web", &[&endpoint.address()])]));
    let setup = setup.with(|config| config["proxy"] = json!({ "http": port.address(), "workers": 1 }));
    let mut mesh = setup.in_container(container(&image).capabilities([]).user(65534)).idle();
    std::os::unix::fs::chown(mesh.dir(), Some(65534), Some(65534)).unwrap();
    mesh.spawn();
    mesh.wait_for("/health", 200);
    assert_eq!(mesh.json(&["status"])["mode"], "userspace");
    let stream = mesh_tests::eventually("the proxy takes connections", || TcpStream::connect(port.address()));
    let answer = Wire::over(stream).ask(get("web", "/"));
    assert_eq!((answer.status(), answer.text().as_str()), (200, "B1"), "{answer:?}");
    assert!(mesh.terminate().success());
}
