//! Scenario 5, kubectl's verbs that change objects; what they print is what they print against upstream.

use crate::support::{Cluster, Fallible, has, squeezed};
use std::fs;
use std::os::unix::fs::PermissionsExt;

const CONFIG: &str = "{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, data: {colour: red, size: '1'}}";

#[test]
fn objects_are_made_changed_and_removed() -> Fallible {
    let cluster = Cluster::running()?;
    created(&cluster)?;
    applied_by_the_client(&cluster)?;
    applied_by_the_server(&cluster)?;
    changed_in_place(&cluster)?;
    edited(&cluster)?;
    workloads(&cluster)?;
    removed(&cluster)
}

fn created(cluster: &Cluster) -> Fallible {
    for (line, said) in [
        ("create namespace made", "namespace/made created"),
        ("create configmap made --from-literal=a=b -n made", "configmap/made created"),
        ("create secret generic made --from-literal=password=secret -n made", "secret/made created"),
        ("create serviceaccount made -n made", "serviceaccount/made created"),
        ("create role made --verb=get --resource=pods -n made", "role.rbac.authorization.k8s.io/made created"),
        (
            "create rolebinding made --role=made --serviceaccount=made:made -n made",
            "rolebinding.rbac.authorization.k8s.io/made created",
        ),
        ("create clusterrole made --verb=list --resource=nodes", "clusterrole.rbac.authorization.k8s.io/made created"),
        (
            "create clusterrolebinding made --clusterrole=made --user=ann",
            "clusterrolebinding.rbac.authorization.k8s.io/made created",
        ),
        ("create quota made --hard=pods=3 -n made", "resourcequota/made created"),
        ("create service clusterip made --tcp=80:8080 -n made", "service/made created"),
        ("create service externalname named --external-name=example.org -n made", "service/named created"),
        ("create ingress made --rule=example.org/*=made:80 -n made", "ingress.networking.k8s.io/made created"),
        ("create job made --image=busybox -n made -- true", "job.batch/made created"),
        ("create cronjob made --image=busybox --schedule='*/5 * * * *' -n made -- true", "cronjob.batch/made created"),
        (
            "create poddisruptionbudget made --selector=a=b --min-available=1 -n made",
            "poddisruptionbudget.policy/made created",
        ),
        ("create priorityclass made --value=7", "priorityclass.scheduling.k8s.io/made created"),
        ("create deployment dry --image=nginx --dry-run=server", "deployment.apps/dry created (server dry run)"),
        ("create deployment dry --image=nginx --dry-run=client -o name", "deployment.apps/dry"),
    ] {
        assert_eq!(cluster.ok(line)?, said, "{line}");
    }
    let token = cluster.ok("create token made -n made")?;
    assert_eq!(token.split('.').count(), 3, "a token is a JWT");
    has(&cluster.refused("get deployment dry")?, &["Error from server (NotFound): deployments.apps \"dry\" not found"]);
    has(
        &cluster.refused("create namespace made")?,
        &["Error from server (AlreadyExists): namespaces \"made\" already exists"],
    );
    assert_eq!(cluster.ok("get secret made -n made -o jsonpath='{.data.password}'")?, "c2VjcmV0");
    Ok(())
}

fn applied_by_the_client(cluster: &Cluster) -> Fallible {
    assert_eq!(cluster.apply(CONFIG)?, "configmap/settings created");
    assert_eq!(cluster.apply(CONFIG)?, "configmap/settings unchanged");
    let other = CONFIG.replace("red", "green").replace(", size: '1'", "");
    // diff says what would change, and ends with 1.
    let diff = cluster.feed("diff -f -", &other)?;
    assert_eq!(diff.status.code(), Some(1), "{diff:?}");
    has(&String::from_utf8_lossy(&diff.stdout), &["-  colour: red", "+  colour: green", "-  size: \"1\""]);
    assert_eq!(cluster.fed("apply -f - --dry-run=server", &other)?, "configmap/settings configured (server dry run)");
    assert_eq!(cluster.apply(&other)?, "configmap/settings configured");
    // What left the manifest left the object; what somebody else set stays.
    cluster.ok("patch configmap settings -p '{\"data\":{\"other\":\"kept\"}}'")?;
    cluster.apply(&other.replace("green", "blue"))?;
    assert_eq!(cluster.ok("get configmap settings -o jsonpath='{.data}'")?, "{\"colour\":\"blue\",\"other\":\"kept\"}");
    assert_eq!(cluster.feed("diff -f -", &other.replace("green", "blue"))?.status.code(), Some(0));
    has(&cluster.ok("apply view-last-applied configmap settings")?, &["colour: blue"]);
    Ok(())
}

