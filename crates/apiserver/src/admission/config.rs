//! What plugins are told: by flags, and by the file of `--admission-control-config-file`.

use super::event_rate::{CACHE_SIZE, Limit, Scope};
use super::placement::NodeSelectors;
use super::pod_security::{Configuration, Level, Policy, Standard, Version};
use super::quota::limited::{Limited, Scope as Scoped};
use super::toleration_restriction::Tolerations;
use super::{tolerations, walk};
use schema::{Map, Value};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// What the plugins are told; the default is upstream's.
#[derive(Clone, Debug)]
pub struct Config {
    pub pod_security: Configuration,
    pub node_selectors: NodeSelectors,
    pub event_limits: Vec<Limit>,
    pub tolerations: Tolerations,
    /// What may be used only where a quota covers it.
    pub limited_resources: Vec<Limited>,
    /// `--default-not-ready-toleration-seconds`
    pub not_ready_toleration: i64,
    /// `--default-unreachable-toleration-seconds`
    pub unreachable_toleration: i64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            pod_security: Configuration::default(),
            node_selectors: NodeSelectors::default(),
            event_limits: Vec::new(),
            tolerations: Tolerations::default(),
            limited_resources: Vec::new(),
            not_ready_toleration: tolerations::DEFAULT_SECONDS,
            unreachable_toleration: tolerations::DEFAULT_SECONDS,
        }
    }
}

/// Why the admission configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("cannot read the admission configuration {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the admission configuration {} is not YAML: {why}", path.display())]
    Parse { path: PathBuf, why: String },
    #[error("the admission configuration {}: {why}", path.display())]
    Content { path: PathBuf, why: String },
}

impl Config {
    /// Reads an `AdmissionConfiguration` (apiserver.config.k8s.io/v1), and the files that it names, over what is set.
    ///
    /// # Errors
    /// A file that cannot be read, and what is wrong in it, with its place.
    pub fn read(&mut self, path: &Path) -> Result<(), ConfigError> {
        let file = parse(path)?;
        let wrong = |path: &Path, why: String| ConfigError::Content { path: path.to_owned(), why };
        let kind = file.str_at(&["kind"]);
        if kind != "AdmissionConfiguration" {
            return Err(wrong(path, format!("kind: {kind:?} is not \"AdmissionConfiguration\"")));
        }
        for plugin in walk::items(&file, &["plugins"]) {
            let name = plugin.str_at(&["name"]);
            let elsewhere = plugin.str_at(&["path"]);
            let (from, own) = if elsewhere.is_empty() {
                let inline = plugin.get("configuration").and_then(Value::as_map);
                (path.to_owned(), inline.cloned().unwrap_or_default())
            } else {
                let place = path.parent().unwrap_or(Path::new("")).join(elsewhere);
                let own = parse(&place)?;
                (place, own)
            };
            self.take(name, &own).map_err(|why| wrong(&from, format!("plugin {name}: {why}")))?;
        }
        Ok(())
    }

    /// Takes the configuration of one plugin.
    fn take(&mut self, plugin: &str, own: &Map) -> Result<(), String> {
        match plugin {
            "PodSecurity" => self.pod_security = pod_security(own)?,
            "PodNodeSelector" => self.node_selectors = node_selectors(own)?,
            "PodTolerationRestriction" => {
                let list = |key: &str| walk::items(own, &[key]).cloned().collect();
                self.tolerations = Tolerations { default: list("default"), allowed: list("whitelist") };
            }
            "ResourceQuota" => self.limited_resources = limited_resources(own)?,
            "EventRateLimit" => self.event_limits = event_limits(own)?,
            _ if own.is_empty() => {}
            other => return Err(format!("{other} takes no configuration here")),
        }
        Ok(())
    }
}

