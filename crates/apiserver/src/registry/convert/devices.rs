//! Devices: stored as resource.k8s.io/v1, served as v1beta1 too, where a request for exact devices and what is said of a
//! device lie one level elsewhere.

use super::Conversion;
use schema::{Map, Value};

pub(super) static CLAIM: Conversion = Conversion {
    to_stored: |object| each(object, &["spec", "devices", "requests"], nest),
    from_stored: |object| each(object, &["spec", "devices", "requests"], flatten),
    labels: None,
};

pub(super) static TEMPLATE: Conversion = Conversion {
    to_stored: |object| each(object, &["spec", "spec", "devices", "requests"], nest),
    from_stored: |object| each(object, &["spec", "spec", "devices", "requests"], flatten),
    labels: None,
};

pub(super) static SLICE: Conversion = Conversion {
    to_stored: |object| each(object, &["spec", "devices"], |device| unpack(device, "basic")),
    from_stored: |object| each(object, &["spec", "devices"], |device| pack(device, "basic", &["name"])),
    labels: None,
};

/// What of a request v1 has below `exactly` stays here.
const OF_REQUEST: [&str; 2] = ["name", "firstAvailable"];

fn each(object: &mut Map, path: &[&str], convert: impl Fn(&mut Map)) {
    let list = object.at_mut(path).and_then(Value::as_list_mut);
    list.into_iter().flatten().filter_map(Value::as_map_mut).for_each(convert);
}

/// Moves all but some fields into one that holds them.
fn pack(map: &mut Map, into: &'static str, but: &[&str]) {
    let mut packed = Map::new();
    for (key, value) in std::mem::take(map) {
        if but.contains(&key.as_ref()) {
            map.insert(key, value);
        } else {
            packed.insert(key, value);
        }
    }
    map.insert(into, packed);
}

/// Moves the fields of one to where it is.
fn unpack(map: &mut Map, from: &str) {
    if let Some(Value::Map(packed)) = map.remove(from) {
        map.extend(packed);
    }
}

/// A request that says something of exact devices is one for them.
fn nest(request: &mut Map) {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::Str(text) => text.is_empty(),
        Value::Int(number) => *number == 0,
        _ => false,
    };
    request.retain(|key, value| OF_REQUEST.contains(&key) || !empty(value));
    if request.iter().any(|(key, _)| !OF_REQUEST.contains(&key)) {
        pack(request, "exactly", &OF_REQUEST);
    }
}

fn flatten(request: &mut Map) {
    unpack(request, "exactly");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::map;

    #[test]
    fn what_goes_comes_back() {
        for (conversion, beta, stored) in [
            (
                &CLAIM,
                "{spec: {devices: {requests: [{name: a, deviceClassName: c, count: 2}, {name: b, deviceClassName: '', firstAvailable: [{name: x}]}]}}}",
                "{spec: {devices: {requests: [{name: a, exactly: {deviceClassName: c, count: 2}}, {name: b, firstAvailable: [{name: x}]}]}}}",
            ),
            (
                &TEMPLATE,
                "{spec: {spec: {devices: {requests: [{name: a, deviceClassName: c}]}}}}",
                "{spec: {spec: {devices: {requests: [{name: a, exactly: {deviceClassName: c}}]}}}}",
            ),
            (
                &SLICE,
                "{spec: {devices: [{name: d, basic: {allNodes: true}}, {name: e, basic: {}}]}}",
                "{spec: {devices: [{name: d, allNodes: true}, {name: e}]}}",
            ),
        ] {
            let mut object = map(beta);
            (conversion.to_stored)(&mut object);
            assert_eq!(object, map(stored));
            (conversion.from_stored)(&mut object);
            // A name of a class is always there once the object has its normal form.
            let expected = beta.replace("deviceClassName: '', ", "");
            assert_eq!(object, map(&expected));
        }
    }
}
