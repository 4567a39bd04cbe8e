//! Kubernetes: the manifests as its tools render them, held against its API, the unit, and the daemon itself.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{
    Container, Image, Kube, Value, holds, json,
    manifests::{PodContainer, deploy, find, helm, kustomize, objects, tool, valid},
    process, server, service, world,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::symlink,
    path::Path,
};

const VIP: &str = "10.96.0.10:80";
const E1: &str = "10.1.0.1:8080";

/// What is there to be rendered, with the value that makes the chart the same.
const OVERLAYS: [(&str, &[&str]); 5] = [
    ("base", &[]),
    ("overlays/privileged", &["privileged=true"]),
    ("overlays/servicemonitor", &["serviceMonitor.enabled=true"]),
    (BOTH, &["privileged=true", "serviceMonitor.enabled=true"]),
    ("overlays/uninstall", &["uninstall=true"]),
];

/// Stands for an overlay of one's own, with both components.
const BOTH: &str = "both";

/// Where a DaemonSet has its volumes, and says what its first container mounts, and the first that runs before.
const VOLUMES: &str = "/spec/template/spec/volumes";
const MOUNTS: &str = "/spec/template/spec/containers/0/volumeMounts";
const MOUNTS_BEFORE: &str = "/spec/template/spec/initContainers/0/volumeMounts";

/// A value of the unit.
fn unit(key: &str) -> String {
    let unit = fs::read_to_string(deploy().join("mesh.service")).unwrap();
    let found = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("{key} in the unit")).to_owned()
}

/// What Kustomize makes of one of them.
fn rendered(overlay: &str) -> Result<Vec<Value>, String> {
    if overlay != BOTH {
        return kustomize(overlay);
    }
    let own = tempfile::tempdir().unwrap();
    let place = own.path().canonicalize().unwrap();
    // It takes no absolute path.
    let shipped = deploy().join("kubernetes").canonicalize().unwrap();
    let up = "../".repeat(place.components().count() - 1);
    let shipped = format!("{up}{}", shipped.strip_prefix("/").unwrap().display());
    let components = ["privileged", "servicemonitor"].map(|name| format!("{shipped}/components/{name}"));
    let text = json!({ "resources": [format!("{shipped}/base")], "components": components });
    fs::write(place.join("kustomization.yaml"), text.to_string()).unwrap();
    kustomize(&place.to_string_lossy())
}

/// The configuration that a ConfigMap holds.
fn configuration(objects: &[Value]) -> Value {
    let text = find(objects, "ConfigMap", "mesh")["data"]["mesh.yaml"].as_str().unwrap();
    self::objects(text).remove(0)
}

#[test]
fn every_manifest_is_what_the_api_takes_and_nothing_more() {
    for (overlay, values) in OVERLAYS {
        let all = [server!(rendered(overlay)), objects(&server!(helm(values)).done())].concat();
        assert!(all.len() > 4, "{overlay}");
        for object in all {
            assert_eq!(valid(&object), Ok(()), "{overlay}: {object:#}");
        }
    }
    // And this notices what it is to notice.
    let mut wrong = find(&server!(kustomize("base")), "DaemonSet", "mesh").clone();
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = json!({});
    let why = valid(&wrong).unwrap_err();
    assert!(why.contains("readynessProbe"), "{why}");
    wrong["spec"]["template"]["spec"]["hostPID"] = json!("yes");
    assert!(valid(&wrong).is_err());
}

#[test]
fn the_chart_makes_what_the_overlays_make() {
    for (overlay, values) in OVERLAYS {
        let mut ours = server!(rendered(overlay));
        // A chart does not make the namespace that it is installed in; its notes say what that needs.
        ours.retain(|object| object["kind"] != "Namespace");
        let mut theirs = objects(&server!(helm(values)).done());
        if overlay == "overlays/uninstall" {
            // What is in the cluster already is used, and by Helm kept.
            let kept = ["ConfigMap", "ClusterRole", "ClusterRoleBinding"];
            theirs.retain(|object| kept.iter().all(|kind| object["kind"] != *kind));
        }
        let plain = |objects: &[Value]| -> BTreeMap<String, Value> {
            let one = |object: &Value| {
                let mut object = object.clone();
                object["metadata"].as_object_mut().unwrap().remove("labels");
                let name = format!("{} {}", object["kind"], object["metadata"]["name"]);
                if object["kind"] == "ConfigMap" {
                    // As it is read: comments are of no account.
                    object["data"] = configuration(&[object.clone()]);
                }
                // The order of volumes means nothing, and merges change it.
                for list in [VOLUMES, MOUNTS, MOUNTS_BEFORE] {
                    if let Some(list) = object.pointer_mut(list).and_then(Value::as_array_mut) {
                        list.sort_by_key(|one| one["name"].to_string());
                    }
                }
                object.sort_all_objects();
                (name, object)
            };
            objects.iter().map(one).collect()
        };
        let (ours, theirs) = (plain(&ours), plain(&theirs));
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{overlay}");
        for (name, object) in &ours {
            assert_eq!(object, &theirs[name], "{overlay}: {name}");
        }
    }
}

