//! ServiceAccount: every pod has one, its token is projected into the pod's containers, and it limits the secrets used.

use super::{Admission, Attributes, Operation, Sides, walk};
use crate::authz::node::references::{self, Kind, MIRROR};
use crate::lookup::{Lookup, SERVICE_ACCOUNTS};
use api::Status;
use api::features::parse_bool;
use async_trait::async_trait;
use schema::{Map, Value};
use std::sync::Arc;
use std::time::Duration;

const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// Seven seconds more than an hour, by which such tokens are recognised and given a longer life.
const TOKEN_SECONDS: i64 = 3607;
const ENFORCE_SECRETS: &str = "kubernetes.io/enforce-mountable-secrets";

/// What a mirror pod may not refer to; the refusal's words.
pub(super) fn check_mirror(pod: &Map) -> Result<(), String> {
    if !pod.str_at(&["spec", "serviceAccountName"]).is_empty() {
        return Err("a mirror pod may not reference service accounts".into());
    }
    if references::of_any_pod(pod).iter().any(|(kind, _)| *kind == Kind::Secret) {
        return Err("a mirror pod may not reference secrets".into());
    }
    let projects_token = walk::items(pod, &["spec", "volumes"])
        .flat_map(|v| walk::items(v, &["projected", "sources"]))
        .any(|s| s.get("serviceAccountToken").is_some_and(|t| !t.is_null()));
    if projects_token { Err("a mirror pod may not use ServiceAccountToken volume projections".into()) } else { Ok(()) }
}

pub(super) fn is_mirror(pod: &Map) -> bool {
    pod.at(&["metadata", "annotations", MIRROR]).is_some()
}

/// Gives the pod what its service account has: the token's volume and mounts, and the pull secrets.
///
/// `suffix` makes the volume's name unlike any that the pod has.
pub(super) fn apply(pod: &mut Map, account: &Map, suffix: impl FnOnce() -> String) {
    let of = |m: &Map, path: &[&str]| m.at(path).and_then(Value::as_bool);
    let automount =
        of(pod, &["spec", "automountServiceAccountToken"]).or_else(|| of(account, &["automountServiceAccountToken"]));
    if automount.unwrap_or(true) {
        mount_token(pod, suffix);
    }
    let has_pull_secrets =
        pod.at(&["spec", "imagePullSecrets"]).and_then(Value::as_list).is_some_and(|l| !l.is_empty());
    if let (false, Some(Value::List(secrets))) = (has_pull_secrets, account.get("imagePullSecrets"))
        && !secrets.is_empty()
    {
        pod.set_at(&["spec", "imagePullSecrets"], secrets.clone());
    }
}

fn mount_token(pod: &mut Map, suffix: impl FnOnce() -> String) {
    let existing = walk::items(pod, &["spec", "volumes"])
        .map(|v| v.str_at(&["name"]).to_owned())
        .find(|name| name.starts_with(VOLUME_PREFIX));
    let has_volume = existing.is_some();
    let name = existing.unwrap_or_else(|| [VOLUME_PREFIX, &suffix()].concat());
    let mut needed = false;
    for list in ["initContainers", "containers"] {
        for container in walk::items_mut(pod, &["spec", list]) {
            // A mount of the container's own at this path keeps ours away.
            if walk::items(container, &["volumeMounts"]).any(|m| m.str_at(&["mountPath"]) == TOKEN_PATH) {
                continue;
            }
            let mut mount = Map::new();
            mount.insert("name", name.as_str());
            mount.insert("readOnly", true);
            mount.insert("mountPath", TOKEN_PATH);
            if let Some(mounts) = container.entry("volumeMounts", || Value::List(Vec::new())).as_list_mut() {
                mounts.push(mount.into());
                needed = true;
            }
        }
    }
    if !has_volume && needed {
        let spec = pod.entry("spec", || Map::new().into()).as_map_mut();
        let volumes = spec.map(|s| s.entry("volumes", || Value::List(Vec::new())));
        if let Some(volumes) = volumes.and_then(Value::as_list_mut) {
            volumes.push(token_volume(&name).into());
        }
    }
}

/// The projected volume with token, CA and namespace.
fn token_volume(name: &str) -> Map {
    let mut token = Map::new();
    token.set_at(&["serviceAccountToken", "path"], "token");
    token.set_at(&["serviceAccountToken", "expirationSeconds"], TOKEN_SECONDS);
    let mut item = Map::new();
    item.insert("key", "ca.crt");
    item.insert("path", "ca.crt");
    let mut ca = Map::new();
    ca.set_at(&["configMap", "name"], "kube-root-ca.crt");
    ca.set_at(&["configMap", "items"], vec![Value::Map(item)]);
    let mut item = Map::new();
    item.insert("path", "namespace");
    item.set_at(&["fieldRef", "apiVersion"], "v1");
    item.set_at(&["fieldRef", "fieldPath"], "metadata.namespace");
    let mut namespace = Map::new();
    namespace.set_at(&["downwardAPI", "items"], vec![Value::Map(item)]);
    let mut volume = Map::new();
    volume.insert("name", name);
    volume.set_at(&["projected", "defaultMode"], 0o644);
    volume.set_at(&["projected", "sources"], vec![Value::Map(token), Value::Map(ca), Value::Map(namespace)]);
    volume
}

