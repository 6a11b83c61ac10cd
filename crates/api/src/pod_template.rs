//! Pod templates as JSON, for who has no types to go by: whether two say the same.

use crate::quantity::Quantity;
use serde_json::Value;

/// Where a template has quantities; `*` is any item of a list, or any member of a map.
#[rustfmt::skip]
pub const QUANTITIES: [&[&str]; 17] = [
    &["spec", "containers", "*", "env", "*", "valueFrom", "resourceFieldRef", "divisor"],
    &["spec", "containers", "*", "resources", "limits", "*"],
    &["spec", "containers", "*", "resources", "requests", "*"],
    &["spec", "ephemeralContainers", "*", "env", "*", "valueFrom", "resourceFieldRef", "divisor"],
    &["spec", "ephemeralContainers", "*", "resources", "limits", "*"],
    &["spec", "ephemeralContainers", "*", "resources", "requests", "*"],
    &["spec", "initContainers", "*", "env", "*", "valueFrom", "resourceFieldRef", "divisor"],
    &["spec", "initContainers", "*", "resources", "limits", "*"],
    &["spec", "initContainers", "*", "resources", "requests", "*"],
    &["spec", "overhead", "*"],
    &["spec", "resources", "limits", "*"],
    &["spec", "resources", "requests", "*"],
    &["spec", "volumes", "*", "downwardAPI", "items", "*", "resourceFieldRef", "divisor"],
    &["spec", "volumes", "*", "emptyDir", "sizeLimit"],
    &["spec", "volumes", "*", "ephemeral", "volumeClaimTemplate", "spec", "resources", "limits", "*"],
    &["spec", "volumes", "*", "ephemeral", "volumeClaimTemplate", "spec", "resources", "requests", "*"],
    &[
        "spec", "volumes", "*", "projected", "sources", "*", "downwardAPI", "items", "*", "resourceFieldRef", "divisor",
    ],
];

/// Whether two templates in the form in which they are served are the same, however their quantities are written.
pub fn same(one: &Value, other: &Value) -> bool {
    if one == other {
        return true;
    }
    let mut one = one.clone();
    for path in QUANTITIES {
        reword(&mut one, other, path);
    }
    one == *other
}

/// Writes the quantities at a path as another value writes those that are at the same place and have the same value.
fn reword(value: &mut Value, like: &Value, path: &[&str]) {
    match (path, value, like) {
        ([], Value::String(text), Value::String(like)) if text != like && Quantity::same_value(text, like) => {
            text.clone_from(like);
        }
        (["*", rest @ ..], Value::Array(items), Value::Array(like)) => {
            items.iter_mut().zip(like).for_each(|(item, like)| reword(item, like, rest));
        }
        (["*", rest @ ..], Value::Object(members), Value::Object(like)) => {
            for (name, member) in members {
                if let Some(like) = like.get(name) {
                    reword(member, like, rest);
                }
            }
        }
        ([name, rest @ ..], Value::Object(members), Value::Object(like)) => {
            if let (Some(member), Some(like)) = (members.get_mut(*name), like.get(*name)) {
                reword(member, like, rest);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn how_a_quantity_is_written_makes_no_other_template() {
        let template = |cpu: &str, size: &str, text: &str| {
            json!({"metadata": {"labels": {"a": text}}, "spec": {
                "containers": [
                    {"name": "a", "resources": {"limits": {"cpu": cpu, "memory": "1Gi"}}},
                    {"name": "b", "env": [{"name": "e", "value": text}]}],
                "overhead": {"cpu": cpu},
                "volumes": [{"name": "v", "emptyDir": {"sizeLimit": size}}]}})
        };
        let one = template("1.234", "1.5Gi", "1");
        assert!(same(&one, &one) && same(&one, &template("1234m", "1536Mi", "1")));
        assert!(same(&template("1234m", "1536Mi", "1"), &one));
        for other in [
            template("1235m", "1.5Gi", "1"),
            template("1.234", "1Gi", "1"),
            // No quantities.
            template("1.234", "1.5Gi", "1.0"),
            Value::Null,
        ] {
            assert!(!same(&one, &other) && !same(&other, &one), "{other}");
        }
    }
}
