//! Services.

use super::fields::{
    Errors, IMMUTABLE, NOTHING, cidr, ip, json, json_list, labels, non_special_ip, parse_ip, port_num, port_or_name,
    problems, required, required_of, supported_of,
};
use super::warnings::{Warnings, address, range};
use crate::tree::{Map, Value};
use crate::view::List;
use crate::view::core_v1::{Service, ServicePort, ServiceSpec};
use api::field::Raw;
use api::{FieldError, Path, names};
use std::collections::BTreeSet;
use std::net::IpAddr;

const SPEC: Path<'static> = Path::root("spec");
const OLD_HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";
/// Of the time before there was a field for it.
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const ONCE: &str = "may not change once set";
const FOR_BALANCERS: &str = "may only be used when `type` is 'LoadBalancer'";
const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
/// A day.
const LONGEST_AFFINITY: i64 = 86400;

const INGRESS: [&str; 3] = ["status", "loadBalancer", "ingress"];

static EMPTY: Map = Map::new();

/// The rules of a service; `old` is the one before, whose odd addresses and ranges may stay.
pub(super) fn create(object: &Map, old: Option<&Map>) -> Errors {
    let mut errors = Errors::new();
    let spec = Service(object).spec().unwrap_or(ServiceSpec(&EMPTY));
    let was = old.and_then(|old| Service(old).spec()).unwrap_or(ServiceSpec(&EMPTY));
    let annotation = |key: &str| object.at(&["metadata", "annotations", key]).and_then(Value::as_str);
    if let (Some(mode), Some(hints)) = (annotation(TOPOLOGY_MODE), annotation(OLD_HINTS))
        && mode != hints
        && old.is_none_or(|old| {
            [TOPOLOGY_MODE, OLD_HINTS].iter().any(|key| {
                let path = ["metadata", "annotations", *key];
                old.at(&path) != object.at(&path)
            })
        })
    {
        let metadata = Path::root("metadata");
        let why = format!("must match annotations[{OLD_HINTS}] when both are specified");
        errors.push(FieldError::invalid(&metadata.child("annotations").key(TOPOLOGY_MODE), mode, why));
    }
    let headless = is_headless(spec);
    if spec.ports().is_empty() && !headless && spec.type_() != Some("ExternalName") {
        errors.push(FieldError::required(&SPEC.child("ports"), ""));
    }
    by_type(&mut errors, spec, headless);
    let ports = SPEC.child("ports");
    let mut seen = BTreeSet::new();
    for (i, port) in spec.ports().iter().enumerate() {
        one_port(&mut errors, &ports.index(i), port, spec.ports().len() > 1, &mut seen);
    }
    labels(&mut errors, &SPEC.child("selector"), spec.selector());
    affinity(&mut errors, spec);
    cluster_ips(&mut errors, spec, was);
    for (i, address) in spec.external_ips().iter().enumerate() {
        let path = SPEC.child("externalIPs");
        let before = errors.len();
        known_ip(&mut errors, &path.index(i), address, was.external_ips());
        if errors.len() == before {
            non_special_ip(&mut errors, &path.index(i), address);
        }
    }
    required_of(&mut errors, &SPEC.child("type"), spec.type_(), &TYPES);
    if spec.type_() == Some("ClusterIP") {
        for (i, port) in spec.ports().iter().enumerate() {
            if port.node_port().unwrap_or(0) != 0 {
                let why = "may not be used when `type` is 'ClusterIP'";
                errors.push(FieldError::forbidden(&ports.index(i).child("nodePort"), why));
            }
        }
    }
    repeated_ports(&mut errors, spec);
    load_balancer(&mut errors, spec, was);
    if spec.load_balancer_source_ranges().is_empty()
        && let Some(text) = annotation(SOURCE_RANGES)
    {
        let before = old.and_then(|old| old.at(&["metadata", "annotations", SOURCE_RANGES])).and_then(Value::as_str);
        // What was said of a service that is of the same type may be of a time when nobody looked.
        if before != Some(text) || was.type_() != spec.type_() {
            source_ranges(&mut errors, spec, text, before);
        }
    }
    // Of a service that has been filled in it is there. The path is upstream's.
    if spec.allocate_load_balancer_node_ports().is_none() && spec.type_() == Some("LoadBalancer") {
        errors.push(FieldError::required(&Path::root("allocateLoadBalancerNodePorts"), ""));
    }
    if spec.allocate_load_balancer_node_ports().is_some() && spec.type_() != Some("LoadBalancer") {
        let path = SPEC.child("allocateLoadBalancerNodePorts");
        errors.push(FieldError::forbidden(&path, FOR_BALANCERS));
    }
    class(&mut errors, spec);
    traffic(&mut errors, spec);
    errors
}