/// Where the account lists its secrets bindingly, refuses a pod that uses another; the refusal's words.
pub(super) fn check_secrets(pod: &Map, account: &Map) -> Result<(), String> {
    let enforced = parse_bool(account.str_at(&["metadata", "annotations", ENFORCE_SECRETS]));
    if enforced != Some(true) {
        return Ok(());
    }
    let owner = account.str_at(&["metadata", "name"]);
    let named = |list: &str, name: &str| walk::items(account, &[list]).any(|s| s.str_at(&["name"]) == name);
    for volume in walk::items(pod, &["spec", "volumes"]) {
        let secret = volume.str_at(&["secret", "secretName"]);
        if !secret.is_empty() && !named("secrets", secret) {
            return Err(format!(
                "volume with secret.secretName={secret:?} is not allowed because service account {owner} does not reference that secret"
            ));
        }
    }
    for (list, what) in [
        ("initContainers", "init container"),
        ("containers", "container"),
        ("ephemeralContainers", "ephemeral container"),
    ] {
        for container in walk::items(pod, &["spec", list]) {
            let name = container.str_at(&["name"]);
            let one = walk::items(container, &["env"]).map(|env| {
                let how = format!("envVar {}", env.str_at(&["name"]));
                (how, env.at(&["valueFrom", "secretKeyRef"]))
            });
            let all = walk::items(container, &["envFrom"]).map(|from| ("envFrom".to_owned(), from.get("secretRef")));
            for (how, reference) in one.chain(all) {
                let Some(secret) = reference.and_then(Value::as_map).map(|r| r.str_at(&["name"])) else { continue };
                if !named("secrets", secret) {
                    return Err(format!(
                        "{what} {name} with {how} referencing secret.secretName={secret:?} is not allowed because service account {owner} does not reference that secret"
                    ));
                }
            }
        }
    }
    for (i, reference) in walk::items(pod, &["spec", "imagePullSecrets"]).enumerate() {
        let secret = reference.str_at(&["name"]);
        if !named("imagePullSecrets", secret) {
            return Err(format!(
                "imagePullSecrets[{i}].name={secret:?} is not allowed because service account {owner} does not reference that imagePullSecret"
            ));
        }
    }
    Ok(())
}

/// How often, and how long apart, the account `default` is looked for: in a new namespace it comes a moment later.
const DEFAULT_TRIES: u32 = 40;
const DEFAULT_PAUSE: Duration = Duration::from_millis(25);

pub struct ServiceAccount {
    pub objects: Arc<dyn Lookup>,
}

impl ServiceAccount {
    async fn find(&self, a: &Attributes<'_>, name: &str) -> Result<Arc<Map>, Status> {
        let tries = if name == "default" { DEFAULT_TRIES } else { 1 };
        for attempt in 1..=tries {
            if let Some(account) = self.objects.find(SERVICE_ACCOUNTS, a.namespace, name).await? {
                return Ok(account);
            }
            if attempt < tries {
                tokio::time::sleep(DEFAULT_PAUSE).await;
            }
        }
        let namespace = a.namespace;
        Err(a.forbidden(format!(
            "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
        )))
    }

    /// What holds of every pod, whoever made it what it is.
    async fn check(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let pod = &*a.object;
        if is_mirror(pod) {
            return check_mirror(pod).map_err(|why| a.forbidden(why));
        }
        let name = pod.str_at(&["spec", "serviceAccountName"]);
        if name.is_empty() {
            let (namespace, pod) = (a.namespace, pod.str_at(&["metadata", "name"]));
            return Err(a.forbidden(format!("no service account specified for pod {namespace}/{pod}")));
        }
        let account = self.find(a, name).await?;
        check_secrets(pod, &account).map_err(|why| a.forbidden(why))
    }
}

#[async_trait]
impl Admission for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn sides(&self) -> Sides {
        Sides::Both
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        if a.operation != Operation::Create || !a.is("", "pods") || is_mirror(a.object) {
            return Ok(());
        }
        if a.object.str_at(&["spec", "serviceAccountName"]).is_empty() {
            a.object.set_at(&["spec", "serviceAccountName"], "default");
        }
        let name = a.object.str_at(&["spec", "serviceAccountName"]).to_owned();
        // The field's old name, which stored pods have too.
        a.object.set_at(&["spec", "serviceAccount"], name.as_str());
        let account = self.find(a, &name).await?;
        apply(a.object, &account, random_suffix);
        Ok(())
    }

    async fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let ephemeral = a.is_subresource("", "pods", "ephemeralcontainers");
        if a.operation == Operation::Create && a.is("", "pods") || ephemeral { self.check(a).await } else { Ok(()) }
    }
}

