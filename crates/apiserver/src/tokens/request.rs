//! `serviceaccounts/token`: asks for a token.

use super::Tokens;
use super::jwt::{Claims, KubernetesClaims, ObjectRef};
use crate::context::Context;
use crate::lookup::{NODES, PODS, SECRETS, SERVICE_ACCOUNTS, Stored};
use crate::options::Options;
use crate::registry::{Subresource, Target};
use api::{FieldError, GroupKind, GroupResource, Path, Status};
use async_trait::async_trait;
use jiff::Timestamp;
use schema::{Map, Value};
use std::sync::Arc;

const DEFAULT_SECONDS: i64 = 3600;
const LEAST_SECONDS: i64 = 600;
/// What the automatic mount asks for; such a token may be given a longer life.
const MOUNT_SECONDS: i64 = 3607;
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;

/// The subresource.
pub struct TokenRequest {
    pub tokens: Arc<Tokens>,
    /// Whether a request for the account of another uid is refused, rather than warned of.
    pub checks_uid: bool,
}

fn kind() -> GroupKind {
    GroupKind::new("authentication.k8s.io", "TokenRequest")
}

/// What the token is to be bound to, as it is stored.
#[derive(Default)]
struct Bound {
    pod: Option<Arc<Map>>,
    secret: Option<Arc<Map>>,
    node: Option<ObjectRef>,
}

fn reference(object: &Map) -> ObjectRef {
    let text = |key| object.str_at(&["metadata", key]).to_owned();
    ObjectRef { name: text("name"), uid: text("uid") }
}

/// Whether the request is for the account of its place.
fn belongs(request: &Map, account: &str, namespace: &str) -> Result<(), Status> {
    let metadata = Path::root("metadata");
    for (key, wanted, what) in [("name", account, "name"), ("namespace", namespace, "namespace")] {
        let given = request.str_at(&["metadata", key]);
        if !given.is_empty() && given != wanted {
            let why = format!("must match the service account {what} if specified");
            let error = FieldError::invalid(&metadata.child(key), given, why);
            return Err(Status::invalid(&kind(), account, &[error]));
        }
    }
    Ok(())
}

fn validate(request: &Map) -> Result<(), Status> {
    let mut errors = Vec::new();
    let seconds = seconds(request);
    let path = Path::root("spec");
    let path = path.child("expirationSeconds");
    if seconds < LEAST_SECONDS {
        errors.push(FieldError::invalid(&path, seconds, "may not specify a duration less than 10 minutes"));
    }
    if seconds > 1 << 32 {
        errors.push(FieldError::invalid(&path, seconds, "may not specify a duration larger than 2^32 seconds"));
    }
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(&kind(), "", &errors)) }
}

fn seconds(request: &Map) -> i64 {
    request.at(&["spec", "expirationSeconds"]).and_then(Value::as_i64).unwrap_or(DEFAULT_SECONDS)
}

