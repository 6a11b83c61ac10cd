//! The strategies of built-in kinds that differ from the standard one.

use super::{Rules, Strategy, keep_other_side};
use crate::context::Context;
use crate::options::DeleteOptions;
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

/// Volumes and claims begin as pending.
#[derive(Debug)]
pub struct Volumes(pub Rules);

impl Strategy for Volumes {
    fn prepare_for_create(&self, _: &Context, _: &Resource, object: &mut Map) {
        object.set_at(&["status", "phase"], "Pending");
    }
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

/// Jobs select their pods by labels that they give them themselves, unless they are told not to.
#[derive(Debug)]
pub struct Jobs(pub Rules);

const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";

impl Strategy for Jobs {
    fn prepare_for_create(&self, _: &Context, _: &Resource, object: &mut Map) {
        if object.at(&["spec", "manualSelector"]).and_then(Value::as_bool) == Some(true) {
            return;
        }
        let name = object.str_at(&["metadata", "name"]).to_owned();
        let uid = object.str_at(&["metadata", "uid"]).to_owned();
        // What the client has set stays, for validation to judge.
        let mut give = |path: &[&'static str], value: &str| {
            if object.at(path).is_none() {
                object.set_at(path, value);
            }
        };
        for label in ["job-name", "batch.kubernetes.io/job-name"] {
            give(&["spec", "template", "metadata", "labels", label], &name);
        }
        for label in ["controller-uid", CONTROLLER_UID] {
            give(&["spec", "template", "metadata", "labels", label], &uid);
        }
        give(&["spec", "selector", "matchLabels", CONTROLLER_UID], &uid);
    }

    fn rules(&self) -> Rules {
        self.0
    }
}

/// What a priority class says does not change.
#[derive(Debug)]
pub struct PriorityClasses;

impl Strategy for PriorityClasses {
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

fn keep_at(object: &mut Map, old: &Map, path: &[&'static str]) {
    match old.at(path) {
        Some(value) => object.set_at(path, value.clone()),
        None => {
            object.remove_at(path);
        }
    }
}

/// Pods begin as pending, have a quality of service, and end with grace.
#[derive(Debug)]
pub struct Pods(pub Rules);

impl Strategy for Pods {
    fn prepare_for_create(&self, _: &Context, _: &Resource, object: &mut Map) {
        let class = qos(object);
        let gated =
            object.at(&["spec", "schedulingGates"]).and_then(Value::as_list).is_some_and(|gates| !gates.is_empty());
        let mut status = Map::new();
        status.insert("phase", "Pending");
        status.insert("qosClass", class);
        if gated {
            let mut condition = Map::new();
            condition.insert("type", "PodScheduled");
            condition.insert("status", "False");
            condition.insert("reason", "SchedulingGated");
            condition.insert("message", "Scheduling is blocked due to non-empty scheduling gates");
            status.insert("conditions", vec![Value::Map(condition)]);
        }
        object.insert("status", status);
    }

    fn prepare_for_update(&self, _: &Context, row: &Resource, subresource: &str, object: &mut Map, old: &Map) {
        keep_other_side(row, subresource, object, old);
        if subresource == "status" && object.at(&["status", "qosClass"]).is_none() {
            // The class is the pod's for life; a kubelet that does not know it may leave it out.
            keep_at(object, old, &["status", "qosClass"]);
        }
        if matches!(subresource, "ephemeralcontainers" | "resize") {
            super::keep(object, old, "status");
        }
    }

    fn check_graceful_delete(&self, object: &Map, options: &mut DeleteOptions) -> bool {
        let own = object.at(&["spec", "terminationGracePeriodSeconds"]).and_then(Value::as_i64);
        let mut period = options.grace_period_seconds.or(own).unwrap_or(0);
        let on_a_node = !object.str_at(&["spec", "nodeName"]).is_empty();
        let over = matches!(object.str_at(&["status", "phase"]), "Failed" | "Succeeded");
        if !on_a_node || over {
            period = 0;
        }
        if period < 0 {
            period = 1;
        }
        options.grace_period_seconds = Some(period);
        true
    }

    fn rules(&self) -> Rules {
        self.0
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`, by requests and limits of CPU and memory.
pub fn qos(pod: &Map) -> &'static str {
    const COUNTED: [&str; 2] = ["cpu", "memory"];
    let nonzero = |value: &Value| {
        let text = match value {
            Value::Str(text) => text.to_string(),
            Value::Int(number) => number.to_string(),
            _ => return false,
        };
        api::Quantity::parse(&text).is_ok_and(|quantity| !quantity.is_zero())
    };
    let mut any = false;
    let mut guaranteed = true;
    for list in ["initContainers", "containers"] {
        let containers = pod.at(&["spec", list]).and_then(Value::as_list).unwrap_or_default();
        for container in containers.iter().filter_map(Value::as_map) {
            for name in COUNTED {
                let limit = container.at(&["resources", "limits", name]).filter(|v| nonzero(v));
                let request = container.at(&["resources", "requests", name]).filter(|v| nonzero(v));
                any |= limit.is_some() || request.is_some();
                let same = match (limit, request) {
                    (Some(limit), Some(request)) => same_quantity(limit, request),
                    (Some(_), None) => true,
                    _ => false,
                };
                guaranteed &= same;
            }
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn same_quantity(a: &Value, b: &Value) -> bool {
    let parse = |value: &Value| value.as_str().and_then(|text| api::Quantity::parse(text).ok());
    a == b || matches!((parse(a), parse(b)), (Some(a), Some(b)) if a == b)
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

impl Default for Events {
    fn default() -> Self {
        Events { rules: Rules::STANDARD, time_to_live: Duration::from_secs(3600) }
    }
}

impl Strategy for Events {
    fn rules(&self) -> Rules {
        self.rules
    }
    fn time_to_live(&self) -> Option<Duration> {
        Some(self.time_to_live)
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
