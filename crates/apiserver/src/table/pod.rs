//! Cells of pods: what state a pod is in, in one word.

use super::{NONE, ago, flag, int, maps};
use jiff::Timestamp;
use schema::{Map, Value};

/// A summary of a pod's containers.
struct Summary {
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
    status: String,
}

fn is_sidecar(pod: &Map, name: &str) -> bool {
    maps(pod, &["spec", "initContainers"])
        .any(|c| c.str_at(&["name"]) == name && c.str_at(&["restartPolicy"]) == "Always")
}

fn last_termination(container: &Map) -> Option<Timestamp> {
    container.str_at(&["lastState", "terminated", "finishedAt"]).parse().ok()
}

/// Reason of a terminated container as a word.
fn terminated(state: &Map, prefix: &str) -> String {
    let reason = state.str_at(&["terminated", "reason"]);
    if !reason.is_empty() {
        return format!("{prefix}{reason}");
    }
    match int(state, &["terminated", "signal"]) {
        0 => format!("{prefix}ExitCode:{}", int(state, &["terminated", "exitCode"])),
        signal => format!("{prefix}Signal:{signal}"),
    }
}

/// As upstream's `printPod`.
fn summary(pod: &Map) -> Summary {
    let mut status = pod.str_at(&["status", "phase"]).to_owned();
    let reason = pod.str_at(&["status", "reason"]);
    if !reason.is_empty() {
        status = reason.to_owned();
    }
    // A gate holds it back before anything else can.
    if maps(pod, &["status", "conditions"])
        .any(|c| c.str_at(&["type"]) == "PodScheduled" && c.str_at(&["reason"]) == "SchedulingGated")
    {
        status = "SchedulingGated".to_owned();
    }
    let sidecars = maps(pod, &["spec", "initContainers"]).filter(|c| c.str_at(&["restartPolicy"]) == "Always").count();
    let total = maps(pod, &["spec", "containers"]).count() + sidecars;
    let init_total = maps(pod, &["spec", "initContainers"]).count();
    let (mut ready, mut restarts, mut last_restart) = (0, 0, None);
    let (mut sidecar_restarts, mut last_sidecar_restart) = (0, None);
    let mut initializing = false;
    for (i, container) in maps(pod, &["status", "initContainerStatuses"]).enumerate() {
        restarts += int(container, &["restartCount"]);
        last_restart = last_restart.max(last_termination(container));
        let sidecar = is_sidecar(pod, container.str_at(&["name"]));
        if sidecar {
            sidecar_restarts += int(container, &["restartCount"]);
            last_sidecar_restart = last_sidecar_restart.max(last_termination(container));
        }
        let empty = Map::new();
        let state = container.at(&["state"]).and_then(Value::as_map).unwrap_or(&empty);
        if state.contains_key("terminated") && int(state, &["terminated", "exitCode"]) == 0 {
            continue;
        }
        if sidecar && flag(container, &["started"]) {
            if flag(container, &["ready"]) {
                ready += 1;
            }
            continue;
        }
        let waiting = state.str_at(&["waiting", "reason"]);
        if state.contains_key("terminated") {
            status = terminated(state, "Init:");
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            status = format!("Init:{waiting}");
        } else {
            status = format!("Init:{i}/{init_total}");
        }
        initializing = true;
        break;
    }
    let initialized = maps(pod, &["status", "conditions"])
        .any(|c| c.str_at(&["type"]) == "Initialized" && c.str_at(&["status"]) == "True");
    if !initializing || initialized {
        (restarts, last_restart) = (sidecar_restarts, last_sidecar_restart);
        let mut running = false;
        let mut failed = None;
        for container in maps(pod, &["status", "containerStatuses"]).rev() {
            restarts += int(container, &["restartCount"]);
            last_restart = last_restart.max(last_termination(container));
            let empty = Map::new();
            let state = container.at(&["state"]).and_then(Value::as_map).unwrap_or(&empty);
            let waiting = state.str_at(&["waiting", "reason"]);
            if !waiting.is_empty() {
                status = waiting.to_owned();
            } else if state.contains_key("terminated") {
                status = terminated(state, "");
                if int(state, &["terminated", "exitCode"]) != 0 {
                    failed = Some(status.clone());
                }
            } else if flag(container, &["ready"]) && state.contains_key("running") {
                running = true;
                ready += 1;
            }
        }
        // It is not over as long as one of its containers runs, and did not go well when one of them failed.
        if status == "Completed" {
            let is_ready = || {
                maps(pod, &["status", "conditions"])
                    .any(|c| c.str_at(&["type"]) == "Ready" && c.str_at(&["status"]) == "True")
            };
            if running && is_ready() {
                status = "Running".to_owned();
            } else if let Some(failed) = failed {
                status = failed;
            } else if running {
                status = "NotReady".to_owned();
            }
        }
    }
    if pod.at(&["metadata", "deletionTimestamp"]).is_some() {
        if reason == "NodeLost" {
            status = "Unknown".to_owned();
        } else if !matches!(pod.str_at(&["status", "phase"]), "Failed" | "Succeeded") {
            status = "Terminating".to_owned();
        }
    }
    Summary { ready, total, restarts, last_restart, status }
}

