//! Bootstrap tokens: those that are over are removed, and those that are for it sign `cluster-info`, which tells a node that
//! joins whom to trust.

use crate::informer::{Informer, key};
use crate::objects::{ConfigMap, Secret};
use crate::queue::{Key, Queue};
use crate::{Context, Running, gone_is_fine, write};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::FutureExt;
use jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use ring::hmac;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub const TYPE: &str = "bootstrap.kubernetes.io/token";
pub const CLUSTER_INFO: &str = "cluster-info";
const PREFIX: &str = "bootstrap-token-";
const SYSTEM: &str = "kube-system";
const PUBLIC: &str = "kube-public";
const KUBECONFIG: &str = "kubeconfig";
const SIGNATURE: &str = "jws-kubeconfig-";

fn text<'s>(secret: &'s Secret, field: &str) -> &'s str {
    secret.data.get(field).and_then(|value| std::str::from_utf8(&value.0).ok()).unwrap_or("")
}

fn is_token(secret: &Secret) -> bool {
    secret.type_ == TYPE && secret.metadata.namespace.as_deref() == Some(SYSTEM)
}

/// How long a token is still good; `None`: for ever. What cannot be read is over.
fn left(secret: &Secret, now: Timestamp) -> Option<Duration> {
    let expiration = text(secret, "expiration");
    if expiration.is_empty() {
        return None;
    }
    let end = expiration.parse::<Timestamp>().map_or(0, |end| end.as_second());
    Some(Duration::from_secs(u64::try_from(end - now.as_second()).unwrap_or(0)))
}

/// Removes tokens when they are over.
pub fn cleaner(context: &Context) -> Running {
    let client = context.clients.service_account("token-cleaner");
    let secrets: Informer<Secret> = context.informers.of();
    let queue = Queue::<Key>::named(&context.config.queues, "token_cleaner");
    let q = queue.clone();
    secrets.on_change(move |_, new| {
        if let Some(secret) = new.filter(|s| is_token(s)) {
            q.add(key(secret.as_ref()));
        }
    });
    let shutdown = context.shutdown.clone();
    async move {
        secrets.synced().await;
        let reconcile = |key: Key| {
            let (client, secrets) = (client.clone(), secrets.clone());
            async move {
                let Some(secret) = secrets.by_key(&key).filter(|s| is_token(s)) else { return Ok(None) };
                match left(&secret, Timestamp::now()) {
                    None => Ok(None),
                    Some(left) if !left.is_zero() => Ok(Some(left)),
                    Some(_) => {
                        let preconditions = Preconditions { uid: secret.metadata.uid.clone(), resource_version: None };
                        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
                        gone_is_fine(Api::<Secret>::namespaced(client, SYSTEM).delete(&key.name, &params).await)?;
                        Ok(None)
                    }
                }
            }
        };
        queue.run("token-cleaner", 1, shutdown, reconcile).await;
        Ok(())
    }
    .boxed()
}

/// The token's detached signature of a text (JWS, HS256).
fn sign(content: &str, id: &str, secret: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"HS256","kid":"{id}"}}"#));
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    let key = hmac::Key::new(hmac::HMAC_SHA256, format!("{id}.{secret}").as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes())))
}

/// The signatures that `cluster-info` is to have; `None` when there is nothing to sign.
fn signatures(info: &ConfigMap, tokens: &[Arc<Secret>], now: Timestamp) -> Option<BTreeMap<String, String>> {
    let content = info.data.get(KUBECONFIG)?;
    let signs = |secret: &&Arc<Secret>| {
        let id = text(secret, "token-id");
        is_token(secret)
            && secret.metadata.name.as_deref() == Some(&format!("{PREFIX}{id}"))
            && text(secret, "usage-bootstrap-signing") == "true"
            && !text(secret, "token-secret").is_empty()
            && left(secret, now).is_none_or(|left| !left.is_zero())
    };
    let signature = |secret: &Arc<Secret>| {
        let id = text(secret, "token-id");
        (format!("{SIGNATURE}{id}"), sign(content, id, text(secret, "token-secret")))
    };
    Some(tokens.iter().filter(signs).map(signature).collect())
}

