//! How often pods were evaluated, exempt, or could not be evaluated.

use super::{Level, Standard, Version};
use crate::admission::{Attributes, Operation};
use crate::measure::{Family, Labels, Tells, head, series};
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};

/// The newest version of the standards: one that is asked for and newer is not told by its number.
const NEWEST: u32 = 36;

/// What of a request its labels say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Asked {
    operation: &'static str,
    resource: &'static str,
    subresource: Box<str>,
}

impl Asked {
    fn of(a: &Attributes<'_>) -> Self {
        Asked {
            operation: match a.operation {
                Operation::Create => "create",
                Operation::Update => "update",
                Operation::Delete => "delete",
                Operation::Connect => "connect",
            },
            resource: match (a.resource.group.as_ref(), a.resource.plural.as_ref()) {
                ("", "pods") => "pod",
                ("", "namespaces") => "namespace",
                _ => "controller",
            },
            subresource: a.subresource.into(),
        }
    }
}

impl Labels for Asked {
    fn write(&self, out: &mut String) -> fmt::Result {
        let Asked { operation, resource, subresource } = self;
        write!(out, "request_operation=\"{operation}\",resource=\"{resource}\",subresource=\"{subresource}\"")
    }
}

/// What held a pod to a standard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Mode {
    Audit,
    Enforce,
    Warn,
}

impl Mode {
    const fn as_str(self) -> &'static str {
        match self {
            Mode::Audit => "audit",
            Mode::Enforce => "enforce",
            Mode::Warn => "warn",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Evaluated {
    allowed: bool,
    mode: Mode,
    level: Level,
    version: Version,
    asked: Asked,
}

impl Labels for Evaluated {
    fn write(&self, out: &mut String) -> fmt::Result {
        let decision = if self.allowed { "allow" } else { "deny" };
        let version = match self.version {
            Version::Minor(minor) if minor > NEWEST => "future".to_owned(),
            version => version.to_string(),
        };
        let (mode, level) = (self.mode.as_str(), self.level);
        write!(out, "decision=\"{decision}\",mode=\"{mode}\",policy_level=\"{level}\",policy_version=\"{version}\",")?;
        self.asked.write(out)
    }
}

/// An evaluation that something was in the way of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Failed {
    fatal: bool,
    asked: Asked,
}

impl Labels for Failed {
    fn write(&self, out: &mut String) -> fmt::Result {
        write!(out, "fatal=\"{}\",", self.fatal)?;
        self.asked.write(out)
    }
}

/// All of it.
#[derive(Debug, Default)]
pub struct Measures {
    errors: Family<Failed, AtomicU64>,
    evaluations: Family<Evaluated, AtomicU64>,
    exemptions: Family<Asked, AtomicU64>,
}

fn one_more(counter: &std::sync::Arc<AtomicU64>) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Measures {
    pub(super) fn evaluated(&self, a: &Attributes<'_>, standard: Standard, mode: Mode, allowed: bool) {
        let Standard { level, version } = standard;
        let key = Evaluated { allowed, mode, level, version, asked: Asked::of(a) };
        self.evaluations.with(&key, AtomicU64::default, one_more);
    }

    pub(super) fn exempted(&self, a: &Attributes<'_>) {
        self.exemptions.with(&Asked::of(a), AtomicU64::default, one_more);
    }

    /// `fatal`: there was no evaluation.
    pub(super) fn failed(&self, a: &Attributes<'_>, fatal: bool) {
        self.errors.with(&Failed { fatal, asked: Asked::of(a) }, AtomicU64::default, one_more);
    }
}

fn render<K: Labels>(out: &mut String, name: &str, help: &str, family: &Family<K, AtomicU64>) -> fmt::Result {
    head(out, name, "counter", help)?;
    for (key, count) in family.sorted() {
        let mut labels = String::new();
        key.write(&mut labels)?;
        series(out, name, &labels, count.load(Ordering::Relaxed))?;
    }
    Ok(())
}

impl Tells for Measures {
    fn render(&self, out: &mut String) -> fmt::Result {
        render(
            out,
            "pod_security_errors_total",
            "[ALPHA] Number of errors preventing normal evaluation. Non-fatal errors may result in the latest restricted profile being used for evaluation.",
            &self.errors,
        )?;
        render(
            out,
            "pod_security_evaluations_total",
            "[ALPHA] Number of policy evaluations that occurred, not counting ignored or exempt requests.",
            &self.evaluations,
        )?;
        render(
            out,
            "pod_security_exemptions_total",
            "[ALPHA] Number of exempt requests, not counting ignored or out of scope requests.",
            &self.exemptions,
        )
    }
}
