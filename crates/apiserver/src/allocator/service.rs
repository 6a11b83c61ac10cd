//! What a Service is given: IP families, cluster IPs, node ports and a health check port, decided purely.
//!
//! [`plan`] fills in the object and says what must be claimed and what is given back; whoever writes the object claims and
//! releases in the same transaction, so a refused or abandoned write leaves nothing behind. Input that only validation can
//! judge is left as it is, without a claim, for validation to refuse.

use super::range::{AddressRange, Family, PoolError, PortRange};
use api::field::{FieldError, Path, Raw, go_quote};
use api::{GroupKind, Reason, Status};
use schema::{Map, Value};
use std::net::IpAddr;

const SPEC: Path<'static> = Path::root("spec");
const NONE: &str = "None";

/// Where Services draw from.
#[derive(Clone, Debug)]
pub struct Pools {
    /// The families of the cluster, the default one first.
    pub families: Vec<Family>,
    /// The ranges that addresses are given from, in the order they are tried in.
    pub addresses: Vec<AddressRange>,
    pub ports: PortRange,
}

/// What is held already, by any Service.
pub trait Taken {
    fn address(&self, address: IpAddr) -> bool;
    fn port(&self, port: u16) -> bool;
}

/// What a write claims and gives back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    pub claim_addresses: Vec<IpAddr>,
    pub release_addresses: Vec<IpAddr>,
    pub claim_ports: Vec<u16>,
    pub release_ports: Vec<u16>,
}

impl Claims {
    pub fn is_empty(&self) -> bool {
        *self == Claims::default()
    }
}

/// A Service's spec, read leniently.
struct Spec<'a>(&'a Map);

impl<'a> Spec<'a> {
    fn str(&self, key: &str) -> &'a str {
        self.0.str_at(&["spec", key])
    }
    fn kind(&self) -> &'a str {
        match self.str("type") {
            "" => "ClusterIP",
            kind => kind,
        }
    }
    fn strings(&self, key: &str) -> Vec<String> {
        let list = self.0.at(&["spec", key]).and_then(Value::as_list).unwrap_or_default();
        list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }
    fn number(&self, key: &str) -> u16 {
        let value = self.0.at(&["spec", key]).and_then(Value::as_i64).unwrap_or(0);
        u16::try_from(value).unwrap_or(0)
    }
    fn cluster_ips(&self) -> Vec<String> {
        self.strings("clusterIPs")
    }
    fn families(&self) -> Vec<Family> {
        self.strings("ipFamilies").iter().filter_map(|f| Family::parse(f)).collect()
    }
    fn ports(&self) -> &'a [Value] {
        self.0.at(&["spec", "ports"]).and_then(Value::as_list).unwrap_or_default()
    }
    fn node_ports(&self) -> Vec<u16> {
        self.ports().iter().map(node_port).filter(|p| *p != 0).collect()
    }
    fn selects_nothing(&self) -> bool {
        self.0.at(&["spec", "selector"]).and_then(Value::as_map).is_none_or(Map::is_empty)
    }
    fn needs_cluster_ip(&self) -> bool {
        matches!(self.kind(), "ClusterIP" | "NodePort" | "LoadBalancer")
    }
    fn may_have_node_ports(&self) -> bool {
        matches!(self.kind(), "NodePort" | "LoadBalancer")
    }
    fn needs_node_ports(&self) -> bool {
        let wanted = || self.0.at(&["spec", "allocateLoadBalancerNodePorts"]).and_then(Value::as_bool).unwrap_or(true);
        self.kind() == "NodePort" || self.kind() == "LoadBalancer" && wanted()
    }
    fn needs_health_check(&self) -> bool {
        self.kind() == "LoadBalancer" && self.str("externalTrafficPolicy") == "Local"
    }
    fn headless(&self) -> bool {
        self.str("clusterIP") == NONE || self.cluster_ips().first().is_some_and(|ip| ip == NONE)
    }
}

fn node_port(port: &Value) -> u16 {
    let number = port.as_map().and_then(|p| p.get("nodePort")).and_then(Value::as_i64).unwrap_or(0);
    u16::try_from(number).unwrap_or(0)
}

fn port_str<'a>(port: &'a Value, key: &str) -> &'a str {
    port.as_map().map_or("", |p| p.str_at(&[key]))
}

