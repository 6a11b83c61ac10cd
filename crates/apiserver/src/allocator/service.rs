//! What a Service is given: IP families, cluster IPs, node ports and a health check port, decided purely.
//!
//! [`plan`] fills in the object and says what must be claimed and what is given back; whoever writes the object claims and
//! releases in the same transaction, so a refused or abandoned write leaves nothing behind. Input that only validation can
//! judge is left as it is, without a claim, for validation to refuse.

use super::keep::{drop_dependent, keep_allocated, normalize_cluster_ips, unchanged_preferring, well_formed};
use super::measures::{Refused, Scope};
use super::range::{AddressRange, Family, PoolError, PortRange};
use super::spec::{NONE, Spec, node_port, port_str, set_node_port, set_strings};
use api::field::{FieldError, Path, Raw, go_quote};
use api::{GroupKind, Reason, Status};
use schema::{Map, Value};
use std::net::IpAddr;

const SPEC: Path<'static> = Path::root("spec");

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
    /// Is told what could not be given.
    fn refused(&self, refused: Refused) {
        drop(refused);
    }
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
    // An ExternalName may name ports, and has none.
    if spec.may_have_node_ports() {
        claims.release_ports = spec.node_ports();
    }
    if spec.needs_health_check() && spec.number("healthCheckNodePort") != 0 {
        claims.release_ports.push(spec.number("healthCheckNodePort"));
    }
    claims.release_ports.sort_unstable();
    claims.release_ports.dedup();
    claims
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
            let first = ranges.clone().next().map(|range| range.as_str().to_owned());
            let chosen = ranges.find_map(|range| range.choose(random, taken).ok()).ok_or(PoolError::Full);
            if let (Err(_), Some(range)) = (&chosen, first) {
                held.refused(Refused::Address(range, Scope::Dynamic));
            }
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
            let checked = range.and_then(|range| {
                range.check(address, taken).inspect_err(|_| {
                    held.refused(Refused::Address(range.as_str().to_owned(), Scope::Static));
                })
            });
            checked.map_err(|e| refuse(&e))?;
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
        let checked = self.pools.ports.check(port, |p| self.is_taken(p));
        checked.inspect_err(|_| self.taken.refused(Refused::Port(Scope::Static)))?;
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
        let chosen = self.pools.ports.choose(random, |p| self.is_taken(p));
        let port = chosen.inspect_err(|_| self.taken.refused(Refused::Port(Scope::Dynamic)))?;
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
        let (had, has) = (Spec(before).may_have_node_ports(), Spec(after).may_have_node_ports());
        let old_ports = if had { Spec(before).node_ports() } else { Vec::new() };
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
