//! Devices: claims forget what drivers told of devices that they gave back, slices and rules know since when a device is
//! tainted.

use super::{Strategy, keep_other_side};
use crate::context::Context;
use schema::{Map, Resource, Value};

/// What drivers tell of a claim's devices goes with the devices.
#[derive(Debug)]
pub struct Claims;

fn devices(object: &Map, at: &[&str]) -> Vec<[String; 3]> {
    let list = object.at(at).and_then(Value::as_list).unwrap_or_default();
    list.iter().filter_map(Value::as_map).map(identity).collect()
}

fn identity(device: &Map) -> [String; 3] {
    ["driver", "pool", "device"].map(|key| device.str_at(&[key]).to_owned())
}

impl Strategy for Claims {
    fn prepare_for_update(&self, _: &Context, row: &Resource, subresource: &str, object: &mut Map, old: &Map) {
        const RESULTS: [&str; 4] = ["status", "allocation", "devices", "results"];
        keep_other_side(row, subresource, object, old);
        if subresource != "status" {
            return;
        }
        let now = devices(object, &RESULTS);
        let gone: Vec<_> = devices(old, &RESULTS).into_iter().filter(|device| !now.contains(device)).collect();
        let Some(told) = object.at_mut(&["status", "devices"]).and_then(Value::as_list_mut) else { return };
        told.retain(|device| !device.as_map().is_some_and(|device| gone.contains(&identity(device))));
        if told.is_empty() {
            object.remove_at(&["status", "devices"]);
        }
    }
}

/// Taints of devices have a time.
#[derive(Debug)]
pub struct Slices;

fn now(cx: &Context) -> String {
    cx.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn date_taints(cx: &Context, object: &mut Map) {
    let now = now(cx);
    let devices = object.at_mut(&["spec", "devices"]).and_then(Value::as_list_mut);
    for device in devices.into_iter().flatten().filter_map(Value::as_map_mut) {
        let taints = device.get_mut("taints").and_then(Value::as_list_mut);
        for taint in taints.into_iter().flatten().filter_map(Value::as_map_mut) {
            if taint.str_at(&["timeAdded"]).is_empty() {
                taint.insert("timeAdded", now.as_str());
            }
        }
    }
}

impl Strategy for Slices {
    fn prepare_for_create(&self, cx: &Context, _: &Resource, object: &mut Map) {
        date_taints(cx, object);
    }

    fn prepare_for_update(&self, cx: &Context, row: &Resource, subresource: &str, object: &mut Map, old: &Map) {
        keep_other_side(row, subresource, object, old);
        date_taints(cx, object);
    }
}

/// The taint of a rule has a time too: of when its effect began.
#[derive(Debug)]
pub struct TaintRules;

const ADDED: [&str; 3] = ["spec", "taint", "timeAdded"];

fn date_rule(cx: &Context, object: &mut Map) {
    if object.str_at(&ADDED).is_empty() {
        object.set_at(&ADDED, now(cx));
    }
}

impl Strategy for TaintRules {
    fn prepare_for_create(&self, cx: &Context, _: &Resource, object: &mut Map) {
        date_rule(cx, object);
    }

    fn prepare_for_update(&self, cx: &Context, row: &Resource, subresource: &str, object: &mut Map, old: &Map) {
        keep_other_side(row, subresource, object, old);
        if !subresource.is_empty() {
            return;
        }
        date_rule(cx, object);
        let effect = |object: &'_ Map| object.str_at(&["spec", "taint", "effect"]).to_owned();
        if effect(object) != effect(old) && object.str_at(&ADDED) == old.str_at(&ADDED) {
            object.set_at(&ADDED, now(cx));
        }
    }
}
