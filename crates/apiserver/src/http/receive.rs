//! Reading the body of a request and decoding it, with upstream's refusals.

use super::RequestBody;
use super::media::{self, Format};
use crate::context::Context;
use crate::options::FieldValidation;
use crate::registry::mutation::judge;
use crate::scheme::{self, Said};
use api::{Reason, Status};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt;
use schema::{Decoded, Map, TypeRef, Value};
use std::time::Duration;

/// What a request may weigh.
pub const MAX_BODY: usize = 3 * 1024 * 1024;

/// What sending a body may take: upstream's time for a whole request.
const PATIENCE: Duration = Duration::from_secs(60);

/// Reads a body.
///
/// # Errors
/// 413 for one that is too large, 400 when it can't be read, 504 when it does not come.
pub async fn read(headers: &HeaderMap, body: RequestBody) -> Result<Bytes, Status> {
    match tokio::time::timeout(PATIENCE, read_all(headers, body)).await {
        Ok(read) => read,
        Err(_) => {
            let why = "Timeout: request did not complete within the allotted timeout";
            Err(Status::new(504, Reason::Timeout, why))
        }
    }
}

async fn read_all(headers: &HeaderMap, mut body: RequestBody) -> Result<Bytes, Status> {
    let too_large =
        || Status::new(413, Reason::RequestEntityTooLarge, format!("Request entity too large: limit is {MAX_BODY}"));
    let said = headers.get(http::header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    if said.is_some_and(|length: usize| length > MAX_BODY) {
        return Err(too_large());
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::bad_request(format!("the request's body can't be read: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&first);
            }
            rest.extend_from_slice(&data);
        }
        if first.len().max(rest.len()) > MAX_BODY {
            return Err(too_large());
        }
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

/// Kinds that are taken in another version, too, in which they look the same: kind, that version, the expected one.
const TAKEN_TOO: [(&str, &str, &str); 1] = [("Eviction", "policy/v1beta1", "policy/v1")];

/// What a body is to be.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    pub ty: TypeRef<'a>,
    pub api_version: &'a str,
    pub kind: &'a str,
}

impl Expected<'_> {
    /// Whether a body may say that it is of a version.
    fn takes(&self, api_version: &str) -> bool {
        api_version.is_empty()
            || api_version == self.api_version
            || TAKEN_TOO.contains(&(self.kind, api_version, self.api_version))
    }

    fn version(&self) -> &str {
        self.api_version.rsplit('/').next().unwrap_or(self.api_version)
    }

    /// 400 for a body that can't be decoded. What it says it is decides how upstream words it.
    fn undecodable(&self, format: Format, bytes: &[u8], error: &dyn std::fmt::Display) -> Status {
        let (api_version, kind) = match said(format, bytes) {
            Ok(said) => said,
            Err(why) => return self.unrecognized(&why, bytes),
        };
        if let Err(status) = self.judge(bytes, &api_version, &kind) {
            return status;
        }
        self.refused(self.kind, self.version(), &error.to_string())
    }

    /// 400 for a body of which it can't be seen what it is.
    fn unrecognized(&self, why: &str, bytes: &[u8]) -> Status {
        Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): {why} ({})",
            self.kind,
            summary(bytes)
        ))
    }

    fn said(&self) -> Said<'_> {
        Said { api_version: self.api_version, kind: self.kind }
    }

    /// Whether a body that says it is of a version and kind is of the expected ones. What it does not say is taken for granted.
    fn judge(&self, bytes: &[u8], api_version: &str, kind: &str) -> Result<(), Status> {
        let kind = if kind.is_empty() { self.kind } else { kind };
        let api_version = if matches!(api_version, "" | "/") { self.api_version } else { api_version };
        if kind == self.kind && self.takes(api_version) {
            return Ok(());
        }
        let said = Said { api_version, kind };
        let (group, _) = said.group_version().map_err(|why| self.unrecognized(&why, bytes))?;
        if !said.is_registered() {
            return Err(self.refused(kind, said.version(), &said.unregistered()));
        }
        let (own_group, _) = self.said().group_version().unwrap_or_default();
        if kind == self.kind && scheme::package(group) == scheme::package(own_group) {
            return Err(Status::bad_request(format!(
                "the API version in the data ({api_version}) does not match the expected API version ({})",
                self.api_version
            )));
        }
        Err(self.refused(kind, said.version(), &said.unconvertible(self.said())))
    }

    /// 400 for a body that is not what it should be.
    fn refused(&self, kind: &str, version: &str, why: &str) -> Status {
        Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {}: {why}", self.kind))
    }
}

/// Decodes a body of the expected kind. A kind that is not said is taken for the expected one.
///
/// # Errors
/// 415 for a format that is none, 400 for what is no object of the kind, or has unknown fields where that is refused.
pub fn decode(
    cx: &Context,
    headers: &HeaderMap,
    bytes: &[u8],
    expected: Expected<'_>,
    validation: FieldValidation,
) -> Result<Map, Status> {
    let format = media::body_format(headers)?;
    decode_as(cx, format, bytes, expected, validation)
}

