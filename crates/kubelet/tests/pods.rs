//! The life of pods on a node, between an invented API and an invented runtime.

#[allow(dead_code, reason = "each test file uses its part of it")]
mod support;

use std::fs;

use serde_json::{Value, json};
use support::{Node, is_root, until};

fn one(name: &str) -> Value {
    json!({"containers": [{"name": name, "image": "image:1", "imagePullPolicy": "IfNotPresent"}]})
}

fn condition<'a>(pod: &'a Value, kind: &str) -> &'a Value {
    pod["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == kind).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_comes_up_and_goes_away() {
    if !is_root() {
        return;
    }
    let node = Node::start().await;
    let path = node.create_pod("web", one("c"));
    let pod = node
        .wait_pod(&path, |status| status["phase"] == "Running" && status["containerStatuses"][0]["ready"] == true)
        .await;
    assert_eq!(pod["status"]["podIP"], "10.244.0.1");
    assert_eq!(pod["status"]["hostIP"], "192.0.2.1");
    assert_eq!(pod["status"]["observedGeneration"], 1);
    assert_eq!(condition(&pod, "Ready")["status"], "True");
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(status["containerID"], "fake://container0002");
    assert_eq!(status["imageID"], "image@sha256:1");
    assert_eq!(node.runtime.calls(), ["run web 0", "start c 0"]);
    let config = node.runtime.config("c");
    let env: Vec<String> = config.envs.iter().map(|e| format!("{}={}", e.key, e.value)).collect();
    assert!(env.contains(&"KUBERNETES_SERVICE_HOST=10.96.0.1".to_owned()), "{env:?}");
    assert!(config.mounts.iter().any(|mount| mount.container_path == "/etc/hosts"));
    let hosts = fs::read_to_string(node.pod_dir("uid-web").join("etc-hosts")).unwrap();
    assert!(hosts.ends_with("10.244.0.1\tweb\n"), "{hosts}");
    node.wait_event("web", "Started: Container started").await;
    assert_eq!(
        node.events("web"),
        [
            "Pulled: Container image \"image:1\" already present on machine and can be accessed by the pod",
            "Created: Container created",
            "Started: Container started",
        ]
    );

    node.api.delete_pod(&path, 5);
    node.api.wait(&path, Value::is_null).await;
    assert_eq!(node.runtime.calls()[2..], ["stop c 5", "stop sandbox"]);
    until("the pod's traces to go", || node.runtime.counts() == (0, 0) && !node.pod_dir("uid-web").exists()).await;
    until("its logs to go", || fs::read_dir(node.path("logs")).unwrap().next().is_none()).await;
    node.wait_event("web", "Killing: Stopping container c").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn few_requests_bring_a_pod_up() {
    if !is_root() {
        return;
    }
    let node = Node::start().await;
    node.wait_running(&node.create_pod("first", one("c"))).await;
    let before = node.api.requests().len();
    node.wait_running(&node.create_pod("second", one("c"))).await;
    let requests = node.api.requests()[before..].to_vec();
    let statuses = requests.iter().filter(|r| r.starts_with("PATCH") && r.ends_with("/status")).count();
    assert!(statuses <= 2, "one report of the start and one of the outcome: {requests:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_ends_is_started_again_and_waits_if_it_ends_again() {
    if !is_root() {
        return;
    }
    let node = Node::start().await;
    let mut spec = one("c");
    spec["containers"][0]["terminationMessagePath"] = json!("/dev/termination-log");
    let path = node.create_pod("crash", spec);
    node.wait_running(&path).await;
    fs::write(message_file(&node, "c"), "last words").unwrap();
    node.runtime.exit("c", 3, "Error");
    let pod = node.wait_pod(&path, |s| s["containerStatuses"][0]["restartCount"] == 1).await;
    let last = &pod["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!((&last["exitCode"], &last["message"]), (&json!(3), &json!("last words")));
    node.runtime.exit("c", 137, "OOMKilled");
    let pod =
        node.wait_pod(&path, |s| s["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff").await;
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(
        status["state"]["waiting"]["message"],
        "back-off 10s restarting failed container=c pod=crash_default(uid-crash)"
    );
    assert_eq!(status["lastState"]["terminated"]["reason"], "OOMKilled");
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(condition(&pod, "Ready")["message"], "containers with unready status: [c]");
    node.wait_event("crash", "BackOff: Back-off restarting failed container c in pod crash_default(uid-crash)").await;
}

fn message_file(node: &Node, container: &str) -> String {
    // The API gives every container a path; here it is the test's business.
    let config = node.runtime.config(container);
    let mount = config.mounts.iter().find(|mount| mount.container_path == "/dev/termination-log");
    match mount {
        Some(mount) => mount.host_path.clone(),
        None => panic!("no termination message file: {:?}", config.mounts),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_succeeds_or_fails_for_good() {
    if !is_root() {
        return;
    }
    let node = Node::start().await;
    for (name, code, phase, reason) in [("good", 0, "Succeeded", "PodCompleted"), ("bad", 1, "Failed", "PodFailed")] {
        let mut spec = one(name);
        spec["restartPolicy"] = json!("Never");
        let path = node.create_pod(name, spec);
        node.wait_running(&path).await;
        node.runtime.exit(name, code, if code == 0 { "Completed" } else { "Error" });
        let pod = node.wait_pod(&path, |s| s["phase"] == phase).await;
        assert_eq!(condition(&pod, "Ready")["reason"], reason);
        assert_eq!(pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], code);
        assert!(pod["status"]["podIP"].is_string(), "the address is kept");
        until("its volumes to go", || !node.pod_dir(&format!("uid-{name}")).exists()).await;
        assert_eq!(node.runtime.calls().last().unwrap(), "stop sandbox");
    }
    // Their containers stay, for their logs, until the pods are deleted.
    assert_eq!(node.runtime.counts(), (2, 2));
    node.api.delete_pod("/api/v1/namespaces/default/pods/good", 30);
    node.api.wait("/api/v1/namespaces/default/pods/good", Value::is_null).await;
    until("its containers to go", || node.runtime.counts() == (1, 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn init_containers_sidecars_and_their_order() {
    if !is_root() {
        return;
    }
    let node = Node::start().await;
    let container = |name: &str| json!({"name": name, "image": "image:1"});
    let mut sidecar = container("side");
    sidecar["restartPolicy"] = json!("Always");
    let path = node.create_pod(
        "ordered",
        json!({"initContainers": [container("init"), sidecar, container("late")], "containers": [container("main")]}),
    );
    node.wait_calls("start init 0", 1).await;
    let pod = node.wait_pod(&path, |s| s["initContainerStatuses"][0]["state"]["running"].is_object()).await;
    assert_eq!(pod["status"]["phase"], "Pending");
    assert_eq!(condition(&pod, "Initialized")["message"], "containers with incomplete status: [init side late]");
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
    node.runtime.exit("init", 0, "Completed");
    until("late to start", || node.runtime.calls().contains(&"start late 0".to_owned())).await;
    node.runtime.exit("late", 0, "Completed");
    node.wait_running(&path).await;
    assert_eq!(node.runtime.calls(), ["run ordered 0", "start init 0", "start side 0", "start late 0", "start main 0"]);
    // A sidecar is kept running.
    node.runtime.exit("side", 1, "Error");
    until("the sidecar to start again", || node.runtime.calls().contains(&"start side 1".to_owned())).await;
    node.api.delete_pod(&path, 30);
    node.api.wait(&path, Value::is_null).await;
    assert_eq!(node.runtime.calls()[6..], ["stop main 30", "stop side 30", "stop sandbox"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_that_starts_again_leaves_running_pods_alone() {
    if !is_root() {
        return;
    }
    let mut node = Node::start().await;
    let mut probed = one("c");
    probed["containers"][0]["readinessProbe"] = json!({"exec": {"command": ["check"]}, "periodSeconds": 1});
    let path = node.create_pod("keep", probed);
    let lost = node.create_pod("lost", one("d"));
    let before = node.wait_pod(&path, |s| s["containerStatuses"][0]["ready"] == true).await;
    node.wait_running(&lost).await;
    node.stop_kubelet().await;
    node.api.remove(&lost);
    node.runtime.on_exec(|_, _| 0);
    let calls = node.runtime.calls().len();
    let versions_before = before["metadata"]["resourceVersion"].clone();
    node.start_kubelet(|_| {});
    until("the lost pod to go", || node.runtime.counts() == (1, 1)).await;
    node.api.patch(&path, json!({"metadata": {"labels": {"a": "b"}}}));
    let acted: Vec<String> =
        node.runtime.calls()[calls..].iter().filter(|call| !call.starts_with("exec c")).cloned().collect();
    assert_eq!(acted, ["stop d 30", "stop sandbox"]);
    let after = node.api.get(&path);
    assert_eq!(after["status"]["containerStatuses"], before["status"]["containerStatuses"], "{versions_before}");
    // And it still looks after them.
    node.runtime.exit("c", 1, "Error");
    node.wait_pod(&path, |s| s["containerStatuses"][0]["restartCount"] == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_pulled_by_policy_with_credentials() {
    if !is_root() {
        return;
    }
    let node = Node::start().await;
    let path = node.create_pod(
        "pull",
        json!({"containers": [{"name": "c", "image": "registry.example/app:1", "imagePullPolicy": "Always"}],
            "imagePullSecrets": [{"name": "creds"}]}),
    );
    let pod = node.wait_pod(&path, |s| s["containerStatuses"][0]["state"]["waiting"]["reason"] == "ErrImagePull").await;
    assert_eq!(
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"],
        "rpc error: code = NotFound desc = registry.example/app:1: not found"
    );
    node.wait_event("pull", "Failed: Error: ErrImagePull").await;
    let events = node.events("pull");
    assert_eq!(
        events[..2],
        [
            "Pulling: Pulling image \"registry.example/app:1\"",
            "Failed: Failed to pull image \"registry.example/app:1\": rpc error: code = NotFound desc = registry.example/app:1: not found",
        ]
    );
    // The secret appears, and with it another try, which must still wait for its turn.
    node.runtime.make_pullable("registry.example/app:1");
    let config = json!({"auths": {"registry.example": {"username": "me", "password": "x"}}}).to_string();
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(config);
    node.api.put(
        "/api/v1/namespaces/default/secrets/creds",
        json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": encoded}}),
    );
    let pod =
        node.wait_pod(&path, |s| s["containerStatuses"][0]["state"]["waiting"]["reason"] == "ImagePullBackOff").await;
    assert_eq!(
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"],
        "Back-off pulling image \"registry.example/app:1\": ErrImagePull: rpc error: code = NotFound desc = registry.example/app:1: not found"
    );
    let pulls: Vec<String> = node.runtime.calls().into_iter().filter(|call| call.starts_with("pull")).collect();
    assert_eq!(pulls, ["pull registry.example/app:1 "]);
    let never = node
        .create_pod("never", json!({"containers": [{"name": "c", "image": "absent:1", "imagePullPolicy": "Never"}]}));
    node.wait_pod(&never, |s| s["containerStatuses"][0]["state"]["waiting"]["reason"] == "ErrImageNeverPull").await;
    node.wait_event(
        "never",
        "ErrImageNeverPull: Container image \"absent:1\" is not present with pull policy of Never",
    )
    .await;
}

/// Naming another's private image must not be enough to have it.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_pulled_with_credentials_is_for_those_who_have_them() {
    if !is_root() {
        return;
    }
    let node = Node::start().await;
    let image = "registry.example/secret:1";
    node.runtime.make_pullable(image);
    use base64::Engine as _;
    let config = json!({"auths": {"registry.example": {"username": "me", "password": "x"}}}).to_string();
    let encoded = base64::engine::general_purpose::STANDARD.encode(config);
    node.api.put(
        "/api/v1/namespaces/default/secrets/creds",
        json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": encoded}}),
    );
    let of = |policy: &str, secrets: Value| json!({"containers": [{"name": "c", "image": image, "imagePullPolicy": policy}], "imagePullSecrets": secrets});
    let creds = json!([{"name": "creds"}]);
    let running = |s: &Value| s["containerStatuses"][0]["state"]["running"].is_object();
    node.wait_pod(&node.create_pod("owner", of("IfNotPresent", creds.clone())), running).await;
    let pulls = || node.runtime.calls().into_iter().filter(|call| call.starts_with("pull")).collect::<Vec<_>>();
    assert_eq!(pulls(), ["pull registry.example/secret:1 me"]);
    // Others have no right to it without pulling it.
    let waits = |s: &Value| s["containerStatuses"][0]["state"]["waiting"]["reason"] == "ErrImageNeverPull";
    node.wait_pod(&node.create_pod("never", of("Never", json!([]))), waits).await;
    // The same credentials are enough.
    node.wait_pod(&node.create_pod("friend", of("Never", creds)), running).await;
    assert_eq!(pulls().len(), 1);
    // Who pulls it without any shows that it is everybody's.
    node.wait_pod(&node.create_pod("stranger", of("IfNotPresent", json!([]))), running).await;
    assert_eq!(pulls()[1..], ["pull registry.example/secret:1 "]);
    node.wait_pod(&node.create_pod("another", of("Never", json!([]))), running).await;
    assert_eq!(pulls().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_object_holds_a_pod_back_until_it_is_there_and_its_changes_show() {
    if !is_root() {
        return;
    }
    let node = Node::start().await;
    let path = node.create_pod(
        "conf",
        json!({
            "containers": [{"name": "c", "image": "image:1",
                "env": [{"name": "E", "valueFrom": {"configMapKeyRef": {"name": "env", "key": "k"}}}],
                "volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "t", "mountPath": "/t"}, {"name": "e", "mountPath": "/e"}]}],
            "volumes": [
                {"name": "v", "configMap": {"name": "files"}},
                {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
                {"name": "e", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
                {"name": "unused", "secret": {"secretName": "nope"}},
            ],
        }),
    );
    node.wait_event("conf", "FailedMount: MountVolume.SetUp failed for volume \"v\" : configmap \"files\" not found")
        .await;
    assert!(node.runtime.calls().is_empty());
    node.api.put("/api/v1/namespaces/default/configmaps/files", json!({"data": {"a": "1"}}));
    let pod = node
        .wait_pod(&path, |s| s["containerStatuses"][0]["state"]["waiting"]["reason"] == "CreateContainerConfigError")
        .await;
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"], "configmap \"env\" not found");
    node.wait_event("conf", "Failed: Error: configmap \"env\" not found").await;
    node.api.put("/api/v1/namespaces/default/configmaps/env", json!({"data": {"k": "value"}}));
    node.wait_running(&path).await;
    let config = node.runtime.config("c");
    assert!(config.envs.iter().any(|env| env.key == "E" && env.value == "value"));
    let mount = |at: &str| config.mounts.iter().find(|mount| mount.container_path == at).unwrap().clone();
    let file = std::path::Path::new(&mount("/v").host_path).join("a");
    assert_eq!(fs::read_to_string(&file).unwrap(), "1");
    assert!(mount("/v").readonly && !mount("/e").readonly);
    let token = fs::read_to_string(std::path::Path::new(&mount("/t").host_path).join("token")).unwrap();
    assert!(token.starts_with("token "));
    fs::write(std::path::Path::new(&mount("/e").host_path).join("x"), "x").unwrap();
    assert!(fs::write(std::path::Path::new(&mount("/e").host_path).join("big"), vec![0; 2 << 20]).is_err());
    node.api.put("/api/v1/namespaces/default/configmaps/files", json!({"data": {"a": "2"}}));
    until("the change to show", || fs::read_to_string(&file).unwrap() == "2").await;
    node.api.delete_pod(&path, 1);
    node.api.wait(&path, Value::is_null).await;
    assert!(!node.pod_dir("uid-conf").exists(), "all is unmounted before the pod is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_decide_about_readiness_and_restarts() {
    if !is_root() {
        return;
    }
    let node = Node::start().await;
    let ready = std::sync::Arc::new(std::sync::atomic::AtomicI32::new(1));
    let (code, flag) = (ready.clone(), ready);
    node.runtime.on_exec(move |_, command| match command[0].as_str() {
        "ready" => code.load(std::sync::atomic::Ordering::SeqCst),
        "alive" => 1,
        _ => 0,
    });
    let mut spec = one("c");
    spec["containers"][0]["readinessProbe"] = json!({"exec": {"command": ["ready"]}, "periodSeconds": 1});
    let path = node.create_pod("ready", spec);
    let pod = node.wait_running(&path).await;
    assert_eq!(pod["status"]["containerStatuses"][0]["ready"], false);
    node.wait_event("ready", "Unhealthy: Readiness probe failed: output").await;
    flag.store(0, std::sync::atomic::Ordering::SeqCst);
    node.wait_pod(&path, |s| s["containerStatuses"][0]["ready"] == true).await;

    let mut spec = one("d");
    spec["containers"][0]["livenessProbe"] = json!({"exec": {"command": ["alive"]}, "periodSeconds": 1, "failureThreshold": 1, "terminationGracePeriodSeconds": 3});
    let path = node.create_pod("alive", spec);
    node.wait_pod(&path, |s| s["containerStatuses"][0]["restartCount"].as_i64() >= Some(1)).await;
    let calls = node.runtime.calls();
    assert!(calls.contains(&"stop d 3".to_owned()) && calls.contains(&"start d 1".to_owned()), "{calls:?}");
    node.wait_event("alive", "Killing: Container d failed liveness probe, will be restarted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_run_and_their_failure_tells() {
    if !is_root() {
        return;
    }
    let node = Node::start().await;
    node.runtime.on_exec(|_, command| i32::from(command[0] == "fail"));
    let mut spec = one("c");
    spec["containers"][0]["lifecycle"] =
        json!({"postStart": {"exec": {"command": ["after"]}}, "preStop": {"exec": {"command": ["fail"]}}});
    let path = node.create_pod("hooks", spec);
    node.wait_running(&path).await;
    node.api.delete_pod(&path, 30);
    node.api.wait(&path, Value::is_null).await;
    assert_eq!(
        node.runtime.calls(),
        ["run hooks 0", "start c 0", "exec c after", "exec c fail", "stop c 30", "stop sandbox"]
    );
    node.wait_event("hooks", "FailedPreStopHook: PreStopHook failed").await;

    let mut spec = one("d");
    spec["containers"][0]["lifecycle"] = json!({"postStart": {"exec": {"command": ["fail"]}}});
    let path = node.create_pod("bad", spec);
    node.wait_pod(&path, |s| s["containerStatuses"][0]["state"]["waiting"]["reason"] == "PostStartHookError").await;
    node.wait_event("bad", "FailedPostStartHook: PostStartHook failed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_cannot_start_says_why() {
    if !is_root() {
        return;
    }
    let node = Node::start().await;
    node.runtime.refuse_start("c");
    let path = node.create_pod("norun", one("c"));
    let pod =
        node.wait_pod(&path, |s| s["containerStatuses"][0]["state"]["waiting"]["reason"] == "RunContainerError").await;
    assert_eq!(
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"],
        "exec: \"nope\": executable file not found in $PATH"
    );
    node.wait_event("norun", "Failed: Error: exec: \"nope\": executable file not found in $PATH").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_sandbox_is_made_again() {
    if !is_root() {
        return;
    }
    let node = Node::start().await;
    let container = |name: &str| json!({"name": name, "image": "image:1"});
    let path = node.create_pod(
        "lost",
        json!({"initContainers": [container("h"), container("i")], "containers": [container("c")]}),
    );
    for name in ["h", "i"] {
        node.wait_calls(&format!("start {name} "), 1).await;
        node.runtime.exit(name, 0, "Completed");
    }
    node.wait_running(&path).await;
    node.runtime.kill_sandboxes();
    until("the new sandbox", || node.runtime.calls().contains(&"run lost 1".to_owned())).await;
    for name in ["h", "i"] {
        node.wait_calls(&format!("start {name} "), 2).await;
        node.runtime.exit(name, 0, "Completed");
    }
    node.wait_event("lost", "SandboxChanged: Pod sandbox changed, it will be killed and re-created.").await;
    let pod = node.wait_pod(&path, |s| s["containerStatuses"][0]["restartCount"] == 1 && s["phase"] == "Running").await;
    assert_ne!(pod["status"]["podIP"], "10.244.0.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_does_not_fit_is_rejected() {
    if !is_root() {
        return;
    }
    let node = Node::start().await;
    let mut spec = one("c");
    spec["containers"][0]["resources"] = json!({"requests": {"cpu": "10000"}});
    let path = node.create_pod("big", spec);
    let pod = node.wait_pod(&path, |s| s["phase"] == "Failed").await;
    assert_eq!(pod["status"]["reason"], "OutOfcpu");
    let message = pod["status"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("Pod was rejected: Node didn't have enough resource: cpu, requested: 10000000, used: 0,"),
        "{message}"
    );
    node.wait_event("big", "OutOfcpu: Node didn't have enough resource: cpu").await;
    node.api.delete_pod(&path, 30);
    node.api.wait(&path, Value::is_null).await;
    assert!(node.runtime.calls().is_empty());
    // What was refused a moment ago takes no room.
    let mut spec = one("c");
    spec["containers"][0]["resources"] = json!({"requests": {"cpu": "10000"}});
    node.create_pod("bigger", spec.clone());
    spec["containers"][0]["resources"] = json!({"requests": {"cpu": "1m"}});
    let path = node.create_pod("small", spec);
    node.wait_running(&path).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_past_its_deadline_fails() {
    if !is_root() {
        return;
    }
    let node = Node::start().await;
    let mut spec = one("c");
    spec["activeDeadlineSeconds"] = json!(1);
    let path = node.create_pod("late", spec);
    let pod = node.wait_pod(&path, |s| s["phase"] == "Failed").await;
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
    assert_eq!(pod["status"]["message"], "Pod was active on the node longer than the specified deadline");
    assert!(node.runtime.calls().contains(&"stop c 30".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_deleted_before_it_ran_is_gone_at_once() {
    if !is_root() {
        return;
    }
    let node = Node::start().await;
    let path = node.create_pod(
        "stuck",
        json!({"containers": [{"name": "c", "image": "image:1", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
            "volumes": [{"name": "v", "secret": {"secretName": "never"}}]}),
    );
    node.wait_event("stuck", "FailedMount").await;
    node.api.delete_pod(&path, 30);
    node.api.wait(&path, Value::is_null).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn static_pods_run_and_show_in_the_api() {
    if !is_root() {
        return;
    }
    let manifests = tempfile::tempdir().unwrap();
    let write = |image: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: st}}\nspec:\n  containers:\n  - {{name: c, image: \"{image}\"}}\n"
        );
        fs::write(manifests.path().join("st.yaml"), text).unwrap();
    };
    write("image:1");
    let node = Node::start_with(|config| config.static_pod_path = Some(manifests.path().to_owned())).await;
    let path = "/api/v1/namespaces/default/pods/st-n1";
    let pod = node.wait_running(path).await;
    let hash = pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].clone();
    assert!(hash.is_string());
    assert_eq!(pod["metadata"]["ownerReferences"][0]["kind"], "Node");
    // Deleting the mirror changes nothing but the mirror.
    node.api.remove(path);
    let again = node.wait_running(path).await;
    assert_ne!(again["metadata"]["uid"], pod["metadata"]["uid"]);
    assert_eq!(node.runtime.calls(), ["run st-n1 0", "start c 0"]);
    write("image:2");
    node.runtime.make_pullable("image:2");
    node.api
        .wait(path, |pod| {
            pod["metadata"]["annotations"]["kubernetes.io/config.mirror"] != hash && pod["status"]["phase"] == "Running"
        })
        .await;
    fs::remove_file(manifests.path().join("st.yaml")).unwrap();
    node.api.wait(path, Value::is_null).await;
    until("its containers to go", || node.runtime.counts() == (0, 0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_are_resized_in_place_or_anew() {
    if !is_root() {
        return;
    }
    let node = Node::start().await;
    let asks = |cpu: &str, memory: &str| json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}});
    let mut spec = one("c");
    spec["containers"][0]["resources"] = asks("100m", "64Mi");
    spec["containers"][0]["resizePolicy"] = json!([
        {"resourceName": "cpu", "restartPolicy": "NotRequired"}, {"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
    let path = node.create_pod("size", spec.clone());
    node.wait_running(&path).await;
    let resize = |cpu: &str, memory: &str| {
        let mut pod = node.api.get(&path);
        pod["spec"]["containers"][0]["resources"] = asks(cpu, memory);
        let generation = pod["metadata"]["generation"].as_i64().unwrap() + 1;
        pod["metadata"]["generation"] = json!(generation);
        node.api.put(&path, pod);
    };
    resize("200m", "64Mi");
    let pod = node
        .wait_pod(&path, |s| {
            s["containerStatuses"][0]["resources"]["limits"]["cpu"] == "200m" && s["observedGeneration"] == 2
        })
        .await;
    assert_eq!(pod["status"]["containerStatuses"][0]["allocatedResources"]["cpu"], "200m");
    assert!(node.runtime.calls().contains(&format!("update c 20000 {}", 64 << 20)), "{:?}", node.runtime.calls());
    node.wait_event("size", "ResizeCompleted: Pod resize completed").await;
    resize("200m", "128Mi");
    until("the container to start anew", || node.runtime.calls().contains(&"start c 1".to_owned())).await;
    node.wait_event("size", "Killing: Container c resize requires restart").await;
    resize("10000", "128Mi");
    let pod = node
        .wait_pod(&path, |s| s["conditions"].as_array().unwrap().iter().any(|c| c["type"] == "PodResizePending"))
        .await;
    let pending = condition(&pod, "PodResizePending");
    assert_eq!(pending["reason"], "Infeasible");
    assert_eq!(pod["status"]["containerStatuses"][0]["allocatedResources"]["cpu"], "200m");
    resize("200m", "128Mi");
    node.wait_pod(&path, |s| !s["conditions"].as_array().unwrap().iter().any(|c| c["type"] == "PodResizePending"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_containers_end_has_all_begin_anew() {
    if !is_root() {
        return;
    }
    let node = Node::start().await;
    let container = |name: &str| json!({"name": name, "image": "image:1"});
    let mut cause = container("cause");
    cause["restartPolicy"] = json!("Always");
    cause["restartPolicyRules"] =
        json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]);
    let path =
        node.create_pod("anew", json!({"initContainers": [container("i")], "containers": [cause, container("other")]}));
    node.wait_calls("start i 0", 1).await;
    node.runtime.exit("i", 0, "Completed");
    node.wait_running(&path).await;
    node.runtime.exit("cause", 42, "Error");
    node.wait_calls("start i ", 2).await;
    node.runtime.exit("i", 0, "Completed");
    let pod = node
        .wait_pod(&path, |s| {
            s["containerStatuses"].as_array().unwrap().iter().all(|c| c["restartCount"] == 1 && c["ready"] == true)
        })
        .await;
    assert_eq!(pod["status"]["podIP"], "10.244.0.1", "the sandbox stays");
    assert_eq!(node.runtime.calls().iter().filter(|call| call.starts_with("run ")).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_fills_its_directory_is_evicted() {
    if !is_root() {
        return;
    }
    let node = Node::start().await;
    let path = node.create_pod(
        "full",
        json!({"containers": [{"name": "c", "image": "image:1", "volumeMounts": [{"name": "e", "mountPath": "/e"}]}],
            "volumes": [{"name": "e", "emptyDir": {"sizeLimit": "1Mi"}}]}),
    );
    node.wait_running(&path).await;
    let config = node.runtime.config("c");
    let mount = config.mounts.iter().find(|mount| mount.container_path == "/e").unwrap();
    fs::write(std::path::Path::new(&mount.host_path).join("big"), vec![1; 2 << 20]).unwrap();
    let pod = node.wait_pod(&path, |s| s["phase"] == "Failed").await;
    assert_eq!(pod["status"]["reason"], "Evicted");
    assert_eq!(pod["status"]["message"], "Usage of EmptyDir volume \"e\" exceeds the limit \"1Mi\". ");
    assert_eq!(condition(&pod, "DisruptionTarget")["reason"], "TerminationByKubelet");
    assert!(node.runtime.calls().contains(&"stop c 2".to_owned()), "{:?}", node.runtime.calls());
}
