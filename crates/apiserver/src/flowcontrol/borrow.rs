//! How seats that a level does not need are lent to others (KEP-1040): what each level may have, shared anew every period.

use super::timing::Moments;

/// How much of the smoothed demand stays from one period to the next: half of it is gone after five minutes.
const KEPT: f64 = 0.977;
/// Targets below this count as this: nothing is divided by zero.
const LEAST_TARGET: f64 = 0.001;
const EPSILON: f64 = 1e-7;

/// What is configured for a level, in seats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) nominal: u64,
    /// What it never lends.
    pub(super) least: u64,
    /// With all that it may borrow.
    pub(super) most: u64,
}

/// The demand of a level, as it was found at the end of each period.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Demand {
    pub(super) average: f64,
    pub(super) deviation: f64,
    pub(super) most: f64,
    pub(super) smoothed: f64,
}

impl Demand {
    pub(super) fn update(&mut self, last: Moments) {
        self.most = last.most;
        if last.seconds <= 0.0 {
            return;
        }
        (self.average, self.deviation) = (last.average, last.deviation);
        // It goes up at once, and down slowly.
        let envelope = last.average + last.deviation;
        self.smoothed = envelope.max(KEPT * self.smoothed + (1.0 - KEPT) * envelope);
    }
}

/// What a level wants and may have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Share {
    pub(super) target: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Share {
    /// A level gets at least what it used in the last period, up to its nominal limit.
    pub(super) fn of(limits: Limits, demand: &Demand) -> Self {
        let seats = |seats: u64| seats as f64;
        let least = seats(limits.least).max(seats(limits.nominal).min(demand.most));
        Share { target: least.max(demand.smoothed), least, most: seats(limits.most) }
    }
}

/// Shares `sum` seats: each level gets the same fraction of its target, unless that is below what it must have or beyond
/// what it may. Tells the fraction too. `None`: the bounds leave no way.
pub(super) fn allocate(sum: u64, shares: &[Share]) -> Option<(Vec<f64>, f64)> {
    let sum = sum as f64;
    let target = |share: &Share| share.target.max(LEAST_TARGET);
    let least: f64 = shares.iter().map(|share| share.least).sum();
    let most: f64 = shares.iter().map(|share| share.most).sum();
    if least - sum > EPSILON || sum - most > EPSILON || shares.iter().any(|share| share.most < share.least) {
        return None;
    }
    let given =
        |fraction: f64| shares.iter().map(move |share| (fraction * target(share)).clamp(share.least, share.most));
    let lows = shares.iter().map(|share| share.least / target(share));
    let highs = shares.iter().map(|share| share.most / target(share));
    // What is given grows with the fraction, in straight lines between the fractions at which a bound begins or ends to hold.
    let mut bends: Vec<f64> = lows.clone().chain(highs.clone()).collect();
    bends.sort_by(f64::total_cmp);
    if least - sum > -EPSILON {
        let first = lows.fold(f64::MAX, f64::min);
        return Some((shares.iter().map(|share| share.least).collect(), if shares.is_empty() { 0.0 } else { first }));
    }
    if sum - most > -EPSILON {
        return Some((shares.iter().map(|share| share.most).collect(), highs.fold(0.0, f64::max)));
    }
    let mut from = *bends.first()?;
    let mut so_far: f64 = given(from).sum();
    for to in bends.into_iter().skip(1) {
        let then: f64 = given(to).sum();
        if then >= sum {
            let fraction = if then > so_far { from + (to - from) * (sum - so_far) / (then - so_far) } else { to };
            return Some((given(fraction).collect(), fraction));
        }
        (from, so_far) = (to, then);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn share(target: f64, least: f64, most: f64) -> Share {
        Share { target, least, most }
    }

    fn rounded(sum: u64, shares: &[Share]) -> Vec<u64> {
        let (given, _) = allocate(sum, shares).expect("a way");
        given.into_iter().map(|given| given.round() as u64).collect()
    }

    #[test]
    fn everybody_gets_the_same_fraction_within_bounds() {
        let shares = [share(10.0, 5.0, 100.0), share(30.0, 10.0, 100.0)];
        assert_eq!(rounded(80, &shares), [20, 60]);
        // The second may have no more than 40, which leaves more to the first.
        let shares = [share(10.0, 5.0, 100.0), share(30.0, 10.0, 40.0)];
        assert_eq!(rounded(80, &shares), [40, 40]);
        assert_eq!(allocate(10, &shares), None, "less than what they must have");
        assert_eq!(allocate(200, &shares), None);
        assert_eq!(rounded(15, &shares), [5, 10]);
    }

    #[test]
    fn an_idle_level_lends_and_a_busy_one_borrows() {
        let limits = Limits { nominal: 100, least: 50, most: 200 };
        let mut busy = Demand::default();
        busy.update(Moments { seconds: 10.0, average: 150.0, deviation: 0.0, most: 180.0 });
        let shares = [Share::of(limits, &Demand::default()), Share::of(limits, &busy)];
        assert_eq!(rounded(200, &shares), [50, 150]);
        // When both are busy, both have their own.
        let shares = [Share::of(limits, &busy), Share::of(limits, &busy)];
        assert_eq!(rounded(200, &shares), [100, 100]);
    }

    #[test]
    fn demand_rises_at_once_and_falls_slowly() {
        let mut demand = Demand::default();
        let calm = Moments { seconds: 10.0, average: 1.0, ..Moments::default() };
        demand.update(Moments { seconds: 10.0, average: 90.0, deviation: 10.0, most: 120.0 });
        assert_eq!((demand.smoothed, demand.most), (100.0, 120.0));
        for _ in 0..30 {
            demand.update(calm);
        }
        assert!((demand.smoothed - 50.0).abs() < 2.0, "half of it after five minutes: {}", demand.smoothed);
    }

    proptest! {
        #[test]
        fn what_is_given_is_all_and_within_bounds(
            levels in prop::collection::vec((0.0f64..50.0, 0.0f64..50.0, 0.0f64..100.0), 1..8),
            part in 0.0f64..=1.0,
        ) {
            let shares: Vec<Share> =
                levels.iter().map(|(least, target, more)| share(least + target, *least, least + more)).collect();
            let least: f64 = shares.iter().map(|s| s.least).sum();
            let most: f64 = shares.iter().map(|s| s.most).sum();
            let sum = (least + (most - least) * part).round();
            prop_assume!(sum >= least && sum <= most);
            let (given, fraction) = allocate(sum as u64, &shares).expect("a way");
            prop_assert!((given.iter().sum::<f64>() - sum).abs() < 1e-3);
            for (given, share) in given.iter().zip(&shares) {
                prop_assert!(*given >= share.least - 1e-6 && *given <= share.most + 1e-6);
                let fair = fraction * share.target.max(LEAST_TARGET);
                let bound = (given - share.least).abs() < 1e-6 || (given - share.most).abs() < 1e-6;
                prop_assert!((given - fair).abs() < 1e-3 || bound);
            }
        }
    }
}
