//! Protobuf as Kubernetes speaks it: `k8s\0` and an envelope with the kind, then the object as its Go type writes it.
//!
//! What is present follows Go's generated code: fields that are no pointers are always written, lists and maps by their
//! elements (so that an empty list and an absent one are the same), pointers when they are set.

mod read;
mod wire;
mod write;

use crate::decode::{DecodeError, Decoded};
use crate::normal;
use crate::tree::{Map, Value};
use crate::types::TypeRef;
use wire::{Field, Fields};

/// What an enveloped message begins with.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// How deep messages may be nested: only the schemas of custom resources have no limit of their own.
const MAX_NESTED: usize = 250;

/// Decodes an enveloped object of a type. `apiVersion` and `kind` come from the envelope. Unknown fields are left out, and
/// not reported: protobuf has no names for them.
///
/// # Errors
/// [`DecodeError::Syntax`] when the bytes are not such a message, [`DecodeError::Type`] when a value can't be read.
pub fn decode(ty: TypeRef<'_>, bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let envelope = Envelope::read(bytes)?;
    let mut object = read::message(ty, envelope.raw, 0)?;
    if let Some(s) = ty.as_struct() {
        for (name, text) in [("apiVersion", envelope.api_version), ("kind", envelope.kind)] {
            if !text.is_empty() && s.field(name).is_some_and(|field| field.number() == 0) {
                object.insert(name, text);
            }
        }
    }
    normal::typed(ty, Value::Map(object))
}

/// `apiVersion` and `kind` of an enveloped object.
///
/// # Errors
/// [`DecodeError::Syntax`] when the bytes are not an envelope.
pub fn type_meta(bytes: &[u8]) -> Result<(String, String), DecodeError> {
    let envelope = Envelope::read(bytes)?;
    Ok((envelope.api_version, envelope.kind))
}

/// Appends an object, enveloped; `apiVersion` and `kind` are the object's.
///
/// # Errors
/// [`DecodeError::Type`] when a value of the tree is not of its field's type, which a normalised tree never has;
/// [`DecodeError::TooDeep`].
pub fn encode(ty: TypeRef<'_>, object: &Map, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let raw = message(ty, object)?;
    envelope(object.str_at(&["apiVersion"]), object.str_at(&["kind"]), &raw, out);
    Ok(())
}

/// An object without its envelope: as it is put in an envelope or a list.
///
/// # Errors
/// As [`encode`].
pub fn message(ty: TypeRef<'_>, object: &Map) -> Result<Vec<u8>, DecodeError> {
    let mut back = write::Back::new();
    match ty.as_struct() {
        Some(s) => write::structure(&mut back, s, object)?,
        None => return Err(DecodeError::syntax(format!("{ty:?} is no message"), 0)),
    }
    Ok(back.finish())
}

/// Appends an envelope around a [`message`].
pub fn envelope(api_version: &str, kind: &str, raw: &[u8], out: &mut Vec<u8>) {
    let mut type_meta = Vec::with_capacity(api_version.len() + kind.len() + 4);
    wire::put_bytes(1, api_version.as_bytes(), &mut type_meta);
    wire::put_bytes(2, kind.as_bytes(), &mut type_meta);
    out.extend_from_slice(MAGIC);
    wire::put_bytes(1, &type_meta, out);
    wire::put_bytes(2, raw, out);
    wire::put_bytes(3, b"", out);
    wire::put_bytes(4, b"", out);
}

/// The message of a list: its metadata (a `ListMeta`) and the messages of its items.
///
/// # Errors
/// As [`encode`].
pub fn list<'a>(metadata: &Map, items: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<u8>, DecodeError> {
    let meta = crate::types::find("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta")
        .ok_or_else(|| DecodeError::syntax("the catalogue has no ListMeta", 0))?;
    let mut out = Vec::new();
    wire::put_bytes(1, &message(meta, metadata)?, &mut out);
    for item in items {
        wire::put_bytes(2, item, &mut out);
    }
    Ok(out)
}

/// The message of a watch event (which has no envelope) around an enveloped object.
pub fn event(event_type: &str, object: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(object.len() + 6);
    wire::put_bytes(1, object, &mut raw);
    let mut out = Vec::with_capacity(raw.len() + event_type.len() + 8);
    wire::put_bytes(1, event_type.as_bytes(), &mut out);
    wire::put_bytes(2, &raw, &mut out);
    out
}

struct Envelope<'b> {
    api_version: String,
    kind: String,
    raw: &'b [u8],
}

impl<'b> Envelope<'b> {
    fn read(bytes: &'b [u8]) -> Result<Self, DecodeError> {
        let Some(unknown) = bytes.strip_prefix(MAGIC) else {
            return Err(DecodeError::syntax(
                "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]",
                0,
            ));
        };
        let mut envelope = Envelope { api_version: String::new(), kind: String::new(), raw: &[] };
        for field in Fields::new(unknown) {
            match field? {
                (1, Field::Bytes(meta)) => {
                    for field in Fields::new(meta) {
                        match field? {
                            (1, Field::Bytes(text)) => envelope.api_version = text_of(text),
                            (2, Field::Bytes(text)) => envelope.kind = text_of(text),
                            _ => {}
                        }
                    }
                }
                (2, Field::Bytes(raw)) => envelope.raw = raw,
                (3, Field::Bytes(encoding)) if !encoding.is_empty() => {
                    let encoding = text_of(encoding);
                    return Err(DecodeError::syntax(format!("content encoding {encoding:?} is not supported"), 0));
                }
                _ => {}
            }
        }
        Ok(envelope)
    }
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
