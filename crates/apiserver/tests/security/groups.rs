//! Workloads and groups of pods.

use crate::cluster::{Cluster, Options, start_with};
use apiserver::surface::Surface;
use serde_json::{Value, json};

const ROOT: &str = "/apis/scheduling.k8s.io/v1alpha2/namespaces/default";

async fn open(gates: &str) -> Cluster {
    let asked: api::features::Asked = gates.parse().unwrap();
    let runtime = "scheduling.k8s.io/v1alpha2=true".parse().unwrap();
    let surface = Surface { gates: asked.gates().unwrap().0, runtime, ..Surface::default() };
    start_with(Options { surface, ..Options::default() }).await
}

fn workload(template: Value) -> Value {
    json!({"metadata": {"name": "w"}, "spec": {"podGroupTemplates": [template]}})
}

fn group(name: &str, template: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"schedulingPolicy": {"gang": {"minCount": 2}},
        "podGroupTemplateRef": {"workload": {"workloadName": "w", "podGroupTemplateName": template}}}})
}

#[tokio::test]
async fn a_group_is_made_from_a_template_that_is_there() {
    let cluster = open("GenericWorkload=true").await;
    let admin = cluster.admin();
    let (workloads, groups) = (format!("{ROOT}/workloads"), format!("{ROOT}/podgroups"));
    let refused = admin.post(&groups, group("g", "t")).await;
    let why = "podgroups.scheduling.k8s.io \"g\" is forbidden: PodGroup rejected: Workload \"w\" not found";
    assert_eq!((refused.code, refused.message()), (403, why));
    // What belongs to features that are off is not taken.
    let template = json!({"name": "t", "schedulingPolicy": {"gang": {"minCount": 2}}, "priority": 5,
        "schedulingConstraints": {"topology": [{"key": "zone"}]}});
    let made = admin.post(&workloads, workload(template)).await.expect(201);
    let kept = json!([{"name": "t", "schedulingPolicy": {"gang": {"minCount": 2}}, "schedulingConstraints": null}]);
    assert_eq!(made["spec"]["podGroupTemplates"], kept);
    assert_eq!(admin.post(&groups, group("g", "u")).await.code, 403);
    let made = admin.post(&groups, group("g", "t")).await.expect(201);
    assert!(made["status"].as_object().is_none_or(|status| status.is_empty()), "{made}");
    // What a group is made of stays; how it goes is told through its status alone.
    let path = format!("{groups}/g");
    let changed = admin.patch(&path, json!({"spec": {"schedulingPolicy": {"gang": {"minCount": 3}}}})).await;
    assert_eq!(changed.code, 422, "{}", changed.body);
    let condition = json!([{"type": "PodGroupScheduled", "status": "True", "reason": "Scheduled", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    admin.patch(&format!("{path}/status"), json!({"status": {"conditions": condition}})).await.expect(200);
    let told = admin.patch(&path, json!({"status": {"conditions": []}})).await.expect(200);
    assert_eq!(told["status"]["conditions"], condition);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"schedulingGroup": {"podGroupName": "g"},
        "containers": [{"name": "c", "image": "i"}]}});
    cluster.service_account("default", "default").await;
    let pods = "/api/v1/namespaces/default/pods";
    assert_eq!(admin.post(pods, pod).await.expect(201)["spec"]["schedulingGroup"]["podGroupName"], "g");
}

#[tokio::test]
async fn groups_have_the_priority_of_their_class() {
    let cluster = open("GenericWorkload=true,GangScheduling=true,WorkloadAwarePreemption=true").await;
    let admin = cluster.admin();
    let class = json!({"metadata": {"name": "high"}, "value": 7});
    admin.post("/apis/scheduling.k8s.io/v1/priorityclasses", class).await.expect(201);
    let template = |class: &str| json!({"name": "t", "schedulingPolicy": {"basic": {}}, "priorityClassName": class});
    let workloads = format!("{ROOT}/workloads");
    let refused = admin.post(&workloads, workload(template("low"))).await;
    assert_eq!(refused.code, 403);
    assert!(refused.message().ends_with("no PriorityClass with name low was found"), "{}", refused.body);
    let made = admin.post(&workloads, workload(template("high"))).await.expect(201);
    assert_eq!(made["spec"]["podGroupTemplates"][0]["priority"], 7);
    let mut free = group("g", "t");
    free["spec"]["priority"] = json!(9);
    assert_eq!(admin.post(&format!("{ROOT}/podgroups"), free).await.code, 403);
}
