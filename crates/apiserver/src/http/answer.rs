//! Answers: objects, lists and refusals, in the format and shape that is wanted.

use super::media::{Format, Include, MetaVersion, Shape, View};
use super::{Body, fit, yaml};
use crate::cache::Entry;
use crate::registry::{Listed, Served, Written};
use crate::table;
use api::Status;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER, VARY};
use http::{Response, StatusCode};
use jiff::Timestamp;
use schema::resource::Column;
use schema::{Map, Value};
use std::io::Write;
use std::sync::Arc;

/// What is not worth compressing.
const GZIP_FROM: usize = 128 * 1024;
/// What a long list is sent in.
const PIECE: usize = 128 * 1024;

/// One object to be shown.
#[derive(Clone, Copy, Debug)]
pub enum Object<'a> {
    Entry(&'a Entry),
    /// A tree in the version of the request, and its item's JSON when that is made already.
    Tree(&'a Map, Option<&'a Bytes>),
}

impl<'a> Object<'a> {
    pub fn written(written: &'a Written) -> Self {
        Object::Tree(&written.object, written.item.as_ref())
    }

    fn tree(self, served: &Served) -> Result<std::borrow::Cow<'a, Map>, Status> {
        Ok(match self {
            Object::Entry(entry) => std::borrow::Cow::Owned(served.decode(entry)?),
            Object::Tree(tree, _) => std::borrow::Cow::Borrowed(tree),
        })
    }
}

fn json(object: &Map) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    schema::json::encode(object, &mut out);
    out
}

/// The bytes of a tree of the resource's kind.
fn tree_bytes(served: &Served, tree: &Map, format: Format) -> Result<Vec<u8>, Status> {
    match format {
        Format::Json => Ok(json(tree)),
        Format::Yaml => {
            let mut out = String::new();
            yaml::encode(tree, &mut out);
            Ok(out.into_bytes())
        }
        Format::Protobuf => {
            let mut out = Vec::new();
            schema::protobuf::encode(served.resource.schema.root(), tree, &mut out)
                .map_err(|error| Status::internal(format!("the object can't be written as protobuf: {error}")))?;
            Ok(out)
        }
    }
}

/// The bytes of a tree of a `meta.k8s.io` type.
fn meta_bytes(tree: &Map, format: Format) -> Result<Vec<u8>, Status> {
    match format {
        Format::Json => Ok(json(tree)),
        Format::Yaml => {
            let mut out = String::new();
            yaml::encode(tree, &mut out);
            Ok(out.into_bytes())
        }
        Format::Protobuf => super::metadata::encode(tree),
    }
}

/// An object in a view, without its outer shell of HTTP.
///
/// # Errors
/// 500 when what is stored can't be read, 406 when one object can't be shown so.
pub fn object_bytes(
    served: &Served,
    object: Object<'_>,
    view: View,
    headers: bool,
    now: Timestamp,
) -> Result<Bytes, Status> {
    match (view.shape, view.format) {
        (Shape::Object, Format::Json) => match object {
            Object::Entry(entry) => served.json(entry),
            Object::Tree(_, Some(item)) => Ok(schema::encoded::object(served.head(), item)),
            Object::Tree(tree, None) => Ok(json(tree).into()),
        },
        (Shape::Object, format) => Ok(tree_bytes(served, object.tree(served)?.as_ref(), format)?.into()),
        (Shape::Metadata(version), format) => {
            let tree = object.tree(served)?;
            Ok(meta_bytes(&partial(version, &tree), format)?.into())
        }
        (Shape::MetadataList(_), _) => Err(fit::is_no_list(&served.resource)),
        (Shape::Table(version), format) => {
            let tree = object.tree(served)?;
            let mut metadata = Map::new();
            if let Some(revision) = tree.at(&["metadata", "resourceVersion"]) {
                metadata.insert("resourceVersion", revision.clone());
            }
            let rows = vec![row(served, &tree, version, view.include, now)];
            let columns = if headers { table::columns(&served.resource) } else { Vec::new() };
            Ok(meta_bytes(&table_of(&columns, version, metadata, rows, headers), format)?.into())
        }
    }
}

