//! What of the ranges is given, and how often something was given or could not be.

use super::range::{AddressRange, PortRange};
use crate::measure::{Family, Labels, head, series};
use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

/// How it was chosen what was asked of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// By the server.
    Dynamic,
    /// By who made the Service.
    Static,
}

impl Scope {
    /// Of what somebody asked for, or did not.
    pub const fn of(given: bool) -> Self {
        if given { Scope::Static } else { Scope::Dynamic }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Scope::Dynamic => "dynamic",
            Scope::Static => "static",
        }
    }
}

/// What a range could not give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// An address of this range.
    Address(String, Scope),
    Port(Scope),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct OfRange {
    cidr: String,
    scope: Scope,
}

impl Labels for OfRange {
    fn write(&self, out: &mut String) -> fmt::Result {
        write!(out, "cidr=\"{}\",scope=\"{}\"", self.cidr, self.scope.as_str())
    }
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Measures {
    addresses: Family<OfRange, AtomicU64>,
    address_errors: Family<OfRange, AtomicU64>,
    /// By scope.
    ports: [AtomicU64; 2],
    port_errors: [AtomicU64; 2],
    /// How many ports were taken when that was last seen.
    ports_taken: AtomicU64,
}

impl Measures {
    pub(super) fn gave_address(&self, cidr: &str, scope: Scope) {
        Self::count(&self.addresses, cidr, scope);
    }

    pub(super) fn gave_port(&self, scope: Scope) {
        self.ports[scope as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self, refused: &Refused) {
        match refused {
            Refused::Address(cidr, scope) => Self::count(&self.address_errors, cidr, *scope),
            Refused::Port(scope) => {
                self.port_errors[*scope as usize].fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn ports_taken(&self, count: usize) {
        self.ports_taken.store(count as u64, Ordering::Relaxed);
    }

    fn count(family: &Family<OfRange, AtomicU64>, cidr: &str, scope: Scope) {
        let key = OfRange { cidr: cidr.to_owned(), scope };
        family.with(&key, AtomicU64::default, |count| count.fetch_add(1, Ordering::Relaxed));
    }

    /// Writes all of it, with what is taken of the ranges that there are.
    pub(super) fn render(
        &self,
        out: &mut String,
        ranges: &[AddressRange],
        addresses: &[IpAddr],
        ports: PortRange,
    ) -> fmt::Result {
        let taken = |range: &AddressRange| addresses.iter().filter(|address| range.contains(**address)).count() as u128;
        let name = "kube_apiserver_clusterip_allocator_allocated_ips";
        head(out, name, "gauge", "[ALPHA] Gauge measuring the number of allocated IPs for Services")?;
        for range in ranges {
            series(out, name, &format!("cidr=\"{}\"", range.as_str()), taken(range))?;
        }
        let name = "kube_apiserver_clusterip_allocator_available_ips";
        head(out, name, "gauge", "[ALPHA] Gauge measuring the number of available IPs for Services")?;
        for range in ranges {
            let free = range.size().saturating_sub(taken(range));
            series(out, name, &format!("cidr=\"{}\"", range.as_str()), free)?;
        }
        for (name, help, family) in [
            ("allocation_total", "Number of Cluster IPs allocations", &self.addresses),
            ("allocation_errors_total", "Number of errors trying to allocate Cluster IPs", &self.address_errors),
        ] {
            let name = format!("kube_apiserver_clusterip_allocator_{name}");
            head(out, &name, "counter", &format!("[ALPHA] {help}"))?;
            for (of, count) in family.sorted() {
                let mut labels = String::new();
                of.write(&mut labels)?;
                series(out, &name, &labels, count.load(Ordering::Relaxed))?;
            }
        }
        let taken = self.ports_taken.load(Ordering::Relaxed);
        let name = "kube_apiserver_nodeport_allocator_allocated_ports";
        head(out, name, "gauge", "[ALPHA] Gauge measuring the number of allocated NodePorts for Services")?;
        series(out, name, "", taken)?;
        let name = "kube_apiserver_nodeport_allocator_available_ports";
        head(out, name, "gauge", "[ALPHA] Gauge measuring the number of available NodePorts for Services")?;
        series(out, name, "", (ports.size() as u64).saturating_sub(taken))?;
        for (name, help, counts) in [
            ("allocation_total", "Number of NodePort allocations", &self.ports),
            ("allocation_errors_total", "Number of errors trying to allocate NodePort", &self.port_errors),
        ] {
            let name = format!("kube_apiserver_nodeport_allocator_{name}");
            head(out, &name, "counter", &format!("[ALPHA] {help}"))?;
            for scope in [Scope::Dynamic, Scope::Static] {
                let count = counts[scope as usize].load(Ordering::Relaxed);
                if count > 0 {
                    series(out, &name, &format!("scope=\"{}\"", scope.as_str()), count)?;
                }
            }
        }
        Ok(())
    }
}
