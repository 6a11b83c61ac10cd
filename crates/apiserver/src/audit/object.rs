//! Patches, and the objects of answers, as events show them: as JSON, whatever they travelled as.

use crate::http::media::{self, Format};
use flate2::read::GzDecoder;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use schema::{Map, Value};
use std::io::Read;

/// The largest object that is recorded.
pub const LARGEST: usize = 3 << 20;

/// What a patch says, by the headers that come with it. `None`: nothing that an event can show.
pub fn of_patch(headers: &HeaderMap, body: &[u8]) -> Option<Value> {
    of_media(&media::content_type(headers), body)
}

/// What an answer says.
pub fn of_answer(headers: &HeaderMap, body: &[u8]) -> Option<Value> {
    let mut whole = Vec::new();
    let body = if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding == "gzip") {
        GzDecoder::new(body).take(LARGEST as u64 + 1).read_to_end(&mut whole).ok()?;
        &whole
    } else {
        body
    };
    of_media(&media::content_type(headers), body)
}

fn of_media(media: &str, body: &[u8]) -> Option<Value> {
    if body.len() > LARGEST {
        None
    } else if media.starts_with(Format::Protobuf.content_type()) {
        of_protobuf(body)
    } else if media.ends_with("yaml") {
        // Aliases are followed, so it may be larger than its text.
        schema::yaml::parse(body).ok().filter(|value| {
            let mut json = Vec::new();
            schema::json::encode_value(value, &mut json);
            json.len() <= LARGEST
        })
    } else {
        schema::json::parse(body).ok()
    }
}

fn of_protobuf(body: &[u8]) -> Option<Value> {
    let (api_version, kind) = schema::protobuf::type_meta(body).ok()?;
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let decoded = |group, version, kind| {
        let ty = schema::types::of_kind(group, version, kind)?;
        Some(schema::protobuf::decode(ty, body).ok()?.object)
    };
    let metadata = |object: &mut Map| object.retain(|key, _| matches!(key, "apiVersion" | "kind" | "metadata"));
    match (group, kind.as_str()) {
        // These are what any kind is without the rest of it.
        ("meta.k8s.io", "PartialObjectMetadata") => {
            let mut object = decoded("", "v1", "Namespace")?;
            metadata(&mut object);
            Some(Value::Map(object))
        }
        ("meta.k8s.io", "PartialObjectMetadataList") => {
            let mut list = decoded("", "v1", "NamespaceList")?;
            if let Some(Value::List(items)) = list.get_mut("items") {
                items.iter_mut().filter_map(Value::as_map_mut).for_each(metadata);
            }
            Some(Value::Map(list))
        }
        _ => decoded(group, version, &kind).map(Value::Map),
    }
}

/// Takes `managedFields` out of an object, of a list's items and of a table's rows.
pub fn omit_managed_fields(object: &mut Value) {
    let Value::Map(object) = object else { return };
    object.remove_at(&["metadata", "managedFields"]);
    for (list, path) in [("items", &[][..]), ("rows", &["object"][..])] {
        let Some(Value::List(items)) = object.get_mut(list) else { continue };
        for item in items.iter_mut().filter_map(Value::as_map_mut) {
            let path: Vec<&str> = path.iter().copied().chain(["metadata", "managedFields"]).collect();
            item.remove_at(&path);
        }
    }
}

/// What an event tells of a `Status` that was answered; `None` of any other object.
pub fn status(answer: &Value) -> Option<Map> {
    let answer =
        answer.as_map().filter(|map| (map.str_at(&["apiVersion"]), map.str_at(&["kind"])) == ("v1", "Status"))?;
    let mut status = Map::new();
    for key in ["status", "message", "reason", "details"] {
        if let Some(value) = answer.get(key) {
            status.insert(key, value.clone());
        }
    }
    Some(status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::map;
    use http::HeaderValue;
    use http::header::CONTENT_TYPE;

    fn headers(media: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(media))])
    }

    #[test]
    fn whatever_an_object_travels_as_is_seen() {
        let pod = map("{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: a}}");
        let mut bytes = Vec::new();
        let ty = schema::types::of_kind("", "v1", "Pod").expect("pods");
        schema::protobuf::encode(ty, &pod, &mut bytes).expect("protobuf");
        let seen = of_answer(&headers("application/vnd.kubernetes.protobuf"), &bytes).expect("a pod");
        let seen = seen.as_map().expect("a map");
        assert_eq!((seen.str_at(&["kind"]), seen.str_at(&["metadata", "name"])), ("Pod", "p"));
        let partial = map("{apiVersion: meta.k8s.io/v1, kind: PartialObjectMetadata, metadata: {name: p}}");
        let mut bytes = Vec::new();
        schema::protobuf::encode(schema::types::of_kind("", "v1", "Namespace").expect("a type"), &partial, &mut bytes)
            .expect("protobuf");
        let seen = of_answer(&headers("application/vnd.kubernetes.protobuf"), &bytes).expect("metadata");
        let seen = seen.as_map().expect("a map");
        assert_eq!((seen.len(), seen.str_at(&["metadata", "name"])), (3, "p"));
        let seen = of_patch(&headers("application/apply-patch+yaml"), b"kind: Pod").expect("YAML");
        assert_eq!(seen, Value::Map(map("{kind: Pod}")));
        let seen = of_patch(&headers("application/json-patch+json"), b"[{\"op\":\"remove\"}]").expect("a JSON patch");
        assert!(seen.as_list().is_some_and(|list| list.len() == 1));
        assert_eq!(of_patch(&headers("application/json"), b"{"), None);
    }

    #[test]
    fn managed_fields_are_left_out_wherever_they_are() {
        for (object, left) in [
            ("{metadata: {name: a, managedFields: [{}]}}", "{metadata: {name: a}}"),
            ("{items: [{metadata: {name: a, managedFields: [{}]}}]}", "{items: [{metadata: {name: a}}]}"),
            (
                "{rows: [{object: {metadata: {managedFields: [{}]}}, cells: [1]}]}",
                "{rows: [{object: {metadata: {}}, cells: [1]}]}",
            ),
        ] {
            let mut object = Value::Map(map(object));
            omit_managed_fields(&mut object);
            assert_eq!(object, Value::Map(map(left)));
        }
    }
}
