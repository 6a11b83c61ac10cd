//! What is filled in only in pods, not in the templates of them: so a template stays as it was written.

use super::rules::set;
use crate::amounts::{is_huge_page, is_pod_level, of_containers};
use crate::tree::{Key, Map, Value};

const LISTS: [&str; 2] = ["containers", "initContainers"];

pub(super) fn pod(map: &mut Map) {
    let Some(spec) = map.get_mut("spec").and_then(Value::as_map_mut) else { return };
    for list in LISTS {
        containers(spec, list).for_each(requests);
    }
    if spec.get("resources").and_then(Value::as_map).is_some_and(|whole| has(whole, "limits") || has(whole, "requests"))
    {
        whole_limits(spec);
        whole_requests(spec);
    }
    set(spec, "enableServiceLinks", true);
    if spec.get("hostNetwork").and_then(Value::as_bool) == Some(true) {
        for list in LISTS {
            containers(spec, list).for_each(host_ports);
        }
    }
}

fn containers<'m>(spec: &'m mut Map, list: &str) -> impl Iterator<Item = &'m mut Map> {
    spec.get_mut(list).and_then(Value::as_list_mut).into_iter().flatten().filter_map(Value::as_map_mut)
}

fn has(resources: &Map, list: &str) -> bool {
    resources.get(list).and_then(Value::as_map).is_some_and(|list| !list.is_empty())
}

/// Requests that were not said are the limits.
fn requests(container: &mut Map) {
    let Some(resources) = container.get_mut("resources").and_then(Value::as_map_mut) else { return };
    if has(resources, "limits")
        && let Some(limits) = resources.get("limits").and_then(Value::as_map).cloned()
    {
        add(resources, "requests", limits.into_entries());
    }
}

/// Fills in what a list of resources does not have.
fn add(resources: &mut Map, list: &'static str, more: Vec<(Key, Value)>) {
    if more.is_empty() {
        return;
    }
    if let Value::Map(list) = resources.entry(list, || Value::Map(Map::new())) {
        for (name, value) in more {
            if !list.contains_key(&name) {
                list.insert(name, value);
            }
        }
    }
}

/// The same in what is asked for the pod as a whole.
fn add_whole(spec: &mut Map, list: &'static str, more: Vec<(Key, Value)>) {
    if let Some(resources) = spec.get_mut("resources").and_then(Value::as_map_mut) {
        add(resources, list, more);
    }
}

/// Huge pages that its containers may have, a pod may have as a whole, unless it asks for such itself.
fn whole_limits(spec: &mut Map) {
    let limits = of_containers(spec, "limits").into_iter();
    let limits = limits.filter(|(name, _)| is_huge_page(name) && spec.at(&["resources", "requests", name]).is_none());
    let limits = limits.map(|(name, amount)| (name.into(), amount.to_string().into())).collect();
    add_whole(spec, "limits", limits);
}

/// A pod that is limited as a whole asks for what its containers do; where they ask for nothing, for what it may have.
fn whole_requests(spec: &mut Map) {
    let Some(limits) = spec.at(&["resources", "limits"]).and_then(Value::as_map).filter(|limits| !limits.is_empty())
    else {
        return;
    };
    let asked = of_containers(spec, "requests").into_iter();
    let asked = asked.filter(|(name, _)| is_pod_level(name) && !is_huge_page(name));
    let asked = asked.map(|(name, amount)| (name.into(), amount.to_string().into())).collect();
    let limits = limits.iter().filter(|(name, _)| is_pod_level(name));
    let limits = limits.map(|(name, value)| (name.to_owned().into(), value.clone())).collect();
    add_whole(spec, "requests", asked);
    add_whole(spec, "requests", limits);
}

/// A container of the host's network has its ports on the host.
fn host_ports(container: &mut Map) {
    let ports = container.get_mut("ports").and_then(Value::as_list_mut);
    for port in ports.into_iter().flatten().filter_map(Value::as_map_mut) {
        if port.get("hostPort").and_then(Value::as_i64).unwrap_or(0) == 0
            && let Some(number) = port.get("containerPort").cloned()
        {
            port.insert("hostPort", number);
        }
    }
}
