//! An unmodified `kube`, the Rust client, with typed objects: CRUD, patches, subresources, streams, watchers and reflectors,
//! and a controller.

use crate::support::{Cluster, Fallible, PATIENCE};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{self, ConfigMap, Event as CoreEvent, Node, Pod, ResourceQuota, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{
    Api, AttachParams, DeleteParams, EvictParams, ListParams, LogParams, ObjectMeta, Patch, PatchParams, PostParams,
    Preconditions, WatchEvent, WatchParams,
};
use kube::core::Status;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::finalizer::{Event as Finalizer, finalizer};
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Config, Resource, ResourceExt, discovery};
use network::netns::Namespace;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

/// Gives up on something that takes too long.
async fn patiently<T>(what: &str, work: impl Future<Output = T>) -> Fallible<T> {
    within(PATIENCE, what, work).await
}

async fn within<T>(limit: Duration, what: &str, work: impl Future<Output = T>) -> Fallible<T> {
    tokio::time::timeout(limit, work).await.map_err(|_| format!("still not so: {what}").into())
}

/// Waits until `look` finds something.
async fn until<T, F: Future<Output = kube::Result<Option<T>>>>(what: &str, mut look: impl FnMut() -> F) -> Fallible<T> {
    patiently(what, async {
        loop {
            if let Some(found) = look().await? {
                return Ok(found);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await?
}

/// The Status that refuses a request.
fn refused<T: std::fmt::Debug>(answer: kube::Result<T>, code: u16, reason: &str) -> Fallible<Status> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == code && status.reason == reason => Ok(*status),
        other => Err(format!("not refused with {code} {reason}: {other:?}").into()),
    }
}

fn config_map(name: &str, part: &str) -> ConfigMap {
    let labels = BTreeMap::from([("part".to_owned(), part.to_owned())]);
    let metadata = ObjectMeta { name: Some(name.to_owned()), labels: Some(labels), ..ObjectMeta::default() };
    ConfigMap { metadata, data: Some(BTreeMap::from([("a".to_owned(), "b".to_owned())])), ..ConfigMap::default() }
}

fn pod(name: &str, command: &str) -> Fallible<Pod> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [
            {"name": "main", "image": "busybox", "stdin": true, "command": ["sh", "-c", command]}]},
    }))?)
}

#[test]
fn rust_programs_work() -> Fallible {
    let cluster = Cluster::running()?;
    let kubeconfig = kube::config::Kubeconfig::read_from(cluster.data().join("admin.kubeconfig"))?;
    let namespace = Path::new("/run/netns").join(format!("lab-{}", cluster.name));
    // On the node, on a thread of its own.
    Namespace::open(&namespace)?.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut config = Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
            // What is refused is looked at here, not tried again by the client.
            config.default_retry = false;
            let client = Client::try_from(config)?;
            within(PATIENCE * 2, "discovered", discovered(&client)).await??;
            within(PATIENCE * 2, "objects", objects(&client)).await??;
            within(PATIENCE * 2, "patched", patched(&client)).await??;
            within(PATIENCE * 2, "watched", watched(&client)).await??;
            within(PATIENCE * 2, "reflected", reflected(&client)).await??;
            within(PATIENCE * 2, "containers", containers(&client)).await??;
            within(PATIENCE * 2, "subresources", subresources(&client)).await??;
            within(PATIENCE * 2, "controlled", controlled(&client)).await?
        })
    })?
}

async fn discovered(client: &Client) -> Fallible {
    assert_eq!(client.apiserver_version().await?.minor, "36");
    for found in [
        discovery::Discovery::new(client.clone()).run().await?,
        discovery::Discovery::new(client.clone()).run_aggregated().await?,
    ] {
        let group = found.get("apps").ok_or("apps was not discovered")?;
        let (resource, capabilities) = group.recommended_kind("Deployment").ok_or("no Deployment")?;
        assert_eq!((resource.plural.as_str(), resource.version.as_str()), ("deployments", "v1"));
        assert!(capabilities.subresources.iter().any(|(sub, _)| sub.plural == "scale"), "{capabilities:?}");
    }
    Ok(())
}

