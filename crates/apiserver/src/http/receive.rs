//! Reading the body of a request and decoding it, with upstream's refusals.

use super::RequestBody;
use super::media::{self, Format};
use crate::context::Context;
use crate::options::FieldValidation;
use crate::registry::mutation::judge;
use crate::scheme::Said;
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

    fn said(&self) -> Said<'_> {
        Said { api_version: self.api_version, kind: self.kind }
    }

    /// 400 for a body that says it is something else, of which nothing can be made.
    fn other(&self, said: Said<'_>, bytes: &[u8]) -> Option<Status> {
        let kind = if said.kind.is_empty() { self.kind } else { said.kind };
        // What is not said is as expected.
        let api_version = if said.api_version.is_empty() { self.api_version } else { said.api_version };
        let said = Said { api_version, kind };
        if kind == self.kind && self.takes(api_version) {
            return None;
        }
        if let Err(why) = said.group_version() {
            return Some(self.unrecognized(&why, bytes));
        }
        if !said.is_registered() {
            return Some(self.refused(kind, said.version(), &said.unregistered()));
        }
        (kind != self.kind).then(|| self.refused(kind, said.version(), &said.unconvertible(self.said())))
    }

    /// 400 for a body that does not say what it is.
    fn unrecognized(&self, why: &str, bytes: &[u8]) -> Status {
        let beginning = &bytes[..bytes.len().min(30)];
        // Text that is no JSON object is shown in hexadecimal digits.
        let shown = match beginning.first() {
            None => "<empty>".to_owned(),
            Some(b'{') => String::from_utf8_lossy(beginning).into_owned(),
            Some(_) => beginning.iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        let dots = if bytes.len() > 30 { " ..." } else { "" };
        Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): {why} ({shown}{dots})",
            self.kind
        ))
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
    let decoded = decoded.map_err(|error| {
        // What it says it is decides how upstream words it, so it is looked for even in what can't be decoded.
        let (api_version, kind) = said(format, bytes);
        let why = error.to_string();
        if kind.is_empty() || kind == expected.kind && api_version.is_empty() {
            if kind.is_empty() && bytes.is_empty() {
                return Status::bad_request(format!(
                    "the object provided is unrecognized (must be of type {}): {why}",
                    expected.kind
                ));
            }
            if kind.is_empty() {
                return expected.unrecognized(&why, bytes);
            }
            return expected.refused(&kind, expected.version(), &why);
        }
        let said = Said { api_version: &api_version, kind: &kind };
        expected.other(said, bytes).unwrap_or_else(|| expected.refused(&kind, said.version(), &why))
    })?;
    let (api_version, kind) =
        (decoded.object.str_at(&["apiVersion"]).to_owned(), decoded.object.str_at(&["kind"]).to_owned());
    if let Some(refused) = expected.other(Said { api_version: &api_version, kind: &kind }, bytes) {
        return Err(refused);
    }
    if !expected.takes(&api_version) {
        return Err(Status::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({})",
            expected.api_version
        )));
    }
    let problems: Vec<String> = decoded.problems.iter().map(ToString::to_string).collect();
    judge(cx, &problems, validation, |problems| {
        expected.refused(expected.kind, expected.version(), &format!("strict decoding error: {problems}"))
    })?;
    let mut object = decoded.object;
    object.insert("apiVersion", expected.api_version);
    object.insert("kind", expected.kind);
    Ok(object)
}

/// What a body says it is: `apiVersion` and `kind`, empty when it does not.
fn said(format: Format, bytes: &[u8]) -> (String, String) {
    let tree = match format {
        Format::Json => schema::json::parse(bytes),
        Format::Yaml => schema::yaml::parse(bytes),
        Format::Protobuf => return schema::protobuf::type_meta(bytes).unwrap_or_default(),
    };
    match tree {
        Ok(Value::Map(map)) => (map.str_at(&["apiVersion"]).to_owned(), map.str_at(&["kind"]).to_owned()),
        _ => (String::new(), String::new()),
    }
}
