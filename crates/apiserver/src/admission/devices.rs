//! Admin access to devices, which namespaces must be labelled for, and who may write what of a claim's status.
//!
//! Upstream asks this in the strategies of claims and their templates, through a client; the refusals are the same.

use super::{Admission, Attributes, Operation, Sides, walk};
use crate::authz::{self, Authorizer};
use crate::lookup::{Lookup, NAMESPACES};
use crate::user::{self, UserInfo};
use api::{FieldError, GroupKind, Path, Status};
use async_trait::async_trait;
use schema::{Map, Value};
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;

const GROUP: &str = "resource.k8s.io";
const LABEL: &str = "resource.kubernetes.io/admin-access";

pub struct AdminAccess {
    pub objects: Arc<dyn Lookup>,
}

/// Which entry of a list asks for, or was given, admin access.
fn asked(object: &Map, list: &[&str], at: &[&str]) -> Option<usize> {
    let list = object.at(list).and_then(Value::as_list)?;
    list.iter().position(|entry| entry.as_map().and_then(|e| e.at(at)).and_then(Value::as_bool) == Some(true))
}

impl AdminAccess {
    /// What needs the label: its path is the claim's, in templates as well.
    fn wanted(a: &Attributes<'_>) -> Option<String> {
        const RESULTS: [&str; 4] = ["status", "allocation", "devices", "results"];
        const EXACTLY: [&str; 2] = ["exactly", "adminAccess"];
        let (parent, list, at): (&str, &[&str], &[&str]) = if a.is_subresource(GROUP, "resourceclaims", "status") {
            // What a claim has been given, it keeps.
            if a.old.is_some_and(|old| asked(old, &RESULTS, &["adminAccess"]).is_some()) {
                return None;
            }
            ("status.allocation.devices.results", &RESULTS, &["adminAccess"])
        } else if a.operation != Operation::Create {
            return None;
        } else if a.is(GROUP, "resourceclaims") {
            ("spec.devices.requests", &["spec", "devices", "requests"], &EXACTLY)
        } else if a.is(GROUP, "resourceclaimtemplates") {
            ("spec.devices.requests", &["spec", "spec", "devices", "requests"], &EXACTLY)
        } else {
            return None;
        };
        asked(a.object, list, at).map(|i| format!("{parent}[{i}].adminAccess"))
    }
}

#[async_trait]
impl Admission for AdminAccess {
    fn name(&self) -> &'static str {
        "AdminAccess"
    }

    fn sides(&self) -> Sides {
        Sides::Validates
    }

    fn is_a_plugin(&self) -> bool {
        false
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let Some(path) = Self::wanted(a) else { return Ok(()) };
        let namespace = self.objects.fresh(NAMESPACES, "", a.namespace).await?;
        if namespace.is_some_and(|namespace| namespace.str_at(&["metadata", "labels", LABEL]) == "true") {
            return Ok(());
        }
        let why = format!("admin access to devices requires the `{LABEL}: true` label on the containing namespace");
        let kind = GroupKind::new(GROUP, a.resource.kind.clone());
        let name = a.object.str_at(&["metadata", "name"]);
        Err(Status::invalid(&kind, name, &[FieldError::forbidden(&Path::root(&path), why)]))
    }
}

/// Who writes the status of a claim needs more than the right to write it: `binding` to allocate and reserve, `driver` to tell of
/// a driver's devices. Neither is served: they are asked of the authorizer alone.
pub struct ClaimStatus {
    pub authorizer: Arc<dyn Authorizer>,
}

/// A part of the status; one that is empty is as one that is absent.
fn part<'a>(claim: &'a Map, key: &str) -> Option<&'a Value> {
    claim.at(&["status", key]).filter(|value| match value {
        Value::Null => false,
        Value::List(list) => !list.is_empty(),
        Value::Map(map) => !map.is_empty(),
        _ => true,
    })
}

/// The drivers of whose devices something else is told.
fn changed_drivers<'a>(new: &'a Map, old: &'a Map) -> BTreeSet<&'a str> {
    let devices = |claim: &'a Map| {
        walk::items(claim, &["status", "devices"])
            .map(|device| (["driver", "pool", "device", "shareID"].map(|key| device.str_at(&[key])), device))
    };
    let mut before: HashMap<_, _> = devices(old).collect();
    let mut drivers = BTreeSet::new();
    for (key, device) in devices(new) {
        if before.remove(&key) != Some(device) {
            drivers.insert(key[0]);
        }
    }
    drivers.extend(before.keys().map(|key| key[0]));
    drivers
}

/// The one node that a claim is allocated for.
fn allocated_node(claim: &Map) -> Option<&str> {
    let list = |map: &'_ Map, key| map.get(key).and_then(Value::as_list).map_or(0, <[Value]>::len);
    let mut terms = walk::items(claim, &["status", "allocation", "nodeSelector", "nodeSelectorTerms"]);
    let term = terms.next().filter(|term| list(term, "matchExpressions") == 0 && list(term, "matchFields") == 1)?;
    let field = walk::items(term, &["matchFields"]).next()?;
    let [node] = field.get("values").and_then(Value::as_list)? else { return None };
    let named = field.str_at(&["key"]) == "metadata.name" && field.str_at(&["operator"]) == "In";
    node.as_str().filter(|_| named && terms.next().is_none())
}

/// Whether a service account's token is of a pod on the node.
fn runs_on(user: &UserInfo, node: &str) -> bool {
    user::account(&user.name).is_some() && user.node() == Some(node)
}

