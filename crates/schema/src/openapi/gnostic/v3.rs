//! The v3 documents as protobuf: messages of gnostic's `openapi.v3`.

use super::Message;
use crate::tree::{Map, Value};

/// The protobuf of a v3 document.
pub(in crate::openapi) fn encode(document: &Map) -> Vec<u8> {
    let mut out = Message::default();
    for (key, value) in document.iter() {
        match (key, value) {
            ("openapi", _) => out.text(1, value),
            ("info", _) => out.of(2, value, |info, key, value| match key {
                "title" => info.text(1, value),
                "description" => info.text(2, value),
                "version" => info.text(6, value),
                _ => {}
            }),
            ("paths", Value::Map(paths)) => {
                out.message(4, |out| out.named(1, paths, |entry, field, item| entry.of(field, item, path_item)));
            }
            ("components", Value::Map(components)) => out.message(5, |out| {
                for (key, value) in components.iter() {
                    match (key, value) {
                        ("schemas", Value::Map(schemas)) => {
                            out.message(1, |out| out.named(1, schemas, schema_or_reference));
                        }
                        ("securitySchemes", Value::Map(schemes)) => out.message(7, |out| {
                            out.named(1, schemes, |entry, field, scheme| {
                                entry.message(field, |item| item.of(1, scheme, security_scheme));
                            });
                        }),
                        _ => {}
                    }
                }
            }),
            _ => {}
        }
    }
    out.0
}

fn security_scheme(out: &mut Message, key: &str, value: &Value) {
    match key {
        "type" => out.text(1, value),
        "description" => out.text(2, value),
        "name" => out.text(3, value),
        "in" => out.text(4, value),
        _ => {}
    }
}

fn path_item(out: &mut Message, key: &str, value: &Value) {
    match key {
        "get" => out.of(4, value, operation),
        "put" => out.of(5, value, operation),
        "post" => out.of(6, value, operation),
        "delete" => out.of(7, value, operation),
        "options" => out.of(8, value, operation),
        "head" => out.of(9, value, operation),
        "patch" => out.of(10, value, operation),
        "parameters" => parameters(out, 13, value),
        _ if key.starts_with("x-") => out.extension(14, key, value),
        _ => {}
    }
}

fn operation(out: &mut Message, key: &str, value: &Value) {
    match (key, value) {
        ("tags", _) => out.texts(1, value),
        ("description", _) => out.text(3, value),
        ("operationId", _) => out.text(5, value),
        ("parameters", _) => parameters(out, 6, value),
        ("requestBody", _) => out.message(7, |item| item.of(1, value, request_body)),
        ("responses", Value::Map(responses)) => out.message(8, |out| {
            out.named(2, responses, |entry, field, answer| entry.message(field, |item| item.of(1, answer, response)));
        }),
        ("deprecated", _) => out.flag(10, value),
        _ if key.starts_with("x-") => out.extension(13, key, value),
        _ => {}
    }
}

fn parameters(out: &mut Message, field: u32, list: &Value) {
    for parameter in list.as_list().unwrap_or_default() {
        out.message(field, |item| item.of(1, parameter, one_parameter));
    }
}

fn one_parameter(out: &mut Message, key: &str, value: &Value) {
    match key {
        "name" => out.text(1, value),
        "in" => out.text(2, value),
        "description" => out.text(3, value),
        "required" => out.flag(4, value),
        "schema" => schema_or_reference(out, 10, value),
        _ => {}
    }
}

fn request_body(out: &mut Message, key: &str, value: &Value) {
    match key {
        "description" => out.text(1, value),
        "content" => content(out, 2, value),
        "required" => out.flag(3, value),
        _ => {}
    }
}

fn response(out: &mut Message, key: &str, value: &Value) {
    match key {
        "description" => out.text(1, value),
        "content" => content(out, 3, value),
        _ => {}
    }
}

/// `MediaTypes`.
fn content(out: &mut Message, field: u32, value: &Value) {
    let Value::Map(types) = value else { return };
    out.message(field, |out| {
        out.named(1, types, |entry, field, media| {
            entry.of(field, media, |out, key, value| {
                if key == "schema" {
                    schema_or_reference(out, 1, value);
                }
            });
        });
    });
}

fn schema_or_reference(out: &mut Message, field: u32, value: &Value) {
    let Value::Map(map) = value else { return };
    out.message(field, |item| match map.get("$ref") {
        Some(reference) => item.message(2, |out| out.text(1, reference)),
        None => item.of(1, value, schema),
    });
}

