//! Levels and versions of the Pod Security Standards, and the policy that a namespace's labels ask for.

use super::checks::{self, Refusal};
use api::{FieldError, Path};
use schema::{Map, Value};
use std::fmt;

pub(super) const PREFIX: &str = "pod-security.kubernetes.io/";

/// How strict a standard is; a later one is stricter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    /// # Errors
    /// Upstream's words for a level that there is not.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "privileged" => Ok(Level::Privileged),
            "baseline" => Ok(Level::Baseline),
            "restricted" => Ok(Level::Restricted),
            _ => Err("must be one of privileged, baseline, restricted"),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        })
    }
}

/// The version of the standards: `v1.N`, or the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    Minor(u32),
    Latest,
}

impl Version {
    /// # Errors
    /// Upstream's words for what is no version.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text == "latest" {
            return Ok(Version::Latest);
        }
        text.strip_prefix("v1.")
            .filter(|n| n.bytes().all(|b| b.is_ascii_digit()) && (*n == "0" || !n.starts_with('0')))
            .and_then(|n| n.parse().ok())
            .map(Version::Minor)
            .ok_or("must be \"latest\" or \"v1.x\"")
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Version::Latest => f.write_str("latest"),
            Version::Minor(minor) => write!(f, "v1.{minor}"),
        }
    }
}

/// `restricted:v1.36`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Standard {
    pub level: Level,
    pub version: Version,
}

impl Standard {
    pub const PRIVILEGED: Standard = Standard { level: Level::Privileged, version: Version::Latest };

    /// What the standard refuses of a pod.
    pub(super) fn refusals(self, metadata: &Map, spec: &Map) -> Refusals {
        Refusals(checks::run(self, &checks::Pod { metadata, spec }))
    }
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.level, self.version)
    }
}

/// Everything that a standard refuses; empty: nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusals(Vec<Refusal>);

impl Refusals {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// `hostPort, privileged`
    pub(super) fn reasons(&self) -> String {
        self.0.iter().map(|r| r.reason).collect::<Vec<_>>().join(", ")
    }
    /// `hostPort (container "a" uses hostPort 80), privileged (…)`
    pub(super) fn details(&self) -> String {
        self.0.iter().map(|r| format!("{} ({})", r.reason, r.detail)).collect::<Vec<_>>().join(", ")
    }
}

/// What a namespace asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub enforce: Standard,
    pub audit: Standard,
    pub warn: Standard,
}

impl Default for Policy {
    fn default() -> Self {
        Policy { enforce: Standard::PRIVILEGED, audit: Standard::PRIVILEGED, warn: Standard::PRIVILEGED }
    }
}

impl Policy {
    /// The policy of a namespace's labels over the defaults, with what is wrong with the labels: an unreadable level
    /// enforces the strictest and audits and warns of nothing; an unreadable version is the latest.
    pub(super) fn of(namespace: &Map, defaults: Policy) -> (Policy, Vec<FieldError>) {
        let mut policy = defaults;
        let mut errors = Vec::new();
        let Some(labels) = namespace.at(&["metadata", "labels"]).and_then(Value::as_map) else {
            return (policy, errors);
        };
        let mut note = |label: &str, value: &str, why: &'static str| {
            errors.push(FieldError::invalid(&Path::root("metadata").child("labels").key(label), value, why));
        };
        // A namespace without any, as most are.
        if !labels.iter().any(|(label, _)| label.starts_with(PREFIX)) {
            return (policy, errors);
        }
        let modes = [
            ("enforce", "enforce-version", &mut policy.enforce, Level::Restricted),
            ("audit", "audit-version", &mut policy.audit, Level::Privileged),
            ("warn", "warn-version", &mut policy.warn, Level::Privileged),
        ];
        for (level, version, standard, otherwise) in modes {
            let label = format!("{PREFIX}{level}");
            if let Some(text) = labels.get(&label).and_then(Value::as_str) {
                standard.level = Level::parse(text).unwrap_or_else(|why| {
                    note(&label, text, why);
                    otherwise
                });
            }
            let label = format!("{PREFIX}{version}");
            if let Some(text) = labels.get(&label).and_then(Value::as_str) {
                standard.version = Version::parse(text).unwrap_or_else(|why| {
                    note(&label, text, why);
                    Version::Latest
                });
            }
        }
        (policy, errors)
    }

    pub(super) fn modes(&self) -> [(&'static str, Standard); 3] {
        [("enforce", self.enforce), ("audit", self.audit), ("warn", self.warn)]
    }

    pub(super) fn is_fully_privileged(&self) -> bool {
        self.modes().iter().all(|(_, standard)| standard.level == Level::Privileged)
    }

    /// The same in effect: versions of the privileged level are all one.
    pub(super) fn is_equivalent(&self, other: &Policy) -> bool {
        let same = |(a, b): (&(_, Standard), &(_, Standard))| {
            a.1 == b.1 || a.1.level == Level::Privileged && b.1.level == Level::Privileged
        };
        self.modes().iter().zip(other.modes().iter()).all(same)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::map;

    #[test]
    fn labels_are_read_and_what_is_wrong_is_named() {
        let namespace = map(
            "{metadata: {labels: {pod-security.kubernetes.io/enforce: baseline, pod-security.kubernetes.io/enforce-version: v1.25, \
             pod-security.kubernetes.io/warn: strict, pod-security.kubernetes.io/audit-version: v1.025}}}",
        );
        let (policy, errors) = Policy::of(&namespace, Policy::default());
        assert_eq!(policy.enforce.to_string(), "baseline:v1.25");
        assert_eq!(policy.warn.to_string(), "privileged:latest");
        let shown: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "metadata.labels[pod-security.kubernetes.io/audit-version]: Invalid value: \"v1.025\": must be \"latest\" or \"v1.x\"",
                "metadata.labels[pod-security.kubernetes.io/warn]: Invalid value: \"strict\": must be one of privileged, baseline, restricted",
            ]
        );
        let (closed, _) =
            Policy::of(&map("{metadata: {labels: {pod-security.kubernetes.io/enforce: open}}}"), Policy::default());
        assert_eq!(closed.enforce.level, Level::Restricted, "what cannot be read is enforced most strictly");
    }
}
