//! Exec, attach and port-forward: the runtime serves them, and the node API passes the bytes
//! through, whatever protocol client and runtime speak with each other.

use std::sync::Arc;

use cri::v1;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, combinators::BoxBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Body, Query, full, text};
use crate::{kubelet::Shared, pod::view::Snapshot, rpc, spec::PodExt};

/// What a WebSocket speaks that carries SPDY: there, each stream names its port.
const TUNNEL_PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";

/// Which streams are wanted; both spellings of their names are in use.
struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

impl Wanted {
    fn of(query: &Query) -> Result<Self, Box<Response<Body>>> {
        let tty = query.flag("tty");
        let wanted = Self {
            stdin: query.flag("input") || query.flag("stdin"),
            stdout: query.flag("output") || query.flag("stdout"),
            // With a terminal there is only one output.
            stderr: !tty && (query.flag("error") || query.flag("stderr")),
            tty,
        };
        if wanted.stdin || wanted.stdout || wanted.stderr {
            return Ok(wanted);
        }
        let why = "you must specify at least 1 of stdin, stdout, stderr";
        Err(Box::new(text(StatusCode::BAD_REQUEST, why)))
    }
}

fn find(shared: &Shared, namespace: &str, pod: &str) -> Result<Snapshot, Box<Response<Body>>> {
    shared.pods.by_name(namespace, pod).ok_or_else(|| Box::new(text(StatusCode::NOT_FOUND, "pod does not exist")))
}

/// The id of a container that runs; one that has ended is not found either.
fn running(snapshot: &Snapshot, container: &str) -> Option<String> {
    snapshot.observed.container(container).filter(|found| found.is_running()).map(|found| found.id.clone())
}

fn not_found(container: &str) -> Response<Body> {
    text(StatusCode::INTERNAL_SERVER_ERROR, format!("container not found ({})", api::field::go_quote(container)))
}

/// Whether a request opens a WebSocket whose messages are the bytes of ports, and not a tunnel for SPDY.
fn is_port_socket(request: &Request<Incoming>) -> bool {
    let has = |name: header::HeaderName, wanted: &str| {
        let values = request.headers().get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(wanted))
    };
    has(header::CONNECTION, "upgrade")
        && has(header::UPGRADE, "websocket")
        && !has(header::SEC_WEBSOCKET_PROTOCOL, TUNNEL_PROTOCOL)
}

/// The ports of a WebSocket, each of which is two of its channels.
fn ports(query: &Query) -> Result<Vec<i32>, String> {
    let quote = api::field::go_quote;
    let mut ports = Vec::new();
    let mut lists = query.all("port").peekable();
    if lists.peek().is_none() {
        return Err("query parameter \"port\" is required".to_owned());
    }
    for list in lists {
        if list.is_empty() {
            return Err("query parameter \"port\" cannot be empty".to_owned());
        }
        for port in list.split(',') {
            let number = api::number::uint(port).and_then(|number| {
                u16::try_from(number)
                    .map_err(|_| format!("strconv.ParseUint: parsing {}: value out of range", quote(port)))
            });
            match number {
                Ok(0) => return Err(format!("port {} must be > 0", quote(list))),
                Ok(number) => ports.push(i32::from(number)),
                Err(why) => return Err(format!("unable to parse {} as a port: {why}", quote(list))),
            }
        }
    }
    Ok(ports)
}

fn failed(status: &tonic::Status) -> Response<Body> {
    let code = match status.code() {
        tonic::Code::NotFound => StatusCode::NOT_FOUND,
        tonic::Code::InvalidArgument => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    text(code, rpc::text(status))
}

/// Either an answer, or the answer that says why not.
macro_rules! or_answer {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(answer) => return *answer,
        }
    };
}