fn is_headless(spec: ServiceSpec<'_>) -> bool {
    spec.cluster_ips().first() == Some("None") || spec.cluster_ip() == Some("None")
}

fn by_type(errors: &mut Errors, spec: ServiceSpec<'_>, headless: bool) {
    let kind = spec.type_().unwrap_or("");
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let why = format!("may not be set to 'None' for {kind} services");
            errors.push(FieldError::invalid(&SPEC.child("clusterIPs").index(0), "None", why));
        }
        "ExternalName" => {
            for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                let set = spec
                    .0
                    .get(field)
                    .is_some_and(|value| value.as_list().is_none_or(|list| !list.is_empty()) && !value.is_null());
                if set {
                    errors.push(FieldError::forbidden(&SPEC.child(field), "may not be set for ExternalName services"));
                }
            }
            let name = spec.external_name().unwrap_or("");
            let name = name.strip_suffix('.').unwrap_or(name);
            if required(errors, &SPEC.child("externalName"), Some(name)) {
                problems(errors, &SPEC.child("externalName"), name, names::dns1123_subdomain(name));
            }
        }
        _ => {}
    }
}

fn one_port<'a>(
    errors: &mut Errors,
    path: &Path<'_>,
    port: ServicePort<'a>,
    needs_name: bool,
    seen: &mut BTreeSet<&'a str>,
) {
    let name = port.name().unwrap_or("");
    if name.is_empty() {
        if needs_name {
            errors.push(FieldError::required(&path.child("name"), ""));
        }
    } else {
        problems(errors, &path.child("name"), name, names::dns1123_label(name));
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(&path.child("name"), name));
        }
    }
    port_num(errors, &path.child("port"), port.port().unwrap_or(0));
    required_of(errors, &path.child("protocol"), port.protocol(), &["SCTP", "TCP", "UDP"]);
    port_or_name(errors, &path.child("targetPort"), port.target_port());
    if let Some(protocol) = port.app_protocol() {
        problems(errors, &path.child("appProtocol"), protocol, names::qualified_name(protocol));
    }
}

fn affinity(errors: &mut Errors, spec: ServiceSpec<'_>) {
    required_of(errors, &SPEC.child("sessionAffinity"), spec.session_affinity(), &["ClientIP", "None"]);
    let path = SPEC.child("sessionAffinityConfig");
    match (spec.session_affinity(), spec.session_affinity_config()) {
        (Some("ClientIP"), config) => {
            const WHEN: &str = "when session affinity type is ClientIP";
            let client = path.child("clientIP");
            let timeout = client.child("timeoutSeconds");
            match config.map(|config| config.client_ip().map(|client| client.timeout_seconds())) {
                None => errors.push(FieldError::required(&path, WHEN)),
                Some(None) => errors.push(FieldError::required(&client, WHEN)),
                Some(Some(None)) => errors.push(FieldError::required(&timeout, WHEN)),
                Some(Some(Some(seconds))) if seconds <= 0 || seconds > LONGEST_AFFINITY => {
                    let why = format!("must be greater than 0 and less than {LONGEST_AFFINITY}");
                    errors.push(FieldError::invalid(&timeout, seconds, why));
                }
                Some(_) => {}
            }
        }
        (Some("None"), Some(_)) => {
            errors.push(FieldError::forbidden(&path, "must not be set when session affinity is None"));
        }
        _ => {}
    }
}

