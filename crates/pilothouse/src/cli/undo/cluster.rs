//! A cluster as its API server shows it: kinds by the names people use, objects now and at a moment.

use anyhow::{Context, Result, bail};
use http::{Method, Request};
use kube::Client;
use kube::core::Status;
use serde_json::Value;
use std::collections::BTreeMap;

/// Objects of one page of a list.
const PAGE: usize = 500;
const DISCOVERY: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
/// What is read or written of no namespace: Leases and Events have no past.
const WITHOUT_PAST: [(&str, &str); 3] =
    [("coordination.k8s.io", "leases"), ("", "events"), ("events.k8s.io", "events")];

/// A kind in the version that its server prefers.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    pub group: String,
    pub version: String,
    pub plural: String,
    pub singular: String,
    pub kind: String,
    pub short: Vec<String>,
    pub namespaced: bool,
    pub verbs: Vec<String>,
}

/// An object and its kind.
pub type Found = (Kind, String, Value);
/// A kind, a name, and the object at two moments.
pub type Pair = (Kind, String, Option<Value>, Option<Value>);

impl Kind {
    /// `deployments.apps/NAME`, as kubectl says it.
    pub fn title(&self, name: &str) -> String {
        match self.group.as_str() {
            "" => format!("{}/{name}", self.singular),
            group => format!("{}.{group}/{name}", self.singular),
        }
    }

    /// Whether people call it so: any of its names, alone or with group, or with version and group.
    fn is_called(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        let (own, rest) = name.split_once('.').unwrap_or((&name, ""));
        let named = own == self.plural || own == self.singular || own == self.kind.to_lowercase();
        let qualified = rest == self.group || rest.split_once('.') == Some((&self.version, &self.group));
        (named && (rest.is_empty() || qualified)) || (rest.is_empty() && self.short.iter().any(|short| short == own))
    }

    fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|own| own == verb)
    }

    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }

    /// The path of its objects.
    fn path(&self, namespace: &str) -> String {
        let base = match self.group.as_str() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        match self.namespaced {
            true => format!("{base}/namespaces/{namespace}/{}", self.plural),
            false => format!("{base}/{}", self.plural),
        }
    }
}

/// What the server refused, told in its words alone.
#[derive(Debug)]
pub struct Refusal(Box<Status>);

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Refusal {}

/// The code of a refusal by the server.
pub fn refused(error: &anyhow::Error) -> Option<u16> {
    error.downcast_ref::<Refusal>().map(|refusal| refusal.0.code)
}

/// A kind whose objects are not told.
#[derive(Debug)]
pub struct LeftOut {
    pub kind: Kind,
    pub why: String,
    /// They may be listed, but the server cannot read one of them.
    pub unread: bool,
}

/// The objects of a namespace and the namespace.
#[derive(Debug, Default)]
pub struct Everything {
    /// The resource version of which they are.
    pub revision: String,
    pub found: Vec<Found>,
    pub left_out: Vec<LeftOut>,
}

/// The way to an API server, and the kinds that it serves.
pub struct Cluster {
    client: Client,
    pub namespace: String,
    kinds: Vec<Kind>,
}

impl Cluster {
    /// Asks for the kinds that are served.
    pub async fn open(client: Client, namespace: String) -> Result<Self> {
        let mut cluster = Self { client, namespace, kinds: Vec::new() };
        for root in ["/api", "/apis"] {
            let request = Request::get(root).header(http::header::ACCEPT, DISCOVERY).body(Vec::new())?;
            let found = cluster.client.request(request).await.context("the API server does not tell what it serves")?;
            cluster.kinds.extend(discovered(&found));
        }
        Ok(cluster)
    }

    /// A kind by one of its names.
    pub fn kind(&self, name: &str) -> Result<Kind> {
        let kind = self.kinds.iter().find(|kind| kind.is_called(name));
        kind.cloned().with_context(|| format!("the server doesn't have a resource type {name:?}"))
    }

