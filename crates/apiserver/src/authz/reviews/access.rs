//! SubjectAccessReview, SelfSubjectAccessReview and LocalSubjectAccessReview: may somebody do something?

use super::{metadata_errors, user_of};
use crate::authz::{Attributes, Authorizer, Decision};
use crate::context::Context;
use crate::options::Options;
use crate::registry::{Served, Virtual};
use api::field::Raw;
use api::{FieldError, GroupKind, Path, Status};
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
        let shown = |map: Option<&Map>| Raw(map.map_or_else(|| "null".to_owned(), schema::json::to_string));
        let mut errors = Vec::new();
        match (resource, other) {
            (Some(_), Some(_)) => errors.push(FieldError::invalid(
                &SPEC.child("nonResourceAttributes"),
                shown(other),
                "cannot be specified in combination with resourceAttributes",
            )),
            (None, None) => errors.push(FieldError::invalid(
                &SPEC.child("resourceAttributes"),
                shown(None),
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
        errors.extend(metadata_errors(object, if self.whose == Whose::InNamespace { &["namespace"] } else { &[] }));
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
                errors.push(FieldError::invalid(&"spec.nonResourceAttributes", shown(other), why));
            }
        }
        errors
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
