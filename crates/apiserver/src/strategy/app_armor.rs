//! AppArmor by annotations, as before there were fields: what they say becomes the fields, which are all that nodes look at.

use crate::context::Context;
use schema::{Map, Value};
use std::collections::BTreeMap;

const PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";
const LOCALHOST: &str = "localhost/";
/// The longest path of a file.
const LONGEST: usize = 4095;

/// Gives the containers of a new pod the profiles that its annotations name, where they have none and the pod's is another.
pub(super) fn from_annotations(cx: &Context, pod: &mut Map) {
    let annotations = pod.at(&["metadata", "annotations"]).and_then(Value::as_map);
    let named = annotations.into_iter().flat_map(Map::iter).filter_map(|(key, value)| {
        let name = key.strip_prefix(PREFIX)?;
        Some((name.to_owned(), value.as_str().unwrap_or("").to_owned()))
    });
    let named: BTreeMap<String, String> = named.collect();
    if named.is_empty() || pod.str_at(&["spec", "os", "name"]) == "windows" {
        return;
    }
    let whole = pod.at(&["spec", "securityContext", "appArmorProfile"]).cloned();
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        let containers = pod.at_mut(&["spec", list]).and_then(Value::as_list_mut);
        for container in containers.into_iter().flatten().filter_map(Value::as_map_mut) {
            let name = container.str_at(&["name"]).to_owned();
            let Some(annotation) = named.get(&name) else { continue };
            if container.at(&["securityContext", "appArmorProfile"]).is_some() {
                continue;
            }
            // What names no profile is refused later, and told of here as upstream does.
            if let Some(profile) = profile(annotation).map(Value::Map) {
                if Some(&profile) == whole.as_ref() {
                    continue;
                }
                container.set_at(&["securityContext", "appArmorProfile"], profile);
            }
            cx.warn(format!(
                "metadata.annotations[{PREFIX}{name}]: deprecated since v1.30; use the \"appArmorProfile\" field instead"
            ));
        }
    }
}

/// The profile that an annotation names, if it is one.
fn profile(annotation: &str) -> Option<Map> {
    let mut profile = Map::new();
    match annotation {
        "unconfined" => profile.insert("type", "Unconfined"),
        "runtime/default" => profile.insert("type", "RuntimeDefault"),
        other => {
            let name = other.strip_prefix(LOCALHOST)?;
            if name.is_empty() || name.trim() != name || name.len() > LONGEST {
                return None;
            }
            profile.insert("localhostProfile", name.to_owned());
            profile.insert("type", "Localhost")
        }
    };
    Some(profile)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::map;

    /// A pod with one container, `a`, and an annotation for it; what becomes of its profile, and whether that is told.
    fn made(annotation: &str, spec: &str, context: &str) -> (Option<Map>, bool) {
        let mut pod = map(&format!(
            "{{metadata: {{annotations: {{'{PREFIX}a': '{annotation}'}}}}, spec: {{{spec}containers: [{{name: a, {context}}}]}}}}"
        ));
        let cx = Context::internal();
        from_annotations(&cx, &mut pod);
        let containers = pod.at(&["spec", "containers"]).and_then(Value::as_list).expect("containers");
        let container = containers[0].as_map().expect("a container");
        let profile = container.at(&["securityContext", "appArmorProfile"]).and_then(Value::as_map).cloned();
        let warning = format!(
            "metadata.annotations[{PREFIX}a]: deprecated since v1.30; use the \"appArmorProfile\" field instead"
        );
        assert!(cx.warnings().iter().all(|told| *told == warning), "{:?}", cx.warnings());
        (profile, !cx.warnings().is_empty())
    }

    #[test]
    fn annotations_become_fields() {
        let default = "{type: RuntimeDefault}";
        let of_pod = "securityContext: {appArmorProfile: {type: RuntimeDefault}}, ";
        let own = "securityContext: {appArmorProfile: {type: Unconfined}}";
        for (annotation, spec, context, expected, told) in [
            ("runtime/default", "", "image: i", Some(default), true),
            ("unconfined", "", "image: i", Some("{type: Unconfined}"), true),
            ("localhost/p", "", "image: i", Some("{type: Localhost, localhostProfile: p}"), true),
            // No profiles: nothing is set, but it is told.
            ("localhost/", "", "image: i", None, true),
            ("localhost/ p", "", "image: i", None, true),
            ("other", "", "image: i", None, true),
            // The pod's own, the container's own, and another system.
            ("runtime/default", of_pod, "image: i", None, false),
            ("unconfined", of_pod, "image: i", Some("{type: Unconfined}"), true),
            ("runtime/default", "", own, Some("{type: Unconfined}"), false),
            ("runtime/default", "os: {name: windows}, ", "image: i", None, false),
        ] {
            let (profile, warned) = made(annotation, spec, context);
            assert_eq!(profile, expected.map(map), "{annotation} {spec} {context}");
            assert_eq!(warned, told, "{annotation} {spec} {context}");
        }
    }
}