/// `PartialObjectMetadata` of an object.
pub fn partial(version: MetaVersion, object: &Map) -> Map {
    let mut map = Map::new();
    map.insert("apiVersion", version.api_version());
    map.insert("kind", "PartialObjectMetadata");
    map.insert("metadata", object.get("metadata").cloned().unwrap_or_else(|| Value::Map(Map::new())));
    map
}

fn row(served: &Served, object: &Map, version: MetaVersion, include: Include, now: Timestamp) -> Value {
    let mut row = Map::new();
    row.insert("cells", table::cells(&served.resource, object, now));
    if let Some(conditions) = table::conditions(&served.resource, object) {
        row.insert("conditions", conditions);
    }
    finish_row(row, object, version, include)
}

/// What of its object a row carries.
fn finish_row(mut row: Map, object: &Map, version: MetaVersion, include: Include) -> Value {
    match include {
        Include::None => {}
        Include::Metadata => {
            row.insert("object", partial(version, object));
        }
        Include::Object => {
            row.insert("object", object.clone());
        }
    }
    Value::Map(row)
}

fn table_of(columns: &[Column], version: MetaVersion, metadata: Map, rows: Vec<Value>, headers: bool) -> Map {
    let columns = columns.iter().map(|column| {
        let mut map = Map::new();
        map.insert("name", column.name.as_ref());
        map.insert("type", column.kind.as_ref());
        map.insert("format", column.format.as_ref());
        map.insert("description", column.description.as_ref());
        map.insert("priority", i64::from(column.priority));
        Value::Map(map)
    });
    let mut table = Map::new();
    table.insert("kind", "Table");
    table.insert("apiVersion", version.api_version());
    table.insert("metadata", metadata);
    table.insert("columnDefinitions", if headers { Value::List(columns.collect()) } else { Value::Null });
    table.insert("rows", rows);
    table
}

fn list_metadata(listed: &Listed) -> Map {
    let mut metadata = Map::new();
    metadata.insert("resourceVersion", listed.revision.to_string());
    if !listed.next.is_empty() {
        metadata.insert("continue", listed.next.as_str());
    }
    if let Some(remaining) = listed.remaining.and_then(|n| i64::try_from(n).ok()) {
        metadata.insert("remainingItemCount", remaining);
    }
    metadata
}

/// Answers with an object.
///
/// # Errors
/// As [`object_bytes`].
pub fn object(
    code: StatusCode,
    served: &Served,
    object: Object<'_>,
    view: View,
    now: Timestamp,
) -> Result<Response<Body>, Status> {
    let bytes = object_bytes(served, object, view, true, now)?;
    Ok(finish(code, bytes, view))
}

/// Answers with a tree of whatever kind (reviews, scales), whose type the caller knows.
///
/// # Errors
/// 500 when it does not fit its type.
pub fn tree(code: StatusCode, ty: schema::TypeRef<'_>, tree: &Map, view: View) -> Result<Response<Body>, Status> {
    let bytes = match view.format {
        Format::Protobuf => {
            let mut out = Vec::new();
            schema::protobuf::encode(ty, tree, &mut out)
                .map_err(|error| Status::internal(format!("the object can't be written as protobuf: {error}")))?;
            out
        }
        format => meta_bytes(tree, format)?,
    };
    Ok(finish(code, bytes.into(), view))
}

