//! `pods/binding`, and `bindings`, its older form: a pod is given its node.

use super::success;
use crate::admission::walk;
use crate::context::Context;
use crate::options::Options;
use crate::registry::mutation::Mutation;
use crate::registry::{Place, Registry, Served, Subresource, Target, Virtual, precondition_failed};
use api::field::aggregate;
use api::{FieldError, GroupResource, Path, Reason, Status};
use async_trait::async_trait;
use schema::{Map, Value};
use std::sync::{Arc, Weak};

pub struct Binding {
    pub registry: Weak<Registry>,
}

/// Writes the node into the pod.
struct Assign<'a> {
    pod: &'a str,
    /// The node that the pod was to have is forgotten when it has one.
    settles: bool,
    binding: &'a Map,
    now: String,
}

impl Assign<'_> {
    fn assign(&self, pod: &mut Map) -> Result<(), String> {
        let name = self.pod;
        if pod.at(&["metadata", "deletionTimestamp"]).is_some() {
            return Err(format!("pod {name} is being deleted, cannot be assigned to a host"));
        }
        let present = pod.str_at(&["spec", "nodeName"]);
        if !present.is_empty() {
            return Err(format!("pod {name} is already assigned to node {present:?}"));
        }
        if walk::items(pod, &["spec", "schedulingGates"]).next().is_some() {
            return Err(format!("pod {name} has non-empty .spec.schedulingGates"));
        }
        let binding = self.binding;
        pod.set_at(&["spec", "nodeName"], binding.str_at(&["target", "name"]));
        for (field, overwrites) in [("annotations", true), ("labels", false)] {
            for (key, value) in binding.at(&["metadata", field]).and_then(Value::as_map).into_iter().flat_map(Map::iter)
            {
                let metadata = pod.entry("metadata", || Map::new().into()).as_map_mut();
                let map = metadata.map(|m| m.entry(field, || Map::new().into())).and_then(Value::as_map_mut);
                if let Some(map) = map
                    && (overwrites || !map.contains_key(key))
                {
                    map.insert(key.to_owned(), value.clone());
                }
            }
        }
        self.scheduled(pod);
        if self.settles {
            pod.remove_at(&["status", "nominatedNodeName"]);
        }
        Ok(())
    }

    /// Sets the condition `PodScheduled`.
    fn scheduled(&self, pod: &mut Map) {
        let generation = pod.at(&["metadata", "generation"]).and_then(Value::as_i64);
        let Some(conditions) = walk::list_mut(pod, "status", "conditions") else { return };
        conditions.retain(|c| c.as_map().is_none_or(|c| c.str_at(&["type"]) != "PodScheduled"));
        let mut condition = Map::new();
        condition.insert("type", "PodScheduled");
        if let Some(generation) = generation {
            condition.insert("observedGeneration", generation);
        }
        condition.insert("status", "True");
        condition.insert("lastProbeTime", Value::Null);
        condition.insert("lastTransitionTime", self.now.as_str());
        conditions.push(condition.into());
    }
}

impl Mutation for Assign<'_> {
    fn apply(&self, _: &Context, existing: Option<&Map>) -> Result<Map, Status> {
        let resource = || GroupResource::new("", "pods");
        let mut pod = existing.cloned().ok_or_else(|| Status::not_found(&resource(), self.pod))?;
        for (key, what) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
            let (wanted, actual) = (self.binding.str_at(&["metadata", key]), pod.str_at(&["metadata", key]));
            if !wanted.is_empty() && wanted != actual {
                let key = format!("/registry/pods/{}/{}", pod.str_at(&["metadata", "namespace"]), self.pod);
                return Err(precondition_failed(&resource(), self.pod, &key, what, wanted, actual));
            }
        }
        let conflict = |why: String| Status::conflict(&GroupResource::new("", "pods/binding"), self.pod, why);
        self.assign(&mut pod).map_err(conflict)?;
        Ok(pod)
    }

    /// The binding has been through admission.
    fn admits(&self) -> bool {
        false
    }

    /// A binding is nobody's field.
    fn tracks(&self) -> bool {
        true
    }
}

/// What is wrong is told without ado: upstream takes it for an error of its own.
fn validate(binding: &Map) -> Result<(), Status> {
    let target = Path::root("target");
    let mut errors = Vec::new();
    let kind = binding.str_at(&["target", "kind"]);
    if !matches!(kind, "" | "Node") {
        errors.push(FieldError::not_supported(&target.child("kind"), kind, &["Node", "<empty>"]));
    }
    if binding.str_at(&["target", "name"]).is_empty() {
        errors.push(FieldError::required(&target.child("name"), ""));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::new(500, Reason::Unknown, aggregate(&errors)))
}

impl Binding {
    async fn bind(
        &self,
        cx: &Context,
        namespace: &str,
        name: &str,
        binding: &Map,
        options: &Options,
    ) -> Result<Map, Status> {
        validate(binding)?;
        let registry =
            self.registry.upgrade().ok_or_else(|| Status::service_unavailable("the server is shutting down"))?;
        let served = registry.served("", "v1", "pods").ok_or_else(Status::no_such_path)?;
        let now = cx.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let settles = registry.gates().enabled("ClearingNominatedNodeNameAfterBinding");
        let assign = Assign { pod: name, settles, binding, now };
        let place = Place { namespace, name, subresource: "binding" };
        registry.update(cx, &served, place, &assign, options).await?;
        Ok(success())
    }
}