#[test]
fn the_chart_is_in_order_and_refuses_what_it_does_not_know() {
    let chart = deploy().join("helm/mesh");
    server!(tool("helm", &["lint", "--strict", &chart.to_string_lossy()])).done();
    let version = env!("CARGO_PKG_VERSION");
    let about = objects(&fs::read_to_string(chart.join("Chart.yaml")).unwrap()).remove(0);
    assert_eq!((&about["version"], &about["appVersion"]), (&json!(version), &json!(version)));
    let image = server!(kustomize("base"));
    let image = &PodContainer::of(find(&image, "DaemonSet", "mesh"), false).container["image"];
    assert_eq!(image, &json!(format!("mesh:{version}")), "the tag in the kustomization");
    server!(helm(&["tolerance=1"])).refused(&["tolerance"]);
    server!(helm(&["serviceMonitor.enabled=true", "config.admin.metrics_listen="])).refused(&["metrics_listen"]);
    let own = objects(&server!(helm(&["image.repository=r.example/mesh", "image.tag=t"])).done());
    let daemon = find(&own, "DaemonSet", "mesh");
    assert_eq!(PodContainer::of(daemon, false).container["image"], "r.example/mesh:t");
    let own = objects(&server!(helm(&["uninstall=true", "pauseImage=r.example/pause:t"])).done());
    let uninstall = find(&own, "DaemonSet", "mesh-uninstall");
    assert_eq!(PodContainer::of(uninstall, false).container["image"], "r.example/pause:t");
}

#[test]
fn the_probes_of_the_chart_follow_the_configuration_or_say_that_they_cannot() {
    for listen in ["10.0.0.1:9901", "[::1]:9901", "127.0.0.1:0", "9901", ""] {
        let listen = format!("config.admin.listen={listen}");
        server!(helm(&[listen.as_str()])).refused(&["config.admin.listen", "127.0.0.1:PORT"]);
    }
    let heard = [
        ("config.admin.listen=127.0.0.1:9911", 9911),
        ("config.admin.listen=0.0.0.0:9912", 9912),
        ("config.admin.listen=[::]:9913", 9913),
        ("config.admin.listen=null", 9901),
        ("config.admin=null", 9901),
        ("config=null", 9901),
    ];
    for (value, port) in heard {
        let all = objects(&server!(helm(&[value])).done());
        let container = PodContainer::of(find(&all, "DaemonSet", "mesh"), false).container;
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            assert_eq!(container[probe]["httpGet"]["port"], json!(port), "{value}: {probe}");
        }
    }
    server!(helm(&["serviceMonitor.enabled=true", "config.admin=null"])).refused(&["config.admin.metrics_listen"]);
    let monitor = ["serviceMonitor.enabled=true", "config.admin.metrics_listen=[::]:9903"];
    let monitor = objects(&server!(helm(&monitor)).done());
    assert_eq!(find(&monitor, "Service", "mesh")["spec"]["ports"][0]["port"], json!(9903));
}

#[test]
fn pods_of_a_class_of_the_cluster_are_let_in_by_a_quota_that_names_it() {
    let named = |objects: &[Value]| {
        let quota = objects.iter().find(|object| object["kind"] == "ResourceQuota")?;
        Some(quota["spec"]["scopeSelector"]["matchExpressions"][0]["values"].clone())
    };
    for (overlay, name) in [("base", "mesh"), ("overlays/uninstall", "mesh-uninstall")] {
        let all = server!(kustomize(overlay));
        let class = &find(&all, "DaemonSet", name)["spec"]["template"]["spec"]["priorityClassName"];
        assert_eq!(named(&all), Some(json!([class])), "{overlay}");
    }
    for (class, wanted) in [("system-cluster-critical", Some(json!(["system-cluster-critical"]))), ("high", None)] {
        let value = format!("priorityClassName={class}");
        let all = objects(&server!(helm(&[value.as_str()])).done());
        assert_eq!(named(&all), wanted, "{class}");
    }
}

