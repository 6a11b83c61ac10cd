//! `/debug/flags`: the flags that can be changed while the server runs. That is how much it logs.

use super::chain::plain;
use crate::http::{Body, RequestBody, Response, receive};
use api::Status;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode};

/// Takes how much is logged from here on, as `-v` says it.
///
/// # Errors
/// Why it can't.
pub type SetVerbosity = fn(i32) -> Result<(), String>;

const INDEX: &str = "<html>\n<head>\n<title>/debug/flags/</title>\n</head>\n<body>\n/debug/flags/<br>\n<br>\nflags:<br>\n<table>\n\n\
<tr>v<br>\n\n</table>\n<br>\nfull flags configurable<br>\n</body>\n</html>\n";

/// Whether a path is below `/debug/flags`.
pub(super) fn is_below(path: &str) -> bool {
    path.strip_prefix("/debug/flags").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What is served there.
pub(super) async fn answer(
    parts: &Parts,
    path: &str,
    body: RequestBody,
    set: SetVerbosity,
) -> Result<Response<Body>, Status> {
    if path != "/debug/flags/v" {
        let mut response = plain(StatusCode::OK, INDEX);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        return Ok(response);
    }
    let (code, told) = if parts.method == Method::PUT {
        let bytes = receive::read(&parts.headers, body).await?;
        let value = String::from_utf8_lossy(&bytes).into_owned();
        match level(&value).and_then(set) {
            Ok(()) => (StatusCode::OK, format!("successfully set klog.logging.verbosity to {value}")),
            Err(why) => (StatusCode::BAD_REQUEST, format!("failed set klog.logging.verbosity {value}: {why}")),
        }
    } else {
        (StatusCode::NOT_ACCEPTABLE, "unsupported http method".to_owned())
    };
    let mut response = plain(code, format!("{told}\n"));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// A level, read as Go reads it.
fn level(text: &str) -> Result<i32, String> {
    text.parse().map_err(|error: std::num::ParseIntError| {
        use std::num::IntErrorKind;
        let why = match error.kind() {
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        format!("strconv.ParseInt: parsing {}: {why}", api::field::go_quote(text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, Full};

    #[tokio::test]
    async fn how_much_is_logged_is_put_and_nothing_else() {
        let set: SetVerbosity = |level| if level == 4 { Ok(()) } else { Err("no".to_owned()) };
        for (method, path, body, code, told) in [
            (Method::PUT, "/debug/flags/v", "4", 200, "successfully set klog.logging.verbosity to 4\n"),
            (Method::PUT, "/debug/flags/v", "5", 400, "failed set klog.logging.verbosity 5: no\n"),
            (
                Method::PUT,
                "/debug/flags/v",
                "x",
                400,
                "failed set klog.logging.verbosity x: strconv.ParseInt: parsing \"x\": invalid syntax\n",
            ),
            (Method::GET, "/debug/flags/v", "", 406, "unsupported http method\n"),
            (Method::GET, "/debug/flags", "", 200, INDEX),
            (Method::GET, "/debug/flags/x", "", 200, INDEX),
        ] {
            assert!(is_below(path));
            let (parts, ()) = http::Request::builder().method(method).body(()).expect("a request").into_parts();
            let body = Full::from(body).map_err(|never| match never {}).boxed_unsync();
            let answer = answer(&parts, path, body, set).await.expect("answered");
            assert_eq!(answer.status().as_u16(), code, "{path}");
            let text = answer.into_body().collect().await.expect("a body").to_bytes();
            assert_eq!(text, told.as_bytes(), "{path}");
        }
        assert!(!is_below("/debug/flagsx") && !is_below("/debug"));
    }
}
