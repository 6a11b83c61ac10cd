//! The phase of a pod, from the statuses of its containers.

use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, ContainerStatus, Pod};

use crate::spec::{PodExt, is_sidecar, should_restart};

pub(crate) const PENDING: &str = "Pending";
pub(crate) const RUNNING: &str = "Running";
pub(crate) const SUCCEEDED: &str = "Succeeded";
pub(crate) const FAILED: &str = "Failed";

/// Where a container stands, as far as the phase is concerned.
enum Standing<'a> {
    Running(&'a ContainerStatus),
    /// Terminated, or waiting to run again after it terminated.
    Stopped(&'a ContainerStateTerminated),
    /// Waiting to run for the first time.
    Waiting,
    Unknown,
}

fn standing<'a>(statuses: &'a [ContainerStatus], name: &str) -> Standing<'a> {
    let Some(status) = statuses.iter().find(|status| status.name == name) else {
        return Standing::Unknown;
    };
    let Some(state) = &status.state else {
        return Standing::Unknown;
    };
    if state.running.is_some() {
        return Standing::Running(status);
    }
    if let Some(terminated) = &state.terminated {
        return Standing::Stopped(terminated);
    }
    if state.waiting.is_some() {
        let last = status.last_state.as_ref().and_then(|last| last.terminated.as_ref());
        return last.map_or(Standing::Waiting, Standing::Stopped);
    }
    Standing::Unknown
}