pub(super) async fn exec(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    namespace: &str,
    pod: &str,
    container: &str,
    query: &Query,
) -> Response<Body> {
    let wanted = or_answer!(Wanted::of(query));
    let snapshot = or_answer!(find(shared, namespace, pod));
    let Some(id) = running(&snapshot, container) else { return not_found(container) };
    let ask = v1::ExecRequest {
        container_id: id,
        cmd: query.all("command").map(ToOwned::to_owned).collect(),
        tty: wanted.tty,
        stdin: wanted.stdin,
        stdout: wanted.stdout,
        stderr: wanted.stderr,
        audit_request_id: audit_id(&request),
    };
    match shared.cri.runtime().exec(ask).await {
        Ok(answer) => proxy(shared, request, &answer.into_inner().url).await,
        Err(status) => failed(&status),
    }
}

pub(super) async fn attach(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    namespace: &str,
    pod: &str,
    container: &str,
    query: &Query,
) -> Response<Body> {
    let wanted = or_answer!(Wanted::of(query));
    let snapshot = or_answer!(find(shared, namespace, pod));
    let found = running(&snapshot, container).zip(snapshot.pod.find_container(container));
    let Some((id, (_, spec))) = found else {
        let why = format!("container {container} not found in pod {pod}_{namespace}");
        return text(StatusCode::INTERNAL_SERVER_ERROR, why);
    };
    // Whether there is a terminal was decided when the container was made.
    let tty = spec.tty == Some(true);
    let ask = v1::AttachRequest {
        container_id: id,
        stdin: wanted.stdin,
        tty,
        stdout: wanted.stdout,
        stderr: wanted.stderr && !tty,
        audit_request_id: audit_id(&request),
    };
    match shared.cri.runtime().attach(ask).await {
        Ok(answer) => proxy(shared, request, &answer.into_inner().url).await,
        Err(status) => failed(&status),
    }
}

pub(super) async fn port_forward(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    namespace: &str,
    pod: &str,
    query: &Query,
) -> Response<Body> {
    // Over SPDY each stream names its port.
    let ports = match is_port_socket(&request).then(|| ports(query)).transpose() {
        Ok(ports) => ports.unwrap_or_default(),
        Err(why) => return text(StatusCode::BAD_REQUEST, why),
    };
    let snapshot = or_answer!(find(shared, namespace, pod));
    let sandbox = snapshot.observed.sandboxes.first().filter(|sandbox| sandbox.ready);
    let Some(sandbox) = sandbox else {
        let why = format!("pod not found ({:?})", format!("{pod}_{namespace}"));
        return text(StatusCode::INTERNAL_SERVER_ERROR, why);
    };
    let ask = v1::PortForwardRequest { pod_sandbox_id: sandbox.id.clone(), port: ports };
    match shared.cri.runtime().port_forward(ask).await {
        Ok(answer) => proxy(shared, request, &answer.into_inner().url).await,
        Err(status) => failed(&status),
    }
}

/// Runs a command and answers with all of its output.
pub(super) async fn run(
    shared: &Arc<Shared>,
    namespace: &str,
    pod: &str,
    container: &str,
    query: &Query,
) -> Response<Body> {
    let snapshot = or_answer!(find(shared, namespace, pod));
    let Some(id) = running(&snapshot, container) else { return not_found(container) };
    // One text, split at spaces, as upstream has it.
    let command = query.get("cmd").unwrap_or_default();
    let ask =
        v1::ExecSyncRequest { container_id: id, cmd: command.split(' ').map(ToOwned::to_owned).collect(), timeout: 0 };
    match shared.cri.runtime().exec_sync(ask).await {
        Ok(answer) => {
            let answer = answer.into_inner();
            let mut output = answer.stdout.to_vec();
            output.extend_from_slice(&answer.stderr);
            if answer.exit_code != 0 {
                let output = String::from_utf8_lossy(&output);
                let why = format!("command '{command}' exited with {}: {output}", answer.exit_code);
                return text(StatusCode::INTERNAL_SERVER_ERROR, why);
            }
            Response::new(full(output))
        }
        Err(status) => failed(&status),
    }
}

