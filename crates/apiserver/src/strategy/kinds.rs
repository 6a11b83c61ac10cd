//! The strategies of built-in kinds that differ from the standard one.

use super::{Rules, Strategy, keep_at, keep_other_side};
use crate::context::Context;
use schema::{Map, Resource, Value};
use std::time::Duration;

/// Of kinds that need nothing but data of their own.
#[derive(Debug)]
pub struct Standard(pub Rules);

impl Strategy for Standard {
    fn rules(&self) -> Rules {
        self.0
    }
}

/// Changed annotations count as a change of a Deployment: tools tell its controller things through them.
#[derive(Debug)]
pub struct Deployments;

impl Strategy for Deployments {
    fn changes_generation(&self, object: &Map, old: &Map) -> bool {
        let annotations = |map: &Map| map.at(&["metadata", "annotations"]).cloned();
        super::changes_besides_metadata_and_status(object, old) || annotations(object) != annotations(old)
    }

    fn prepare_for_update(&self, _: &Context, row: &Resource, subresource: &str, object: &mut Map, old: &Map) {
        keep_other_side(row, subresource, object, old);
        if subresource == "status" {
            keep_at(object, old, &["metadata", "labels"]);
        }
    }
}

/// A limit range without a name gets one.
#[derive(Debug)]
pub struct LimitRanges(pub Rules);

impl Strategy for LimitRanges {
    fn prepare_for_create(&self, _: &Context, _: &Resource, object: &mut Map) {
        if object.str_at(&["metadata", "name"]).is_empty() {
            object.set_at(&["metadata", "name"], uuid::Uuid::new_v4().to_string());
        }
    }

    fn rules(&self) -> Rules {
        self.0
    }
}

/// What a priority class says does not change, and those of the system stay.
#[derive(Debug)]
pub struct PriorityClasses;

impl Strategy for PriorityClasses {
    fn refuses_deletion(&self, name: &str) -> Option<&'static str> {
        let system = schema::validation::SYSTEM_PRIORITY_CLASSES.iter().any(|(system, _)| *system == name);
        system.then_some("this is a system priority class and cannot be deleted")
    }

    fn changes_generation(&self, _: &Map, _: &Map) -> bool {
        false
    }
}

/// References to secrets are names alone.
#[derive(Debug)]
pub struct ServiceAccounts(pub Rules);

impl ServiceAccounts {
    fn clean(object: &mut Map) {
        let secrets = object.get_mut("secrets").and_then(Value::as_list_mut);
        for secret in secrets.into_iter().flatten().filter_map(Value::as_map_mut) {
            secret.retain(|key, _| key == "name");
        }
    }
}

impl Strategy for ServiceAccounts {
    fn prepare_for_create(&self, _: &Context, _: &Resource, object: &mut Map) {
        Self::clean(object);
    }
    fn prepare_for_update(&self, _: &Context, row: &Resource, subresource: &str, object: &mut Map, old: &Map) {
        keep_other_side(row, subresource, object, old);
        Self::clean(object);
    }
    fn rules(&self) -> Rules {
        self.0
    }
}

/// Namespaces are active until they are deleted, and are held by finalizers of their own.
#[derive(Debug)]
pub struct Namespaces;

const KUBERNETES: &str = "kubernetes";

impl Strategy for Namespaces {
    fn prepare_for_create(&self, _: &Context, _: &Resource, object: &mut Map) {
        object.set_at(&["status", "phase"], "Active");
        let finalizers = object.at(&["spec", "finalizers"]).and_then(Value::as_list).unwrap_or_default();
        if !finalizers.contains(&KUBERNETES.into()) {
            let mut finalizers = finalizers.to_vec();
            finalizers.push(KUBERNETES.into());
            object.set_at(&["spec", "finalizers"], finalizers);
        }
    }

    fn prepare_for_update(&self, _: &Context, row: &Resource, subresource: &str, object: &mut Map, old: &Map) {
        match subresource {
            "finalize" => {
                super::keep(object, old, "status");
            }
            _ => {
                keep_other_side(row, subresource, object, old);
                super::keep(object, old, "spec");
            }
        }
    }

    fn canonicalize(&self, object: &mut Map) {
        // Selectors find a namespace by its name through this label.
        let name = object.str_at(&["metadata", "name"]).to_owned();
        object.set_at(&["metadata", "labels", "kubernetes.io/metadata.name"], name);
    }

    fn holds_deletion(&self, object: &Map) -> bool {
        object.at(&["spec", "finalizers"]).and_then(Value::as_list).is_some_and(|list| !list.is_empty())
    }

    fn begin_deletion(&self, _: &Context, object: &mut Map) {
        object.remove_at(&["metadata", "deletionGracePeriodSeconds"]);
        object.set_at(&["status", "phase"], "Terminating");
    }

    fn delete_after_update(&self, _: &Map) -> bool {
        true
    }
}

/// Events end by themselves.
#[derive(Debug)]
pub struct Events {
    pub rules: Rules,
    pub time_to_live: Duration,
}

impl Strategy for Events {
    fn rules(&self) -> Rules {
        self.rules
    }
    fn time_to_live(&self) -> Option<Duration> {
        Some(self.time_to_live).filter(|time| !time.is_zero())
    }
}

/// Nodes tell their status when they register.
#[derive(Debug)]
pub struct Nodes;

impl Strategy for Nodes {
    fn keeps_status_on_create(&self) -> bool {
        true
    }
}

/// Labels of a slice tell whose it is, so a change of them counts.
#[derive(Debug)]
pub struct EndpointSlices(pub Rules);

impl EndpointSlices {
    /// What older versions said of an endpoint's place, which is said in fields of its own today.
    fn drop_topology(object: &mut Map) {
        let endpoints = object.get_mut("endpoints").and_then(Value::as_list_mut);
        for endpoint in endpoints.into_iter().flatten().filter_map(Value::as_map_mut) {
            endpoint.remove("deprecatedTopology");
        }
    }
}

impl Strategy for EndpointSlices {
    fn prepare_for_create(&self, _: &Context, _: &Resource, object: &mut Map) {
        Self::drop_topology(object);
    }

    fn prepare_for_update(&self, _: &Context, _: &Resource, _: &str, object: &mut Map, old: &Map) {
        if object.get("endpoints") != old.get("endpoints") {
            Self::drop_topology(object);
        }
    }

    fn changes_generation(&self, object: &Map, old: &Map) -> bool {
        let labels = |map: &Map| map.at(&["metadata", "labels"]).cloned();
        super::changes_besides_metadata_and_status(object, old) || labels(object) != labels(old)
    }

    fn rules(&self) -> Rules {
        self.0
    }
}
