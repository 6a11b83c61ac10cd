//! A pod's quality of service, which follows from what it asks for.

use crate::tree::{Map, Value};

const COUNTED: [&str; 2] = ["cpu", "memory"];

/// `Guaranteed`, `Burstable` or `BestEffort`, by requests and limits of CPU and memory: those of the pod itself, or
/// where it has none, those of its containers.
pub fn of(pod: &Map) -> &'static str {
    let whole = pod.at(&["spec", "resources"]).and_then(Value::as_map).filter(|resources| {
        ["limits", "requests"].iter().any(|list| COUNTED.iter().any(|name| resources.at(&[list, name]).is_some()))
    });
    let lists = ["initContainers", "containers"].into_iter().flat_map(|list| {
        pod.at(&["spec", list]).and_then(Value::as_list).unwrap_or_default().iter().filter_map(Value::as_map)
    });
    let none = Map::new();
    match whole {
        Some(resources) => class([resources].into_iter()),
        None => class(lists.map(|one| one.get("resources").and_then(Value::as_map).unwrap_or(&none))),
    }
}

fn class<'a>(all: impl Iterator<Item = &'a Map>) -> &'static str {
    let (mut any, mut guaranteed) = (false, true);
    for resources in all {
        for name in COUNTED {
            let amount = |list: &str| {
                let text = resources.at(&[list, name]).and_then(Value::as_str)?;
                api::Quantity::parse(text).ok().filter(|quantity| !quantity.is_zero())
            };
            let (limit, request) = (amount("limits"), amount("requests"));
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some_and(|limit| request.is_none_or(|request| request.nanos() == limit.nanos()));
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_spec(text: &str) -> &'static str {
        let mut pod = Map::new();
        pod.insert("spec", crate::json::parse(text.as_bytes()).expect("JSON"));
        of(&pod)
    }

    #[test]
    fn the_class_follows_from_requests_and_limits() {
        let all = r#"{"limits":{"cpu":"1","memory":"1Gi"},"requests":{"cpu":"1000m","memory":"1024Mi"}}"#;
        assert_eq!(of_spec(r#"{"containers":[{}]}"#), "BestEffort");
        assert_eq!(of_spec(&format!(r#"{{"containers":[{{"resources":{all}}}]}}"#)), "Guaranteed");
        assert_eq!(of_spec(&format!(r#"{{"containers":[{{"resources":{all}}},{{}}]}}"#)), "Burstable");
        assert_eq!(of_spec(&format!(r#"{{"resources":{all},"containers":[{{}}]}}"#)), "Guaranteed");
        assert_eq!(of_spec(r#"{"containers":[{"resources":{"requests":{"cpu":"0"}}}]}"#), "BestEffort");
        assert_eq!(of_spec(r#"{"containers":[{"resources":{"requests":{"cpu":"1"}}}]}"#), "Burstable");
    }
}
