//! Objects in their real shape, all of the namespace `shop`.

use serde_json::{Value, json};

/// A Service of the namespace `shop`: its name, ClusterIP and ports, as `(name, port)`.
#[must_use]
pub fn service(name: &str, ip: &str, ports: &[(&str, u16)]) -> Value {
    let ports: Vec<Value> = ports
        .iter()
        .map(|(name, port)| json!({ "name": name, "port": port, "protocol": "TCP", "targetPort": name }))
        .collect();
    json!({
        "kind": "Service", "apiVersion": "v1",
        "metadata": {
            "name": name, "namespace": "shop", "uid": format!("uid-of-{name}"),
            "creationTimestamp": "2026-01-01T00:00:00Z", "labels": { "app": name },
            "annotations": { "kubectl.kubernetes.io/last-applied-configuration": "{\"apiVersion\":\"v1\"}\n" },
            "managedFields": managed("kubectl-client-side-apply"),
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ports": ports, "selector": { "app": name },
            "sessionAffinity": "None", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster",
        },
        "status": { "loadBalancer": {} },
    })
}

/// A [`service`] of these families, by its ClusterIPs.
#[must_use]
pub fn with_ips(mut service: Value, ips: &[&str]) -> Value {
    let families: Vec<&str> = ips.iter().map(|ip| family(ip)).collect();
    let policy = if ips.len() > 1 { "RequireDualStack" } else { "SingleStack" };
    service["spec"]["clusterIP"] = json!(ips[0]);
    service["spec"]["clusterIPs"] = json!(ips);
    service["spec"]["ipFamilies"] = json!(families);
    service["spec"]["ipFamilyPolicy"] = json!(policy);
    service
}

/// The family of an address, as the API calls it.
fn family(address: &str) -> &'static str {
    if address.contains(':') { "IPv6" } else { "IPv4" }
}

/// An EndpointSlice of a service of the namespace `shop`: its ports, as `(name, port)`, and its [`endpoint`]s, all of the
/// family of the first.
#[must_use]
pub fn slice(name: &str, service: &str, ports: &[(&str, u16)], endpoints: &[Value]) -> Value {
    let ports: Vec<Value> =
        ports.iter().map(|(name, port)| json!({ "name": name, "port": port, "protocol": "TCP" })).collect();
    let first = endpoints.first().and_then(|endpoint| endpoint["addresses"][0].as_str());
    json!({
        "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
        "metadata": {
            "name": name, "generateName": format!("{service}-"), "namespace": "shop", "generation": 3,
            "uid": format!("uid-of-{name}"), "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {
                "app": service, "kubernetes.io/service-name": service,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
            "annotations": { "endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z" },
            "ownerReferences": [{ "apiVersion": "v1", "kind": "Service", "name": service, "uid": "u", "controller": true }],
            "managedFields": managed("kube-controller-manager"),
        },
        "addressType": first.map_or("IPv4", family), "endpoints": endpoints, "ports": ports,
    })
}

/// A pod of the namespace `shop` on the daemon's node.
#[must_use]
pub fn pod(name: &str, uid: &str) -> Value {
    let metadata = json!({ "name": name, "namespace": "shop", "uid": uid });
    json!({ "kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": { "nodeName": "test-node" } })
}

/// An endpoint that is ready.
#[must_use]
pub fn endpoint(address: &str) -> Value {
    json!({
        "addresses": [address], "conditions": { "ready": true, "serving": true, "terminating": false },
        "nodeName": "test-node", "zone": "zone-1",
        "targetRef": { "kind": "Pod", "namespace": "shop", "name": format!("pod-{address}"), "uid": "u" },
    })
}

/// An endpoint that is about to go, and serves until then.
#[must_use]
pub fn terminating(address: &str) -> Value {
    let mut endpoint = endpoint(address);
    endpoint["conditions"] = json!({ "ready": false, "serving": true, "terminating": true });
    endpoint
}

fn managed(manager: &str) -> Value {
    let fields = json!({ "f:metadata": { "f:labels": { ".": {}, "f:app": {} } }, "f:spec": { "f:ports": {} } });
    json!([{
        "manager": manager, "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1", "fieldsV1": fields,
    }])
}