async fn objects(client: &Client) -> Fallible {
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let made = maps.create(&PostParams::default(), &config_map("typed", "typed")).await?;
    assert!(made.uid().is_some() && made.creation_timestamp().is_some(), "{made:?}");
    let again =
        refused(maps.create(&PostParams::default(), &config_map("typed", "typed")).await, 409, "AlreadyExists")?;
    assert_eq!(again.message, "configmaps \"typed\" already exists");
    assert_eq!(again.details.map(|d| (d.name, d.kind)), Some(("typed".to_owned(), "configmaps".to_owned())));
    let mut changed = maps.get("typed").await?;
    changed.data.get_or_insert_default().insert("c".to_owned(), "d".to_owned());
    let replaced = maps.replace("typed", &PostParams::default(), &changed).await?;
    assert_eq!(replaced.data, changed.data);
    refused(maps.replace("typed", &PostParams::default(), &changed).await, 409, "Conflict")?;
    assert!(maps.get_opt("absent").await?.is_none());
    let partial = maps.list_metadata(&ListParams::default().labels("part=typed")).await?;
    assert_eq!(partial.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["typed"]);
    let mut entry = maps.entry("entered").await?.or_insert(|| config_map("entered", "typed"));
    entry.commit(&PostParams::default()).await?;
    let dry = PostParams { dry_run: true, field_manager: None };
    maps.create(&dry, &config_map("dry", "typed")).await?;
    refused(maps.get("dry").await, 404, "NotFound")?;

    let page = maps.list(&ListParams::default().labels("part=typed").limit(1)).await?;
    let token = page.metadata.continue_.clone().ok_or("no second page")?;
    let rest = maps.list(&ListParams::default().labels("part=typed").limit(1).continue_token(&token)).await?;
    let names: Vec<String> = page.items.iter().chain(&rest.items).map(ResourceExt::name_any).collect();
    assert_eq!(names, ["entered", "typed"]);
    assert_eq!(page.metadata.resource_version, rest.metadata.resource_version);

    let other = Preconditions { uid: Some("another".to_owned()), resource_version: None };
    refused(maps.delete("typed", &DeleteParams::default().preconditions(other)).await, 409, "Conflict")?;
    // A Status, as of most kinds; of some the object.
    assert!(maps.delete("typed", &DeleteParams::default()).await?.is_right());
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    accounts.create(&PostParams::default(), &serde_json::from_value(json!({"metadata": {"name": "robot"}}))?).await?;
    let spec = TokenRequestSpec { audiences: Some(vec!["a".to_owned()]), ..TokenRequestSpec::default() };
    let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let token = accounts.create_token_request("robot", &PostParams::default(), &request).await?;
    assert_eq!(token.status.and_then(|s| s.token).map(|t| t.split('.').count()), Some(3));
    assert!(accounts.delete("robot", &DeleteParams::default()).await?.is_left());
    maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels("part=typed")).await?;
    assert!(maps.list(&ListParams::default().labels("part=typed")).await?.items.is_empty());
    let invalid: Pod =
        serde_json::from_value(json!({"metadata": {"name": "x"}, "spec": {"containers": [{"name": "X"}]}}))?;
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let status = refused(pods.create(&PostParams::default(), &invalid).await, 422, "Invalid")?;
    let causes = status.details.map(|d| d.causes).unwrap_or_default();
    let fields: BTreeSet<&str> = causes.iter().map(|c| c.field.as_str()).collect();
    assert_eq!(fields, BTreeSet::from(["spec.containers[0].image", "spec.containers[0].name"]));
    Ok(())
}