fn cluster_ips(errors: &mut Errors, spec: ServiceSpec<'_>, was: ServiceSpec<'_>) {
    if spec.type_() == Some("ExternalName") {
        return;
    }
    let path = SPEC.child("clusterIPs");
    let ips = spec.cluster_ips();
    let first = ips.first().unwrap_or("");
    if !ips.is_empty() && spec.cluster_ip().unwrap_or("") != first {
        errors.push(FieldError::invalid(&path, json_list(ips), "first value must match `clusterIP`"));
    }
    let families = SPEC.child("ipFamilies");
    let mut seen = BTreeSet::new();
    for (i, family) in spec.ip_families().iter().enumerate() {
        supported_of(errors, &families.index(i), Some(family), &["IPv4", "IPv6"]);
        if !seen.insert(family) {
            errors.push(FieldError::duplicate(&families.index(i), family));
        }
    }
    let policies = ["SingleStack", "PreferDualStack", "RequireDualStack"];
    supported_of(errors, &SPEC.child("ipFamilyPolicy"), spec.ip_family_policy(), &policies);
    if is_headless(spec) {
        if ips.len() > 1 {
            errors.push(FieldError::invalid(&path, json_list(ips), "'None' must be the first and only value"));
        }
        return;
    }
    if ips.len() > 2 {
        errors.push(FieldError::invalid(&path, json_list(ips), "may only hold up to 2 values"));
    }
    for (i, address) in ips.iter().enumerate() {
        if address == "None" {
            errors.push(FieldError::invalid(&path.index(i), address, "'None' must be the first and only value"));
            continue;
        }
        if let Some(address) = known_ip(errors, &path.index(i), address, was.cluster_ips())
            && let Some(family) = spec.ip_families().get(i)
            && (family == "IPv6") != address.is_ipv6()
        {
            let address = ips.get(i).unwrap_or("");
            let why = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
            errors.push(FieldError::invalid(&path.index(i), address, why));
        }
    }
    let dual = ips.iter().filter_map(parse_ip).collect::<Vec<_>>();
    if let [first, second] = dual[..]
        && first.is_ipv6() == second.is_ipv6()
    {
        let why = "may specify no more than one IP for each IP family";
        errors.push(FieldError::invalid(&path, json_list(ips), why));
    }
}

fn repeated_ports(errors: &mut Errors, spec: ServiceSpec<'_>) {
    let path = SPEC.child("ports");
    let mut seen = BTreeSet::new();
    for (i, port) in spec.ports().iter().enumerate() {
        let number = port.node_port().unwrap_or(0);
        if number != 0 && !seen.insert((port.protocol(), number)) {
            errors.push(FieldError::duplicate(&path.index(i).child("nodePort"), number));
        }
    }
    seen.clear();
    for (i, port) in spec.ports().iter().enumerate() {
        let number = port.port().unwrap_or(0);
        if !seen.insert((port.protocol(), number)) {
            let protocol = port.protocol().unwrap_or("");
            let shown = format!(
                "{{\"Name\":\"\",\"Protocol\":\"{protocol}\",\"AppProtocol\":null,\"Port\":{number},\"TargetPort\":0,\"NodePort\":0}}"
            );
            errors.push(FieldError::duplicate(&path.index(i), Raw(shown)));
        }
    }
}

/// An address; one that was there before may be of a form that is refused today.
fn known_ip(errors: &mut Errors, path: &Path<'_>, text: &str, known: List<'_, &str>) -> Option<IpAddr> {
    if known.iter().any(|known| known == text) { parse_ip(text) } else { ip(errors, path, text) }
}

