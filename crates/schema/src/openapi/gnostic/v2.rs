//! The v2 document as protobuf: the messages of gnostic's `openapi.v2`, which clients without JSON support ask for.
//!
//! It is made from the JSON document, so that the two say the same.

use super::Message;
use crate::tree::{Map, Value};

/// The protobuf of a v2 document.
pub(in crate::openapi) fn encode(document: &Map) -> Vec<u8> {
    let mut out = Message::default();
    for (key, value) in document.iter() {
        match (key, value) {
            ("swagger", _) => out.text(1, value),
            ("info", _) => out.of(2, value, |info, key, value| match key {
                "title" => info.text(1, value),
                "version" => info.text(2, value),
                "description" => info.text(3, value),
                _ => {}
            }),
            ("paths", Value::Map(paths)) => {
                out.message(8, |out| out.named(2, paths, |entry, field, item| entry.of(field, item, path_item)));
            }
            ("definitions", Value::Map(definitions)) => {
                out.message(9, |out| out.named(1, definitions, |entry, field, ty| entry.of(field, ty, schema)));
            }
            ("security", Value::List(list)) => {
                for requirement in list.iter().filter_map(Value::as_map) {
                    out.message(12, |out| {
                        out.named(1, requirement, |entry, field, scopes| {
                            entry.message(field, |out| out.texts(1, scopes))
                        });
                    });
                }
            }
            ("securityDefinitions", Value::Map(map)) => out.message(13, |out| {
                // Only keys in headers are there: the second of the kinds.
                out.named(1, map, |entry, field, key| entry.message(field, |item| item.of(2, key, api_key)));
            }),
            _ => {}
        }
    }
    out.0
}

fn api_key(out: &mut Message, key: &str, value: &Value) {
    match key {
        "type" => out.text(1, value),
        "name" => out.text(2, value),
        "in" => out.text(3, value),
        "description" => out.text(4, value),
        _ => {}
    }
}

fn path_item(out: &mut Message, key: &str, value: &Value) {
    match key {
        "get" => out.of(2, value, operation),
        "put" => out.of(3, value, operation),
        "post" => out.of(4, value, operation),
        "delete" => out.of(5, value, operation),
        "options" => out.of(6, value, operation),
        "head" => out.of(7, value, operation),
        "patch" => out.of(8, value, operation),
        "parameters" => parameters(out, 9, value),
        _ if key.starts_with("x-") => out.extension(10, key, value),
        _ => {}
    }
}

fn operation(out: &mut Message, key: &str, value: &Value) {
    match (key, value) {
        ("tags", _) => out.texts(1, value),
        ("summary", _) => out.text(2, value),
        ("description", _) => out.text(3, value),
        ("operationId", _) => out.text(5, value),
        ("produces", _) => out.texts(6, value),
        ("consumes", _) => out.texts(7, value),
        ("parameters", _) => parameters(out, 8, value),
        ("responses", Value::Map(responses)) => out.message(9, |out| {
            out.named(1, responses, |entry, field, answer| entry.message(field, |item| item.of(1, answer, response)));
        }),
        ("schemes", _) => out.texts(10, value),
        ("deprecated", _) => out.flag(11, value),
        _ if key.starts_with("x-") => out.extension(13, key, value),
        _ => {}
    }
}

fn response(out: &mut Message, key: &str, value: &Value) {
    match key {
        "description" => out.text(1, value),
        "schema" => out.message(2, |item| item.of(1, value, schema)),
        _ => {}
    }
}

/// Parameters: references, bodies, or those of the query and the path, which differ in their numbers.
fn parameters(out: &mut Message, field: u32, list: &Value) {
    for parameter in list.as_list().unwrap_or_default() {
        let Value::Map(map) = parameter else { continue };
        out.message(field, |item| {
            if let Some(reference) = map.get("$ref") {
                return item.message(2, |out| out.text(1, reference));
            }
            item.message(1, |out| match map.str_at(&["in"]) {
                "body" => out.of(1, parameter, body_parameter),
                "query" => out.message(2, |out| out.of(3, parameter, |out, key, value| plain(out, key, value, 1))),
                "path" => out.message(2, |out| out.of(4, parameter, |out, key, value| plain(out, key, value, 0))),
                _ => out.message(2, |out| out.of(1, parameter, |out, key, value| plain(out, key, value, 0))),
            });
        });
    }
}

fn body_parameter(out: &mut Message, key: &str, value: &Value) {
    match key {
        "description" => out.text(1, value),
        "name" => out.text(2, value),
        "in" => out.text(3, value),
        "required" => out.flag(4, value),
        "schema" => out.of(5, value, schema),
        _ => {}
    }
}

