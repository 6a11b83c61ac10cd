//! Scenario 5, kubectl's verbs that show: what they print is what they print against upstream.

use crate::support::machines::NODE;
use crate::support::{Cluster, Fallible, has, squeezed};
use serde_json::Value;

#[test]
fn objects_are_shown() -> Fallible {
    let cluster = Cluster::running()?;
    let watch = cluster.follow("get pods -w")?;
    cluster.ok("create deployment web --image=nginx:1.7.9 --replicas=2")?;
    cluster.ok("expose deployment web --port=80")?;
    cluster.ok("rollout status deployment/web --timeout=90s")?;
    got(&cluster)?;
    described(&cluster)?;
    explained(&cluster)?;
    discovered(&cluster)?;
    may(&cluster)?;
    listed_events(&cluster)?;
    let seen = watch.until(|t| t.contains("Running"))?;
    has(&seen, &["NAME", "READY", "STATUS", "RESTARTS", "AGE", "Pending", "ContainerCreating"]);
    Ok(())
}

fn got(cluster: &Cluster) -> Fallible {
    let table = squeezed(&cluster.ok("get deployments")?);
    assert_eq!(table[0], "NAME READY UP-TO-DATE AVAILABLE AGE");
    assert!(table[1].starts_with("web 2/2 2 2 "), "{table:?}");
    let table = squeezed(&cluster.ok("get deployments -o wide")?);
    assert_eq!(table[0], "NAME READY UP-TO-DATE AVAILABLE AGE CONTAINERS IMAGES SELECTOR");
    assert!(table[1].ends_with("nginx nginx:1.7.9 app=web"), "{table:?}");
    let table = squeezed(&cluster.ok("get pods -o wide --show-labels")?);
    assert_eq!(table[0], "NAME READY STATUS RESTARTS AGE IP NODE NOMINATED NODE READINESS GATES LABELS");
    assert!(
        table[1].contains(" 1/1 Running 0 ") && table[1].contains(" node-1 <none> <none> app=web,pod-template-hash=")
    );
    let table = squeezed(&cluster.ok("get service web")?);
    assert_eq!(table[0], "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE");
    assert!(table[1].starts_with("web ClusterIP 10.96.") && table[1].contains(" <none> 80/TCP "), "{table:?}");
    let table = squeezed(&cluster.ok("get node node-1 -o wide")?);
    assert!(table[0].starts_with("NAME STATUS ROLES AGE VERSION INTERNAL-IP EXTERNAL-IP OS-IMAGE KERNEL-VERSION"));
    assert!(
        table[1].starts_with("node-1 Ready <none> ") && table[1].contains(&format!(" {NODE} <none> ")),
        "{table:?}"
    );
    let table = squeezed(&cluster.ok("get namespaces")?);
    assert_eq!(table[0], "NAME STATUS AGE");
    let names: Vec<&str> = table[1..].iter().filter_map(|l| l.split(' ').next()).collect();
    assert_eq!(names, ["default", "kube-node-lease", "kube-public", "kube-system"]);
    has(&cluster.ok("get all")?, &["pod/web-", "service/web ", "deployment.apps/web ", "replicaset.apps/web-"]);
    has(&cluster.ok("get deploy,rs -o name")?, &["deployment.apps/web", "replicaset.apps/web-"]);

    let object: Value = serde_json::from_str(&cluster.ok("get deployment web -o json")?)?;
    assert_eq!(object["apiVersion"], "apps/v1");
    assert_eq!(object["spec"]["strategy"]["rollingUpdate"]["maxSurge"], "25%");
    assert_eq!(object["metadata"]["generation"], 1, "the controller changes no spec");
    assert_eq!(object["metadata"]["managedFields"], Value::Null, "shown only when asked for");
    let list: Value = serde_json::from_str(&cluster.ok("get pods -o json")?)?;
    assert_eq!((list["kind"].as_str(), list["items"].as_array().map(Vec::len)), (Some("List"), Some(2)));
    has(
        &cluster.ok("get deployment web -o yaml")?,
        &["apiVersion: apps/v1\nkind: Deployment\nmetadata:\n", "  replicas: 2\n"],
    );

    assert_eq!(cluster.ok("get pods -o jsonpath='{.items[*].spec.containers[0].image}'")?, "nginx:1.7.9 nginx:1.7.9");
    let columns =
        "get pods -o custom-columns=NAME:.metadata.name,PHASE:.status.phase,NODE:.spec.nodeName,NONE:.spec.absent";
    let table = squeezed(&cluster.ok(columns)?);
    assert_eq!(table[0], "NAME PHASE NODE NONE");
    assert!(table[1].ends_with(" Running node-1 <none>"), "{table:?}");
    assert_eq!(cluster.ok("get pods -o go-template='{{len .items}}'")?, "2");
    assert_eq!(cluster.ok("get pods -l app!=web -o name")?, "");
    assert_eq!(
        cluster.ok("get pods --field-selector=status.phase=Running,spec.nodeName=node-1 -o name")?.lines().count(),
        2
    );
    assert_eq!(cluster.ok("get pods --chunk-size=1 -o name")?.lines().count(), 2);
    let sorted =
        cluster.ok("get namespaces --sort-by=.metadata.name --no-headers -o custom-columns=N:.metadata.name")?;
    assert!(sorted.starts_with("default"));
    has(&cluster.ok("get --raw /readyz")?, &["ok"]);
    has(&cluster.ok("get --raw '/readyz?verbose'")?, &["readyz check passed"]);

    has(&cluster.refused("get pod absent")?, &["Error from server (NotFound): pods \"absent\" not found"]);
    has(&cluster.refused("get absents")?, &["error: the server doesn't have a resource type \"absents\""]);
    has(&cluster.refused("get pods --field-selector=spec.absent=1")?, &["field label not supported: spec.absent"]);
    has(&cluster.refused("get pods -l 'a=b=c'")?, &["found '=', expected: ',' or 'end of string'"]);
    let empty = cluster.kubectl("get pods -n kube-public").output()?;
    assert_eq!(String::from_utf8_lossy(&empty.stderr).trim(), "No resources found in kube-public namespace.");
    Ok(())
}