/// Five random letters of upstream's alphabet for generated names.
fn random_suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut random = uuid::Uuid::new_v4().as_u128();
    let mut letter = || {
        let index = random % ALPHABET.len() as u128;
        random /= ALPHABET.len() as u128;
        char::from(ALPHABET[index as usize])
    };
    (0..5).map(|_| letter()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::map;

    fn account(more: &str) -> Map {
        map(&format!("{{metadata: {{name: default, namespace: d}}, {more}}}"))
    }

    #[test]
    fn a_plain_pod_gets_the_token_volume_and_a_mount_in_each_container() {
        let mut pod = map(
            "{spec: {serviceAccountName: default, initContainers: [{name: i}], containers: [{name: a}, {name: b, volumeMounts: [{name: own, mountPath: /var/run/secrets/kubernetes.io/serviceaccount}]}]}}",
        );
        apply(&mut pod, &account("imagePullSecrets: [{name: pull}]"), || "abcde".into());
        let volumes: Vec<&Map> = walk::items(&pod, &["spec", "volumes"]).collect();
        assert_eq!(volumes.len(), 1);
        assert_eq!(volumes[0].str_at(&["name"]), "kube-api-access-abcde");
        assert_eq!(volumes[0].at(&["projected", "defaultMode"]), Some(&Value::Int(420)));
        let sources: Vec<&Map> = walk::items(volumes[0], &["projected", "sources"]).collect();
        assert_eq!(sources[0].at(&["serviceAccountToken", "expirationSeconds"]), Some(&Value::Int(3607)));
        assert_eq!(sources[1].str_at(&["configMap", "name"]), "kube-root-ca.crt");
        let mounts = |list| -> Vec<usize> {
            walk::items(&pod, &["spec", list])
                .map(|c| {
                    walk::items(c, &["volumeMounts"]).filter(|m| m.str_at(&["name"]).starts_with("kube-api")).count()
                })
                .collect()
        };
        assert_eq!((mounts("initContainers"), mounts("containers")), (vec![1], vec![1, 0]));
        assert_eq!(walk::items(&pod, &["spec", "imagePullSecrets"]).count(), 1);
        let once = pod.clone();
        apply(&mut pod, &account(""), || unreachable!("the name is there already"));
        assert_eq!(pod, once, "a pod that has been through admission is not changed by it again");
    }

    #[test]
    fn a_pod_or_an_account_may_decline_the_token() {
        for (spec, account_says) in [
            ("automountServiceAccountToken: false", "automountServiceAccountToken: true"),
            ("x: y", "automountServiceAccountToken: false"),
        ] {
            let mut pod = map(&format!("{{spec: {{{spec}, containers: [{{name: a}}]}}}}"));
            apply(&mut pod, &account(account_says), || "abcde".into());
            assert!(pod.at(&["spec", "volumes"]).is_none());
        }
    }

    #[test]
    fn listed_secrets_bind_only_where_the_account_says_so() {
        let pod = map("{spec: {containers: [{name: c, env: [{name: E, valueFrom: {secretKeyRef: {name: other}}}]}]}}");
        let mut owner = account("secrets: [{name: own}]");
        assert_eq!(check_secrets(&pod, &owner), Ok(()));
        // As Go reads what is true.
        for (value, bound) in [("1", true), ("t", true), ("True", true), ("true", true), ("yes", false), ("0", false)] {
            owner.set_at(&["metadata", "annotations", ENFORCE_SECRETS], value);
            assert_eq!(check_secrets(&pod, &owner).is_err(), bound, "{value}");
        }
        owner.set_at(&["metadata", "annotations", ENFORCE_SECRETS], "true");
        let refused = |start: &str| {
            Err(format!(
                "{start} referencing secret.secretName=\"other\" is not allowed because service account default does not reference that secret"
            ))
        };
        assert_eq!(check_secrets(&pod, &owner), refused("container c with envVar E"));
        for (list, what) in [
            ("initContainers", "init container"),
            ("containers", "container"),
            ("ephemeralContainers", "ephemeral container"),
        ] {
            let one = |secret: &str| {
                let from = "[{configMapRef: {name: m}}, {secretRef: {name: SECRET}}]".replace("SECRET", secret);
                map(&format!("{{spec: {{{list}: [{{name: c, envFrom: {from}}}]}}}}"))
            };
            assert_eq!(check_secrets(&one("own"), &owner), Ok(()));
            assert_eq!(check_secrets(&one("other"), &owner), refused(&format!("{what} c with envFrom")));
        }
    }

    #[test]
    fn mirror_pods_refer_to_nothing() {
        let mut pod = map(
            "{metadata: {annotations: {kubernetes.io/config.mirror: x}}, spec: {volumes: [{secret: {secretName: s}}]}}",
        );
        assert!(is_mirror(&pod));
        assert_eq!(check_mirror(&pod), Err("a mirror pod may not reference secrets".into()));
        pod.set_at(&["spec", "volumes"], Vec::new());
        assert_eq!(check_mirror(&pod), Ok(()));
    }
}