fn set_strings<S: AsRef<str>>(service: &mut Map, key: &'static str, list: &[S]) {
    if list.is_empty() {
        service.remove_at(&["spec", key]);
    } else {
        service.set_at(&["spec", key], list.iter().map(|s| Value::from(s.as_ref())).collect::<Vec<_>>());
    }
}

fn set_node_port(service: &mut Map, index: usize, port: u16) {
    let ports = service.at_mut(&["spec", "ports"]).and_then(Value::as_list_mut);
    if let Some(entry) = ports.and_then(|p| p.get_mut(index)).and_then(Value::as_map_mut) {
        match port {
            0 => entry.remove("nodePort"),
            port => entry.insert("nodePort", i64::from(port)),
        };
    }
}

fn shown_list(list: &[String]) -> Raw {
    Raw(format!("[{}]", list.iter().map(|s| go_quote(s)).collect::<Vec<_>>().join(",")))
}

fn invalid(service: &Map, errors: &[FieldError]) -> Status {
    Status::invalid(&GroupKind::new("", "Service"), service.str_at(&["metadata", "name"]), errors)
}

/// One write being planned.
struct Planner<'a> {
    pools: &'a Pools,
    taken: &'a dyn Taken,
    random: &'a mut dyn FnMut() -> u64,
    claims: Claims,
}

/// Fills in what the server gives to a Service that is created (`before` is `None`) or updated.
///
/// Refuses what is asked for and taken, out of range or not configured, in upstream's words.
pub fn plan(
    pools: &Pools,
    taken: &dyn Taken,
    random: &mut dyn FnMut() -> u64,
    after: &mut Map,
    before: Option<&Map>,
) -> Result<Claims, Status> {
    if let Some(before) = before {
        keep_allocated(after, before);
    }
    normalize_cluster_ips(after, before);
    let mut planner = Planner { pools, taken, random, claims: Claims::default() };
    if well_formed(after) {
        planner.families(after, before)?;
        match before {
            None => {
                planner.allocate_addresses(after)?;
                planner.create_ports(after)?;
            }
            Some(before) => {
                planner.update_addresses(after, before)?;
                planner.update_ports(after, before)?;
            }
        }
    }
    if let Some(before) = before {
        drop_dependent(after, before);
    }
    Ok(planner.claims)
}

/// What a deleted Service gives back.
pub fn release(service: &Map) -> Claims {
    let spec = Spec(service);
    let mut claims = Claims::default();
    if spec.kind() != "ExternalName" && !spec.headless() {
        claims.release_addresses = spec.cluster_ips().iter().filter_map(|ip| ip.parse().ok()).collect();
    }
    claims.release_ports = spec.node_ports();
    if spec.needs_health_check() && spec.number("healthCheckNodePort") != 0 {
        claims.release_ports.push(spec.number("healthCheckNodePort"));
    }
    claims.release_ports.sort_unstable();
    claims.release_ports.dedup();
    claims
}

/// Whether addresses, families and policy can be reasoned about at all.
fn well_formed(service: &Map) -> bool {
    let spec = Spec(service);
    let ips = spec.cluster_ips();
    let (named, families) = (spec.strings("ipFamilies"), spec.families());
    let readable = ips.iter().all(|ip| ip == NONE && ips.len() == 1 || ip.parse::<IpAddr>().is_ok());
    let distinct = |a: Option<Family>, b: Option<Family>| a.is_none() || b.is_none() || a != b;
    let family_of = |i: usize| ips.get(i).and_then(|ip| ip.parse().ok()).map(Family::of);
    let matching = (0..ips.len()).all(|i| families.get(i).is_none_or(|f| family_of(i).is_none_or(|of| of == *f)));
    readable
        && matching
        && ips.len() <= 2
        && named.len() == families.len()
        && families.len() <= 2
        && distinct(family_of(0), family_of(1))
        && distinct(families.first().copied(), families.get(1).copied())
        && ips.first().is_none_or(|first| first == spec.str("clusterIP"))
        && matches!(spec.str("ipFamilyPolicy"), "" | "SingleStack" | "PreferDualStack" | "RequireDualStack")
}