/// The same for a known format.
///
/// # Errors
/// As [`decode`].
pub fn decode_as(
    cx: &Context,
    format: Format,
    bytes: &[u8],
    expected: Expected<'_>,
    validation: FieldValidation,
) -> Result<Map, Status> {
    let decoded: Result<Decoded, _> = match format {
        Format::Json => schema::json::decode(expected.ty, bytes),
        Format::Yaml => schema::yaml::decode(expected.ty, bytes),
        Format::Protobuf => schema::protobuf::decode(expected.ty, bytes),
    };
    let decoded = match decoded {
        Ok(decoded) => decoded,
        // Nothing is an object of which nothing is said.
        Err(_) if is_null(format, bytes) => schema::json::decode(expected.ty, b"{}")
            .map_err(|error| expected.refused(expected.kind, expected.version(), &error.to_string()))?,
        Err(error) => return Err(expected.undecodable(format, bytes, &error)),
    };
    expected.judge(bytes, decoded.object.str_at(&["apiVersion"]), decoded.object.str_at(&["kind"]))?;
    let problems: Vec<String> = decoded.problems.iter().map(ToString::to_string).collect();
    judge(cx, &problems, validation, |problems| {
        expected.refused(expected.kind, expected.version(), &format!("strict decoding error: {problems}"))
    })?;
    let mut object = decoded.object;
    if let Some(why) = schema::defaults::problem(expected.ty, &object) {
        return Err(expected.refused(expected.kind, expected.version(), &why));
    }
    object.insert("apiVersion", expected.api_version);
    object.insert("kind", expected.kind);
    Ok(object)
}

/// Whether a body is `null`, or nothing at all in YAML.
fn is_null(format: Format, bytes: &[u8]) -> bool {
    match format {
        Format::Json => bytes.trim_ascii() == b"null",
        Format::Yaml => matches!(schema::yaml::parse(bytes), Ok(Value::Null)),
        Format::Protobuf => false,
    }
}

/// What a body says it is: `apiVersion` and `kind`, empty when it does not.
///
/// # Errors
/// Why that can't be seen, in upstream's words.
fn said(format: Format, bytes: &[u8]) -> Result<(String, String), String> {
    let unread = |why: &dyn std::fmt::Display| format!("couldn't get version/kind; json parse error: {why}");
    let tree = match format {
        Format::Json => schema::json::parse(bytes).map_err(|why| unread(&why))?,
        Format::Yaml => schema::yaml::parse(bytes).map_err(|why| why.to_string())?,
        Format::Protobuf => return schema::protobuf::type_meta(bytes).map_err(|why| why.to_string()),
    };
    let map = match tree {
        Value::Map(map) => map,
        Value::Null => Map::new(),
        other => {
            let wanted = r#"value of type struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
            return Err(unread(&schema::json::mismatch(&other, wanted)));
        }
    };
    let text = |key: &str| match map.get(key) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::Str(text)) => Ok(text.to_string()),
        Some(other) => Err(unread(&schema::json::mismatch(other, &format!("struct field .{key} of type string")))),
    };
    Ok((text("apiVersion")?, text("kind")?))
}

