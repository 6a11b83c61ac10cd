//! Protobuf against bytes as upstream writes them, and against hostile ones.

use schema::{DecodeError, json, protobuf, types};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn varint(mut n: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while n >= 0x80 {
        bytes.push(n as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes
}

#[test]
fn an_object_is_written_as_gos_generated_code_does() {
    let ty = types::of_kind("", "v1", "ConfigMap").unwrap();
    let text = br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","creationTimestamp":"1970-01-01T00:00:05Z"},"data":{"b":"2","a":"1"}}"#;
    let object = json::decode(ty, text).unwrap().object;
    let mut bytes = Vec::new();
    protobuf::encode(ty, &object, &mut bytes).unwrap();
    let meta = "0a 01 61 12 00 1a 00 22 00 2a 00 32 00 38 00 42 04 08 05 10 00";
    let data = "12 06 0a 01 61 12 01 31 12 06 0a 01 62 12 01 32";
    let raw = format!("0a 15 {meta} {data}");
    let expected = format!("6b 38 73 00  0a 0f 0a 02 76 31 12 09 43 6f 6e 66 69 67 4d 61 70  12 27 {raw}  1a 00 22 00");
    assert_eq!(bytes, hex(&expected));
    assert_eq!(protobuf::decode(ty, &bytes).unwrap().object, object);
}

#[test]
fn embedded_structs_are_messages_of_their_own() {
    let ty = types::find("io.k8s.api.core.v1.Volume").unwrap();
    let object = json::decode(ty, br#"{"name":"v","emptyDir":{}}"#).unwrap().object;
    // name 1, volumeSource 2 { emptyDir 2 { medium 1 } }
    assert_eq!(protobuf::message(ty, &object).unwrap(), hex("0a 01 76 12 04 12 02 0a 00"));
    let plain = json::decode(ty, br#"{"name":"v"}"#).unwrap().object;
    assert_eq!(protobuf::message(ty, &plain).unwrap(), hex("0a 01 76 12 00"));
}

#[test]
fn hostile_messages_are_refused_and_cost_no_more_than_their_size() {
    let ty = types::of_kind("", "v1", "ConfigMap").unwrap();
    assert!(protobuf::decode(ty, b"{}").unwrap_err().to_string().contains("does not appear to be a protobuf message"));
    let mut raw = Vec::new();
    for n in (0..200_000u32).rev() {
        let key = format!("{n:06}");
        raw.extend_from_slice(&[0x12, 8, 0x0a, 6]);
        raw.extend_from_slice(key.as_bytes());
    }
    let mut bytes = Vec::new();
    protobuf::envelope("v1", "ConfigMap", &raw, &mut bytes);
    let object = protobuf::decode(ty, &bytes).unwrap().object;
    assert_eq!(object.at(&["data"]).unwrap().as_map().unwrap().len(), 200_000);
    // A length that no memory holds.
    let mut bytes = Vec::new();
    protobuf::envelope("v1", "ConfigMap", &hex("0a ff ff ff ff ff ff ff ff 7f"), &mut bytes);
    assert!(protobuf::decode(ty, &bytes).is_err());
}

#[test]
fn schemas_nest_only_so_deep() {
    let ty = types::find("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps").unwrap();
    let nested = |n: usize| format!("{}{{}}{}", r#"{"not":"#.repeat(n), "}".repeat(n));
    let object = json::decode(ty, nested(200).as_bytes()).unwrap().object;
    let message = protobuf::message(ty, &object).unwrap();
    let mut bytes = Vec::new();
    protobuf::envelope("v1", "X", &message, &mut bytes);
    assert_eq!(protobuf::decode(ty, &bytes).unwrap().object, object);
    let object = json::decode(ty, nested(990).as_bytes()).unwrap().object;
    assert_eq!(protobuf::message(ty, &object), Err(DecodeError::TooDeep));
    let not = ty.as_struct().unwrap().field("not").unwrap().number();
    let mut message: Vec<u8> = Vec::new();
    for _ in 0..300 {
        let mut outer = varint(not << 3 | 2);
        outer.extend(varint(message.len() as u32));
        outer.extend(&message);
        message = outer;
    }
    let mut bytes = Vec::new();
    protobuf::envelope("v1", "X", &message, &mut bytes);
    assert_eq!(protobuf::decode(ty, &bytes), Err(DecodeError::TooDeep));
}

#[test]
fn lists_and_events_are_made_of_messages() {
    let pod = types::of_kind("", "v1", "Pod").unwrap();
    let object =
        json::decode(pod, br#"{"metadata":{"name":"a"},"spec":{"containers":[{"name":"c"}]}}"#).unwrap().object;
    let item = protobuf::message(pod, &object).unwrap();
    let meta = json::parse(br#"{"resourceVersion":"7"}"#).unwrap();
    let list = protobuf::list(meta.as_map().unwrap(), [&item[..], &item[..]]).unwrap();
    let mut bytes = Vec::new();
    protobuf::envelope("v1", "PodList", &list, &mut bytes);
    let ty = types::of_kind("", "v1", "PodList").unwrap();
    let decoded = protobuf::decode(ty, &bytes).unwrap().object;
    assert_eq!(decoded.str_at(&["metadata", "resourceVersion"]), "7");
    assert_eq!(decoded.at(&["items"]).unwrap().as_list().unwrap(), [object.clone().into(), object.into()]);
    assert_eq!(protobuf::event("ADDED", b"x"), hex("0a 05 41 44 44 45 44 12 03 0a 01 78"));
}
