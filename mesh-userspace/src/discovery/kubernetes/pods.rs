//! The pods of this node, by what a process of theirs can be known by.

use super::objects::Pod;
use std::collections::HashMap;

/// Names of pods by their UID.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pods(HashMap<String, String>);

impl Pods {
    /// `NAMESPACE/NAME` of the pod whose container has this cgroup; `None`: it is none's that is known.
    ///
    /// The kubelet names the cgroup of a pod `podUID`, or `kubepods-…-podUID.slice` with underscores where systemd sees to
    /// it.
    #[must_use]
    pub fn of_cgroup(&self, path: &str) -> Option<&str> {
        path.split('/').rev().find_map(|part| {
            let part = part.strip_suffix(".slice").unwrap_or(part);
            let uid = part.rsplit_once("pod").map(|(_, uid)| uid).filter(|uid| uid.len() >= 32)?;
            self.0.get(&uid.replace('_', "-")).map(String::as_str)
        })
    }

    pub(super) fn list(&mut self, pods: Vec<Pod>) {
        self.0 = pods.into_iter().map(|pod| (pod.metadata.uid.clone(), pod.metadata.key())).collect();
    }

    pub(super) fn set(&mut self, pod: Pod) {
        let key = pod.metadata.key();
        self.0.insert(pod.metadata.uid, key);
    }

    pub(super) fn remove(&mut self, key: &str) {
        self.0.retain(|_, name| name != key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_known_by_its_cgroup_whoever_sees_to_cgroups() {
        let uid = "0f5c1b1e-8a53-4b3c-9d1c-7d3a3f0f6a11";
        let pods = Pods([(uid.to_owned(), "shop/web-1".to_owned())].into());
        for path in [
            format!("/kubepods/burstable/pod{uid}/4f0e"),
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice/cri-containerd-4f0e.scope",
                uid.replace('-', "_")
            ),
            format!("/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{}.slice", uid.replace('-', "_")),
        ] {
            assert_eq!(pods.of_cgroup(&path), Some("shop/web-1"), "{path}");
        }
        for path in
            ["/", "/system.slice/sshd.service", "/kubepods/pod123", "/kubepods/pod00000000-8a53-4b3c-9d1c-7d3a3f0f6a11"]
        {
            assert_eq!(pods.of_cgroup(path), None, "{path}");
        }
    }
}
