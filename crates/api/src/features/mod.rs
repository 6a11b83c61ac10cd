//! Feature gates: which there are in v1.36, and which of them are on.
//!
//! Every component is told by the same flag, `--feature-gates`, and reads it by [`Asked`]; [`Gates`] is what comes of it.

mod table;

use std::collections::BTreeMap;
use std::fmt;
use table::{ASKED, BLOCKS, NEEDS};

/// How far a feature is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Alpha,
    Beta,
    Ga,
    Deprecated,
}

impl Stage {
    /// As the metric `kubernetes_feature_enabled` says it.
    pub fn label(self) -> &'static str {
        match self {
            Stage::Alpha => "ALPHA",
            Stage::Beta => "BETA",
            Stage::Ga => "",
            Stage::Deprecated => "DEPRECATED",
        }
    }
}

/// A gate as v1.36 has it.
#[derive(Clone, Copy, Debug)]
struct Gate {
    name: &'static str,
    stage: Stage,
    on: bool,
    locked: bool,
}

fn all() -> impl Iterator<Item = Gate> {
    BLOCKS.iter().flat_map(|block| {
        let gate = |name: &&'static str| Gate { name, stage: block.stage, on: block.on, locked: block.locked };
        block.names.iter().map(gate)
    })
}

/// What was asked for: values by name, as one or several flags give them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked(BTreeMap<String, bool>);

impl std::str::FromStr for Asked {
    type Err = String;

    /// Reads `A=true,B=false`. That the names exist is [checked](Asked::gates) with all of them.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut asked = BTreeMap::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name.trim(), value.trim()),
                None => return Err(format!("missing bool value for {}", part.trim())),
            };
            let value = parse_bool(value).ok_or_else(|| {
                let quoted = crate::field::go_quote(value);
                format!("invalid value of {name}={value}, err: strconv.ParseBool: parsing {quoted}: invalid syntax")
            })?;
            if all().all(|gate| gate.name != name) {
                return Err(format!("unrecognized feature gate: {name}"));
            }
            asked.insert(name.to_owned(), value);
        }
        Ok(Asked(asked))
    }
}

/// As Go's `strconv.ParseBool` reads it.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

impl Asked {
    /// Adds what another flag, or a configuration file, asks for; the later counts.
    pub fn extend(&mut self, other: Asked) {
        self.0.extend(other.0);
    }

    /// The gates as they are now, and what is to be said of it.
    ///
    /// # Errors
    /// A gate that is unknown, locked to the other value, or on without what it needs.
    pub fn gates(&self) -> Result<(Gates, Vec<String>), String> {
        let mut gates = Gates::default();
        let (mut told, mut errors) = (Vec::new(), Vec::new());
        for (name, value) in &self.0 {
            let Some(gate) = all().find(|gate| gate.name == name) else {
                return Err(format!("unrecognized feature gate: {name}"));
            };
            if gate.locked && gate.on != *value {
                let locked = gate.on;
                errors.push(format!("cannot set feature gate {name} to {value}, feature is locked to {locked}"));
                continue;
            }
            match gate.stage {
                Stage::Deprecated => told.push(format!(
                    "Setting deprecated feature gate {name}={value}. It will be removed in a future release."
                )),
                Stage::Ga => told
                    .push(format!("Setting GA feature gate {name}={value}. It will be removed in a future release.")),
                Stage::Alpha | Stage::Beta if gate.on != *value && !ASKED.contains(&gate.name) => {
                    told.push(format!("feature gate {name}={value} has no effect: nothing here asks for it"));
                }
                Stage::Alpha | Stage::Beta => {}
            }
            gates.0.insert(gate.name, *value);
        }
        for (toggle, stage) in [("AllAlpha", Stage::Alpha), ("AllBeta", Stage::Beta)] {
            let Some(value) = self.0.get(toggle) else { continue };
            for gate in all().filter(|gate| gate.stage == stage && !matches!(gate.name, "AllAlpha" | "AllBeta")) {
                gates.0.entry(gate.name).or_insert(*value);
            }
        }
        if errors.is_empty() {
            for (name, needs) in NEEDS.iter().filter(|(name, _)| gates.enabled(name)) {
                let off: Vec<&str> = needs.iter().filter(|need| !gates.enabled(need)).copied().collect();
                if !off.is_empty() {
                    let off = off.join(" ");
                    errors.push(format!("{name} is enabled, but depends on features that are disabled: [{off}]"));
                }
            }
        }
        match errors.len() {
            0 => Ok((gates, told)),
            1 => Err(errors.remove(0)),
            _ => Err(format!("[{}]", errors.join(", "))),
        }
    }
}

/// Which gates are on.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Gates(BTreeMap<&'static str, bool>);

impl Gates {
    /// Whether a feature is on. The name is one that exists: anything else is off.
    pub fn enabled(&self, name: &str) -> bool {
        match self.0.get(name) {
            Some(value) => *value,
            None => all().find(|gate| gate.name == name).is_some_and(|gate| gate.on),
        }
    }