#[test]
fn the_mark_has_no_bit_that_means_something_to_others_on_a_node() {
    let mark = configuration(&server!(kustomize("base")))["dataplane"]["mark"].as_u64().unwrap();
    for (who, bits) in [("kube-proxy", 0xc000), ("Calico", 0xffff_0000), ("Cilium", 0x0f00), ("the AWS CNI", 0x80)] {
        assert_eq!(mark & bits, 0, "{who}: {mark:#x}");
    }
}

#[test]
fn unit_daemon_set_and_documentation_name_the_same_capabilities() {
    let text = unit("CapabilityBoundingSet");
    let of_unit: BTreeSet<&str> = text.split(' ').collect();
    let base = server!(kustomize("base"));
    let daemon = PodContainer::of(find(&base, "DaemonSet", "mesh"), false);
    let added: Vec<String> = daemon.capabilities().iter().map(|name| format!("CAP_{name}")).collect();
    assert_eq!(added.iter().map(String::as_str).collect::<BTreeSet<_>>(), of_unit);
    // A row each, in the table of what for.
    let operations = fs::read_to_string(deploy().join("../docs/operations.md")).unwrap();
    let rows = operations.lines().filter_map(|line| line.strip_prefix("| `CAP_")?.split_once('`'));
    let documented: Vec<String> = rows.map(|(name, _)| format!("CAP_{name}")).collect();
    assert_eq!(documented.iter().map(String::as_str).collect::<BTreeSet<_>>(), of_unit, "docs/operations.md");
}

#[test]
fn a_stop_leaves_time_to_drain_and_probes_ask_where_the_daemon_listens() {
    let base = server!(kustomize("base"));
    let configuration = configuration(&base);
    let pod = PodContainer::of(find(&base, "DaemonSet", "mesh"), false);
    let grace = pod.pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert_eq!(format!("{grace}s"), unit("TimeoutStopSec"));
    assert!(configuration.get("proxy").is_none() && grace > 30, "the default of proxy.drain_timeout");
    let listen = configuration["admin"]["listen"].as_str().unwrap();
    for (probe, path) in [("startupProbe", "/health"), ("livenessProbe", "/health"), ("readinessProbe", "/ready")] {
        let get = &pod.container[probe]["httpGet"];
        let asked = format!("{}:{}", get["host"].as_str().unwrap(), get["port"]);
        assert_eq!((asked.as_str(), &get["path"]), (listen, &json!(path)), "{probe}");
    }
    let monitor = server!(kustomize("overlays/servicemonitor"));
    let port = &find(&monitor, "Service", "mesh")["spec"]["ports"][0]["port"];
    assert!(configuration["admin"]["metrics_listen"].as_str().unwrap().ends_with(&format!(":{port}")));
}

/// The container of the first pod of a DaemonSet, in the image around the daemon, with its own directories of the node in
/// `node`. cgroups and bpffs are there by /sys.
fn container(image: &Image, pod: &PodContainer<'_>, node: &Path) -> Container {
    let security = &pod.container["securityContext"];
    let fixed = json!({
        "runAsUser": 0, "runAsGroup": 0, "privileged": false, "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true, "capabilities": security["capabilities"].clone(),
    });
    assert_eq!(security, &fixed, "what the harness sets up besides");
    for shared in ["hostPID", "hostNetwork"] {
        assert_eq!(pod.pod[shared], json!(true), "{shared}: the harness shares it");
    }
    let container = Container::new(&image.unpack(), &image.entrypoint()).capabilities(pod.capabilities());
    let mut places = pod.host_paths();
    for place in ["/sys/fs/cgroup", "/sys/fs/bpf"] {
        assert_eq!(places.remove(place), Some(place), "the same as on the node");
    }
    assert_eq!(places.keys().copied().collect::<Vec<_>>(), ["/run/mesh", "/var/lib/mesh"]);
    places.into_iter().fold(container, |container, (inside, outside)| {
        let outside = node.join(outside.trim_start_matches('/'));
        fs::create_dir_all(&outside).unwrap();
        container.mount(&outside, inside, false)
    })
}