async fn patched(client: &Client) -> Fallible {
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    let applied = |manager: &str| {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "applied", "annotations": {"by": manager}},
            "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "applied"}}, "template": {
                "metadata": {"labels": {"app": "applied"}},
                "spec": {"containers": [{"name": "main", "image": "busybox"}]}}},
        })
    };
    let apply = |manager: &'static str| (PatchParams::apply(manager), Patch::Apply(applied(manager)));
    let (one, body) = apply("one");
    deployments.patch("applied", &one, &body).await?;
    let (two, body) = apply("two");
    let conflict = refused(deployments.patch("applied", &two, &body).await, 409, "Conflict")?;
    let causes = conflict.details.map(|d| d.causes).unwrap_or_default();
    assert_eq!(causes.iter().map(|c| c.field.as_str()).collect::<Vec<_>>(), [".metadata.annotations.by"]);
    let taken = deployments.patch("applied", &two.force(), &body).await?;
    assert_eq!(taken.annotations()["by"], "two");
    let default = PatchParams::default();
    let merged = deployments.patch("applied", &default, &Patch::Merge(json!({"spec": {"minReadySeconds": 4}}))).await?;
    assert_eq!(merged.spec.and_then(|s| s.min_ready_seconds), Some(4));
    let side = json!({"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "busybox"}]}}}});
    let strategic = deployments.patch("applied", &default, &Patch::Strategic(side)).await?;
    let containers = strategic.spec.and_then(|s| s.template.spec).ok_or("no spec")?.containers;
    assert_eq!(containers.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["side", "main"]);
    let metadata = json!({"metadata": {"labels": {"seen": "yes"}}});
    let partial = deployments.patch_metadata("applied", &default, &Patch::Merge(metadata)).await?;
    assert_eq!(partial.labels()["seen"], "yes");
    let strict = PatchParams::default().validation_strict();
    refused(
        deployments.patch("applied", &strict, &Patch::Merge(json!({"spec": {"absent": 1}}))).await,
        422,
        "Invalid",
    )?;
    deployments.delete("applied", &DeleteParams::foreground()).await?;
    until("it is gone", || async { Ok(deployments.get_opt("applied").await?.is_none().then_some(())) }).await
}

async fn watched(client: &Client) -> Fallible {
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let version = maps.list(&ListParams::default()).await?.metadata.resource_version.unwrap_or_default();
    maps.create(&PostParams::default(), &config_map("seen", "seen")).await?;
    maps.delete("seen", &DeleteParams::default()).await?;
    let params = WatchParams::default().labels("part=seen").timeout(4);
    let events: Vec<WatchEvent<ConfigMap>> =
        patiently("the watch ends", async { maps.watch(&params, &version).await?.try_collect().await }).await??;
    let told: Vec<&str> = events
        .iter()
        .map(|event| match event {
            WatchEvent::Added(_) => "added",
            WatchEvent::Modified(_) => "modified",
            WatchEvent::Deleted(_) => "deleted",
            WatchEvent::Bookmark(_) => "bookmark",
            WatchEvent::Error(_) => "error",
        })
        .collect();
    assert!(matches!(told[..], ["added", "deleted", .., "bookmark"]), "{told:?}");
    Ok(())
}

/// A reflector has what the server has, whichever way the first list comes.
async fn reflected(client: &Client) -> Fallible {
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    for (name, config) in [
        ("listed", watcher::Config::default().page_size(1)),
        ("streamed", watcher::Config::default().streaming_lists()),
        ("unbookmarked", watcher::Config::default().disable_bookmarks().any_semantic()),
    ] {
        let key = |n: u32| format!("{name}-{n}");
        for n in 0..3 {
            maps.create(&PostParams::default(), &config_map(&key(n), name)).await?;
        }
        let (store, writer) = reflector::store();
        let stream = watcher(maps.clone(), config.labels(&format!("part={name}"))).default_backoff().reflect(writer);
        let following = tokio::spawn(stream.for_each(|event| async move {
            event.expect("the watcher goes on without an error");
        }));
        patiently("the first list is there", store.wait_until_ready()).await??;
        if name != "unbookmarked" {
            assert_eq!(store.len(), 3, "{name}");
        }
        maps.delete(&key(0), &DeleteParams::default()).await?;
        let data = json!({"data": {"a": "changed"}});
        maps.patch(&key(1), &PatchParams::default(), &Patch::Merge(data)).await?;
        maps.create(&PostParams::default(), &config_map(&key(3), name)).await?;
        let get = |n: u32| store.get(&ObjectRef::new(&key(n)).within("default"));
        until("the store follows", || async {
            let changed = get(1).is_some_and(|map| map.data.as_ref().is_some_and(|d| d["a"] == "changed"));
            Ok((get(0).is_none() && changed && get(2).is_some() && get(3).is_some()).then_some(()))
        })
        .await?;
        following.abort();
        maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels(&format!("part={name}")))
            .await?;
    }
    Ok(())
}

