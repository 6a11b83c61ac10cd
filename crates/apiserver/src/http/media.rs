//! Which format and shape a client wants its answer in, and which one it sends.

use api::Status;
use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, USER_AGENT};

pub const JSON: &str = "application/json";
pub const YAML: &str = "application/yaml";
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// What watches can be had in, as refusals name it.
const STREAMS: [&str; 2] = ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];

/// How objects are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Json,
    Yaml,
    Protobuf,
}

impl Format {
    pub const fn content_type(self) -> &'static str {
        match self {
            Format::Json => JSON,
            Format::Yaml => YAML,
            Format::Protobuf => PROTOBUF,
        }
    }
}

/// What of an object is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    #[default]
    Object,
    /// `Table` of a version of `meta.k8s.io`.
    Table(MetaVersion),
    /// `PartialObjectMetadata`; of a watch its list, too.
    Metadata(MetaVersion),
    /// `PartialObjectMetadataList`, which only lists have.
    MetadataList(MetaVersion),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaVersion {
    V1,
    V1Beta1,
}

impl MetaVersion {
    pub const fn api_version(self) -> &'static str {
        match self {
            MetaVersion::V1 => "meta.k8s.io/v1",
            MetaVersion::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// What of each object a table carries beside its cells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Include {
    None,
    #[default]
    Metadata,
    Object,
}

/// What a client wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    pub format: Format,
    pub shape: Shape,
    pub include: Include,
    /// Indented, for people.
    pub pretty: bool,
    /// Compressed when it is worth it.
    pub gzip: bool,
}

/// One element of `Accept`.
struct Range<'a> {
    media: &'a str,
    quality: f32,
    kind: &'a str,
    group: &'a str,
    version: &'a str,
    pretty: bool,
}

fn ranges(accept: &str) -> Vec<Range<'_>> {
    let mut ranges: Vec<Range<'_>> = accept
        .split(',')
        .filter_map(|element| {
            let mut parts = element.split(';').map(str::trim);
            let media = parts.next().filter(|media| !media.is_empty())?;
            let mut range = Range { media, quality: 1.0, kind: "", group: "", version: "", pretty: false };
            for parameter in parts {
                let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
                match key {
                    "q" => range.quality = value.parse().unwrap_or(1.0),
                    "as" => range.kind = value,
                    "g" => range.group = value,
                    "v" => range.version = value,
                    "pretty" => range.pretty = value == "1",
                    _ => {}
                }
            }
            Some(range)
        })
        .collect();
    // Stable: among equals the first stays first.
    ranges.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    ranges
}

impl View {
    /// What the request's headers and query ask for. `shapes`: the endpoint can answer with tables and partial objects.
    ///
    /// # Errors
    /// 406 when nothing that is accepted can be given.
    pub fn of(headers: &HeaderMap, query: &str, shapes: bool, watch: bool) -> Result<Self, Status> {
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        let mut view = View {
            gzip: header(ACCEPT_ENCODING).split(',').any(|e| e.split(';').next().is_some_and(|e| e.trim() == "gzip")),
            ..View::default()
        };
        view.pretty = match crate::request::parameter(query, "pretty") {
            Some(value) => crate::request::is_true(Some(&value)),
            None => ["curl", "Wget", "Mozilla/5.0"].iter().any(|agent| header(USER_AGENT).starts_with(agent)),
        };
        let accept: Vec<&str> =
            headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()).filter(|v| !v.is_empty()).collect();
        let accept = accept.join(",");
        if accept.is_empty() {
            return Ok(view);
        }
        for range in ranges(&accept) {
            let format = match range.media {
                JSON | "*/*" | "application/*" => Format::Json,
                YAML | "application/x-yaml" if !watch => Format::Yaml,
                PROTOBUF => Format::Protobuf,
                _ => continue,
            };
            let shape = match (range.kind, range.version) {
                ("", _) => Shape::Object,
                _ if !shapes || range.group != "meta.k8s.io" => continue,
                // Tables hold cells of any kind, for which protobuf has no message.
                ("Table", "v1") if format != Format::Protobuf => Shape::Table(MetaVersion::V1),
                ("Table", "v1beta1") if format != Format::Protobuf => Shape::Table(MetaVersion::V1Beta1),
                ("PartialObjectMetadata", "v1") => Shape::Metadata(MetaVersion::V1),
                ("PartialObjectMetadata", "v1beta1") => Shape::Metadata(MetaVersion::V1Beta1),
                ("PartialObjectMetadataList", "v1") => Shape::MetadataList(MetaVersion::V1),
                ("PartialObjectMetadataList", "v1beta1") => Shape::MetadataList(MetaVersion::V1Beta1),
                _ => continue,
            };
            let shape = match shape {
                Shape::MetadataList(version) if watch => Shape::Metadata(version),
                shape => shape,
            };
            view.pretty |= range.pretty;
            view.format = format;
            view.shape = shape;
            if matches!(shape, Shape::Table(_)) {
                view.include = include(query)?;
            }
            return Ok(view);
        }
        Err(Status::not_acceptable(if watch { &STREAMS } else { &[JSON, YAML, PROTOBUF] }))
    }

    /// The same for a refusal, which has no shape but its own. Who accepts nothing that it can be given as is told in indented JSON,
    /// as upstream does.
    pub fn for_error(headers: &HeaderMap, query: &str) -> Self {
        View::of(headers, query, false, false).unwrap_or(View { pretty: true, ..View::default() })
    }
}