/// The phase.
///
/// `statuses` are those of regular and init containers; `terminal` says that nothing of the pod
/// will be started again whatever its policy; `initialized` that a regular container runs.
pub(crate) fn phase(pod: &Pod, statuses: &[ContainerStatus], terminal: bool, initialized: bool) -> &'static str {
    let restartable = |spec: &Container, exit: i32| should_restart(spec, pod.restart_policy(), exit);

    let mut pending_init = 0;
    let mut pending_sidecars = 0;
    let (mut unknown, mut running, mut waiting) = (0, 0, 0);
    for spec in pod.init_containers() {
        let standing = standing(statuses, &spec.name);
        if is_sidecar(spec) {
            match standing {
                Standing::Running(status) => {
                    if status.started != Some(true) {
                        pending_sidecars += 1;
                    }
                    running += 1;
                }
                // A stopped sidecar has no say.
                Standing::Stopped(_) => {}
                Standing::Waiting => {
                    pending_sidecars += 1;
                    waiting += 1;
                }
                Standing::Unknown => unknown += 1,
            }
            continue;
        }
        match standing {
            Standing::Stopped(terminated) => {
                if terminated.exit_code != 0 && !restartable(spec, terminated.exit_code) {
                    return FAILED;
                }
            }
            _ => pending_init += 1,
        }
    }

    let (mut stopped, mut final_, mut succeeded) = (0, 0, 0);
    for spec in pod.containers() {
        match standing(statuses, &spec.name) {
            Standing::Running(_) => running += 1,
            Standing::Stopped(terminated) => {
                stopped += 1;
                if !restartable(spec, terminated.exit_code) {
                    final_ += 1;
                }
                // One that waits to run again has not succeeded, whatever its last exit code.
                let waits = statuses
                    .iter()
                    .find(|status| status.name == spec.name)
                    .and_then(|status| status.state.as_ref())
                    .is_some_and(|state| state.waiting.is_some());
                if terminated.exit_code == 0 && !waits {
                    succeeded += 1;
                }
            }
            Standing::Waiting => waiting += 1,
            Standing::Unknown => unknown += 1,
        }
    }

    if pending_init > 0 || (pending_sidecars > 0 && !initialized) || waiting > 0 {
        return PENDING;
    }
    if running > 0 && unknown == 0 {
        return RUNNING;
    }
    if running == 0 && stopped > 0 && unknown == 0 {
        if terminal && !pod.is_static() {
            return if stopped == succeeded { SUCCEEDED } else { FAILED };
        }
        if stopped != final_ {
            return RUNNING;
        }
        return if stopped == succeeded { SUCCEEDED } else { FAILED };
    }
    PENDING
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    fn status(name: &str, state: Value, last: Value, started: bool) -> ContainerStatus {
        serde_json::from_value(json!({
            "name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": state, "lastState": last, "started": started,
        }))
        .unwrap()
    }

    fn running(name: &str) -> ContainerStatus {
        status(name, json!({"running": {}}), json!({}), true)
    }
    fn waiting(name: &str) -> ContainerStatus {
        status(name, json!({"waiting": {}}), json!({}), false)
    }
    fn exit(name: &str, code: i32) -> ContainerStatus {
        status(name, json!({"terminated": {"exitCode": code}}), json!({}), false)
    }
    fn crashed(name: &str, code: i32) -> ContainerStatus {
        status(
            name,
            json!({"waiting": {"reason": "CrashLoopBackOff"}}),
            json!({"terminated": {"exitCode": code}}),
            false,
        )
    }

    #[test]
    fn phases_as_upstream_computes_them() {
        let two = |policy: &str| pod(json!({"restartPolicy": policy, "containers": [{"name": "a"}, {"name": "b"}]}));
        let cases = [
            ("Always", vec![], PENDING),
            ("Always", vec![running("a"), running("b")], RUNNING),
            ("Always", vec![running("a"), waiting("b")], PENDING),
            ("Always", vec![exit("a", 0), exit("b", 0)], RUNNING),
            ("Always", vec![running("a"), crashed("b", 1)], RUNNING),
            ("Always", vec![crashed("a", 0), crashed("b", 1)], RUNNING),
            ("OnFailure", vec![exit("a", 0), exit("b", 0)], SUCCEEDED),
            ("OnFailure", vec![exit("a", 0), exit("b", 1)], RUNNING),
            ("OnFailure", vec![running("a"), exit("b", 0)], RUNNING),
            ("Never", vec![exit("a", 0), exit("b", 0)], SUCCEEDED),
            ("Never", vec![exit("a", 0), exit("b", 1)], FAILED),
            ("Never", vec![running("a"), exit("b", 1)], RUNNING),
            ("Never", vec![exit("a", 0)], PENDING),
        ];
        for (policy, statuses, expected) in cases {
            assert_eq!(phase(&two(policy), &statuses, false, false), expected, "{policy} {statuses:?}");
        }
        let always = two("Always");
        assert_eq!(phase(&always, &[exit("a", 0), exit("b", 0)], true, false), SUCCEEDED);
        assert_eq!(phase(&always, &[exit("a", 0), exit("b", 143)], true, false), FAILED);
    }

    #[test]
    fn init_containers_hold_the_phase() {
        let pod = pod(json!({
            "restartPolicy": "Never",
            "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}],
            "containers": [{"name": "a"}],
        }));
        let of = |statuses: &[ContainerStatus], initialized| phase(&pod, statuses, false, initialized);
        assert_eq!(of(&[running("i"), waiting("s"), waiting("a")], false), PENDING);
        assert_eq!(of(&[exit("i", 1), waiting("s"), waiting("a")], false), FAILED);
        assert_eq!(of(&[exit("i", 0), running("s"), waiting("a")], false), PENDING);
        assert_eq!(of(&[exit("i", 0), running("s"), running("a")], true), RUNNING);
        assert_eq!(of(&[exit("i", 0), running("s"), exit("a", 0)], true), RUNNING);
        assert_eq!(of(&[exit("i", 0), exit("s", 137), exit("a", 0)], false), SUCCEEDED);
        assert_eq!(of(&[exit("i", 0), waiting("s"), exit("a", 0)], false), PENDING);
    }

    #[test]
    fn a_containers_own_rules_decide_for_it() {
        let pod = pod(json!({"restartPolicy": "Always", "containers": [
            {"name": "a", "restartPolicy": "Never", "restartPolicyRules": [
                {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]},
        ]}));
        assert_eq!(phase(&pod, &[exit("a", 42)], false, false), RUNNING);
        assert_eq!(phase(&pod, &[exit("a", 1)], false, false), FAILED);
        assert_eq!(phase(&pod, &[exit("a", 0)], false, false), SUCCEEDED);
    }
}
