use super::super::versions::OneShape;
use super::*;
use crate::patch::tests_support::value;
use proptest::prelude::*;

fn ty() -> TypeRef<'static> {
    crate::types::of_kind("apps", "v1", "Deployment").unwrap_or_else(|| panic!("deployments are known"))
}

fn object(json: &str) -> Map {
    match value(json) {
        Value::Map(map) => map,
        other => panic!("{other:?}"),
    }
}

fn manager(name: &str) -> Manager<'_> {
    Manager { name, api_version: "apps/v1", subresource: "", now: "2026-01-01T00:00:00Z", versions: &OneShape }
}

fn applied(live: Option<&Map>, config: &str, by: &str, force: bool) -> Result<Map, Vec<Conflict>> {
    apply(ty(), live, &object(config), &manager(by), force, &Set::new())
}

fn fields(object: &Map, by: &str) -> String {
    let entries = object.at(&["metadata", "managedFields"]).and_then(Value::as_list).unwrap_or(&[]);
    let found = entries.iter().filter_map(Value::as_map).find(|e| e.str_at(&["manager"]) == by);
    let mut out = Vec::new();
    if let Some(value) = found.and_then(|e| e.get("fieldsV1")) {
        crate::json::encode_value(value, &mut out);
    }
    String::from_utf8_lossy(&out).into_owned()
}

const WEB: &str = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d","labels":{"app":"x"}},
    "spec":{"replicas":2,"template":{"spec":{"containers":[{"name":"c","image":"a","ports":[{"containerPort":80}]}]}}}}"#;