impl ClaimStatus {
    /// Whether one of the verbs is allowed; the first refusal.
    async fn may(&self, a: &Attributes<'_>, verbs: &[String], place: [&str; 3]) -> Result<(), String> {
        let [subresource, namespace, name] = place;
        let mut refused = None;
        for verb in verbs {
            let asked = authz::Attributes {
                user: &a.cx.user,
                verb,
                is_resource: true,
                group: &a.resource.group,
                version: &a.resource.version,
                resource: &a.resource.plural,
                subresource,
                namespace,
                name,
                path: "",
                label_selector: "",
                field_selector: "",
            };
            let decision = self.authorizer.authorize(&asked).await;
            if decision.allowed() {
                return Ok(());
            }
            refused.get_or_insert_with(|| authz::forbidden(&asked, decision.reason()).message);
        }
        Err(refused.unwrap_or_default())
    }
}

#[async_trait]
impl Admission for ClaimStatus {
    fn name(&self) -> &'static str {
        "ClaimStatus"
    }

    fn sides(&self) -> Sides {
        Sides::Validates
    }

    fn is_a_plugin(&self) -> bool {
        false
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Update
    }

    async fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let (true, Some(old)) = (a.is_subresource(GROUP, "resourceclaims", "status"), a.old) else { return Ok(()) };
        let mut errors = Vec::new();
        let verb = a.cx.verb;
        let status = Path::root("status");
        if ["allocation", "reservedFor"].into_iter().any(|key| part(a.object, key) != part(old, key))
            && let Err(why) = self.may(a, &[verb.to_owned()], ["binding", "", ""]).await
        {
            let what = "changing status.allocation or status.reservedFor requires";
            let why = format!("{what} resource=\"resourceclaims/binding\", verb=\"{verb}\" permission: {why}");
            errors.push(FieldError::forbidden(&status, why));
        }
        let mut verbs = vec![format!("arbitrary-node:{verb}")];
        if allocated_node(a.object).is_some_and(|node| runs_on(&a.cx.user, node)) {
            verbs.insert(0, format!("associated-node:{verb}"));
        }
        for driver in changed_drivers(a.object, old) {
            if let Err(why) = self.may(a, &verbs, ["driver", a.namespace, driver]).await {
                let verbs = verbs.join(" ");
                let what = "changing status.devices requires";
                let why = format!("{what} resource=\"resourceclaims/driver\", verb=\"[{verbs}]\" permission: {why}");
                errors.push(FieldError::forbidden(&status.child("devices"), why));
            }
        }
        if errors.is_empty() {
            return Ok(());
        }
        let kind = GroupKind::new(GROUP, a.resource.kind.clone());
        Err(Status::invalid(&kind, a.name, &errors))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Context;
    use crate::options::Options;
    use crate::test_support::{Held, map};

    async fn refusal(
        plural: &str,
        subresource: &str,
        object: &str,
        old: Option<&str>,
        labelled: bool,
    ) -> Option<String> {
        let held = Held::default();
        let label = if labelled { "true" } else { "false" };
        held.put(NAMESPACES, map(&format!("{{metadata: {{name: d, labels: {{{LABEL}: '{label}'}}}}}}")));
        let plugin = AdminAccess { objects: Arc::new(held) };
        let row = schema::resource::all().iter().find(|row| row.plural == plural && row.group == GROUP).expect("a row");
        let old = old.map(map);
        let attributes = Attributes {
            operation: if old.is_some() { Operation::Update } else { Operation::Create },
            resource: &Arc::new(row.clone()),
            subresource,
            namespace: "d",
            name: "c",
            cx: &Context::internal(),
            dry_run: false,
            object: &mut map(object),
            old: old.as_ref(),
            options: &Options::default(),
        };
        plugin.validate(&attributes).await.err().map(|status| status.message)
    }

    #[tokio::test]
    async fn admin_access_needs_a_labelled_namespace() {
        const CLAIM: &str = "{metadata: {name: c}, spec: {devices: {requests: [{}, {exactly: {adminAccess: true}}]}}}";
        const TEMPLATE: &str =
            "{metadata: {name: c}, spec: {spec: {devices: {requests: [{exactly: {adminAccess: true}}]}}}}";
        const GIVEN: &str = "{metadata: {name: c}, status: {allocation: {devices: {results: [{adminAccess: true}]}}}}";
        const NOTHING: &str = "{metadata: {name: c}, spec: {devices: {requests: [{exactly: {adminAccess: false}}]}}}";
        let cases = [
            ("resourceclaims", "", CLAIM, None, Some("spec.devices.requests[1].adminAccess")),
            ("resourceclaims", "", NOTHING, None, None),
            ("resourceclaims", "", CLAIM, Some(CLAIM), None),
            ("resourceclaimtemplates", "", TEMPLATE, None, Some("spec.devices.requests[0].adminAccess")),
            (
                "resourceclaims",
                "status",
                GIVEN,
                Some(NOTHING),
                Some("status.allocation.devices.results[0].adminAccess"),
            ),
            ("resourceclaims", "status", GIVEN, Some(GIVEN), None),
            ("resourceslices", "", CLAIM, None, None),
        ];
        for (plural, subresource, object, old, path) in cases {
            let got = refusal(plural, subresource, object, old, false).await;
            let why = "Forbidden: admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on the containing namespace";
            match (path, got) {
                (None, None) => {}
                (Some(path), Some(got)) => assert!(got.ends_with(&format!("is invalid: {path}: {why}")), "{got}"),
                (path, got) => panic!("{plural} {object}: {path:?} {got:?}"),
            }
            assert_eq!(refusal(plural, subresource, object, old, true).await, None);
        }
    }
}
