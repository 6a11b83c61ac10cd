//! Changing an object of which only a projection is kept, by those who may update but not patch: read whole, merged, put back.

use crate::informer::Object;
use kube::Client;
use kube::api::{GetParams, PostParams};
use serde_json::Value;

/// Applies a merge (RFC 7386) to the object as it is now, or to a subresource of it.
///
/// It is of the version that was read: what another changed meanwhile makes it fail with 409. With `metadata.uid` in
/// the merge, so does another object of that name; with `metadata.resourceVersion`, any other version.
///
/// # Errors
/// Those of the reading and of the writing.
pub async fn update<K: Object>(
    client: &Client,
    namespace: &str,
    name: &str,
    subresource: Option<&str>,
    merge: Value,
) -> Result<K, kube::Error> {
    let scope = Some(namespace).filter(|n| !n.is_empty());
    let path = || kube::core::Request::new(K::url_path(&(), scope));
    let mut object: Value =
        client.request(path().get(name, &GetParams::default()).map_err(kube::Error::BuildRequest)?).await?;
    apply(&mut object, merge);
    let body = object.to_string().into_bytes();
    let request = match subresource {
        Some(subresource) => path().replace_subresource(subresource, name, &PostParams::default(), body),
        None => path().replace(name, &PostParams::default(), body),
    };
    client.request(request.map_err(kube::Error::BuildRequest)?).await
}

fn apply(target: &mut Value, merge: Value) {
    let Value::Object(merge) = merge else {
        *target = merge;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in merge {
        if value.is_null() {
            target.remove(&key);
        } else {
            apply(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn merges_as_rfc_7386() {
        let mut object = json!({"a": {"b": 1, "c": 2}, "d": [1]});
        apply(&mut object, json!({"a": {"b": null, "e": {"f": 1}}, "d": [2]}));
        assert_eq!(object, json!({"a": {"c": 2, "e": {"f": 1}}, "d": [2]}));
    }
}