/// What an update leaves out of the values the server gave stays as it was.
fn keep_allocated(after: &mut Map, before: &Map) {
    let (old, new) = (Spec(before), Spec(after));
    if old.needs_cluster_ip() && new.needs_cluster_ip() {
        let (old_ip, new_ip, no_list) =
            (old.str("clusterIP"), new.str("clusterIP").to_owned(), new.cluster_ips().is_empty());
        if new_ip.is_empty() && !old_ip.is_empty() {
            after.set_at(&["spec", "clusterIP"], old_ip);
        }
        if no_list && (new_ip.is_empty() || new_ip == old_ip) {
            set_strings(after, "clusterIPs", &old.cluster_ips());
        }
    }
    let new = Spec(after);
    if old.needs_node_ports() && new.needs_node_ports() {
        let mut used: Vec<u16> = old.node_ports().into_iter().filter(|p| new.node_ports().contains(p)).collect();
        let missing: Vec<(usize, String)> = new
            .ports()
            .iter()
            .enumerate()
            .filter(|(_, p)| node_port(p) == 0)
            .map(|(i, p)| (i, port_str(p, "name").to_owned()))
            .collect();
        for (index, name) in missing {
            let known = old.ports().iter().rev().find(|p| port_str(p, "name") == name).map_or(0, node_port);
            if known != 0 && !used.contains(&known) {
                set_node_port(after, index, known);
                used.push(known);
            }
        }
    }
    let new = Spec(after);
    if old.needs_health_check() && new.needs_health_check() && new.number("healthCheckNodePort") == 0 {
        after.set_at(&["spec", "healthCheckNodePort"], i64::from(old.number("healthCheckNodePort")));
    }
}

/// Brings `clusterIP` and `clusterIPs` together where a client knows only one of them.
fn normalize_cluster_ips(after: &mut Map, before: Option<&Map>) {
    let new = Spec(after);
    let (ip, ips) = (new.str("clusterIP").to_owned(), new.cluster_ips());
    let Some(before) = before else {
        if !ip.is_empty() && ips.is_empty() {
            set_strings(after, "clusterIPs", &[ip]);
        }
        return;
    };
    let old = Spec(before);
    let (old_ip, old_ips) = (old.str("clusterIP"), old.cluster_ips());
    if !old_ips.is_empty() && ips.is_empty() && old_ip == ip {
        set_strings(after, "clusterIPs", &old_ips);
    }
    if old_ip != ip && ips == old_ips {
        let cleared = if ip.is_empty() { Vec::new() } else { vec![ip] };
        set_strings(after, "clusterIPs", &cleared);
    }
}

/// Whether a service that prefers two families is left as it is, so that a cluster's change does not change it unasked.
fn unchanged_preferring(after: &Map, before: Option<&Map>) -> bool {
    let Some(before) = before else { return false };
    let (old, new) = (Spec(before), Spec(after));
    let prefers = |policy: &str| policy == "PreferDualStack";
    old.kind() == new.kind()
        && new.needs_cluster_ip()
        && prefers(new.str("ipFamilyPolicy"))
        && (old.str("ipFamilyPolicy").is_empty() || prefers(old.str("ipFamilyPolicy")))
        && old.cluster_ips() == new.cluster_ips()
        && old.families() == new.families()
}