fn applied_by_the_server(cluster: &Cluster) -> Fallible {
    let (mine, theirs) =
        (CONFIG.replace("settings", "owned"), CONFIG.replace("settings", "owned").replace("red", "green"));
    let apply = "apply --server-side --field-manager=mine -f -";
    assert_eq!(cluster.fed(apply, &mine)?, "configmap/owned serverside-applied");
    let refused = cluster.feed("apply --server-side --field-manager=theirs -f -", &theirs)?;
    assert!(!refused.status.success());
    has(
        &String::from_utf8_lossy(&refused.stderr),
        &["error: Apply failed with 1 conflict: conflict with \"mine\": .data.colour", "--force-conflicts"],
    );
    cluster.fed("apply --server-side --field-manager=theirs --force-conflicts -f -", &theirs)?;
    let managers = "get configmap owned --show-managed-fields -o jsonpath='{range .metadata.managedFields[*]}{.manager} {.operation};{end}'";
    assert_eq!(cluster.ok(managers)?, "mine Apply;theirs Apply;");
    // What only one applied goes when they no longer do.
    cluster.fed(
        apply,
        &mine.replace("colour: red, ", "").replace(", size: '1'", "").replace("size: '1'", "mine: 'yes'"),
    )?;
    assert_eq!(
        cluster.ok("get configmap owned -o jsonpath='{.data}'")?,
        "{\"colour\":\"green\",\"mine\":\"yes\",\"size\":\"1\"}"
    );
    Ok(())
}

fn changed_in_place(cluster: &Cluster) -> Fallible {
    for (line, said) in [
        ("label configmap settings tier=front", "configmap/settings labeled"),
        ("label configmap settings tier=back --overwrite", "configmap/settings labeled"),
        ("label configmap settings tier-", "configmap/settings unlabeled"),
        ("annotate configmap settings note='with care'", "configmap/settings annotated"),
        ("annotate configmap settings note-", "configmap/settings annotated"),
        ("patch configmap settings -p '{\"data\":{\"colour\":\"black\"}}'", "configmap/settings patched"),
        ("patch configmap settings -p '{\"data\":{\"colour\":\"black\"}}'", "configmap/settings patched (no change)"),
        (
            "patch configmap settings --type=json -p '[{\"op\":\"remove\",\"path\":\"/data/other\"}]'",
            "configmap/settings patched",
        ),
        (
            "patch configmap settings --type=merge -p '{\"data\":{\"size\":null}}'",
            "configmap/settings patched (no change)",
        ),
    ] {
        assert_eq!(cluster.ok(line)?, said, "{line}");
    }
    cluster.ok("label configmap settings tier=front")?;
    has(
        &cluster.refused("label configmap settings tier=back")?,
        &["'tier' already has a value (front), and --overwrite is false"],
    );
    has(
        &cluster.refused(
            "patch configmap settings --type=json -p '[{\"op\":\"test\",\"path\":\"/data/colour\",\"value\":\"red\"}]'",
        )?,
        &["The request is invalid: the server rejected our request due to an error in our request"],
    );
    // replace with a version that is not the last is a conflict.
    let old = cluster.ok("get configmap settings -o yaml")?;
    cluster.ok("annotate configmap settings moved=on")?;
    let refused = cluster.feed("replace -f -", &old)?;
    has(
        &String::from_utf8_lossy(&refused.stderr),
        &["(Conflict)", "the object has been modified; please apply your changes to the latest version and try again"],
    );
    Ok(())
}

