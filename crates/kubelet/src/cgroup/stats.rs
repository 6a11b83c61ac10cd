//! What a cgroup used.

use std::{fs, path::Path};

use super::hierarchy::Hierarchies;

/// The use of CPU and memory of all processes of a cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) cpu_nanos: u64,
    pub(crate) memory: u64,
    /// What can't be taken back under pressure.
    pub(crate) working_set: u64,
    pub(crate) rss: u64,
    pub(crate) page_faults: u64,
    pub(crate) major_page_faults: u64,
}

/// Reads the use of a cgroup; `None` if it isn't there.
pub(crate) fn usage(hierarchies: &Hierarchies, path: &str) -> Option<Usage> {
    let memory = hierarchies.dir("memory", path)?;
    let stat = fs::read_to_string(memory.join("memory.stat")).ok()?;
    let mut usage = Usage::default();
    let inactive;
    if hierarchies.is_v2() {
        usage.memory = number(&memory.join("memory.current")).unwrap_or_else(|| {
            // The root has no such file.
            field(&stat, "anon") + field(&stat, "file")
        });
        inactive = field(&stat, "inactive_file");
        usage.rss = field(&stat, "anon");
        usage.page_faults = field(&stat, "pgfault");
        usage.major_page_faults = field(&stat, "pgmajfault");
        let cpu = fs::read_to_string(memory.join("cpu.stat")).unwrap_or_default();
        usage.cpu_nanos = field(&cpu, "usage_usec") * 1000;
    } else {
        usage.memory = number(&memory.join("memory.usage_in_bytes"))?;
        inactive = field(&stat, "total_inactive_file");
        usage.rss = field(&stat, "total_rss");
        usage.page_faults = field(&stat, "total_pgfault");
        usage.major_page_faults = field(&stat, "total_pgmajfault");
        let cpu = hierarchies.dir("cpuacct", path);
        usage.cpu_nanos = cpu.and_then(|dir| number(&dir.join("cpuacct.usage"))).unwrap_or_default();
    }
    usage.working_set = usage.memory.saturating_sub(inactive);
    Some(usage)
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn field(text: &str, name: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok()).unwrap_or_default()
}
