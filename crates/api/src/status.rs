//! `metav1.Status` as an error: what every refusal of the API carries, in upstream's words.

use crate::field::FieldError;
use crate::gvk::{GroupKind, GroupResource};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A refusal: HTTP code, machine-readable reason, message and details (API conventions, "Response Status Kind").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub code: u16,
    pub reason: Reason,
    pub message: String,
    pub details: Option<Box<Details>>,
}

/// The machine-readable reason; `Unknown` is written as nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Reason {
    #[default]
    Unknown,
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    StoreReadError,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
}

impl Reason {
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::Unknown => "",
            Reason::Unauthorized => "Unauthorized",
            Reason::Forbidden => "Forbidden",
            Reason::NotFound => "NotFound",
            Reason::AlreadyExists => "AlreadyExists",
            Reason::Conflict => "Conflict",
            Reason::Gone => "Gone",
            Reason::Invalid => "Invalid",
            Reason::ServerTimeout => "ServerTimeout",
            Reason::StoreReadError => "StorageReadError",
            Reason::Timeout => "Timeout",
            Reason::TooManyRequests => "TooManyRequests",
            Reason::BadRequest => "BadRequest",
            Reason::MethodNotAllowed => "MethodNotAllowed",
            Reason::NotAcceptable => "NotAcceptable",
            Reason::RequestEntityTooLarge => "RequestEntityTooLarge",
            Reason::UnsupportedMediaType => "UnsupportedMediaType",
            Reason::InternalError => "InternalError",
            Reason::Expired => "Expired",
            Reason::ServiceUnavailable => "ServiceUnavailable",
        }
    }
}

/// `metav1.StatusDetails`. Empty members are left out on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Details {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
    /// Where a list can go on that is refused as too old; on the wire it is in the metadata.
    #[serde(skip)]
    pub continue_token: String,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// `metav1.StatusCause`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cause {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

impl From<&FieldError> for Cause {
    fn from(e: &FieldError) -> Self {
        Cause { reason: e.kind.reason().to_owned(), message: e.body(), field: e.field.clone() }
    }
}

impl Status {
    /// A refusal with code, reason and message, without details.
    pub fn new(code: u16, reason: Reason, message: impl Into<String>) -> Self {
        Status { code, reason, message: message.into(), details: None }
    }

    fn about(code: u16, reason: Reason, resource: &GroupResource, name: &str, message: String) -> Self {
        Status {
            code,
            reason,
            message,
            details: Some(Box::new(Details {
                name: name.to_owned(),
                group: resource.group.clone().into_owned(),
                kind: resource.resource.clone().into_owned(),
                ..Details::default()
            })),
        }
    }

