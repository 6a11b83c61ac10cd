//! Tokens in Secrets that were made by themselves for service accounts, as before 1.24, and that nobody uses: they are
//! marked invalid first, and removed when nobody missed them for as long again.
//!
//! The API server notes when a token was used (`kubernetes.io/legacy-token-last-used`), and since when it does so.

use crate::informer::{Informer, key};
use crate::objects::{Secret, ServiceAccount};
use crate::queue::{Key, Queue};
use crate::service_account_token::{NAME, TYPE, UID, annotation};
use crate::{Context, Error, Running, gone_is_fine};
use futures::FutureExt;
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use serde_json::{Value, json};
use std::time::Duration;

const TRACKING: &str = "kube-apiserver-legacy-service-account-token-tracking";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// How often each Secret is looked at (upstream's interval).
const LOOK: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Nothing,
    /// Its token is no longer taken from now on.
    Invalidate,
    Delete,
}

fn date(at: Timestamp) -> Date {
    at.to_zoned(TimeZone::UTC).date()
}

/// `since`: the day on which the API server began to note uses. Nothing is said here of pods that mount the Secret.
fn plan(
    secret: &Secret,
    account: Option<&ServiceAccount>,
    since: Option<Date>,
    period: Duration,
    now: Timestamp,
) -> Plan {
    let Ok(period) = SignedDuration::try_from(period) else { return Plan::Nothing };
    let Ok(before) = now.checked_sub(period) else { return Plan::Nothing };
    // Noting began some time on that day: from the next on nothing was missed.
    let tracked = since.and_then(|since| since.tomorrow().ok()).and_then(|day| day.to_zoned(TimeZone::UTC).ok());
    if tracked.is_none_or(|tracked| tracked.timestamp() > before) {
        return Plan::Nothing;
    }
    let made = secret.metadata.creation_timestamp.as_ref().map(|t| t.0);
    let old = made.is_some_and(|made| made < before) && secret.metadata.deletion_timestamp.is_none();
    if secret.type_ != TYPE || !old {
        return Plan::Nothing;
    }
    let label = |key: &str| secret.metadata.labels.as_ref().and_then(|labels| labels.get(key));
    match label(LAST_USED).map(|text| text.parse::<Date>()) {
        Some(Ok(used)) if used < date(before) => {}
        // Used, or when cannot be told.
        Some(_) => return Plan::Nothing,
        None => {}
    }
    // Only one that its account names was made by itself.
    let uid = annotation(secret, UID);
    let named = |account: &ServiceAccount| {
        (uid.is_empty() || account.metadata.uid.as_deref() == Some(uid))
            && account.secrets.iter().any(|reference| Some(&reference.name) == secret.metadata.name.as_ref())
    };
    if !account.is_some_and(named) {
        return Plan::Nothing;
    }
    match label(INVALID_SINCE).and_then(|text| text.parse::<Date>().ok()) {
        None => Plan::Invalidate,
        Some(invalid) if invalid < date(before) => Plan::Delete,
        Some(_) => Plan::Nothing,
    }
}

/// Whether a pod's spec names a Secret anywhere.
fn names(value: &Value, secret: &str) -> bool {
    let named = |value: &Value| value.get("name").and_then(Value::as_str) == Some(secret);
    match value {
        Value::Object(map) => map.iter().any(|(key, value)| match key.as_str() {
            "secretName" => value.as_str() == Some(secret),
            "secret" | "secretRef" | "secretKeyRef" | "nodePublishSecretRef" if named(value) => true,
            "imagePullSecrets" => value.as_array().is_some_and(|list| list.iter().any(named)),
            _ => names(value, secret),
        }),
        Value::Array(list) => list.iter().any(|value| names(value, secret)),
        _ => false,
    }
}

struct Cleaner {
    client: Client,
    /// Reads the pods of a namespace, which the cleaner's own account may not.
    manager: Client,
    secrets: Informer<Secret>,
    accounts: Informer<ServiceAccount>,
    period: Duration,
}

pub fn controller(context: &Context) -> Running {
    let secrets: Informer<Secret> = context.informers.of();
    let cleaner = std::sync::Arc::new(Cleaner {
        client: context.clients.service_account("legacy-service-account-token-cleaner"),
        manager: context.clients.manager(),
        accounts: context.informers.of(),
        period: context.config.legacy_token_clean_up,
        secrets,
    });
    let queue = Queue::<Key>::named(&context.config.queues, "legacy_token_cleaner");
    let q = queue.clone();
    cleaner.secrets.on_change(move |_, new| {
        if let Some(secret) = new.filter(|secret| secret.type_ == TYPE) {
            q.add(key(secret.as_ref()));
        }
    });
    let shutdown = context.shutdown.clone();
    async move {
        cleaner.secrets.synced().await;
        cleaner.accounts.synced().await;
        queue.run("legacy-token-cleaner", 1, shutdown, |key| cleaner.clone().reconcile(key)).await;
        Ok(())
    }
    .boxed()
}

