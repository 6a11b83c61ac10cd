//! The catalogue: every resource has a type, storage where upstream keeps it, and rows that agree with each other.

use schema::resource::{self, Verbs};
use schema::types::{self, Docs, ListType};
use schema::{Kind, TypeRef};

#[test]
fn every_resource_has_its_type_its_list_and_its_subresources() {
    assert_eq!(resource::all().len(), 68);
    for r in resource::all().iter().chain(resource::optional()) {
        let ty = r.schema.root();
        assert_eq!(types::of_kind(&r.group, &r.version, &r.kind), r.schema.built_in(), "{}", r.plural);
        assert_eq!(ty.as_struct().unwrap().short_name(), r.kind);
        assert_eq!(resource::get(&r.group, &r.version, &r.plural).unwrap().kind, r.kind);
        assert_eq!(resource::of_kind(&r.group, &r.version, &r.kind).unwrap().plural, r.plural);
        if r.verbs.contains(Verbs::LIST) {
            let list = types::of_kind(&r.group, &r.version, &r.list_kind).unwrap();
            assert_eq!(list.at(&["items"]).unwrap().element(), Some(ty));
            assert!(!r.columns.is_empty(), "{} has no columns", r.plural);
        }
        if let Some(storage) = &r.storage {
            let stored = types::of_kind(&storage.group, &storage.version, &storage.kind);
            assert!(stored.is_some() && r.stored_type() == stored);
        }
        for s in r.subresources.iter().filter(|s| !s.kind.ends_with("Options")) {
            assert!(types::of_kind(&s.group, &s.version, &s.kind).is_some(), "{}/{}", r.plural, s.name);
        }
    }
}

#[test]
fn keys_are_where_upstream_keeps_them() {
    for (group, version, plural, prefix) in [
        ("", "v1", "pods", "/registry/pods/"),
        ("", "v1", "services", "/registry/services/specs/"),
        ("", "v1", "endpoints", "/registry/services/endpoints/"),
        ("", "v1", "nodes", "/registry/minions/"),
        ("", "v1", "replicationcontrollers", "/registry/controllers/"),
        ("networking.k8s.io", "v1", "ingresses", "/registry/ingress/"),
        ("coordination.k8s.io", "v1", "leases", "/registry/leases/"),
        ("events.k8s.io", "v1", "events", "/registry/events/"),
        ("apiregistration.k8s.io", "v1", "apiservices", "/registry/apiregistration.k8s.io/apiservices/"),
    ] {
        assert_eq!(resource::get(group, version, plural).unwrap().storage.as_ref().unwrap().prefix, prefix);
    }
    let event = resource::get("events.k8s.io", "v1", "events").unwrap().storage.clone().unwrap();
    assert_eq!((&*event.group, &*event.version), ("", "v1"));
    assert_eq!(resource::groups().iter().find(|(g, _)| *g == "autoscaling").unwrap().1, ["v2", "v1"]);
    assert!(resource::get("", "v1", "bindings").unwrap().storage.is_none());
}

#[test]
fn fields_say_what_the_tables_say() {
    let pod = types::of_kind("", "v1", "Pod").unwrap();
    let spec = pod.at(&["spec"]).unwrap().as_struct().unwrap();
    let containers = spec.field("containers").unwrap();
    assert!(containers.required() && !containers.omit_empty() && !containers.pointer());
    assert_eq!((containers.topology().list, containers.topology().keys.as_ref()), (ListType::Map, &["name"][..]));
    assert!(containers.topology().merge && containers.topology().merge_key == "name");
    let volume = pod.at(&["spec", "volumes"]).unwrap().element().unwrap().as_struct().unwrap();
    let empty_dir = volume.field("emptyDir").unwrap();
    assert_eq!(volume.groups()[usize::from(empty_dir.group()) - 1].number, 2);
    assert!(spec.field("volumes").unwrap().topology().retain_keys);
    assert!(pod.at(&["spec", "nodeSelector"]).is_some_and(|ty| matches!(ty.kind(), Kind::Map(_))));
    let ports = pod.at(&["spec", "containers", "ports", "protocol"]);
    assert!(ports.is_some());
    let protocol = pod
        .at(&["spec", "containers", "ports"])
        .unwrap()
        .element()
        .unwrap()
        .as_struct()
        .unwrap()
        .field("protocol")
        .unwrap();
    assert_eq!(protocol.default().unwrap().as_str(), Some("TCP"));
    assert!(types::find("io.k8s.api.core.v1.PodAffinityTerm").is_some());
}

