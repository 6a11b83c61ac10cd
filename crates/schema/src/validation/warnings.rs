//! What is allowed but old: labels of nodes by their former names, addresses in odd forms, fields that mean nothing now.

use super::fields::{network, parse_cidr, parse_ip};
use super::pod::old_label;
use crate::tree::Map;
use crate::view::StrMap;
use crate::view::core_v1::{Endpoints, Node};
use crate::view::discovery_v1::EndpointSlice;
use crate::view::meta_v1::ObjectMeta;
use crate::view::node_v1::RuntimeClass;
use crate::view::storage_v1::{CSIStorageCapacity, StorageClass};
use api::Path;
use std::net::IpAddr;

/// What of warnings a client is told: all of them when they have no more than 4096 characters together, else the first 256
/// characters of each, and of those as many as reach that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    whole: usize,
    cut: usize,
}

impl Told {
    const ALL: usize = 4096;
    /// The characters of each, when they are cut.
    pub const EACH: usize = 256;

    /// Takes another one; `false`: nobody would be told it.
    pub fn takes(&mut self, warning: &str) -> bool {
        if self.is_full() {
            return false;
        }
        let length = warning.chars().count();
        self.whole += length;
        self.cut += length.min(Self::EACH);
        true
    }

    /// Whether there is more than is told whole.
    pub fn cuts(self) -> bool {
        self.whole > Self::ALL
    }

    /// Whether nothing more is told.
    pub fn is_full(self) -> bool {
        self.cuts() && self.cut >= Self::ALL
    }
}

/// Warnings as they are found, each once. What no client would be told is not kept, so whatever an object says, they are few.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    list: Vec<String>,
    told: Told,
}

impl Warnings {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn push(&mut self, warning: String) {
        if !self.list.contains(&warning) && self.told.takes(&warning) {
            self.list.push(warning);
        }
    }

    /// Whether nothing more is told. Who compares many things with each other stops then.
    pub(super) fn is_full(&self) -> bool {
        self.told.is_full()
    }

    pub(super) fn into_list(self) -> Vec<String> {
        self.list
    }
}

impl From<Vec<String>> for Warnings {
    fn from(list: Vec<String>) -> Self {
        let mut out = Warnings::new();
        list.into_iter().for_each(|warning| out.push(warning));
        out
    }
}

pub(super) fn node(new: &Map, _: Option<&Map>) -> Warnings {
    let mut out = Warnings::new();
    let Some(spec) = Node(new).spec() else { return out };
    if spec.config_source().is_some() {
        out.push("spec.configSource: the feature is removed".to_owned());
    }
    if !spec.external_id().unwrap_or("").is_empty() {
        out.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
    }
    out
}

/// Labels without their names: the path says enough, says upstream.
fn old_keys(out: &mut Warnings, path: &Path<'_>, labels: StrMap<'_>, named: bool) {
    for (key, _) in labels.iter() {
        if let Some(why) = old_label(key) {
            out.push(if named { format!("{}: {why}", path.child(key)) } else { format!("{path}: {why}") });
        }
    }
}

pub(super) fn storage_class(new: &Map, _: Option<&Map>) -> Warnings {
    let mut out = Warnings::new();
    let root = Path::root("allowedTopologies");
    for (i, term) in StorageClass(new).allowed_topologies().iter().enumerate() {
        for (j, expression) in term.match_label_expressions().iter().enumerate() {
            if let Some(why) = old_label(expression.key().unwrap_or("")) {
                out.push(format!("{}[{j}].key: {why}", root.index(i).child("matchLabelExpressions")));
            }
        }
    }
    out
}

pub(super) fn storage_capacity(new: &Map, _: Option<&Map>) -> Warnings {
    let mut out = Warnings::new();
    let Some(selector) = CSIStorageCapacity(new).node_topology() else { return out };
    let root = Path::root("nodeTopology");
    for (i, expression) in selector.match_expressions().iter().enumerate() {
        let key = expression.key().unwrap_or("");
        if let Some(why) = old_label(key) {
            out.push(format!("{}[{i}].key: {key} is {why}", root.child("matchExpressions")));
        }
    }
    old_keys(&mut out, &root.child("matchLabels"), selector.match_labels(), true);
    out
}