/// `more`: the message has `allowEmptyValue` before what follows.
fn plain(out: &mut Message, key: &str, value: &Value, more: u32) {
    match key {
        "required" => out.flag(1, value),
        "in" => out.text(2, value),
        "description" => out.text(3, value),
        "name" => out.text(4, value),
        "type" => out.text(5 + more, value),
        "format" => out.text(6 + more, value),
        "default" => out.any(9 + more, value),
        "uniqueItems" => out.flag(19 + more, value),
        _ => {}
    }
}

fn schema(out: &mut Message, key: &str, value: &Value) {
    match (key, value) {
        ("$ref", _) => out.text(1, value),
        ("format", _) => out.text(2, value),
        ("title", _) => out.text(3, value),
        ("description", _) => out.text(4, value),
        ("default", _) => out.any(5, value),
        ("multipleOf", _) => out.double(6, value),
        ("maximum", _) => out.double(7, value),
        ("exclusiveMaximum", _) => out.flag(8, value),
        ("minimum", _) => out.double(9, value),
        ("exclusiveMinimum", _) => out.flag(10, value),
        ("maxLength", _) => out.whole(11, value),
        ("minLength", _) => out.whole(12, value),
        ("pattern", _) => out.text(13, value),
        ("maxItems", _) => out.whole(14, value),
        ("minItems", _) => out.whole(15, value),
        ("uniqueItems", _) => out.flag(16, value),
        ("maxProperties", _) => out.whole(17, value),
        ("minProperties", _) => out.whole(18, value),
        ("required", _) => out.texts(19, value),
        ("enum", Value::List(values)) => values.iter().for_each(|value| out.any(20, value)),
        ("additionalProperties", Value::Bool(_)) => out.message(21, |item| item.flag(2, value)),
        ("additionalProperties", _) => out.message(21, |item| item.of(1, value, schema)),
        ("type", Value::Str(_)) => out.message(22, |item| item.text(1, value)),
        ("type", _) => out.message(22, |item| item.texts(1, value)),
        ("items", _) => out.message(23, |item| item.of(1, value, schema)),
        ("allOf", Value::List(all)) => all.iter().for_each(|one| out.of(24, one, schema)),
        ("properties", Value::Map(properties)) => {
            out.message(25, |out| out.named(1, properties, |entry, field, ty| entry.of(field, ty, schema)));
        }
        ("readOnly", _) => out.flag(27, value),
        ("example", _) => out.any(30, value),
        _ if key.starts_with("x-") => out.extension(31, key, value),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn messages_are_gnostics() {
        let text = br##"{"definitions":{"D":{"type":"object","required":["a"],"properties":{"a":{"$ref":"#/definitions/E"}},
            "x-y":[1]}},"info":{"title":"T"},"paths":{"/p":{"get":{"parameters":[{"in":"query","name":"q","type":"string"}]}}},
            "swagger":"2.0"}"##;
        let Ok(Value::Map(document)) = json::parse(text) else { panic!("no document") };
        let bytes = encode(&document);
        let mut wanted: Vec<u8> = Vec::new();
        // definitions 9 { additional_properties 1 { name 1, value 2 { properties 25 {…}, required 19, type 22, extension 31 } } }
        let schema_a = b"\x0a\x0f#/definitions/E";
        let properties = [&b"\x0a\x16\x0a\x01a\x12\x11"[..], schema_a].concat();
        let mut inner = vec![0xca, 0x01, properties.len() as u8];
        inner.extend_from_slice(&properties);
        inner.extend_from_slice(b"\x9a\x01\x01a\xb2\x01\x08\x0a\x06object");
        inner.extend_from_slice(b"\xfa\x01\x0d\x0a\x03x-y\x12\x06\x12\x04[1]\n");
        let entry = [&b"\x0a\x01D\x12"[..], &[inner.len() as u8], &inner].concat();
        let definitions = [&b"\x0a"[..], &[entry.len() as u8], &entry].concat();
        wanted.extend_from_slice(&[&b"\x4a"[..], &[definitions.len() as u8], &definitions].concat());
        wanted.extend_from_slice(b"\x12\x03\x0a\x01T");
        // paths 8 { path 2 { name 1, value 2 { get 2 { parameters 8 { parameter 1 { non_body 2 { query 3 {…} } } } } } } }
        let query = b"\x12\x05query\x22\x01q\x32\x06string";
        let mut message = query.to_vec();
        for tag in [0x1a, 0x12, 0x0a, 0x42, 0x12, 0x12] {
            message = [&[tag, message.len() as u8][..], &message].concat();
        }
        let path = [&b"\x0a\x02/p"[..], &message].concat();
        let paths = [&[0x12, path.len() as u8][..], &path].concat();
        wanted.extend_from_slice(&[&[0x42, paths.len() as u8][..], &paths].concat());
        wanted.extend_from_slice(b"\x0a\x032.0");
        assert_eq!(bytes, wanted);
    }
}
