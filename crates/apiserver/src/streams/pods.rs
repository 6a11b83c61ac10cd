//! `pods/log`, `pods/exec`, `pods/attach`, `pods/portforward`: what the kubelet of the pod's node answers.

use super::forward::{forward, wants_upgrade};
use super::kubelet::Kubelets;
use super::query::{self, Query, Writer};
use crate::admission::walk;
use crate::authz::{self, Attributes, Authorizer};
use crate::context::Context;
use crate::http::{Body, Request, Response};
use crate::lookup::{Lookup, PODS};
use crate::registry::{Registry, Subresource, Target};
use api::{GroupResource, Reason, Status};
use async_trait::async_trait;
use http::Method;
use http_body_util::{BodyExt as _, Limited};
use schema::{Map, Value};
use std::sync::{Arc, Weak};

/// What the streams of pods work with.
#[derive(Clone)]
pub struct PodStreams {
    pub objects: Arc<dyn Lookup>,
    pub kubelets: Arc<Kubelets>,
    pub authorizer: Arc<dyn Authorizer>,
    pub registry: Weak<Registry>,
    /// Whether who upgrades a GET must be allowed to create.
    pub upgrades_create: bool,
    /// Whether one stream of a log may be asked for.
    pub splits_logs: bool,
}

/// One of the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Log,
    Exec,
    Attach,
    PortForward,
}

/// The subresource of a kind of stream.
pub struct PodStream {
    pub kind: Kind,
    pub streams: PodStreams,
}

/// What a kubelet says of an error is read up to here.
const ERROR_LIMIT: usize = 2048;

/// The container that a request is about.
///
/// # Errors
/// 400 in upstream's words: several to choose from, or none of that name.
pub(crate) fn container_of(pod: &Map, asked: &str) -> Result<String, Status> {
    let name = pod.str_at(&["metadata", "name"]);
    let names = |list: &str| -> Vec<String> {
        walk::items(pod, &["spec", list]).map(|c| c.str_at(&["name"]).to_owned()).collect()
    };
    if !asked.is_empty() {
        let known = ["containers", "initContainers", "ephemeralContainers"]
            .into_iter()
            .any(|list| names(list).iter().any(|n| n == asked));
        let unknown = || Status::bad_request(format!("container {asked} is not valid for pod {name}"));
        return if known { Ok(asked.to_owned()) } else { Err(unknown()) };
    }
    match names("containers").as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Status::bad_request(format!("a container name must be specified for pod {name}"))),
        _ => {
            let all: Vec<String> = ["initContainers", "containers", "ephemeralContainers"].map(names).concat();
            let all = all.join(" ");
            Err(Status::bad_request(format!(
                "a container name must be specified for pod {name}, choose one of: [{all}]"
            )))
        }
    }
}

impl PodStreams {
    async fn pod(&self, target: &Target) -> Result<Arc<Map>, Status> {
        let found = self.objects.find(PODS, &target.namespace, &target.name).await?;
        found.ok_or_else(|| Status::not_found(&GroupResource::new("", "pods"), &target.name))
    }

    /// A WebSocket begins with a GET, but what it does is a create.
    async fn may_create(&self, cx: &Context, target: &Target) -> Result<(), Status> {
        let attributes = Attributes {
            user: &cx.user,
            verb: "create",
            is_resource: true,
            group: "",
            version: "v1",
            resource: "pods",
            subresource: &target.subresource,
            namespace: &target.namespace,
            name: &target.name,
            path: "",
            label_selector: "",
            field_selector: "",
        };
        let decision = self.authorizer.authorize(&attributes).await;
        if decision.allowed() { Ok(()) } else { Err(authz::forbidden(&attributes, decision.reason())) }
    }

    async fn log(&self, target: &Target, request: Request) -> Result<Response<Body>, Status> {
        let asked = Query::parse(request.uri().query().unwrap_or_default());
        let options = query::log(&asked, &target.name, self.splits_logs)?;
        let pod = self.pod(target).await?;
        let container = container_of(&pod, asked.first("container").unwrap_or_default())?;
        let node = pod.str_at(&["spec", "nodeName"]);
        if node.is_empty() {
            let mut nothing = Response::new(Body::empty());
            *nothing.status_mut() = http::StatusCode::NO_CONTENT;
            return Ok(nothing);
        }
        let kubelet = self.kubelets.of(node, asked.flag("insecureSkipTLSVerifyBackend")).await?;
        let path = options.behind(format!("/containerLogs/{}/{}/{container}", target.namespace, target.name));
        let answer = forward(&kubelet, bare(request)?, &path).await;
        let answer = answer.map_err(|e| unreachable_kubelet(&kubelet, &path, &e))?;
        if !answer.status().is_success() {
            return Err(refusal(answer, target).await);
        }
        let mut response = Response::new(answer.into_body());
        response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
        Ok(response)
    }