fn include(query: &str) -> Result<Include, Status> {
    match crate::request::parameter(query, "includeObject").as_deref() {
        None | Some("" | "Metadata") => Ok(Include::Metadata),
        Some("Object") => Ok(Include::Object),
        Some("None") => Ok(Include::None),
        Some(other) => Err(Status::bad_request(format!("unrecognized includeObject value: {other:?}"))),
    }
}

/// The media type of the request's body, without parameters. Empty: none was said.
pub fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    value.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

/// The format of a body.
///
/// # Errors
/// 415 for what is none.
pub fn body_format(headers: &HeaderMap) -> Result<Format, Status> {
    match content_type(headers).as_str() {
        "" | JSON => Ok(Format::Json),
        YAML | "application/x-yaml" => Ok(Format::Yaml),
        PROTOBUF => Ok(Format::Protobuf),
        _ => Err(Status::unsupported_media_type(&[JSON, YAML, PROTOBUF])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn view(accept: &str) -> Result<View, Status> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("a header"));
        View::of(&headers, "", true, false)
    }

    #[test]
    fn kubectl_gets_its_table() -> Result<(), Status> {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(view(kubectl)?.shape, Shape::Table(MetaVersion::V1));
        Ok(())
    }

    #[test]
    fn what_is_accepted_may_be_for_people() -> Result<(), Status> {
        assert!(view("application/json;pretty=1")?.pretty);
        assert!(view("application/yaml;q=0.1, application/json;pretty=1")?.pretty);
        for plain in
            ["application/json;pretty=0", "application/json;pretty=true", "application/json;pretty=1;q=0.1,*/*"]
        {
            assert!(!view(plain)?.pretty, "{plain}");
        }
        Ok(())
    }

    #[test]
    fn the_best_that_can_be_given_is_given() -> Result<(), Status> {
        assert_eq!(view("application/vnd.kubernetes.protobuf,application/json")?.format, Format::Protobuf);
        assert_eq!(view("text/html, */*;q=0.1")?.format, Format::Json);
        assert_eq!(view("application/json;q=0.5, application/yaml")?.format, Format::Yaml);
        assert_eq!(view("application/cbor, application/yaml")?.format, Format::Yaml);
        let metadata =
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
        assert_eq!(view(metadata)?.shape, Shape::MetadataList(MetaVersion::V1));
        assert_eq!(view("text/html").expect_err("nothing fits").code, 406);
        let yaml = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(YAML))]);
        let refused = View::of(&yaml, "", true, true).expect_err("nothing is watched in YAML");
        assert_eq!(
            refused.message,
            "only the following media types are accepted: application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
        );
        Ok(())
    }
}
