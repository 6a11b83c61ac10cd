//! Reads answers within bounds, and turns the unexpected ones into errors.

use bytes::Bytes;
use http::{Method, Response, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Deserialize;

use super::{
    auth::printable,
    error::Error,
    transport::{reason, shown},
};

const MAX_MESSAGE: u64 = 64 * 1024;
const BODY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

/// The whole body of an answer of at most `limit` bytes.
pub(super) async fn body(method: &Method, uri: &Uri, response: Response<Incoming>, limit: u64) -> Result<Bytes, Error> {
    let limited = Limited::new(response.into_body(), usize::try_from(limit).unwrap_or(usize::MAX));
    match tokio::time::timeout(BODY_TIMEOUT, limited.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Error::Protocol { url: shown(uri), reason: format!("it is over {limit} bytes long") })
        }
        Ok(Err(error)) => {
            let reason = reason(error.as_ref());
            Err(Error::Request { method: method.clone(), url: shown(uri), reason })
        }
        Err(_) => Err(Error::Request {
            method: method.clone(),
            url: shown(uri),
            reason: "i/o timeout while reading the body".into(),
        }),
    }
}

/// The error that an answer without success stands for, with what the registry says about it.
pub(super) async fn fail(method: &Method, uri: &Uri, response: Response<Incoming>) -> Error {
    #[derive(Deserialize)]
    struct Answer {
        errors: Vec<Message>,
    }
    #[derive(Deserialize)]
    struct Message {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let status = response.status();
    // The message is a courtesy: without it the status has to do.
    let bytes = body(method, uri, response, MAX_MESSAGE).await.unwrap_or_default();
    let messages = serde_json::from_slice(&bytes).map_or(Vec::new(), |answer: Answer| answer.errors);
    let message = messages.first().map(|Message { code, message }| {
        format!(" - Server message: {}: {}", printable(&code.to_ascii_lowercase()), printable(message))
    });
    let message = message.unwrap_or_default();
    Error::Status { method: method.clone(), url: shown(uri), status, message }
}
