use super::*;
use crate::objects::{
    DeploymentSpec, DeploymentStatus, DeploymentStrategy, ReplicaSetSpec, ReplicaSetStatus, RollingUpdate,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn deployment(replicas: i32, image: &str, surge: &str, unavailable: &str) -> Deployment {
    let value = |s: &str| Some(s.parse().map_or_else(|_| IntOrString::String(s.into()), IntOrString::Int));
    Deployment {
        metadata: ObjectMeta {
            name: Some("d".into()),
            namespace: Some("n".into()),
            uid: Some("d".into()),
            ..ObjectMeta::default()
        },
        spec: DeploymentSpec {
            replicas: Some(replicas),
            template: template(image),
            selector: LabelSelector {
                match_labels: Some(BTreeMap::from([("app".into(), "x".into())])),
                match_expressions: None,
            },
            strategy: DeploymentStrategy {
                type_: "RollingUpdate".into(),
                rolling_update: Some(RollingUpdate { max_surge: value(surge), max_unavailable: value(unavailable) }),
            },
            revision_history_limit: Some(2),
            ..DeploymentSpec::default()
        },
        status: DeploymentStatus::default(),
    }
}

fn set(name: &str, image: &str, revision: i64, replicas: i32, available: i32, desired: i32) -> Arc<ReplicaSet> {
    Arc::new(ReplicaSet {
        metadata: ObjectMeta {
            name: Some(name.into()),
            uid: Some(name.into()),
            annotations: Some(BTreeMap::from([
                (revision::REVISION.into(), revision.to_string()),
                (revision::DESIRED_REPLICAS.into(), desired.to_string()),
                (revision::MAX_REPLICAS.into(), (desired + 1).to_string()),
            ])),
            ..ObjectMeta::default()
        },
        spec: ReplicaSetSpec { replicas: Some(replicas), template: template(image), ..ReplicaSetSpec::default() },
        status: ReplicaSetStatus { replicas, available_replicas: available, ..ReplicaSetStatus::default() },
    })
}

fn input<'a>(deployment: &'a Deployment, sets: &[Arc<ReplicaSet>]) -> Input<'a> {
    Input { deployment, sets: sets.to_vec(), old_pods_running: false, now: Timestamp::UNIX_EPOCH }
}

fn scales(plan: &Plan) -> Vec<(String, i32)> {
    let scale = |a: &Action| match a {
        Action::Scale { set, replicas, .. } => Some((set.metadata.name.clone().unwrap_or_default(), *replicas)),
        _ => None,
    };
    plan.actions.iter().filter_map(scale).collect()
}

#[test]
fn the_first_set_gets_everything() {
    let d = deployment(3, "a", "25%", "25%");
    let plan = plan(&input(&d, &[]));
    let Some(Action::Create { name, body, replicas }) = plan.actions.first() else { panic!("{plan:?}") };
    assert_eq!(*replicas, 3);
    let hash = &body["spec"]["template"]["metadata"]["labels"]["pod-template-hash"];
    assert_eq!(name, &format!("d-{}", hash.as_str().unwrap_or("")));
    assert_eq!(&body["spec"]["selector"]["matchLabels"]["pod-template-hash"], hash);
    assert_eq!(body["metadata"]["annotations"][revision::REVISION], "1");
    assert!(matches!(plan.actions.get(1), Some(Action::SetRevision(r)) if r == "1"));
}

#[test]
fn a_rollout_surges_then_takes_from_the_old() {
    let d = deployment(3, "b", "1", "0");
    let old = set("old", "a", 1, 3, 3, 3);
    let created = plan(&input(&d, std::slice::from_ref(&old)));
    assert!(matches!(created.actions.first(), Some(Action::Create { replicas: 1, .. })), "{created:?}");
    let mut with_revision = d.clone();
    with_revision.metadata.annotations = Some(BTreeMap::from([(revision::REVISION.into(), "2".into())]));
    let d = with_revision;
    assert_eq!(scales(&plan(&input(&d, &[old.clone(), set("new", "b", 2, 1, 0, 3)]))), []);
    assert_eq!(scales(&plan(&input(&d, &[old, set("new", "b", 2, 1, 1, 3)]))), [("old".to_owned(), 2)]);
}

#[test]
fn a_rollout_to_a_bad_image_keeps_the_old_pods() {
    let mut d = deployment(4, "bad", "25%", "25%");
    d.metadata.annotations = Some(BTreeMap::from([(revision::REVISION.into(), "2".into())]));
    // Surge 1, unavailable 1: three old stay, two new never become available.
    let sets = [set("old", "a", 1, 3, 3, 4), set("new", "bad", 2, 2, 0, 4)];
    assert_eq!(scales(&plan(&input(&d, &sets))), []);
}