fn parse(path: &Path) -> Result<Map, ConfigError> {
    let bytes = std::fs::read(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let wrong = |why: String| ConfigError::Parse { path: path.to_owned(), why };
    match schema::yaml::parse(&bytes) {
        Ok(Value::Map(map)) => Ok(map),
        Ok(_) => Err(wrong("it is no object".to_owned())),
        Err(e) => Err(wrong(e.to_string())),
    }
}

fn strings(map: &Map, path: &[&str]) -> Vec<String> {
    let list = map.at(path).and_then(Value::as_list).unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn pod_security(own: &Map) -> Result<Configuration, String> {
    let standard = |mode: &str| -> Result<Standard, String> {
        let mut standard = Standard::PRIVILEGED;
        let level = own.str_at(&["defaults", mode]);
        if !level.is_empty() {
            standard.level = Level::parse(level).map_err(|why| format!("defaults.{mode}: {level:?}: {why}"))?;
        }
        let key = format!("{mode}-version");
        let version = own.str_at(&["defaults", &key]);
        if !version.is_empty() {
            standard.version = Version::parse(version).map_err(|why| format!("defaults.{key}: {version:?}: {why}"))?;
        }
        Ok(standard)
    };
    Ok(Configuration {
        defaults: Policy { enforce: standard("enforce")?, audit: standard("audit")?, warn: standard("warn")? },
        exempt_usernames: strings(own, &["exemptions", "usernames"]),
        exempt_runtime_classes: strings(own, &["exemptions", "runtimeClasses"]),
        exempt_namespaces: strings(own, &["exemptions", "namespaces"]),
    })
}

fn node_selectors(own: &Map) -> Result<NodeSelectors, String> {
    let mut selectors = NodeSelectors::default();
    let all = own.get("podNodeSelectorPluginConfig").and_then(Value::as_map).into_iter().flat_map(Map::iter);
    for (namespace, text) in all {
        let selector = NodeSelectors::parse(text.as_str().unwrap_or_default())
            .map_err(|why| format!("podNodeSelectorPluginConfig.{namespace}: {why}"))?;
        if namespace == "clusterDefaultNodeSelector" {
            selectors.cluster_default = selector;
        } else {
            selectors.allowed.insert(namespace.to_owned(), selector);
        }
    }
    Ok(selectors)
}

fn limited_resources(own: &Map) -> Result<Vec<Limited>, String> {
    let mut all = Vec::new();
    for (i, limited) in walk::items(own, &["limitedResources"]).enumerate() {
        let plural = limited.str_at(&["resource"]);
        if plural.is_empty() {
            return Err(format!("limitedResources[{i}].resource: Required value"));
        }
        let scopes = walk::items(limited, &["matchScopes"]).map(|scope| Scoped {
            name: scope.str_at(&["scopeName"]).to_owned(),
            operator: scope.str_at(&["operator"]).to_owned(),
            values: strings(scope, &["values"]),
        });
        all.push(Limited {
            group: limited.str_at(&["apiGroup"]).to_owned(),
            plural: plural.to_owned(),
            contains: strings(limited, &["matchContains"]),
            scopes: scopes.collect(),
        });
    }
    Ok(all)
}

fn event_limits(own: &Map) -> Result<Vec<Limit>, String> {
    let mut limits = Vec::new();
    for (i, limit) in walk::items(own, &["limits"]).enumerate() {
        let kind = limit.str_at(&["type"]);
        let scope = Scope::parse(kind)
            .ok_or_else(|| format!("limits[{i}].type: {kind:?} is none of Server, Namespace, User, SourceAndObject"))?;
        let number = |key: &str| limit.get(key).and_then(Value::as_i64).and_then(|n| u32::try_from(n).ok());
        let positive = |key: &str| {
            number(key).filter(|n| *n > 0).ok_or_else(|| format!("limits[{i}].{key}: must be a positive number"))
        };
        let cache_size = number("cacheSize").and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
        limits.push(Limit {
            scope,
            qps: positive("qps")?,
            burst: positive("burst")?,
            cache_size: cache_size.unwrap_or(CACHE_SIZE),
        });
    }
    if limits.is_empty() { Err("limits: at least one is needed".to_owned()) } else { Ok(limits) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, ConfigError> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("admission.yaml");
        std::fs::write(&path, text).expect("written");
        std::fs::write(
            directory.path().join("events.yaml"),
            "kind: Configuration\nlimits: [{type: Namespace, qps: 50, burst: 100}]",
        )
        .expect("written");
        let mut config = Config::default();
        config.read(&path).map(|()| config)
    }

    #[test]
    fn plugins_are_configured_inline_and_by_file() {
        let config = read(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n- name: PodSecurity\n  configuration:\n    \
             defaults: {enforce: baseline, enforce-version: v1.30}\n    exemptions: {namespaces: [kube-system]}\n- name: EventRateLimit\n  path: events.yaml\n",
        )
        .expect("a configuration");
        assert_eq!(config.pod_security.defaults.enforce.to_string(), "baseline:v1.30");
        assert_eq!(config.pod_security.exempt_namespaces, ["kube-system"]);
        assert_eq!(config.event_limits[0].burst, 100);
    }

    #[test]
    fn quotas_and_tolerations_are_configured() {
        let config = read(
            "kind: AdmissionConfiguration\nplugins:\n- name: ResourceQuota\n  configuration:\n    \
             limitedResources: [{resource: pods, matchContains: [cpu], matchScopes: [{scopeName: PriorityClass, operator: In, values: [high]}]}]\n\
             - name: PodTolerationRestriction\n  configuration: {default: [{key: a, operator: Exists}], whitelist: []}\n",
        )
        .expect("a configuration");
        let limited = &config.limited_resources[0];
        assert_eq!((limited.plural.as_str(), limited.contains.len()), ("pods", 1));
        assert_eq!(limited.scopes[0].values, ["high"]);
        assert_eq!(config.tolerations.default[0].str_at(&["key"]), "a");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let told = |text: &str| read(text).expect_err("refused").to_string();
        assert!(told("kind: Other").contains("kind: \"Other\" is not"));
        let text =
            "kind: AdmissionConfiguration\nplugins: [{name: PodSecurity, configuration: {defaults: {warn: lax}}}]";
        assert!(told(text).contains("plugin PodSecurity: defaults.warn: \"lax\": must be one of"), "{}", told(text));
        let text = "kind: AdmissionConfiguration\nplugins: [{name: EventRateLimit, path: absent.yaml}]";
        assert!(told(text).contains("cannot read"), "{}", told(text));
    }
}
