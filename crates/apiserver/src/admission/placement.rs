//! Where a namespace's pods may run: PodNodeSelector, LimitPodHardAntiAffinityTopology.

use super::{Admission, Attributes, Operation, Sides, walk};
use crate::lookup::{Lookup, NAMESPACES};
use api::Status;
use async_trait::async_trait;
use schema::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Labels of nodes, all of which are asked for.
pub type NodeSelector = BTreeMap<String, String>;

/// The plugin's configuration: the selector of namespaces that say nothing, and what each namespace may ask for at most.
#[derive(Clone, Debug, Default)]
pub struct NodeSelectors {
    pub cluster_default: NodeSelector,
    /// A namespace that is not listed may ask for anything.
    pub allowed: BTreeMap<String, NodeSelector>,
}

impl NodeSelectors {
    /// Reads `a=b,c=d`.
    ///
    /// # Errors
    /// What is no pair, in upstream's words.
    pub fn parse(text: &str) -> Result<NodeSelector, String> {
        let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
        pairs
            .map(|pair| {
                let (key, value) = pair
                    .split_once('=')
                    .filter(|(key, _)| !key.is_empty())
                    .ok_or_else(|| format!("invalid selector: {pair:?}; can't understand {text:?}"))?;
                Ok((key.trim().to_owned(), value.trim_start_matches('=').trim().to_owned()))
            })
            .collect()
    }
}

pub struct PodNodeSelector {
    pub objects: Arc<dyn Lookup>,
    pub configuration: NodeSelectors,
}

const SELECTORS: [&str; 1] = ["scheduler.alpha.kubernetes.io/node-selector"];

fn conflicts(a: &NodeSelector, b: &NodeSelector) -> bool {
    a.iter().any(|(key, value)| b.get(key).is_some_and(|other| other != value))
}

fn own_selector(pod: &Map) -> NodeSelector {
    let pairs = pod.at(&["spec", "nodeSelector"]).and_then(Value::as_map).into_iter().flat_map(Map::iter);
    pairs.map(|(key, value)| (key.to_owned(), value.as_str().unwrap_or_default().to_owned())).collect()
}

impl PodNodeSelector {
    async fn of_namespace(&self, a: &Attributes<'_>) -> Result<NodeSelector, Status> {
        let namespace = self.objects.find(NAMESPACES, "", a.namespace).await?;
        let annotated = namespace.as_ref().and_then(|n| {
            SELECTORS.iter().find_map(|key| n.at(&["metadata", "annotations", key]).and_then(Value::as_str))
        });
        match annotated {
            Some(text) => NodeSelectors::parse(text).map_err(|why| a.forbidden(why)),
            None => Ok(self.configuration.cluster_default.clone()),
        }
    }
}

#[async_trait]
impl Admission for PodNodeSelector {
    fn name(&self) -> &'static str {
        "PodNodeSelector"
    }

    fn sides(&self) -> Sides {
        Sides::Both
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    async fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        if !a.is("", "pods") {
            return Ok(());
        }
        let wanted = self.of_namespace(a).await?;
        let own = own_selector(a.object);
        if conflicts(&wanted, &own) {
            return Err(a.forbidden("pod node label selector conflicts with its namespace node label selector"));
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let merged: Map = wanted.into_iter().chain(own).map(|(key, value)| (key.into(), Value::from(value))).collect();
        a.object.set_at(&["spec", "nodeSelector"], merged);
        Ok(())
    }

    async fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        if !a.is("", "pods") {
            return Ok(());
        }
        let own = own_selector(a.object);
        if conflicts(&self.of_namespace(a).await?, &own) {
            return Err(a.forbidden("pod node label selector conflicts with its namespace node label selector"));
        }
        match self.configuration.allowed.get(a.namespace) {
            Some(allowed) if !allowed.is_empty() && own.iter().any(|(key, value)| allowed.get(key) != Some(value)) => {
                Err(a.forbidden("pod node label selector labels conflict with its namespace whitelist"))
            }
            _ => Ok(()),
        }
    }
}

/// Pods keep away from others on the same node only: no pod may claim a zone for itself.
pub struct LimitPodHardAntiAffinityTopology;

const HOST_NAME: &str = "kubernetes.io/hostname";

#[async_trait]
impl Admission for LimitPodHardAntiAffinityTopology {
    fn name(&self) -> &'static str {
        "LimitPodHardAntiAffinityTopology"
    }

    fn sides(&self) -> Sides {
        Sides::Validates
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        if !a.is("", "pods") {
            return Ok(());
        }
        let path = ["spec", "affinity", "podAntiAffinity", "requiredDuringSchedulingIgnoredDuringExecution"];
        let mut keys = walk::items(a.object, &path).map(|term| term.str_at(&["topologyKey"]));
        match keys.find(|key| *key != HOST_NAME) {
            Some(key) => Err(a.forbidden(format!(
                "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {key} but only key {HOST_NAME} is allowed"
            ))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_pairs() {
        let selector = NodeSelectors::parse("env=prod, tier=a").expect("a selector");
        assert_eq!(selector.get("tier").map(String::as_str), Some("a"));
        assert!(NodeSelectors::parse("env").is_err());
        assert!(conflicts(&selector, &NodeSelector::from([("env".to_owned(), "test".to_owned())])));
        assert!(!conflicts(&selector, &NodeSelector::from([("zone".to_owned(), "z".to_owned())])));
    }
}
