//! Defaults that come from the classes of a cluster: DefaultStorageClass, DefaultIngressClass, RuntimeClass.

use super::{Admission, Attributes, Operation, Sides, walk};
use crate::lookup::{INGRESS_CLASSES, Lookup, RUNTIME_CLASSES, STORAGE_CLASSES};
use api::Status;
use async_trait::async_trait;
use schema::{Map, Value};
use std::sync::Arc;

const STORAGE_DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
const INGRESS_DEFAULT: [&str; 1] = ["ingressclass.kubernetes.io/is-default-class"];

/// The class marked as default: the youngest, then the first by name.
fn default_class<'a>(classes: impl Iterator<Item = &'a Map>, marks: &[&str]) -> Option<&'a str> {
    let created = |c: &'a Map| c.str_at(&["metadata", "creationTimestamp"]);
    let name = |c: &'a Map| c.str_at(&["metadata", "name"]);
    let marked = |c: &&Map| marks.iter().any(|m| c.str_at(&["metadata", "annotations", m]) == "true");
    classes.filter(marked).min_by(|a, b| created(b).cmp(created(a)).then(name(a).cmp(name(b)))).map(name)
}

/// Whether a claim leaves its class to the cluster. A class given as "" asks for none.
pub(super) fn wants_storage_class(claim: &Map) -> bool {
    claim.at(&["spec", "storageClassName"]).is_none_or(Value::is_null)
        && claim.at(&["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"]).is_none()
}

/// Gives a claim the default class, if there is one.
pub(super) fn set_storage_class<'a>(claim: &mut Map, classes: impl Iterator<Item = &'a Map>) {
    if let Some(name) = default_class(classes, &STORAGE_DEFAULT) {
        claim.set_at(&["spec", "storageClassName"], name);
    }
}

/// Whether an ingress leaves its class to the cluster.
pub(super) fn wants_ingress_class(ingress: &Map) -> bool {
    ingress.at(&["spec", "ingressClassName"]).is_none_or(Value::is_null)
        && ingress.at(&["metadata", "annotations", "kubernetes.io/ingress.class"]).is_none()
}

/// Gives an ingress the default class, if there is one.
pub(super) fn set_ingress_class<'a>(ingress: &mut Map, classes: impl Iterator<Item = &'a Map>) {
    if let Some(name) = default_class(classes, &INGRESS_DEFAULT) {
        ingress.set_at(&["spec", "ingressClassName"], name);
    }
}

/// Whether an overhead is that of a class, however its quantities are written.
fn is_overhead(own: &Value, fixed: &Value) -> bool {
    let ty = schema::types::of_kind("", "v1", "Pod").and_then(|pod| pod.at(&["spec", "overhead"]));
    ty.is_some_and(|ty| schema::semantic::same_values(ty, Some(own), Some(fixed)))
}

/// Gives a pod what its runtime class adds: overhead, node selector, tolerations. Refuses contradictions.
pub(super) fn apply_runtime_class(pod: &mut Map, class: &Map) -> Result<(), String> {
    if let Some(fixed) = class.at(&["overhead", "podFixed"]).filter(|v| !v.is_null()) {
        if pod.at(&["spec", "overhead"]).is_some_and(|own| !is_overhead(own, fixed)) {
            return Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".into());
        }
        let fixed = fixed.clone();
        pod.set_at(&["spec", "overhead"], fixed);
    }
    let Some(scheduling) = class.at(&["scheduling"]).and_then(Value::as_map) else { return Ok(()) };
    if let Some(selector) = scheduling.get("nodeSelector").and_then(Value::as_map) {
        let mut merged = pod.at(&["spec", "nodeSelector"]).and_then(Value::as_map).cloned().unwrap_or_default();
        for (key, value) in selector.iter() {
            let wanted = value.as_str().unwrap_or_default();
            if let Some(own) = merged.get(key).and_then(Value::as_str).filter(|own| *own != wanted) {
                return Err(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {wanted}; pod.spec.nodeSelector[{key}] = {own}"
                ));
            }
            merged.insert(key.to_owned(), wanted);
        }
        pod.set_at(&["spec", "nodeSelector"], merged);
    }
    let added: Vec<Value> = walk::items(scheduling, &["tolerations"]).cloned().map(Value::Map).collect();
    if !added.is_empty()
        && let Some(list) = walk::list_mut(pod, "spec", "tolerations")
    {
        for toleration in added {
            if !list.contains(&toleration) {
                list.push(toleration);
            }
        }
    }
    Ok(())
}

/// Refuses an overhead that no runtime class gives.
pub(super) fn check_overhead(pod: &Map, class: Option<&Map>) -> Result<(), String> {
    let own = pod.at(&["spec", "overhead"]).filter(|v| !v.is_null());
    match class.and_then(|c| c.at(&["overhead", "podFixed"])).filter(|v| !v.is_null()) {
        Some(fixed) if !own.is_some_and(|own| is_overhead(own, fixed)) => {
            Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".into())
        }
        None if own.is_some() => {
            Err("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead".into())
        }
        _ => Ok(()),
    }
}

