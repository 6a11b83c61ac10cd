//! The resolver configuration of a pod.

use std::net::IpAddr;

use cri::v1::DnsConfig;
use k8s_openapi::api::core::v1::Pod;

use crate::spec::PodExt;

const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARACTERS: usize = 2048;

/// The names that the cluster's resolver knows.
#[derive(Clone, Debug)]
pub(crate) struct Cluster<'a> {
    pub(crate) servers: &'a [IpAddr],
    pub(crate) domain: &'a str,
}

/// The lines of a `resolv.conf` that matter; a missing file is an empty one.
pub(crate) fn parse(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(ToOwned::to_owned)),
            Some("search") => {
                config.searches = words
                    .map(|word| {
                        let trimmed = word.trim_end_matches('.');
                        if trimmed.is_empty() { word } else { trimmed }.to_owned()
                    })
                    .collect();
            }
            Some("options") => config.options = words.map(ToOwned::to_owned).collect(),
            _ => {}
        }
    }
    config
}

/// A pod's resolver configuration and what is to be reported about it, as (reason, message) pairs.
pub(crate) fn config(pod: &Pod, cluster: &Cluster<'_>, host: &DnsConfig) -> (DnsConfig, Vec<(&'static str, String)>) {
    let mut warnings = Vec::new();
    let policy = pod.spec().dns_policy.as_deref().unwrap_or("ClusterFirst");
    let of_cluster = match policy {
        "ClusterFirstWithHostNet" => true,
        "Default" | "None" => false,
        _ => !pod.is_host_network(),
    };
    let mut config = if policy == "None" {
        DnsConfig::default()
    } else if of_cluster && !cluster.servers.is_empty() {
        let mut searches = Vec::new();
        if !cluster.domain.is_empty() {
            searches = vec![
                format!("{}.svc.{}", pod.namespace(), cluster.domain),
                format!("svc.{}", cluster.domain),
                cluster.domain.to_owned(),
            ];
        }
        searches.extend(host.searches.iter().cloned());
        DnsConfig {
            servers: cluster.servers.iter().map(ToString::to_string).collect(),
            searches,
            options: vec!["ndots:5".to_owned()],
        }
    } else {
        if of_cluster {
            warnings.push((
                "MissingClusterDNS",
                format!(
                    "pod: {:?}. kubelet does not have ClusterDNS IP configured and cannot create Pod using {policy:?} policy. Falling back to \"Default\" policy.",
                    pod.display()
                ),
            ));
        }
        host.clone()
    };
    if let Some(own) = &pod.spec().dns_config {
        append_unique(&mut config.servers, own.nameservers.iter().flatten());
        append_unique(&mut config.searches, own.searches.iter().flatten());
        for option in own.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            config.options.retain(|have| have.split(':').next() != Some(name));
            config.options.push(match &option.value {
                Some(value) if !value.is_empty() => format!("{name}:{value}"),
                _ => name.clone(),
            });
        }
    }
    let mut seen = Vec::new();
    config.searches.retain(|search| {
        let new = !seen.contains(search);
        seen.push(search.clone());
        new
    });
    limit(&mut config, &mut warnings);
    (config, warnings)
}

fn append_unique<'a>(list: &mut Vec<String>, more: impl Iterator<Item = &'a String>) {
    for item in more {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

/// Cuts what the C library would ignore.
fn limit(config: &mut DnsConfig, warnings: &mut Vec<(&'static str, String)>) {
    if config.servers.len() > MAX_NAMESERVERS {
        config.servers.truncate(MAX_NAMESERVERS);
        warnings.push((
            "DNSConfigForming",
            format!(
                "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
                config.servers.join(" ")
            ),
        ));
    }
    let before = config.searches.len();
    config.searches.truncate(MAX_SEARCHES);
    while config.searches.join(" ").len() > MAX_SEARCH_CHARACTERS {
        config.searches.pop();
    }
    if config.searches.len() < before {
        warnings.push((
            "DNSConfigForming",
            format!(
                "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
                config.searches.join(" ")
            ),
        ));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(spec: Value) -> DnsConfig {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": spec})).unwrap();
        let host = parse("# x\nnameserver 8.8.8.8\nsearch corp.example. lan\noptions timeout:1 # y\n");
        let servers = ["10.96.0.10".parse().unwrap()];
        config(&pod, &Cluster { servers: &servers, domain: "cluster.local" }, &host).0
    }

    #[test]
    fn policies() {
        let cluster = of(json!({"containers": []}));
        assert_eq!(cluster.servers, ["10.96.0.10"]);
        assert_eq!(
            cluster.searches,
            ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example", "lan"]
        );
        assert_eq!(cluster.options, ["ndots:5"]);
        for spec in [
            json!({"containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirst"}),
            json!({"containers": [], "dnsPolicy": "Default"}),
        ] {
            let host = of(spec);
            assert_eq!(host.servers, ["8.8.8.8"]);
            assert_eq!(host.options, ["timeout:1"]);
        }
        assert_eq!(
            of(json!({"containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"})).servers,
            ["10.96.0.10"]
        );
        let none = of(json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {
            "nameservers": ["1.1.1.1"], "searches": ["x"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}));
        assert_eq!((none.servers, none.searches), (vec!["1.1.1.1".into()], vec!["x".into()]));
        assert_eq!(none.options, ["ndots:2", "edns0"]);
        let merged = of(json!({"containers": [], "dnsConfig": {
            "options": [{"name": "ndots", "value": "2"}], "nameservers": ["1.1.1.1", "2.2.2.2", "3.3.3.3"]}}));
        assert_eq!(merged.options, ["ndots:2"]);
        assert_eq!(merged.servers, ["10.96.0.10", "1.1.1.1", "2.2.2.2"]);
    }
}
