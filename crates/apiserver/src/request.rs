//! What a request asks for, read from its method and path as upstream's `RequestInfoFactory` does.

use api::selector::FieldSelector;
use jiff::Timestamp;

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
    /// The view of the past that the path began with; all else is said of the rest of the path.
    pub past: Option<Past>,
}

/// A view of the past, of ours alone: it precedes the path of what is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// `/at/MOMENT/…`: what was there.
    At(Moment),
    /// `/history/…`: the versions of an object.
    History,
}

/// A moment of the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A resource version of the store; never 0.
    Revision(u64),
    /// The end of a second since 1970.
    Second(i64),
}

impl std::str::FromStr for Moment {
    type Err = BadPath;

    fn from_str(text: &str) -> Result<Self, BadPath> {
        let wrong = || BadPath::Moment(text.to_owned());
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            let revision = text.parse::<i64>().ok().filter(|revision| *revision > 0);
            return revision.map(|revision| Moment::Revision(revision.cast_unsigned())).ok_or_else(wrong);
        }
        text.parse::<Timestamp>().map(|time| Moment::Second(time.as_second())).map_err(|_| wrong())
    }
}

impl Past {
    /// Takes the view from the beginning of a path, if there is one.
    /// A moment that is none is told with the rest.
    fn split(path: &str) -> (Result<Option<Past>, BadPath>, &str) {
        if let Some(rest) = path.strip_prefix("/history")
            && rest.starts_with('/')
        {
            return (Ok(Some(Past::History)), rest);
        }
        let Some((moment, rest)) = path.strip_prefix("/at/").and_then(|rest| rest.split_once('/')) else {
            return (Ok(None), path);
        };
        (moment.parse().map(|moment| Some(Past::At(moment))), &path[path.len() - rest.len() - 1..])
    }
}

/// Why a path can't be what it begins as.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    #[error("unable to determine kind and namespace from url, {0}")]
    Url(String),
    #[error("{0:?} is no moment: a resource version, or a time such as 2026-01-31T08:00:00Z")]
    Moment(String),
}

const SPECIAL_VERBS: [&str; 2] = ["proxy", "watch"];
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

impl RequestInfo {
    /// Reads method, path (percent-decoded) and query (as it is).
    ///
    /// # Errors
    /// `/api/v1/watch` and the like without what is watched; a moment that is none.
    pub fn parse(method: &str, path: &str, query: &str) -> Result<Self, BadPath> {
        let (past, path) = Past::split(path);
        let mut info = Self::parse_present(method, path, query)?;
        info.past = match past {
            // What is served is that of today, at whatever moment. Clients ask for it first, and would not show why it is refused.
            Err(_) if info.is_discovery() => None,
            past => past?,
        };
        Ok(info)
    }

    /// Whether it asks what clients have to know before they ask for objects.
    pub fn is_discovery(&self) -> bool {
        !self.is_resource && matches!(self.path.split('/').nth(1), Some("api" | "apis" | "openapi" | "version"))
    }

    fn parse_present(method: &str, path: &str, query: &str) -> Result<Self, BadPath> {
        let verb = method.to_ascii_lowercase();
        let mut info = RequestInfo { path: path.to_owned(), verb, ..RequestInfo::default() };
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
                return Err(BadPath::Url(path.to_owned()));
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
    fn a_view_of_the_past_changes_nothing_of_what_is_asked() {
        let moment = Moment::Second(1_769_846_400);
        for (view, past) in [
            ("/at/17", Past::At(Moment::Revision(17))),
            ("/at/2026-01-31T08:00:00Z", Past::At(moment)),
            ("/at/2026-01-31T09:00:00.9+01:00", Past::At(moment)),
            ("/history", Past::History),
        ] {
            for target in ["/api/v1/namespaces/a/pods/b", "/api/v1/pods?watch=1", "/apis", "/"] {
                let info = parse("GET", &format!("{view}{target}"));
                assert_eq!(info, RequestInfo { past: Some(past), ..parse("GET", target) });
            }
        }
        for target in ["/at", "/at/", "/at/17", "/history", "/historyx/api/v1/pods"] {
            assert_eq!(parse("GET", target).past, None, "{target}");
        }
        for moment in ["", "0", "-1", "yesterday", "99999999999999999999"] {
            for target in ["/api/v1/pods", "/healthz"] {
                let refused = RequestInfo::parse("GET", &format!("/at/{moment}{target}"), "");
                assert_eq!(refused, Err(BadPath::Moment(moment.to_owned())), "{target}");
            }
            // So that clients get to where they show the refusal.
            for target in ["/api", "/apis", "/apis/apps/v1", "/openapi/v3", "/version"] {
                assert_eq!(parse("GET", &format!("/at/{moment}{target}")), parse("GET", target), "{moment}");
            }
        }
    }

    #[test]
    fn watches_and_streams_are_long_running() {
        assert!(parse("GET", "/api/v1/pods?watch=1").long_running());
        assert!(parse("POST", "/api/v1/namespaces/a/pods/b/exec?command=x").long_running());
        assert!(!parse("GET", "/api/v1/pods").long_running());
    }
}