    /// The kind that an owner reference names.
    fn kind_of(&self, api_version: &str, kind: &str) -> Option<&Kind> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        self.kinds.iter().find(|own| own.group == group && own.kind == kind)
    }

    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let request = Request::builder().method(method).uri(path);
        let request = request.header(http::header::CONTENT_TYPE, "application/json");
        let body = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        match self.client.request(request.body(body)?).await {
            Ok(answer) => Ok(answer),
            Err(kube::Error::Api(status)) => Err(Refusal(status).into()),
            Err(error) => Err(error.into()),
        }
    }

    /// The path of objects of a kind in this namespace.
    pub fn path(&self, kind: &Kind) -> String {
        kind.path(&self.namespace)
    }

    /// An object at a moment (`None`: now); `None` when there was none.
    pub async fn get(&self, kind: &Kind, name: &str, moment: &Option<String>) -> Result<Option<Value>> {
        let path = format!("{}{}/{name}", view(moment), self.path(kind));
        match self.ask(Method::GET, &path, None).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if refused(&error) == Some(404) => Ok(None),
            Err(error) => Err(error.context(kind.title(name))),
        }
    }

    /// The objects of a kind at a moment, and the resource version of which they are.
    async fn list(&self, kind: &Kind, moment: &Option<String>) -> Result<(String, Vec<Value>)> {
        let mut objects = Vec::new();
        let mut token = String::new();
        loop {
            let path = format!("{}{}?limit={PAGE}&continue={token}", view(moment), self.path(kind));
            let mut list = self.ask(Method::GET, &path, None).await.with_context(|| kind.plural.clone())?;
            if let Some(items) = list["items"].as_array_mut() {
                // Items of a list do not say what they are.
                objects.extend(items.drain(..).map(|mut item| {
                    item["apiVersion"] = match kind.group.as_str() {
                        "" => kind.version.clone(),
                        group => format!("{group}/{}", kind.version),
                    }
                    .into();
                    item["kind"] = kind.kind.clone().into();
                    item
                }));
            }
            token = list["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
            if token.is_empty() {
                return Ok((text(&list["metadata"]["resourceVersion"]).to_owned(), objects));
            }
        }
    }

    /// The namespace and all its objects at a moment, as far as they may be listed and can be read; of the past they are of one
    /// state.
    pub async fn everything(&self, moment: &Option<String>) -> Result<Everything> {
        let namespaces = self.kind("namespaces")?;
        let Everything { mut revision, mut found, mut left_out } = Everything::default();
        let mut moment = moment.clone();
        let with_past = |kind: &&Kind| !WITHOUT_PAST.iter().any(|(group, plural)| kind.is(group, plural));
        let wanted = self.kinds.iter().filter(|kind| kind.namespaced && kind.can("list") && kind.can("get"));
        for kind in wanted.filter(with_past) {
            let (version, objects) = match self.list(kind, &moment).await {
                Ok(listed) => listed,
                // One object that is sealed with a lost key is no reason to tell nothing of all others.
                Err(error) if matches!(refused(&error), Some(403 | 500)) => {
                    tracing::warn!("left out: {error:#}");
                    let (why, unread) = (error.root_cause().to_string(), refused(&error) == Some(500));
                    left_out.push(LeftOut { kind: kind.clone(), why, unread });
                    continue;
                }
                Err(error) => return Err(error),
            };
            if revision.is_empty() {
                revision = version;
                moment = moment.map(|_| revision.clone());
            }
            found.extend(objects.into_iter().map(|object| {
                let name = text(&object["metadata"]["name"]).to_owned();
                (kind.clone(), name, object)
            }));
        }
        if let Some(namespace) = self.get(&namespaces, &self.namespace, &moment).await? {
            found.push((namespaces, self.namespace.clone(), namespace));
        }
        Ok(Everything { revision, found, left_out })
    }

    /// The versions of an object, newest first.
    pub async fn history(&self, kind: &Kind, name: &str, limit: usize) -> Result<Vec<Value>> {
        let mut versions = Vec::new();
        let mut token = String::new();
        loop {
            let left = if limit == 0 { PAGE } else { (limit - versions.len()).min(PAGE) };
            let path = format!("/history{}/{name}?limit={left}&continue={token}", self.path(kind));
            let mut page = self.ask(Method::GET, &path, None).await.with_context(|| kind.title(name))?;
            if page["kind"] != "ObjectHistory" {
                bail!("this API server does not tell the history of objects");
            }
            let items = page["versions"].as_array_mut().map(std::mem::take).unwrap_or_default();
            versions.extend(items);
            token = text(&page["metadata"]["continue"]).to_owned();
            if token.is_empty() || versions.len() == limit {
                return Ok(versions);
            }
        }
    }

    /// Whether the object that an owner reference names is there.
    pub async fn is_there(&self, owner: &Value) -> Result<bool> {
        let Some(kind) = self.kind_of(text(&owner["apiVersion"]), text(&owner["kind"])) else { return Ok(false) };
        let found = self.get(kind, text(&owner["name"]), &None).await?;
        Ok(found.is_some_and(|found| found["metadata"]["uid"] == owner["uid"]))
    }
}

