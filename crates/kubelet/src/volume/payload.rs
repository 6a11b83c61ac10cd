//! The files of volumes that show objects: which object's which key stands where, with what mode.

use k8s_openapi::api::core::v1::{ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, Volume};

use super::atomic::{File, Payload};
use crate::{
    container::{
        env::{Objects, optional},
        fields::{self, Context},
    },
    spec::PodExt,
};

/// The mode of files that don't say otherwise.
const DEFAULT_MODE: i32 = 0o644;

/// A service account token that a volume shows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TokenRequest {
    /// Empty for the API server's own.
    pub(crate) audience: String,
    pub(crate) expiration_seconds: i64,
}

/// What payloads are made from.
pub(crate) struct Sources<'a> {
    pub(crate) context: &'a Context<'a>,
    pub(crate) objects: &'a dyn Objects,
    /// The tokens that [`tokens`] named.
    pub(crate) token: &'a (dyn Fn(&TokenRequest) -> Result<String, String> + Sync),
}

/// The tokens that a volume shows.
pub(crate) fn tokens(volume: &Volume) -> Vec<TokenRequest> {
    let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    sources
        .filter_map(|source| source.service_account_token.as_ref())
        .map(|token| TokenRequest {
            audience: token.audience.clone().unwrap_or_default(),
            expiration_seconds: token.expiration_seconds.unwrap_or(3600),
        })
        .collect()
}

/// The plugin directory of a volume that shows objects, or `None` for other volumes.
pub(crate) fn plugin(volume: &Volume) -> Option<&'static str> {
    if volume.config_map.is_some() {
        Some("kubernetes.io~configmap")
    } else if volume.secret.is_some() {
        Some("kubernetes.io~secret")
    } else if volume.downward_api.is_some() {
        Some("kubernetes.io~downward-api")
    } else if volume.projected.is_some() {
        Some("kubernetes.io~projected")
    } else {
        None
    }
}

/// The files of a volume that shows objects.
///
/// # Errors
/// Upstream's texts: which object or key is missing.
pub(crate) fn payload(volume: &Volume, sources: &Sources<'_>) -> Result<Payload, String> {
    let pod = sources.context.pod;
    let mut payload = Payload::new();
    if let Some(source) = &volume.config_map {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let found = optional(sources.objects.config_map(&source.name), source.optional)?;
        if let Some(map) = found {
            config_map(&map, source.items.as_deref(), mode, source.optional, &mut payload)?;
        }
    }
    if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let found = optional(sources.objects.secret(name), source.optional)?;
        if let Some(found) = found {
            secret(&found, source.items.as_deref(), mode, source.optional, &mut payload)?;
        }
    }
    if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        downward(source.items.as_deref().unwrap_or_default(), mode, sources.context, &mut payload)?;
    }
    if let Some(projected) = &volume.projected {
        let mode = projected.default_mode.unwrap_or(DEFAULT_MODE);
        for source in projected.sources.iter().flatten() {
            if let Some(source) = &source.config_map {
                let found = optional(sources.objects.config_map(&source.name), source.optional)?;
                if let Some(map) = found {
                    config_map(&map, source.items.as_deref(), mode, source.optional, &mut payload)?;
                }
            }
            if let Some(source) = &source.secret {
                let found = optional(sources.objects.secret(&source.name), source.optional)?;
                if let Some(found) = found {
                    secret(&found, source.items.as_deref(), mode, source.optional, &mut payload)?;
                }
            }
            if let Some(source) = &source.downward_api {
                let items = source.items.as_deref().unwrap_or_default();
                downward(items, mode, sources.context, &mut payload)?;
            }
            if let Some(source) = &source.service_account_token {
                let request = TokenRequest {
                    audience: source.audience.clone().unwrap_or_default(),
                    expiration_seconds: source.expiration_seconds.unwrap_or(3600),
                };
                let uid = sole_user(pod);
                // Who is told by owner or group need not be let in as everybody.
                let mode = if uid.is_some() || fs_group(pod).is_some() { 0o600 } else { mode };
                let file = File { data: (sources.token)(&request)?.into_bytes(), mode: bits(mode), uid };
                payload.insert(source.path.clone(), file);
            }
            if source.cluster_trust_bundle.is_some() {
                return Err("ClusterTrustBundle projections are not supported by this kubelet".to_owned());
            }
            if source.pod_certificate.is_some() {
                return Err("podCertificate projections are not supported by this kubelet".to_owned());
            }
        }
    }
    Ok(payload)
}