fn described(cluster: &Cluster) -> Fallible {
    let text = cluster.ok("describe deployment web")?;
    has(&text, &["Replicas:               2 desired | 2 updated | 2 total | 2 available | 0 unavailable"]);
    has(&text, &["StrategyType:           RollingUpdate", "NewReplicaSet:   web-", "ScalingReplicaSet"]);
    let text = cluster.ok("describe pod -l app=web")?;
    has(&text, &["Node:             node-1/192.0.2.1", "State:          Running", "Controlled By:  ReplicaSet/web-"]);
    has(
        &text,
        &[
            "Successfully assigned default/web-",
            "Pulling image \"nginx:1.7.9\"",
            "QoS Class:                   BestEffort",
        ],
    );
    has(&cluster.ok("describe service web")?, &["TargetPort:               80/TCP", ":80,10.244.0."]);
    let text = cluster.ok("describe node node-1")?;
    has(&text, &["KubeletReady", "InternalIP:  192.0.2.1", "Non-terminated Pods:          (2 in total)", "PodCIDR:"]);
    has(&cluster.ok("describe namespace default")?, &["Status:       Active", "No resource quota."]);
    has(&cluster.refused("describe pod absent")?, &["pods \"absent\" not found"]);
    Ok(())
}

fn explained(cluster: &Cluster) -> Fallible {
    has(
        &cluster.ok("explain deployment.spec.strategy")?,
        &["GROUP:      apps", "KIND:       Deployment", "rollingUpdate"],
    );
    let text = cluster.ok("explain pod.spec.containers.imagePullPolicy")?;
    has(&text, &["FIELD: imagePullPolicy <string>", "Image pull policy. One of Always, Never, IfNotPresent."]);
    has(&cluster.ok("explain service --recursive")?, &["nodePort\t<integer>", "clusterIP\t<string>"]);
    has(&cluster.refused("explain pod.spec.absent")?, &["error: field \"absent\" does not exist"]);
    Ok(())
}

fn discovered(cluster: &Cluster) -> Fallible {
    let resources = squeezed(&cluster.ok("api-resources")?);
    for row in [
        "NAME SHORTNAMES APIVERSION NAMESPACED KIND",
        "pods po v1 true Pod",
        "deployments deploy apps/v1 true Deployment",
        "horizontalpodautoscalers hpa autoscaling/v2 true HorizontalPodAutoscaler",
        "customresourcedefinitions crd,crds apiextensions.k8s.io/v1 false CustomResourceDefinition",
        "subjectaccessreviews authorization.k8s.io/v1 false SubjectAccessReview",
    ] {
        assert!(resources.iter().any(|r| r == row), "{row} is missing in {resources:#?}");
    }
    let wide = squeezed(&cluster.ok("api-resources --namespaced=false --api-group=storage.k8s.io -o wide")?);
    let verbs = "create,delete,deletecollection,get,list,patch,update,watch";
    assert!(
        wide.iter()
            .any(|r| r.starts_with("storageclasses sc storage.k8s.io/v1 false StorageClass ") && r.contains(verbs))
    );
    let versions = cluster.ok("api-versions")?;
    assert!(versions.lines().any(|l| l == "v1") && versions.lines().any(|l| l == "rbac.authorization.k8s.io/v1"));
    let info = cluster.ok("cluster-info")?;
    has(
        &info,
        &["Kubernetes control plane", "is running at", "/api/v1/namespaces/kube-system/services/kube-dns:dns/proxy"],
    );
    let version: Value = serde_json::from_str(&cluster.ok("version -o json")?)?;
    assert_eq!(
        (version["serverVersion"]["major"].as_str(), version["serverVersion"]["minor"].as_str()),
        (Some("1"), Some("36"))
    );
    Ok(())
}

fn may(cluster: &Cluster) -> Fallible {
    assert_eq!(cluster.ok("auth can-i create deployments")?, "yes");
    let no = cluster.kubectl("auth can-i delete nodes --as=ann").output()?;
    assert_eq!((String::from_utf8_lossy(&no.stdout).trim(), no.status.code()), ("no", Some(1)));
    has(
        &cluster.refused("get pods --as=ann")?,
        &[
            "Error from server (Forbidden): pods is forbidden: User \"ann\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"",
        ],
    );
    cluster.ok("create rolebinding ann --clusterrole=view --user=ann")?;
    cluster.until("auth can-i list pods --as=ann", |t| t == "yes")?;
    has(&cluster.ok("auth can-i --list --as=ann")?, &["Resources", "pods/log", "[get list watch]"]);
    has(&cluster.ok("auth whoami")?, &["Username", "kubernetes-admin", "system:masters"]);
    Ok(())
}

fn listed_events(cluster: &Cluster) -> Fallible {
    let events = cluster.ok("events --for deployment/web")?;
    has(&events, &["LAST SEEN", "ScalingReplicaSet", "Deployment/web", "Scaled up replica set web-"]);
    let events = squeezed(&cluster.ok("get events --field-selector reason=Scheduled")?);
    assert_eq!(events[0], "LAST SEEN TYPE REASON OBJECT MESSAGE");
    assert!(events[1].contains(" Normal Scheduled pod/web-"), "{events:?}");
    has(&cluster.ok("events --types=Normal -A")?, &["NAMESPACE", "Starting kubelet."]);
    Ok(())
}
