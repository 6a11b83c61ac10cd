//! What the registry measures: admission, plugin by plugin and step by step, and the requests to the store.

pub use crate::measure::Tells;

use crate::admission::{Attributes, Chain, Operation};
use crate::measure::{Asks, Family, Histogram, Labels, head, series};
use api::{GroupResource, Status};
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

const ADMISSION: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
const STORE: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];

/// From 50 kB in steps of 100 kB to what is the most that is taken.
const BODIES: &[f64] = &[
    5e4, 1.5e5, 2.5e5, 3.5e5, 4.5e5, 5.5e5, 6.5e5, 7.5e5, 8.5e5, 9.5e5, 1.05e6, 1.15e6, 1.25e6, 1.35e6, 1.45e6, 1.55e6,
    1.65e6, 1.75e6, 1.85e6, 1.95e6, 2.05e6, 2.15e6, 2.25e6, 2.35e6, 2.45e6, 2.55e6, 2.65e6, 2.75e6, 2.85e6, 2.95e6,
    3.05e6,
];

const OPERATIONS: [Operation; 4] = [Operation::Connect, Operation::Create, Operation::Delete, Operation::Update];
const SIDES: [&str; 2] = ["admit", "validate"];

/// The times of a plugin, or of all of them: by operation, whether it refused, and side.
#[derive(Debug)]
struct Admitted(Box<[Histogram]>);

impl Default for Admitted {
    fn default() -> Self {
        Admitted((0..OPERATIONS.len() * 4).map(|_| Histogram::of_times(ADMISSION)).collect())
    }
}

impl Admitted {
    fn took(&self, operation: Operation, rejected: bool, side: Side, time: Duration) {
        let operation = match operation {
            Operation::Connect => 0,
            Operation::Create => 1,
            Operation::Delete => 2,
            Operation::Update => 3,
        };
        self.0[operation * 4 + usize::from(rejected) * 2 + side as usize].took(time);
    }

    /// Writes what there is of it, after the labels before it.
    fn write(&self, out: &mut String, name: &str, before: &str) -> fmt::Result {
        for (at, histogram) in self.0.iter().enumerate().filter(|(_, histogram)| !histogram.is_empty()) {
            let (operation, rejected, side) = (OPERATIONS[at / 4].as_str(), at / 2 % 2 == 1, SIDES[at % 2]);
            let labels = format!("{before}operation=\"{operation}\",rejected=\"{rejected}\",type=\"{side}\"");
            histogram.write(out, name, &labels)?;
        }
        Ok(())
    }
}

/// One of the two sides of admission.
#[derive(Clone, Copy, Debug)]
enum Side {
    Admit,
    Validate,
}

/// A write to the store. Its resource is known by where it is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Stored {
    group: Box<str>,
    operation: &'static str,
    resource: Box<str>,
}

impl Labels for Stored {
    fn write(&self, out: &mut String) -> fmt::Result {
        write!(out, "group=\"{}\",operation=\"{}\",resource=\"{}\"", self.group, self.operation, self.resource)
    }
}

/// The same as it is asked for.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Storing<'a> {
    pub(super) group: &'a str,
    pub(super) operation: &'static str,
    pub(super) resource: &'a str,
}

impl Asks<Stored> for Storing<'_> {
    fn is(&self, key: &Stored) -> bool {
        *self.group == *key.group && self.operation == key.operation && *self.resource == *key.resource
    }
    fn own(&self) -> Stored {
        Stored { group: self.group.into(), operation: self.operation, resource: self.resource.into() }
    }
}

#[derive(Debug)]
struct Requests {
    times: Histogram,
    failed: AtomicU64,
}

/// Lists that the store was read for: how many, and the objects that were fetched, looked at and told.
#[derive(Debug, Default)]
struct Lists([AtomicU64; 4]);

/// The metrics of [`Lists`].
const LISTS: [(&str, &str); 4] = [
    ("apiserver_storage_list_total", "[ALPHA] Number of LIST requests served from storage"),
    (
        "apiserver_storage_list_fetched_objects_total",
        "[ALPHA] Number of objects read from storage in the course of serving a LIST request",
    ),
    (
        "apiserver_storage_list_evaluated_objects_total",
        "[ALPHA] Number of objects tested in the course of serving a LIST request from storage",
    ),
    (
        "apiserver_storage_list_returned_objects_total",
        "[ALPHA] Number of objects returned for a LIST request from storage",
    ),
];

/// All of it.
#[derive(Default)]
pub struct Measures {
    /// By the places of the plugins in their chain.
    plugins: OnceLock<Vec<(&'static str, Admitted)>>,
    steps: Admitted,
    store: Family<Stored, Requests>,
    lists: Family<Stored, Lists>,
    /// The bodies of requests; the operation is what they do.
    bodies: Family<Stored, Histogram>,
    others: Mutex<Vec<Arc<dyn Tells>>>,
}

impl Measures {
    /// Tells of something else, too: of tokens, where there are any.
    pub fn tell_of(&self, other: Arc<dyn Tells>) {
        self.others.lock().unwrap_or_else(PoisonError::into_inner).push(other);
    }

    /// Notes a request to the store.
    pub(super) fn stored(&self, what: Storing<'_>, failed: bool, took: Duration) {
        let make = || Requests { times: Histogram::of_times(STORE), failed: AtomicU64::new(0) };
        self.store.with(&what, make, |requests| {
            requests.times.took(took);
            requests.failed.fetch_add(u64::from(failed), Ordering::Relaxed);
        });
    }

