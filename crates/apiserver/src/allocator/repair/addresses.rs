//! What is wrong between Services and the IPAddresses that claim their cluster IPs, decided purely.

use crate::allocator::claims::{FAMILY, MANAGED_BY, MANAGER};
use crate::allocator::range::{AddressRange, Family};
use crate::allocator::spec::{NONE, Spec};
use crate::lookup::{IP_ADDRESSES, Lookup, SERVICES};
use api::Status;
use jiff::{SignedDuration, Timestamp};
use schema::Map;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long an IPAddress may be there before its Service: other servers make one after the other.
const GRACE: SignedDuration = SignedDuration::from_secs(60);

/// How long one may be there before its Service has the address: upstream's servers write the claim first, also of a Service
/// that is there and gets an address.
const WRITE_GRACE: SignedDuration = SignedDuration::from_secs(5);

/// What is done about it.
#[derive(Debug)]
pub(super) enum Mend {
    /// Nothing: who made it must.
    Tell,
    /// The address is claimed for the Service.
    Claim(IpAddr),
    /// The same, in the place of this claim.
    Replace(IpAddr, Arc<Map>),
}

/// Something that is wrong with a Service.
#[derive(Debug)]
pub(super) struct Finding {
    /// Reason and message, if it is told.
    pub(super) event: Option<(&'static str, String)>,
    pub(super) mend: Mend,
}

fn name(object: &Map) -> (&str, &str) {
    (object.str_at(&["metadata", "namespace"]), object.str_at(&["metadata", "name"]))
}

fn parent(address: &Map) -> (&str, &str) {
    let of = |key| address.str_at(&["spec", "parentRef", key]);
    (of("namespace"), of("name"))
}

/// Whether an IPAddress is of a Service at all.
fn is_of_service(address: &Map) -> bool {
    let of = |key| address.str_at(&["spec", "parentRef", key]);
    of("group").is_empty() && of("resource") == "services"
}

fn is_managed(address: &Map) -> bool {
    address.str_at(&["metadata", "labels", MANAGED_BY]) == MANAGER
}

/// What is wrong with the claims of a Service's addresses; `ranges` are those of all ServiceCIDRs.
///
/// # Errors
/// 500 when what decides cannot be read.
pub(super) fn of_service(service: &Map, ranges: &[AddressRange], objects: &dyn Lookup) -> Result<Vec<Finding>, Status> {
    let spec = Spec(service);
    if matches!(spec.str("clusterIP"), "" | NONE) {
        return Ok(Vec::new());
    }
    let mut findings = Vec::new();
    for text in spec.cluster_ips() {
        findings.extend(of_address_of(service, &text, ranges, objects)?);
    }
    Ok(findings)
}

fn of_address_of(
    service: &Map,
    text: &str,
    ranges: &[AddressRange],
    objects: &dyn Lookup,
) -> Result<Option<Finding>, Status> {
    let tell = |reason, message: String| Ok(Some(Finding { event: Some((reason, message)), mend: Mend::Tell }));
    let Ok(ip) = text.parse::<IpAddr>() else {
        return tell("ClusterIPNotValid", "Cluster IP <nil> is not a valid IP; please recreate Service".to_owned());
    };
    let (family, (namespace, own)) = (Family::of(ip).as_str(), name(service));
    if !ranges.iter().any(|range| range.contains(ip)) {
        let why = "is not within any configured Service CIDR; please recreate service";
        return tell("ClusterIPOutOfRange", format!("Cluster IP [{family}]: {ip} {why}"));
    }
    let Some(address) = objects.get(IP_ADDRESSES, "", &ip.to_string())? else {
        let message = format!("Cluster IP [{family}]: {ip} is not allocated; repairing");
        return Ok(Some(Finding { event: Some(("ClusterIPNotAllocated", message)), mend: Mend::Claim(ip) }));
    };
    let wrong = || {
        let message =
            format!("the ClusterIP [{family}]: {ip} for Service {namespace}/{own} has a wrong reference; repairing");
        Some(("ClusterIPNotAllocated", message))
    };
    if !is_of_service(&address) {
        return Ok(Some(Finding { event: wrong(), mend: Mend::Replace(ip, address) }));
    }
    if parent(&address) != (namespace, own) {
        let (namespace, other) = parent(&address);
        let Some(other) = objects.get(SERVICES, namespace, other)? else {
            return Ok(Some(Finding { event: wrong(), mend: Mend::Replace(ip, address) }));
        };
        // Whoever has it goes on having it: else both would take it from each other for ever.
        return match Spec(&other).cluster_ips().iter().any(|held| held == text) {
            true => tell(
                "ClusterIPAlreadyAllocated",
                format!("Cluster IP [{family}]:{ip} was assigned to multiple services; please recreate service"),
            ),
            // The claim of who does not have it goes by itself.
            false => Ok(None),
        };
    }
    let labelled = address.str_at(&["metadata", "labels", FAMILY]) == family && is_managed(&address);
    Ok((!labelled).then_some(Finding { event: None, mend: Mend::Replace(ip, address) }))
}

/// What becomes of an IPAddress.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Claim {
    Stays,
    /// It is removed, and this is told of it: reason and message.
    Goes(&'static str, String),
    /// It goes unless its Service is there after this time.
    Waits(Duration),
}

/// What becomes of an IPAddress; those that others manage stay.
///
/// # Errors
/// 500 when its Service cannot be read.
pub(super) fn of_address(address: &Map, objects: &dyn Lookup, now: Timestamp) -> Result<Claim, Status> {
    if !is_managed(address) {
        return Ok(Claim::Stays);
    }
    let own = address.str_at(&["metadata", "name"]);
    if !is_of_service(address) {
        let of = |key| address.str_at(&["spec", "parentRef", key]);
        let reference = format!(
            "&ParentReference{{Group:{},Resource:{},Namespace:{},Name:{},}}",
            of("group"),
            of("resource"),
            of("namespace"),
            of("name")
        );
        let message = format!(
            "IPAddress {own} appears to have been modified, not referencing a Service {reference}: cleaning up"
        );
        return Ok(Claim::Goes("IPAddressNotAllocated", message));
    }
    let (namespace, service) = parent(address);
    let since = address.str_at(&["metadata", "creationTimestamp"]).parse::<Timestamp>();
    let lives = since.map_or(SignedDuration::MAX, |since| now.duration_since(since));
    // A moment more, as it must have lived longer than that.
    let left = |grace: SignedDuration| {
        let left = grace.saturating_sub(lives).saturating_add(SignedDuration::from_millis(1));
        Claim::Waits(Duration::try_from(left).unwrap_or_default())
    };
    let Some(found) = objects.get(SERVICES, namespace, service)? else {
        if lives > GRACE {
            let message =
                format!("IPAddress: {own} for Service {namespace}/{service} appears to have leaked: cleaning up");
            return Ok(Claim::Goes("IPAddressNotAllocated", message));
        }
        return Ok(left(GRACE));
    };
    if Spec(&found).cluster_ips().iter().any(|ip| ip == own) {
        return Ok(Claim::Stays);
    }
    if lives <= WRITE_GRACE {
        return Ok(left(WRITE_GRACE));
    }
    let message = format!("IPAddress: {own} for Service {namespace}/{service} has a wrong reference; cleaning up");
    Ok(Claim::Goes("IPAddressWrongReference", message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{Held, map};

    fn address(name: &str, parent: &str, labels: &str) -> Map {
        map(&format!(
            "{{metadata: {{name: {name}, creationTimestamp: '2026-01-01T00:00:00Z', labels: {{{labels}}}}}, spec: {{parentRef: {parent}}}}}"
        ))
    }

    const OURS: &str =
        "ipaddress.kubernetes.io/managed-by: ipallocator.k8s.io, ipaddress.kubernetes.io/ip-family: IPv4";

    fn of(service: &str) -> String {
        format!("{{resource: services, namespace: ns, name: {service}}}")
    }

    fn service(name: &str, ip: &str) -> Map {
        map(&format!("{{metadata: {{namespace: ns, name: {name}}}, spec: {{clusterIP: {ip}, clusterIPs: ['{ip}']}}}}"))
    }

    /// What is found of a Service `s` with this address, its claim, and another Service: reason and message, and the mend.
    fn found(ip: &str, claim: Option<Map>, other: Option<Map>) -> Option<(String, String)> {
        let held = Held::default();
        claim.into_iter().for_each(|claim| held.put(IP_ADDRESSES, claim));
        other.into_iter().for_each(|other| held.put(SERVICES, other));
        let ranges = [AddressRange::parse("10.0.0.0/24").expect("a range")];
        let mut findings = of_service(&service("s", ip), &ranges, &held).expect("readable");
        assert!(findings.len() < 2);
        let Finding { event, mend } = findings.pop()?;
        let said = event.map_or(String::new(), |(reason, message)| format!("{reason}: {message}"));
        let mend = match mend {
            Mend::Tell => "tell".to_owned(),
            Mend::Claim(ip) => format!("claim {ip}"),
            Mend::Replace(ip, _) => format!("replace {ip}"),
        };
        Some((said, mend))
    }

    #[test]
    fn each_address_of_a_service_has_its_claim() {
        const IP: &str = "10.0.0.9";
        assert_eq!(found(IP, Some(address(IP, &of("s"), OURS)), None), None);
        assert_eq!(found("None", None, None), None);
        let says = |claim: Option<Map>, other: Option<Map>| found(IP, claim, other).expect("something is wrong");
        let not_allocated = "ClusterIPNotAllocated: Cluster IP [IPv4]: 10.0.0.9 is not allocated; repairing";
        assert_eq!(says(None, None), (not_allocated.into(), "claim 10.0.0.9".into()));
        let wrong =
            "ClusterIPNotAllocated: the ClusterIP [IPv4]: 10.0.0.9 for Service ns/s has a wrong reference; repairing";
        let gateway = address(IP, "{group: g, resource: gateways, name: s, namespace: ns}", OURS);
        assert_eq!(says(Some(gateway), None), (wrong.into(), "replace 10.0.0.9".into()));
        let gone = address(IP, &of("gone"), OURS);
        assert_eq!(says(Some(gone.clone()), None), (wrong.into(), "replace 10.0.0.9".into()));
        let both = "ClusterIPAlreadyAllocated: Cluster IP [IPv4]:10.0.0.9 was assigned to multiple services; please recreate service";
        assert_eq!(says(Some(gone.clone()), Some(service("gone", IP))), (both.into(), "tell".into()));
        assert_eq!(found(IP, Some(gone), Some(service("gone", "10.0.0.8"))), None);
        for labels in ["", "ipaddress.kubernetes.io/managed-by: ipallocator.k8s.io"] {
            let unlabelled = address(IP, &of("s"), labels);
            assert_eq!(says(Some(unlabelled), None), (String::new(), "replace 10.0.0.9".into()));
        }
        let outside = found("10.1.0.1", None, None).expect("outside");
        let why = "Cluster IP [IPv4]: 10.1.0.1 is not within any configured Service CIDR; please recreate service";
        assert_eq!(outside, (format!("ClusterIPOutOfRange: {why}"), "tell".into()));
        let invalid = "ClusterIPNotValid: Cluster IP <nil> is not a valid IP; please recreate Service";
        assert_eq!(found("x", None, None), Some((invalid.into(), "tell".into())));
    }

    #[test]
    fn claims_of_nobody_go() {
        const IP: &str = "10.0.0.9";
        let judged = |claim: Map, other: Option<Map>, second: i64| {
            let held = Held::default();
            other.into_iter().for_each(|other| held.put(SERVICES, other));
            let now = "2026-01-01T00:00:00Z".parse::<Timestamp>().expect("a time") + SignedDuration::from_secs(second);
            of_address(&claim, &held, now).expect("readable")
        };
        let claim = || address(IP, &of("s"), OURS);
        assert_eq!(judged(claim(), Some(service("s", IP)), 90), Claim::Stays);
        assert_eq!(judged(address(IP, &of("s"), ""), None, 90), Claim::Stays);
        assert_eq!(judged(claim(), None, 20), Claim::Waits(Duration::from_millis(40_001)));
        let leaked = "IPAddress: 10.0.0.9 for Service ns/s appears to have leaked: cleaning up";
        assert_eq!(judged(claim(), None, 61), Claim::Goes("IPAddressNotAllocated", leaked.into()));
        let wrong = "IPAddress: 10.0.0.9 for Service ns/s has a wrong reference; cleaning up";
        let other = Some(service("s", "10.0.0.8"));
        assert_eq!(judged(claim(), other.clone(), 2), Claim::Waits(Duration::from_millis(3_001)));
        assert_eq!(judged(claim(), other, 6), Claim::Goes("IPAddressWrongReference", wrong.into()));
        let gateway = address(IP, "{group: g, resource: gateways, name: s, namespace: ns}", OURS);
        let modified = "IPAddress 10.0.0.9 appears to have been modified, not referencing a Service \
                        &ParentReference{Group:g,Resource:gateways,Namespace:ns,Name:s,}: cleaning up";
        assert_eq!(judged(gateway, None, 0), Claim::Goes("IPAddressNotAllocated", modified.into()));
    }
}
