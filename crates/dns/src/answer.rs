//! What a question is answered with: decided from the records, without IO.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::records::{Endpoint, ObjectName, Port, Records, Service};

/// The version of the naming scheme, as `dns-version.<zone>` tells it.
const SCHEMA_VERSION: &str = "1.1.0";

/// The Service through which pods ask.
const DNS_SERVICE: (&str, &str) = ("kube-system", "kube-dns");

/// What clients may remember.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ttls {
    /// For how many seconds an answer holds.
    pub positive: u32,
    /// For how many seconds the absence of a name or record holds.
    pub negative: u32,
}

/// The zone of the cluster.
#[derive(Clone, Debug)]
pub struct Zone {
    name: Name,
    ttls: Ttls,
}

/// What a question is answered with.
#[derive(Clone, PartialEq, Debug)]
pub enum Answer {
    /// The zone's own records, or its own word that there are none.
    Own(Own),
    /// An alias of something that this zone knows nothing about.
    Alias {
        /// The alias.
        alias: Box<Record>,
        /// What it stands for.
        target: Name,
    },
    /// Not this zone's business.
    Elsewhere,
    /// Not to be answered at all, by anyone.
    Refused,
}

/// Records of the zone itself.
#[derive(Clone, PartialEq, Debug)]
pub struct Own {
    /// No error, or that the name does not exist.
    pub code: ResponseCode,
    /// What was asked for.
    pub answers: Vec<Record>,
    /// The zone's SOA record when there is nothing to answer with.
    pub authorities: Vec<Record>,
    /// What the client will ask for next.
    pub additionals: Vec<Record>,
}

impl Zone {
    /// The zone of this name, such as `cluster.local`.
    ///
    /// # Errors
    /// When that is no domain name.
    pub fn new(domain: &str, ttls: Ttls) -> Result<Self, hickory_proto::ProtoError> {
        let mut name = Name::from_ascii(domain)?.to_lowercase();
        name.set_fqdn(true);
        Ok(Self { name, ttls })
    }

    fn own(&self, answers: Vec<Record>) -> Answer {
        Answer::Own(Own { code: ResponseCode::NoError, answers, authorities: Vec::new(), additionals: Vec::new() })
    }

    /// The name exists, but has no such records.
    fn no_data(&self) -> Answer {
        self.negative(ResponseCode::NoError)
    }

    /// The name does not exist.
    fn no_name(&self) -> Answer {
        self.negative(ResponseCode::NXDomain)
    }

    fn negative(&self, code: ResponseCode) -> Answer {
        let authorities = vec![self.soa(self.ttls.negative)];
        Answer::Own(Own { code, answers: Vec::new(), authorities, additionals: Vec::new() })
    }

    fn soa(&self, ttl: u32) -> Record {
        let (server, mailbox) = (self.below("ns.dns"), self.below("hostmaster"));
        // The serial would tell secondary servers of changes; there are none.
        let soa = SOA::new(server, mailbox, 1, 7200, 1800, 86_400, self.ttls.negative);
        Record::from_rdata(self.name.clone(), ttl, RData::SOA(soa))
    }

    /// The name of these labels in the zone. They come from API objects, whose names are valid labels; a
    /// name that would be too long is the zone's own.
    fn below(&self, labels: &str) -> Name {
        let name = Name::from_labels(labels.split('.').map(str::as_bytes));
        name.and_then(|name| name.append_domain(&self.name)).unwrap_or_else(|_| self.name.clone())
    }

    fn record(&self, name: &Name, data: RData) -> Record {
        Record::from_rdata(name.clone(), self.ttls.positive, data)
    }

    fn addresses(&self, name: &Name, ips: impl IntoIterator<Item = IpAddr>) -> Vec<Record> {
        ips.into_iter().map(|ip| self.record(name, address_data(ip))).collect()
    }

    /// What is left of the zone's name, in lower case and from the left; nothing when the name is not in
    /// the zone.
    fn labels_within(&self, name: &Name) -> Option<Vec<String>> {
        if !self.name.zone_of(name) {
            return None;
        }
        let count = usize::from(name.num_labels().saturating_sub(self.name.num_labels()));
        let label = |label: &[u8]| String::from_utf8_lossy(label).to_ascii_lowercase();
        Some(name.iter().take(count).map(label).collect())
    }
}

fn address_data(ip: IpAddr) -> RData {
    match ip {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    }
}

