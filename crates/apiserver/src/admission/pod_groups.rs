//! PodGroupWorkloadExists: a group of pods is made from a workload that is there.

use super::{Admission, Attributes, Operation, Sides};
use crate::lookup::{Lookup, WORKLOADS};
use api::Status;
use async_trait::async_trait;
use schema::{Map, Value};
use std::sync::Arc;

pub struct PodGroupWorkloadExists {
    pub objects: Arc<dyn Lookup>,
}

/// Refuses a template that cannot be used: `workload` is what is stored under the name.
fn usable(workload: Option<&Map>, name: &str, template: &str) -> Result<(), String> {
    let Some(workload) = workload else { return Err(format!("Workload {name:?} not found")) };
    if workload.at(&["metadata", "deletionTimestamp"]).is_some() {
        return Err(format!("Workload {name:?} is being deleted"));
    }
    let templates = workload.at(&["spec", "podGroupTemplates"]).and_then(Value::as_list).unwrap_or_default();
    if templates.iter().filter_map(Value::as_map).any(|t| t.str_at(&["name"]) == template) {
        return Ok(());
    }
    Err(format!("PodGroupTemplate {template:?} not found in Workload {name:?}"))
}

#[async_trait]
impl Admission for PodGroupWorkloadExists {
    fn name(&self) -> &'static str {
        "PodGroupWorkloadExists"
    }

    fn sides(&self) -> Sides {
        Sides::Validates
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    async fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        const FROM: [&str; 3] = ["spec", "podGroupTemplateRef", "workload"];
        if !a.is("scheduling.k8s.io", "podgroups") {
            return Ok(());
        }
        let Some(from) = a.object.at(&FROM).and_then(Value::as_map) else { return Ok(()) };
        let (name, template) = (from.str_at(&["workloadName"]), from.str_at(&["podGroupTemplateName"]));
        let workload = self.objects.find(WORKLOADS, a.namespace, name).await?;
        usable(workload.as_deref(), name, template).map_err(|why| a.forbidden(format!("PodGroup rejected: {why}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::map;

    #[test]
    fn the_workload_is_there_and_has_the_template() {
        let workload = map("{spec: {podGroupTemplates: [{name: a}]}}");
        assert_eq!(usable(Some(&workload), "w", "a"), Ok(()));
        for (workload, template, why) in [
            (None, "a", "Workload \"w\" not found"),
            (Some(map("{metadata: {deletionTimestamp: x}}")), "a", "Workload \"w\" is being deleted"),
            (Some(workload), "b", "PodGroupTemplate \"b\" not found in Workload \"w\""),
        ] {
            assert_eq!(usable(workload.as_ref(), "w", template), Err(why.to_owned()));
        }
    }
}
