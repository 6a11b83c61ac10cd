//! What a group has used.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use super::{Hierarchy, Result, hierarchy_of, read};

/// Figures of one group; `None` where the kernel doesn't tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    pub(crate) cpu: Option<CpuStats>,
    pub(crate) memory: Option<MemoryStats>,
    pub(crate) processes: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuStats {
    /// Nanoseconds of processor time since the group was made.
    pub(crate) usage_nanos: u64,
}

/// All in bytes, except the faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemoryStats {
    pub(crate) usage: u64,
    pub(crate) working_set: u64,
    /// `None` when there is no limit.
    pub(crate) limit: Option<u64>,
    pub(crate) rss: u64,
    pub(crate) page_faults: u64,
    pub(crate) major_page_faults: u64,
    pub(crate) swap_usage: Option<u64>,
    pub(crate) swap_limit: Option<u64>,
}

pub(super) fn v1(hierarchies: &[Hierarchy], relative: &Path) -> Result<Stats> {
    let dir = |controller| hierarchy_of(hierarchies, controller).map(|h| h.root.join(relative));
    let cpu = match dir("cpuacct") {
        Some(dir) => Some(CpuStats { usage_nanos: number(&read(dir.join("cpuacct.usage"))?) }),
        None => None,
    };
    let memory = match dir("memory") {
        Some(dir) => Some(memory_v1(&dir)?),
        None => None,
    };
    let processes = dir("pids").and_then(|d| optional(d.join("pids.current")));
    Ok(Stats { cpu, memory, processes })
}

fn memory_v1(dir: &Path) -> Result<MemoryStats> {
    /// The kernel's "no limit" is the largest multiple of a page below 2^63.
    const UNLIMITED: u64 = 1 << 62;
    let usage = number(&read(dir.join("memory.usage_in_bytes"))?);
    let text = read(dir.join("memory.stat"))?;
    let stat = table(&text);
    let of = |key: &str| stat.get(key).copied().unwrap_or(0);
    let inactive = of("total_inactive_file");
    let limit = Some(number(&read(dir.join("memory.limit_in_bytes"))?)).filter(|l| *l < UNLIMITED);
    let sum = optional(dir.join("memory.memsw.usage_in_bytes"));
    let sum_limit = optional(dir.join("memory.memsw.limit_in_bytes")).filter(|limit| *limit < UNLIMITED);
    Ok(MemoryStats {
        usage,
        working_set: usage.saturating_sub(inactive),
        limit,
        rss: of("total_rss"),
        page_faults: of("total_pgfault"),
        major_page_faults: of("total_pgmajfault"),
        swap_usage: sum.map(|s| s.saturating_sub(usage)),
        swap_limit: sum_limit.map(|s| s.saturating_sub(limit.unwrap_or(0))),
    })
}

pub(super) fn v2(dir: &Path) -> Result<Stats> {
    let text = read(dir.join("cpu.stat"))?;
    let cpu = table(&text);
    let usage_nanos = cpu.get("usage_usec").copied().unwrap_or(0) * 1000;
    let memory = match optional(dir.join("memory.current")) {
        Some(usage) => Some(memory_v2(dir, usage)?),
        None => None,
    };
    Ok(Stats { cpu: Some(CpuStats { usage_nanos }), memory, processes: optional(dir.join("pids.current")) })
}

fn memory_v2(dir: &Path, usage: u64) -> Result<MemoryStats> {
    let text = read(dir.join("memory.stat"))?;
    let stat = table(&text);
    let of = |key: &str| stat.get(key).copied().unwrap_or(0);
    Ok(MemoryStats {
        usage,
        working_set: usage.saturating_sub(of("inactive_file")),
        limit: optional(dir.join("memory.max")),
        rss: of("anon"),
        page_faults: of("pgfault"),
        major_page_faults: of("pgmajfault"),
        swap_usage: optional(dir.join("memory.swap.current")),
        swap_limit: optional(dir.join("memory.swap.max")),
    })
}

fn table(text: &str) -> HashMap<&str, u64> {
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key, value.trim().parse().ok()?))
        })
        .collect()
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

/// A figure whose file may be missing, or say `max`.
fn optional(path: PathBuf) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