/// The merge of the data that brings the signatures; `None`: they are there already.
fn merge(info: &ConfigMap, wanted: &BTreeMap<String, String>) -> Option<Map<String, Value>> {
    let stale = info.data.keys().filter(|k| k.starts_with(SIGNATURE) && !wanted.contains_key(*k));
    let mut merge: Map<String, Value> = stale.map(|key| (key.clone(), Value::Null)).collect();
    for (key, signature) in wanted.iter().filter(|(key, signature)| info.data.get(*key) != Some(*signature)) {
        merge.insert(key.clone(), signature.as_str().into());
    }
    (!merge.is_empty()).then_some(merge)
}

/// Keeps the signatures of `cluster-info`, where there is one.
pub fn signer(context: &Context) -> Running {
    let client = context.clients.service_account("bootstrap-signer");
    let secrets: Informer<Secret> = context.informers.of();
    let maps: Informer<ConfigMap> = context.informers.of();
    let queue = Queue::<Key>::named(&context.config.queues, "bootstrap_signer_queue");
    let only = Key::new(PUBLIC, CLUSTER_INFO);
    let (q, k) = (queue.clone(), only.clone());
    secrets.on_change(move |old, new| {
        if [old, new].into_iter().flatten().any(|s| is_token(s)) {
            q.add(k.clone());
        }
    });
    let q = queue.clone();
    maps.on_change(move |_, new| {
        if new.is_some_and(|map| key(map.as_ref()) == only) {
            q.add(only.clone());
        }
    });
    let shutdown = context.shutdown.clone();
    async move {
        secrets.synced().await;
        maps.synced().await;
        let reconcile = |key: Key| {
            let (client, secrets, maps) = (client.clone(), secrets.clone(), maps.clone());
            async move {
                let Some(info) = maps.by_key(&key) else { return Ok(None::<Duration>) };
                let wanted = signatures(&info, &secrets.in_namespace(SYSTEM), Timestamp::now());
                if let Some(data) = wanted.and_then(|wanted| merge(&info, &wanted)) {
                    let merge = json!({"metadata": {"uid": info.metadata.uid,
                        "resourceVersion": info.metadata.resource_version}, "data": data});
                    let written = write::update::<ConfigMap>(&client, &key.namespace, &key.name, None, merge).await;
                    if let Some(written) = gone_is_fine(written)? {
                        maps.assume(written);
                    }
                }
                Ok(None)
            }
        };
        queue.run("bootstrap-signer", 1, shutdown, reconcile).await;
        Ok(())
    }
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    fn token(id: &str, more: &[(&str, &str)]) -> Arc<Secret> {
        let mut secret = Secret { type_: TYPE.to_owned(), ..Secret::default() };
        secret.metadata.namespace = Some(SYSTEM.to_owned());
        secret.metadata.name = Some(format!("{PREFIX}{id}"));
        for (key, value) in [("token-id", id), ("token-secret", "0123456789abcdef")].iter().chain(more) {
            secret.data.insert((*key).to_owned(), ByteString(value.as_bytes().to_vec()));
        }
        Arc::new(secret)
    }

    #[test]
    fn tokens_end() {
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(left(&token("abcdef", &[]), now), None);
        assert_eq!(
            left(&token("abcdef", &[("expiration", "1970-01-01T01:00:00Z")]), now),
            Some(Duration::from_hours(1))
        );
        assert_eq!(left(&token("abcdef", &[("expiration", "soon")]), now), Some(Duration::ZERO));
    }

    #[test]
    fn tokens_that_are_for_it_sign_and_others_do_not() {
        let mut info = ConfigMap::default();
        info.data.insert(KUBECONFIG.to_owned(), "payload".to_owned());
        info.data.insert(format!("{SIGNATURE}gone00"), "x".to_owned());
        let tokens = [token("abcdef", &[("usage-bootstrap-signing", "true")]), token("ghijkl", &[])];
        let wanted = signatures(&info, &tokens, Timestamp::UNIX_EPOCH).expect("something to sign");
        assert_eq!(wanted.len(), 1);
        let signature = &wanted["jws-kubeconfig-abcdef"];
        assert!(signature.starts_with("eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiY2RlZiJ9.."), "{signature}");
        let merged = merge(&info, &wanted).expect("a change");
        assert_eq!(merged.get("jws-kubeconfig-gone00"), Some(&Value::Null));
        info.data.remove("jws-kubeconfig-gone00");
        info.data.extend(wanted.clone());
        assert_eq!(merge(&info, &wanted), None);
    }
}