/// Answers with an object as a subresource shows it, whose kind and type the caller knows, in the shape that is wanted.
///
/// # Errors
/// 500 when it does not fit its type, 406 when it can't be shown so.
pub fn lens(
    code: StatusCode,
    ty: schema::TypeRef<'_>,
    (group, kind): (&str, &str),
    object: &Map,
    view: View,
    now: Timestamp,
) -> Result<Response<Body>, Status> {
    let shown = match view.shape {
        Shape::Object => return tree(code, ty, object, view),
        Shape::Metadata(version) => partial(version, object),
        Shape::MetadataList(_) => {
            return Err(fit::is_no_list_but(&format!("*{}.{kind}", crate::scheme::package(group))));
        }
        Shape::Table(version) => {
            let mut metadata = Map::new();
            if let Some(revision) = object.at(&["metadata", "resourceVersion"]) {
                metadata.insert("resourceVersion", revision.clone());
            }
            let (columns, cells) = table::of_lens(group, kind, object, now);
            let mut row = Map::new();
            row.insert("cells", cells);
            let rows = vec![finish_row(row, object, version, view.include)];
            table_of(&columns, version, metadata, rows, true)
        }
    };
    Ok(finish(code, meta_bytes(&shown, view.format)?.into(), view))
}

/// Answers with a document of a kind of ours, which has no protobuf.
///
/// # Errors
/// 406 when it is wanted as that.
pub fn document(document: &Map, view: View) -> Result<Response<Body>, Status> {
    if view.format == Format::Protobuf {
        return Err(Status::not_acceptable(&["application/json", "application/yaml"]));
    }
    Ok(finish(StatusCode::OK, meta_bytes(document, view.format)?.into(), view))
}

/// Answers with a list.
///
/// # Errors
/// 500 when what is stored can't be read, 406 when no list can be shown so.
pub fn list(served: &Arc<Served>, listed: Listed, view: View, now: Timestamp) -> Result<Response<Body>, Status> {
    let metadata = list_metadata(&listed);
    match (view.shape, view.format) {
        (Shape::Object, Format::Json) if served.conversion.is_none() => Ok(json_list(served, listed, view)),
        (Shape::Object, format) => {
            let trees: Result<Vec<Map>, Status> = listed.entries.iter().map(|entry| served.decode(entry)).collect();
            trees_list(served, &trees?, metadata, View { format, ..view })
        }
        (Shape::Metadata(_), _) => Err(fit::is_a_list(&served.resource)),
        (Shape::MetadataList(version), format) => {
            let mut items = Vec::with_capacity(listed.entries.len());
            for entry in &listed.entries {
                items.push(Value::Map(partial(version, &served.decode(entry)?)));
            }
            let mut list = Map::new();
            list.insert("apiVersion", version.api_version());
            list.insert("kind", "PartialObjectMetadataList");
            list.insert("metadata", metadata);
            list.insert("items", items);
            Ok(finish(StatusCode::OK, meta_bytes(&list, format)?.into(), view))
        }
        (Shape::Table(version), format) => {
            let row = |tree: &Map| row(served, tree, version, view.include, now);
            let mut rows = Vec::with_capacity(listed.entries.len());
            if table::is_sorted(&served.resource) {
                let trees: Result<Vec<Map>, Status> = listed.entries.iter().map(|entry| served.decode(entry)).collect();
                let mut trees = trees?;
                table::sort(&mut trees);
                rows.extend(trees.iter().map(row));
            } else {
                // One tree at a time: all of a large cluster's would be many times what is stored of it.
                for entry in &listed.entries {
                    rows.push(row(&served.decode(entry)?));
                }
            }
            let table = table_of(&table::columns(&served.resource), version, metadata, rows, true);
            Ok(finish(StatusCode::OK, meta_bytes(&table, format)?.into(), view))
        }
    }
}

