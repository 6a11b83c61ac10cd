//! `/statusz` and `/flagz`: what runs here, since when and how it was started, for people; as JSON for who asks for it.

use super::chain::plain;
use crate::http::media::JSON;
use crate::http::{Body, Response, answer};
use http::header::ACCEPT;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use schema::{Map, Value};
use std::collections::BTreeMap;
use std::fmt::Write;

const COMPONENT: &str = "kube-apiserver";
const GROUP: &str = "config.k8s.io";
const WARNING: &str = "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.";

/// What a page is answered as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Text,
    /// An object of this version.
    Object(&'static str),
}

/// The first acceptable shape of a page whose objects are of this kind; text, where nothing is said.
fn shape(headers: &HeaderMap, kind: &str) -> Option<Shape> {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.is_empty() {
        return Some(Shape::Text);
    }
    accept.split(',').find_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let parameters: BTreeMap<&str, &str> =
            parts.filter_map(|p| p.split_once('=')).filter(|(key, _)| *key != "q").collect();
        let text = matches!(media, "text/plain" | "text/*" | "*/*")
            && parameters.iter().all(|(key, value)| *key == "charset" && value.eq_ignore_ascii_case("utf-8"));
        if text {
            return Some(Shape::Text);
        }
        let asked = media == JSON && parameters.get("g") == Some(&GROUP) && parameters.get("as") == Some(&kind);
        let versions = ["v1beta1", "v1alpha1"];
        let version = versions.into_iter().find(|version| parameters.get("v") == Some(version));
        version.filter(|_| asked).map(Shape::Object)
    })
}

fn not_acceptable() -> Response<Body> {
    plain(StatusCode::NOT_ACCEPTABLE, "media type not acceptable, must be: text/plain\n")
}

fn object(kind: &str, version: &str) -> Map {
    let mut object = Map::new();
    object.insert("kind", kind);
    object.insert("apiVersion", format!("{GROUP}/{version}"));
    object.set_at(&["metadata", "name"], COMPONENT);
    object
}

fn json(object: &Map) -> Response<Body> {
    answer::raw(StatusCode::OK, schema::json::to_string(object).into(), JSON, false)
}

/// What `/statusz` tells.
pub(super) struct Status<'a> {
    pub(super) started: Timestamp,
    pub(super) now: Timestamp,
    /// `v1.36.0+…`
    pub(super) version: &'a str,
    pub(super) paths: Vec<String>,
}

impl Status<'_> {
    pub(super) fn answer(&self, headers: &HeaderMap) -> Response<Body> {
        let up = (self.now.as_second() - self.started.as_second()).max(0);
        let version = self.version.trim_start_matches('v');
        match shape(headers, "Statusz") {
            None => not_acceptable(),
            Some(Shape::Object(of)) => {
                let mut object = object("Statusz", of);
                object.insert("startTime", self.started.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
                object.insert("uptimeSeconds", up);
                object.insert("goVersion", super::paths::GO_VERSION);
                object.insert("binaryVersion", version);
                object.insert("emulationVersion", super::paths::EMULATED);
                object.insert("paths", self.paths.iter().map(|path| path.as_str().into()).collect::<Vec<Value>>());
                json(&object)
            }
            Some(Shape::Text) => {
                let (hours, minutes, seconds) = (up / 3600, up / 60 % 60, up % 60);
                let started = self.started.strftime("%a %b %e %H:%M:%S UTC %Y");
                let text = format!(
                    "\n{COMPONENT} statusz\n{WARNING}\n\nStarted: {started}\nUp: {hours} hr {minutes:02} min {seconds:02} sec\n\
                     Go version: {}\nBinary version: {version}\nEmulation version: {}\nPaths: {}\n",
                    super::paths::GO_VERSION,
                    super::paths::EMULATED,
                    self.paths.join(" ")
                );
                plain(StatusCode::OK, text)
            }
        }
    }
}

/// What `/flagz` tells: the server's flags, those too that nobody gave.
pub(super) fn flags(flags: &BTreeMap<String, String>, headers: &HeaderMap) -> Response<Body> {
    match shape(headers, "Flagz") {
        None => not_acceptable(),
        Some(Shape::Object(of)) => {
            let mut object = object("Flagz", of);
            let all: Map = flags.iter().map(|(name, value)| (name.clone().into(), value.as_str().into())).collect();
            object.insert("flags", all);
            json(&object)
        }
        Some(Shape::Text) => {
            let mut text = format!("\n{COMPONENT} flags\n{WARNING}\n\n");
            for (name, value) in flags {
                // A String takes every write.
                writeln!(text, "{name}={value}").unwrap_or(());
            }
            plain(StatusCode::OK, text)
        }
    }
}
