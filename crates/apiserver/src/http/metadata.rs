//! `PartialObjectMetadata` and its list in protobuf, for clients that look at metadata alone.

use api::Status;
use schema::{Map, Value};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

fn failed(why: impl std::fmt::Display) -> Status {
    Status::internal(format!("the metadata can't be written as protobuf: {why}"))
}

/// The length-delimited field 1 of a message: the metadata of a `PartialObjectMetadata`.
fn message(object: &Map) -> Result<Vec<u8>, Status> {
    let ty = schema::types::find(OBJECT_META).ok_or_else(|| failed("its type is unknown"))?;
    let empty = Map::new();
    let metadata = object.get("metadata").and_then(Value::as_map).unwrap_or(&empty);
    let inner = schema::protobuf::message(ty, metadata).map_err(failed)?;
    let mut out = Vec::with_capacity(inner.len() + 6);
    out.push(0x0a);
    let mut length = inner.len();
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(&inner);
    Ok(out)
}

/// An enveloped `PartialObjectMetadata`, or its list.
///
/// # Errors
/// 500 when the metadata does not fit its type.
pub fn encode(object: &Map) -> Result<Vec<u8>, Status> {
    let raw = match object.get("items").and_then(Value::as_list) {
        None => message(object)?,
        Some(items) => {
            let items: Result<Vec<Vec<u8>>, Status> = items.iter().filter_map(Value::as_map).map(message).collect();
            let empty = Map::new();
            let metadata = object.get("metadata").and_then(Value::as_map).unwrap_or(&empty);
            schema::protobuf::list(metadata, items?.iter().map(Vec::as_slice)).map_err(failed)?
        }
    };
    let mut out = Vec::with_capacity(raw.len() + 64);
    schema::protobuf::envelope(object.str_at(&["apiVersion"]), object.str_at(&["kind"]), &raw, &mut out);
    Ok(out)
}