fn bits(mode: i32) -> u32 {
    u32::try_from(mode).unwrap_or_default() & 0o777
}

fn file(data: Vec<u8>, mode: i32) -> File {
    File { data, mode: bits(mode), uid: None }
}

fn config_map(
    map: &ConfigMap,
    items: Option<&[KeyToPath]>,
    mode: i32,
    is_optional: Option<bool>,
    payload: &mut Payload,
) -> Result<(), String> {
    let what = "references non-existent config key: ";
    let text = map.data.iter().flatten().map(|(key, value)| (key, value.clone().into_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(key, value)| (key, value.0.clone()));
    let data: Vec<(&String, Vec<u8>)> = text.chain(binary).collect();
    keys(&data, items, mode, is_optional, what, payload)
}

fn secret(
    secret: &Secret,
    items: Option<&[KeyToPath]>,
    mode: i32,
    is_optional: Option<bool>,
    payload: &mut Payload,
) -> Result<(), String> {
    let data: Vec<(&String, Vec<u8>)> =
        secret.data.iter().flatten().map(|(key, value)| (key, value.0.clone())).collect();
    keys(&data, items, mode, is_optional, "references non-existent secret key: ", payload)
}

fn keys(
    data: &[(&String, Vec<u8>)],
    items: Option<&[KeyToPath]>,
    mode: i32,
    is_optional: Option<bool>,
    what: &str,
    payload: &mut Payload,
) -> Result<(), String> {
    let items = items.unwrap_or_default();
    if items.is_empty() {
        for (key, value) in data {
            payload.insert((*key).clone(), file(value.clone(), mode));
        }
    }
    for item in items {
        match data.iter().find(|(key, _)| **key == item.key) {
            Some((_, value)) => {
                payload.insert(item.path.clone(), file(value.clone(), item.mode.unwrap_or(mode)));
            }
            None if is_optional == Some(true) => {}
            None => return Err(format!("{what}{}", item.key)),
        }
    }
    Ok(())
}

fn downward(
    items: &[DownwardAPIVolumeFile],
    mode: i32,
    context: &Context<'_>,
    payload: &mut Payload,
) -> Result<(), String> {
    for item in items {
        let text = if let Some(selector) = &item.field_ref {
            fields::field(context, &selector.field_path)?
        } else if let Some(selector) = &item.resource_field_ref {
            let name = selector.container_name.as_deref().unwrap_or_default();
            let (_, container) =
                context.pod.find_container(name).ok_or_else(|| format!("container {name} not found"))?;
            fields::resource(context, &container, selector)?
        } else {
            continue;
        };
        payload.insert(item.path.clone(), file(text.into_bytes(), item.mode.unwrap_or(mode)));
    }
    Ok(())
}

/// The group that a pod's volumes belong to.
pub(crate) fn fs_group(pod: &Pod) -> Option<u32> {
    let context = pod.spec().security_context.as_ref()?;
    u32::try_from(context.fs_group?).ok()
}

/// The one user that all of a pod's containers run as, if all say so and agree.
fn sole_user(pod: &Pod) -> Option<u32> {
    let mut users = pod
        .containers()
        .iter()
        .chain(pod.init_containers())
        .map(|container| crate::container::security::effective(pod, container).run_as_user);
    let first = users.next()??;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok())?
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::{objects::ObjectError, resources::TextList};

    struct Fixed;

    impl Objects for Fixed {
        fn config_map(&self, name: &str) -> Result<Arc<ConfigMap>, ObjectError> {
            if name != "cm" {
                return Err(ObjectError::not_found("configmap", name));
            }
            let map = json!({"data": {"a": "1", "b": "2"}, "binaryData": {"c": "AAE="}});
            Ok(Arc::new(serde_json::from_value(map).unwrap()))
        }
        fn secret(&self, name: &str) -> Result<Arc<Secret>, ObjectError> {
            if name != "s" {
                return Err(ObjectError::not_found("secret", name));
            }
            Ok(Arc::new(serde_json::from_value(json!({"data": {"p": "cGFzcw=="}})).unwrap()))
        }
    }

    fn of(volume: Value, security: Value) -> Result<Vec<(String, String, u32, Option<u32>)>, String> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "labels": {"l": "v"}},
            "spec": {"securityContext": security, "containers": [{"name": "c", "resources": {"limits": {"cpu": "2"}}}]},
        }))
        .unwrap();
        let mut with_name = json!({"name": "v"});
        with_name.as_object_mut().unwrap().extend(volume.as_object().unwrap().clone());
        let volume: Volume = serde_json::from_value(with_name).unwrap();
        let allocatable = TextList::new();
        let context = Context { pod: &pod, pod_ips: &[], host_ips: &[], allocatable: &allocatable };
        let token = |request: &TokenRequest| Ok(format!("token for {:?}", request.audience));
        let sources = Sources { context: &context, objects: &Fixed, token: &token };
        payload(&volume, &sources).map(|payload| {
            payload
                .into_iter()
                .map(|(path, file)| (path, String::from_utf8_lossy(&file.data).into_owned(), file.mode, file.uid))
                .collect()
        })
    }

    fn row(path: &str, data: &str, mode: u32) -> (String, String, u32, Option<u32>) {
        (path.to_owned(), data.to_owned(), mode, None)
    }

    #[test]
    fn keys_become_files() {
        assert_eq!(
            of(json!({"configMap": {"name": "cm", "defaultMode": 0o600}}), json!({})).unwrap(),
            [row("a", "1", 0o600), row("b", "2", 0o600), row("c", "\0\u{1}", 0o600)]
        );
        assert_eq!(
            of(json!({"configMap": {"name": "cm", "items": [{"key": "a", "path": "x/y", "mode": 0o400}]}}), json!({}))
                .unwrap(),
            [row("x/y", "1", 0o400)]
        );
        assert_eq!(of(json!({"secret": {"secretName": "s"}}), json!({})).unwrap(), [row("p", "pass", 0o644)]);
        assert_eq!(of(json!({"secret": {"secretName": "no", "optional": true}}), json!({})).unwrap(), []);
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = |volume: Value| of(volume, json!({})).unwrap_err();
        assert_eq!(error(json!({"configMap": {"name": "no"}})), "configmap \"no\" not found");
        assert_eq!(error(json!({"secret": {"secretName": "no"}})), "secret \"no\" not found");
        assert_eq!(
            error(json!({"configMap": {"name": "cm", "items": [{"key": "z", "path": "z"}]}})),
            "references non-existent config key: z"
        );
    }

    #[test]
    fn a_projected_volume_joins_its_sources() {
        let volume = json!({"projected": {"sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {"name": "cm", "items": [{"key": "a", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}},
                {"path": "cpu", "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu", "divisor": "1"}}]}},
        ]}});
        assert_eq!(
            of(volume.clone(), json!({})).unwrap(),
            [
                row("ca.crt", "1", 0o644),
                row("cpu", "2", 0o644),
                row("namespace", "ns", 0o644),
                row("token", "token for \"\"", 0o644),
            ]
        );
        let tokens_mode = |security: Value| {
            let files = of(volume.clone(), security).unwrap();
            let token = files.iter().find(|file| file.0 == "token").unwrap();
            (token.2, token.3)
        };
        assert_eq!(tokens_mode(json!({"runAsUser": 1000})), (0o600, Some(1000)));
        assert_eq!(tokens_mode(json!({"fsGroup": 5})), (0o600, None));
    }
}
