//! What of the catalogue is served, and how: feature gates, `--runtime-config`, how long events last.

use api::features::{Gates, parse_bool};
use schema::Resource;
use schema::resource;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What was asked for when the server was started.
#[derive(Clone, Debug)]
pub struct Surface {
    pub gates: Gates,
    pub runtime: RuntimeConfig,
    /// `--event-ttl`: how long events are kept; zero: for ever.
    pub event_ttl: Duration,
    /// The other components of the cluster are ours, too: what those do not act on, nothing does, and the log says so.
    pub whole: bool,
}

impl Default for Surface {
    fn default() -> Self {
        Surface {
            gates: Gates::default(),
            runtime: RuntimeConfig::default(),
            event_ttl: Duration::from_secs(3600),
            whole: false,
        }
    }
}

/// `--runtime-config`: keys (`api/all`, `api/ga`, `api/beta`, `api/alpha`, `GROUP/VERSION`, `GROUP/VERSION/RESOURCE`) and
/// values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeConfig(BTreeMap<String, String>);

impl std::str::FromStr for RuntimeConfig {
    type Err = String;

    /// Reads `KEY=VALUE,KEY`.
    fn from_str(text: &str) -> Result<Self, String> {
        let pair = |part: &str| match part.split_once('=') {
            Some((key, value)) => (key.trim().to_owned(), value.trim().to_owned()),
            None => (part.trim().to_owned(), String::new()),
        };
        let config = RuntimeConfig(text.split(',').filter(|part| !part.is_empty()).map(pair).collect());
        config.switches()?;
        Ok(config)
    }
}

/// How far a version is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Ga,
    Beta,
    Alpha,
}

impl Level {
    fn of(version: &str) -> Self {
        match version {
            v if v.contains("alpha") => Level::Alpha,
            v if v.contains("beta") => Level::Beta,
            _ => Level::Ga,
        }
    }
}

/// The keys for many versions, in the order they count in.
const MATCHERS: [(&str, Option<Level>); 4] = [
    ("api/all", None),
    ("api/ga", Some(Level::Ga)),
    ("api/beta", Some(Level::Beta)),
    ("api/alpha", Some(Level::Alpha)),
];

/// A key that names a version or one resource of it, and whether it is on.
struct Switch<'c> {
    group: &'c str,
    version: &'c str,
    resource: Option<&'c str>,
    on: bool,
}

fn known() -> impl Iterator<Item = &'static Resource> {
    resource::all().iter().chain(resource::optional())
}

impl RuntimeConfig {
    /// Adds what another flag asks for; the later counts.
    pub fn extend(&mut self, other: RuntimeConfig) {
        self.0.extend(other.0);
    }

    /// What is wrong with all of it together.
    ///
    /// # Errors
    /// A server that would serve nothing.
    pub fn check(&self) -> Result<(), String> {
        if self.0.len() == 1 && self.0.get("api/all").is_some_and(|value| value == "false") {
            return Err("invalid key with only api/all=false".to_owned());
        }
        Ok(())
    }

    /// The switches of single versions, then of single resources.
    fn switches(&self) -> Result<Vec<Switch<'_>>, String> {
        let mut switches = Vec::new();
        let mut unknown = BTreeSet::new();
        for (key, value) in &self.0 {
            if MATCHERS.iter().any(|(matcher, _)| matcher == key) {
                if !matches!(value.as_str(), "true" | "false") {
                    return Err(format!("invalid value {key}={value}"));
                }
                continue;
            }
            let parts: Vec<&str> = key.split('/').collect();
            let (group, version, resource) = match parts[..] {
                [group, version] => (group, version, None),
                [group, version, resource] => (group, version, Some(resource)),
                _ => return Err(format!("runtime-config invalid key {key}")),
            };
            if !known().any(|row| row.group == group) {
                unknown.insert(group);
                continue;
            }
            let on = if value.is_empty() { Some(true) } else { parse_bool(value) };
            let quoted = api::field::go_quote(value);
            let on = on.ok_or_else(|| {
                format!("invalid value of {key}: {value}, err: strconv.ParseBool: parsing {quoted}: invalid syntax")
            })?;
            if let Some(resource) = resource.filter(|resource| resource.to_lowercase() != *resource) {
                return Err(format!(
                    "invalid key {key}: group/version/resource and resource is always lowercase plural, not {resource:?}"
                ));
            }
            if !known().any(|row| row.group == group && row.version == version) {
                // Nothing is lost by turning off what is not here.
                if !on {
                    continue;
                }
                return Err(format!("group version {group}/{version} that has not been registered"));
            }
            switches.push(Switch { group, version, resource, on });
        }
        if !unknown.is_empty() {
            return Err(format!("unknown api groups {}", unknown.into_iter().collect::<Vec<_>>().join(",")));
        }
        switches.sort_by_key(|switch| switch.resource.is_some());
        Ok(switches)
    }

    fn serves(&self, row: &Resource, switches: &[Switch<'_>]) -> bool {
        let level = Level::of(&row.version);
        let mut on = level == Level::Ga;
        for (key, of) in MATCHERS {
            if let Some(value) = self.0.get(key).filter(|_| of.is_none_or(|of| of == level)) {
                on = value == "true";
            }
        }
        for switch in switches.iter().filter(|s| s.group == row.group && s.version == row.version) {
            if switch.resource.is_none_or(|plural| plural == row.plural) {
                on = switch.on;
            }
        }
        on
    }
}

