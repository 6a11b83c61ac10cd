//! SubjectAccessReview, SelfSubjectAccessReview and LocalSubjectAccessReview: may somebody do something?

use super::{EMPTY, metadata_errors, user_of};
use crate::authz::{Attributes, Authorizer, Decision};
use crate::context::Context;
use crate::options::Options;
use crate::registry::{Served, Virtual};
use api::field::Raw;
use api::{FieldError, GroupKind, Path, Status, names};
use async_trait::async_trait;
use schema::{Map, Value};
use std::sync::Arc;

/// Whose access is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The spec's user, anywhere.
    Anyones,
    /// The asker's own.
    Own,
    /// The spec's user, in the namespace of the review.
    InNamespace,
}

/// One of the three.
pub struct AccessReview {
    pub whose: Whose,
    pub authorizer: Arc<dyn Authorizer>,
}

const SPEC: Path<'static> = Path::root("spec");

impl AccessReview {
    fn kind(&self) -> &'static str {
        match self.whose {
            Whose::Anyones => "SubjectAccessReview",
            Whose::Own => "SelfSubjectAccessReview",
            Whose::InNamespace => "LocalSubjectAccessReview",
        }
    }

    fn validate(&self, namespace: &str, object: &Map) -> Vec<FieldError> {
        let spec = object.get("spec").and_then(Value::as_map).cloned().unwrap_or_default();
        let part = |key| spec.get(key).and_then(Value::as_map);
        let (resource, other) = (part("resourceAttributes"), part("nonResourceAttributes"));
        let mut errors = Vec::new();
        match (resource, other) {
            (Some(_), Some(_)) => errors.push(FieldError::invalid(
                &SPEC.child("nonResourceAttributes"),
                internal(other),
                "cannot be specified in combination with resourceAttributes",
            )),
            (None, None) => errors.push(FieldError::invalid(
                &SPEC.child("resourceAttributes"),
                Raw("null".to_owned()),
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            )),
            _ => {}
        }
        if self.whose != Whose::Own {
            let groups = spec.get("groups").and_then(Value::as_list).is_some_and(|g| !g.is_empty());
            if spec.str_at(&["user"]).is_empty() && !groups {
                let why = "at least one of user or group must be specified";
                errors.push(FieldError::invalid(&SPEC.child("user"), "", why));
            }
        }
        if let Some(resource) = resource {
            selectors(&mut errors, resource);
        }
        errors.extend(match self.whose {
            Whose::InNamespace => metadata_errors(object, &["namespace"], "must be empty except for namespace"),
            _ => metadata_errors(object, &[], EMPTY),
        });
        if self.whose == Whose::InNamespace {
            let asked = resource.map(|r| r.str_at(&["namespace"]));
            if let Some(asked) = asked.filter(|a| *a != namespace) {
                errors.push(FieldError::invalid(
                    &"spec.resourceAttributes.namespace",
                    asked,
                    "must match metadata.namespace",
                ));
            }
            if other.is_some() {
                let why = "disallowed on this kind of request";
                errors.push(FieldError::invalid(&"spec.nonResourceAttributes", internal(other), why));
            }
        }
        errors
    }
}

/// Attributes that are of no resource as upstream shows them: its internal type, of which nothing is left out.
fn internal(attributes: Option<&Map>) -> Raw {
    let mut shown = Map::new();
    for (key, name) in [("path", "Path"), ("verb", "Verb")] {
        shown.insert(name, attributes.map_or("", |attributes| attributes.str_at(&[key])));
    }
    Raw(schema::json::to_string(&shown))
}

/// The two selectors of the objects that a review asks about: each as written, or as requirements. Operators that are not
/// known may be a newer client's; they narrow nothing here.
fn selectors(errors: &mut Vec<FieldError>, attributes: &Map) {
    let root = Path::root("spec.resourceAttributes");
    for kind in ["fieldSelector", "labelSelector"] {
        let Some(selector) = attributes.get(kind).and_then(Value::as_map) else { continue };
        let path = root.child(kind);
        let written = selector.str_at(&["rawSelector"]);
        let requirements = selector.get("requirements").and_then(Value::as_list).unwrap_or_default();
        let here = path.child("requirements");
        if !written.is_empty() && !requirements.is_empty() {
            let why = "may not specified at the same time as requirements";
            errors.push(FieldError::invalid(&path.child("rawSelector"), written, why));
        }
        if written.is_empty() && requirements.is_empty() {
            let why = format!("when {path} is specified, requirements or rawSelector is required");
            errors.push(FieldError::required(&here, why));
        }
        for (i, one) in requirements.iter().filter_map(Value::as_map).enumerate() {
            requirement(errors, &here.index(i), one, kind == "labelSelector");
        }
    }
}

