//! What is kept of objects of the API: a twentieth of what they say.
//!
//! An object is decoded straight into these types, so that managed fields, statuses and the rest are never held. Fields
//! that may be `null` are: the API server writes `"endpoints": null` where there are none.

use serde::{Deserialize, Deserializer, de};
use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    net::IpAddr,
    sync::Arc,
};

/// Where annotations of ours begin.
pub(super) const PREFIX: &str = "mesh.dev/";

/// What every object has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) name: String,
    /// Empty for objects of the whole cluster.
    #[serde(deserialize_with = "or_default")]
    pub(super) namespace: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) uid: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) resource_version: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) labels: Labels,
    /// Ours, without their prefix.
    #[serde(deserialize_with = "annotations")]
    pub(super) annotations: BTreeMap<String, String>,
}

impl Metadata {
    /// `NAMESPACE/NAME`, or the name of what is in none.
    pub(super) fn key(&self) -> String {
        if self.namespace.is_empty() { self.name.clone() } else { format!("{}/{}", self.namespace, self.name) }
    }

    /// Whether names are as Kubernetes lets them be; those of slices and pods may have dots.
    fn check(&self) -> Result<(), String> {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
        let right = |name: &str| (1..=253).contains(&name.len()) && name.bytes().all(inner);
        if right(&self.name) && (self.namespace.is_empty() || right(&self.namespace)) {
            Ok(())
        } else {
            Err(format!("{:?} in the namespace {:?} is no name", self.name, self.namespace))
        }
    }
}

/// Labels that mean something here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Labels {
    /// Of a slice: its service.
    #[serde(rename = "kubernetes.io/service-name")]
    pub(super) service: Option<String>,
    /// Of a service: who else sees to it.
    #[serde(rename = "service.kubernetes.io/service-proxy-name")]
    pub(super) other_proxy: Option<String>,
    #[serde(rename = "topology.kubernetes.io/zone")]
    pub(super) zone: Option<String>,
    #[serde(rename = "topology.kubernetes.io/region")]
    pub(super) region: Option<String>,
}