/// Who may come in. How upstream writes the field is its own.
fn load_balancer(errors: &mut Errors, spec: ServiceSpec<'_>, was: ServiceSpec<'_>) {
    let path = SPEC.child("LoadBalancerSourceRanges");
    let ranges = spec.load_balancer_source_ranges();
    if !ranges.is_empty() && spec.type_() != Some("LoadBalancer") {
        errors.push(FieldError::forbidden(&path, FOR_BALANCERS));
    }
    let known: Vec<&str> = was.load_balancer_source_ranges().iter().map(str::trim).collect();
    for (i, range) in ranges.iter().map(str::trim).enumerate().filter(|(_, range)| !known.contains(range)) {
        cidr(errors, &path.index(i), range);
    }
}

/// The same by an annotation, which is looked at only when it changes.
fn source_ranges(errors: &mut Errors, spec: ServiceSpec<'_>, text: &str, before: Option<&str>) {
    let metadata = Path::root("metadata");
    let annotations = metadata.child("annotations");
    let path = annotations.key(SOURCE_RANGES);
    if spec.type_() != Some("LoadBalancer") {
        errors.push(FieldError::forbidden(&path, FOR_BALANCERS));
    }
    if before != Some(text) && !text.trim().is_empty() {
        for range in text.split(',') {
            cidr(errors, &path, range.trim());
        }
    }
}

fn class(errors: &mut Errors, spec: ServiceSpec<'_>) {
    let Some(class) = spec.load_balancer_class() else { return };
    let path = SPEC.child("loadBalancerClass");
    if spec.type_() == Some("LoadBalancer") {
        problems(errors, &path, class, names::qualified_name(class));
    } else {
        errors.push(FieldError::forbidden(&path, FOR_BALANCERS));
    }
}

fn traffic(errors: &mut Errors, spec: ServiceSpec<'_>) {
    let kind = spec.type_().unwrap_or("");
    let external =
        matches!(kind, "LoadBalancer" | "NodePort") || (kind == "ClusterIP" && !spec.external_ips().is_empty());
    let path = SPEC.child("externalTrafficPolicy");
    let policy = spec.external_traffic_policy().unwrap_or("");
    if external {
        required_of(errors, &path, Some(policy), &["Cluster", "Local"]);
    } else if !policy.is_empty() {
        let why = "may only be set for externally-accessible services";
        errors.push(FieldError::invalid(&path, policy, why));
    }
    let path = SPEC.child("healthCheckNodePort");
    let port = spec.health_check_node_port().unwrap_or(0);
    if kind == "LoadBalancer" && policy == "Local" {
        match port {
            0 => errors.push(FieldError::required(&path, "")),
            port => port_num(errors, &path, port),
        }
    } else if port != 0 {
        let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.push(FieldError::invalid(&path, port, why));
    }
    let path = SPEC.child("internalTrafficPolicy");
    match spec.internal_traffic_policy() {
        None if matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer") => {
            errors.push(FieldError::required(&path, ""))
        }
        policy => supported_of(errors, &path, policy, &["Cluster", "Local"]),
    }
    let supported = ["PreferClose", "PreferSameNode", "PreferSameZone"];
    supported_of(errors, &SPEC.child("trafficDistribution"), spec.traffic_distribution(), &supported);
}

pub(super) fn update(subresource: &str, new: &Map, old: &Map) -> Errors {
    if subresource == "status" {
        return status(new, old);
    }
    let mut errors = Errors::new();
    let spec = Service(new).spec().unwrap_or(ServiceSpec(&EMPTY));
    let was = Service(old).spec().unwrap_or(ServiceSpec(&EMPTY));
    if spec.type_() != Some("ExternalName") && was.type_() != Some("ExternalName") {
        kept_ips(&mut errors, spec, was);
        kept_families(&mut errors, spec, was);
    }
    if was.type_() == Some("LoadBalancer")
        && spec.type_() == Some("LoadBalancer")
        && was.load_balancer_class() != spec.load_balancer_class()
    {
        let path = SPEC.child("loadBalancerClass");
        errors.push(FieldError::invalid(&path, spec.load_balancer_class().unwrap_or(NOTHING), ONCE));
    }
    // The rules of the whole tell of it, too.
    class(&mut errors, spec);
    let checked =
        |spec: ServiceSpec<'_>| spec.type_() == Some("LoadBalancer") && spec.external_traffic_policy() == Some("Local");
    if checked(spec) && checked(was) && spec.health_check_node_port() != was.health_check_node_port() {
        errors.push(FieldError::forbidden(&SPEC.child("healthCheckNodePort"), IMMUTABLE));
    }
    errors.extend(create(new, Some(old)));
    errors
}