/// An editor that is a script, as EDITOR may be.
fn edited(cluster: &Cluster) -> Fallible {
    let editor = cluster.dir.path().join("editor");
    let edit = |script: &str, line: &str| -> Fallible<std::process::Output> {
        fs::write(&editor, format!("#!/bin/sh\n{script}\n"))?;
        fs::set_permissions(&editor, fs::Permissions::from_mode(0o755))?;
        Ok(cluster.kubectl(line).env("KUBE_EDITOR", &editor).output()?)
    };
    let output = edit("sed -i 's/colour: black/colour: white/' \"$1\"", "edit configmap settings")?;
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "configmap/settings edited", "{output:?}");
    assert_eq!(cluster.ok("get configmap settings -o jsonpath='{.data.colour}'")?, "white");
    let output = edit("true", "edit configmap settings")?;
    has(&String::from_utf8_lossy(&output.stderr), &["Edit cancelled, no changes made."]);
    Ok(())
}

fn workloads(cluster: &Cluster) -> Fallible {
    for (line, said) in [
        ("create deployment web --image=nginx --replicas=2", "deployment.apps/web created"),
        (
            "run single --image=nginx --port=80 --labels=run=single --expose",
            "service/single created\npod/single created",
        ),
        ("expose deployment web --port=80 --type=NodePort", "service/web exposed"),
        ("expose pod single --port=8080 --target-port=80 --name=other", "service/other exposed"),
        ("set env deployment/web MODE=fast", "deployment.apps/web env updated"),
        ("set resources deployment/web --limits=memory=256Mi", "deployment.apps/web resource requirements updated"),
        ("set serviceaccount deployment/web default", "deployment.apps/web serviceaccount updated"),
        ("set selector service other run=single", "service/other selector updated"),
        (
            "autoscale deployment web --min=2 --max=4 --cpu-percent=80",
            "horizontalpodautoscaler.autoscaling/web autoscaled",
        ),
        ("rollout restart deployment/web", "deployment.apps/web restarted"),
    ] {
        assert_eq!(cluster.ok(line)?, said, "{line}");
    }
    cluster.ok("rollout status deployment/web --timeout=90s")?;
    has(&cluster.ok("set env deployment/web --list")?, &["MODE=fast"]);
    assert_eq!(
        cluster.ok("wait --for=condition=Available deployment/web --timeout=60s")?,
        "deployment.apps/web condition met"
    );
    assert_eq!(
        cluster.ok("wait --for=jsonpath='{.status.phase}'=Running pod/single --timeout=60s")?,
        "pod/single condition met"
    );
    has(
        &cluster.refused("wait --for=delete pod/single --timeout=1s")?,
        &["timed out waiting for the condition on pods/single"],
    );
    let ports = squeezed(&cluster.ok("get service web other --no-headers")?);
    assert!(ports.iter().any(|l| l.starts_with("web NodePort 10.96.") && l.contains(" 80:3")), "{ports:?}");
    assert!(ports.iter().any(|l| l.starts_with("other ClusterIP 10.96.") && l.contains(" 8080/TCP")), "{ports:?}");
    Ok(())
}

fn removed(cluster: &Cluster) -> Fallible {
    assert_eq!(cluster.ok("delete configmap settings")?, "configmap \"settings\" deleted");
    has(
        &cluster.refused("delete configmap settings")?,
        &["Error from server (NotFound): configmaps \"settings\" not found"],
    );
    assert_eq!(cluster.ok("delete configmap settings --ignore-not-found")?, "");
    // Orphans stay, others go with their owner.
    let sets = cluster.ok("get replicasets -o name")?;
    assert_eq!(cluster.ok("delete deployment web --cascade=orphan")?, "deployment.apps \"web\" deleted");
    assert_eq!(cluster.ok("get replicasets -o name")?, sets);
    cluster.ok("delete replicasets --all --cascade=foreground --timeout=60s")?;
    assert_eq!(cluster.ok("get pods -l app=web -o name")?, "");
    has(&cluster.ok("delete pod single --now")?, &["pod \"single\" deleted"]);
    has(&cluster.ok("delete services --all")?, &["service \"web\" deleted", "service \"kubernetes\" deleted"]);
    // The API's own Service comes back under its own address.
    cluster.until("get service kubernetes -o jsonpath='{.spec.clusterIP}' --ignore-not-found", |t| t == "10.96.0.1")?;
    assert_eq!(cluster.ok("delete namespace made --timeout=60s")?, "namespace \"made\" deleted");
    has(&cluster.refused("get namespace made")?, &["namespaces \"made\" not found"]);
    has(&cluster.refused("delete namespace default")?, &["(Forbidden)", "this namespace may not be deleted"]);
    Ok(())
}
