//! `scale`: replicas and selector of any kind that has them, shown alike (`autoscaling/v1 Scale`).

use super::{Subresource, Target};
use api::field::{FieldError, Path};
use api::selector::{LabelSelector, Operator, Requirement};
use api::{GroupKind, GroupResource, Status};
use schema::{Map, Value};

/// Shows `spec.replicas`, `status.replicas` and `spec.selector`.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// The selector is a map of labels (ReplicationController), not a `LabelSelector`.
    pub plain_selector: bool,
}

/// A `metav1.LabelSelector` as query parameters spell it.
pub fn selector_text(selector: Option<&Map>) -> String {
    let Some(selector) = selector else { return String::new() };
    let mut requirements = Vec::new();
    for (key, value) in selector.get("matchLabels").and_then(Value::as_map).into_iter().flat_map(Map::iter) {
        requirements.push(equal(key, value));
    }
    let expressions = selector.get("matchExpressions").and_then(Value::as_list).unwrap_or_default();
    for expression in expressions.iter().filter_map(Value::as_map) {
        let operator = match expression.str_at(&["operator"]) {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            _ => continue,
        };
        let values = expression.get("values").and_then(Value::as_list).unwrap_or_default();
        let mut values: Vec<String> = values.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        values.sort();
        requirements.push(Requirement { key: expression.str_at(&["key"]).to_owned(), operator, values });
    }
    requirements.sort_by(|a, b| a.key.cmp(&b.key));
    LabelSelector::from_requirements(requirements).to_string()
}

fn equal(key: &str, value: &Value) -> Requirement {
    let value = value.as_str().unwrap_or("").to_owned();
    Requirement { key: key.to_owned(), operator: Operator::In, values: vec![value] }
}

impl Subresource for Scale {
    fn window(&self) -> Option<(&'static [&'static str], &'static str)> {
        Some((&["spec", "replicas"], "autoscaling/v1"))
    }

    fn read(&self, _: &Target, object: &Map) -> Result<Map, Status> {
        let mut scale = Map::new();
        scale.insert("kind", "Scale");
        scale.insert("apiVersion", "autoscaling/v1");
        let mut metadata = Map::new();
        for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
            if let Some(value) = object.at(&["metadata", key]) {
                metadata.insert(key, value.clone());
            }
        }
        scale.insert("metadata", metadata);
        let mut spec = Map::new();
        match object.at(&["spec", "replicas"]).and_then(Value::as_i64) {
            Some(0) | None => {}
            Some(replicas) => {
                spec.insert("replicas", replicas);
            }
        }
        scale.insert("spec", spec);
        let mut status = Map::new();
        status.insert("replicas", object.at(&["status", "replicas"]).and_then(Value::as_i64).unwrap_or(0));
        let selector = object.at(&["spec", "selector"]).and_then(Value::as_map);
        let text = if self.plain_selector {
            let requirements = selector.into_iter().flat_map(Map::iter).map(|(k, v)| equal(k, v)).collect();
            LabelSelector::from_requirements(requirements).to_string()
        } else {
            selector_text(selector)
        };
        if !text.is_empty() {
            status.insert("selector", text);
        }
        scale.insert("status", status);
        Ok(scale)
    }

    fn write(&self, target: &Target, object: &mut Map, changed: Map) -> Result<(), Status> {
        let replicas = changed.at(&["spec", "replicas"]).and_then(Value::as_i64).unwrap_or(0);
        if replicas < 0 {
            let spec = Path::root("spec");
            let why = "must be greater than or equal to 0";
            let error = FieldError::invalid(&spec.child("replicas"), replicas, why);
            return Err(Status::invalid(&GroupKind::new("autoscaling", "Scale"), &target.name, &[error]));
        }
        let (wanted, actual) = (changed.str_at(&["metadata", "uid"]), object.str_at(&["metadata", "uid"]));
        if !wanted.is_empty() && wanted != actual {
            let plural = format!("{}/scale", target.served.resource.plural);
            let resource = GroupResource::new(target.served.resource.group.clone(), plural);
            let why = format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {actual}");
            return Err(Status::conflict(&resource, &target.name, why));
        }
        object.set_at(&["spec", "replicas"], replicas);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_spelled_as_in_queries() {
        let text = br#"{"matchLabels":{"b":"1","a":"2"},"matchExpressions":[{"key":"c","operator":"In","values":["y","x"]},{"key":"d","operator":"Exists"}]}"#;
        let selector = schema::json::parse(text).expect("JSON");
        assert_eq!(selector_text(selector.as_map()), "a=2,b=1,c in (x,y),d");
    }
}
