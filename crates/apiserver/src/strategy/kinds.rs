//! The strategies of built-in kinds that differ from the standard one.

use super::{GarbageCollection, Strategy, keep_other_side};
use crate::context::Context;
use crate::options::DeleteOptions;
use schema::{Map, Resource, Value};
use std::time::Duration;

/// Of kinds that need nothing of their own.
#[derive(Debug, Default)]
pub struct Standard;

impl Strategy for Standard {}

/// Of kinds that a PUT creates.
#[derive(Debug)]
pub struct CreatedByUpdate;

impl Strategy for CreatedByUpdate {
    fn allow_create_on_update(&self) -> bool {
        true
    }
}

/// Of kinds whose delete is answered with the object.
#[derive(Debug)]
pub struct Returned;

impl Strategy for Returned {
    fn returns_deleted(&self) -> bool {
        true
    }
}

/// Of kinds whose dependents outlive them when nobody says otherwise.
#[derive(Debug)]
pub struct Orphaning;

impl Strategy for Orphaning {
    fn garbage_collection(&self) -> GarbageCollection {
        GarbageCollection::Orphan
    }
}

/// Volumes and claims begin as pending.
#[derive(Debug)]
pub struct Volumes;

impl Strategy for Volumes {
    fn prepare_for_create(&self, _: &Context, _: &Resource, object: &mut Map) {
        object.set_at(&["status", "phase"], "Pending");
    }
    fn returns_deleted(&self) -> bool {
        true
    }
}

/// Pods begin as pending, have a quality of service, and end with grace.
#[derive(Debug)]
pub struct Pods;

impl Strategy for Pods {
    fn prepare_for_create(&self, _: &Context, _: &Resource, object: &mut Map) {
        let class = qos(object);
        object.set_at(&["status", "phase"], "Pending");
        object.set_at(&["status", "qosClass"], class);
    }

    fn prepare_for_update(&self, _: &Context, row: &Resource, subresource: &str, object: &mut Map, old: &Map) {
        keep_other_side(row, subresource, object, old);
        if subresource == "status" && object.at(&["status", "qosClass"]).is_none() {
            // The class is the pod's for life; a kubelet that does not know it may leave it out.
            if let Some(class) = old.at(&["status", "qosClass"]) {
                object.set_at(&["status", "qosClass"], class.clone());
            }
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

    fn returns_deleted(&self) -> bool {
        true
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
    time_to_live: Duration,
}

impl Default for Events {
    fn default() -> Self {
        Events { time_to_live: Duration::from_secs(3600) }
    }
}

impl Strategy for Events {
    fn garbage_collection(&self) -> GarbageCollection {
        GarbageCollection::Unsupported
    }
    fn allow_create_on_update(&self) -> bool {
        true
    }
    fn time_to_live(&self) -> Option<Duration> {
        Some(self.time_to_live)
    }
}

/// Services are answered when they are deleted; their load balancer's status begins empty.
#[derive(Debug)]
pub struct Services;

impl Strategy for Services {
    fn allow_create_on_update(&self) -> bool {
        true
    }
    fn returns_deleted(&self) -> bool {
        true
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
