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
///
/// # Errors
/// Those of the writer.
pub fn process(out: &mut String) -> fmt::Result {
    // Linux shows times to every program in these, on all machines that it is built for here.
    const TICKS: f64 = 100.0;
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let stat = read("/proc/self/stat");
    // The name may have spaces; it ends with the last parenthesis.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let field = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok());
    /// The first number of the line that begins so.
    fn of_line(text: &str, begin: &str) -> Option<f64> {
        text.lines().find_map(|line| line.strip_prefix(begin)?.split_whitespace().next()?.parse().ok())
    }
    let mut gauge = |name: &str, kind: &str, help: &str, value: Option<f64>| match value {
        Some(value) => head(out, name, kind, help).and_then(|()| writeln!(out, "{name} {value}")),
        None => Ok(()),
    };
    let cpu = field(11).zip(field(12)).map(|(user, system)| (user + system) as f64 / TICKS);
    gauge("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", cpu)?;
    let limit = of_line(&read("/proc/self/limits"), "Max open files");
    gauge("process_max_fds", "gauge", "Maximum number of open file descriptors.", limit)?;
    let open = std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as f64);
    gauge("process_open_fds", "gauge", "Number of open file descriptors.", open)?;
    let resident = of_line(&read("/proc/self/status"), "VmRSS:").map(|kilobytes| kilobytes * 1024.0);
    gauge("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", resident)?;
    let boot = of_line(&read("/proc/stat"), "btime ");
    let started = boot.zip(field(19)).map(|(boot, ticks)| boot + ticks as f64 / TICKS);
    gauge("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.", started)?;
    let memory = field(20).map(|bytes| bytes as f64);
    gauge("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_tells_of_itself() {
        let mut out = String::new();
        process(&mut out).expect("a String takes every write");
        let of = |name: &str| {
            let mut lines = out.lines().filter_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
            lines.next().unwrap_or_else(|| panic!("{name}: {out}"))
        };
        assert!(of("process_resident_memory_bytes") > 4096.0 && of("process_virtual_memory_bytes") > 4096.0);
        assert!(of("process_open_fds") >= 3.0 && of("process_max_fds") >= of("process_open_fds"));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_secs_f64();
        let started = of("process_start_time_seconds");
        // The clock may have been set since the machine started, but not by a day.
        assert!((now - started).abs() < 86_400.0, "{started} of {now}");
        assert!(of("process_cpu_seconds_total") < 3600.0);
    }
}