    /// The gates in the text format of Prometheus, under upstream's name.
    pub fn metric(&self) -> String {
        let mut rows: Vec<String> = all()
            .map(|gate| {
                let on = u8::from(self.enabled(gate.name));
                let (name, stage) = (gate.name, gate.stage.label());
                format!("kubernetes_feature_enabled{{name=\"{name}\",stage=\"{stage}\"}} {on}\n")
            })
            .collect();
        rows.sort();
        format!(
            "# HELP kubernetes_feature_enabled [BETA] This metric records the data about the stage and enablement of a k8s feature.\n\
             # TYPE kubernetes_feature_enabled gauge\n{}",
            rows.concat()
        )
    }
}

impl fmt::Debug for Gates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.0).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gates(text: &str) -> Result<(Gates, Vec<String>), String> {
        text.parse::<Asked>()?.gates()
    }

    #[test]
    fn gates_are_read_as_upstream_reads_them() {
        let (set, told) = gates("ContainerStopSignals=true, EnvFiles=F,").expect("gates");
        assert!(set.enabled("ContainerStopSignals") && !set.enabled("EnvFiles") && set.enabled("PodLevelResources"));
        assert!(!set.enabled("GenericWorkload") && !set.enabled("NoSuchGate"));
        assert_eq!(told, Vec::<String>::new());
        for (text, error) in [
            ("Nope=true", "unrecognized feature gate: Nope"),
            ("EnvFiles", "missing bool value for EnvFiles"),
            ("EnvFiles=yes", r#"invalid value of EnvFiles=yes, err: strconv.ParseBool: parsing "yes": invalid syntax"#),
            (
                "DynamicResourceAllocation=false",
                "cannot set feature gate DynamicResourceAllocation to false, feature is locked to true",
            ),
            (
                "GangScheduling=true",
                "GangScheduling is enabled, but depends on features that are disabled: [GenericWorkload]",
            ),
        ] {
            assert_eq!(gates(text).expect_err(text), error);
        }
    }

    #[test]
    fn stages_are_turned_as_a_whole_and_single_gates_counted_first() {
        let (set, _) = gates("AllAlpha=true,EventedPLEG=false").expect("gates");
        assert!(set.enabled("ContainerStopSignals") && !set.enabled("EventedPLEG"));
        assert!(!set.enabled("MaxUnavailableStatefulSet"), "that is beta");
        let refused = gates("AllBeta=false,RestartAllContainersOnContainerExits=true").expect_err("its needs are off");
        assert!(refused.ends_with("[ContainerRestartRules NodeDeclaredFeatures]"), "{refused}");
        let mut asked: Asked = "EnvFiles=false".parse().expect("read");
        asked.extend("EnvFiles=true".parse().expect("read"));
        assert!(asked.gates().expect("gates").0.enabled("EnvFiles"), "the later counts");
    }

    #[test]
    fn what_changes_nothing_is_told() {
        let told = |text: &str| gates(text).expect("gates").1;
        assert_eq!(
            told("SidecarContainers=true"),
            ["Setting GA feature gate SidecarContainers=true. It will be removed in a future release."]
        );
        assert_eq!(
            told("KMSv1=true"),
            ["Setting deprecated feature gate KMSv1=true. It will be removed in a future release."]
        );
        assert_eq!(told("EventedPLEG=true"), ["feature gate EventedPLEG=true has no effect: nothing here asks for it"]);
        assert_eq!(told("EventedPLEG=false"), Vec::<String>::new());
    }

    /// The sources of a crate.
    fn sources(directory: &std::path::Path, into: &mut String) {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                sources(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "txt") {
                into.push_str(&std::fs::read_to_string(&path).expect("a source"));
            }
        }
    }

    #[test]
    fn every_gate_that_is_on_is_asked_for_or_it_is_said_why_not() {
        for gate in all().filter(|gate| gate.on && !gate.locked && !gate.name.starts_with("All")) {
            let reasons = table::UNASKED.iter().filter(|(_, names)| names.contains(&gate.name)).count();
            assert_eq!(reasons, usize::from(!ASKED.contains(&gate.name)), "{}", gate.name);
        }
        let mut text = String::new();
        let crates = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crates");
        for name in ["apiserver", "controllers", "kubelet", "pilothouse", "proxy", "scheduler", "schema"] {
            sources(&crates.join(name).join("src"), &mut text);
        }
        sources(&crates.join("schema/tables"), &mut text);
        for name in ASKED.iter().filter(|name| !name.starts_with("All")) {
            let quoted = format!("\"{name}\"");
            assert!(text.contains(&quoted) || text.contains(&format!("gate={name}")), "nothing asks for {name}");
        }
    }

    #[test]
    fn the_tables_agree() {
        let mut names: Vec<&str> = all().map(|gate| gate.name).collect();
        names.sort_unstable();
        assert!(names.is_sorted_by(|a, b| a < b), "a gate is in two blocks");
        let needed = NEEDS.iter().flat_map(|(name, needs)| std::iter::once(name).chain(*needs));
        for name in needed.chain(ASKED) {
            assert!(names.binary_search(name).is_ok(), "{name} is no gate");
        }
        let metric = Gates::default().metric();
        assert!(metric.contains("\nkubernetes_feature_enabled{name=\"AllAlpha\",stage=\"ALPHA\"} 0\n"), "{metric}");
        assert!(metric.contains("\nkubernetes_feature_enabled{name=\"EnvFiles\",stage=\"BETA\"} 1\n"), "{metric}");
        assert!(metric.contains("\nkubernetes_feature_enabled{name=\"SidecarContainers\",stage=\"\"} 1\n"), "{metric}");
    }
}
