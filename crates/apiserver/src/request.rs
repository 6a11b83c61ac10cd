//! What a request asks for, read from its method and path as upstream's `RequestInfoFactory` does.

use api::selector::FieldSelector;

/// What a request asks for. Authorization, audit, fairness and routing all decide on this and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Whether it names a resource; otherwise only `path` and `verb` (the method in lower case) say anything.
    pub is_resource: bool,
    pub path: String,
    pub verb: String,
    /// `api` or `apis`.
    pub prefix: String,
    /// Empty: the core group.
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    /// The name, from the path or from a field selector `metadata.name=x`.
    pub name: String,
    /// Resource, name, subresource and what follows, from the path alone.
    pub parts: Vec<String>,
    /// The query's `labelSelector` and `fieldSelector` of list, watch and deletecollection, as they came.
    pub label_selector: String,
    pub field_selector: String,
}

/// Why a path that begins as a resource's can't be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unable to determine kind and namespace from url, {0}")]
pub struct BadPath(pub String);

const SPECIAL_VERBS: [&str; 2] = ["proxy", "watch"];
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

impl RequestInfo {
    /// Reads method, path (percent-decoded) and query (as it is).
    ///
    /// # Errors
    /// `/api/v1/watch` and the like without what is watched.
    pub fn parse(method: &str, path: &str, query: &str) -> Result<Self, BadPath> {
        let mut info =
            RequestInfo { path: path.to_owned(), verb: method.to_ascii_lowercase(), ..RequestInfo::default() };
        let trimmed = path.trim_matches('/');
        let mut parts: Vec<&str> = if trimmed.is_empty() { Vec::new() } else { trimmed.split('/').collect() };
        if parts.len() < 3 {
            return Ok(info);
        }
        match parts[0] {
            "api" => parts.drain(..1),
            "apis" if parts.len() >= 4 => {
                info.group = parts[1].to_owned();
                parts.drain(..2)
            }
            _ => return Ok(info),
        };
        info.prefix = trimmed.split('/').next().unwrap_or("").to_owned();
        info.is_resource = true;
        info.version = parts.remove(0).to_owned();
        if SPECIAL_VERBS.contains(&parts[0]) {
            if parts.len() < 2 {
                return Err(BadPath(path.to_owned()));
            }
            info.verb = parts.remove(0).to_owned();
        } else {
            info.verb = verb_of(method).to_owned();
        }
        if parts[0] == "namespaces" && parts.len() > 1 {
            info.namespace = parts[1].to_owned();
            if parts.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&parts[2]) {
                parts.drain(..2);
            }
        }
        info.parts = parts.iter().map(|p| (*p).to_owned()).collect();
        info.resource = parts[0].to_owned();
        if let Some(name) = parts.get(1) {
            info.name = (*name).to_owned();
        }
        if let Some(sub) = parts.get(2)
            && info.verb != "proxy"
        {
            info.subresource = (*sub).to_owned();
        }
        if info.name.is_empty() && info.verb == "get" {
            info.verb = if is_true(parameter(query, "watch").as_deref()) { "watch" } else { "list" }.to_owned();
        }
        if info.name.is_empty() && info.verb == "delete" {
            info.verb = "deletecollection".to_owned();
        }
        if matches!(info.verb.as_str(), "list" | "watch" | "deletecollection") {
            info.label_selector = parameter(query, "labelSelector").unwrap_or_default();
            info.field_selector = parameter(query, "fieldSelector").unwrap_or_default();
            if info.name.is_empty() && info.verb != "deletecollection" {
                info.name = exact_name(&info.field_selector).unwrap_or_default();
            }
        }
        Ok(info)
    }

    /// Whether the request may last as long as it likes: watches and streams.
    pub fn long_running(&self) -> bool {
        self.verb == "watch"
            || self.verb == "proxy"
            || self.is_resource
                && matches!(self.subresource.as_str(), "attach" | "exec" | "proxy" | "log" | "portforward")
            || self.path.starts_with("/debug/pprof")
    }

    /// Whether the verb changes nothing.
    pub fn read_only(&self) -> bool {
        matches!(self.verb.as_str(), "get" | "list" | "watch")
    }
}

fn verb_of(method: &str) -> &'static str {
    match method {
        "POST" => "create",
        "GET" | "HEAD" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

/// The first value of a query parameter, decoded.
pub fn parameter(query: &str, name: &str) -> Option<String> {
    parameters(query).find(|(key, _)| key == name).map(|(_, value)| value)
}

/// Parameters that are lists: every value counts.
const LISTS: [&str; 1] = ["dryRun"];

/// The parameters of a query, decoded, in their order. Of one that is given more than once only the first value is there
/// (but of lists): whoever decides about a request and whoever carries it out must read the same.
pub fn parameters(query: &str) -> impl Iterator<Item = (String, String)> {
    let mut seen: Vec<String> = Vec::new();
    all_parameters(query).filter(move |(key, _)| {
        let first = !seen.contains(key);
        if first {
            seen.push(key.clone());
        }
        first || LISTS.contains(&key.as_str())
    })
}

/// Every parameter of a query as it was given, for those who read lists.
pub fn all_parameters(query: &str) -> impl Iterator<Item = (String, String)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (unescape(key), unescape(value))
    })
}

