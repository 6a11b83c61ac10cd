//! Amounts of resources by name, and what pods ask for.

use crate::admission::walk;
use api::Quantity;
use schema::{Map, Value};
use std::collections::BTreeMap;

/// Amounts by resource name.
pub(crate) type Amounts = BTreeMap<String, Quantity>;

/// Reads a resource list.
pub(crate) fn amounts(map: &Map, path: &[&str]) -> Amounts {
    let list = map.at(path).and_then(Value::as_map).into_iter().flat_map(Map::iter);
    list.filter_map(|(name, value)| Some((name.to_owned(), amount(value)?))).collect()
}

/// A quantity as it is in a tree: text, or a bare number in an object that was not normalised.
fn amount(value: &Value) -> Option<Quantity> {
    match value {
        Value::Str(text) => Quantity::parse(text).ok(),
        Value::Int(number) => Some(Quantity::from_units(*number, api::quantity::Format::DecimalSi)),
        _ => None,
    }
}

/// What a pod asks for altogether (`which` is `requests` or `limits`): its containers and sidecars at once, or one init
/// container with the sidecars before it.
pub(crate) fn of_pod(pod: &Map, which: &str) -> Amounts {
    let path = ["resources", which];
    let mut total = Amounts::new();
    for container in walk::items(pod, &["spec", "containers"]) {
        add(&mut total, &amounts(container, &path));
    }
    let (mut sidecars, mut most) = (Amounts::new(), Amounts::new());
    for container in walk::items(pod, &["spec", "initContainers"]) {
        let mut at_once = amounts(container, &path);
        if container.str_at(&["restartPolicy"]) == "Always" {
            add(&mut total, &at_once);
            add(&mut sidecars, &at_once);
            at_once = sidecars.clone();
        } else {
            add(&mut at_once, &sidecars);
        }
        raise(&mut most, at_once);
    }
    raise(&mut total, most);
    total
}

pub(crate) fn add(total: &mut Amounts, more: &Amounts) {
    for (name, value) in more {
        let sum = total.get(name).map_or(*value, |held| held.add(value));
        total.insert(name.clone(), sum);
    }
}

fn raise(total: &mut Amounts, least: Amounts) {
    for (name, value) in least {
        let entry = total.entry(name).or_insert(value);
        *entry = (*entry).max(value);
    }
}

/// As refusals show it: `cpu=1,memory=2Gi`.
pub(super) fn shown(amounts: &Amounts) -> String {
    amounts.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::map;

    #[test]
    fn a_pods_sum_counts_sidecars_and_the_greediest_init_container() {
        let pod = map("{spec: {containers: [{resources: {limits: {cpu: '1'}}}], initContainers: [
            {restartPolicy: Always, resources: {limits: {cpu: '1'}}}, {resources: {limits: {cpu: '5'}}}]}}");
        assert_eq!(of_pod(&pod, "limits").get("cpu").map(ToString::to_string).as_deref(), Some("6"));
    }
}
