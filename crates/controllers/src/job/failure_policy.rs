//! A Job's pod failure policy: what becomes of a failed pod by its exit codes and conditions.

use crate::objects::{Job, Pod};
use k8s_openapi::api::batch::v1::PodFailurePolicyOnExitCodesRequirement as OnExitCodes;

/// What the first rule that applies says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Count,
    Ignore,
    /// The pod's index is given up.
    FailIndex,
    /// The whole Job fails, for this reason.
    FailJob(String),
}

/// What the policy says of a failed pod. Without a policy, or a rule that applies, it counts.
pub(super) fn judge(job: &Job, pod: &Pod) -> Verdict {
    let rules = job.spec.pod_failure_policy.iter().flat_map(|policy| &policy.rules);
    for (i, rule) in rules.enumerate() {
        let why = match (&rule.on_exit_codes, &rule.on_pod_conditions) {
            (Some(codes), _) => exit_code(codes, pod).map(|(container, code)| {
                let (namespace, name) = (pod.metadata.namespace.as_deref(), pod.metadata.name.as_deref());
                format!(
                    "Container {container} for pod {}/{} failed with exit code {code} matching {} rule at index {i}",
                    namespace.unwrap_or(""),
                    name.unwrap_or(""),
                    rule.action
                )
            }),
            (None, Some(patterns)) => {
                let has = |type_: &str, status: &str| {
                    pod.status.conditions.iter().any(|c| c.type_ == type_ && c.status == status)
                };
                let matched = patterns.iter().find(|p| has(&p.type_, p.status.as_deref().unwrap_or("True")));
                matched.map(|pattern| {
                    let (namespace, name) = (pod.metadata.namespace.as_deref(), pod.metadata.name.as_deref());
                    format!(
                        "Pod {}/{} has condition {} matching {} rule at index {i}",
                        namespace.unwrap_or(""),
                        name.unwrap_or(""),
                        pattern.type_,
                        rule.action
                    )
                })
            }
            (None, None) => None,
        };
        let Some(why) = why else { continue };
        return match rule.action.as_str() {
            "Ignore" => Verdict::Ignore,
            "FailIndex" => Verdict::FailIndex,
            "FailJob" => Verdict::FailJob(why),
            _ => Verdict::Count,
        };
    }
    Verdict::Count
}

/// The first container whose exit code meets a requirement.
fn exit_code<'p>(rule: &OnExitCodes, pod: &'p Pod) -> Option<(&'p str, i32)> {
    let statuses = pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses);
    statuses
        .filter(|status| rule.container_name.as_ref().is_none_or(|name| *name == status.name))
        .filter_map(|status| Some((status.name.as_str(), status.state.terminated.as_ref()?.exit_code)))
        .find(|(_, code)| {
            let listed = rule.values.contains(code);
            *code != 0 && if rule.operator == "In" { listed } else { !listed }
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn exit_codes_and_conditions_decide() -> Result<(), serde_json::Error> {
        let job: Job = serde_json::from_value(json!({"metadata": {}, "spec": {"podFailurePolicy": {"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]}}}))?;
        let pod = |code: i32, disrupted: &str| -> Result<Pod, serde_json::Error> {
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}, "status": {
                "conditions": [{"type": "DisruptionTarget", "status": disrupted}],
                "containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": code}}}]}}))
        };
        assert_eq!(judge(&job, &pod(42, "True")?), Verdict::Ignore);
        assert_eq!(judge(&job, &pod(1, "False")?), Verdict::Count);
        let why = "Container c for pod n/p failed with exit code 42 matching FailJob rule at index 1".to_owned();
        assert_eq!(judge(&job, &pod(42, "False")?), Verdict::FailJob(why));
        Ok(())
    }
}