pub(super) fn runtime_class(new: &Map, _: Option<&Map>) -> Warnings {
    let mut out = Warnings::new();
    if let Some(scheduling) = RuntimeClass(new).scheduling() {
        old_keys(&mut out, &Path::root("scheduling").child("nodeSelector"), scheduling.node_selector(), false);
    }
    out
}

/// Addresses that are understood today, but written in a form that others do not understand or do not write.
pub(super) fn address(out: &mut Warnings, path: &Path<'_>, text: &str) {
    let Some(ip) = parse_ip(text) else { return };
    let mapped = match ip {
        IpAddr::V6(ip) => ip.to_ipv4_mapped(),
        IpAddr::V4(_) => None,
    };
    if let Some(ip) = mapped.map(IpAddr::V4).or_else(|| text.parse::<IpAddr>().is_err().then_some(ip)) {
        out.push(format!(
            "{path}: non-standard IP address {text:?} will be considered invalid in a future Kubernetes release: use \"{ip}\""
        ));
    } else if ip.is_ipv6() && ip.to_string() != text {
        out.push(format!("{path}: IPv6 address {text:?} should be in RFC 5952 canonical format (\"{ip}\")"));
    }
}

/// The same for ranges, which may also say more than their network.
pub(super) fn range(out: &mut Warnings, path: &Path<'_>, text: &str) {
    let Some((ip, bits)) = parse_cidr(text) else { return };
    let mut odd = false;
    // What is of IPv4 is written so, and then has 96 bits less.
    let first = network((ip, bits));
    let plain = first.to_canonical();
    let whole = format!("{plain}/{}", if plain == first { bits } else { bits.saturating_sub(96) });
    if first != ip {
        odd = true;
        let one = format!("{}/{}", ip.to_canonical(), if ip.is_ipv4() { 32 } else { 128 });
        out.push(format!("{path}: CIDR value {text:?} is ambiguous in this context (should be {whole:?} or {one:?}?)"));
    }
    let strict = text
        .split_once('/')
        .is_some_and(|(address, bits)| address.parse::<IpAddr>().is_ok() && (bits == "0" || !bits.starts_with('0')));
    if !strict || ip.to_canonical() != ip {
        odd = true;
        out.push(format!(
            "{path}: non-standard CIDR value {text:?} will be considered invalid in a future Kubernetes release: use {whole:?}"
        ));
    }
    let canonical = format!("{ip}/{bits}");
    if !odd && ip.is_ipv6() && canonical != text {
        out.push(format!("{path}: IPv6 CIDR value {text:?} should be in RFC 5952 canonical format ({canonical:?})"));
    }
}

fn label<'a>(metadata: Option<ObjectMeta<'a>>, key: &str) -> &'a str {
    metadata.and_then(|metadata| metadata.labels().get(key)).unwrap_or("")
}

pub(super) fn endpoints(new: &Map, _: Option<&Map>) -> Warnings {
    let mut out = Warnings::new();
    let endpoints = Endpoints(new);
    if label(endpoints.metadata(), "endpoints.kubernetes.io/managed-by") == "endpoint-controller" {
        return out;
    }
    let root = Path::root("subsets");
    for (i, subset) in endpoints.subsets().iter().enumerate() {
        for (field, list) in [("addresses", subset.addresses()), ("notReadyAddresses", subset.not_ready_addresses())] {
            for (j, entry) in list.iter().enumerate() {
                let path = root.index(i);
                address(&mut out, &path.child(field).index(j).child("ip"), entry.ip().unwrap_or(""));
            }
        }
    }
    out
}

pub(super) fn endpoint_slice(new: &Map, old: Option<&Map>) -> Warnings {
    const CONTROLLERS: [&str; 2] = ["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"];
    let mut out = Warnings::new();
    let slice = EndpointSlice(new);
    if old.is_none() && slice.address_type() == Some("FQDN") {
        out.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
    }
    if CONTROLLERS.contains(&label(slice.metadata(), "endpointslice.kubernetes.io/managed-by")) {
        return out;
    }
    let root = Path::root("endpoints");
    for (i, endpoint) in slice.endpoints().iter().enumerate() {
        for (j, text) in endpoint.addresses().iter().enumerate() {
            let path = root.index(i);
            address(&mut out, &path.child("addresses").index(j), text);
        }
    }
    out
}