pub(super) fn ready(pod: &Map, _: Timestamp) -> Value {
    let summary = summary(pod);
    format!("{}/{}", summary.ready, summary.total).into()
}

pub(super) fn status(pod: &Map, _: Timestamp) -> Value {
    summary(pod).status.into()
}

pub(super) fn restarts(pod: &Map, now: Timestamp) -> Value {
    let summary = summary(pod);
    match summary.last_restart.filter(|_| summary.restarts > 0) {
        Some(at) => format!("{} ({} ago)", summary.restarts, ago(&at.to_string(), now)).into(),
        None => summary.restarts.to_string().into(),
    }
}

pub(super) fn ip(pod: &Map, _: Timestamp) -> Value {
    let first = maps(pod, &["status", "podIPs"])
        .next()
        .map(|p| p.str_at(&["ip"]))
        .unwrap_or_else(|| pod.str_at(&["status", "podIP"]));
    if first.is_empty() { NONE.into() } else { first.into() }
}

pub(super) fn gates(pod: &Map, _: Timestamp) -> Value {
    let gates: Vec<&str> = maps(pod, &["spec", "readinessGates"]).map(|g| g.str_at(&["conditionType"])).collect();
    if gates.is_empty() {
        return NONE.into();
    }
    let met = gates
        .iter()
        .filter(|g| {
            maps(pod, &["status", "conditions"]).any(|c| c.str_at(&["type"]) == **g && c.str_at(&["status"]) == "True")
        })
        .count();
    format!("{met}/{}", gates.len()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(status: &str, spec: &str) -> (String, String) {
        let json = format!(r#"{{"spec":{spec},"status":{status}}}"#);
        let Ok(Value::Map(pod)) = schema::json::parse(json.as_bytes()) else { panic!("{json}") };
        let summary = summary(&pod);
        (format!("{}/{}", summary.ready, summary.total), summary.status)
    }

    #[test]
    fn the_words_are_upstreams() {
        let one = r#"{"containers":[{"name":"a"}]}"#;
        let with_init = r#"{"containers":[{"name":"a"}],"initContainers":[{"name":"i"},{"name":"j"}]}"#;
        for (status, spec, ready, text) in [
            (r#"{"phase":"Pending"}"#, one, "0/1", "Pending"),
            (
                r#"{"phase":"Running","containerStatuses":[{"ready":true,"state":{"running":{}}}]}"#,
                one,
                "1/1",
                "Running",
            ),
            (
                r#"{"phase":"Running","containerStatuses":[{"restartCount":3,"state":{"waiting":{"reason":"CrashLoopBackOff"}}}]}"#,
                one,
                "0/1",
                "CrashLoopBackOff",
            ),
            (
                r#"{"phase":"Failed","containerStatuses":[{"state":{"terminated":{"exitCode":137,"reason":"OOMKilled"}}}]}"#,
                one,
                "0/1",
                "OOMKilled",
            ),
            (
                r#"{"phase":"Failed","containerStatuses":[{"state":{"terminated":{"exitCode":3}}}]}"#,
                one,
                "0/1",
                "ExitCode:3",
            ),
            (
                r#"{"phase":"Pending","initContainerStatuses":[{"name":"i","state":{"running":{}}}]}"#,
                with_init,
                "0/1",
                "Init:0/2",
            ),
            (
                r#"{"phase":"Pending","initContainerStatuses":[{"name":"i","state":{"terminated":{"exitCode":0}}},{"name":"j","state":{"waiting":{"reason":"ImagePullBackOff"}}}]}"#,
                with_init,
                "0/1",
                "Init:ImagePullBackOff",
            ),
            (r#"{"phase":"Failed","reason":"Evicted"}"#, one, "0/1", "Evicted"),
            (
                r#"{"phase":"Failed","containerStatuses":[{"state":{"terminated":{"exitCode":0,"reason":"Completed"}}},{"state":{"terminated":{"exitCode":1,"reason":"Error"}}}]}"#,
                r#"{"containers":[{"name":"a"},{"name":"b"}]}"#,
                "0/2",
                "Error",
            ),
            (
                r#"{"phase":"Running","containerStatuses":[{"state":{"terminated":{"exitCode":0,"reason":"Completed"}}},{"ready":true,"state":{"running":{}}}]}"#,
                r#"{"containers":[{"name":"a"},{"name":"b"}]}"#,
                "1/2",
                "NotReady",
            ),
        ] {
            assert_eq!(word(status, spec), (ready.to_owned(), text.to_owned()), "{status}");
        }
    }
}
