//! What is counted and timed, kept by label, and written in the text format of Prometheus.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The labels of a series: `a="x",b="y"`, in the order of their names.
pub trait Labels: Ord + Clone {
    /// # Errors
    /// Those of the writer.
    fn write(&self, out: &mut String) -> fmt::Result;
}

/// Writes what comes before the series of a metric.
///
/// # Errors
/// Those of the writer.
pub fn head(out: &mut String, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

/// A label's value, escaped.
pub fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[derive(Clone, Debug, Default)]
struct Cells {
    /// Of each bucket what fell into it, not below it.
    buckets: Vec<u64>,
    count: u64,
    sum: f64,
}

/// A histogram for each set of labels.
#[derive(Debug)]
pub struct Histograms<K> {
    bounds: &'static [f64],
    series: Mutex<BTreeMap<K, Cells>>,
}

impl<K: Labels> Histograms<K> {
    pub const fn new(bounds: &'static [f64]) -> Self {
        Histograms { bounds, series: Mutex::new(BTreeMap::new()) }
    }

    pub fn took(&self, key: &K, time: Duration) {
        self.observe(key, time.as_secs_f64());
    }

    pub fn observe(&self, key: &K, value: f64) {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let cells = match series.get_mut(key) {
            Some(cells) => cells,
            None => series.entry(key.clone()).or_default(),
        };
        cells.buckets.resize(self.bounds.len(), 0);
        if let Some(at) = self.bounds.iter().position(|bound| value <= *bound) {
            cells.buckets[at] += 1;
        }
        cells.count += 1;
        cells.sum += value;
    }

    /// Writes all of it under a name.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn render(&self, out: &mut String, name: &str, help: &str) -> fmt::Result {
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner).clone();
        head(out, name, "histogram", help)?;
        for (key, cells) in &series {
            let mut labels = String::new();
            key.write(&mut labels)?;
            let mut total = 0;
            for (bound, count) in self.bounds.iter().zip(&cells.buckets) {
                total += count;
                writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {total}")?;
            }
            writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", cells.count)?;
            writeln!(out, "{name}_sum{{{labels}}} {}", cells.sum)?;
            writeln!(out, "{name}_count{{{labels}}} {}", cells.count)?;
        }
        Ok(())
    }
}

/// A counter for each set of labels.
#[derive(Debug)]
pub struct Counters<K>(Mutex<BTreeMap<K, u64>>);

impl<K: Labels> Counters<K> {
    pub const fn new() -> Self {
        Counters(Mutex::new(BTreeMap::new()))
    }

    pub fn add(&self, key: &K, count: u64) {
        let mut series = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match series.get_mut(key) {
            Some(sum) => *sum += count,
            None => {
                series.insert(key.clone(), count);
            }
        }
    }

    /// Writes all of it under a name.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn render(&self, out: &mut String, name: &str, help: &str) -> fmt::Result {
        render(&self.0, out, (name, "counter", help))
    }
}

/// A value for each set of labels, as it is now.
#[derive(Debug)]
pub struct Gauges<K>(Mutex<BTreeMap<K, u64>>);

impl<K: Labels> Gauges<K> {
    pub const fn new() -> Self {
        Gauges(Mutex::new(BTreeMap::new()))
    }

    pub fn set(&self, key: &K, value: u64) {
        let mut series = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match series.get_mut(key) {
            Some(set) => *set = value,
            None => {
                series.insert(key.clone(), value);
            }
        }
    }

    /// Writes all of it under a name.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn render(&self, out: &mut String, name: &str, help: &str) -> fmt::Result {
        render(&self.0, out, (name, "gauge", help))
    }
}

/// Writes a number for each set of labels, under name, type and help of their metric.
fn render<K: Labels>(
    series: &Mutex<BTreeMap<K, u64>>,
    out: &mut String,
    (name, kind, help): (&str, &str, &str),
) -> fmt::Result {
    head(out, name, kind, help)?;
    for (key, value) in series.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let mut labels = String::new();
        key.write(&mut labels)?;
        writeln!(out, "{name}{{{labels}}} {value}")?;
    }
    Ok(())
}

impl<K: Labels> Default for Gauges<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Labels> Default for Counters<K> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
    struct Verb(&'static str);

    impl Labels for Verb {
        fn write(&self, out: &mut String) -> fmt::Result {
            write!(out, "verb=\"{}\"", self.0)
        }
    }

    #[test]
    fn buckets_count_all_below_them() {
        let histograms = Histograms::new(&[0.1, 1.0]);
        for value in [0.05, 0.5, 0.5, 5.0] {
            histograms.observe(&Verb("GET"), value);
        }
        let mut out = String::new();
        histograms.render(&mut out, "x", "Help.").expect("a String takes every write");
        assert_eq!(
            out,
            "# HELP x Help.\n# TYPE x histogram\nx_bucket{verb=\"GET\",le=\"0.1\"} 1\nx_bucket{verb=\"GET\",le=\"1\"} 3\nx_bucket{verb=\"GET\",le=\"+Inf\"} 4\nx_sum{verb=\"GET\"} 6.05\nx_count{verb=\"GET\"} 4\n"
        );
    }
}