impl Cleaner {
    async fn reconcile(self: std::sync::Arc<Self>, key: Key) -> Result<Option<Duration>, Error> {
        let Some(secret) = self.secrets.by_key(&key) else { return Ok(None) };
        let account = self.accounts.get(&key.namespace, annotation(&secret, NAME));
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), "kube-system");
        let tracking = gone_is_fine(maps.get(TRACKING).await)?;
        let since = tracking.and_then(|map| map.data?.get("since")?.parse().ok());
        let plan = plan(&secret, account.as_deref(), since, self.period, Timestamp::now());
        if plan == Plan::Nothing || self.is_mounted(&key).await? {
            return Ok(Some(LOOK));
        }
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &key.namespace);
        let (uid, version) = (secret.metadata.uid.clone(), secret.metadata.resource_version.clone());
        if plan == Plan::Invalidate {
            let today = date(Timestamp::now()).to_string();
            let patch = json!({"metadata": {"uid": uid, "resourceVersion": version, "labels": {INVALID_SINCE: today}}});
            gone_is_fine(api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
        } else {
            let preconditions = Some(Preconditions { uid, resource_version: version });
            gone_is_fine(api.delete(&key.name, &DeleteParams { preconditions, ..DeleteParams::default() }).await)?;
        }
        Ok(Some(LOOK))
    }

    async fn is_mounted(&self, secret: &Key) -> Result<bool, Error> {
        let pods: Api<Pod> = Api::namespaced(self.manager.clone(), &secret.namespace);
        let pods = pods.list(&ListParams::default()).await?;
        Ok(pods.iter().any(|pod| serde_json::to_value(&pod.spec).is_ok_and(|spec| names(&spec, &secret.name))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

    fn shown(labels: Value, since: &str, now: &str, named: bool) -> Plan {
        let secret = json!({"metadata": {"name": "s", "namespace": "n", "creationTimestamp": "2020-01-01T00:00:00Z",
            "annotations": {NAME: "a", UID: "u"}, "labels": labels}, "type": TYPE});
        let secret: Secret = serde_json::from_value(secret).expect("a secret");
        let secrets = if named { json!([{"name": "s"}]) } else { json!([]) };
        let account: ServiceAccount =
            serde_json::from_value(json!({"metadata": {"name": "a", "uid": "u"}, "secrets": secrets}))
                .expect("an account");
        plan(&secret, Some(&account), since.parse().ok(), YEAR, now.parse().expect("a time"))
    }

    #[test]
    fn what_nobody_uses_is_marked_and_then_removed() {
        let (since, now) = ("2023-01-01", "2026-06-01T12:00:00Z");
        let marked = |at: &str| json!({INVALID_SINCE: at});
        assert_eq!(shown(json!({}), since, now, true), Plan::Invalidate);
        assert_eq!(shown(json!({}), since, now, false), Plan::Nothing, "somebody made it");
        assert_eq!(shown(json!({}), "2025-12-01", now, true), Plan::Nothing, "too early to tell");
        assert_eq!(shown(json!({}), "", now, true), Plan::Nothing, "nobody takes note");
        assert_eq!(shown(json!({LAST_USED: "2026-05-31"}), since, now, true), Plan::Nothing);
        assert_eq!(shown(json!({LAST_USED: "lately"}), since, now, true), Plan::Nothing);
        assert_eq!(shown(json!({LAST_USED: "2024-05-31"}), since, now, true), Plan::Invalidate);
        assert_eq!(shown(marked("2026-05-01"), since, now, true), Plan::Nothing);
        assert_eq!(shown(marked("2025-05-01"), since, now, true), Plan::Delete);
        assert_eq!(shown(json!({}), since, "2020-06-01T00:00:00Z", true), Plan::Nothing, "too young");
    }

    #[test]
    fn pods_name_secrets_in_many_places() {
        for spec in [
            json!({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}),
            json!({"volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "s"}}]}}]}),
            json!({"imagePullSecrets": [{"name": "s"}]}),
            json!({"containers": [{"envFrom": [{"secretRef": {"name": "s"}}]}]}),
            json!({"initContainers": [{"env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}]}),
        ] {
            assert!(names(&spec, "s"), "{spec}");
            assert!(!names(&spec, "t"), "{spec}");
        }
        assert!(!names(&json!({"containers": [{"name": "s", "image": "s"}]}), "s"));
    }
}
