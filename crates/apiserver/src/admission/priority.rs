//! Priority: a pod's priority and preemption policy come from its priority class, and from nowhere else.

use super::{Admission, Attributes, Operation, Sides};
use crate::lookup::{Lookup, PRIORITY_CLASSES};
use api::Status;
use async_trait::async_trait;
use schema::{Map, Value};
use std::sync::Arc;

/// What a pod is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    /// Empty when no class is the default.
    pub(super) class: String,
    pub(super) priority: i64,
    pub(super) preemption_policy: String,
}

impl Resolved {
    pub(super) fn of(class: &Map) -> Self {
        let policy = match class.str_at(&["preemptionPolicy"]) {
            "" => "PreemptLowerPriority",
            policy => policy,
        };
        Resolved {
            class: class.str_at(&["metadata", "name"]).to_owned(),
            priority: value(class),
            preemption_policy: policy.to_owned(),
        }
    }

    /// What pods without a class get: the default class (the lowest, should there be several), or nothing special.
    pub(super) fn default_of<'a>(classes: impl Iterator<Item = &'a Map>) -> Self {
        let none = || Resolved { class: String::new(), priority: 0, preemption_policy: "PreemptLowerPriority".into() };
        classes.filter(|c| is_default(c)).min_by_key(|c| value(c)).map_or_else(none, Resolved::of)
    }
}

fn value(class: &Map) -> i64 {
    class.get("value").and_then(Value::as_i64).unwrap_or(0)
}

/// Whether a class is for pods that name none.
pub(super) fn is_default(class: &Map) -> bool {
    class.get("globalDefault").and_then(Value::as_bool).unwrap_or(false)
}

/// Sets the pod's priority; refuses one that the pod claims otherwise, in upstream's words.
pub(super) fn apply(pod: &mut Map, resolved: &Resolved) -> Result<(), String> {
    let Resolved { class, priority, preemption_policy } = resolved;
    if let Some(claimed) = pod.at(&["spec", "priority"]).and_then(Value::as_i64).filter(|p| p != priority) {
        return Err(format!(
            "the integer value of priority ({claimed}) must not be provided in pod spec; priority admission controller computed {priority} from the given PriorityClass name"
        ));
    }
    let claimed = pod.str_at(&["spec", "preemptionPolicy"]);
    if !claimed.is_empty() && claimed != preemption_policy {
        return Err(format!(
            "the string value of PreemptionPolicy ({claimed}) must not be provided in pod spec; priority admission controller computed {preemption_policy} from the given PriorityClass name"
        ));
    }
    if !class.is_empty() {
        pod.set_at(&["spec", "priorityClassName"], class.as_str());
    }
    pod.set_at(&["spec", "priority"], *priority);
    pod.set_at(&["spec", "preemptionPolicy"], preemption_policy.as_str());
    Ok(())
}

/// Sets the priority of a group of pods, or of a template of one; refuses one that it claims otherwise.
fn apply_to_group(group: &mut Map, resolved: &Resolved) -> Result<(), String> {
    let Resolved { class, priority, .. } = resolved;
    if let Some(claimed) = group.get("priority").and_then(Value::as_i64).filter(|p| p != priority) {
        return Err(format!(
            "the integer value of priority ({claimed}) must not be provided in pod group spec; priority admission controller computed {priority} from the given PriorityClass name"
        ));
    }
    if !class.is_empty() {
        group.insert("priorityClassName", class.as_str());
    }
    group.insert("priority", *priority);
    Ok(())
}

/// Keeps what admission computed when an update leaves it out.
pub(super) fn keep(pod: &mut Map, before: &Map) {
    for key in ["priority", "preemptionPolicy"] {
        if let (None, Some(value)) = (pod.at(&["spec", key]), before.at(&["spec", key])) {
            let value = value.clone();
            pod.set_at(&["spec", key], value);
        }
    }
}

pub struct Priority {
    pub objects: Arc<dyn Lookup>,
    /// Whether groups of pods have a priority.
    pub of_groups: bool,
}

impl Priority {
    async fn resolve(&self, a: &Attributes<'_>, class: &str) -> Result<Resolved, Status> {
        if class.is_empty() {
            let classes = self.objects.list(PRIORITY_CLASSES, None)?;
            return Ok(Resolved::default_of(classes.iter().map(|c| &**c)));
        }
        match self.objects.find(PRIORITY_CLASSES, "", class).await? {
            Some(class) => Ok(Resolved::of(&class)),
            None => Err(a.forbidden(format!("no PriorityClass with name {class} was found"))),
        }
    }