fn requirement(errors: &mut Vec<FieldError>, path: &Path<'_>, requirement: &Map, of_labels: bool) {
    let (key, values) = (requirement.str_at(&["key"]), super::strings(requirement, &["values"]));
    if !of_labels && key.is_empty() {
        errors.push(FieldError::required(&path.child("key"), "must be specified"));
    }
    match requirement.str_at(&["operator"]) {
        "In" | "NotIn" if values.is_empty() => {
            let why = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.push(FieldError::required(&path.child("values"), why));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(FieldError::forbidden(&path.child("values"), why));
        }
        _ => {}
    }
    if of_labels {
        let bad = names::qualified_name(key).into_iter();
        errors.extend(bad.map(|why| FieldError::invalid(&path.child("key"), key, why)));
        for (i, value) in values.iter().enumerate() {
            let bad = names::label_value(value).into_iter();
            errors.extend(bad.map(|why| FieldError::invalid(&path.child("values").index(i), value.as_str(), why)));
        }
    }
}

/// A selector of a review as a request would spell it: as given, or made of its requirements.
fn selector(attributes: &Map, key: &str) -> String {
    let raw = attributes.str_at(&[key, "rawSelector"]);
    if !raw.is_empty() {
        return raw.to_owned();
    }
    let list = attributes.at(&[key, "requirements"]).and_then(Value::as_list).unwrap_or_default();
    let terms = list.iter().filter_map(Value::as_map).filter_map(|r| {
        let (field, values) = (r.str_at(&["key"]), super::strings(r, &["values"]));
        match (r.str_at(&["operator"]), values.as_slice()) {
            ("In", [one]) => Some(format!("{field}={one}")),
            ("NotIn", [one]) => Some(format!("{field}!={one}")),
            ("In", many) => Some(format!("{field} in ({})", many.join(","))),
            ("NotIn", many) => Some(format!("{field} notin ({})", many.join(","))),
            ("Exists", _) => Some(field.to_owned()),
            ("DoesNotExist", _) => Some(format!("!{field}")),
            _ => None,
        }
    });
    terms.collect::<Vec<_>>().join(",")
}

#[async_trait]
impl Virtual for AccessReview {
    async fn create(
        &self,
        cx: &Context,
        _served: &Arc<Served>,
        namespace: &str,
        mut object: Map,
        _options: &Options,
    ) -> Result<Map, Status> {
        let errors = self.validate(namespace, &object);
        if !errors.is_empty() {
            return Err(Status::invalid(&GroupKind::new("authorization.k8s.io", self.kind()), "", &errors));
        }
        let spec = object.get("spec").and_then(Value::as_map).cloned().unwrap_or_default();
        let asked = match self.whose {
            Whose::Own => cx.user.as_ref().clone(),
            _ => user_of(&spec),
        };
        let empty = Map::new();
        let part = |key| spec.get(key).and_then(Value::as_map);
        let resource = part("resourceAttributes");
        let other = part("nonResourceAttributes");
        let of = resource.or(other).unwrap_or(&empty);
        let (labels, fields) = (selector(of, "labelSelector"), selector(of, "fieldSelector"));
        let version = of.str_at(&["version"]);
        let attributes = Attributes {
            user: &asked,
            verb: of.str_at(&["verb"]),
            is_resource: resource.is_some(),
            group: of.str_at(&["group"]),
            version: if version.is_empty() { "*" } else { version },
            resource: of.str_at(&["resource"]),
            subresource: of.str_at(&["subresource"]),
            namespace: of.str_at(&["namespace"]),
            name: of.str_at(&["name"]),
            path: of.str_at(&["path"]),
            label_selector: &labels,
            field_selector: &fields,
        };
        let decision = self.authorizer.authorize(&attributes).await;
        let mut status = Map::new();
        status.insert("allowed", decision.allowed());
        if matches!(decision, Decision::Deny(_)) {
            status.insert("denied", true);
        }
        if !decision.reason().is_empty() {
            status.insert("reason", decision.reason());
        }
        object.insert("status", status);
        Ok(object)
    }
}
