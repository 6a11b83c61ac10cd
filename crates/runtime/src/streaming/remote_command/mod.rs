//! Exec and attach, as clients speak it: SPDY streams or WebSocket channels. No IO.

mod spdy;
mod web_socket;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

pub(in crate::streaming) use self::web_socket::Encoding;
pub(crate) use self::{
    spdy::{RemoteSpdy, SPDY_PROTOCOLS},
    web_socket::{RemoteWebSocket, WEBSOCKET_PROTOCOLS},
};

/// What the client does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ClientEvent {
    /// All of its streams are open.
    Ready,
    Stdin(Bytes),
    StdinClosed,
    Resize {
        width: u16,
        height: u16,
    },
}

/// What it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ToClient {
    Stdout(Bytes),
    Stderr(Bytes),
    /// The last word.
    Finish(Outcome),
}

/// How it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    /// The command has ended with another code than 0.
    ExitCode {
        code: i32,
        command: Vec<String>,
    },
    /// It could not be run.
    Failure(String),
}

impl Outcome {
    /// For version 4 of the protocol and later.
    fn status(&self) -> String {
        let status = match self {
            Self::Success => json!({"metadata": {}, "status": "Success"}),
            Self::ExitCode { code, .. } => json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("command terminated with non-zero exit code: {}", self.text()),
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Self::Failure(_) => json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("Internal error occurred: {}", self.text()),
                "reason": "InternalError",
                "details": {"causes": [{"message": self.text()}]},
                "code": 500,
            }),
        };
        status.to_string()
    }

    fn text(&self) -> String {
        match self {
            Self::Success => String::new(),
            Self::ExitCode { code, command } => {
                format!("error executing command [{}], exit code {code}", command.join(" "))
            }
            Self::Failure(message) => format!("error executing command in container: {message}"),
        }
    }

    /// What goes on the error stream, if anything.
    fn message(&self, with_status: bool) -> Option<String> {
        match (with_status, self) {
            (true, _) => Some(self.status()),
            (false, Self::Success) => None,
            (false, _) => Some(self.text()),
        }
    }
}

/// Sizes of a terminal arrive as JSON objects one after the other, cut anywhere.
#[derive(Debug, Default)]
struct Sizes(Vec<u8>);

#[derive(Deserialize)]
struct Size {
    #[serde(rename = "Width")]
    width: u16,
    #[serde(rename = "Height")]
    height: u16,
}

impl Sizes {
    /// Longest text without a whole size in it.
    const MAX: usize = 4096;

    fn feed(&mut self, bytes: &[u8]) -> Vec<ClientEvent> {
        self.0.extend_from_slice(bytes);
        let mut events = Vec::new();
        let mut used = 0;
        {
            let mut stream = serde_json::Deserializer::from_slice(&self.0).into_iter::<Size>();
            while let Some(Ok(Size { width, height })) = stream.next() {
                used = stream.byte_offset();
                events.push(ClientEvent::Resize { width, height });
            }
        }
        self.0.drain(..used);
        if self.0.len() > Self::MAX {
            self.0.clear();
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_what_clients_parse() {
        let outcome = Outcome::ExitCode { code: 3, command: vec!["sh".into(), "-c".into(), "exit 3".into()] };
        let status: serde_json::Value = serde_json::from_str(&outcome.status()).unwrap();
        assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
        assert_eq!(
            status["message"],
            "command terminated with non-zero exit code: error executing command [sh -c exit 3], exit code 3"
        );
        assert_eq!(Outcome::Success.message(false), None);
        assert_eq!(Outcome::Success.message(true).unwrap(), r#"{"metadata":{},"status":"Success"}"#);
    }

    #[test]
    fn sizes_may_be_cut_anywhere() {
        let mut sizes = Sizes::default();
        assert!(sizes.feed(b"{\"Width\":1,\"He").is_empty());
        assert_eq!(
            sizes.feed(b"ight\":2}\n{\"Width\":3,\"Height\":4}\n{"),
            [ClientEvent::Resize { width: 1, height: 2 }, ClientEvent::Resize { width: 3, height: 4 },]
        );
        for _ in 0..1000 {
            sizes.feed(b"xxxxxxxx");
        }
        assert!(sizes.0.len() <= Sizes::MAX);
    }
}
