//! Values over time: what a level's demand was in the last period, and how long a ratio was what.

/// Nanoseconds since some beginning that all of a level share.
pub(super) type Nanos = u64;

const SECOND: f64 = 1e9;

/// The moments of a value over time.
#[derive(Clone, Debug, Default)]
pub(super) struct Integrator {
    value: f64,
    most: f64,
    seconds: f64,
    sum: f64,
    squares: f64,
}

/// What a value was over a period.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Moments {
    pub(super) seconds: f64,
    pub(super) average: f64,
    pub(super) deviation: f64,
    pub(super) most: f64,
}

impl Integrator {
    #[allow(clippy::cast_precision_loss, reason = "a statistic")]
    pub(super) fn pass(&mut self, nanos: Nanos) {
        let seconds = nanos as f64 / SECOND;
        self.seconds += seconds;
        self.sum += self.value * seconds;
        self.squares += self.value * self.value * seconds;
    }

    pub(super) fn set(&mut self, value: f64) {
        self.value = value;
        self.most = self.most.max(value);
    }

    /// What was since the last time that this was asked.
    pub(super) fn reset(&mut self) -> Moments {
        let mut moments = Moments { seconds: self.seconds, most: self.most, ..Moments::default() };
        if self.seconds > 0.0 {
            moments.average = self.sum / self.seconds;
            let variance = self.squares / self.seconds - moments.average * moments.average;
            moments.deviation = variance.max(0.0).sqrt();
        }
        *self = Integrator { value: self.value, most: self.value, ..Integrator::default() };
        moments
    }
}

/// A histogram of a ratio whose observations are the nanoseconds that it was what it was.
#[derive(Clone, Debug)]
pub(super) struct Timing {
    bounds: &'static [f64],
    numerator: f64,
    denominator: f64,
    /// The bucket that the ratio is in.
    at: usize,
    nanos: Vec<Nanos>,
    sum: f64,
}

impl Timing {
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        let mut timing =
            Timing { bounds, numerator: 0.0, denominator: 1.0, at: 0, nanos: vec![0; bounds.len() + 1], sum: 0.0 };
        timing.place();
        timing
    }

    fn ratio(&self) -> f64 {
        self.numerator / self.denominator
    }

    fn place(&mut self) {
        let ratio = self.ratio();
        self.at = self.bounds.iter().position(|bound| ratio <= *bound).unwrap_or(self.bounds.len());
    }

    #[allow(clippy::cast_precision_loss, reason = "a statistic")]
    pub(super) fn pass(&mut self, nanos: Nanos) {
        self.nanos[self.at] += nanos;
        self.sum += self.ratio() * nanos as f64;
    }

    pub(super) fn set(&mut self, numerator: f64) {
        if self.numerator.to_bits() != numerator.to_bits() {
            self.numerator = numerator;
            self.place();
        }
    }

    pub(super) fn of(&mut self, denominator: f64) {
        self.denominator = denominator;
        self.place();
    }

    /// Writes its series; their labels are written already.
    pub(super) fn write(&self, out: &mut String, name: &str, labels: &str) -> std::fmt::Result {
        use std::fmt::Write;
        let mut total = 0;
        for (at, nanos) in self.nanos.iter().enumerate() {
            total += nanos;
            match self.bounds.get(at) {
                Some(bound) => {
                    let bound = crate::measure::bound(*bound);
                    writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {total}")?;
                }
                None => writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {total}")?,
            }
        }
        writeln!(out, "{name}_sum{{{labels}}} {}\n{name}_count{{{labels}}} {total}", self.sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_weighted_by_time() {
        let mut integrator = Integrator::default();
        integrator.set(4.0);
        integrator.pass(1_000_000_000);
        integrator.set(0.0);
        integrator.pass(3_000_000_000);
        let moments = integrator.reset();
        assert_eq!((moments.seconds, moments.average, moments.most), (4.0, 1.0, 4.0));
        assert!((moments.deviation - 3f64.sqrt()).abs() < 1e-9);
        assert_eq!(integrator.reset(), Moments::default());
    }

    #[test]
    fn a_ratio_is_observed_every_nanosecond() {
        let mut timing = Timing::new(&[0.0, 0.5, 1.0]);
        timing.of(4.0);
        timing.pass(10);
        timing.set(2.0);
        timing.pass(5);
        let mut out = String::new();
        timing.write(&mut out, "x", "a=\"b\"").expect("a String takes every write");
        assert!(out.contains("x_bucket{a=\"b\",le=\"0\"} 10\nx_bucket{a=\"b\",le=\"0.5\"} 15\n"), "{out}");
        assert!(out.ends_with("x_sum{a=\"b\"} 2.5\nx_count{a=\"b\"} 15\n"), "{out}");
    }
}