/// Answers a question. `turn` is a number that changes from question to question: of several addresses,
/// another one comes first each time.
pub fn answer(zone: &Zone, records: &Records, query: &Query, turn: usize) -> Answer {
    if !matches!(query.query_class(), DNSClass::IN | DNSClass::ANY) {
        return Answer::Refused;
    }
    if matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR) {
        return Answer::Refused;
    }
    let name = query.name();
    let mut answer = match zone.labels_within(name) {
        Some(labels) => {
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            within(zone, records, name, query.query_type(), &labels)
        }
        None => reverse(zone, records, name, query.query_type()),
    };
    if let Answer::Own(own) = &mut answer
        && own.answers.len() > 1
    {
        let first = turn % own.answers.len();
        own.answers.rotate_left(first);
    }
    answer
}

fn within(zone: &Zone, records: &Records, name: &Name, kind: RecordType, labels: &[&str]) -> Answer {
    match labels {
        [] => match kind {
            RecordType::SOA => zone.own(vec![zone.soa(zone.ttls.positive)]),
            RecordType::NS => zone.own(vec![zone.record(name, RData::NS(NS(zone.below("ns.dns"))))]),
            _ => zone.no_data(),
        },
        ["dns-version"] => match kind {
            RecordType::TXT => zone.own(vec![zone.record(name, RData::TXT(TXT::new(vec![SCHEMA_VERSION.into()])))]),
            _ => zone.no_data(),
        },
        ["svc" | "pod" | "dns"] => zone.no_data(),
        ["ns", "dns"] => {
            let dns = ObjectName { namespace: DNS_SERVICE.0.into(), name: DNS_SERVICE.1.into() };
            match records.service(&dns) {
                Some(Service::ClusterIp { ips, .. }) => of_kind(zone, kind, zone.addresses(name, ips.iter().copied())),
                _ => zone.no_data(),
            }
        }
        [namespace, "svc" | "pod"] if records.has_namespace(namespace) => zone.no_data(),
        [pod, namespace, "pod"] if records.has_namespace(namespace) => match parse_dashed(pod) {
            Some(ip) => of_kind(zone, kind, zone.addresses(name, [ip])),
            None => zone.no_name(),
        },
        [service, namespace, "svc"] => of_service(zone, records, name, kind, service, namespace, Part::Whole),
        [endpoint, service, namespace, "svc"] => {
            of_service(zone, records, name, kind, service, namespace, Part::Endpoint(endpoint))
        }
        [port, protocol, service, namespace, "svc"] => {
            let bare = |label: &'_ str| label.strip_prefix('_').unwrap_or(label).to_owned();
            of_service(zone, records, name, kind, service, namespace, Part::Port(&bare(port), &bare(protocol)))
        }
        _ => zone.no_name(),
    }
}

/// Which part of a Service is asked about.
#[derive(Clone, Copy)]
enum Part<'a> {
    Whole,
    Endpoint(&'a str),
    Port(&'a str, &'a str),
}

impl Part<'_> {
    fn has(self, port: &Port) -> bool {
        match self {
            Part::Port(name, protocol) => *port.name == *name && port.protocol == protocol,
            Part::Whole | Part::Endpoint(_) => true,
        }
    }
}

/// Something of a Service that has an address and a port: itself, or an endpoint.
struct Target {
    name: Name,
    ip: IpAddr,
    port: u16,
}

fn of_service(
    zone: &Zone,
    records: &Records,
    name: &Name,
    kind: RecordType,
    service: &str,
    namespace: &str,
    part: Part<'_>,
) -> Answer {
    let object = ObjectName { namespace: namespace.into(), name: service.into() };
    let targets = match records.service(&object) {
        None => return zone.no_name(),
        Some(Service::ExternalName(external)) => return alias(zone, name, external),
        Some(Service::ClusterIp { ips, ports }) if !matches!(part, Part::Endpoint(_)) => {
            let own = zone.below(&format!("{service}.{namespace}.svc"));
            let ports = ports.iter().filter(|port| part.has(port));
            let target = |port: &Port, ip: IpAddr| Target { name: own.clone(), ip, port: port.number };
            ports.flat_map(|port| ips.iter().map(move |ip| (port, *ip))).map(|(port, ip)| target(port, ip)).collect()
        }
        Some(Service::ClusterIp { .. } | Service::Headless) => endpoints(zone, records, &object, part),
    };
    if targets.is_empty() {
        return zone.no_name();
    }
    match kind {
        RecordType::SRV => services(zone, name, targets),
        _ => {
            let mut ips: Vec<IpAddr> = Vec::with_capacity(targets.len());
            let mut seen = std::collections::HashSet::with_capacity(targets.len());
            ips.extend(targets.iter().map(|target| target.ip).filter(|ip| seen.insert(*ip)));
            of_kind(zone, kind, zone.addresses(name, ips))
        }
    }
}

