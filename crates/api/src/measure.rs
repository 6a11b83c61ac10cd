//! What is counted and timed, kept by label, and written in the text format of Prometheus.
//!
//! To count costs a look into a table that is seldom written, and an addition: the series of a set of labels is made once.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// The labels of a series: `a="x",b="y"`, in the order of their names.
pub trait Labels: Ord + Clone {
    /// # Errors
    /// Those of the writer.
    fn write(&self, out: &mut String) -> fmt::Result;
}

/// Something that tells of itself.
pub trait Tells: Send + Sync {
    /// Writes its metrics.
    ///
    /// # Errors
    /// Those of the writer.
    fn render(&self, out: &mut String) -> fmt::Result;
}

/// Writes what comes before the series of a metric.
///
/// # Errors
/// Those of the writer.
pub fn head(out: &mut String, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

/// Writes a series: its name, its labels if it has any, its value.
///
/// # Errors
/// Those of the writer.
pub fn series(out: &mut String, name: &str, labels: &str, value: impl fmt::Display) -> fmt::Result {
    if labels.is_empty() { writeln!(out, "{name} {value}") } else { writeln!(out, "{name}{{{labels}}} {value}") }
}

/// A label's value, escaped.
pub fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The bound of a bucket as the label `le` has it: as Prometheus' library for Go writes numbers, because labels are compared
/// as text.
pub fn bound(value: f64) -> String {
    let text = format!("{value:e}");
    let Some((digits, exponent)) = text.split_once('e') else { return text };
    match exponent.parse::<i32>() {
        Ok(exponent @ (..-4 | 6..)) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => value.to_string(),
    }
}

/// What a [`Family`] is asked for: a key, or what can be compared with one without being one.
pub trait Asks<K>: Hash {
    fn is(&self, key: &K) -> bool;
    fn own(&self) -> K;
}

impl<K: Hash + Eq + Clone> Asks<K> for K {
    fn is(&self, key: &K) -> bool {
        self == key
    }
    fn own(&self) -> K {
        self.clone()
    }
}

/// A thing for each key, made when it is first asked for, and kept.
pub struct Family<K, V> {
    /// By the hash of their keys.
    slots: RwLock<HashMap<u64, Vec<(K, Arc<V>)>>>,
    hasher: RandomState,
}

impl<K, V> Default for Family<K, V> {
    fn default() -> Self {
        Family { slots: RwLock::default(), hasher: RandomState::new() }
    }
}

impl<K, V> fmt::Debug for Family<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Family")
    }
}

impl<K, V> Family<K, V> {
    /// Uses the thing of a key.
    pub fn with<R>(&self, asked: &impl Asks<K>, make: impl FnOnce() -> V, use_it: impl FnOnce(&Arc<V>) -> R) -> R {
        let hash = self.hasher.hash_one(asked);
        {
            let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, slot)) = slots.get(&hash).and_then(|slots| slots.iter().find(|(key, _)| asked.is(key))) {
                return use_it(slot);
            }
        }
        let slot = {
            let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
            let slots = slots.entry(hash).or_default();
            match slots.iter().find(|(key, _)| asked.is(key)) {
                Some((_, slot)) => slot.clone(),
                None => {
                    let slot = Arc::new(make());
                    slots.push((asked.own(), slot.clone()));
                    slot
                }
            }
        };
        use_it(&slot)
    }

    /// Uses the thing of a key, if there is one.
    pub fn find<R>(&self, asked: &impl Asks<K>, use_it: impl FnOnce(&Arc<V>) -> R) -> Option<R> {
        let hash = self.hasher.hash_one(asked);
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let (_, slot) = slots.get(&hash)?.iter().find(|(key, _)| asked.is(key))?;
        Some(use_it(slot))
    }

    /// All things, in the order of their keys.
    pub fn sorted(&self) -> Vec<(K, Arc<V>)>
    where
        K: Ord + Clone,
    {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<(K, Arc<V>)> = slots.values().flatten().cloned().collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }
}

