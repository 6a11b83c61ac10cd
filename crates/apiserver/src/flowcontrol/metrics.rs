//! `apiserver_flowcontrol_*`: what is counted of each flow schema in its level, and what is told of levels.

use super::config::Prepared;
use super::level::Level;
use super::queueset::{REFUSALS, Refusal, Work};
use crate::measure::{Histogram, escaped, head, series};
use std::fmt::{self, Write};
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

const SECONDS: &[f64] = &[0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
const LENGTHS: &[f64] = &[0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];
const WATCHERS: &[f64] = &[0.0, 1.0, 10.0, 100.0, 1000.0, 10000.0];
const SEATS: &[f64] = &[1.0, 2.0, 4.0, 10.0];

/// What is counted of the requests of a flow schema in a level.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) dispatched: AtomicU64,
    rejected: [AtomicU64; REFUSALS.len()],
    pub(super) inqueue: AtomicI64,
    pub(super) inqueue_seats: AtomicI64,
    pub(super) executing: AtomicI64,
    pub(super) executing_seats: AtomicI64,
    pub(super) no_accommodation: AtomicU64,
    pub(super) queue_length: Histogram,
    /// Of those that were executed, and of those that were not.
    waits: [Histogram; 2],
    /// Of all but watches, and of watches.
    executions: [Histogram; 2],
    pub(super) watchers: Histogram,
    pub(super) seats: Histogram,
}

impl Default for Flow {
    fn default() -> Self {
        Flow {
            dispatched: AtomicU64::default(),
            rejected: Default::default(),
            inqueue: AtomicI64::default(),
            inqueue_seats: AtomicI64::default(),
            executing: AtomicI64::default(),
            executing_seats: AtomicI64::default(),
            no_accommodation: AtomicU64::default(),
            queue_length: Histogram::of_counts(LENGTHS),
            waits: [Histogram::of_times(SECONDS), Histogram::of_times(SECONDS)],
            executions: [Histogram::of_times(SECONDS), Histogram::of_times(SECONDS)],
            watchers: Histogram::of_counts(WATCHERS),
            seats: Histogram::of_counts(SEATS),
        }
    }
}

impl Flow {
    pub(super) fn waits(&self, requests: i64, seats: i64) {
        self.inqueue.fetch_add(requests, Ordering::Relaxed);
        self.inqueue_seats.fetch_add(seats, Ordering::Relaxed);
    }
    pub(super) fn refused(&self, refusal: Refusal) {
        self.rejected[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }
    pub(super) fn waited(&self, executed: bool, time: Duration) {
        self.waits[usize::from(!executed)].took(time);
    }
    pub(super) fn executed(&self, watch: bool, time: Duration) {
        self.executions[usize::from(watch)].took(time);
    }
}

/// A level, and what its series are labelled with.
struct Told<'a> {
    level: &'a Arc<Level>,
    labels: String,
    flows: Vec<(String, Arc<Flow>)>,
}

/// A metric with a number for each flow: name, type, help, the number.
type OfFlow = (&'static str, &'static str, &'static str, fn(&Flow) -> i64);
/// The same of histograms, each with its own label, and whether it is told of flows that have nothing in it.
type HistogramOfFlow = (&'static str, &'static str, &'static [(&'static str, fn(&Flow) -> &Histogram)]);
/// A metric with a number for each level.
type OfLevel = (&'static str, &'static str, fn(&Level) -> f64);

fn signed(counter: &AtomicU64) -> i64 {
    counter.load(Ordering::Relaxed).cast_signed()
}

const EXECUTING_SEATS: &str = "[BETA] Concurrency (number of seats) occupied by the currently executing (initial stage for a WATCH, any stage otherwise) requests in the API Priority and Fairness subsystem";

const FLOWS: &[OfFlow] = &[
    (
        "current_executing_requests",
        "gauge",
        "[BETA] Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API Priority and Fairness subsystem",
        |flow| flow.executing.load(Ordering::Relaxed),
    ),
    (
        "current_inqueue_requests",
        "gauge",
        "[BETA] Number of requests currently pending in queues of the API Priority and Fairness subsystem",
        |flow| flow.inqueue.load(Ordering::Relaxed),
    ),
    (
        "current_inqueue_seats",
        "gauge",
        "[ALPHA] Number of seats currently pending in queues of the API Priority and Fairness subsystem",
        |flow| flow.inqueue_seats.load(Ordering::Relaxed),
    ),
    ("current_executing_seats", "gauge", EXECUTING_SEATS, |flow| flow.executing_seats.load(Ordering::Relaxed)),
    (
        "dispatched_requests_total",
        "counter",
        "[BETA] Number of requests executed by API Priority and Fairness subsystem",
        |flow| signed(&flow.dispatched),
    ),
    (
        "request_dispatch_no_accommodation_total",
        "counter",
        "[ALPHA] Number of times a dispatch attempt resulted in a non accommodation due to lack of available seats",
        |flow| signed(&flow.no_accommodation),
    ),
];

