//! Amounts of resources as integers: CPU in thousandths, the rest in units.

use api::Quantity;
use std::collections::BTreeMap;

/// What scoring assumes of a container that asks for nothing.
pub(crate) const DEFAULT_CPU_MILLI: i64 = 100;
pub(crate) const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// Amounts of every resource; those that are nearly always asked for in fields of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub cpu_milli: i64,
    pub memory: i64,
    pub ephemeral_storage: i64,
    /// Extended resources and huge pages, by name.
    pub others: BTreeMap<Box<str>, i64>,
}

/// A resource list as the API has it.
pub(crate) type List = BTreeMap<String, String>;

impl Resources {
    /// Reads a resource list; amounts that can't be read count as nothing (the API server refuses them).
    pub(crate) fn of(list: &List) -> Self {
        let mut resources = Resources::default();
        for (name, amount) in list {
            let Ok(quantity) = Quantity::parse(amount) else { continue };
            match name.as_str() {
                "cpu" => resources.cpu_milli = quantity.milli_value(),
                "memory" => resources.memory = quantity.value(),
                "ephemeral-storage" => resources.ephemeral_storage = quantity.value(),
                "pods" => {}
                other => {
                    resources.others.insert(other.into(), quantity.value());
                }
            }
        }
        resources
    }

    pub(crate) fn add(&mut self, other: &Resources) {
        self.each(other, |a, b| a.saturating_add(b));
    }
    pub(crate) fn subtract(&mut self, other: &Resources) {
        self.each(other, |a, b| a.saturating_sub(b));
        self.others.retain(|_, amount| *amount != 0);
    }
    pub(crate) fn max(&mut self, other: &Resources) {
        self.each(other, i64::max);
    }

    /// Whether less is asked for of something than `other` asks for.
    pub(crate) fn is_below(&self, other: &Resources) -> bool {
        let own = |name| self.others.get(name).copied().unwrap_or(0);
        self.cpu_milli < other.cpu_milli
            || self.memory < other.memory
            || self.ephemeral_storage < other.ephemeral_storage
            || other.others.iter().any(|(name, amount)| own(name) < *amount)
    }

    /// Takes over what counts of a pod as a whole, of what it asks for as such: CPU, memory and huge pages.
    fn set_of_pod(&mut self, asked: &List, counted: &Resources) {
        for name in asked.keys() {
            match name.as_str() {
                "cpu" => self.cpu_milli = counted.cpu_milli,
                "memory" => self.memory = counted.memory,
                huge if huge.starts_with("hugepages-") => {
                    self.others.insert(huge.into(), counted.others.get(huge).copied().unwrap_or(0));
                }
                _ => {}
            }
        }
    }

    fn each(&mut self, other: &Resources, combine: impl Fn(i64, i64) -> i64) {
        self.cpu_milli = combine(self.cpu_milli, other.cpu_milli);
        self.memory = combine(self.memory, other.memory);
        self.ephemeral_storage = combine(self.ephemeral_storage, other.ephemeral_storage);
        for (name, amount) in &other.others {
            let slot = self.others.entry(name.clone()).or_insert(0);
            *slot = combine(*slot, *amount);
        }
    }
}

/// What a node must have free for a pod: the containers together, or an init container if one asks for more, with the
/// sidecars started before it; what the pod asks for as a whole, and counts of that, takes its place (KEP-2837); and the
/// overhead (KEP-753, `resourcehelper.PodRequests`).
pub(crate) fn pod_requests(
    containers: &[Resources],
    inits: &[(Resources, bool)],
    (asked, counted): (&List, &Resources),
    overhead: &Resources,
) -> Resources {
    let mut total = Resources::default();
    for container in containers {
        total.add(container);
    }
    let mut sidecars = Resources::default();
    let mut peak = Resources::default();
    for (requests, sidecar) in inits {
        if *sidecar {
            sidecars.add(requests);
            total.add(requests);
            peak.max(&sidecars);
        } else {
            let mut with_sidecars = sidecars.clone();
            with_sidecars.add(requests);
            peak.max(&with_sidecars);
        }
    }
    total.max(&peak);
    total.set_of_pod(asked, counted);
    total.add(overhead);
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(milli: i64) -> Resources {
        Resources { cpu_milli: milli, ..Resources::default() }
    }

    #[test]
    fn init_containers_count_by_their_peak_and_sidecars_throughout() {
        let requests = |containers: &[i64], inits: &[(i64, bool)]| {
            let containers: Vec<_> = containers.iter().map(|c| cpu(*c)).collect();
            let inits: Vec<_> = inits.iter().map(|(c, s)| (cpu(*c), *s)).collect();
            pod_requests(&containers, &inits, (&List::new(), &cpu(0)), &cpu(1)).cpu_milli
        };
        assert_eq!(requests(&[100, 200], &[]), 301);
        assert_eq!(requests(&[100, 200], &[(500, false)]), 501);
        assert_eq!(requests(&[100, 200], &[(50, true), (270, false)]), 351);
        assert_eq!(requests(&[100], &[(50, true), (270, false)]), 321);
    }
}
