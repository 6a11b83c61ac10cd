//! What is told of the process, and of the metrics themselves.

use crate::measure::{head, series};
use std::fmt::{self, Write};

/// How many metrics there are by their stability, told of what is written already. None is hidden or turned off.
pub(super) fn registered(out: &mut String) -> fmt::Result {
    const LEVELS: [&str; 3] = ["ALPHA", "BETA", "STABLE"];
    let help = |line: &str| {
        let level = line.strip_prefix("# HELP ")?.split_once(" [")?.1.split_once(']')?.0.to_owned();
        Some(level)
    };
    let told: Vec<String> = out.lines().filter_map(help).collect();
    let name = "registered_metrics_total";
    let text = "[BETA] The count of registered metrics broken by stability level and deprecation version.";
    head(out, name, "counter", text)?;
    for level in LEVELS {
        let count = told.iter().filter(|own| *own == level).count();
        series(out, name, &format!("deprecated_version=\"\",stability_level=\"{level}\""), count)?;
    }
    for (name, help) in [
        ("hidden_metrics_total", "[BETA] The count of hidden metrics."),
        ("disabled_metrics_total", "[BETA] The count of disabled metrics."),
    ] {
        head(out, name, "counter", help)?;
        series(out, name, "", 0)?;
    }
    Ok(())
}

/// What Prometheus' clients tell of their process, as far as the system tells it.
pub(super) fn process(out: &mut String) -> fmt::Result {
    const PAGE: u64 = 4096;
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name may have spaces; it ends with the last parenthesis.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let field = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok());
    let mut gauge = |name: &str, kind: &str, help: &str, value: Option<f64>| match value {
        Some(value) => head(out, name, kind, help).and_then(|()| writeln!(out, "{name} {value}")),
        None => Ok(()),
    };
    let cpu = field(11).zip(field(12)).map(|(user, system)| (user + system) as f64 / TICKS);
    gauge("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", cpu)?;
    let resident = field(21).map(|pages| (pages * PAGE) as f64);
    gauge("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", resident)?;
    let memory = field(20).map(|bytes| bytes as f64);
    gauge("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", memory)?;
    let open = std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as f64);
    gauge("process_open_fds", "gauge", "Number of open file descriptors.", open)?;
    let boot = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot = boot.lines().find_map(|line| line.strip_prefix("btime ")?.parse::<f64>().ok());
    let started = boot.zip(field(19)).map(|(boot, ticks)| boot + ticks as f64 / TICKS);
    gauge("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.", started)
}