/// The beginning of paths at a moment.
fn view(moment: &Option<String>) -> String {
    moment.as_ref().map_or_else(String::new, |moment| format!("/at/{moment}"))
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The kinds of a discovery document, each once, in the order in which the server prefers them.
fn discovered(document: &Value) -> Vec<Kind> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let texts = |value: &Value| list(value).iter().map(|item| text(item).to_owned()).collect::<Vec<_>>();
    let mut kinds: Vec<Kind> = Vec::new();
    for group in list(&document["items"]) {
        for version in list(&group["versions"]) {
            for resource in list(&version["resources"]) {
                let kind = Kind {
                    group: text(&group["metadata"]["name"]).to_owned(),
                    version: text(&version["version"]).to_owned(),
                    plural: text(&resource["resource"]).to_owned(),
                    singular: text(&resource["singularResource"]).to_owned(),
                    kind: text(&resource["responseKind"]["kind"]).to_owned(),
                    short: texts(&resource["shortNames"]),
                    namespaced: resource["scope"] == "Namespaced",
                    verbs: texts(&resource["verbs"]),
                };
                if !kinds.iter().any(|known| known.is(&kind.group, &kind.plural)) {
                    kinds.push(kind);
                }
            }
        }
    }
    kinds
}

/// Puts the objects of two moments together. A kind that is left out at one of them is so altogether: its objects are not absent.
pub fn paired(before: Everything, after: Everything) -> (Vec<Pair>, Vec<LeftOut>) {
    let mut left_out = before.left_out;
    for one in after.left_out {
        if !left_out.iter().any(|known| known.kind == one.kind) {
            left_out.push(one);
        }
    }
    let told = |kind: &Kind| !left_out.iter().any(|one| one.kind == *kind);
    let mut pairs: BTreeMap<(Kind, String), (Option<Value>, Option<Value>)> = BTreeMap::new();
    for (kind, name, object) in before.found.into_iter().filter(|(kind, ..)| told(kind)) {
        pairs.entry((kind, name)).or_default().0 = Some(object);
    }
    for (kind, name, object) in after.found.into_iter().filter(|(kind, ..)| told(kind)) {
        pairs.entry((kind, name)).or_default().1 = Some(object);
    }
    let pairs = pairs.into_iter().map(|((kind, name), (before, after))| (kind, name, before, after)).collect();
    (pairs, left_out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kinds_are_found_by_the_names_people_use() {
        let resource = |plural: &str, singular: &str, kind: &str, short: &[&str]| {
            json!({"resource": plural, "singularResource": singular, "responseKind": {"kind": kind}, "shortNames": short,
                   "scope": "Namespaced", "verbs": ["get", "list"]})
        };
        let document = json!({"items": [
            {"metadata": {"name": "apps"}, "versions": [
                {"version": "v1", "resources": [resource("deployments", "deployment", "Deployment", &["deploy"])]},
                {"version": "v1beta1", "resources": [resource("deployments", "deployment", "Deployment", &["deploy"])]}]},
            {"metadata": {"name": "other.io"}, "versions": [
                {"version": "v2", "resources": [resource("deployments", "deployment", "Deployment", &[])]}]}]});
        let kinds = discovered(&document);
        assert_eq!(kinds.len(), 2);
        for name in ["deploy", "deployment", "deployments", "Deployment", "deployments.apps", "deployment.v1.apps"] {
            assert_eq!(kinds.iter().find(|kind| kind.is_called(name)).map(|kind| &*kind.group), Some("apps"), "{name}");
        }
        assert_eq!(kinds.iter().find(|kind| kind.is_called("deployments.other.io")), Some(&kinds[1]));
        assert_eq!(kinds.iter().find(|kind| kind.is_called("deployments.v1.other.io")), None);
        assert_eq!(kinds[0].title("web"), "deployment.apps/web");
    }

    /// What is made of an object that is there and was not is its deletion.
    #[test]
    fn what_is_left_out_at_one_moment_is_not_absent_then() {
        let kind = |plural: &str| Kind { plural: plural.to_owned(), ..Kind::default() };
        let found = |plural: &str, name: &str| (kind(plural), name.to_owned(), json!({}));
        let unread = |plural: &str| LeftOut { kind: kind(plural), why: "sealed".to_owned(), unread: true };
        let all = || vec![found("configmaps", "a"), found("secrets", "s")];
        let past = Everything {
            found: vec![found("configmaps", "a")],
            left_out: vec![unread("secrets")],
            ..Default::default()
        };
        let present = Everything { found: all(), ..Default::default() };
        let (pairs, left_out) = paired(past, present);
        assert_eq!(pairs, [(kind("configmaps"), "a".to_owned(), Some(json!({})), Some(json!({})))]);
        assert_eq!((left_out.len(), &*left_out[0].kind.plural), (1, "secrets"));
        let both = Everything { left_out: vec![unread("secrets")], ..Default::default() };
        let (pairs, left_out) = paired(Everything { found: all(), ..Default::default() }, both);
        assert_eq!((pairs.len(), left_out.len()), (1, 1));
    }
}