fn endpoints(zone: &Zone, records: &Records, service: &ObjectName, part: Part<'_>) -> Vec<Target> {
    let wanted = |endpoint: &&Endpoint| match part {
        Part::Endpoint(label) => endpoint.has_label(label),
        Part::Whole | Part::Port(..) => true,
    };
    let mut targets = Vec::new();
    for slice in records.slices(service) {
        let ports = || slice.ports.iter().filter(|port| part.has(port));
        for endpoint in slice.endpoints.iter().filter(wanted) {
            let name = || zone.below(&format!("{}.{}.{}.svc", endpoint.label(), service.name, service.namespace));
            targets.extend(ports().map(|port| Target { name: name(), ip: endpoint.ip, port: port.number }));
        }
    }
    targets
}

/// An SRV record for each target and port, and the addresses of the targets.
fn services(zone: &Zone, name: &Name, targets: Vec<Target>) -> Answer {
    let mut pairs: Vec<(&Name, u16)> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    pairs.extend(targets.iter().map(|t| (&t.name, t.port)).filter(|pair| pair.1 != 0 && seen.insert(*pair)));
    if pairs.is_empty() {
        return zone.no_data();
    }
    // All are alike: each gets its share of a hundred.
    let weight = u16::try_from((100 / pairs.len()).max(1)).unwrap_or(1);
    let srv = |(target, port): &(&Name, u16)| RData::SRV(SRV::new(0, weight, *port, (*target).clone()));
    let answers = pairs.iter().map(|pair| zone.record(name, srv(pair))).collect();
    let mut seen = std::collections::HashSet::new();
    let addresses = targets.iter().filter(|target| seen.insert((&target.name, target.ip)));
    let additionals = addresses.map(|target| zone.record(&target.name, address_data(target.ip))).collect();
    Answer::Own(Own { code: ResponseCode::NoError, answers, authorities: Vec::new(), additionals })
}

fn alias(zone: &Zone, name: &Name, external: &str) -> Answer {
    let Ok(mut target) = Name::from_ascii(external) else { return zone.no_data() };
    target.set_fqdn(true);
    let alias = Box::new(zone.record(name, RData::CNAME(CNAME(target.clone()))));
    Answer::Alias { alias, target }
}

/// The records of the kind that was asked for.
fn of_kind(zone: &Zone, kind: RecordType, mut records: Vec<Record>) -> Answer {
    records.retain(|record| record.record_type() == kind);
    if records.is_empty() { zone.no_data() } else { zone.own(records) }
}

/// The address that a label with dashes stands for, such as `10-244-0-7`.
fn parse_dashed(label: &str) -> Option<IpAddr> {
    let v4 = || label.replace('-', ".").parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    let v6 = || label.replace('-', ":").parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    v4().or_else(v6)
}

/// Answers about addresses of the cluster; others are not its business.
fn reverse(zone: &Zone, records: &Records, name: &Name, kind: RecordType) -> Answer {
    let Some(ip) = parse_reverse(name) else { return Answer::Elsewhere };
    let names: Vec<Name> = match records.service_at(ip) {
        Some(service) => vec![zone.below(&format!("{}.{}.svc", service.name, service.namespace))],
        None => records
            .endpoints_at(ip)
            .filter(|(service, e)| e.hostname.is_some() || records.service(service) == Some(&Service::Headless))
            .map(|(service, e)| zone.below(&format!("{}.{}.{}.svc", e.label(), service.name, service.namespace)))
            .collect(),
    };
    if names.is_empty() {
        return Answer::Elsewhere;
    }
    of_kind(zone, kind, names.into_iter().map(|target| zone.record(name, RData::PTR(PTR(target)))).collect())
}

/// The address that a name under `in-addr.arpa` or `ip6.arpa` is for; none when it is for a range.
fn parse_reverse(name: &Name) -> Option<IpAddr> {
    let labels: Vec<&[u8]> = name.iter().collect();
    let zone = labels.len().checked_sub(2)?;
    let is = |index: usize, text: &str| labels[index].eq_ignore_ascii_case(text.as_bytes());
    if !is(zone + 1, "arpa") {
        return None;
    }
    let text = |label: &&[u8]| std::str::from_utf8(label).ok().map(str::to_owned);
    let parts = labels[..zone].iter().rev().map(text).collect::<Option<Vec<String>>>()?;
    if is(zone, "in-addr") && parts.len() == 4 {
        return parts.join(".").parse().ok().map(IpAddr::V4);
    }
    if is(zone, "ip6") && parts.len() == 32 && parts.iter().all(|part| part.len() == 1) {
        let groups: Vec<String> = parts.chunks(4).map(|group| group.concat()).collect();
        return groups.join(":").parse().ok().map(IpAddr::V6);
    }
    None
}