pub struct DefaultStorageClass {
    pub objects: Arc<dyn Lookup>,
}

#[async_trait]
impl Admission for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn sides(&self) -> Sides {
        Sides::Admits
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    async fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        if a.is("", "persistentvolumeclaims") && wants_storage_class(a.object) {
            let classes = self.objects.list(STORAGE_CLASSES, None)?;
            set_storage_class(a.object, classes.iter().map(|c| &**c));
        }
        Ok(())
    }
}

pub struct DefaultIngressClass {
    pub objects: Arc<dyn Lookup>,
}

#[async_trait]
impl Admission for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn sides(&self) -> Sides {
        Sides::Admits
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    async fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        if a.is("networking.k8s.io", "ingresses") && wants_ingress_class(a.object) {
            let classes = self.objects.list(INGRESS_CLASSES, None)?;
            set_ingress_class(a.object, classes.iter().map(|c| &**c));
        }
        Ok(())
    }
}

pub struct RuntimeClass {
    pub objects: Arc<dyn Lookup>,
}

impl RuntimeClass {
    async fn class(&self, a: &Attributes<'_>) -> Result<Option<Arc<Map>>, Status> {
        let name = a.object.str_at(&["spec", "runtimeClassName"]);
        if name.is_empty() {
            return Ok(None);
        }
        match self.objects.find(RUNTIME_CLASSES, "", name).await? {
            Some(class) => Ok(Some(class)),
            None => Err(a.forbidden(format!("pod rejected: RuntimeClass {name:?} not found"))),
        }
    }
}

#[async_trait]
impl Admission for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn sides(&self) -> Sides {
        Sides::Both
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    async fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        if !a.is("", "pods") {
            return Ok(());
        }
        match self.class(a).await? {
            Some(class) => apply_runtime_class(a.object, &class).map_err(|why| a.forbidden(why)),
            None => Ok(()),
        }
    }

    async fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        if !a.is("", "pods") {
            return Ok(());
        }
        let class = self.class(a).await?;
        check_overhead(a.object, class.as_deref()).map_err(|why| a.forbidden(why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::map;

    fn storage(name: &str, created: &str, default: bool) -> Map {
        map(&format!(
            "{{metadata: {{name: {name}, creationTimestamp: '{created}', annotations: {{storageclass.kubernetes.io/is-default-class: '{default}'}}}}}}"
        ))
    }

    #[test]
    fn the_youngest_default_class_wins_then_the_first_by_name() {
        let classes = [
            storage("old", "2026-01-01", true),
            storage("b", "2026-02-01", true),
            storage("a", "2026-02-01", true),
            storage("x", "2027", false),
        ];
        let mut claim = map("{spec: {}}");
        assert!(wants_storage_class(&claim));
        set_storage_class(&mut claim, classes.iter());
        assert_eq!(claim.str_at(&["spec", "storageClassName"]), "a");
        assert!(!wants_storage_class(&map("{spec: {storageClassName: ''}}")), "none is asked for");
    }

    #[test]
    fn a_runtime_class_adds_or_refuses() {
        let class =
            map("{overhead: {podFixed: {cpu: 250m}}, scheduling: {nodeSelector: {a: b}, tolerations: [{key: k}]}}");
        let mut pod = map("{spec: {nodeSelector: {c: d}}}");
        apply_runtime_class(&mut pod, &class).expect("admitted");
        assert_eq!(check_overhead(&pod, Some(&class)), Ok(()));
        assert_eq!(pod.str_at(&["spec", "nodeSelector", "a"]), "b");
        assert_eq!(pod.str_at(&["spec", "overhead", "cpu"]), "250m");
        let mut otherwise = map("{spec: {overhead: {cpu: '0.25'}}}");
        assert_eq!(check_overhead(&otherwise, Some(&class)), Ok(()));
        apply_runtime_class(&mut otherwise, &class).expect("admitted");
        assert_eq!(otherwise.str_at(&["spec", "overhead", "cpu"]), "250m");
        let mut more = map("{spec: {overhead: {cpu: 251m}}}");
        let refused = Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".to_owned());
        assert_eq!(check_overhead(&more, Some(&class)), refused);
        assert_eq!(apply_runtime_class(&mut more, &class), refused);
        assert_eq!(
            check_overhead(&pod, None),
            Err("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead".into())
        );
        let mut torn = map("{spec: {nodeSelector: {a: other}}}");
        assert_eq!(
            apply_runtime_class(&mut torn, &class),
            Err("conflict: runtimeClass.scheduling.nodeSelector[a] = b; pod.spec.nodeSelector[a] = other".into())
        );
    }
}
