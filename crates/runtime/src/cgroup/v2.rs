//! Limits in the version 2 hierarchy.

use std::{
    fs,
    path::{Component, Path},
};

use super::{CgroupError, Resources, Result, mkdir, read, resources::shares_to_weight, write};

/// Controllers that a container's group wants, as far as the kernel has them.
const CONTROLLERS: [&str; 6] = ["cpu", "cpuset", "io", "memory", "hugetlb", "pids"];

pub(super) fn create(root: &Path, relative: &Path) -> Result<()> {
    let mut dir = root.to_owned();
    for component in relative.components() {
        delegate(&dir)?;
        dir.push(component);
        mkdir(&dir)?;
    }
    Ok(())
}

/// Turns on for the children of `dir` what `dir` itself has.
fn delegate(dir: &Path) -> Result<()> {
    let available = read(dir.join("cgroup.controllers"))?;
    let enabled = read(dir.join("cgroup.subtree_control"))?;
    let has = |list: &str, name: &str| list.split_whitespace().any(|c| c == name);
    for controller in CONTROLLERS {
        if has(&available, controller) && !has(&enabled, controller) {
            write(dir.join("cgroup.subtree_control"), format!("+{controller}"))?;
        }
    }
    Ok(())
}

pub(super) fn apply(dir: &Path, r: &Resources) -> Result<()> {
    if let Some(shares) = r.cpu_shares.filter(|s| *s != 0) {
        write(dir.join("cpu.weight"), shares_to_weight(shares))?;
    }
    if r.cpu_quota.is_some() || r.cpu_period.is_some() {
        let quota = match r.cpu_quota {
            Some(quota) if quota > 0 => quota.to_string(),
            Some(_) => "max".to_owned(),
            None => current_quota(dir)?,
        };
        let value = match r.cpu_period {
            Some(period) => format!("{quota} {period}"),
            None => quota,
        };
        write(dir.join("cpu.max"), value)?;
    }
    if let Some(cpus) = &r.cpuset_cpus {
        write(dir.join("cpuset.cpus"), cpus)?;
    }
    if let Some(mems) = &r.cpuset_mems {
        write(dir.join("cpuset.mems"), mems)?;
    }
    memory(dir, r)?;
    for limit in &r.hugepage_limits {
        let file = dir.join(format!("hugetlb.{}.max", limit.page_size));
        if limit.limit != 0 || file.exists() {
            write(file, limit.limit)?;
        }
    }
    for (file, value) in &r.unified {
        let mut components = Path::new(file).components();
        let plain = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
        if !plain {
            return Err(CgroupError::Unified(file.clone(), "it must be a file name"));
        }
        // Several limits of one file, such as those of io.max, are one line each.
        for line in value.lines() {
            write(dir.join(file), line)?;
        }
    }
    Ok(())
}

fn current_quota(dir: &Path) -> Result<String> {
    let current = read(dir.join("cpu.max"))?;
    Ok(current.split(' ').next().unwrap_or("max").trim().to_owned())
}

/// The CRI speaks of memory and swap together, version 2 of swap alone.
fn memory(dir: &Path, r: &Resources) -> Result<()> {
    let text = |bytes: i64| {
        if bytes < 0 { "max".to_owned() } else { bytes.to_string() }
    };
    if let Some(sum) = r.memory_swap_limit {
        let swap = match (sum, r.memory_limit) {
            (sum, _) if sum < 0 => "max".to_owned(),
            (sum, Some(limit)) if limit >= 0 => (sum - limit).max(0).to_string(),
            (sum, _) => match read(dir.join("memory.max"))?.trim().parse::<i64>() {
                Ok(limit) => (sum - limit).max(0).to_string(),
                Err(_) => "max".to_owned(),
            },
        };
        let file = dir.join("memory.swap.max");
        // A kernel without swap has no such file.
        if fs::exists(&file).unwrap_or(false) {
            write(file, swap)?;
        }
    }
    if let Some(limit) = r.memory_limit {
        write(dir.join("memory.max"), text(limit))?;
    }
    Ok(())
}