impl Planner<'_> {
    fn configured(&self, family: Family) -> bool {
        self.pools.families.contains(&family)
    }

    /// Settles `ipFamilyPolicy` and `ipFamilies`.
    fn families(&self, after: &mut Map, before: Option<&Map>) -> Result<(), Status> {
        if Spec(after).kind() == "ExternalName" || unchanged_preferring(after, before) {
            return Ok(());
        }
        let spec = Spec(after);
        let bare = spec.str("clusterIP") == NONE && spec.selects_nothing();
        if spec.str("ipFamilyPolicy").is_empty() {
            let inherited = before.map(|b| Spec(b).str("ipFamilyPolicy")).filter(|p| !p.is_empty());
            let policy = inherited.unwrap_or(if bare { "RequireDualStack" } else { "SingleStack" }).to_owned();
            after.set_at(&["spec", "ipFamilyPolicy"], policy);
        }
        let spec = Spec(after);
        let policy = spec.str("ipFamilyPolicy").to_owned();
        let (mut ips, mut families) = (spec.cluster_ips(), spec.families());
        let mut errors = Vec::new();
        let policy_path = SPEC.child("ipFamilyPolicy");
        let mut refuse_policy = |why: &str| errors.push(FieldError::invalid(&policy_path, policy.as_str(), why));
        if let Some(before) = before {
            let old = Spec(before);
            if policy == "SingleStack" {
                if ips == old.cluster_ips() {
                    ips.truncate(1);
                }
                if families == old.families() {
                    families.truncate(1);
                }
            } else {
                if !ips.is_empty() && ips.len() < old.cluster_ips().len() {
                    refuse_policy("must be 'SingleStack' to release the secondary cluster IP");
                }
                if !families.is_empty() && families.len() < old.families().len() {
                    refuse_policy("must be 'SingleStack' to release the secondary IP family");
                }
            }
        }
        if policy == "SingleStack" {
            if ips.len() == 2 {
                refuse_policy(
                    "must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified",
                );
            }
            if families.len() == 2 {
                refuse_policy(
                    "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified",
                );
            }
        }
        for (i, ip) in ips.iter().enumerate().skip(families.len()) {
            let Ok(address) = ip.parse::<IpAddr>() else { break };
            let family = Family::of(address);
            if self.configured(family) {
                families.push(family);
            } else {
                let why = format!("{} is not configured on this cluster", family.as_str());
                errors.push(FieldError::invalid(&SPEC.child("clusterIPs").index(i), shown_list(&ips), why));
            }
        }
        if !errors.is_empty() {
            return Err(invalid(after, &errors));
        }
        let default = self.pools.families.first().copied().unwrap_or(Family::V4);
        if !bare {
            if policy == "RequireDualStack" && self.pools.families.len() < 2 {
                let why = "this cluster is not configured for dual-stack services";
                errors.push(FieldError::invalid(&policy_path, policy.as_str(), why));
            }
            for (i, family) in families.iter().enumerate().filter(|(_, f)| !self.configured(**f)) {
                let path = SPEC.child("ipFamilies");
                errors.push(FieldError::invalid(&path.index(i), family.as_str(), "not configured on this cluster"));
            }
            if !errors.is_empty() {
                return Err(invalid(after, &errors));
            }
        }
        if families.is_empty() {
            families.push(default);
        }
        if let [only] = families[..]
            && policy != "SingleStack"
            && (bare || self.pools.families.len() == 2)
        {
            families.push(only.other());
        }
        set_strings(after, "clusterIPs", &ips);
        let names: Vec<&str> = families.iter().map(|f| f.as_str()).collect();
        set_strings(after, "ipFamilies", &names);
        Ok(())
    }

    /// Claims the address at `index`, or chooses one where none is given.
    fn address(&mut self, service: &Map, family: Family, given: &str) -> Result<IpAddr, Status> {
        let (own, held) = (&self.claims.claim_addresses, self.taken);
        let taken = |a: IpAddr| held.address(a) || own.contains(&a);
        let mut ranges = self.pools.addresses.iter().filter(|r| r.family() == family);
        let address = if given.is_empty() {
            let random = (self.random)();
            let chosen = ranges.find_map(|range| range.choose(random, taken).ok()).ok_or(PoolError::Full);
            chosen.map_err(|e| Status::internal(format!("failed to allocate a serviceIP: {e}")))?
        } else {
            let refuse = |e: &dyn std::fmt::Display| {
                let why = format!("failed to allocate IP {given}: {e}");
                invalid(
                    service,
                    &[FieldError::invalid(&SPEC.child("clusterIPs"), shown_list(&Spec(service).cluster_ips()), why)],
                )
            };
            let address: IpAddr = given.parse().map_err(|e: std::net::AddrParseError| refuse(&e))?;
            let range = ranges.find(|range| range.contains(address)).ok_or(PoolError::AddressOutside);
            range.and_then(|range| range.check(address, taken)).map_err(|e| refuse(&e))?;
            address
        };
        self.claims.claim_addresses.push(address);
        Ok(address)
    }

    /// Gives every family its address.
    fn allocate_addresses(&mut self, after: &mut Map) -> Result<(), Status> {
        let spec = Spec(after);
        if spec.kind() == "ExternalName" || spec.headless() {
            return Ok(());
        }
        let (mut ips, families) = (spec.cluster_ips(), spec.families());
        for (i, family) in families.into_iter().enumerate() {
            let given = ips.get(i).cloned().unwrap_or_default();
            let address = self.address(after, family, &given)?;
            if given.is_empty() {
                ips.push(address.to_string());
            }
        }
        if let Some(first) = ips.first() {
            after.set_at(&["spec", "clusterIP"], first.as_str());
        }
        set_strings(after, "clusterIPs", &ips);
        Ok(())
    }

    fn update_addresses(&mut self, after: &mut Map, before: &Map) -> Result<(), Status> {
        if unchanged_preferring(after, Some(before)) {
            return Ok(());
        }
        let (old, new) = (Spec(before), Spec(after));
        let external = |s: &Spec<'_>| s.kind() == "ExternalName";
        if external(&old) && !external(&new) {
            return self.allocate_addresses(after);
        }
        if old.cluster_ips().first().is_some_and(|ip| ip == NONE) {
            return Ok(());
        }
        let parse = |ip: &String| ip.parse::<IpAddr>().ok();
        if !external(&old) && external(&new) {
            self.claims.release_addresses.extend(old.cluster_ips().iter().filter_map(parse));
            return Ok(());
        }
        match (old.families().len(), new.families().len()) {
            (1, 2) => {
                let mut ips = new.cluster_ips();
                let (family, given) = (new.families()[1], ips.get(1).cloned().unwrap_or_default());
                let address = self.address(after, family, &given)?;
                if given.is_empty() {
                    ips.push(address.to_string());
                }
                set_strings(after, "clusterIPs", &ips);
            }
            (2, 1) => self.claims.release_addresses.extend(old.cluster_ips().get(1).and_then(parse)),
            _ => {}
        }
        Ok(())
    }

    fn is_taken(&self, port: u16) -> bool {
        self.taken.port(port) || self.claims.claim_ports.contains(&port)
    }

    /// Claims a port that was asked for.
    fn claim_port(&mut self, port: u16) -> Result<(), PoolError> {
        self.pools.ports.check(port, |p| self.is_taken(p))?;
        self.claims.claim_ports.push(port);
        Ok(())
    }

    fn claim_node_port(&mut self, service: &Map, index: usize, port: u16) -> Result<(), Status> {
        self.claim_port(port).map_err(|e| {
            let ports = SPEC.child("ports");
            invalid(
                service,
                &[FieldError::invalid(&ports.index(index).child("nodePort"), i64::from(port), e.to_string())],
            )
        })
    }

    fn choose_port(&mut self) -> Result<u16, PoolError> {
        let random = (self.random)();
        let port = self.pools.ports.choose(random, |p| self.is_taken(p))?;
        self.claims.claim_ports.push(port);
        Ok(port)
    }

    fn choose_node_port(&mut self) -> Result<u16, Status> {
        self.choose_port().map_err(|e| Status::internal(format!("failed to allocate a nodePort: {e}")))
    }

    fn health_check_port(&mut self, after: &mut Map) -> Result<(), Status> {
        let asked = Spec(after).number("healthCheckNodePort");
        if asked != 0 {
            return self.claim_port(asked).map_err(|e| {
                Status::internal(format!("failed to allocate requested HealthCheck NodePort {asked}: {e}"))
            });
        }
        let port = self
            .choose_port()
            .map_err(|e| Status::internal(format!("failed to allocate a HealthCheck NodePort 0: {e}")))?;
        after.set_at(&["spec", "healthCheckNodePort"], i64::from(port));
        Ok(())
    }

    fn create_ports(&mut self, after: &mut Map) -> Result<(), Status> {
        if Spec(after).may_have_node_ports() {
            let give = Spec(after).needs_node_ports();
            let number = |p: &Value| p.as_map().and_then(|p| p.get("port")).and_then(Value::as_i64).unwrap_or(0);
            let ports: Vec<(i64, u16)> = Spec(after).ports().iter().map(|p| (number(p), node_port(p))).collect();
            // Entries of one port number (TCP and UDP, say) share one node port.
            let mut given: Vec<(i64, u16)> = Vec::new();
            for (i, (port, asked)) in ports.iter().copied().enumerate() {
                if asked == 0 && !give {
                    continue;
                }
                let shared = given.iter().find(|(p, _)| *p == port).map(|(_, node)| *node);
                match shared {
                    None => {
                        let wanted =
                            ports.iter().find(|(p, node)| *p == port && *node != 0).map_or(0, |(_, node)| *node);
                        let node = if wanted != 0 {
                            self.claim_node_port(after, i, wanted)?;
                            wanted
                        } else {
                            self.choose_node_port()?
                        };
                        set_node_port(after, i, node);
                        given.push((port, node));
                    }
                    Some(node) if asked == 0 => set_node_port(after, i, node),
                    Some(node) if asked != node => self.claim_node_port(after, i, asked)?,
                    Some(_) => {}
                }
            }
        }
        if Spec(after).needs_health_check() { self.health_check_port(after) } else { Ok(()) }
    }

    fn update_ports(&mut self, after: &mut Map, before: &Map) -> Result<(), Status> {
        let old_ports = Spec(before).node_ports();
        let (had, has) = (Spec(before).may_have_node_ports(), Spec(after).may_have_node_ports());
        if had && !has {
            self.claims.release_ports.extend(&old_ports);
        }
        if has {
            let give = Spec(after).needs_node_ports();
            let ports: Vec<(String, u16)> =
                Spec(after).ports().iter().map(|p| (port_str(p, "protocol").to_owned(), node_port(p))).collect();
            let mut seen: Vec<(String, u16)> = Vec::new();
            for (i, (protocol, asked)) in ports.into_iter().enumerate() {
                if asked == 0 && !give {
                    continue;
                }
                let port = if asked == 0 {
                    let port = self.choose_node_port()?;
                    set_node_port(after, i, port);
                    port
                } else {
                    if !old_ports.contains(&asked) && !self.claims.claim_ports.contains(&asked) {
                        self.claim_node_port(after, i, asked)?;
                    }
                    asked
                };
                if seen.iter().any(|(p, n)| *p == protocol && *n == port) {
                    return Err(Status::new(
                        500,
                        Reason::Unknown,
                        format!("duplicate nodePort: {{{protocol} {port}}}"),
                    ));
                }
                seen.push((protocol, port));
            }
            let kept = Spec(after).node_ports();
            self.claims.release_ports.extend(old_ports.iter().filter(|p| !kept.contains(p)));
        }
        match (Spec(before).needs_health_check(), Spec(after).needs_health_check()) {
            (false, true) => self.health_check_port(after)?,
            (true, false) => self.claims.release_ports.push(Spec(before).number("healthCheckNodePort")),
            _ => {}
        }
        self.claims.release_ports.sort_unstable();
        self.claims.release_ports.dedup();
        Ok(())
    }
}

