//! Secrets of the type `kubernetes.io/service-account-token`: filled with a token for their account, removed with it.

use crate::informer::{Informer, key};
use crate::objects::{Secret, ServiceAccount};
use crate::queue::{Key, Queue};
use crate::{Context, Error, Running, gone_is_fine, write};
use futures::FutureExt;
use k8s_openapi::ByteString;
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, Client};
use serde_json::json;
use std::fmt::Debug;
use std::time::Duration;

pub const TYPE: &str = "kubernetes.io/service-account-token";
pub(crate) const NAME: &str = "kubernetes.io/service-account.name";
pub(crate) const UID: &str = "kubernetes.io/service-account.uid";

/// Makes tokens for service accounts that live as long as the Secret which holds them.
pub trait TokenIssuer: Debug + Send + Sync {
    /// # Errors
    /// Why no token can be made.
    fn issue(&self, namespace: &str, account: &str, account_uid: &str, secret: &str) -> Result<String, String>;
}

pub(crate) fn annotation<'s>(secret: &'s Secret, key: &str) -> &'s str {
    secret.metadata.annotations.as_ref().and_then(|a| a.get(key)).map_or("", String::as_str)
}

#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Nothing,
    /// Its account is gone, or another by now.
    Delete,
    Fill,
}

fn plan(secret: &Secret, account: Option<&ServiceAccount>, root_ca: &str) -> Plan {
    if secret.type_ != TYPE || annotation(secret, NAME).is_empty() || secret.metadata.deletion_timestamp.is_some() {
        return Plan::Nothing;
    }
    let uid = annotation(secret, UID);
    let Some(account) = account.filter(|a| uid.is_empty() || a.metadata.uid.as_deref() == Some(uid)) else {
        return Plan::Delete;
    };
    let has = |key: &str, wanted: Option<&[u8]>| match (secret.data.get(key), wanted) {
        (Some(value), Some(wanted)) => value.0 == wanted,
        (Some(value), None) => !value.0.is_empty(),
        (None, _) => false,
    };
    let namespace = secret.metadata.namespace.as_deref().unwrap_or("");
    let complete = has("token", None)
        && has("namespace", Some(namespace.as_bytes()))
        && (root_ca.is_empty() || has("ca.crt", Some(root_ca.as_bytes())))
        && account.metadata.uid.as_deref() == Some(uid);
    if complete { Plan::Nothing } else { Plan::Fill }
}

pub fn controller(context: &Context) -> Running {
    let client = context.clients.manager();
    let secrets: Informer<Secret> = context.informers.of();
    let accounts: Informer<ServiceAccount> = context.informers.of();
    let queue = Queue::<Key>::named(&context.config.queues, "serviceaccount_tokens_secret");
    secrets.feed(&queue);
    let (q, all) = (queue.clone(), secrets.clone());
    accounts.on_change(move |old, new| {
        let Some(account) = new.or(old) else { return };
        let name = account.metadata.name.as_deref().unwrap_or("");
        for secret in all.in_namespace(account.metadata.namespace.as_deref().unwrap_or("")) {
            if annotation(&secret, NAME) == name {
                q.add(key(secret.as_ref()));
            }
        }
    });
    let (config, shutdown) = (context.config.clone(), context.shutdown.clone());
    async move {
        secrets.synced().await;
        accounts.synced().await;
        let reconcile = |key: Key| {
            let (client, secrets, accounts) = (client.clone(), secrets.clone(), accounts.clone());
            let config = config.clone();
            async move {
                let Some(secret) = secrets.by_key(&key) else {
                    forget(&client, &accounts, &key).await?;
                    return Ok(None::<Duration>);
                };
                let account = accounts.get(&key.namespace, annotation(&secret, NAME));
                match plan(&secret, account.as_deref(), &config.root_ca) {
                    Plan::Nothing => {}
                    Plan::Delete => delete(&client, &secrets, &key, &secret).await?,
                    Plan::Fill => {
                        let (Some(issuer), Some(account)) = (&config.tokens, account) else { return Ok(None) };
                        let uid = account.metadata.uid.clone().unwrap_or_default();
                        let name = account.metadata.name.as_deref().unwrap_or("");
                        let token = match secret.data.get("token").filter(|t| !t.0.is_empty()) {
                            Some(token) => token.clone(),
                            None => ByteString(
                                issuer.issue(&key.namespace, name, &uid, &key.name).map_err(Error::Other)?.into_bytes(),
                            ),
                        };
                        let mut data = json!({"token": token, "namespace": ByteString(key.namespace.clone().into_bytes())});
                        if !config.root_ca.is_empty() {
                            data["ca.crt"] = json!(ByteString(config.root_ca.clone().into_bytes()));
                        }
                        let merge = json!({"metadata": {"uid": secret.metadata.uid,
                            "resourceVersion": secret.metadata.resource_version, "annotations": {UID: uid}}, "data": data});
                        let written = write::update::<Secret>(&client, &key.namespace, &key.name, None, merge).await;
                        if let Some(written) = gone_is_fine(written)? {
                            secrets.assume(written);
                        }
                    }
                }
                Ok(None)
            }
        };
        queue.run("serviceaccount-token", 2, shutdown, reconcile).await;
        Ok(())
    }
    .boxed()
}