/// The beginning of a body that is no object of a kind, as upstream shows it: what is no JSON object, in hexadecimal.
fn summary(bytes: &[u8]) -> String {
    const SHOWN: usize = 30;
    let begin = &bytes[..bytes.len().min(SHOWN)];
    let shown = match begin.first() {
        None => return "<empty>".to_owned(),
        Some(b'{') => String::from_utf8_lossy(begin).into_owned(),
        Some(_) => begin.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    if bytes.len() > SHOWN { format!("{shown} ...") } else { shown }
}

/// Reads a `DeleteOptions` that is sent with a request for a group's resource: its own, or that of any group.
///
/// # Errors
/// 500 for what is none: upstream has no better words for it than its decoder's.
pub fn decode_delete_options(format: Format, bytes: &[u8], ty: TypeRef<'_>, group: &str) -> Result<Map, Status> {
    const KIND: &str = "DeleteOptions";
    const SCHEME: &str = "pkg/apis/meta/internalversion/scheme/register.go:27";
    let failed = |why: String| Status::new(500, Reason::Unknown, why);
    let (api_version, kind) = said(format, bytes).map_err(failed)?;
    if !matches!(kind.as_str(), "" | KIND) {
        let own = if group.is_empty() { "v1".to_owned() } else { format!("{group}/v1") };
        let api_version = if api_version.is_empty() { own } else { api_version };
        return Err(failed(Said { api_version: &api_version, kind: &kind }.unregistered_in(SCHEME)));
    }
    let decoded = match format {
        Format::Json => schema::json::decode(ty, bytes),
        Format::Yaml => schema::yaml::decode(ty, bytes),
        Format::Protobuf => schema::protobuf::decode(ty, bytes),
    };
    match decoded {
        Ok(decoded) => Ok(decoded.object),
        Err(_) if is_null(format, bytes) => Ok(Map::new()),
        Err(error) => Err(failed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(format: Format, body: &[u8]) -> String {
        let ty = schema::types::of_kind("", "v1", "Pod").expect("pods");
        let expected = Expected { ty, api_version: "v1", kind: "Pod" };
        let status = decode_as(&Context::internal(), format, body, expected, FieldValidation::Ignore);
        let status = status.expect_err("refused");
        assert_eq!(status.code, 400);
        status.message
    }

    #[test]
    fn what_is_no_object_of_the_kind_is_refused_in_upstreams_words() {
        let unrecognized = |why: &str| format!("the object provided is unrecognized (must be of type Pod): {why}");
        let json = |why: &str| unrecognized(&format!("couldn't get version/kind; json parse error: {why}"));
        let handled = |said: &str, why: &str| format!("{said} cannot be handled as a Pod: {why}");
        let pod = |why: &str| handled("Pod in version \"v1\"", why);
        let shape =
            r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
        for (body, message) in [
            ("", json("unexpected end of JSON input (<empty>)")),
            ("[]", json(&format!("json: cannot unmarshal array into Go value of type {shape} (5b5d)"))),
            (
                r#"{"kind": 5}"#,
                json("json: cannot unmarshal number into Go struct field .kind of type string ({\"kind\": 5})"),
            ),
            (
                r#"{"kind":"Pod","apiVersion":"v1","metadata""#,
                json("unexpected end of JSON input ({\"kind\":\"Pod\",\"apiVersion\":\"v1 ...)"),
            ),
            (
                r#"{"apiVersion":"a/b/c","kind":"Pod"}"#,
                unrecognized("unexpected GroupVersion string: a/b/c ({\"apiVersion\":\"a/b/c\",\"kind\":\" ...)"),
            ),
            (
                r#"{"apiVersion":"v1","kind":"Pood"}"#,
                handled(
                    "Pood in version \"v1\"",
                    r#"no kind "Pood" is registered for version "v1" in scheme "pkg/api/legacyscheme/scheme.go:30""#,
                ),
            ),
            (
                r#"{"apiVersion":"apps/v9","kind":"Pod"}"#,
                handled(
                    "Pod in version \"v9\"",
                    r#"no kind "Pod" is registered for version "apps/v9" in scheme "pkg/api/legacyscheme/scheme.go:30""#,
                ),
            ),
            (
                r#"{"apiVersion":"v1","kind":"Service"}"#,
                handled("Service in version \"v1\"", "converting (v1.Service) to (core.Pod): unknown conversion"),
            ),
            (
                r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":true}}}]}}"#,
                pod(&api::quantity::ParseError::Format.to_string()),
            ),
            (
                r#"{"metadata":{"creationTimestamp":5}}"#,
                pod(
                    "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.creationTimestamp of type string",
                ),
            ),
            (
                r#"{"metadata":{"creationTimestamp":"2020-13-01T00:00:00Z"}}"#,
                pod("parsing time \"2020-13-01T00:00:00Z\": month out of range"),
            ),
            (
                r#"{"spec":{"containers":[{"livenessProbe":{"httpGet":{"port":1.5}}}]}}"#,
                pod(
                    "json: cannot unmarshal number 1.5 into Go struct field HTTPGetAction.spec.containers.livenessProbe.httpGet.port of type int32",
                ),
            ),
        ] {
            assert_eq!(refused(Format::Json, body.as_bytes()), message);
        }
    }

    #[test]
    fn null_is_an_empty_object() {
        let ty = schema::types::of_kind("", "v1", "Pod").expect("pods");
        let expected = Expected { ty, api_version: "v1", kind: "Pod" };
        for (format, body) in [(Format::Json, " null\n"), (Format::Yaml, ""), (Format::Yaml, "null")] {
            let read = decode_as(&Context::internal(), format, body.as_bytes(), expected, FieldValidation::Strict);
            assert_eq!(read.expect("a pod").str_at(&["kind"]), "Pod");
        }
    }

    #[test]
    fn what_are_no_delete_options_fails_in_the_decoders_words() {
        let ty = schema::types::of_kind("", "v1", "DeleteOptions").expect("options");
        let read = |body: &str| decode_delete_options(Format::Json, body.as_bytes(), ty, "apps");
        for body in [r#"{"kind":"DeleteOptions","apiVersion":"v1"}"#, "{}", "null"] {
            assert!(read(body).is_ok(), "{body}");
        }
        for (body, why) in [
            (
                r#"{"kind":"Foo","apiVersion":"v1"}"#,
                r#"no kind "Foo" is registered for version "v1" in scheme "pkg/apis/meta/internalversion/scheme/register.go:27""#,
            ),
            ("{", "couldn't get version/kind; json parse error: unexpected end of JSON input"),
        ] {
            let status = read(body).expect_err("refused");
            assert_eq!((status.code, status.message.as_str()), (500, why));
        }
    }
}
