//! Admin access to devices, which namespaces must be labelled for.
//!
//! Upstream asks this in the strategies of claims and their templates, through a client; the refusal is the same.

use super::{Admission, Attributes, Operation};
use crate::lookup::{Lookup, NAMESPACES};
use api::{FieldError, GroupKind, Path, Status};
use async_trait::async_trait;
use schema::{Map, Value};
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