const HISTOGRAMS: &[HistogramOfFlow] = &[
    (
        "request_wait_duration_seconds",
        "[BETA] Length of time a request spent waiting in its queue",
        &[("execute=\"false\",", |flow| &flow.waits[1]), ("execute=\"true\",", |flow| &flow.waits[0])],
    ),
    (
        "request_execution_seconds",
        "[ALPHA] Duration of initial stage (for a WATCH) or any (for a non-WATCH) stage of request execution in the API Priority and Fairness subsystem",
        &[("type=\"regular\",", |flow| &flow.executions[0]), ("type=\"watch\",", |flow| &flow.executions[1])],
    ),
    (
        "request_queue_length_after_enqueue",
        "[ALPHA] Length of queue in the API Priority and Fairness subsystem, as seen by each request after it is enqueued",
        &[("", |flow| &flow.queue_length)],
    ),
    (
        "watch_count_samples",
        "[ALPHA] count of watchers for mutating requests in API Priority and Fairness",
        &[("", |flow| &flow.watchers)],
    ),
    (
        "work_estimated_seats",
        "[ALPHA] Number of estimated seats (maximum of initial and final seats) associated with requests in API Priority and Fairness",
        &[("", |flow| &flow.seats)],
    ),
];

fn shared<R>(level: &Level, read: impl FnOnce(&super::level::Shared) -> R) -> R {
    read(&level.limits.lock().unwrap_or_else(PoisonError::into_inner))
}

const NANOS: f64 = 1e9;

fn seat_seconds(work: Work) -> f64 {
    work as f64 / NANOS
}

const LEVELS: &[OfLevel] = &[
    ("nominal_limit_seats", "[BETA] Nominal number of execution seats configured for each priority level", |level| {
        shared(level, |s| s.limits.nominal as f64)
    }),
    (
        "lower_limit_seats",
        "[ALPHA] Configured lower bound on number of execution seats available to each priority level",
        |level| shared(level, |s| s.limits.least as f64),
    ),
    (
        "upper_limit_seats",
        "[ALPHA] Configured upper bound on number of execution seats available to each priority level",
        |level| shared(level, |s| s.limits.most as f64),
    ),
    (
        "current_limit_seats",
        "[ALPHA] current derived number of execution seats available to each priority level",
        |level| shared(level, |s| s.current as f64),
    ),
    ("demand_seats_high_watermark", "[ALPHA] High watermark, over last adjustment period, of demand_seats", |level| {
        shared(level, |s| s.demand.most)
    }),
    ("demand_seats_average", "[ALPHA] Time-weighted average, over last adjustment period, of demand_seats", |level| {
        shared(level, |s| s.demand.average)
    }),
    (
        "demand_seats_stdev",
        "[ALPHA] Time-weighted standard deviation, over last adjustment period, of demand_seats",
        |level| shared(level, |s| s.demand.deviation),
    ),
    ("demand_seats_smoothed", "[ALPHA] Smoothed seat demands", |level| shared(level, |s| s.demand.smoothed)),
    ("target_seats", "[ALPHA] Seat allocation targets", |level| shared(level, |s| s.target)),
    ("current_r", "[ALPHA] R(time of last change)", |level| seat_seconds(level.lock().progress())),
    ("dispatch_r", "[ALPHA] R(time of last dispatch)", |level| seat_seconds(level.lock().last.at)),
    ("latest_s", "[ALPHA] S(most recently dispatched request)", |level| seat_seconds(level.lock().last.start)),
];

fn full(name: &str) -> String {
    format!("apiserver_flowcontrol_{name}")
}