#[test]
fn going_back_reuses_the_old_set_and_raises_its_revision() {
    let d = deployment(2, "a", "1", "0");
    let sets = [set("old", "a", 1, 0, 0, 2), set("new", "b", 2, 2, 2, 2)];
    let plan = plan(&input(&d, &sets));
    let Some(Action::Annotate { set, patch }) = plan.actions.first() else { panic!("{plan:?}") };
    assert_eq!(set.metadata.name.as_deref(), Some("old"));
    assert_eq!(patch.annotations[revision::REVISION], "3");
    assert_eq!(patch.annotations[revision::REVISION_HISTORY], "1");
    assert_eq!(scales(&plan), [("old".to_owned(), 1)]);
}

#[test]
fn scaling_during_a_rollout_is_shared() {
    let mut d = deployment(10, "b", "3", "2");
    d.status.replicas = 8;
    let sets = [set("old", "a", 1, 5, 5, 5), set("new", "b", 2, 3, 3, 5)];
    let planned = scales(&plan(&input(&d, &sets)));
    assert_eq!(planned.iter().map(|(_, n)| n).sum::<i32>(), 13, "{planned:?}");
}

#[test]
fn recreate_waits_for_the_old_pods() {
    let mut d = deployment(2, "b", "1", "0");
    d.spec.strategy.type_ = "Recreate".into();
    let old = set("old", "a", 1, 2, 2, 2);
    assert_eq!(scales(&plan(&input(&d, std::slice::from_ref(&old)))), [("old".to_owned(), 0)]);
    let emptied = set("old", "a", 1, 0, 0, 2);
    let mut waiting = input(&d, &[emptied]);
    waiting.old_pods_running = true;
    assert!(plan(&waiting).actions.is_empty());
    waiting.old_pods_running = false;
    assert!(matches!(plan(&waiting).actions.first(), Some(Action::Create { replicas: 2, .. })));
}

#[test]
fn history_is_limited() {
    let mut d = deployment(1, "e", "1", "0");
    d.metadata.annotations = Some(BTreeMap::from([(revision::REVISION.into(), "5".into())]));
    let sets = [
        set("1", "a", 1, 0, 0, 1),
        set("2", "b", 2, 0, 0, 1),
        set("3", "c", 3, 0, 0, 1),
        set("4", "d", 4, 0, 0, 1),
        set("5", "e", 5, 1, 1, 1),
    ];
    let deleted: Vec<_> = plan(&input(&d, &sets))
        .actions
        .iter()
        .filter_map(|a| match a {
            Action::Delete(s) => s.metadata.name.clone(),
            _ => None,
        })
        .collect();
    assert_eq!(deleted, ["1", "2"]);
}

proptest! {
    /// Every step keeps within the surge, never plans below what must stay available, and a rollout whose pods all
    /// become available ends.
    #[test]
    fn a_rollout_keeps_its_bounds_and_ends(wanted in 1i32..20, surge in 0i32..5, unavailable in 0i32..5) {
        let mut d = deployment(wanted, "b", &surge.to_string(), &unavailable.to_string());
        d.metadata.annotations = Some(BTreeMap::from([(revision::REVISION.into(), "2".into())]));
        let mut old = wanted;
        let mut new = 0;
        for _ in 0..100 {
            let sets = [set("old", "a", 1, old, old, wanted), set("new", "b", 2, new, new, wanted)];
            let planned = scales(&plan(&input(&d, &sets)));
            if planned.is_empty() {
                break;
            }
            for (name, size) in planned {
                if name == "old" { old = size } else { new = size }
            }
            prop_assert!(old + new <= wanted + strategy::max_surge(&d));
            prop_assert!(old + new >= wanted - strategy::max_unavailable(&d));
        }
        prop_assert_eq!((old, new), (0, wanted));
    }
}

/// The pods of the new set may be counted by the time that the first status is written.
#[test]
fn the_deadline_of_a_rollout_does_not_depend_on_the_one_before() {
    use super::super::status::status;
    let at = |second| Timestamp::from_second(second).unwrap();
    let progressing = |d: &DeploymentStatus| {
        d.conditions.iter().find(|c| c.type_ == "Progressing").map(|c| (c.reason.clone(), c.message.clone())).unwrap()
    };
    let mut d = deployment(3, "a", "1", "0");
    d.spec.progress_deadline_seconds = Some(3);
    let old = set("old", "a", 1, 3, 3, 3);
    d.status = status(&input(&d, std::slice::from_ref(&old)), true, false);
    assert_eq!(progressing(&d.status).0, "NewReplicaSetAvailable");

    d.spec.template = template("bad");
    let sets = [old, set("new", "bad", 2, 1, 0, 3)];
    d.status = status(&Input { now: at(10), ..input(&d, &sets) }, true, true);
    assert_eq!(
        progressing(&d.status),
        ("NewReplicaSetCreated".into(), "Created new replica set \"new\"".into()),
        "{:?}",
        d.status
    );
    assert_eq!(
        progressing(&status(&Input { now: at(14), ..input(&d, &sets) }, true, false)).0,
        "ProgressDeadlineExceeded"
    );
}