#[test]
fn a_creation_is_owned_as_upstream_notes_it() {
    let mut created = object(WEB);
    track(ty(), None, &mut created, &manager("kubectl-create"), &Set::new());
    let noted = fields(&created, "kubectl-create");
    assert!(noted.contains(r#""f:labels":{".":{},"f:app":{}}"#), "{noted}");
    assert!(noted.contains(r#""f:spec":{"f:replicas":{},"#), "{noted}");
    assert!(noted.contains(r#""k:{\"name\":\"c\"}":{".":{},"f:image":{},"f:name":{},"f:ports":{".":{},"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{}}}}"#), "{noted}");
    assert!(!noted.contains("f:kind") && !noted.contains(r#""f:name":{},"f:labels""#), "{noted}");
}

/// What is written at once for a new object is what a comparison with an empty one finds.
#[test]
fn a_creation_is_noted_as_a_change_of_nothing() {
    let pod = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","generateName":"x","annotations":{},"finalizers":["b","a","b"],
        "labels":{"a/b":"","q\"":"\\"},"ownerReferences":[{"uid":"2","name":"n"},{"uid":"1"},{"uid":"2","controller":true}]},
        "spec":{"containers":[{"name":"b","ports":[{"containerPort":80,"protocol":"UDP"},{"containerPort":80}],"resources":{},
        "env":[],"args":["x"],"volumeMounts":[{"mountPath":"/a","name":"v"},{"mountPath":"/a","name":"w"}]},{"name":"a","image":null}],
        "initContainers":null,"nodeSelector":{"z":"1","a":"2"},"tolerations":[{"key":"k"}],"securityContext":{}},"status":{"phase":"x","podIPs":[{"ip":"1.1.1.1"}]}}"#;
    for (kind, group, json) in [
        ("Deployment", "apps", WEB),
        ("Deployment", "apps", "{}"),
        ("Deployment", "apps", r#"{"spec":{},"metadata":{}}"#),
        ("Pod", "", pod),
        ("Pod", "", r#"{"metadata":{"name":"p"},"spec":{"containers":[]}}"#),
        ("ConfigMap", "", r#"{"metadata":{"name":"c"},"data":{"b":"1","a":"2"},"binaryData":{},"immutable":false}"#),
        (
            "Service",
            "",
            r#"{"spec":{"ports":[{"port":80},{"port":80,"protocol":"UDP"}],"selector":{"a":"b"}},"status":{"loadBalancer":{}}}"#,
        ),
    ] {
        let ty = crate::types::of_kind(group, "v1", kind).unwrap_or_else(|| panic!("{kind} is known"));
        let but = ["name", "generateName"];
        let mut empty = Map::new();
        normal::normalise(ty, &mut empty, None).unwrap_or_else(|e| panic!("{e}"));
        let new = object(json);
        let change = compare(ty, &empty, &new, &but);
        assert_eq!(created(ty, &empty, &new, &but, &Set::new()), change.changed().to_fields(), "{kind} {json}");
    }
}

#[test]
fn an_apply_claims_what_it_says_and_conflicts_over_the_rest() {
    let first = applied(None, WEB, "a", false).unwrap_or_else(|c| panic!("{c:?}"));
    let noted = fields(&first, "a");
    assert!(noted.contains(r#""f:labels":{"f:app":{}}"#), "{noted}");
    let other = r#"{"spec":{"replicas":3}}"#;
    let conflicts = applied(Some(&first), other, "b", false).err().unwrap_or_default();
    assert_eq!(conflict_message(&conflicts), r#"Apply failed with 1 conflict: conflict with "a": .spec.replicas"#);
    let forced = applied(Some(&first), other, "b", true).unwrap_or_else(|c| panic!("{c:?}"));
    assert_eq!(forced.at(&["spec", "replicas"]), Some(&Value::Int(3)));
    assert!(!fields(&forced, "a").contains("replicas"));
    assert_eq!(fields(&forced, "b"), r#"{"f:spec":{"f:replicas":{}}}"#);
    // The same value is shared without a conflict.
    let shared = applied(Some(&first), r#"{"spec":{"replicas":2}}"#, "b", false).unwrap_or_else(|c| panic!("{c:?}"));
    assert!(fields(&shared, "a").contains("replicas") && fields(&shared, "b").contains("replicas"));
}

#[test]
fn who_says_nothing_owns_nothing() {
    let name = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"}}"#;
    let first = applied(None, name, "a", false).unwrap_or_else(|c| panic!("{c:?}"));
    assert_eq!(first.at(&["metadata", "managedFields"]), None);
    let scaled = r#"{"metadata":{"name":"d"},"spec":{"replicas":1}}"#;
    let second = applied(Some(&first), scaled, "b", false).unwrap_or_else(|c| panic!("{c:?}"));
    assert_eq!(fields(&second, "b"), r#"{"f:spec":{"f:replicas":{}}}"#);
    let gone = applied(Some(&second), name, "b", false).unwrap_or_else(|c| panic!("{c:?}"));
    assert_eq!(fields(&gone, "b"), "");
}

#[test]
fn metadata_itself_is_never_taken_away() {
    let name = r#"{"metadata":{"name":"d"},"spec":{"replicas":1}}"#;
    let mut live = applied(None, name, "a", false).unwrap_or_else(|c| panic!("{c:?}"));
    // As earlier versions noted it.
    let entries = live.at_mut(&["metadata", "managedFields"]).and_then(Value::as_list_mut).expect("managers");
    let entry = entries[0].as_map_mut().expect("an entry");
    entry.insert("fieldsV1", Value::Raw(r#"{"f:metadata":{},"f:spec":{"f:replicas":{}}}"#.into()));
    let again = applied(Some(&live), name, "a", false).unwrap_or_else(|c| panic!("{c:?}"));
    assert_eq!(again.str_at(&["metadata", "name"]), "d");
    assert_eq!(fields(&again, "a"), r#"{"f:spec":{"f:replicas":{}}}"#);
}

/// The order of the containers of a deployment, by their names, of which a configuration names some.
#[test]
fn items_come_in_upstreams_order() {
    let containers = |names: &str| {
        let items: Vec<String> = names.chars().map(|name| format!(r#"{{"name":"{name}","image":"i"}}"#)).collect();
        format!(r#"{{"spec":{{"template":{{"spec":{{"containers":[{}]}}}}}}}}"#, items.join(","))
    };
    for (live, config, wanted) in [
        ("a", "s", "as"),
        ("as", "na", "nas"),
        ("as", "an", "asn"),
        ("abc", "cb", "acb"),
        ("abc", "xb", "axbc"),
        ("abcd", "dxa", "bcdxa"),
        ("ab", "ba", "ba"),
        ("", "ab", "ab"),
        // Items that share a key are one for whoever names them, and stay for others.
        ("aab", "b", "aab"),
        ("aba", "a", "ab"),
    ] {
        let live = object(&containers(live));
        let result = merge::merged(ty(), &live, &object(&containers(config)));
        let items = result.at(&["spec", "template", "spec", "containers"]).and_then(Value::as_list).unwrap_or_default();
        let names: String = items.iter().filter_map(Value::as_map).map(|item| item.str_at(&["name"])).collect();
        assert_eq!(names, wanted, "{config} applied");
    }
}

#[test]
fn what_its_last_owner_gives_up_goes() {
    let first = applied(None, WEB, "a", false).unwrap_or_else(|c| panic!("{c:?}"));
    let less = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"},"spec":{"template":{"spec":{"containers":[{"name":"c","image":"a"}]}}}}"#;
    let second = applied(Some(&first), less, "a", false).unwrap_or_else(|c| panic!("{c:?}"));
    assert_eq!(second.at(&["spec", "replicas"]), None);
    assert_eq!(second.at(&["metadata", "labels"]), None);
    let containers = second.at(&["spec", "template", "spec", "containers"]).and_then(Value::as_list);
    assert_eq!(containers.map(<[Value]>::len), Some(1));
    assert_eq!(containers.and_then(|c| c[0].as_map()).and_then(|c| c.get("ports")), None);
    // With another owner it stays.
    let shared = applied(Some(&first), r#"{"spec":{"replicas":2}}"#, "b", false).unwrap_or_else(|c| panic!("{c:?}"));
    let kept = applied(Some(&shared), less, "a", false).unwrap_or_else(|c| panic!("{c:?}"));
    assert_eq!(kept.at(&["spec", "replicas"]), Some(&Value::Int(2)));
}

#[test]
fn updates_take_over_what_they_change() {
    let first = applied(None, WEB, "a", false).unwrap_or_else(|c| panic!("{c:?}"));
    let mut scaled = first.clone();
    scaled.set_at(&["spec", "replicas"], 5);
    track(ty(), Some(&first), &mut scaled, &manager("kubectl-scale"), &Set::new());
    assert!(!fields(&scaled, "a").contains("replicas"));
    assert_eq!(fields(&scaled, "kubectl-scale"), r#"{"f:spec":{"f:replicas":{}}}"#);
    let conflicts = applied(Some(&scaled), WEB, "a", false).err().unwrap_or_default();
    assert_eq!(
        conflict_message(&conflicts),
        r#"Apply failed with 1 conflict: conflict with "kubectl-scale" using apps/v1: .spec.replicas"#
    );
}

#[test]
fn what_nobody_managed_belongs_to_before_first_apply() {
    let live = object(WEB);
    let result = applied(Some(&live), r#"{"spec":{"replicas":2}}"#, "a", false).unwrap_or_else(|c| panic!("{c:?}"));
    let mut created = object(WEB);
    track(ty(), None, &mut created, &manager("x"), &Set::new());
    assert_eq!(fields(&result, "before-first-apply"), fields(&created, "x"), "all that it is, as of a creation");
    let config = object(r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"a":"1"}}"#);
    let ty_of = crate::types::of_kind("", "v1", "ConfigMap").expect("a kind");
    let manager_of = Manager { api_version: "v1", ..manager("a") };
    let added = object(r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"b":"2"}}"#);
    let applied = apply(ty_of, Some(&config), &added, &manager_of, false, &Set::new()).expect("no conflict");
    assert_eq!(fields(&applied, "before-first-apply"), r#"{"f:data":{".":{},"f:a":{}}}"#);
    let mut untracked = live.clone();
    untracked.set_at(&["spec", "replicas"], 9);
    track(ty(), Some(&live), &mut untracked, &manager("x"), &Set::new());
    assert_eq!(untracked.at(&["metadata", "managedFields"]), None);
}

#[test]
fn what_an_endpoint_does_not_write_has_no_new_owner() {
    let mut reset = Set::new();
    reset.below(Element::Field("spec".into())).insert_here();
    let first = applied(None, WEB, "a", false).unwrap_or_else(|c| panic!("{c:?}"));
    let mut updated = first.clone();
    updated.set_at(&["spec", "replicas"], 9);
    updated.set_at(&["status", "replicas"], 2);
    track(ty(), Some(&first), &mut updated, &manager("ctl"), &reset);
    assert_eq!(fields(&updated, "ctl"), r#"{"f:status":{".":{},"f:replicas":{}}}"#);
    assert_eq!(fields(&updated, "a"), fields(&first, "a"));
    let mut created = object(WEB);
    created.set_at(&["status", "replicas"], 2);
    track(ty(), None, &mut created, &manager("ctl"), &reset);
    let noted = fields(&created, "ctl");
    assert!(!noted.contains("f:spec") && noted.contains("f:status"), "{noted}");
}

#[test]
fn update_managers_are_capped() {
    let mut live = object(WEB);
    track(ty(), None, &mut live, &manager("m0"), &Set::new());
    for i in 1..=15 {
        let mut next = live.clone();
        next.set_at(&["spec", "replicas"], 10 + i);
        next.set_at(&["metadata", "annotations"], {
            let mut annotations =
                live.at(&["metadata", "annotations"]).and_then(Value::as_map).cloned().unwrap_or_default();
            annotations.insert(format!("a{i}"), "x");
            annotations
        });
        let (name, now) = (format!("m{i}"), format!("2026-01-01T00:00:{i:02}Z"));
        track(ty(), Some(&live), &mut next, &Manager { name: &name, now: &now, ..manager("") }, &Set::new());
        live = next;
    }
    let entries = live.at(&["metadata", "managedFields"]).and_then(Value::as_list).unwrap_or(&[]);
    assert_eq!(entries.len(), MAX_UPDATE_MANAGERS);
    assert!(fields(&live, "ancient-changes").contains("f:image"));
}

/// An object of a deployment with a manager for each label, of a version and a subresource, a second after the other.
fn managed_by(entries: &[(&str, &str, &str)]) -> Map {
    let mut live = object(WEB);
    let entries: Vec<Value> = entries
        .iter()
        .enumerate()
        .map(|(i, (name, api_version, subresource))| {
            value(&format!(
                r#"{{"apiVersion":"{api_version}","fieldsType":"FieldsV1","fieldsV1":{{"f:metadata":{{"f:labels":{{"f:l{i}":{{}}}}}}}},
                "manager":"{name}","operation":"Update","subresource":"{subresource}","time":"2026-01-01T00:00:{i:02}Z"}}"#
            ))
        })
        .collect();
    live.set_at(&["metadata", "managedFields"], entries);
    live
}

/// The managers that are left when another joins, each with what it came through.
fn with_another(live: &Map) -> (Map, Vec<String>) {
    let mut next = live.clone();
    next.set_at(&["spec", "paused"], true);
    let by = Manager { now: "2026-01-01T00:01:00Z", ..manager("new") };
    track(ty(), Some(live), &mut next, &by, &Set::new());
    let entries = next.at(&["metadata", "managedFields"]).and_then(Value::as_list).unwrap_or(&[]);
    let named =
        |e: &Map| format!("{} {} {}", e.str_at(&["manager"]), e.str_at(&["apiVersion"]), e.str_at(&["subresource"]));
    let names = entries.iter().filter_map(Value::as_map).map(named).collect();
    (next, names)
}

#[test]
fn updates_through_subresources_count_too() {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"];
    let both: Vec<_> = names.iter().map(|name| (*name, "apps/v1", "status")).collect();
    let (after, left) = with_another(&managed_by(&both));
    assert_eq!(left.len(), MAX_UPDATE_MANAGERS, "{left:?}");
    assert_eq!((left[0].as_str(), left[1].as_str()), ("ancient-changes apps/v1 ", "d apps/v1 status"));
    assert_eq!(fields(&after, ANCIENT), r#"{"f:metadata":{"f:labels":{"f:l0":{},"f:l1":{},"f:l2":{}}}}"#);
}

#[test]
fn only_updates_of_one_version_become_one() {
    let mut names = vec![("old", "apps/v1beta1", "")];
    names.extend(["b", "c", "d", "e", "f", "g", "h", "i", "j", "k"].map(|name| (name, "apps/v1", "")));
    let (after, left) = with_another(&managed_by(&names));
    assert_eq!(left.len(), MAX_UPDATE_MANAGERS, "{left:?}");
    assert_eq!(left[..3], ["old apps/v1beta1 ", "ancient-changes apps/v1 ", "e apps/v1 "]);
    assert_eq!(fields(&after, ANCIENT), r#"{"f:metadata":{"f:labels":{"f:l1":{},"f:l2":{},"f:l3":{}}}}"#);
    // What is one already and not the oldest loses nothing.
    let mut names = vec![("timeless", "apps/v1", "scale"), (ANCIENT, "apps/v1", "")];
    names.extend(["c", "d", "e", "f", "g", "h", "i", "j"].map(|name| (name, "apps/v1", "")));
    let (after, left) = with_another(&managed_by(&names));
    assert_eq!(left.len(), MAX_UPDATE_MANAGERS, "{left:?}");
    assert_eq!(fields(&after, "timeless"), r#"{"f:metadata":{"f:labels":{"f:l0":{}}}}"#);
    assert_eq!(fields(&after, ANCIENT), r#"{"f:metadata":{"f:labels":{"f:l1":{},"f:l2":{}}}}"#);
}

#[test]
fn what_a_client_sends_of_managers_counts_when_it_can_be_read() {
    let live = managed_by(&[("a", "apps/v1", "")]);
    let sent = |change: &dyn Fn(&mut Map)| {
        let mut next = managed_by(&[("forged", "apps/v1", "")]);
        let entries = next.at_mut(&["metadata", "managedFields"]).and_then(Value::as_list_mut).expect("managers");
        change(entries[0].as_map_mut().expect("an entry"));
        next
    };
    let managers = |mut next: Map, subresource: &str| {
        track(ty(), Some(&live), &mut next, &Manager { subresource, ..manager("x") }, &Set::new());
        let entries = next.at(&["metadata", "managedFields"]).and_then(Value::as_list).unwrap_or(&[]);
        entries.iter().filter_map(Value::as_map).map(|e| e.str_at(&["manager"]).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(managers(sent(&|_| ()), ""), ["forged"]);
    let unreadable: [&dyn Fn(&mut Map); 4] = [
        &|entry| entry.insert("apiVersion", "").map_or((), drop),
        &|entry| entry.insert("fieldsType", "FieldsV2").map_or((), drop),
        &|entry| entry.remove("fieldsType").map_or((), drop),
        &|entry| entry.insert("operation", "Delete").map_or((), drop),
    ];
    for change in unreadable {
        assert_eq!(managers(sent(change), ""), ["a"]);
    }
    // A subresource takes none of it.
    assert_eq!(managers(sent(&|_| ()), "status"), ["a"]);
    let mut nobody = live.clone();
    nobody.set_at(&["metadata", "managedFields"], vec![Value::Map(Map::new())]);
    assert_eq!(managers(nobody.clone(), "status"), ["a"]);
    assert!(managers(nobody.clone(), "").is_empty());
    // A new object is managed nevertheless.
    track(ty(), None, &mut nobody, &manager("maker"), &Set::new());
    assert!(fields(&nobody, "maker").contains("f:image"));
}

/// Configurations of a few fields of every shape: scalar, map, keyed list, set.
fn config() -> impl Strategy<Value = Map> {
    let labels = proptest::collection::btree_map("[a-c]", "[xy]", 0..3);
    let containers = proptest::collection::btree_map("[a-c]", "[xy]", 0..3);
    let finalizers = proptest::collection::btree_set("[a-c]", 0..3);
    (proptest::option::of(0i64..3), labels, containers, finalizers).prop_map(
        |(replicas, labels, containers, finalizers)| {
            let mut map = Map::new();
            if let Some(replicas) = replicas {
                map.set_at(&["spec", "replicas"], replicas);
            }
            if !labels.is_empty() {
                let labels: Map = labels.into_iter().map(|(k, v)| (k.into(), Value::from(v))).collect();
                map.set_at(&["metadata", "labels"], labels);
            }
            if !finalizers.is_empty() {
                map.set_at(&["metadata", "finalizers"], finalizers.into_iter().map(Value::from).collect::<Vec<_>>());
            }
            if !containers.is_empty() {
                let list: Vec<Value> = containers
                    .into_iter()
                    .map(|(name, image)| {
                        let mut c = Map::new();
                        c.insert("name", name);
                        c.insert("image", image);
                        Value::Map(c)
                    })
                    .collect();
                map.set_at(&["spec", "template", "spec", "containers"], list);
            }
            map
        },
    )
}

/// What is left beside the managers, without the metadata that held only them.
fn said(object: &Map) -> Map {
    let mut part = owned_part(object);
    if part.get("metadata").and_then(Value::as_map).is_some_and(Map::is_empty) {
        part.remove("metadata");
    }
    part
}

fn forced(live: Option<&Map>, config: &Map, by: &str) -> Map {
    apply(ty(), live, config, &manager(by), true, &Set::new()).unwrap_or_else(|c| panic!("forced, yet {c:?}"))
}

proptest! {
    #[test]
    fn applying_again_changes_nothing(first in config(), second in config()) {
        let one = forced(None, &first, "a");
        let two = forced(Some(&one), &second, "b");
        prop_assert_eq!(&forced(Some(&two), &second, "b"), &two);
    }

    #[test]
    fn a_lone_applier_gets_exactly_what_it_last_said(first in config(), second in config()) {
        let one = forced(None, &first, "a");
        let two = said(&forced(Some(&one), &second, "a"));
        prop_assert_eq!(set_of(ty(), &two), set_of(ty(), &second));
    }

    #[test]
    fn what_does_not_touch_does_not_depend_on_order(first in config(), second in config()) {
        // Without conflicts, the order of two appliers does not matter.
        let ab = apply(ty(), Some(&forced(None, &first, "a")), &second, &manager("b"), false, &Set::new());
        let ba = apply(ty(), Some(&forced(None, &second, "b")), &first, &manager("a"), false, &Set::new());
        prop_assert_eq!(ab.is_ok(), ba.is_ok());
        if let (Ok(ab), Ok(ba)) = (ab, ba) {
            prop_assert_eq!(set_of(ty(), &said(&ab)), set_of(ty(), &said(&ba)));
        }
    }
}
