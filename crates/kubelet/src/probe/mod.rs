//! Probes: asking containers whether they started, live and are ready.

pub(crate) mod grpc;
pub(crate) mod http;
pub(crate) mod run;

use std::collections::HashMap;

/// Which of its three probes a container is asked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    /// As messages about kills spell it.
    pub(crate) fn lower(self) -> &'static str {
        match self {
            Kind::Startup => "startup",
            Kind::Liveness => "liveness",
            Kind::Readiness => "readiness",
        }
    }

    /// As messages about failures spell it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Liveness => "Liveness",
            Kind::Readiness => "Readiness",
        }
    }
}

/// What a probe has concluded after its thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    Failure,
    /// Not yet known.
    Unknown,
}

/// The conclusions about a pod's containers, by container id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Results(HashMap<String, HashMap<Kind, Outcome>>);

impl Results {
    pub(crate) fn get(&self, container: &str, kind: Kind) -> Option<Outcome> {
        self.0.get(container)?.get(&kind).copied()
    }

    /// Notes a conclusion; returns whether it is news.
    pub(crate) fn set(&mut self, container: &str, kind: Kind, outcome: Outcome) -> bool {
        let of_container = self.0.entry(container.to_owned()).or_default();
        of_container.insert(kind, outcome) != Some(outcome)
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|container, _| keep(container));
    }
}
