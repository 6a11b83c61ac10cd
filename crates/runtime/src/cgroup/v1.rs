//! Limits in version 1 hierarchies.

use std::{fs, io, path::Path};

use super::{CgroupError, DeviceRule, Hierarchy, Resources, Result, hierarchy_of, mkdir, read, write};

pub(super) fn create(hierarchies: &[Hierarchy], relative: &Path) -> Result<()> {
    for hierarchy in hierarchies {
        mkdir(&hierarchy.root.join(relative))?;
        if hierarchy.controllers.iter().any(|c| c == "cpuset") {
            inherit_cpuset(&hierarchy.root, relative)?;
        }
    }
    Ok(())
}

/// A new cpuset group has no processors and no memory nodes, and takes no process until it has both.
fn inherit_cpuset(root: &Path, relative: &Path) -> Result<()> {
    let mut dir = root.to_owned();
    for component in relative.components() {
        let parent = dir.clone();
        dir.push(component);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if read(dir.join(file))?.trim().is_empty() {
                write(dir.join(file), read(parent.join(file))?.trim())?;
            }
        }
    }
    Ok(())
}

pub(super) fn apply(hierarchies: &[Hierarchy], relative: &Path, r: &Resources) -> Result<()> {
    let dir = |controller: &'static str| {
        hierarchy_of(hierarchies, controller)
            .map(|h| h.root.join(relative))
            .ok_or(CgroupError::NoController(controller))
    };
    if let Some(shares) = r.cpu_shares {
        write(dir("cpu")?.join("cpu.shares"), shares)?;
    }
    if r.cpu_period.is_some() || r.cpu_quota.is_some() {
        bandwidth(&dir("cpu")?, r.cpu_quota, r.cpu_period)?;
    }
    if let Some(cpus) = &r.cpuset_cpus {
        write(dir("cpuset")?.join("cpuset.cpus"), cpus)?;
    }
    if let Some(mems) = &r.cpuset_mems {
        write(dir("cpuset")?.join("cpuset.mems"), mems)?;
    }
    if r.memory_limit.is_some() || r.memory_swap_limit.is_some() {
        memory(&dir("memory")?, r.memory_limit, r.memory_swap_limit)?;
    }
    for limit in &r.hugepage_limits {
        let file = format!("hugetlb.{}.limit_in_bytes", limit.page_size);
        match dir("hugetlb") {
            Ok(dir) => write(dir.join(file), limit.limit)?,
            // The kubelet names every page size of the node with 0 for those a container doesn't use.
            Err(_) if limit.limit == 0 => {}
            Err(error) => return Err(error),
        }
    }
    if let Some(key) = r.unified.keys().next() {
        return Err(CgroupError::Unified(key.clone(), "this node runs cgroup version 1"));
    }
    Ok(())
}

/// The kernel checks quota and period against each other and against the parent on every write, so either
/// order may be refused; the one that shrinks the share goes first.
fn bandwidth(dir: &Path, quota: Option<i64>, period: Option<u64>) -> Result<()> {
    let set_quota = || quota.map_or(Ok(()), |q| write(dir.join("cpu.cfs_quota_us"), q.max(-1)));
    let set_period = || period.map_or(Ok(()), |p| write(dir.join("cpu.cfs_period_us"), p));
    match set_period() {
        Ok(()) => set_quota(),
        Err(_) => {
            set_quota()?;
            set_period()
        }
    }
}

/// Memory plus swap may never be below memory: when growing, the sum goes first, when shrinking, it goes last.
fn memory(dir: &Path, limit: Option<i64>, swap: Option<i64>) -> Result<()> {
    const LIMIT: &str = "memory.limit_in_bytes";
    const SUM: &str = "memory.memsw.limit_in_bytes";
    let normal = |bytes: i64| if bytes < 0 { -1 } else { bytes };
    let set_limit = || limit.map_or(Ok(()), |b| write(dir.join(LIMIT), normal(b)));
    // A kernel without swap accounting has no such file.
    let sum = swap.filter(|_| dir.join(SUM).exists());
    let set_sum = || sum.map_or(Ok(()), |b| write(dir.join(SUM), normal(b)));
    if limit.is_some() && sum.is_some() {
        let current = read(dir.join(SUM))?.trim().parse::<i64>().unwrap_or(i64::MAX);
        let growing = sum.is_some_and(|s| s < 0 || s >= current);
        if growing {
            set_sum()?;
            return set_limit();
        }
    }
    set_limit()?;
    set_sum()
}

pub(super) fn restrict_devices(hierarchies: &[Hierarchy], relative: &Path, rules: &[DeviceRule]) -> Result<()> {
    let Some(hierarchy) = hierarchy_of(hierarchies, "devices") else {
        return Err(CgroupError::NoController("devices"));
    };
    let dir = hierarchy.root.join(relative);
    write(dir.join("devices.deny"), "a")?;
    for rule in rules {
        write(dir.join("devices.allow"), rule.line())?;
    }
    Ok(())
}

/// Stops or resumes every process of a group in the freezer hierarchy; `Ok(false)` when there is none.
pub(super) fn freeze(dir: &Path, frozen: bool) -> io::Result<bool> {
    let file = dir.join("freezer.state");
    if !file.exists() {
        return Ok(false);
    }
    fs::write(&file, if frozen { "FROZEN" } else { "THAWED" })?;
    Ok(true)
}