#[test]
fn fields_are_sorted_and_every_protobuf_number_is_taken_once() {
    for s in types::structs() {
        let names: Vec<&str> = s.fields().map(|f| f.name()).collect();
        assert!(names.is_sorted(), "{}", s.name());
        let mut numbers: Vec<(u8, u32)> =
            s.fields().filter(|f| f.number() > 0).map(|f| (f.group(), f.number())).collect();
        numbers.extend(s.groups().iter().map(|g| (g.parent, u32::from(g.number))));
        let count = numbers.len();
        numbers.sort();
        numbers.dedup();
        assert_eq!(numbers.len(), count, "{}", s.name());
    }
}

#[test]
fn documentation_is_unpacked_on_demand() {
    let docs = Docs::unpack();
    let pod = types::of_kind("", "v1", "Pod").unwrap().as_struct().unwrap();
    assert!(docs.of_struct(pod).starts_with("Pod is a collection of containers"));
    assert!(docs.of_field(pod.field("spec").unwrap()).starts_with("Specification of the desired behavior of the pod"));
    let last = types::structs().last().unwrap();
    assert!(docs.of_field(last.fields().last().unwrap()).len() < 2000);
}

#[test]
fn graphs_made_at_run_time_work_as_the_built_in_one() {
    use schema::types::{Builder, NewField, Topology, flag};
    let mut builder = Builder::new();
    let meta = builder.built_in("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").unwrap();
    let string = builder.scalar(Kind::String);
    let strings = builder.list(string);
    let field =
        |name: &str, ty, flags| NewField { name: name.into(), ty, flags, topology: Topology::default(), default: None };
    let keep = flag::POINTER | flag::OMIT_EMPTY;
    let mut fields: Vec<NewField> = (0..100).map(|n| field(&format!("f{n:03}"), string, keep)).collect();
    fields.push(field("list", strings, keep));
    fields.push(field("none", string, keep | flag::NULLABLE));
    let spec = builder.structure("Spec", flag::OPEN, fields).unwrap();
    let root = builder
        .structure("Root", 0, vec![field("metadata", meta, 0), field("spec", spec, keep), field("kind", string, keep)])
        .unwrap();
    let schema = builder.build(root);
    let ty: TypeRef<'_> = schema.root();
    let text =
        br#"{"kind":"X","spec":{"list":[],"f099":"","f001":"a","other":{"x":null},"none":null,"f099":"b"},"y":1}"#;
    let decoded = schema::json::decode(ty, text).unwrap();
    assert_eq!(
        schema::json::to_string(&decoded.object),
        r#"{"kind":"X","metadata":{},"spec":{"f001":"a","f099":"b","list":[],"none":null,"other":{"x":null}}}"#
    );
    let problems: Vec<String> = decoded.problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems, [r#"duplicate field "spec.f099""#, r#"unknown field "y""#]);
}

/// A gate that serves a kind does something: nobody is told that it has no effect.
#[test]
fn gates_of_kinds_are_known_to_be_asked_for() {
    for row in resource::all().iter().chain(resource::optional()).filter(|row| !row.gate.is_empty()) {
        let asked = format!("{}=true", row.gate).parse::<api::features::Asked>().expect("a gate");
        // Alone it may lack what it needs, which is an error of its own.
        let told = asked.gates().map(|(_, told)| told).unwrap_or_default();
        assert!(told.iter().all(|told| !told.contains("no effect")), "{}: {told:?}", row.kind);
    }
}