/// As upstream converts query parameters: only absence, `false` and `0` are false.
pub(crate) fn is_true(value: Option<&str>) -> bool {
    value.is_some_and(|v| !v.eq_ignore_ascii_case("false") && v != "0")
}

/// Percent-decodes, taking `+` for a space; what is badly escaped stays as it is.
fn unescape(text: &str) -> String {
    percent_decode(text, true)
}

/// Percent-decodes a path; what is badly escaped stays as it is.
pub fn unescape_path(text: &str) -> String {
    percent_decode(text, false)
}

fn percent_decode(text: &str, plus_is_space: bool) -> String {
    if !text.bytes().any(|b| b == b'%' || b == b'+') {
        return text.to_owned();
    }
    let hex = |b: u8| (b as char).to_digit(16);
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        match bytes[i] {
            b'+' if plus_is_space => out.push(b' '),
            b'%' => match (bytes.get(i + 1).copied().and_then(hex), bytes.get(i + 2).copied().and_then(hex)) {
                (Some(high), Some(low)) => {
                    out.push((high * 16 + low) as u8);
                    i += 2;
                }
                _ => out.push(b'%'),
            },
            b => out.push(b),
        }
        i += 1;
    }
    String::from_utf8(out).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

/// The name that a field selector asks for, when it could be one.
fn exact_name(field_selector: &str) -> Option<String> {
    if field_selector.is_empty() {
        return None;
    }
    let selector = FieldSelector::parse(field_selector).ok()?;
    let name = selector.requirements.into_iter().find(|r| r.field == "metadata.name" && r.equal)?.value;
    let is_segment = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '%']);
    is_segment.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &str, target: &str) -> RequestInfo {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        RequestInfo::parse(method, path, query).expect("a good path")
    }

    /// verb, group, version, namespace, resource, subresource, name.
    fn words(info: &RequestInfo) -> [&str; 7] {
        [&info.verb, &info.group, &info.version, &info.namespace, &info.resource, &info.subresource, &info.name]
    }

    #[test]
    fn resources_are_recognised() {
        for (method, target, wanted) in [
            ("GET", "/api/v1/namespaces", ["list", "", "v1", "", "namespaces", "", ""]),
            ("GET", "/api/v1/namespaces/other", ["get", "", "v1", "other", "namespaces", "", "other"]),
            (
                "PUT",
                "/api/v1/namespaces/other/finalize",
                ["update", "", "v1", "other", "namespaces", "finalize", "other"],
            ),
            ("GET", "/api/v1/namespaces/other/pods", ["list", "", "v1", "other", "pods", "", ""]),
            ("GET", "/api/v1/namespaces/other/pods/foo", ["get", "", "v1", "other", "pods", "", "foo"]),
            ("HEAD", "/api/v1/namespaces/other/pods/foo", ["get", "", "v1", "other", "pods", "", "foo"]),
            ("GET", "/api/v1/pods", ["list", "", "v1", "", "pods", "", ""]),
            ("GET", "/api/v1/pods?watch=true", ["watch", "", "v1", "", "pods", "", ""]),
            ("GET", "/api/v1/pods?watch=false", ["list", "", "v1", "", "pods", "", ""]),
            ("GET", "/api/v1/pods?watch", ["watch", "", "v1", "", "pods", "", ""]),
            ("GET", "/api/v1/watch/namespaces/other/pods", ["watch", "", "v1", "other", "pods", "", ""]),
            (
                "GET",
                "/api/v1/namespaces/other/pods?fieldSelector=metadata.name%3Dfoo",
                ["list", "", "v1", "other", "pods", "", "foo"],
            ),
            (
                "DELETE",
                "/apis/apps/v1/namespaces/a/deployments",
                ["deletecollection", "apps", "v1", "a", "deployments", "", ""],
            ),
            (
                "PATCH",
                "/apis/apps/v1/namespaces/a/deployments/b/scale",
                ["patch", "apps", "v1", "a", "deployments", "scale", "b"],
            ),
            ("POST", "/api/v1/namespaces/a/pods/b/proxy/c/d", ["create", "", "v1", "a", "pods", "proxy", "b"]),
        ] {
            let info = parse(method, target);
            assert!(info.is_resource, "{target}");
            assert_eq!(words(&info), wanted, "{method} {target}");
        }
    }

    #[test]
    fn other_paths_are_not_resources() {
        for target in
            ["/", "/healthz", "/api", "/api/v1", "/apis", "/apis/apps/v1", "/openapi/v3/apis/apps/v1", "/logs/a/b/c"]
        {
            let info = parse("GET", target);
            assert!(!info.is_resource, "{target}");
            assert_eq!(info.verb, "get");
        }
        assert!(RequestInfo::parse("GET", "/api/v1/watch", "").is_err());
    }

    #[test]
    fn watches_and_streams_are_long_running() {
        assert!(parse("GET", "/api/v1/pods?watch=1").long_running());
        assert!(parse("POST", "/api/v1/namespaces/a/pods/b/exec?command=x").long_running());
        assert!(!parse("GET", "/api/v1/pods").long_running());
    }
}