async fn containers(client: &Client) -> Fallible {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let serve = "mkdir /www; echo served > /www/index.html; httpd -p 8080 -h /www; echo ready; while read line; do echo heard $line; done";
    pods.create(&PostParams::default(), &pod("served", serve)?).await?;
    patiently("the pod runs", await_condition(pods.clone(), "served", conditions::is_pod_running())).await??;

    let mut exec =
        pods.exec("served", ["sh", "-c", "cat; echo err >&2; exit 3"], &AttachParams::default().stdin(true)).await?;
    let status = exec.take_status().ok_or("no status")?;
    let (mut stdout, mut stderr) = (exec.stdout().ok_or("no stdout")?, exec.stderr().ok_or("no stderr")?);
    let mut stdin = exec.stdin().ok_or("no stdin")?;
    let (mut out, mut err) = (String::new(), String::new());
    // More than the client's buffers hold: what is written comes back while it is written.
    let write = async {
        stdin.write_all(&[b'x'; 100_000]).await?;
        stdin.shutdown().await
    };
    patiently("the command ends", async {
        tokio::try_join!(write, stdout.read_to_string(&mut out), stderr.read_to_string(&mut err))
    })
    .await??;
    assert_eq!((out.len(), err.as_str()), (100_000, "err\n"));
    let status = patiently("its status comes", status).await?.ok_or("no status came")?;
    assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"));
    exec.join().await?;

    let log = pods.log_stream("served", &LogParams { follow: true, ..LogParams::default() }).await?;
    let mut attached = pods.attach("served", &AttachParams::default().stdin(true).stderr(false)).await?;
    let mut stdin = attached.stdin().ok_or("no stdin")?;
    stdin.write_all(b"one\n").await?;
    let mut heard = BufReader::new(attached.stdout().ok_or("no stdout")?).lines();
    assert_eq!(patiently("it is heard", heard.next_line()).await??.as_deref(), Some("heard one"));
    let lines = patiently("it is in the log", async {
        futures::AsyncBufReadExt::lines(log).take(2).try_collect::<Vec<_>>().await
    })
    .await??;
    assert_eq!(lines, ["ready", "heard one"]);
    attached.abort();

    let mut forward = pods.portforward("served", &[8080]).await?;
    let mut stream = forward.take_stream(8080).ok_or("no stream")?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    patiently("the server answers", stream.read_to_string(&mut answer)).await??;
    assert!(answer.ends_with("served\n"), "{answer}");
    // The server has closed the connection, which this client, told to join, closes once more and takes for an error.
    forward.abort();
    Ok(())
}

async fn subresources(client: &Client) -> Fallible {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let ephemeral =
        json!({"spec": {"ephemeralContainers": [{"name": "look", "image": "busybox", "command": ["true"]}]}});
    pods.patch_ephemeral_containers("served", &PatchParams::default(), &Patch::Strategic(ephemeral)).await?;
    until("the ephemeral container has run", || async {
        let statuses = pods.get_status("served").await?.status.and_then(|s| s.ephemeral_container_statuses);
        Ok(statuses.and_then(|s| s.first().and_then(|s| s.state.clone()).and_then(|s| s.terminated)))
    })
    .await?;
    let budgets: Api<PodDisruptionBudget> = Api::default_namespaced(client.clone());
    let budget = json!({"metadata": {"name": "served"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "served"}}}});
    budgets.create(&PostParams::default(), &serde_json::from_value(budget)?).await?;
    until("the budget is counted", || async {
        Ok(budgets.get_status("served").await?.status.and_then(|s| s.observed_generation))
    })
    .await?;
    let kept = refused(pods.evict("served", &EvictParams::default()).await, 429, "TooManyRequests")?;
    assert_eq!(kept.message, "Cannot evict pod as it would violate the pod's disruption budget.");
    budgets.delete("served", &DeleteParams::default()).await?;
    until("it is evicted", || async {
        match pods.evict("served", &EvictParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 429 => Ok(None),
            answer => answer.map(Some),
        }
    })
    .await?;
    until("it is gone", || async { Ok(pods.get_opt("served").await?.is_none().then_some(())) }).await?;

    let quotas: Api<ResourceQuota> = Api::default_namespaced(client.clone());
    let quota = json!({"metadata": {"name": "status"}, "spec": {"hard": {"count/widgets.example.com": "1"}}});
    quotas.create(&PostParams::default(), &serde_json::from_value(quota)?).await?;
    let used = json!({"status": {"used": {"count/widgets.example.com": "7"}}, "spec": {"hard": {"pods": "1"}}});
    let got = quotas.patch_status("status", &PatchParams::default(), &Patch::Merge(used)).await?;
    assert_eq!(
        got.spec.and_then(|s| s.hard).unwrap_or_default().keys().collect::<Vec<_>>(),
        ["count/widgets.example.com"]
    );
    quotas.delete("status", &DeleteParams::default()).await?;

    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    let mut deployment = json!({"metadata": {"name": "scaled"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "scaled"}}}});
    deployment["spec"]["template"] = serde_json::to_value(pod("scaled", "sleep 3600")?)?;
    deployments.create(&PostParams::default(), &serde_json::from_value(deployment)?).await?;
    let scale = deployments
        .patch_scale("scaled", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 2}})))
        .await?;
    assert_eq!(scale.spec.and_then(|s| s.replicas), Some(2));
    let complete = conditions::is_deployment_completed();
    patiently("it is complete", await_condition(deployments.clone(), "scaled", complete)).await??;
    let restarted = deployments.restart("scaled").await?;
    assert_eq!(restarted.metadata.generation, Some(3));
    deployments.delete("scaled", &DeleteParams::background()).await?;

    let nodes: Api<Node> = Api::all(client.clone());
    let spec = |node: Node| node.spec.and_then(|s| s.unschedulable);
    assert_eq!(spec(nodes.cordon("node-1").await?), Some(true));
    assert_ne!(spec(nodes.uncordon("node-1").await?), Some(true));
    Ok(())
}