fn audiences(request: &Map) -> Vec<String> {
    let list = request.at(&["spec", "audiences"]).and_then(Value::as_list).unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

impl TokenRequest {
    async fn get(&self, kind: Stored, namespace: &str, name: &str) -> Result<Arc<Map>, Status> {
        let found = self.tokens.objects.find(kind, namespace, name).await?;
        found.ok_or_else(|| Status::not_found(&GroupResource::new(kind.group, kind.plural), name))
    }

    /// Whether the request is for this account rather than for one that had its name, and notes for which it is.
    fn check_uid(&self, cx: &Context, request: &mut Map, account: &Map) -> Result<(), Status> {
        let (asked, uid) = (request.str_at(&["metadata", "uid"]), account.str_at(&["metadata", "uid"]));
        if asked.is_empty() {
            request.set_at(&["metadata", "uid"], uid);
            return Ok(());
        }
        if asked == uid {
            return Ok(());
        }
        let why =
            format!("the UID in the token request ({asked}) does not match the UID of the service account ({uid})");
        if self.checks_uid {
            let resource = GroupResource::new("authentication.k8s.io", "TokenRequest");
            return Err(Status::conflict(&resource, account.str_at(&["metadata", "name"]), why));
        }
        cx.annotate("authentication.k8s.io/token-request-uid-mismatch", why.as_str());
        cx.warn(format!(
            "{why} but TokenRequestServiceAccountUIDValidation is not enabled. In the future, this will return a conflict error"
        ));
        Ok(())
    }

    /// Looks up what the request binds to.
    async fn bound(&self, namespace: &str, account: &str, request: &Map) -> Result<Bound, Status> {
        let mut bound = Bound::default();
        let Some(asked) = request.at(&["spec", "boundObjectRef"]).and_then(Value::as_map) else { return Ok(bound) };
        let text = |key| asked.str_at(&[key]);
        let name = text("name");
        // Whatever version of it is named.
        let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
        let found = match (group, text("kind")) {
            ("", "Pod") => {
                let pod = self.get(PODS, namespace, name).await?;
                if pod.str_at(&["spec", "serviceAccountName"]) != account {
                    return Err(Status::bad_request(format!(
                        "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                    )));
                }
                let node = pod.str_at(&["spec", "nodeName"]);
                if !node.is_empty() {
                    let stored = self.tokens.objects.find(NODES, "", node).await?;
                    // A node that is gone leaves its name, for what it is worth.
                    let nameless = || ObjectRef { name: node.to_owned(), uid: String::new() };
                    bound.node = Some(stored.map_or_else(nameless, |n| reference(&n)));
                }
                bound.pod.insert(pod).clone()
            }
            ("", "Secret") => bound.secret.insert(self.get(SECRETS, namespace, name).await?).clone(),
            ("", "Node") => {
                let node = self.get(NODES, "", name).await?;
                bound.node = Some(reference(&node));
                node
            }
            (group, kind) => {
                return Err(Status::bad_request(format!(
                    "cannot bind token to object of type {group}/{version}, Kind={kind}"
                )));
            }
        };
        let (wanted, uid) = (text("uid"), found.str_at(&["metadata", "uid"]));
        if !wanted.is_empty() && wanted != uid {
            let resource = GroupResource::new("", text("kind").to_owned());
            let why = format!(
                "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been deleted and then recreated"
            );
            return Err(Status::conflict(&resource, name, why));
        }
        Ok(bound)
    }

    /// How long the token is good, and when its use should be noted; seconds.
    fn life(&self, asked: i64, bound: &Bound, audiences: &[String]) -> (i64, Option<i64>) {
        let own = audiences.iter().all(|a| self.tokens.audiences.contains(a));
        if self.tokens.settings.extend && bound.pod.is_some() && asked == MOUNT_SECONDS && own {
            (EXTENDED_SECONDS, Some(asked))
        } else {
            (asked, None)
        }
    }
}

#[async_trait]
impl Subresource for TokenRequest {
    async fn create(&self, cx: &Context, target: &Target, mut request: Map, _options: &Options) -> Result<Map, Status> {
        let (namespace, name) = (target.namespace.as_str(), target.name.as_str());
        belongs(&request, name, namespace)?;
        let account = self.get(SERVICE_ACCOUNTS, namespace, name).await?;
        self.check_uid(cx, &mut request, &account)?;
        validate(&request)?;
        let mut audiences = audiences(&request);
        if audiences.is_empty() {
            audiences.clone_from(&self.tokens.audiences);
        }
        let bound = self.bound(namespace, name, &request).await?;
        let mut asked = seconds(&request);
        if let Some(most) = self.tokens.settings.max_seconds.filter(|most| *most > 0 && asked > *most) {
            cx.warn(format!("requested expiration of {asked} seconds shortened to {most} seconds"));
            asked = most;
        }
        let (life, warn_after) = self.life(asked, &bound, &audiences);
        let now = cx.now.as_second();
        let claims = Claims {
            aud: audiences.clone(),
            exp: now + life,
            iat: now,
            iss: self.tokens.issuer().to_owned(),
            jti: uuid::Uuid::new_v4().to_string(),
            kubernetes: KubernetesClaims {
                namespace: namespace.to_owned(),
                node: bound.node.clone(),
                pod: bound.pod.as_deref().map(reference),
                secret: bound.secret.as_deref().map(reference),
                serviceaccount: reference(&account),
                warnafter: warn_after.map(|after| now + after),
            },
            nbf: now,
            sub: format!("system:serviceaccount:{namespace}:{name}"),
        };
        let token =
            self.tokens.sign(&claims).map_err(|e| Status::internal(format!("failed to generate token: {e}")))?;
        cx.annotate("authentication.kubernetes.io/issued-credential-id", format!("JTI={}", claims.jti));
        let until = Timestamp::from_second(now + asked).map_err(Status::internal)?;
        request.set_at(&["metadata", "name"], name);
        request.set_at(&["metadata", "namespace"], namespace);
        request.set_at(&["metadata", "creationTimestamp"], shown(cx.now));
        request.set_at(&["spec", "audiences"], audiences.iter().map(|a| Value::from(a.as_str())).collect::<Vec<_>>());
        request.set_at(&["spec", "expirationSeconds"], asked);
        let mut status = Map::new();
        status.insert("token", token);
        status.insert("expirationTimestamp", shown(until));
        request.insert("status", status);
        Ok(request)
    }
}

/// A time as objects carry it.
fn shown(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
