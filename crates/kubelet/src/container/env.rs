//! The environment of a container.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret};

use super::{
    expand::expand,
    fields::{self, Context},
    service_env,
};
use crate::{objects::ObjectError, services::Service, spec::PodExt};

/// The objects that a pod refers to, as far as they are known.
pub(crate) trait Objects: Sync {
    fn config_map(&self, name: &str) -> Result<Arc<ConfigMap>, ObjectError>;
    fn secret(&self, name: &str) -> Result<Arc<Secret>, ObjectError>;
}

/// Variables in the order in which they were first named.
#[derive(Default)]
struct Variables {
    order: Vec<String>,
    values: HashMap<String, String>,
}

impl Variables {
    fn set(&mut self, name: &str, value: String) {
        if self.values.insert(name.to_owned(), value).is_none() {
            self.order.push(name.to_owned());
        }
    }
}

/// The variables of a container: those taken from whole objects, then its own, then those of the
/// services it doesn't name itself.
///
/// # Errors
/// The text that the container's waiting state shows: which object or key is missing.
pub(crate) fn environment(
    container: &Container,
    context: &Context<'_>,
    objects: &dyn Objects,
    services: &[Service],
) -> Result<Vec<(String, String)>, String> {
    let pod = context.pod;
    let of_services = service_env::variables(services);
    let service_values: HashMap<&str, &str> = of_services.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let mut variables = Variables::default();
    from_objects(container, objects, &mut variables)?;
    for variable in container.env.iter().flatten() {
        let value = match variable.value.as_deref() {
            Some(value) if !value.is_empty() => expand(value, |name| {
                let own = variables.values.get(name).cloned();
                own.or_else(|| service_values.get(name).map(|value| (*value).to_owned()))
            }),
            _ => match from_source(variable, container, context, objects, pod)? {
                Some(value) => value,
                None => continue,
            },
        };
        variables.set(&variable.name, value);
    }
    let mut out: Vec<(String, String)> =
        variables.order.iter().map(|name| (name.clone(), variables.values[name].clone())).collect();
    out.extend(of_services.into_iter().filter(|(name, _)| !variables.values.contains_key(name)));
    Ok(out)
}

fn from_objects(container: &Container, objects: &dyn Objects, variables: &mut Variables) -> Result<(), String> {
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref {
            let found = optional(objects.config_map(&reference.name), reference.optional)?;
            for (key, value) in found.iter().flat_map(|map| map.data.iter().flatten()) {
                variables.set(&format!("{prefix}{key}"), value.clone());
            }
        } else if let Some(reference) = &source.secret_ref {
            let found = optional(objects.secret(&reference.name), reference.optional)?;
            for (key, value) in found.iter().flat_map(|secret| secret.data.iter().flatten()) {
                let value = String::from_utf8_lossy(&value.0).into_owned();
                variables.set(&format!("{prefix}{key}"), value);
            }
        }
    }
    Ok(())
}

/// `None` for a variable that is left out because its optional source is missing.
fn from_source(
    variable: &k8s_openapi::api::core::v1::EnvVar,
    container: &Container,
    context: &Context<'_>,
    objects: &dyn Objects,
    pod: &Pod,
) -> Result<Option<String>, String> {
    let Some(source) = &variable.value_from else {
        return Ok(Some(String::new()));
    };
    if let Some(selector) = &source.field_ref {
        return fields::field(context, &selector.field_path).map(Some);
    }
    if let Some(selector) = &source.resource_field_ref {
        return fields::resource(context, container, selector).map(Some);
    }
    let missing = |kind: &str, key: &str, name: &str, is_optional: Option<bool>| {
        if is_optional == Some(true) {
            return Ok(None);
        }
        Err(format!("couldn't find key {key} in {kind} {}/{name}", pod.namespace()))
    };
    if let Some(selector) = &source.config_map_key_ref {
        let Some(map) = optional(objects.config_map(&selector.name), selector.optional)? else {
            return Ok(None);
        };
        return match map.data.as_ref().and_then(|data| data.get(&selector.key)) {
            Some(value) => Ok(Some(value.clone())),
            None => missing("ConfigMap", &selector.key, &selector.name, selector.optional),
        };
    }
    if let Some(selector) = &source.secret_key_ref {
        let Some(secret) = optional(objects.secret(&selector.name), selector.optional)? else {
            return Ok(None);
        };
        return match secret.data.as_ref().and_then(|data| data.get(&selector.key)) {
            Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
            None => missing("Secret", &selector.key, &selector.name, selector.optional),
        };
    }
    if source.file_key_ref.is_some() {
        return Err(format!("environment variable {}: fileKeyRef is not supported", variable.name));
    }
    Ok(Some(String::new()))
}