/// Answers with a list of trees, of a virtual resource.
///
/// # Errors
/// 500 when one of them does not fit its type, 406 when no list can be shown so.
pub fn trees(served: &Served, items: &[Map], view: View, now: Timestamp) -> Result<Response<Body>, Status> {
    let metadata = Map::new();
    match view.shape {
        Shape::Object => trees_list(served, items, metadata, view),
        Shape::Metadata(_) => Err(fit::is_a_list(&served.resource)),
        Shape::MetadataList(version) => {
            let mut list = Map::new();
            list.insert("apiVersion", version.api_version());
            list.insert("kind", "PartialObjectMetadataList");
            list.insert("metadata", metadata);
            list.insert("items", items.iter().map(|item| Value::Map(partial(version, item))).collect::<Vec<_>>());
            Ok(finish(StatusCode::OK, meta_bytes(&list, view.format)?.into(), view))
        }
        Shape::Table(version) => {
            let rows = items.iter().map(|item| row(served, item, version, view.include, now)).collect();
            let table = table_of(&table::columns(&served.resource), version, metadata, rows, true);
            Ok(finish(StatusCode::OK, meta_bytes(&table, view.format)?.into(), view))
        }
    }
}

fn trees_list(served: &Served, items: &[Map], metadata: Map, view: View) -> Result<Response<Body>, Status> {
    let bytes = match view.format {
        Format::Protobuf => {
            let ty = served.resource.schema.root();
            let failed = |error| Status::internal(format!("the list can't be written as protobuf: {error}"));
            let messages: Result<Vec<Vec<u8>>, _> =
                items.iter().map(|item| schema::protobuf::message(ty, item)).collect();
            let messages = messages.map_err(failed)?;
            let raw = schema::protobuf::list(&metadata, messages.iter().map(Vec::as_slice)).map_err(failed)?;
            let mut out = Vec::with_capacity(raw.len() + 32);
            schema::protobuf::envelope(served.api_version(), &served.resource.list_kind, &raw, &mut out);
            out
        }
        format => {
            let mut list = Map::new();
            list.insert("apiVersion", served.api_version());
            list.insert("kind", served.resource.list_kind.as_ref());
            list.insert("metadata", metadata);
            let bare = items.iter().map(|item| {
                let mut item = item.clone();
                item.remove("apiVersion");
                item.remove("kind");
                Value::Map(item)
            });
            list.insert("items", bare.collect::<Vec<_>>());
            meta_bytes(&list, format)?
        }
    };
    Ok(finish(StatusCode::OK, bytes.into(), view))
}

/// A list of the stored version: a concatenation, sent as it is made.
fn json_list(served: &Served, listed: Listed, view: View) -> Response<Body> {
    let mut head = schema::encoded::head(served.api_version(), &served.resource.list_kind);
    head.extend_from_slice(b"\"metadata\":");
    head.extend_from_slice(&json(&list_metadata(&listed)));
    head.extend_from_slice(b",\"items\":[");
    let size: usize = listed.entries.iter().map(|entry| entry.item().len() + 1).sum::<usize>() + head.len();
    let mut entries = listed.entries.into_iter();
    let mut buffer = head;
    let mut first = true;
    let mut done = false;
    let piece = if size <= PIECE * 2 { usize::MAX } else { PIECE };
    buffer.reserve(size.min(PIECE + PIECE / 4));
    let mut pieces = std::iter::from_fn(move || {
        if done {
            return None;
        }
        while buffer.len() < piece {
            let Some(entry) = entries.next() else {
                buffer.extend_from_slice(b"]}\n");
                done = true;
                break;
            };
            if !first {
                buffer.push(b',');
            }
            first = false;
            buffer.extend_from_slice(entry.item());
        }
        let next = if done { Vec::new() } else { Vec::with_capacity(PIECE + PIECE / 4) };
        Some(Bytes::from(std::mem::replace(&mut buffer, next)))
    });
    if piece == usize::MAX || view.pretty {
        let mut whole = Vec::with_capacity(size);
        pieces.for_each(|piece| whole.extend_from_slice(&piece));
        return finish(StatusCode::OK, whole.into(), view);
    }
    let mut response = if view.gzip {
        let mut encoder = Some(GzEncoder::new(Vec::new(), Compression::fast()));
        let mut response = Response::new(Body::pieces(std::iter::from_fn(move || {
            let mut writer = encoder.take()?;
            loop {
                match pieces.next() {
                    Some(piece) => {
                        // A Vec takes every write.
                        writer.write_all(&piece).unwrap_or(());
                        if writer.get_ref().len() >= PIECE / 4 {
                            let out = std::mem::take(writer.get_mut());
                            encoder = Some(writer);
                            return Some(Bytes::from(out));
                        }
                    }
                    None => return Some(writer.finish().unwrap_or_default().into()),
                }
            }
        })));
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
        response
    } else {
        let mut response = Response::new(Body::pieces(pieces));
        if let Ok(length) = HeaderValue::from_str(&(size + 2).to_string()) {
            response.headers_mut().insert(CONTENT_LENGTH, length);
        }
        response
    };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(view.format.content_type()));
    response
}