async fn delete(client: &Client, secrets: &Informer<Secret>, key: &Key, secret: &Secret) -> Result<(), Error> {
    let uid = secret.metadata.uid.clone();
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: uid.clone(), resource_version: None }),
        ..DeleteParams::default()
    };
    let api: Api<Secret> = Api::namespaced(client.clone(), &key.namespace);
    match gone_is_fine(api.delete(&key.name, &params).await) {
        Err(e) if crate::code(&e) != 409 => return Err(e.into()),
        _ => secrets.assume_deleted(key, uid.as_deref().unwrap_or("")),
    }
    Ok(())
}

/// Takes a Secret that is gone out of the accounts that name it.
async fn forget(client: &Client, accounts: &Informer<ServiceAccount>, gone: &Key) -> Result<(), Error> {
    for account in accounts.in_namespace(&gone.namespace) {
        if !account.secrets.iter().any(|reference| reference.name == gone.name) {
            continue;
        }
        let kept: Vec<_> = account.secrets.iter().filter(|reference| reference.name != gone.name).collect();
        let merge = json!({"metadata": {"uid": account.metadata.uid, "resourceVersion": account.metadata.resource_version},
            "secrets": kept});
        let name = account.metadata.name.as_deref().unwrap_or("");
        let written = write::update::<ServiceAccount>(client, &gone.namespace, name, None, merge).await;
        if let Some(written) = gone_is_fine(written)? {
            accounts.assume(written);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn secret(annotations: Value, data: Value) -> Secret {
        serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "n", "annotations": annotations},
            "type": TYPE, "data": data}))
        .expect("a secret")
    }

    #[test]
    fn a_secret_is_filled_for_its_account_and_goes_with_it() {
        let account: ServiceAccount =
            serde_json::from_value(json!({"metadata": {"name": "a", "uid": "u"}})).expect("an account");
        assert_eq!(plan(&secret(json!({NAME: "a"}), json!({})), Some(&account), "CA"), Plan::Fill);
        assert_eq!(plan(&secret(json!({NAME: "a"}), json!({})), None, "CA"), Plan::Delete);
        assert_eq!(plan(&secret(json!({NAME: "a", UID: "other"}), json!({})), Some(&account), "CA"), Plan::Delete);
        assert_eq!(plan(&secret(json!({}), json!({})), Some(&account), "CA"), Plan::Nothing);
        let full = json!({"token": "dA==", "namespace": "bg==", "ca.crt": "Q0E="});
        assert_eq!(plan(&secret(json!({NAME: "a", UID: "u"}), full.clone()), Some(&account), "CA"), Plan::Nothing);
        assert_eq!(plan(&secret(json!({NAME: "a", UID: "u"}), full), Some(&account), "new"), Plan::Fill);
    }
}