    async fn interactive(
        &self,
        cx: &Context,
        kind: Kind,
        target: &Target,
        request: Request,
    ) -> Result<Response<Body>, Status> {
        if self.upgrades_create && request.method() == Method::GET {
            self.may_create(cx, target).await?;
        }
        let asked = Query::parse(request.uri().query().unwrap_or_default());
        let pod = self.pod(target).await?;
        let place = format!("{}/{}", target.namespace, target.name);
        let (options, path) = if kind == Kind::PortForward {
            let (options, query) = ports(&asked)?;
            (options, query.behind(format!("/portForward/{place}")))
        } else {
            let container = container_of(&pod, asked.first("container").unwrap_or_default())?;
            let (verb, name) =
                if kind == Kind::Exec { ("exec", "PodExecOptions") } else { ("attach", "PodAttachOptions") };
            let (options, query) = query::remote_command(&asked, name, &container);
            (options, query.behind(format!("/{verb}/{place}/{container}")))
        };
        let registry =
            self.registry.upgrade().ok_or_else(|| Status::service_unavailable("the server is shutting down"))?;
        registry.admit_connect(cx, target, options).await?;
        let node = pod.str_at(&["spec", "nodeName"]);
        if node.is_empty() {
            return Err(Status::bad_request(format!("pod {} does not have a host assigned", target.name)));
        }
        if !wants_upgrade(request.headers()) {
            return Err(Status::bad_request("Upgrade request required"));
        }
        let kubelet = self.kubelets.of(node, false).await?;
        let answer = forward(&kubelet, request, &path).await;
        answer.map_err(|e| Status::new(500, Reason::Unknown, format!("error dialing backend: {e}")))
    }
}

/// The options of a port-forward: WebSockets name their ports in the query.
fn ports(asked: &Query) -> Result<(Map, Writer), Status> {
    let mut ports: Vec<i64> = Vec::new();
    for text in asked.all("ports").flat_map(|list| list.split(',')).filter(|t| !t.is_empty()) {
        let bad = || Status::bad_request(format!("unable to parse {:?} as a port", text));
        ports.push(text.parse::<u16>().map(i64::from).map_err(|_| bad())?);
    }
    let (mut object, mut out) = (Map::new(), Writer::default());
    object.insert("apiVersion", "v1");
    object.insert("kind", "PodPortForwardOptions");
    if !ports.is_empty() {
        let list: Vec<String> = ports.iter().map(i64::to_string).collect();
        out.add("port", &list.join(","));
        object.insert("ports", ports.into_iter().map(Value::Int).collect::<Vec<_>>());
    }
    Ok((object, out))
}

/// The request without what only its own server should see.
fn bare(request: Request) -> Result<Request, Status> {
    let accept = request.headers().get(http::header::ACCEPT_ENCODING).cloned();
    let mut out = http::Request::builder().method(Method::GET);
    if let Some(accept) = accept {
        out = out.header(http::header::ACCEPT_ENCODING, accept);
    }
    out.body(http_body_util::combinators::UnsyncBoxBody::default()).map_err(Status::internal)
}

fn unreachable_kubelet(kubelet: &super::kubelet::Endpoint, path: &str, error: &super::forward::ForwardError) -> Status {
    Status::new(500, Reason::Unknown, format!("Get \"https://{}{path}\": {error}", kubelet.address))
}

/// What a kubelet's refusal is to the client, as upstream translates it.
async fn refusal(answer: Response<Body>, target: &Target) -> Status {
    let code = answer.status().as_u16();
    let text = match Limited::new(answer.into_body(), ERROR_LIMIT).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        Err(_) => String::new(),
    };
    match code {
        500 => Status::internal(text),
        400 => Status::bad_request(text),
        404 => {
            let mut status = Status::new(
                404,
                Reason::NotFound,
                format!(
                    "the server could not find the requested resource ( pods/{} {})",
                    target.subresource, target.name
                ),
            );
            let details = status.details_mut();
            details.name.clone_from(&target.name);
            details.kind = format!("pods/{}", target.subresource);
            details.causes.push(api::Cause {
                reason: "UnexpectedServerResponse".into(),
                message: text,
                ..api::Cause::default()
            });
            status
        }
        code => Status::new(code, Reason::Unknown, text),
    }
}

#[async_trait]
impl Subresource for PodStream {
    fn connects(&self) -> bool {
        true
    }

    async fn connect(&self, cx: &Context, target: &Target, request: Request) -> Result<Response<Body>, Status> {
        match (self.kind, request.method()) {
            (Kind::Log, &Method::GET | &Method::HEAD) => self.streams.log(target, request).await,
            (Kind::Log, method) => Err(target.unsupported(method.as_str())),
            (kind, &Method::GET | &Method::POST) => self.streams.interactive(cx, kind, target, request).await,
            (_, method) => Err(target.unsupported(method.as_str())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::map;

    #[test]
    fn one_container_needs_no_name_and_several_do() {
        let one = map("{metadata: {name: p}, spec: {containers: [{name: c}], ephemeralContainers: [{name: debug}]}}");
        assert_eq!(container_of(&one, "").as_deref().ok(), Some("c"));
        assert_eq!(container_of(&one, "debug").as_deref().ok(), Some("debug"));
        assert_eq!(container_of(&one, "x").expect_err("unknown").message, "container x is not valid for pod p");
        let several = map(
            "{metadata: {name: p}, spec: {containers: [{name: a}, {name: b}], initContainers: [{name: i}], ephemeralContainers: [{name: d}]}}",
        );
        assert_eq!(
            container_of(&several, "").expect_err("ambiguous").message,
            "a container name must be specified for pod p, choose one of: [i a b d]"
        );
    }

    #[test]
    fn ports_come_in_lists_or_one_by_one() {
        let (object, query) = ports(&Query::parse("ports=80&ports=81,82")).expect("ports");
        assert_eq!(query.behind("/p".into()), "/p?port=80%2C81%2C82");
        assert_eq!(object.get("ports").and_then(Value::as_list).map(<[Value]>::len), Some(3));
        assert_eq!(ports(&Query::parse("ports=http")).err().map(|s| s.code), Some(400));
    }
}