/// The answer around encoded bytes.
pub fn finish(code: StatusCode, bytes: Bytes, view: View) -> Response<Body> {
    let bytes = if view.format == Format::Json && view.pretty { indented(&bytes).into() } else { bytes };
    raw(code, bytes, view.format.content_type(), view.gzip)
}

/// An answer of any bytes.
pub fn raw(code: StatusCode, bytes: Bytes, content_type: &'static str, gzip: bool) -> Response<Body> {
    let compress = gzip && bytes.len() > GZIP_FROM;
    let body = if compress {
        let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
        // A Vec takes every write.
        encoder.write_all(&bytes).unwrap_or(());
        encoder.finish().unwrap_or_default().into()
    } else {
        bytes
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if compress {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    response
}

/// A refusal, in the format that is wanted.
pub fn refusal(status: &Status, view: View) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut json = status.to_json();
    let bytes = match view.format {
        Format::Json => {
            // As Go's encoder ends what it writes; indented, it ends nothing.
            json.push(b'\n');
            json
        }
        format => match schema::json::parse(&json) {
            Ok(Value::Map(tree)) => status_bytes(&tree, format).unwrap_or(json),
            _ => json,
        },
    };
    let mut response = finish(code, bytes.into(), view);
    if let Some(seconds) = status.details.as_ref().map(|details| details.retry_after_seconds).filter(|n| *n > 0)
        && let Ok(value) = HeaderValue::from_str(&seconds.to_string())
    {
        response.headers_mut().insert(RETRY_AFTER, value);
    }
    response
}

/// A `Status` tree in a format.
pub fn status_bytes(tree: &Map, format: Format) -> Option<Vec<u8>> {
    match format {
        Format::Protobuf => {
            let ty = schema::types::find("io.k8s.apimachinery.pkg.apis.meta.v1.Status")?;
            let mut out = Vec::new();
            schema::protobuf::encode(ty, tree, &mut out).ok()?;
            Some(out)
        }
        format => meta_bytes(tree, format).ok(),
    }
}

/// JSON with two spaces of indentation, as Go's `json.Indent` writes it.
pub fn indented(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let mut at = 0;
    let newline = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.extend(std::iter::repeat_n(b"  ", depth).flatten());
    };
    while at < json.len() {
        let byte = json[at];
        match byte {
            b'"' => {
                let start = at;
                at += 1;
                while at < json.len() && json[at] != b'"' {
                    at += if json[at] == b'\\' { 2 } else { 1 };
                }
                out.extend_from_slice(&json[start..(at + 1).min(json.len())]);
            }
            b'{' | b'[' => {
                out.push(byte);
                if matches!(json.get(at + 1), Some(b'}' | b']')) {
                    out.push(json[at + 1]);
                    at += 1;
                } else {
                    depth += 1;
                    newline(&mut out, depth);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                newline(&mut out, depth);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                newline(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            b'\n' => {}
            _ => out.push(byte),
        }
        at += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_indented_as_go_does() {
        let text = String::from_utf8(indented(br#"{"a":[1,{"b":"x,{\""}],"c":{},"d":[]}"#)).expect("text");
        assert_eq!(
            text,
            "{\n  \"a\": [\n    1,\n    {\n      \"b\": \"x,{\\\"\"\n    }\n  ],\n  \"c\": {},\n  \"d\": []\n}"
        );
    }
}