/// Writes all of it.
pub(super) fn render(prepared: &Prepared, out: &mut String) -> fmt::Result {
    let told: Vec<Told<'_>> = prepared
        .all_levels()
        .map(|level| {
            let flows = level.flows.lock().unwrap_or_else(PoisonError::into_inner);
            let flows = flows.iter().map(|(name, flow)| (name.clone(), flow.clone())).collect();
            Told { level, labels: format!("priority_level=\"{}\"", escaped(&level.name)), flows }
        })
        .collect();
    let flows = || {
        told.iter().flat_map(|told| {
            told.flows
                .iter()
                .map(|(name, flow)| (format!("flow_schema=\"{}\",{}", escaped(name), told.labels), flow.as_ref()))
        })
    };
    for (name, kind, help, number) in FLOWS {
        let name = full(name);
        head(out, &name, kind, help)?;
        for (labels, flow) in flows() {
            series(out, &name, &labels, number(flow))?;
        }
    }
    let name = full("rejected_requests_total");
    head(out, &name, "counter", "[BETA] Number of requests rejected by API Priority and Fairness subsystem")?;
    for (labels, flow) in flows() {
        for (reason, count) in REFUSALS.iter().zip(&flow.rejected).filter(|(_, count)| signed(count) > 0) {
            series(out, &name, &format!("{labels},reason=\"{reason}\""), signed(count))?;
        }
    }
    for (name, help, parts) in HISTOGRAMS {
        let name = full(name);
        head(out, &name, "histogram", help)?;
        for (labels, flow) in flows() {
            for (own, of) in *parts {
                let histogram = of(flow);
                if histogram.is_empty() {
                    continue;
                }
                // Labels are in the order of their names.
                let labels = if own.starts_with('t') {
                    format!("{labels},{}", own.trim_end_matches(','))
                } else {
                    format!("{own}{labels}")
                };
                histogram.write(out, &name, &labels)?;
            }
        }
    }
    for (name, help, number) in LEVELS {
        let name = full(name);
        head(out, &name, "gauge", help)?;
        for told in &told {
            series(out, &name, &told.labels, number(told.level))?;
        }
    }
    bounds(&told, out)?;
    timings(&told, out)?;
    let name = full("seat_fair_frac");
    head(
        out,
        &name,
        "gauge",
        "[ALPHA] Fair fraction of server's concurrency to allocate to each priority level that can use it",
    )?;
    series(out, &name, "", prepared.fraction())
}

fn bounds(told: &[Told<'_>], out: &mut String) -> fmt::Result {
    for (name, help, discounted) in [
        ("next_s_bounds", "[ALPHA] min and max, over queues, of S(oldest waiting request in queue)", false),
        (
            "next_discounted_s_bounds",
            "[ALPHA] min and max, over queues, of S(oldest waiting request in queue) - estimated work in progress",
            true,
        ),
    ] {
        let name = full(name);
        head(out, &name, "gauge", help)?;
        for told in told {
            let last = told.level.lock().last;
            let (least, most) = if discounted { last.discounted } else { last.bounds };
            for (bound, value) in [("max", most), ("min", least)] {
                series(out, &name, &format!("bound=\"{bound}\",{}", told.labels), seat_seconds(value))?;
            }
        }
    }
    Ok(())
}

fn timings(told: &[Told<'_>], out: &mut String) -> fmt::Result {
    let observed: Vec<_> = told.iter().map(|told| (told, told.level.observed())).collect();
    let [mut demand, mut requests, mut seats] = [const { String::new() }; 3];
    let names = ["demand_seats", "priority_level_request_utilization", "priority_level_seat_utilization"].map(full);
    for (told, observed) in &observed {
        let labels = &told.labels;
        observed.demand_ratio.write(&mut demand, &names[0], labels)?;
        observed.executing.write(&mut requests, &names[1], &format!("phase=\"executing\",{labels}"))?;
        observed.waiting.write(&mut requests, &names[1], &format!("phase=\"waiting\",{labels}"))?;
        observed.seats.write(&mut seats, &names[2], &format!("phase=\"executing\",{labels}"))?;
    }
    for (name, help, series) in [
        (
            &names[0],
            "[ALPHA] Observations, at the end of every nanosecond, of (the number of seats each priority level could use) / (current seat limit for that level if that is not zero otherwise max(1, round(server seat limit/10.0)))",
            demand,
        ),
        (
            &names[1],
            "[ALPHA] Observations, at the end of every nanosecond, of number of requests waiting or in any stage of execution (but only initial stage for WATCHes); denominator for waiting is max(1, QueueLengthLimit) X max(1, DesiredNumQueues), for executing is current seat limit if that is not zero otherwise max(1, round(server seat limit/10))",
            requests,
        ),
        (
            &names[2],
            "[ALPHA] Observations, at the end of every nanosecond, of utilization of seats for any stage of execution (but only initial stage for WATCHes); denominator is current seat limit or max(1, round(server seat limit/10))",
            seats,
        ),
    ] {
        head(out, name, "histogram", help)?;
        write!(out, "{series}")?;
    }
    Ok(())
}