impl Surface {
    /// The rows that are served; groups in the order of discovery, versions by priority.
    pub fn rows(&self) -> Vec<&'static Resource> {
        // What can't be read was refused when it was read.
        let switches = self.runtime.switches().unwrap_or_default();
        let mut rows: Vec<&'static Resource> = Vec::new();
        let all = resource::all();
        for (at, row) in all.iter().enumerate() {
            rows.push(row);
            if all.get(at + 1).is_none_or(|next| next.group != row.group) {
                rows.extend(resource::optional().iter().filter(|other| other.group == row.group));
            }
        }
        // Groups without a GA version come last.
        rows.extend(resource::optional().iter().filter(|other| !all.iter().any(|row| row.group == other.group)));
        rows.retain(|row| self.runtime.serves(row, &switches));
        rows.retain(|row| row.gate.is_empty() || self.gates.enabled(&row.gate));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(config: &str) -> Vec<String> {
        let surface = Surface { runtime: config.parse().expect(config), ..Surface::default() };
        surface.rows().iter().map(|row| format!("{}/{}", row.api_version(), row.plural)).collect()
    }

    #[test]
    fn alpha_and_beta_versions_are_served_when_they_are_asked_for() {
        let usual = served("");
        assert_eq!(usual.len(), resource::all().len());
        assert!(!usual.iter().any(|row| row.contains("beta") || row.contains("alpha")));
        let beta = served("api/beta=true");
        assert!(beta.contains(&"networking.k8s.io/v1beta1/ipaddresses".to_owned()), "{beta:?}");
        assert!(!beta.iter().any(|row| row.contains("alpha")));
        let one = served("networking.k8s.io/v1beta1/servicecidrs");
        assert!(one.contains(&"networking.k8s.io/v1beta1/servicecidrs".to_owned()));
        assert!(!one.contains(&"networking.k8s.io/v1beta1/ipaddresses".to_owned()));
        let less =
            served("api/all=true,api/alpha=false,apps/v1=false,apps/v1/deployments=true,batch/v1/cronjobs=false");
        assert!(!less.iter().any(|row| row.contains("alpha") || row == "batch/v1/cronjobs"));
        assert_eq!(less.iter().filter(|row| row.starts_with("apps/")).collect::<Vec<_>>(), ["apps/v1/deployments"]);
        assert!(!beta.contains(&"coordination.k8s.io/v1beta1/leasecandidates".to_owned()), "its feature is off");
        let asked: api::features::Asked = "CoordinatedLeaderElection=true".parse().expect("a gate");
        let gates = asked.gates().expect("a gate").0;
        let surface = Surface { gates, runtime: "api/beta=true".parse().expect("a config"), ..Surface::default() };
        assert!(surface.rows().iter().any(|row| row.plural == "leasecandidates" && row.version == "v1beta1"));
        let at = |row: &str| beta.iter().position(|other| other == row).expect(row);
        assert!(at("resource.k8s.io/v1/deviceclasses") < at("resource.k8s.io/v1beta2/deviceclasses"));
    }

    #[test]
    fn what_is_wrong_is_told_in_upstreams_words() {
        for (text, error) in [
            ("foo/v1=true", "unknown api groups foo"),
            ("apps/v9=true", "group version apps/v9 that has not been registered"),
            ("v1=true", "runtime-config invalid key v1"),
            ("api/all=", "invalid value api/all="),
            (
                "apps/v1=maybe",
                r#"invalid value of apps/v1: maybe, err: strconv.ParseBool: parsing "maybe": invalid syntax"#,
            ),
            (
                "apps/v1/Deployments=true",
                r#"invalid key apps/v1/Deployments: group/version/resource and resource is always lowercase plural, not "Deployments""#,
            ),
        ] {
            assert_eq!(text.parse::<RuntimeConfig>().expect_err(text), error);
        }
        let nothing: RuntimeConfig = "api/all=false".parse().expect("read");
        assert_eq!(nothing.check().expect_err("serves nothing"), "invalid key with only api/all=false");
    }
}