    /// 404 `pods "x" not found`
    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        Self::about(404, Reason::NotFound, resource, name, format!("{resource} \"{name}\" not found"))
    }

    /// 404 for a path that names nothing the server serves.
    pub fn no_such_path() -> Self {
        let mut status = Self::new(404, Reason::NotFound, "the server could not find the requested resource");
        status.details = Some(Box::default());
        status
    }

    /// 409 `pods "x" already exists`
    pub fn already_exists(resource: &GroupResource, name: &str) -> Self {
        Self::about(409, Reason::AlreadyExists, resource, name, format!("{resource} \"{name}\" already exists"))
    }

    /// 409 with generateName, when every try collided.
    pub fn generate_name_conflict(resource: &GroupResource, name: &str) -> Self {
        let mut status = Self::about(
            409,
            Reason::AlreadyExists,
            resource,
            name,
            format!(
                "{resource} \"{name}\" already exists, the server was not able to generate a unique name for the object"
            ),
        );
        status.details_mut().retry_after_seconds = 1;
        status
    }

    /// 409 `Operation cannot be fulfilled on pods "x": why`
    pub fn conflict(resource: &GroupResource, name: &str, why: impl fmt::Display) -> Self {
        Self::about(
            409,
            Reason::Conflict,
            resource,
            name,
            format!("Operation cannot be fulfilled on {resource} \"{name}\": {why}"),
        )
    }

    /// 409 for a write whose resourceVersion is not the present one.
    pub fn modified(resource: &GroupResource, name: &str) -> Self {
        Self::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 403 `pods "x" is forbidden: why`
    pub fn forbidden(resource: &GroupResource, name: &str, why: impl fmt::Display) -> Self {
        let message = match (resource.resource.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{resource} is forbidden: {why}"),
            (false, false) => format!("{resource} \"{name}\" is forbidden: {why}"),
        };
        Self::about(403, Reason::Forbidden, resource, name, message)
    }

    /// 422 `Pod "x" is invalid: [a, b]` with a cause for each field.
    pub fn invalid(kind: &GroupKind, name: &str, errors: &[FieldError]) -> Self {
        let list = if errors.is_empty() { String::new() } else { format!(": {}", crate::field::aggregate(errors)) };
        Status {
            code: 422,
            reason: Reason::Invalid,
            message: format!("{kind} \"{name}\" is invalid{list}"),
            details: Some(Box::new(Details {
                name: name.to_owned(),
                group: kind.group.clone().into_owned(),
                kind: kind.kind.clone().into_owned(),
                causes: errors.iter().map(Cause::from).collect(),
                ..Details::default()
            })),
        }
    }

    /// 400
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, Reason::BadRequest, message)
    }

    /// 401, saying nothing more than upstream does.
    pub fn unauthorized() -> Self {
        Self::new(401, Reason::Unauthorized, "Unauthorized")
    }

    /// 405 for a resource that does not take the verb.
    pub fn method_not_supported(resource: &GroupResource, verb: &str) -> Self {
        let mut status = Self::about(
            405,
            Reason::MethodNotAllowed,
            resource,
            "",
            format!("{verb} is not supported on resources of kind \"{resource}\""),
        );
        status.details_mut().name.clear();
        status
    }

    /// 405 for a method that the path never takes.
    pub fn method_not_allowed() -> Self {
        let mut status =
            Self::new(405, Reason::MethodNotAllowed, "the server does not allow this method on the requested resource");
        status.details = Some(Box::default());
        status
    }

    /// 410: the resource version or continue token is older than what is kept.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, Reason::Expired, message)
    }

    /// 410 for a watch that starts before what is kept.
    pub fn too_old(asked: u64, oldest: u64) -> Self {
        Self::new(410, Reason::Expired, format!("too old resource version: {asked} ({oldest})"))
    }

    /// 410 where upstream says `Gone`.
    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(410, Reason::Gone, message)
    }

    /// 504: the version asked for is not there yet; the client should wait a second.
    pub fn too_large_resource_version(asked: u64, current: u64) -> Self {
        let mut status = Self::timeout(format!("Too large resource version: {asked}, current: {current}"), 1);
        status.details_mut().causes.push(Cause {
            reason: "ResourceVersionTooLarge".into(),
            message: "Too large resource version".into(),
            field: String::new(),
        });
        status
    }

    /// 504 `Timeout: message`
    pub fn timeout(message: impl fmt::Display, retry_after_seconds: u32) -> Self {
        let mut status = Self::new(504, Reason::Timeout, format!("Timeout: {message}"));
        status.details_mut().retry_after_seconds = retry_after_seconds;
        status
    }

    /// 500 `ServerTimeout`: the operation could be tried again.
    pub fn server_timeout(resource: &GroupResource, operation: &str, retry_after_seconds: u32) -> Self {
        let mut status = Self::about(
            500,
            Reason::ServerTimeout,
            resource,
            "",
            format!(
                "The {operation} operation against {resource} could not be completed at this time, please try again."
            ),
        );
        status.details_mut().name = operation.to_owned();
        status.details_mut().retry_after_seconds = retry_after_seconds;
        status
    }

    /// 429
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let mut status = Self::new(429, Reason::TooManyRequests, message);
        status.details_mut().retry_after_seconds = retry_after_seconds;
        status
    }

    /// 503
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(503, Reason::ServiceUnavailable, message)
    }

    /// 406
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        Self::new(
            406,
            Reason::NotAcceptable,
            format!("only the following media types are accepted: {}", accepted.join(", ")),
        )
    }

    /// 415
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        Self::new(
            415,
            Reason::UnsupportedMediaType,
            format!(
                "the body of the request was in an unknown format - accepted media types include: {}",
                accepted.join(", ")
            ),
        )
    }

    /// 413
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(413, Reason::RequestEntityTooLarge, format!("Request entity is too large: {}", message.into()))
    }

    /// 500 `Internal error occurred: message`
    pub fn internal(message: impl fmt::Display) -> Self {
        let mut status = Self::new(500, Reason::InternalError, format!("Internal error occurred: {message}"));
        status.details_mut().causes.push(Cause { message: message.to_string(), ..Cause::default() });
        status
    }

    /// The details, made empty when there were none.
    pub fn details_mut(&mut self) -> &mut Details {
        self.details.get_or_insert_with(Box::default)
    }

    /// Seconds after which a client should try again, where the refusal says so.
    pub fn retry_after(&self) -> Option<u32> {
        self.details.as_ref().map(|d| d.retry_after_seconds).filter(|s| *s > 0)
    }

    /// The `Status` object as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Wire<'a> {
            kind: &'static str,
            api_version: &'static str,
            metadata: ListMeta<'a>,
            status: &'static str,
            message: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            reason: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            details: Option<&'a Details>,
            code: u16,
        }
        #[derive(Serialize)]
        struct ListMeta<'a> {
            #[serde(rename = "continue", skip_serializing_if = "str::is_empty")]
            next: &'a str,
        }
        let wire = Wire {
            kind: "Status",
            api_version: "v1",
            metadata: ListMeta { next: self.details.as_deref().map_or("", |details| &details.continue_token) },
            status: "Failure",
            message: &self.message,
            reason: self.reason.as_str(),
            details: self.details.as_deref(),
            code: self.code,
        };
        // Strings and numbers only: serialization has no way to fail.
        serde_json::to_vec(&wire).unwrap_or_else(|e| unreachable!("a Status is always serializable: {e}"))
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::Path;

    #[test]
    fn invalid_lists_every_field_and_cause() {
        let spec = Path::root("spec");
        let errors = [FieldError::required(&spec.child("a"), ""), FieldError::required(&spec.child("b"), "why")];
        let status = Status::invalid(&GroupKind::new("apps", "Deployment"), "x", &errors);
        assert_eq!(
            status.message,
            "Deployment.apps \"x\" is invalid: [spec.a: Required value, spec.b: Required value: why]"
        );
        let json = String::from_utf8_lossy(&status.to_json()).into_owned();
        assert!(
            json.contains(r#"{"reason":"FieldValueRequired","message":"Required value","field":"spec.a"}"#),
            "{json}"
        );
        assert!(json.starts_with(r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure""#), "{json}");
        assert!(json.ends_with(r#""code":422}"#), "{json}");
    }
}
