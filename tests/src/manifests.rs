//! Manifests for Kubernetes: rendered by its own tools, and read as strictly as they can be.

use crate::{Outcome, Value, process, programs};
use k8s_openapi::{
    Resource,
    api::{
        apps::v1::DaemonSet,
        core::v1::{ConfigMap, Namespace, ResourceQuota, Service, ServiceAccount},
        rbac::v1::{ClusterRole, ClusterRoleBinding},
    },
};
use serde::{Deserialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// What `kubectl kustomize` makes of a directory below `deploy/kubernetes`.
///
/// # Errors
/// Where there is no kubectl.
///
/// # Panics
/// Where it refuses.
pub fn kustomize(directory: &str) -> Result<Vec<Value>, String> {
    let path = deploy().join("kubernetes").join(directory);
    let rendered = tool("kubectl", &["kustomize", &path.to_string_lossy()])?;
    Ok(objects(&rendered.done()))
}

/// What `helm template` makes of the chart in namespace `mesh`, with these values (`a.b=c`) changed.
///
/// # Errors
/// Where there is no helm.
pub fn helm(values: &[&str]) -> Result<Outcome, String> {
    let chart = deploy().join("helm/mesh");
    let chart = chart.to_string_lossy();
    let mut arguments = vec!["template", "mesh", &chart, "--namespace", "mesh"];
    values.iter().for_each(|value| arguments.extend(["--set", value]));
    tool("helm", &arguments)
}

/// Runs one of the tools that `cargo xtask setup` fetches, or that are installed.
///
/// # Errors
/// Where it is neither.
pub fn tool(name: &str, arguments: &[&str]) -> Result<Outcome, String> {
    let me = env::current_exe().map_err(|e| e.to_string())?;
    let fetched = me.ancestors().map(|directory| directory.join("kubernetes").join(name)).find(|path| path.is_file());
    let program = fetched.or_else(|| programs::find(name));
    let program = program.ok_or_else(|| format!("needs `{name}`, which `cargo xtask setup` fetches"))?;
    // Neither what this user configured, nor what the cluster of this user says.
    let mut command = Command::new(program);
    command.args(arguments).env_remove("KUBECONFIG").env("HOME", "/nonexistent");
    Ok(process::run(&mut command))
}

/// Where the manifests lie.
#[must_use]
pub fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// Each object of a text of several.
///
/// # Panics
/// Where it is no YAML.
#[must_use]
pub fn objects(text: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    all.into_iter().filter(|object| !object.is_null()).collect()
}

/// The object of a kind and a name.
///
/// # Panics
/// Where there is none.
#[must_use]
pub fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name} in {objects:#?}"))
}

/// What is wrong with an object: a kind that is not known here, a value of another type than the API has, a field that it
/// does not have and would drop.
///
/// # Errors
/// All of that.
pub fn valid(object: &Value) -> Result<(), String> {
    let kind = (text(object, "apiVersion"), text(object, "kind"));
    match kind {
        known if known == of::<Namespace>() => strict::<Namespace>(object),
        known if known == of::<ConfigMap>() => strict::<ConfigMap>(object),
        known if known == of::<ResourceQuota>() => strict::<ResourceQuota>(object),
        known if known == of::<Service>() => strict::<Service>(object),
        known if known == of::<ServiceAccount>() => strict::<ServiceAccount>(object),
        known if known == of::<ClusterRole>() => strict::<ClusterRole>(object),
        known if known == of::<ClusterRoleBinding>() => strict::<ClusterRoleBinding>(object),
        known if known == of::<DaemonSet>() => strict::<DaemonSet>(object),
        ("monitoring.coreos.com/v1", "ServiceMonitor") => strict::<ServiceMonitor>(object),
        (version, kind) => Err(format!("{version} {kind}: no type is known to read it with")),
    }
}

fn of<T: Resource>() -> (&'static str, &'static str) {
    (T::API_VERSION, T::KIND)
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}

fn strict<T: DeserializeOwned>(object: &Value) -> Result<(), String> {
    let mut unknown = Vec::new();
    let read: Result<T, _> = serde_ignored::deserialize(object, |path| unknown.push(path.to_string()));
    read.map_err(|e| e.to_string())?;
    // These two are asked for through traits, and read by whoever dispatches on them.
    unknown.retain(|path| !["apiVersion", "kind"].contains(&path.as_str()));
    if unknown.is_empty() { Ok(()) } else { Err(format!("unknown fields: {}", unknown.join(", "))) }
}

/// What we use of the Prometheus operator's ServiceMonitor, and nothing else: its type is in no library that we have.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "read to see that it can be")]
struct ServiceMonitor {
    api_version: String,
    kind: String,
    metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    spec: ServiceMonitorSpec,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "as above")]
struct ServiceMonitorSpec {
    selector: k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector,
    endpoints: Vec<Endpoint>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "as above")]
struct Endpoint {
    port: String,
    path: String,
    interval: String,
    relabelings: Vec<Relabeling>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "as above")]
struct Relabeling {
    source_labels: Vec<String>,
    target_label: String,
}

/// A pod's container, with what it takes to run it here.
#[derive(Debug)]
pub struct PodContainer<'a> {
    /// The specification of its pod.
    pub pod: &'a Value,
    /// Its own.
    pub container: &'a Value,
}

impl<'a> PodContainer<'a> {
    /// The first container of a DaemonSet; with `init`, of those that run before.
    #[must_use]
    pub fn of(daemon_set: &'a Value, init: bool) -> Self {
        let pod = &daemon_set["spec"]["template"]["spec"];
        let container = &pod[if init { "initContainers" } else { "containers" }][0];
        Self { pod, container }
    }

    /// Capabilities that are added to none.
    ///
    /// # Panics
    /// Where others are left.
    #[must_use]
    pub fn capabilities(&self) -> Vec<&'a str> {
        let capabilities = &self.container["securityContext"]["capabilities"];
        assert_eq!(capabilities["drop"], crate::json!(["ALL"]), "{capabilities}");
        strings(&capabilities["add"])
    }

    /// What its program is called with.
    #[must_use]
    pub fn arguments(&self) -> Vec<&'a str> {
        strings(&self.container["args"])
    }

    /// Directories of the node by the place where the container sees them.
    #[must_use]
    pub fn host_paths(&self) -> BTreeMap<&'a str, &'a str> {
        let list = |value: &'a Value| value.as_array().map(Vec::as_slice).unwrap_or_default();
        let path = |name: &Value| {
            let volume = list(&self.pod["volumes"]).iter().find(|volume| volume["name"] == *name);
            volume.and_then(|volume| volume["hostPath"]["path"].as_str())
        };
        let mounts = list(&self.container["volumeMounts"]).iter();
        mounts.filter_map(|mount| Some((mount["mountPath"].as_str()?, path(&mount["name"])?))).collect()
    }
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}