/// How Go shows a list; one of nothing is none.
fn list_shown(list: List<'_, &str>) -> Raw {
    if list.is_empty() { json(None) } else { json_list(list) }
}

fn is_only_none(spec: ServiceSpec<'_>) -> bool {
    spec.cluster_ips().len() == 1 && spec.cluster_ips().first() == Some("None")
}

/// A second one may come, and go if only one is asked for; the first stays.
fn kept_ips(errors: &mut Errors, spec: ServiceSpec<'_>, was: ServiceSpec<'_>) {
    if is_only_none(spec) && is_only_none(was) {
        return;
    }
    let (now, before) = (spec.cluster_ips(), was.cluster_ips());
    let path = SPEC.child("clusterIPs");
    if now.len() == before.len() {
        for (i, _) in now.iter().zip(before.iter()).enumerate().filter(|(_, (now, before))| now != before) {
            errors.push(FieldError::invalid(&path.index(i), list_shown(now), ONCE));
        }
        return;
    }
    if now.is_empty() {
        errors.push(FieldError::invalid(&path.index(0), list_shown(now), "primary clusterIP can not be unset"));
    } else if !before.is_empty() && now.first() != before.first() {
        errors.push(FieldError::invalid(&path.index(0), list_shown(now), ONCE));
    }
    if now.len() == 1 && before.len() > 1 {
        released(errors, spec, "clusterIP");
    }
}

/// The same of families. Upstream shows addresses for some of it.
fn kept_families(errors: &mut Errors, spec: ServiceSpec<'_>, was: ServiceSpec<'_>) {
    if is_only_none(spec) || is_only_none(was) {
        return;
    }
    let (now, before) = (spec.ip_families(), was.ip_families());
    let path = SPEC.child("ipFamilies");
    if now.len() == before.len() {
        for _ in now.iter().zip(before.iter()).filter(|(now, before)| now != before) {
            errors.push(FieldError::invalid(&path.index(0), list_shown(now), ONCE));
        }
        return;
    }
    if now.len() < before.len() && spec.cluster_ips().is_empty() {
        errors.push(FieldError::invalid(&path.index(0), list_shown(now), "primary ipFamily can not be unset"));
    }
    if !now.is_empty() && !before.is_empty() && now.first() != before.first() {
        errors.push(FieldError::invalid(&path.index(0), list_shown(spec.cluster_ips()), ONCE));
    }
    if now.len() == 1 && before.len() > 1 {
        released(errors, spec, "ipFamily");
    }
}

/// Whoever lets the second one go says that one is enough.
fn released(errors: &mut Errors, spec: ServiceSpec<'_>, what: &str) {
    let policy = spec.ip_family_policy();
    if policy != Some("SingleStack") {
        let why = format!("must be set to 'SingleStack' when releasing the secondary {what}");
        errors.push(FieldError::invalid(&SPEC.child("ipFamilyPolicy"), policy.unwrap_or(NOTHING), why));
    }
}

