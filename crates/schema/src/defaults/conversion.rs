//! What upstream's conversion from the served to the internal form and back does to annotations: some stood for fields that the
//! served form had not yet, or has no more.

use crate::tree::{Map, Value};
use crate::types::TypeRef;
use api::field::go_quote;

const ANNOTATIONS: [&str; 2] = ["metadata", "annotations"];
/// What init containers were told by, before they were fields.
const INIT_CONTAINERS: [&str; 4] = [
    "pod.beta.kubernetes.io/init-containers",
    "pod.alpha.kubernetes.io/init-containers",
    "pod.beta.kubernetes.io/init-container-statuses",
    "pod.alpha.kubernetes.io/init-container-statuses",
];
const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn annotation<'m>(object: &'m Map, name: &str) -> Option<&'m str> {
    object.at(&ANNOTATIONS)?.as_map()?.get(name)?.as_str()
}

/// Pods, and templates of them, lose what nobody reads any more.
pub(super) fn pod(object: &mut Map) {
    if INIT_CONTAINERS.iter().any(|name| annotation(object, name).is_some())
        && let Some(annotations) = object.at_mut(&ANNOTATIONS).and_then(Value::as_map_mut)
    {
        annotations.retain(|key, _| !INIT_CONTAINERS.contains(&key));
    }
}

/// The revision to go back to is a number, or not there.
pub(super) fn deployment(object: &mut Map) {
    let revision = match annotation(object, ROLLBACK_TO) {
        None => return,
        Some("") => None,
        Some(text) => match number(text) {
            Ok(number) if number.to_string() != text => Some(number),
            _ => return,
        },
    };
    let Some(annotations) = object.at_mut(&ANNOTATIONS).and_then(Value::as_map_mut) else { return };
    match revision {
        Some(number) => drop(annotations.insert(ROLLBACK_TO, number.to_string())),
        None => drop(annotations.remove(ROLLBACK_TO)),
    }
}

/// Why an object can't be converted to upstream's internal form, in its words; `None`: it can.
pub fn problem(ty: TypeRef<'_>, object: &Map) -> Option<String> {
    let name = ty.as_struct()?.ruled_as();
    match name.strip_prefix("io.k8s.").unwrap_or(&name) {
        "api.apps.v1.Deployment" => {
            let text = annotation(object, ROLLBACK_TO).filter(|text| !text.is_empty())?;
            let why = number(text).err()?;
            Some(format!("failed to parse annotation[{ROLLBACK_TO}]={text} as int64: {why}"))
        }
        "api.apps.v1.DaemonSet" => number(annotation(object, TEMPLATE_GENERATION)?).err(),
        _ => None,
    }
}

/// A number as Go's `ParseInt` reads it, or its words.
fn number(text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    text.parse().map_err(|_| {
        let why = if digits { "value out of range" } else { "invalid syntax" };
        format!("strconv.ParseInt: parsing {}: {why}", go_quote(text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::tests_support::value;

    fn ty(kind: &str) -> TypeRef<'static> {
        let group = if kind == "Pod" { "" } else { "apps" };
        crate::types::of_kind(group, "v1", kind).expect("a kind")
    }

    fn object(json: &str) -> Map {
        match value(json) {
            Value::Map(map) => map,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn annotations_of_init_containers_are_dropped() {
        let annotations = r#"{"annotations":{"pod.alpha.kubernetes.io/init-containers":"[]","pod.beta.kubernetes.io/init-container-statuses":"[]","a":"b"}}"#;
        let mut pod = object(&format!(r#"{{"metadata":{annotations}}}"#));
        crate::defaults::apply(ty("Pod"), &mut pod);
        assert_eq!(pod.get("metadata"), Some(&value(r#"{"annotations":{"a":"b"}}"#)));
        let mut set =
            object(&format!(r#"{{"metadata":{annotations},"spec":{{"template":{{"metadata":{annotations}}}}}}}"#));
        crate::defaults::apply(ty("ReplicaSet"), &mut set);
        assert_eq!(set.at(&["spec", "template", "metadata"]), Some(&value(r#"{"annotations":{"a":"b"}}"#)));
        assert_eq!(set.get("metadata"), Some(&value(annotations)));
    }

    #[test]
    fn annotations_that_were_numbers_are_numbers() {
        let with =
            |name: &str, text: &str| object(&format!(r#"{{"metadata":{{"annotations":{{"{name}":"{text}"}}}}}}"#));
        for (kind, name, text, why) in [
            (
                "Deployment",
                ROLLBACK_TO,
                "x",
                Some(
                    r#"failed to parse annotation[deprecated.deployment.rollback.to]=x as int64: strconv.ParseInt: parsing "x": invalid syntax"#,
                ),
            ),
            ("Deployment", ROLLBACK_TO, "", None),
            ("Deployment", ROLLBACK_TO, "-2", None),
            ("Deployment", TEMPLATE_GENERATION, "x", None),
            ("DaemonSet", TEMPLATE_GENERATION, "2", None),
            ("DaemonSet", TEMPLATE_GENERATION, "", Some(r#"strconv.ParseInt: parsing "": invalid syntax"#)),
            (
                "DaemonSet",
                TEMPLATE_GENERATION,
                "9223372036854775808",
                Some(r#"strconv.ParseInt: parsing "9223372036854775808": value out of range"#),
            ),
            ("ReplicaSet", ROLLBACK_TO, "x", None),
        ] {
            assert_eq!(problem(ty(kind), &with(name, text)).as_deref(), why, "{kind} {text}");
        }
        for (given, kept) in [("", None), ("+07", Some("7")), ("3", Some("3"))] {
            let mut deployment = with(ROLLBACK_TO, given);
            crate::defaults::apply(ty("Deployment"), &mut deployment);
            assert_eq!(annotation(&deployment, ROLLBACK_TO), kept, "{given}");
        }
    }
}