#[test]
fn the_daemon_does_with_what_its_daemon_set_gives_it() {
    let world = world!();
    let base = server!(kustomize("base"));
    let uninstall = server!(kustomize("overlays/uninstall"));
    let pod = PodContainer::of(find(&base, "DaemonSet", "mesh"), false);
    let image = server!(Image::around(&process::mesh()));
    let node = tempfile::tempdir().unwrap();
    let kube = Kube::start();
    let _backend = world.backend("B1", E1);

    // The ConfigMap's, but for what keeps a test to itself.
    let shipped = configuration(&base);
    let setup = world.setup(json!([service("web", &[VIP], &[E1])])).with(|config| {
        config["discovery"] = shipped["discovery"].clone();
        config["dataplane"]["mark"] = shipped["dataplane"]["mark"].clone();
        config["node"] = json!({ "name": "test-node" });
        let listen = config["admin"]["listen"].clone();
        config["admin"] = json!({ "listen": listen, "socket": config["admin"]["socket"].clone() });
    });
    let inside = container(&image, &pod, node.path());
    let kubeconfig = kube.kubeconfig();
    let inside = inside.mount(kubeconfig.parent().unwrap(), "/var/run/secrets/cluster", true);
    let setup = setup.in_container(inside).environment("KUBECONFIG", "/var/run/secrets/cluster/kubeconfig".into());
    let mut mesh = setup.start();
    let works = |status: &mesh_tests::Value| status["interception_ok"] == json!(true);
    let status = mesh_tests::holds("interception works", || mesh.json(&["status"]), works);
    assert_eq!(status["mode"], json!("ebpf"), "{status}");
    assert_eq!(status["warnings"], json!([]), "{status}");
    assert_eq!(pod.arguments(), ["run", "--config", "/etc/mesh/mesh.yaml"], "as the harness starts it");
    assert_eq!(world.ask(VIP).unwrap(), "B1");
    assert!(
        node.path().join("var/lib/mesh/lock").exists()
            || fs::read_dir(node.path().join("var/lib/mesh")).unwrap().count() > 0
    );

    // What is to take it off the node waits for it to end.
    let of = PodContainer::of(find(&uninstall, "DaemonSet", "mesh-uninstall"), true);
    assert_eq!(of.arguments(), ["unload", "--config", "/etc/mesh/mesh.yaml"]);
    let unload = container(&image, &of, node.path()).mount(mesh.dir(), &mesh.dir().to_string_lossy(), false);
    let config = mesh.config_path().to_string_lossy().into_owned();
    let unload = || process::run(&mut unload.command(&["unload", "--config", &config]));
    unload().refused(&[&mesh.pid().to_string()]);

    // As kubelet stops it: the hook, then the signal.
    let hook = &pod.container["lifecycle"]["preStop"]["exec"]["command"];
    assert_eq!(hook[0], json!(image.entrypoint()));
    let hook: Vec<&str> = hook.as_array().unwrap()[1..].iter().filter_map(Value::as_str).collect();
    mesh.cli(&hook).done();
    assert!(mesh.terminate().success());
    assert_eq!(world.ask(VIP).unwrap(), "B1", "the kernel goes on");

    unload().done();
    assert!(world.ask(VIP).is_err(), "and not after it is uninstalled");
}

#[test]
fn a_config_map_that_changes_is_read_by_the_running_daemon() {
    let world = world!();
    let mut mesh = world.setup(json!([])).idle();
    // As kubelet lays it out: the file is a link into `..data`, which is a link to a directory that another one replaces.
    let (dir, text) = (mesh.dir().to_owned(), mesh.config().clone());
    let lay = |version: &str, services: Value| {
        let mut config = text.clone();
        config["services"] = services;
        fs::create_dir(dir.join(version)).unwrap();
        fs::write(dir.join(version).join("mesh.yaml"), config.to_string()).unwrap();
        symlink(version, dir.join("..data_tmp")).unwrap();
        fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    };
    lay("..1", json!([service("one", &[VIP], &[E1])]));
    fs::remove_file(mesh.config_path()).unwrap();
    symlink("..data/mesh.yaml", mesh.config_path()).unwrap();
    mesh.start();
    assert_eq!(mesh.json(&["services"])[0]["name"], "one");
    lay("..2", json!([service("two", &[VIP], &[E1])]));
    holds("the change", || mesh.json(&["services"])[0]["name"].clone(), |name| name == "two");
}
