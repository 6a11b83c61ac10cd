//! What the registry measures: admission, plugin by plugin and step by step, and the requests to the store.

use crate::admission::{Attributes, Chain, Operation};
use crate::measure::{Histograms, Labels};
use crate::tokens::Uses;
use api::Status;
use std::fmt::{self, Write};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

const ADMISSION: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
const STORE: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];

/// One plugin (or, without a name, all of them) at one of the two sides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Admitted {
    name: &'static str,
    operation: &'static str,
    rejected: bool,
    side: &'static str,
}

impl Labels for Admitted {
    fn write(&self, out: &mut String) -> fmt::Result {
        if !self.name.is_empty() {
            write!(out, "name=\"{}\",", self.name)?;
        }
        write!(out, "operation=\"{}\",rejected=\"{}\",type=\"{}\"", self.operation, self.rejected, self.side)
    }
}

/// A write to the store. Its resource is known by where it is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stored {
    pub group: String,
    pub resource: String,
    pub operation: &'static str,
}

impl Labels for Stored {
    fn write(&self, out: &mut String) -> fmt::Result {
        write!(out, "group=\"{}\",operation=\"{}\",resource=\"{}\"", self.group, self.operation, self.resource)
    }
}

/// All of it.
#[derive(Debug)]
pub struct Measures {
    plugins: Histograms<Admitted>,
    steps: Histograms<Admitted>,
    pub(super) store: Histograms<Stored>,
    /// Of service account tokens, where there are any.
    tokens: OnceLock<Arc<Uses>>,
}

impl Default for Measures {
    fn default() -> Self {
        Measures {
            plugins: Histograms::new(ADMISSION),
            steps: Histograms::new(ADMISSION),
            store: Histograms::new(STORE),
            tokens: OnceLock::new(),
        }
    }
}

impl Measures {
    /// Tells of the uses of tokens, too. Only the first call counts.
    pub fn tell_of_tokens(&self, uses: Arc<Uses>) {
        self.tokens.get_or_init(|| uses);
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn render(&self, out: &mut String) -> fmt::Result {
        if let Some(tokens) = self.tokens.get() {
            tokens.render(out)?;
        }
        self.plugins.render(
            out,
            "apiserver_admission_controller_admission_duration_seconds",
            "Admission controller latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).",
        )?;
        self.steps.render(
            out,
            "apiserver_admission_step_admission_duration_seconds",
            "Admission sub-step latency histogram in seconds, broken out for each operation and API resource and step type (validate or admit).",
        )?;
        self.store.render(
            out,
            "etcd_request_duration_seconds",
            "Etcd request latency in seconds for each operation and object type.",
        )
    }

    fn plugin(&self, name: &'static str, operation: Operation, side: &'static str, rejected: bool, began: Instant) {
        self.plugins.took(&Admitted { name, operation: operation.as_str(), rejected, side }, began.elapsed());
    }
}

/// The chain, measured.
pub(super) struct Measured<'a> {
    pub(super) chain: &'a Chain,
    pub(super) measures: &'a Measures,
}

impl Measured<'_> {
    pub(super) async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        let (began, operation) = (Instant::now(), attributes.operation);
        let mut result = Ok(());
        for plugin in self.chain.0.iter().filter(|plugin| plugin.handles(operation)) {
            let began = Instant::now();
            result = plugin.admit(attributes).await;
            self.measures.plugin(plugin.name(), operation, "admit", result.is_err(), began);
            if result.is_err() {
                break;
            }
        }
        self.step(operation, "admit", result.is_err(), began);
        result
    }

    pub(super) async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let (began, operation) = (Instant::now(), attributes.operation);
        let mut result = Ok(());
        for plugin in self.chain.0.iter().filter(|plugin| plugin.handles(operation)) {
            let began = Instant::now();
            result = plugin.validate(attributes).await;
            self.measures.plugin(plugin.name(), operation, "validate", result.is_err(), began);
            if result.is_err() {
                break;
            }
        }
        self.step(operation, "validate", result.is_err(), began);
        result
    }

    fn step(&self, operation: Operation, side: &'static str, rejected: bool, began: Instant) {
        let key = Admitted { name: "", operation: operation.as_str(), rejected, side };
        self.measures.steps.took(&key, began.elapsed());
    }
}
