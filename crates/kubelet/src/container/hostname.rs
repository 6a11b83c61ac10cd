//! Hostnames of pods and their `/etc/hosts`.

use k8s_openapi::api::core::v1::{HostAlias, Pod};

use crate::spec::PodExt;

/// The short hostname of a pod and its domain, which is empty without a subdomain.
///
/// # Errors
/// The text of the sandbox's failure: which field is no DNS name.
pub(crate) fn hostname_and_domain(pod: &Pod, cluster_domain: &str) -> Result<(String, String), String> {
    let spec = pod.spec();
    if let Some(name) = &spec.hostname_override {
        check("pod HostnameOverride", name, "subdomain", &api::names::dns1123_subdomain(name))?;
        return Ok((truncate(pod, name)?, String::new()));
    }
    let mut hostname = pod.name();
    if let Some(own) = spec.hostname.as_deref().filter(|own| !own.is_empty()) {
        check("pod Hostname", own, "label", &api::names::dns1123_label(own))?;
        hostname = own;
    }
    let hostname = truncate(pod, hostname)?;
    let mut domain = String::new();
    if let Some(subdomain) = spec.subdomain.as_deref().filter(|own| !own.is_empty()) {
        check("pod Subdomain", subdomain, "label", &api::names::dns1123_label(subdomain))?;
        domain = format!("{subdomain}.{}.svc.{cluster_domain}", pod.namespace());
    }
    Ok((hostname, domain))
}

fn check(what: &str, value: &str, kind: &str, problems: &[String]) -> Result<(), String> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(format!("{what} {value:?} is not a valid DNS {kind}: {}", problems.join(";")))
}

/// Hostnames have at most 63 characters, and don't end in a dot or dash.
fn truncate(pod: &Pod, hostname: &str) -> Result<String, String> {
    const MOST: usize = 63;
    if hostname.len() <= MOST {
        return Ok(hostname.to_owned());
    }
    let cut = hostname.get(..MOST).unwrap_or(hostname).trim_end_matches(['-', '.']);
    if cut.is_empty() {
        return Err(format!("hostname for pod {:?} was invalid: {hostname:?}", pod.name()));
    }
    Ok(cut.to_owned())
}

/// The hostname that the kernel of the pod's namespace is given.
///
/// # Errors
/// As [`hostname_and_domain`], or that the full name is too long for the kernel.
pub(crate) fn kernel_hostname(pod: &Pod, cluster_domain: &str) -> Result<String, String> {
    const MOST: usize = 64;
    let (hostname, domain) = hostname_and_domain(pod, cluster_domain)?;
    if pod.spec().set_hostname_as_fqdn != Some(true) || domain.is_empty() {
        return Ok(hostname);
    }
    let full = format!("{hostname}.{domain}");
    if full.len() > MOST {
        return Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long ({MOST} characters is the max, {} characters requested)",
            full.len()
        ));
    }
    Ok(full)
}

/// The content of a pod's `/etc/hosts`; `node_hosts` is the node's own file, for pods in its
/// network.
pub(crate) fn hosts_file(pod: &Pod, ips: &[String], hostname: &str, domain: &str, node_hosts: Option<&str>) -> String {
    let mut out = String::new();
    if let Some(node_hosts) = node_hosts {
        out.push_str("# Kubernetes-managed hosts file (host network).\n");
        out.push_str(node_hosts);
    } else {
        out.push_str(
            "# Kubernetes-managed hosts file.\n\
             127.0.0.1\tlocalhost\n\
             ::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\n\
             fe00::0\tip6-mcastprefix\n\
             fe00::1\tip6-allnodes\n\
             fe00::2\tip6-allrouters\n",
        );
        for ip in ips {
            if domain.is_empty() {
                out.push_str(&format!("{ip}\t{hostname}\n"));
            } else {
                out.push_str(&format!("{ip}\t{hostname}.{domain}\t{hostname}\n"));
            }
        }
    }
    let aliases: &[HostAlias] = pod.spec().host_aliases.as_deref().unwrap_or_default();
    if !aliases.is_empty() {
        out.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let names = alias.hostnames.as_deref().unwrap_or_default();
            out.push_str(&format!("{}\t{}\n", alias.ip, names.join("\t")));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "ns"}, "spec": spec})).unwrap()
    }

    #[test]
    fn names_are_made_from_the_pod() {
        let of = |name: &str, spec| hostname_and_domain(&pod(name, spec), "cluster.local");
        assert_eq!(of("p", json!({"containers": []})), Ok(("p".into(), String::new())));
        assert_eq!(
            of("p", json!({"containers": [], "hostname": "h", "subdomain": "s"})),
            Ok(("h".into(), "s.ns.svc.cluster.local".into()))
        );
        let long = "a".repeat(62) + "-bcd";
        assert_eq!(of(&long, json!({"containers": []})), Ok(("a".repeat(62), String::new())));
        assert!(of("p", json!({"containers": [], "hostname": "A_"})).is_err());
        let full = pod("p", json!({"containers": [], "subdomain": "s", "setHostnameAsFQDN": true}));
        assert_eq!(kernel_hostname(&full, "cluster.local"), Ok("p.s.ns.svc.cluster.local".into()));
        assert!(kernel_hostname(&full, &"x".repeat(60)).is_err());
    }

    #[test]
    fn the_hosts_file_names_the_pod_and_its_aliases() {
        let pod = pod("p", json!({"containers": [], "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}));
        let file = hosts_file(&pod, &["10.0.0.5".into()], "p", "s.ns.svc", None);
        assert!(file.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(file.ends_with("10.0.0.5\tp.s.ns.svc\tp\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"));
        let file = hosts_file(&pod, &[], "p", "", Some("127.0.0.1 node\n"));
        assert!(file.starts_with("# Kubernetes-managed hosts file (host network).\n127.0.0.1 node\n\n#"));
    }
}
