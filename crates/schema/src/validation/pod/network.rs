//! A pod's names and its resolver.

use super::super::fields::{Errors, ip, json_list, problems, required_of};
use crate::view::List;
use crate::view::core_v1::{HostAlias, PodSpec};
use api::{FieldError, Path, names};

const POLICIES: [&str; 4] = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
const NAMESERVERS: usize = 3;
const SEARCHES: usize = 32;
const SEARCH_CHARACTERS: usize = 2048;
const HOST_NAME: usize = 64;

pub(super) fn dns_policy(errors: &mut Errors, path: &Path<'_>, policy: Option<&str>) {
    required_of(errors, path, policy, &POLICIES);
}

pub(super) fn dns_config(errors: &mut Errors, path: &Path<'_>, spec: PodSpec<'_>) {
    let config = spec.dns_config();
    if spec.dns_policy() == Some("None") {
        let Some(config) = config else {
            errors.push(FieldError::required(path, "must provide `dnsConfig` when `dnsPolicy` is None"));
            return;
        };
        if config.nameservers().is_empty() {
            let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.push(FieldError::required(&path.child("nameservers"), why));
            return;
        }
    }
    let Some(config) = config else { return };
    let (servers, searches) = (config.nameservers(), config.searches());
    let here = path.child("nameservers");
    if servers.len() > NAMESERVERS {
        let why = format!("must not have more than {NAMESERVERS} nameservers");
        errors.push(FieldError::invalid(&here, json_list(servers), why));
    }
    for (i, server) in servers.iter().enumerate() {
        ip(errors, &here.index(i), server);
    }
    let here = path.child("searches");
    if searches.len() > SEARCHES {
        let why = format!("must not have more than {SEARCHES} search paths");
        errors.push(FieldError::invalid(&here, json_list(searches), why));
    }
    let characters: usize = searches.iter().map(|search| search.len() + 1).sum();
    if characters > SEARCH_CHARACTERS + 1 {
        let why =
            format!("must not have more than {SEARCH_CHARACTERS} characters (including spaces) in the search list");
        errors.push(FieldError::invalid(&here, json_list(searches), why));
    }
    for (i, search) in searches.iter().enumerate().filter(|(_, search)| *search != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        // Underscores are let through, as resolvers do.
        problems(errors, &here.index(i), search, names::dns1123_subdomain(&search.replace('_', "a")));
    }
    for (i, option) in config.options().iter().enumerate() {
        if option.name().unwrap_or("").is_empty() {
            errors.push(FieldError::required(&path.child("options").index(i), "must not be empty"));
        }
    }
}

pub(super) fn host_aliases(errors: &mut Errors, path: &Path<'_>, aliases: List<'_, HostAlias<'_>>) {
    for (i, alias) in aliases.iter().enumerate() {
        let path = path.index(i);
        ip(errors, &path.child("ip"), alias.ip().unwrap_or(""));
        for (i, name) in alias.hostnames().iter().enumerate() {
            problems(errors, &path.child("hostnames").index(i), name, names::dns1123_subdomain(name));
        }
    }
}

/// A host name of the pod's own: as long as the kernel takes it, and where nothing else says what it is.
pub(super) fn hostname_override(errors: &mut Errors, path: &Path<'_>, spec: PodSpec<'_>) {
    let Some(name) = spec.hostname_override() else { return };
    let here = path.child("hostnameOverride");
    for (field, set) in [("setHostnameAsFQDN", spec.set_hostname_as_fqdn()), ("hostNetwork", spec.host_network())] {
        if set == Some(true) {
            errors.push(FieldError::forbidden(&here, format!("may not be specified when {field} is true")));
        }
    }
    if name.len() > HOST_NAME {
        errors.push(FieldError::too_long(&here, HOST_NAME));
    }
    problems(errors, &here, name, names::dns1123_subdomain(name));
}

/// Ports of the host's network are the host's own. A template need not say so: its pods are given them when they are made.
pub(super) fn host_network(errors: &mut Errors, path: &Path<'_>, spec: PodSpec<'_>, is_pod: bool) {
    if !spec.host_network().unwrap_or(false) {
        return;
    }
    for (i, container) in spec.containers().iter().enumerate() {
        let containers = path.child("containers");
        let path = containers.index(i);
        for (i, port) in container.ports().iter().enumerate() {
            let host = port.host_port().unwrap_or(0);
            if (is_pod || host != 0) && host != port.container_port().unwrap_or(0) {
                let why = "must match `containerPort` when `hostNetwork` is true";
                errors.push(FieldError::invalid(&path.child("ports").index(i).child("hostPort"), host, why));
            }
        }
    }
}