/// An object, or nothing where it may be missing and is.
pub(crate) fn optional<T>(found: Result<T, ObjectError>, is_optional: Option<bool>) -> Result<Option<T>, String> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(ObjectError::NotFound { .. }) if is_optional == Some(true) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::TextList;

    struct Fixed;

    impl Objects for Fixed {
        fn config_map(&self, name: &str) -> Result<Arc<ConfigMap>, ObjectError> {
            if name != "cm" {
                return Err(ObjectError::not_found("configmap", name));
            }
            Ok(Arc::new(serde_json::from_value(json!({"data": {"k": "v", "j": "w"}})).unwrap()))
        }
        fn secret(&self, name: &str) -> Result<Arc<Secret>, ObjectError> {
            if name != "s" {
                return Err(ObjectError::not_found("secret", name));
            }
            Ok(Arc::new(serde_json::from_value(json!({"data": {"p": "cGFzcw=="}})).unwrap()))
        }
    }

    fn of(container: serde_json::Value) -> Result<Vec<(String, String)>, String> {
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": {"containers": [container]}}),
        )
        .unwrap();
        let service = Service {
            namespace: "default".into(),
            name: "kubernetes".into(),
            cluster_ip: Some("10.96.0.1".into()),
            ports: vec![crate::services::Port { name: None, port: 443, protocol: None }],
        };
        let allocatable = TextList::new();
        let context = Context { pod: &pod, pod_ips: &[], host_ips: &[], allocatable: &allocatable };
        environment(&pod.containers()[0], &context, &Fixed, &[service])
            .map(|all| all.into_iter().filter(|(name, _)| !name.starts_with("KUBERNETES_PORT")).collect())
    }

    #[test]
    fn variables_come_from_everywhere_in_order() {
        let env = of(json!({"name": "c",
        "envFrom": [{"configMapRef": {"name": "cm"}, "prefix": "P_"}, {"secretRef": {"name": "s"}},
            {"configMapRef": {"name": "none", "optional": true}}],
        "env": [
            {"name": "A", "value": "$(P_k)-$(KUBERNETES_SERVICE_HOST)-$(B)"},
            {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "p", "value": "mine"},
            {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "p"}}},
            {"name": "O", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "x", "optional": true}}},
            {"name": "KUBERNETES_SERVICE_PORT", "value": "1"},
        ]}))
        .unwrap();
        let expected = [
            ("P_j", "w"),
            ("P_k", "v"),
            ("p", "mine"),
            ("A", "v-10.96.0.1-$(B)"),
            ("B", "p"),
            ("S", "pass"),
            ("KUBERNETES_SERVICE_PORT", "1"),
            ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(env, expected);
    }

    #[test]
    fn what_is_missing_is_named() {
        for (env, message) in [
            (json!({"name": "c", "envFrom": [{"configMapRef": {"name": "no"}}]}), "configmap \"no\" not found"),
            (
                json!({"name": "c", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "no", "key": "k"}}}]}),
                "secret \"no\" not found",
            ),
            (
                json!({"name": "c", "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "x"}}}]}),
                "couldn't find key x in ConfigMap ns/cm",
            ),
        ] {
            assert_eq!(of(env).unwrap_err(), message);
        }
    }
}