/// A histogram of one series, of whole numbers of some unit.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    unit: f64,
    /// What fell into each bucket, not below it, and last what is beyond all.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [f64], unit: f64) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds, unit, buckets, sum: AtomicU64::new(0) }
    }

    /// Of times, in seconds.
    pub fn of_times(bounds: &'static [f64]) -> Self {
        Self::new(bounds, 1e-9)
    }

    /// Of whole numbers.
    pub fn of_counts(bounds: &'static [f64]) -> Self {
        Self::new(bounds, 1.0)
    }

    /// Notes a time.
    pub fn took(&self, time: Duration) {
        self.observe(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Notes a number of the unit.
    #[allow(clippy::cast_precision_loss, reason = "buckets are coarser than a float")]
    pub fn observe(&self, number: u64) {
        let value = number as f64 * self.unit;
        let at = self.bounds.iter().position(|bound| value <= *bound).unwrap_or(self.bounds.len());
        self.buckets[at].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(number, Ordering::Relaxed);
    }

    /// Whether nothing was noted.
    pub fn is_empty(&self) -> bool {
        self.buckets.iter().all(|bucket| bucket.load(Ordering::Relaxed) == 0)
    }

    /// Takes over what another one of the same bounds has.
    pub fn add(&self, other: &Histogram) {
        for (own, others) in self.buckets.iter().zip(&other.buckets) {
            let others = others.load(Ordering::Relaxed);
            // What many write is not written for nothing.
            if others > 0 {
                own.fetch_add(others, Ordering::Relaxed);
            }
        }
        self.sum.fetch_add(other.sum.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// How often something was noted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// Writes its series; their labels are written already.
    ///
    /// # Errors
    /// Those of the writer.
    #[allow(clippy::cast_precision_loss, reason = "as Prometheus has it")]
    pub fn write(&self, out: &mut String, name: &str, labels: &str) -> fmt::Result {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut total = 0;
        for (at, bucket) in self.buckets.iter().enumerate() {
            total += bucket.load(Ordering::Relaxed);
            match self.bounds.get(at) {
                Some(bound) => {
                    writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{}\"}} {total}", self::bound(*bound))?;
                }
                None => writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {total}")?,
            }
        }
        let sum = self.sum.load(Ordering::Relaxed) as f64;
        let sum = if self.unit < 1.0 { sum / (1.0 / self.unit).round() } else { sum };
        series(out, &format!("{name}_sum"), labels, sum)?;
        series(out, &format!("{name}_count"), labels, total)
    }
}

/// A value for each set of labels, as it is now.
#[derive(Debug)]
pub struct Gauges<K>(Family<K, AtomicI64>);

impl<K: Labels + Hash> Gauges<K> {
    pub fn set(&self, key: &impl Asks<K>, value: i64) {
        self.0.with(key, AtomicI64::default, |gauge| gauge.store(value, Ordering::Relaxed));
    }

    /// One more as long as what is returned lives.
    pub fn hold(&self, key: &impl Asks<K>) -> HeldGauge {
        self.0.with(key, AtomicI64::default, |gauge| {
            gauge.fetch_add(1, Ordering::Relaxed);
            HeldGauge(gauge.clone())
        })
    }

    /// Writes all of it under a name.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn render(&self, out: &mut String, name: &str, help: &str) -> fmt::Result {
        head(out, name, "gauge", help)?;
        for (key, gauge) in self.0.sorted() {
            let mut labels = String::new();
            key.write(&mut labels)?;
            series(out, name, &labels, gauge.load(Ordering::Relaxed))?;
        }
        Ok(())
    }
}

/// One in a gauge.
#[must_use]
#[derive(Debug)]
pub struct HeldGauge(Arc<AtomicI64>);

impl Drop for HeldGauge {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<K> Default for Gauges<K> {
    fn default() -> Self {
        Gauges(Family::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
    struct Verb(&'static str);

    impl Labels for Verb {
        fn write(&self, out: &mut String) -> fmt::Result {
            write!(out, "verb=\"{}\"", self.0)
        }
    }

    #[test]
    fn buckets_count_all_below_them() {
        let histogram = Histogram::of_times(&[0.1, 1.0]);
        for millis in [50, 500, 500] {
            histogram.took(Duration::from_millis(millis));
        }
        let other = Histogram::of_times(&[0.1, 1.0]);
        other.took(Duration::from_secs(5));
        histogram.add(&other);
        let mut out = String::new();
        histogram.write(&mut out, "x", "verb=\"GET\"").expect("a String takes every write");
        assert_eq!(
            out,
            "x_bucket{verb=\"GET\",le=\"0.1\"} 1\nx_bucket{verb=\"GET\",le=\"1\"} 3\nx_bucket{verb=\"GET\",le=\"+Inf\"} 4\nx_sum{verb=\"GET\"} 6.05\nx_count{verb=\"GET\"} 4\n"
        );
    }

    #[test]
    fn bounds_are_written_as_elsewhere() {
        for (value, text) in [
            (0.0, "0"),
            (5e-6, "5e-06"),
            (8e-5, "8e-05"),
            (0.00016, "0.00016"),
            (1.25, "1.25"),
            (60.0, "60"),
            (131_072.0, "131072"),
            (1e6, "1e+06"),
            (1_048_576.0, "1.048576e+06"),
        ] {
            assert_eq!(bound(value), text);
        }
    }

    #[test]
    fn a_key_that_is_only_compared_finds_its_thing() {
        #[derive(Hash)]
        struct Borrowed<'a>(&'a str);
        impl Asks<String> for Borrowed<'_> {
            fn is(&self, key: &String) -> bool {
                self.0 == key
            }
            fn own(&self) -> String {
                self.0.to_owned()
            }
        }
        let family: Family<String, AtomicU64> = Family::default();
        for (name, before) in [("a", 0), ("b", 0), ("a", 1)] {
            let seen = family.with(&Borrowed(name), AtomicU64::default, |count| count.fetch_add(1, Ordering::Relaxed));
            assert_eq!(seen, before);
        }
        assert!(family.find(&Borrowed("b"), |_| ()).is_some() && family.find(&Borrowed("c"), |_| ()).is_none());
        assert_eq!(family.sorted().into_iter().map(|(name, _)| name).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn series_come_in_order_and_go_down_with_what_held_them() {
        let gauges = Gauges::default();
        let (one, two) = (gauges.hold(&Verb("WATCH")), gauges.hold(&Verb("CONNECT")));
        let again = gauges.hold(&Verb("WATCH"));
        drop(two);
        let mut out = String::new();
        gauges.render(&mut out, "x", "Help.").expect("a String takes every write");
        assert!(out.ends_with("x{verb=\"CONNECT\"} 0\nx{verb=\"WATCH\"} 2\n"), "{out}");
        drop((one, again));
    }
}
