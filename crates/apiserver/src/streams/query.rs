//! Queries: the options of streams, as clients give them and as kubelets take them.

use crate::request::{all_parameters, is_true};
use api::{FieldError, GroupKind, Path, Status};
use schema::{Map, Value};

/// The parameters of a request.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(text: &str) -> Self {
        Query(all_parameters(text).collect())
    }
    pub fn first(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }
    pub fn flag(&self, name: &str) -> bool {
        is_true(self.first(name))
    }
    /// A number; 400 for what is none.
    fn number(&self, name: &str) -> Result<Option<i64>, Status> {
        let Some(text) = self.first(name).filter(|t| !t.is_empty()) else { return Ok(None) };
        api::number::int(text).map(Some).map_err(Status::bad_request)
    }
}

/// A query being written, its values escaped.
#[derive(Default)]
pub struct Writer(String);

impl Writer {
    pub fn add(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        escape(name, &mut self.0);
        self.0.push('=');
        escape(value, &mut self.0);
    }
    /// The path with the query, if there is any.
    pub fn behind(self, path: String) -> String {
        if self.0.is_empty() { path } else { format!("{path}?{}", self.0) }
    }
}

fn escape(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

/// What exec and attach ask for: as admission sees it, and as a kubelet takes it.
pub fn remote_command(query: &Query, kind: &'static str, container: &str) -> (Map, Writer) {
    let (mut object, mut out) = (Map::new(), Writer::default());
    object.insert("apiVersion", "v1");
    object.insert("kind", kind);
    for (name, kubelets) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if query.flag(name) {
            object.insert(name, true);
            out.add(kubelets, "1");
        }
    }
    object.insert("container", container);
    if kind == "PodExecOptions" {
        let command: Vec<&str> = query.all("command").collect();
        command.iter().for_each(|part| out.add("command", part));
        object.insert("command", command.into_iter().map(Value::from).collect::<Vec<_>>());
    }
    (object, out)
}

/// The streams of a log, first what is given when nobody asks.
const STREAMS: [&str; 3] = ["All", "Stderr", "Stdout"];

/// The options of a log, checked and as a kubelet takes them; `split`: one of its streams may be asked for.
///
/// # Errors
/// 400 for what can't be read, 422 for bad values.
pub fn log(query: &Query, pod: &str, split: bool) -> Result<Writer, Status> {
    let (tail, limit, since) = (query.number("tailLines")?, query.number("limitBytes")?, query.number("sinceSeconds")?);
    // Who once wrote JSON there wrote `null` for no time.
    let since_time = query.first("sinceTime").filter(|t| !matches!(*t, "" | "null"));
    if let Some(why) = since_time.and_then(schema::time_problem) {
        return Err(Status::bad_request(why));
    }
    let mut errors = Vec::new();
    if let Some(lines) = tail.filter(|lines| *lines < 0) {
        errors.push(FieldError::invalid(&"tailLines", lines, "must be greater than or equal to 0"));
    }
    if let Some(bytes) = limit.filter(|bytes| *bytes < 1) {
        errors.push(FieldError::invalid(&"limitBytes", bytes, "must be greater than 0"));
    }
    match (since, since_time) {
        (Some(_), Some(_)) => {
            errors.push(FieldError::forbidden(
                &Path::root(""),
                "at most one of `sinceTime` or `sinceSeconds` may be specified",
            ));
        }
        (Some(seconds), None) if seconds < 1 => {
            errors.push(FieldError::invalid(&"sinceSeconds", seconds, "must be greater than 0"));
        }
        _ => {}
    }
    // Where streams are not split, who asks for one is given both.
    let stream = split.then(|| query.first("stream").filter(|t| !t.is_empty()).unwrap_or(STREAMS[0]));
    if let Some(stream) = stream {
        if !STREAMS.contains(&stream) {
            errors.push(FieldError::not_supported(&"stream", stream, &STREAMS));
        }
        if stream != STREAMS[0] && tail.is_some() {
            let why = "`tailLines` and specific `stream` are mutually exclusive for now";
            errors.push(FieldError::forbidden(&Path::root(""), why));
        }
    }
    if !errors.is_empty() {
        return Err(Status::invalid(&GroupKind::new("", "PodLogOptions"), pod, &errors));
    }
    let mut out = Writer::default();
    for name in ["follow", "previous", "timestamps"] {
        if query.flag(name) {
            out.add(name, "true");
        }
    }
    for (name, number) in [("sinceSeconds", since), ("tailLines", tail), ("limitBytes", limit)] {
        if let Some(number) = number {
            out.add(name, &number.to_string());
        }
    }
    for (name, text) in [("sinceTime", since_time), ("stream", stream)] {
        if let Some(text) = text {
            out.add(name, text);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exec_is_translated_for_the_kubelet() {
        let query = Query::parse("command=sh&command=-c&command=echo+a%26b&stdin=true&stdout=1&tty=false&container=c");
        let (object, out) = remote_command(&query, "PodExecOptions", "c");
        assert_eq!(
            out.behind("/exec/n/p/c".into()),
            "/exec/n/p/c?input=1&output=1&command=sh&command=-c&command=echo%20a%26b"
        );
        assert_eq!(object.get("command").and_then(Value::as_list).map(<[Value]>::len), Some(3));
        assert_eq!(object.get("tty"), None);
    }

    #[test]
    fn log_options_are_checked_and_passed_on() {
        let query = Query::parse("follow=true&tailLines=10&sinceTime=2026-01-01T00:00:00Z&container=x");
        assert_eq!(
            log(&query, "p", false).expect("good").behind("/l".into()),
            "/l?follow=true&tailLines=10&sinceTime=2026-01-01T00%3A00%3A00Z"
        );
        let refused = log(&Query::parse("tailLines=-1&limitBytes=0"), "p", false).err().expect("bad");
        assert_eq!(refused.code, 422);
        assert!(
            refused.message.contains("tailLines: Invalid value: -1: must be greater than or equal to 0"),
            "{refused}"
        );
        assert_eq!(log(&Query::parse("tailLines=x"), "p", false).err().expect("bad").code, 400);
        let refused = log(&Query::parse("sinceTime=bad"), "p", false).err().expect("bad");
        let why = "parsing time \"bad\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"bad\" as \"2006\"";
        assert_eq!((refused.code, refused.message.as_str()), (400, why));
        assert!(log(&Query::parse("sinceTime=null"), "p", false).is_ok());
    }

    #[test]
    fn streams_of_a_log_are_asked_for_where_they_are_split() {
        let asked = |text: &str, split| log(&Query::parse(text), "p", split).map(|out| out.behind("/l".into()));
        assert_eq!(asked("stream=Stdout", false).as_deref().ok(), Some("/l"));
        assert_eq!(asked("stream=Stdout", true).as_deref().ok(), Some("/l?stream=Stdout"));
        assert_eq!(asked("", true).as_deref().ok(), Some("/l?stream=All"));
        assert_eq!(
            asked("stream=both&tailLines=1", true).expect_err("bad").message,
            "PodLogOptions \"p\" is invalid: [stream: Unsupported value: \"both\": supported values: \"All\", \"Stderr\", \"Stdout\", []: Forbidden: `tailLines` and specific `stream` are mutually exclusive for now]"
        );
    }
}
