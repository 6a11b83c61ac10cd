//! What a restore does to each object, decided from what it was and what it is.
//!
//! What people and tools write is brought back: labels, annotations, spec, data. What the server keeps is not (identity,
//! versions, times, managed fields), nor is status, which controllers and kubelets make anew. Finalizers and owners of an
//! object that is there stay as they are.

use super::cluster::{Kind, text};
use super::shown::bare;
use serde_json::{Map, Value};

/// What is to be done to an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Create(Value),
    Update(Value),
    /// It is as it was.
    Nothing,
    /// It is left alone, for this reason.
    Skip(String),
    /// It cannot be brought back yet, for this reason.
    Wait(String),
}

/// Metadata that the server keeps.
const SERVERS: [&str; 8] = [
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
];
/// Finalizers of a deletion that was under way.
const DELETING: [&str; 2] = ["foregroundDeletion", "orphan"];
/// Who makes an object by itself out of others is told by a label on it.
const MANAGED: [&str; 2] = ["endpoints.kubernetes.io/managed-by", "endpointslice.kubernetes.io/managed-by"];
/// A Job that is made is given these by the server, after its new identity.
const JOB_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];

/// What others need comes first, what needs others last; all else is between.
const FIRST: [&str; 10] = [
    "namespaces",
    "resourcequotas",
    "limitranges",
    "serviceaccounts",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "roles",
    "rolebindings",
    "services",
];
const LAST: [&str; 8] = [
    "podtemplates",
    "replicationcontrollers",
    "replicasets",
    "deployments",
    "statefulsets",
    "daemonsets",
    "cronjobs",
    "jobs",
];

/// The place of a kind in the order in which objects are made.
pub fn order(kind: &Kind) -> usize {
    let place = |list: &[&str]| list.iter().position(|plural| *plural == kind.plural);
    match (place(&FIRST), place(&LAST)) {
        (Some(first), _) => first,
        (None, Some(last)) => FIRST.len() + 1 + last,
        // Pods that nobody owns, after all that makes pods.
        (None, None) if kind.is("", "pods") => FIRST.len() + 1 + LAST.len(),
        (None, None) => FIRST.len(),
    }
}

/// Why an object is not for people to bring back: something makes it out of other objects.
pub fn made_by_others(object: &Value) -> Option<String> {
    let owners = object["metadata"]["ownerReferences"].as_array();
    if let Some(owner) = owners.into_iter().flatten().find(|owner| owner["controller"] == true) {
        return Some(format!("{} {} makes it", text(&owner["kind"]), text(&owner["name"])));
    }
    let manager = MANAGED.iter().find_map(|label| object["metadata"]["labels"].get(label));
    manager.map(|manager| format!("{} makes it", text(manager)))
}

/// What is to be done to one object. `living` tells which owner references name an object that is there.
pub fn plan(kind: &Kind, past: &Value, present: Option<&Value>, living: impl Fn(&Value) -> bool) -> Action {
    if past["metadata"].get("deletionTimestamp").is_some() {
        return Action::Skip("it was being deleted at that moment".to_owned());
    }
    match present {
        None => Action::Create(to_create(kind, past, living)),
        Some(present) if present["metadata"].get("deletionTimestamp").is_some() => {
            Action::Wait("it is being deleted: try again when it is gone".to_owned())
        }
        Some(present) => {
            let wanted = to_update(past, present);
            match bare(wanted.clone(), false) == bare(present.clone(), false) {
                true => Action::Nothing,
                false => Action::Update(wanted),
            }
        }
    }
}

/// What the past has, without what is the server's: the object without its metadata, and these.
fn written(past: &Value) -> (Value, Map<String, Value>) {
    let mut object = past.clone();
    let mut metadata = Map::new();
    if let Some(object) = object.as_object_mut() {
        object.remove("status");
        if let Some(Value::Object(own)) = object.remove("metadata") {
            metadata = own;
        }
    }
    metadata.retain(|key, _| !SERVERS.contains(&key.as_str()));
    (object, metadata)
}

fn to_create(kind: &Kind, past: &Value, living: impl Fn(&Value) -> bool) -> Value {
    let (mut object, mut metadata) = written(past);
    let mut keep = |list: &str, wanted: &dyn Fn(&Value) -> bool| {
        if let Some(items) = metadata.get_mut(list).and_then(Value::as_array_mut) {
            items.retain(wanted);
            if items.is_empty() {
                metadata.remove(list);
            }
        }
    };
    keep("finalizers", &|finalizer| !DELETING.contains(&text(finalizer)));
    // An object whose owner is gone would be collected at once.
    keep("ownerReferences", &living);
    object["metadata"] = Value::Object(metadata);
    if kind.is("", "pods") {
        // Where it runs is for the scheduler to say.
        remove(&mut object, &["spec", "nodeName"]);
    }
    if kind.is("batch", "jobs") && object["spec"]["manualSelector"] != true {
        remove(&mut object, &["spec", "selector"]);
        for label in JOB_LABELS {
            remove(&mut object, &["metadata", "labels", label]);
            remove(&mut object, &["spec", "template", "metadata", "labels", label]);
        }
    }
    object
}