/// An object of some kind, as it is kept.
pub(super) trait Kept: Sized + Send + 'static {
    /// As it is decoded.
    type Raw: serde::de::DeserializeOwned;
    /// Where it is: `/api/v1`.
    const GROUP: &'static str;
    /// What it is called there: `services`.
    const PLURAL: &'static str;
    /// Whether nothing but metadata is of any use.
    const METADATA_ONLY: bool = false;

    /// What every object has.
    fn metadata(raw: &Self::Raw) -> &Metadata;
    /// What is kept. What is wrong with a part of it, which is left out, is added to `skipped`.
    fn keep(raw: Self::Raw, skipped: &mut Vec<String>) -> Result<Self, String>;
    /// `NAMESPACE/NAME`.
    fn key(&self) -> String;
}

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Service {
    pub(super) metadata: Metadata,
    #[serde(deserialize_with = "or_default")]
    pub(super) spec: ServiceSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ServiceSpec {
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub(super) kind: String,
    #[serde(rename = "clusterIP", deserialize_with = "or_default")]
    pub(super) cluster_ip: String,
    #[serde(rename = "clusterIPs", deserialize_with = "or_default")]
    pub(super) cluster_ips: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) ports: Vec<ServicePort>,
    #[serde(deserialize_with = "or_default")]
    pub(super) session_affinity: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) session_affinity_config: AffinityConfig,
    #[serde(deserialize_with = "or_default")]
    pub(super) internal_traffic_policy: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) traffic_distribution: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) publish_not_ready_addresses: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ServicePort {
    #[serde(deserialize_with = "or_default")]
    pub(super) name: String,
    pub(super) port: u32,
    /// Empty: TCP.
    #[serde(deserialize_with = "or_default")]
    pub(super) protocol: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) app_protocol: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct AffinityConfig {
    #[serde(rename = "clientIP", deserialize_with = "or_default")]
    pub(super) client_ip: ClientIp,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ClientIp {
    pub(super) timeout_seconds: Option<u32>,
}

impl Kept for Service {
    type Raw = Self;
    const GROUP: &'static str = "/api/v1";
    const PLURAL: &'static str = "services";

    fn metadata(raw: &Self) -> &Metadata {
        &raw.metadata
    }

    fn keep(mut raw: Self, _: &mut Vec<String>) -> Result<Self, String> {
        raw.metadata.check()?;
        raw.metadata.uid = String::new();
        raw.metadata.resource_version = String::new();
        Ok(raw)
    }

    fn key(&self) -> String {
        self.metadata.key()
    }
}

/// A part of the endpoints of a service, all of one family and with the same ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) service: String,
    /// Of TCP, with their names.
    pub(super) ports: Box<[(Box<str>, u16)]>,
    pub(super) endpoints: Box<[SliceEndpoint]>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SliceEndpoint {
    pub(super) address: IpAddr,
    pub(super) ready: bool,
    pub(super) serving: bool,
    pub(super) terminating: bool,
    pub(super) node: Arc<str>,
    pub(super) zone: Arc<str>,
    /// Zones whose nodes are to use it; none: it has no hints.
    pub(super) zones: Box<[Arc<str>]>,
    /// The pod; empty: not told.
    pub(super) pod: Box<str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RawSlice {
    metadata: Metadata,
    #[serde(deserialize_with = "or_default")]
    address_type: String,
    #[serde(deserialize_with = "or_default")]
    endpoints: Vec<RawEndpoint>,
    #[serde(deserialize_with = "or_default")]
    ports: Vec<RawPort>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawEndpoint {
    #[serde(deserialize_with = "or_default")]
    addresses: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    conditions: Conditions,
    node_name: Option<String>,
    zone: Option<String>,
    #[serde(deserialize_with = "or_default")]
    hints: Hints,
    #[serde(deserialize_with = "or_default")]
    target_ref: TargetRef,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Hints {
    #[serde(deserialize_with = "or_default")]
    for_zones: Vec<ForZone>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ForZone {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TargetRef {
    name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawPort {
    #[serde(deserialize_with = "or_default")]
    name: String,
    port: Option<u32>,
    #[serde(deserialize_with = "or_default")]
    protocol: String,
}

impl Kept for Slice {
    type Raw = RawSlice;
    const GROUP: &'static str = "/apis/discovery.k8s.io/v1";
    const PLURAL: &'static str = "endpointslices";

    fn metadata(raw: &RawSlice) -> &Metadata {
        &raw.metadata
    }

    fn keep(raw: RawSlice, skipped: &mut Vec<String>) -> Result<Self, String> {
        let RawSlice { metadata, address_type, endpoints, ports } = raw;
        metadata.check()?;
        let key = metadata.key();
        // Nodes and zones are few, and the endpoints of a slice many.
        let mut words = HashSet::<Arc<str>>::new();
        let mut word = |text: &str| {
            words.get(text).cloned().unwrap_or_else(|| {
                let word: Arc<str> = text.into();
                words.insert(Arc::clone(&word));
                word
            })
        };
        let mut kept = Vec::with_capacity(endpoints.len());
        for RawEndpoint { addresses, conditions, node_name, zone, hints, target_ref } in endpoints {
            if address_type == "FQDN" {
                continue;
            }
            // More than one are said to be the same endpoint, and never happen.
            let Some(text) = addresses.first() else { continue };
            let Ok(address) = text.parse() else {
                skipped.push(format!("endpoint {text:?} of the EndpointSlice {key}: no IP address"));
                continue;
            };
            let ready = conditions.ready.unwrap_or(true);
            kept.push(SliceEndpoint {
                address,
                ready,
                serving: conditions.serving.unwrap_or(ready),
                terminating: conditions.terminating.unwrap_or(false),
                node: word(&node_name.unwrap_or_default()),
                zone: word(&zone.unwrap_or_default()),
                zones: hints.for_zones.iter().map(|zone| word(&zone.name)).collect(),
                pod: target_ref.name.unwrap_or_default().into(),
            });
        }
        let mut ports_of_tcp = Vec::with_capacity(ports.len());
        for RawPort { name, port, protocol } in ports {
            match port.map(u16::try_from) {
                _ if !(protocol.is_empty() || protocol == "TCP") => {}
                // All ports, says the API: of no use to anyone who has to dial one.
                None => {}
                Some(Ok(port @ 1..)) => ports_of_tcp.push((name.into(), port)),
                Some(_) => skipped.push(format!("port {name:?} of the EndpointSlice {key}: not 1 to 65535")),
            }
        }
        Ok(Self {
            service: metadata.labels.service.unwrap_or_default(),
            namespace: metadata.namespace,
            name: metadata.name,
            ports: ports_of_tcp.into(),
            endpoints: kept.into(),
        })
    }

    fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Node {
    pub(super) metadata: Metadata,
}

impl Kept for Node {
    type Raw = Self;
    const GROUP: &'static str = "/api/v1";
    const PLURAL: &'static str = "nodes";
    const METADATA_ONLY: bool = true;

    fn metadata(raw: &Self) -> &Metadata {
        &raw.metadata
    }

    fn keep(raw: Self, _: &mut Vec<String>) -> Result<Self, String> {
        Ok(raw)
    }

    fn key(&self) -> String {
        self.metadata.key()
    }
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Pod {
    pub(super) metadata: Metadata,
}

impl Kept for Pod {
    type Raw = Self;
    const GROUP: &'static str = "/api/v1";
    const PLURAL: &'static str = "pods";
    const METADATA_ONLY: bool = true;

    fn metadata(raw: &Self) -> &Metadata {
        &raw.metadata
    }

    fn keep(mut raw: Self, _: &mut Vec<String>) -> Result<Self, String> {
        raw.metadata.annotations.clear();
        Ok(raw)
    }

    fn key(&self) -> String {
        self.metadata.key()
    }
}

/// `null` is what is not there.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Only those that begin with our prefix, which goes.
fn annotations<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct Ours;
    impl<'de> de::Visitor<'de> for Ours {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("annotations")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(BTreeMap::new())
        }

        fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut ours = BTreeMap::new();
            while let Some(key) = map.next_key::<String>()? {
                match key.strip_prefix(PREFIX) {
                    Some(key) => drop(ours.insert(key.to_owned(), map.next_value()?)),
                    None => drop(map.next_value::<de::IgnoredAny>()?),
                }
            }
            Ok(ours)
        }
    }
    deserializer.deserialize_any(Ours)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_slice_is_kept_without_what_nobody_asks_for_and_nulls_are_nothing() {
        let raw = json!({
            "metadata": {
                "name": "web-abc12", "namespace": "shop", "resourceVersion": "7", "generateName": "web-",
                "labels": { "kubernetes.io/service-name": "web", "app": "web" }, "annotations": null,
                "managedFields": [{ "manager": "kube-controller-manager", "fieldsV1": { "f:endpoints": {} } }],
                "ownerReferences": [{ "kind": "Service", "name": "web" }],
            },
            "addressType": "IPv4",
            "endpoints": [
                { "addresses": ["10.1.0.1"], "conditions": { "ready": true, "serving": true, "terminating": false },
                  "nodeName": "a", "zone": "z1", "hints": { "forZones": [{ "name": "z1" }] },
                  "targetRef": { "kind": "Pod", "name": "web-1", "namespace": "shop", "uid": "x" } },
                { "addresses": ["10.1.0.2"], "conditions": {}, "nodeName": null },
                { "addresses": ["10.1.0.300"] },
                { "addresses": [] },
            ],
            "ports": [
                { "name": "http", "port": 8080, "protocol": "TCP" }, { "name": "dns", "port": 53, "protocol": "UDP" },
                { "name": "", "port": 65536 }, { "name": "any", "port": null },
            ],
        });
        let mut skipped = Vec::new();
        let slice = Slice::keep(serde_json::from_value(raw).unwrap(), &mut skipped).unwrap();
        assert_eq!((slice.key().as_str(), slice.service.as_str()), ("shop/web-abc12", "web"));
        assert_eq!(*slice.ports, [("http".into(), 8080)]);
        let seen: Vec<_> =
            slice.endpoints.iter().map(|e| (e.address.to_string(), e.ready, e.serving, &*e.zone)).collect();
        assert_eq!(seen, [("10.1.0.1".to_owned(), true, true, "z1"), ("10.1.0.2".to_owned(), true, true, "")]);
        assert_eq!(&*slice.endpoints[0].pod, "web-1");
        assert_eq!(skipped.len(), 2, "{skipped:?}");
        let nothing = json!({ "metadata": { "name": "a", "namespace": "b" }, "endpoints": null, "ports": null });
        let slice = Slice::keep(serde_json::from_value(nothing).unwrap(), &mut skipped).unwrap();
        assert!(slice.endpoints.is_empty() && slice.ports.is_empty());
    }

    #[test]
    fn of_annotations_only_ours_are_kept() {
        let raw = json!({
            "metadata": { "name": "web", "namespace": "shop", "annotations": {
                "mesh.dev/protocol": "http", "kubectl.kubernetes.io/last-applied-configuration": "{}",
            } },
            "spec": { "clusterIP": "None", "ports": null, "sessionAffinityConfig": null },
        });
        let service = Service::keep(serde_json::from_value(raw).unwrap(), &mut Vec::new()).unwrap();
        assert_eq!(service.metadata.annotations, [("protocol".to_owned(), "http".to_owned())].into());
        assert_eq!(service.spec.cluster_ip, "None");
    }

    #[test]
    fn what_has_no_name_is_refused() {
        for name in ["", "Web", "a/b", "x y"] {
            let raw = json!({ "metadata": { "name": name, "namespace": "shop" } });
            assert!(Service::keep(serde_json::from_value(raw).unwrap(), &mut Vec::new()).is_err(), "{name:?}");
        }
    }
}