#[async_trait]
impl Subresource for Binding {
    async fn create(&self, cx: &Context, target: &Target, object: Map, options: &Options) -> Result<Map, Status> {
        if object.str_at(&["metadata", "name"]) != target.name {
            return Err(Status::bad_request("name in URL does not match name in Binding object"));
        }
        self.bind(cx, &target.namespace, &target.name, &object, options).await
    }
}

#[async_trait]
impl Virtual for Binding {
    fn admission(&self) -> bool {
        true
    }

    async fn create(
        &self,
        cx: &Context,
        _served: &Arc<Served>,
        namespace: &str,
        object: Map,
        options: &Options,
    ) -> Result<Map, Status> {
        let name = object.str_at(&["metadata", "name"]).to_owned();
        self.bind(cx, namespace, &name, &object, options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::{Admission, Attributes, Chain, Operation, Sides};
    use crate::registry::Hooks;
    use crate::test_support::{map, opened};
    use std::sync::Mutex;

    fn assign(pod: &str, binding: &str) -> Result<Map, Status> {
        let binding = map(binding);
        let assign = Assign { pod: "p", settles: true, binding: &binding, now: "2026-01-01T00:00:00Z".into() };
        assign.apply(&Context::internal(), Some(&map(pod)))
    }

    #[test]
    fn a_pod_gets_its_node_once() {
        let binding =
            "{metadata: {annotations: {a: '1'}, labels: {zone: x, app: other}}, target: {kind: Node, name: n1}}";
        let pod = assign(
            "{metadata: {name: p, labels: {app: own}}, spec: {}, status: {nominatedNodeName: n2, conditions: [{type: PodScheduled, status: 'False'}]}}",
            binding,
        );
        let pod = pod.expect("bound");
        assert_eq!(pod.str_at(&["status", "nominatedNodeName"]), "");
        assert_eq!(pod.str_at(&["spec", "nodeName"]), "n1");
        assert_eq!(pod.str_at(&["metadata", "annotations", "a"]), "1");
        assert_eq!(
            (pod.str_at(&["metadata", "labels", "zone"]), pod.str_at(&["metadata", "labels", "app"])),
            ("x", "own")
        );
        let conditions: Vec<&Map> = walk::items(&pod, &["status", "conditions"]).collect();
        assert_eq!((conditions.len(), conditions[0].str_at(&["status"])), (1, "True"));
        let refused = assign("{metadata: {name: p}, spec: {nodeName: n2}}", binding).expect_err("bound already");
        assert_eq!(refused.code, 409);
        assert_eq!(
            refused.message,
            "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n2\""
        );
        assert!(assign("{metadata: {name: p}, spec: {schedulingGates: [{name: g}]}}", binding).is_err());
    }

    /// Notes what it is asked about.
    #[derive(Default)]
    struct Asked(Mutex<Vec<(Operation, String)>>);

    #[async_trait]
    impl Admission for Asked {
        fn name(&self) -> &'static str {
            "Asked"
        }
        fn sides(&self) -> Sides {
            Sides::Both
        }

        fn handles(&self, _: Operation) -> bool {
            true
        }
        async fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
            self.0.lock().expect("no panic").push((a.operation, a.subresource.to_owned()));
            Ok(())
        }
        async fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
            self.0.lock().expect("no panic").push((a.operation, a.subresource.to_owned()));
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_pod_that_is_bound_is_not_admitted_again() {
        let opened = opened().await;
        let (registry, asked) = (&opened.registry, Arc::new(Asked::default()));
        registry.install(Hooks { admission: Chain(vec![asked.clone()]), ..Hooks::default() });
        let (cx, options) = (Context::internal(), Options::default());
        let pods = registry.served("", "v1", "pods").expect("served");
        let mut pod = map("{metadata: {name: p}, spec: {containers: [{name: c, image: i}]}}");
        schema::defaults::apply(pods.resource.schema.root(), &mut pod);
        schema::normal::normalise(pods.resource.schema.root(), &mut pod, None).expect("a pod");
        registry.create(&cx, &pods, "default", pod, &options).await.expect("made");
        let binding = map("{metadata: {name: p}, target: {kind: Node, name: n1}}");
        let bind = Binding { registry: Arc::downgrade(registry) };
        bind.bind(&cx, "default", "p", &binding, &options).await.expect("bound");
        let made = (Operation::Create, String::new());
        assert_eq!(
            *asked.0.lock().expect("no panic"),
            [made.clone(), made],
            "to change it and to judge it, when it was made"
        );
    }

    #[test]
    fn another_uid_is_another_pod() {
        let refused =
            assign("{metadata: {name: p, namespace: ns, uid: a1}}", "{metadata: {uid: b2}, target: {name: n1}}")
                .expect_err("another");
        assert_eq!(refused.code, 409);
        assert_eq!(
            refused.message,
            "Operation cannot be fulfilled on pods \"p\": StorageError: invalid object, Code: 4, Key: /registry/pods/ns/p, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: b2, UID in object meta: a1"
        );
    }

    #[test]
    fn a_binding_names_a_node() {
        let refused = validate(&map("{target: {kind: Pod}}")).expect_err("bad");
        assert_eq!(
            (refused.code, refused.message.as_str()),
            (
                500,
                "[target.kind: Unsupported value: \"Pod\": supported values: \"Node\", \"<empty>\", target.name: Required value]"
            )
        );
    }
}