/// What a controller of the test works with.
struct Work {
    maps: Api<ConfigMap>,
    recorder: Recorder,
}

/// Every namespace with a label owns a ConfigMap, until it is deleted.
async fn reconcile(
    owner: Arc<v1::Namespace>,
    work: Arc<Work>,
) -> Result<Action, kube::runtime::finalizer::Error<kube::Error>> {
    let namespaces: Api<v1::Namespace> = Api::all(work.maps.clone().into_client());
    finalizer(&namespaces, "example.com/owned", owner, |event| async {
        match event {
            Finalizer::Apply(owner) => {
                let name = format!("of-{}", owner.name_any());
                let mut owned = config_map(&name, "owned");
                owned.metadata.owner_references = owner.controller_owner_ref(&()).map(|reference| vec![reference]);
                work.maps.patch(&name, &PatchParams::apply("controller").force(), &Patch::Apply(owned)).await?;
                let note = Some(format!("owns {name}"));
                let event = Event {
                    type_: EventType::Normal,
                    reason: "Owned".into(),
                    note,
                    action: "Own".into(),
                    secondary: None,
                };
                work.recorder.publish(&event, &owner.object_ref(&())).await?;
            }
            Finalizer::Cleanup(owner) => {
                let name = format!("of-{}", owner.name_any());
                work.maps.delete(&name, &DeleteParams::default()).await?;
            }
        }
        Ok(Action::await_change())
    })
    .await
}

async fn controlled(client: &Client) -> Fallible {
    let namespaces: Api<v1::Namespace> = Api::all(client.clone());
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let recorder = Recorder::new(client.clone(), Reporter::from("example.com/controller"));
    let work = Arc::new(Work { maps: maps.clone(), recorder });
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let controller = Controller::new(namespaces.clone(), watcher::Config::default().labels("owns=yes"))
        .owns(maps.clone(), watcher::Config::default().streaming_lists())
        .graceful_shutdown_on(async {
            // That the sender is gone is a stop too.
            stopped.await.unwrap_or_default();
        })
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_millis(200)), work)
        .for_each(|_| futures::future::ready(()));
    let running = tokio::spawn(controller);
    let namespace = json!({"metadata": {"name": "owner", "labels": {"owns": "yes"}}});
    namespaces.create(&PostParams::default(), &serde_json::from_value(namespace)?).await?;
    let first = until("the ConfigMap is made", || maps.get_opt("of-owner")).await?;
    // What is owned and goes away comes back.
    maps.delete("of-owner", &DeleteParams::default()).await?;
    until("it comes back", || async { Ok(maps.get_opt("of-owner").await?.filter(|map| map.uid() != first.uid())) })
        .await?;
    let events: Api<CoreEvent> = Api::default_namespaced(client.clone());
    let ours = ListParams::default().fields("reason=Owned,involvedObject.kind=Namespace,involvedObject.name=owner");
    until("the event is there", || async { Ok(events.list(&ours).await?.items.pop()) }).await?;
    // The finalizer holds the namespace until the ConfigMap is gone.
    namespaces.delete("owner", &DeleteParams::default()).await?;
    until("the namespace is gone", || async { Ok(namespaces.get_opt("owner").await?.is_none().then_some(())) }).await?;
    assert!(maps.get_opt("of-owner").await?.is_none());
    drop(stop);
    patiently("the controller stops", running).await??;
    Ok(())
}