fn audit_id(request: &Request<Incoming>) -> String {
    let id = request.headers().get("audit-id").and_then(|id| id.to_str().ok());
    id.unwrap_or_default().to_owned()
}

/// Passes a request on to the runtime's streaming server and its answer back; if they agree to
/// speak another protocol, what either side says after that is passed on as it is.
async fn proxy(shared: &Shared, mut request: Request<Incoming>, url: &str) -> Response<Body> {
    let bad =
        |why: String| text(StatusCode::BAD_GATEWAY, format!("cannot reach the runtime's streaming server: {why}"));
    let target: Uri = match url.parse() {
        Ok(target) => target,
        Err(error) => return bad(format!("{url:?} is no URL: {error}")),
    };
    let (Some(host), Some(path)) = (target.host(), target.path_and_query()) else {
        return bad(format!("{url:?} names no host or path"));
    };
    if target.scheme_str() != Some("http") {
        return bad(format!("{url:?} is not http"));
    }
    let port = target.port_u16().unwrap_or(80);
    let bare = host.trim_matches(['[', ']']);
    let stream = match TcpStream::connect((bare, port)).await {
        Ok(stream) => stream,
        Err(error) => return bad(error.to_string()),
    };
    // A lost optimisation at worst.
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) = match hyper::client::conn::http1::handshake(TokioIo::new(stream)).await {
        Ok(both) => both,
        Err(error) => return bad(error.to_string()),
    };
    tokio::spawn(shared.until_stop(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to the runtime's streaming server ended");
        }
    }));
    let client = hyper::upgrade::on(&mut request);
    let (parts, body) = request.into_parts();
    let mut onward = Request::new(body);
    *onward.method_mut() = parts.method;
    *onward.headers_mut() = parts.headers;
    *onward.uri_mut() = match path.as_str().parse() {
        Ok(uri) => uri,
        Err(error) => return bad(format!("{url:?}: {error}")),
    };
    let authority = target.authority().map_or("", http::uri::Authority::as_str);
    if let Ok(value) = HeaderValue::from_str(authority) {
        onward.headers_mut().insert(header::HOST, value);
    }
    // The runtime's URL is permission enough, and the token is not its business.
    onward.headers_mut().remove(header::AUTHORIZATION);
    let mut answer = match sender.send_request(onward).await {
        Ok(answer) => answer,
        Err(error) => return bad(error.to_string()),
    };
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let runtime = hyper::upgrade::on(&mut answer);
        let splice = async move {
            match tokio::try_join!(client, runtime) {
                Ok((client, runtime)) => {
                    let (mut client, mut runtime) = (TokioIo::new(client), TokioIo::new(runtime));
                    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut runtime).await {
                        tracing::debug!(%error, "a stream was cut");
                    }
                }
                Err(error) => tracing::debug!(%error, "a stream could not be begun"),
            }
        };
        tokio::spawn(shared.until_stop(splice));
        let (parts, _) = answer.into_parts();
        return Response::from_parts(parts, full(Vec::new()));
    }
    let (parts, body) = answer.into_parts();
    Response::from_parts(parts, BoxBody::new(body.map_err(std::io::Error::other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_web_socket_names_its_ports() {
        let of = |query: &str| ports(&Query::of(&format!("/?{query}").parse().expect("a URI")));
        assert_eq!(of("port=80&port=81,82"), Ok(vec![80, 81, 82]));
        let refused = |query: &str| of(query).expect_err(query);
        assert_eq!(refused("ports=80"), r#"query parameter "port" is required"#);
        assert_eq!(refused("port="), r#"query parameter "port" cannot be empty"#);
        assert_eq!(refused("port=80,0"), r#"port "80,0" must be > 0"#);
        assert_eq!(
            refused("port=x"),
            r#"unable to parse "x" as a port: strconv.ParseUint: parsing "x": invalid syntax"#
        );
        let large = r#"unable to parse "65536" as a port: strconv.ParseUint: parsing "65536": value out of range"#;
        assert_eq!(refused("port=65536"), large);
    }
}