fn remove(object: &mut Value, path: &[&str]) {
    let Some((last, parents)) = path.split_last() else { return };
    let parent = parents.iter().try_fold(object, |value, key| value.get_mut(key));
    if let Some(parent) = parent.and_then(Value::as_object_mut) {
        parent.remove(*last);
    }
}

fn to_update(past: &Value, present: &Value) -> Value {
    let (mut object, mut metadata) = written(past);
    for key in SERVERS.iter().chain(&["finalizers", "ownerReferences"]).filter(|key| **key != "managedFields") {
        match present["metadata"].get(key) {
            Some(held) => metadata.insert((*key).to_owned(), held.clone()),
            None => metadata.remove(*key),
        };
    }
    object["metadata"] = Value::Object(metadata);
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn kind(group: &str, plural: &str) -> Kind {
        Kind { group: group.to_owned(), plural: plural.to_owned(), ..Kind::default() }
    }

    fn map(version: &str, value: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": value}, "metadata": {
            "name": "c", "uid": "u1", "resourceVersion": version, "creationTimestamp": "2026-01-31T08:00:00Z",
            "managedFields": [{"manager": version}], "labels": {"l": value}}})
    }

    #[test]
    fn what_is_gone_is_made_without_what_is_the_servers() {
        let mut past = map("7", "1");
        past["status"] = json!({"x": 1});
        past["metadata"]["finalizers"] = json!(["foregroundDeletion", "mine"]);
        past["metadata"]["ownerReferences"] = json!([{"uid": "gone"}, {"uid": "there"}]);
        let action = plan(&kind("", "configmaps"), &past, None, |owner| owner["uid"] == "there");
        let wanted = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1"}, "metadata": {
            "name": "c", "labels": {"l": "1"}, "finalizers": ["mine"], "ownerReferences": [{"uid": "there"}]}});
        assert_eq!(action, Action::Create(wanted));
    }

    #[test]
    fn what_is_there_is_changed_in_what_people_write() {
        let mut present = map("9", "2");
        present["metadata"]["uid"] = json!("u2");
        present["metadata"]["finalizers"] = json!(["new"]);
        let action = plan(&kind("", "configmaps"), &map("7", "1"), Some(&present), |_| true);
        let Action::Update(update) = action else { panic!("{action:?}") };
        assert_eq!((&update["data"]["a"], &update["metadata"]["labels"]["l"]), (&json!("1"), &json!("1")));
        assert_eq!((&update["metadata"]["uid"], &update["metadata"]["resourceVersion"]), (&json!("u2"), &json!("9")));
        assert_eq!(update["metadata"]["finalizers"], json!(["new"]));
        assert!(update["metadata"].get("managedFields").is_none());
        let mut same = map("9", "1");
        same["status"] = json!({"seen": 2});
        assert_eq!(plan(&kind("", "configmaps"), &map("7", "1"), Some(&same), |_| true), Action::Nothing);
    }

    #[test]
    fn what_ends_or_is_made_by_others_is_left_alone() {
        let mut ending = map("9", "2");
        ending["metadata"]["deletionTimestamp"] = json!("2026-01-31T08:00:00Z");
        let action = |past: &Value, present: &Value| plan(&kind("", "configmaps"), past, Some(present), |_| true);
        assert!(matches!(action(&map("7", "1"), &ending), Action::Wait(_)));
        assert!(matches!(action(&ending, &map("7", "1")), Action::Skip(_)));
        let mut owned = map("7", "1");
        owned["metadata"]["ownerReferences"] = json!([{"kind": "ReplicaSet", "name": "r", "controller": true}]);
        assert_eq!(made_by_others(&owned).as_deref(), Some("ReplicaSet r makes it"));
        assert_eq!(made_by_others(&map("7", "1")), None);
    }

    #[test]
    fn jobs_and_pods_are_given_their_places_anew() {
        let job = json!({"metadata": {"name": "j", "labels": {"controller-uid": "x", "a": "b"}}, "spec": {
            "selector": {"matchLabels": {}}, "template": {"metadata": {"labels": {"batch.kubernetes.io/controller-uid": "x"}}}}});
        let Action::Create(made) = plan(&kind("batch", "jobs"), &job, None, |_| true) else { panic!("not made") };
        let wanted = json!({"metadata": {"name": "j", "labels": {"a": "b"}}, "spec": {"template": {"metadata": {"labels": {}}}}});
        assert_eq!(made, wanted);
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "x": 1}});
        let Action::Create(made) = plan(&kind("", "pods"), &pod, None, |_| true) else { panic!("not made") };
        assert_eq!(made["spec"], json!({"x": 1}));
    }

    #[test]
    fn what_others_need_comes_first() {
        let order = |group: &str, plural: &str| order(&kind(group, plural));
        assert!(order("", "namespaces") < order("", "secrets"));
        assert!(order("", "configmaps") < order("example.org", "things"));
        assert!(order("example.org", "things") < order("apps", "deployments"));
        assert!(order("apps", "deployments") < order("", "pods"));
    }
}