    /// The same for a group of pods, and for the templates of groups.
    async fn admit_groups(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        const GROUP: &str = "scheduling.k8s.io";
        if a.is(GROUP, "podgroups") {
            let resolved = self.resolve(a, a.object.str_at(&["spec", "priorityClassName"])).await?;
            let applied =
                a.object.at_mut(&["spec"]).and_then(Value::as_map_mut).map(|spec| apply_to_group(spec, &resolved));
            return applied.unwrap_or(Ok(())).map_err(|why| a.forbidden(why));
        }
        if !a.is(GROUP, "workloads") {
            return Ok(());
        }
        const TEMPLATES: [&str; 2] = ["spec", "podGroupTemplates"];
        for i in 0..a.object.at(&TEMPLATES).and_then(Value::as_list).unwrap_or_default().len() {
            let template = a.object.at(&TEMPLATES).and_then(Value::as_list).and_then(|list| list[i].as_map());
            let class = template.map_or("", |template| template.str_at(&["priorityClassName"]));
            let resolved = self.resolve(a, class).await?;
            let list = a.object.at_mut(&TEMPLATES).and_then(Value::as_list_mut);
            let applied =
                list.and_then(|list| list[i].as_map_mut()).map(|template| apply_to_group(template, &resolved));
            applied.unwrap_or(Ok(())).map_err(|why| a.forbidden(why))?;
        }
        Ok(())
    }
}

#[async_trait]
impl Admission for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn sides(&self) -> Sides {
        Sides::Both
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        if self.of_groups && a.old.is_none() {
            self.admit_groups(a).await?;
        }
        if !a.is("", "pods") {
            return Ok(());
        }
        if let Some(old) = a.old {
            keep(a.object, old);
            return Ok(());
        }
        let resolved = self.resolve(a, a.object.str_at(&["spec", "priorityClassName"])).await?;
        apply(a.object, &resolved).map_err(|why| a.forbidden(why))
    }

    async fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        if !a.is("scheduling.k8s.io", "priorityclasses") || !is_default(a.object) {
            return Ok(());
        }
        let own = a.object.str_at(&["metadata", "name"]);
        let classes = self.objects.list(PRIORITY_CLASSES, None)?;
        let other = classes.iter().map(|c| (c, c.str_at(&["metadata", "name"])));
        match other
            .filter(|(c, name)| is_default(c) && (a.operation == Operation::Create || *name != own))
            .map(|(_, n)| n)
            .next()
        {
            Some(name) => Err(
                a.forbidden(format!("PriorityClass {name} is already marked as default. Only one default can exist"))
            ),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::map;

    #[test]
    fn the_class_decides() {
        let class = map("{metadata: {name: high}, value: 1000, preemptionPolicy: Never}");
        let mut pod = map("{spec: {priorityClassName: high}}");
        apply(&mut pod, &Resolved::of(&class)).expect("admitted");
        assert_eq!(pod.at(&["spec", "priority"]), Some(&Value::Int(1000)));
        assert_eq!(pod.str_at(&["spec", "preemptionPolicy"]), "Never");
        let mut liar = map("{spec: {priority: 5}}");
        assert_eq!(
            apply(&mut liar, &Resolved::of(&class)),
            Err("the integer value of priority (5) must not be provided in pod spec; priority admission controller computed 1000 from the given PriorityClass name".into())
        );
    }

    #[test]
    fn without_a_class_the_default_one_or_zero() {
        let classes = [
            map("{metadata: {name: a}, value: 9, globalDefault: true}"),
            map("{metadata: {name: b}, value: 3, globalDefault: true}"),
        ];
        assert_eq!(Resolved::default_of(classes.iter()).class, "b");
        let none = Resolved::default_of([].iter());
        let mut pod = map("{spec: {}}");
        apply(&mut pod, &none).expect("admitted");
        assert_eq!(pod.at(&["spec", "priority"]), Some(&Value::Int(0)));
        assert!(pod.at(&["spec", "priorityClassName"]).is_none());
    }

    #[test]
    fn an_update_that_forgets_keeps() {
        let before = map("{spec: {priority: 7, preemptionPolicy: Never}}");
        let mut after = map("{spec: {priority: 8}}");
        keep(&mut after, &before);
        assert_eq!(after, map("{spec: {priority: 8, preemptionPolicy: Never}}"));
    }
}