fn status(new: &Map, old: &Map) -> Errors {
    let mut errors = Errors::new();
    let root = Path::root("status");
    let balancer = root.child("loadBalancer");
    let path = balancer.child("ingress");
    let of = |map: &Map| map.at(&INGRESS).and_then(Value::as_list).unwrap_or_default().to_vec();
    let (ingress, was) = (of(new), of(old));
    let known: Vec<&str> = was.iter().filter_map(Value::as_map).map(|one| one.str_at(&["ip"])).collect();
    if !ingress.is_empty() && new.str_at(&["spec", "type"]) != "LoadBalancer" {
        let why = "may only be used when `spec.type` is 'LoadBalancer'";
        errors.push(FieldError::forbidden(&path, why));
        return errors;
    }
    for (i, one) in ingress.iter().filter_map(Value::as_map).enumerate() {
        let path = path.index(i);
        let (address, name) = (one.str_at(&["ip"]), one.str_at(&["hostname"]));
        if !address.is_empty() && !known.contains(&address) {
            ip(&mut errors, &path.child("ip"), address);
        }
        let mode_path = path.child("ipMode");
        match one.get("ipMode").and_then(Value::as_str) {
            None if !address.is_empty() => {
                errors.push(FieldError::required(&mode_path, "must be specified when `ip` is set"));
            }
            Some(_) if address.is_empty() => {
                errors.push(FieldError::forbidden(&mode_path, "may not be specified when `ip` is not set"));
            }
            mode => supported_of(&mut errors, &mode_path, mode, &["Proxy", "VIP"]),
        }
        if !name.is_empty() {
            problems(&mut errors, &path.child("hostname"), name, names::dns1123_subdomain(name));
            if parse_ip(name).is_some() {
                let why = "must be a DNS name, not an IP address";
                errors.push(FieldError::invalid(&path.child("hostname"), name, why));
            }
        }
    }
    errors
}

/// What the maker of a service should know, and who tells where it is reached.
pub(super) fn warnings(subresource: &str, new: &Map) -> Warnings {
    let mut out = Warnings::new();
    if subresource == "status" {
        let root = Path::root("status");
        let path = root.child("loadBalancer.ingress");
        let list = new.at(&INGRESS).and_then(Value::as_list).unwrap_or_default();
        for (i, one) in list.iter().filter_map(Value::as_map).enumerate() {
            address(&mut out, &path.index(i), one.str_at(&["ip"]));
        }
    }
    if !subresource.is_empty() {
        return out;
    }
    if new.at(&["metadata", "annotations", OLD_HINTS]).is_some() {
        out.push(format!("annotation {OLD_HINTS} is deprecated, please use {TOPOLOGY_MODE} instead"));
    }
    let Some(spec) = Service(new).spec() else { return out };
    let kind = spec.type_().unwrap_or("");
    for (i, text) in spec.cluster_ips().iter().enumerate().filter(|(_, text)| !matches!(*text, "" | "None")) {
        address(&mut out, &SPEC.child("clusterIPs").index(i), text);
    }
    if kind == "ClusterIP" && spec.cluster_ip() == Some("None") {
        for (field, set) in [
            ("loadBalancerIP", !spec.load_balancer_ip().unwrap_or("").is_empty()),
            ("externalIPs", !spec.external_ips().is_empty()),
            ("SessionAffinity", spec.session_affinity() != Some("None")),
        ] {
            if set {
                out.push(format!("spec.{field} is ignored for headless services"));
            }
        }
    }
    if !spec.external_ips().is_empty() {
        out.push("spec.externalIPs is deprecated".to_owned());
    }
    for (i, text) in spec.external_ips().iter().enumerate() {
        address(&mut out, &SPEC.child("externalIPs").index(i), text);
    }
    if let Some(text) = spec.load_balancer_ip().filter(|text| !text.is_empty()) {
        address(&mut out, &SPEC.child("loadBalancerIP"), text);
    }
    for (i, text) in spec.load_balancer_source_ranges().iter().enumerate() {
        range(&mut out, &SPEC.child("loadBalancerSourceRanges").index(i), text);
    }
    let external = kind == "ExternalName";
    if external && !spec.external_ips().is_empty() {
        out.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if !external && !spec.external_name().unwrap_or("").is_empty() {
        out.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if spec.traffic_distribution() == Some("PreferClose") {
        out.push("spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".to_owned());
    }
    out
}