    /// Notes a list that was read from the store.
    pub(super) fn listed(&self, what: Storing<'_>, fetched: usize, evaluated: usize, returned: usize) {
        self.lists.with(&what, Lists::default, |lists| {
            for (counter, count) in lists.0.iter().zip([1, fetched, evaluated, returned]) {
                counter.fetch_add(count as u64, Ordering::Relaxed);
            }
        });
    }

    /// Notes the body of a request for a resource, of one of upstream's verbs for that.
    pub fn sent(&self, group: &str, resource: &str, verb: &'static str, size: usize) {
        let sent = Storing { group, operation: verb, resource };
        self.bodies.with(&sent, || Histogram::of_counts(BODIES), |sizes| sizes.observe(size as u64));
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn render(&self, out: &mut String) -> fmt::Result {
        for other in self.others.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            other.render(out)?;
        }
        let name = "apiserver_admission_controller_admission_duration_seconds";
        head(
            out,
            name,
            "histogram",
            "[STABLE] Admission controller latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).",
        )?;
        for (plugin, admitted) in self.plugins.get().into_iter().flatten() {
            admitted.write(out, name, &format!("name=\"{plugin}\","))?;
        }
        let name = "apiserver_admission_step_admission_duration_seconds";
        head(
            out,
            name,
            "histogram",
            "[STABLE] Admission sub-step latency histogram in seconds, broken out for each operation and API resource and step type (validate or admit).",
        )?;
        self.steps.write(out, name, "")?;
        let name = "apiserver_request_body_size_bytes";
        let help = "[ALPHA] Apiserver request body size in bytes broken out by resource and verb.";
        head(out, name, "histogram", help)?;
        for (sent, sizes) in self.bodies.sorted() {
            let resource = GroupResource::new(sent.group.to_string(), sent.resource.to_string());
            sizes.write(out, name, &format!("resource=\"{resource}\",verb=\"{}\"", sent.operation))?;
        }
        self.render_store(out)
    }

    fn render_store(&self, out: &mut String) -> fmt::Result {
        let mut all = Vec::new();
        for (key, requests) in self.store.sorted() {
            let mut labels = String::new();
            key.write(&mut labels)?;
            all.push((labels, requests));
        }
        let name = "etcd_request_duration_seconds";
        let help = "[ALPHA] Etcd request latency in seconds for each operation and object type.";
        head(out, name, "histogram", help)?;
        for (labels, requests) in &all {
            requests.times.write(out, name, labels)?;
        }
        let name = "etcd_requests_total";
        head(out, name, "counter", "[ALPHA] Etcd request counts for each operation and object type.")?;
        for (labels, requests) in &all {
            series(out, name, labels, requests.times.count())?;
        }
        let name = "etcd_request_errors_total";
        head(out, name, "counter", "[ALPHA] Etcd failed request counts for each operation and object type.")?;
        for (labels, requests) in &all {
            series(out, name, labels, requests.failed.load(Ordering::Relaxed))?;
        }
        let lists = self.lists.sorted();
        for (at, (name, help)) in LISTS.into_iter().enumerate() {
            head(out, name, "counter", help)?;
            for (of, lists) in &lists {
                let labels = format!("group=\"{}\",resource=\"{}\"", of.group, of.resource);
                series(out, name, &labels, lists.0[at].load(Ordering::Relaxed))?;
            }
        }
        Ok(())
    }
}

/// The chain, measured. The end of one plugin is the beginning of the next.
pub(super) struct Measured<'a> {
    pub(super) chain: &'a Chain,
    pub(super) measures: &'a Measures,
}

impl Measured<'_> {
    fn plugins(&self) -> &[(&'static str, Admitted)] {
        let names = || self.chain.0.iter().map(|plugin| (plugin.name(), Admitted::default())).collect();
        self.measures.plugins.get_or_init(names)
    }

    pub(super) async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        let (began, operation) = (Instant::now(), attributes.operation);
        let (mut result, mut last) = (Ok(()), began);
        for (plugin, (_, admitted)) in self.chain.0.iter().zip(self.plugins()) {
            if !plugin.sides().admits() || !plugin.handles(operation) {
                continue;
            }
            result = plugin.admit(attributes).await;
            let now = Instant::now();
            if plugin.is_a_plugin() {
                admitted.took(operation, result.is_err(), Side::Admit, now - last);
            }
            last = now;
            if result.is_err() {
                break;
            }
        }
        self.measures.steps.took(operation, result.is_err(), Side::Admit, last - began);
        result
    }

    pub(super) async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let (began, operation) = (Instant::now(), attributes.operation);
        let (mut result, mut last) = (Ok(()), began);
        for (plugin, (_, admitted)) in self.chain.0.iter().zip(self.plugins()) {
            if !plugin.sides().validates() || !plugin.handles(operation) {
                continue;
            }
            result = plugin.validate(attributes).await;
            let now = Instant::now();
            if plugin.is_a_plugin() {
                admitted.took(operation, result.is_err(), Side::Validate, now - last);
            }
            last = now;
            if result.is_err() {
                break;
            }
        }
        self.measures.steps.took(operation, result.is_err(), Side::Validate, last - began);
        result
    }
}