/// Clears what the old type needed, the new one does not, and the client did not touch.
fn drop_dependent(after: &mut Map, before: &Map) {
    let (old, new) = (Spec(before), Spec(after));
    let same = |key: &str| after.at(&["spec", key]) == before.at(&["spec", key]);
    let mut dropped: Vec<&'static str> = Vec::new();
    if old.needs_cluster_ip() && !new.needs_cluster_ip() {
        if same("clusterIPs") {
            dropped.extend(["clusterIP", "clusterIPs"]);
        }
        dropped.extend(["ipFamilies", "ipFamilyPolicy"].into_iter().filter(|k| same(k)));
    }
    let load_balancer = |s: &Spec<'_>| s.kind() == "LoadBalancer";
    if load_balancer(&old) && !load_balancer(&new) {
        dropped.extend(["allocateLoadBalancerNodePorts", "loadBalancerClass"].into_iter().filter(|k| same(k)));
    }
    if old.needs_health_check() && !new.needs_health_check() && same("healthCheckNodePort") {
        dropped.push("healthCheckNodePort");
    }
    if old.may_have_node_ports() && !new.may_have_node_ports() && same("externalTrafficPolicy") {
        dropped.push("externalTrafficPolicy");
    }
    let node_ports_go = old.needs_node_ports() && !new.needs_node_ports() && old.node_ports() == new.node_ports();
    let count = new.ports().len();
    for key in dropped {
        after.remove_at(&["spec", key]);
    }
    if node_ports_go {
        (0..count).for_each(|i| set_node_port(after, i, 0));
    }
}
