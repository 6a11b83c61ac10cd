//! Limits, from the CRI's form to the group's.

use cri::v1::LinuxContainerResources;

use crate::cgroup::{HugepageLimit, Resources};

/// The CRI's 0 means that nothing was said.
pub(crate) fn convert(r: &LinuxContainerResources) -> Resources {
    let said = |n: i64| Some(n).filter(|n| *n != 0);
    let text = |s: &str| Some(s.to_owned()).filter(|s| !s.is_empty());
    Resources {
        cpu_shares: said(r.cpu_shares).and_then(|n| u64::try_from(n).ok()),
        cpu_quota: said(r.cpu_quota),
        cpu_period: said(r.cpu_period).and_then(|n| u64::try_from(n).ok()),
        cpuset_cpus: text(&r.cpuset_cpus),
        cpuset_mems: text(&r.cpuset_mems),
        memory_limit: said(r.memory_limit_in_bytes),
        memory_swap_limit: said(r.memory_swap_limit_in_bytes),
        hugepage_limits: r
            .hugepage_limits
            .iter()
            .map(|h| HugepageLimit { page_size: h.page_size.clone(), limit: h.limit })
            .collect(),
        unified: r.unified.clone().into_iter().collect(),
    }
}

/// What `new` says over what `old` said, for the status of a container.
pub(crate) fn merge(old: &LinuxContainerResources, new: &LinuxContainerResources) -> LinuxContainerResources {
    let number = |old: i64, new: i64| if new == 0 { old } else { new };
    let text = |old: &str, new: &str| {
        if new.is_empty() { old.to_owned() } else { new.to_owned() }
    };
    let mut unified = old.unified.clone();
    unified.extend(new.unified.clone());
    LinuxContainerResources {
        cpu_period: number(old.cpu_period, new.cpu_period),
        cpu_quota: number(old.cpu_quota, new.cpu_quota),
        cpu_shares: number(old.cpu_shares, new.cpu_shares),
        memory_limit_in_bytes: number(old.memory_limit_in_bytes, new.memory_limit_in_bytes),
        // A running process keeps its own.
        oom_score_adj: old.oom_score_adj,
        cpuset_cpus: text(&old.cpuset_cpus, &new.cpuset_cpus),
        cpuset_mems: text(&old.cpuset_mems, &new.cpuset_mems),
        hugepage_limits: if new.hugepage_limits.is_empty() {
            old.hugepage_limits.clone()
        } else {
            new.hugepage_limits.clone()
        },
        unified,
        memory_swap_limit_in_bytes: number(old.memory_swap_limit_in_bytes, new.memory_swap_limit_in_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_said_changes_nothing() {
        assert_eq!(convert(&LinuxContainerResources::default()), Resources::default());
        let old = LinuxContainerResources {
            cpu_shares: 512,
            memory_limit_in_bytes: 1 << 20,
            oom_score_adj: 5,
            ..Default::default()
        };
        assert_eq!(merge(&old, &LinuxContainerResources::default()), old);
        let new = LinuxContainerResources { memory_limit_in_bytes: 2 << 20, ..Default::default() };
        let merged = merge(&old, &new);
        assert_eq!((merged.cpu_shares, merged.memory_limit_in_bytes), (512, 2 << 20));
    }
}