fn schema(out: &mut Message, key: &str, value: &Value) {
    let all = |out: &mut Message, field: u32| {
        value.as_list().unwrap_or_default().iter().for_each(|one| schema_or_reference(out, field, one));
    };
    match (key, value) {
        ("nullable", _) => out.flag(1, value),
        ("readOnly", _) => out.flag(3, value),
        ("title", _) => out.text(9, value),
        ("multipleOf", _) => out.double(10, value),
        ("maximum", _) => out.double(11, value),
        ("exclusiveMaximum", _) => out.flag(12, value),
        ("minimum", _) => out.double(13, value),
        ("exclusiveMinimum", _) => out.flag(14, value),
        ("maxLength", _) => out.whole(15, value),
        ("minLength", _) => out.whole(16, value),
        ("pattern", _) => out.text(17, value),
        ("maxItems", _) => out.whole(18, value),
        ("minItems", _) => out.whole(19, value),
        ("uniqueItems", _) => out.flag(20, value),
        ("maxProperties", _) => out.whole(21, value),
        ("minProperties", _) => out.whole(22, value),
        ("required", _) => out.texts(23, value),
        ("enum", Value::List(values)) => values.iter().for_each(|value| out.any(24, value)),
        ("type", _) => out.text(25, value),
        ("allOf", _) => all(out, 26),
        ("oneOf", _) => all(out, 27),
        ("anyOf", _) => all(out, 28),
        ("not", _) => out.of(29, value, schema),
        ("items", _) => out.message(30, |item| schema_or_reference(item, 1, value)),
        ("properties", Value::Map(properties)) => {
            out.message(31, |out| out.named(1, properties, schema_or_reference));
        }
        ("additionalProperties", Value::Bool(_)) => out.message(32, |item| item.flag(2, value)),
        ("additionalProperties", _) => out.message(32, |item| schema_or_reference(item, 1, value)),
        // A default that is no scalar has no place in the message, which is there all the same.
        ("default", _) => out.message(33, |item| match value {
            Value::Bool(_) => item.flag(2, value),
            Value::Str(_) => item.text(3, value),
            _ => item.double(1, value),
        }),
        ("description", _) => out.text(34, value),
        ("format", _) => out.text(35, value),
        _ if key.starts_with("x-") => out.extension(36, key, value),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn messages_are_gnostics() {
        let text = br##"{"components":{"schemas":{"D":{"type":"object","properties":{"a":{"allOf":[{"$ref":"#/E"}],
            "default":{}}}}}},"openapi":"3.0.0","paths":{"/p":{"get":{"responses":{"200":{"content":{"j":{"schema":{"type":"string"}}},
            "description":"OK"}}}}}}"##;
        let Ok(Value::Map(document)) = json::parse(text) else { panic!("no document") };
        let nested = |tags: &[&[u8]], inner: &[u8]| {
            let mut message = inner.to_vec();
            for tag in tags.iter().rev() {
                message = [tag, &[message.len() as u8][..], &message].concat();
            }
            message
        };
        // schemas 1 { additional_properties 1 { name 1, value 2 { schema 1 { type 25, properties 31 { … } } } } }
        let reference = nested(&[b"\xd2\x01", b"\x12", b"\x0a"], b"#/E");
        let a = nested(&[b"\x12", b"\x0a"], &[&reference[..], b"\x8a\x02\x00"].concat());
        let properties = nested(&[b"\xfa\x01", b"\x0a"], &[b"\x0a\x01a", &a[..]].concat());
        let d = nested(&[b"\x12", b"\x0a"], &[&properties[..], b"\xca\x01\x06object"].concat());
        let components = nested(&[b"\x2a", b"\x0a", b"\x0a"], &[b"\x0a\x01D", &d[..]].concat());
        // paths 4 { path 1 { name 1, value 2 { get 4 { responses 8 { response_or_reference 2 { name 1, value 2 { … } } } } } } }
        let schema = nested(&[b"\x12", b"\x0a", b"\x0a"], b"\xca\x01\x06string");
        let media = nested(&[b"\x1a", b"\x0a"], &[b"\x0a\x01j", &schema[..]].concat());
        let answer = nested(&[b"\x12", b"\x0a"], &[&media[..], b"\x0a\x02OK"].concat());
        let get = nested(&[b"\x12", b"\x22", b"\x42", b"\x12"], &[b"\x0a\x03200", &answer[..]].concat());
        let paths = nested(&[b"\x22", b"\x0a"], &[b"\x0a\x02/p", &get[..]].concat());
        assert_eq!(encode(&document), [&components[..], b"\x0a\x053.0.0", &paths].concat());
    }
}
