//! An unmodified Helm: a chart of the test's own is installed, tested, upgraded, rolled back and uninstalled.

use crate::clients::fetched;
use crate::support::{Cluster, Fallible, has, wait};
use serde_json::Value;
use std::fs;
use std::process::Command;

/// Every file of the chart `shop`.
const CHART: &[(&str, &str)] = &[
    (
        "Chart.yaml",
        "{apiVersion: v2, name: shop, version: 0.1.0, appVersion: '1.0', description: A shop, kubeVersion: '>=1.36.0-0'}\n",
    ),
    (
        "values.yaml",
        "{image: 'nginx:1.7.9', replicas: 2, greeting: hello, migrate: 'true', ready: '/', crashes: false}\n",
    ),
    (
        "values.schema.json",
        r#"{"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "properties": {"replicas": {"type": "integer", "minimum": 0}}}"#,
    ),
    ("templates/_names.tpl", "{{- define \"shop.labels\" -}}\napp: {{ .Release.Name }}\n{{- end -}}\n"),
    (
        "templates/NOTES.txt",
        "{{ .Release.Name }} runs {{ .Values.replicas }} replicas on {{ .Capabilities.KubeVersion.Version }}.\n",
    ),
    (
        "templates/config.yaml",
        r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: {{ .Release.Name }}, labels: {{ "{" }}{{ include "shop.labels" . }}}}
data: {index.html: "{{ .Values.greeting }} from revision {{ .Release.Revision }}"}
"#,
    ),
    (
        "templates/web.yaml",
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}, labels: {{ "{" }}{{ include "shop.labels" . }}}}
spec:
  replicas: {{ .Values.replicas }}
  progressDeadlineSeconds: 600
  selector: {matchLabels: {{ "{" }}{{ include "shop.labels" . }}}}
  template:
    metadata:
      labels: {{ "{" }}{{ include "shop.labels" . }}}
      annotations: {checksum/config: {{ include (print $.Template.BasePath "/config.yaml") . | sha256sum }}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: web
        image: {{ .Values.image }}
        ports: [{name: http, containerPort: 80}]
        readinessProbe: {httpGet: {path: {{ .Values.ready }}, port: http}, periodSeconds: 1}
        volumeMounts: [{name: pages, mountPath: /usr/share/nginx/html}]
      volumes: [{name: pages, configMap: {name: {{ .Release.Name }}}}]
---
apiVersion: v1
kind: Service
metadata: {name: {{ .Release.Name }}, labels: {{ "{" }}{{ include "shop.labels" . }}}}
spec: {selector: {{ "{" }}{{ include "shop.labels" . }}}, ports: [{name: http, port: 80, targetPort: http}]}
{{- if gt (int .Values.replicas) 2 }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: {{ .Release.Name }}}
spec: {minAvailable: 1, selector: {matchLabels: {{ "{" }}{{ include "shop.labels" . }}}}}
{{- end }}
"#,
    ),
    (
        "templates/hooks.yaml",
        r#"
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ .Release.Name }}-migrate
  annotations: {helm.sh/hook: "pre-install,pre-upgrade", helm.sh/hook-delete-policy: before-hook-creation}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 0
      containers: [{name: migrate, image: busybox, command: [sh, -c, "echo migrating {{ .Release.Revision }}; {{ .Values.migrate }}"]}]
---
apiVersion: v1
kind: Pod
metadata:
  name: {{ .Release.Name }}-test
  annotations: {helm.sh/hook: test, helm.sh/hook-delete-policy: before-hook-creation}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers: [{name: ask, image: busybox, command: [sh, -c, "wget -qO- http://{{ .Release.Name }} | grep '{{ .Values.greeting }}'"]}]
"#,
    ),
];

struct Helm<'c> {
    cluster: &'c Cluster,
    program: String,
}

impl Helm<'_> {
    fn command(&self, line: &str) -> Command {
        let mut command = self.cluster.machines.command("timeout");
        command.arg("300").arg(&self.program).args(line.split(' '));
        command.env("KUBECONFIG", self.cluster.data().join("admin.kubeconfig")).env("HOME", self.cluster.dir.path());
        command.current_dir(self.cluster.dir.path());
        command
    }

    fn ok(&self, line: &str) -> Fallible<String> {
        let output = self.command(line).output()?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            return Err(format!("helm {line}: {err}\n{out}\n{}", self.cluster.ok("get pods,events")?).into());
        }
        Ok(out.into_owned())
    }

    fn refused(&self, line: &str) -> Fallible<String> {
        let output = self.command(line).output()?;
        assert!(!output.status.success(), "helm {line} succeeded: {}", String::from_utf8_lossy(&output.stdout));
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// The revisions of a release and how each ended.
    fn history(&self, release: &str) -> Fallible<Vec<(u64, String)>> {
        let said: Value = serde_json::from_str(&self.ok(&format!("history {release} -o json"))?)?;
        let rows = said.as_array().ok_or("no list")?.iter();
        rows.map(|r| {
            Ok((r["revision"].as_u64().ok_or("no revision")?, r["status"].as_str().unwrap_or_default().to_owned()))
        })
        .collect()
    }

    fn page(&self, release: &str) -> Fallible<String> {
        let address = self.cluster.ok(&format!("get service {release} -o jsonpath={{.spec.clusterIP}}"))?;
        self.cluster.machines.ask(&format!("{address}:80"), "/index.html")
    }
}

#[test]
fn helm_installs_upgrades_rolls_back_and_uninstalls() -> Fallible {
    let cluster = Cluster::running()?;
    for (path, text) in CHART {
        let file = cluster.dir.path().join("shop").join(path);
        fs::create_dir_all(file.parent().ok_or("no directory")?)?;
        fs::write(file, text)?;
    }
    let helm = Helm { cluster: &cluster, program: fetched("binaries/helm")?.display().to_string() };
    installed(&helm)?;
    upgraded(&helm)?;
    rolled_back(&helm)?;
    failing(&helm)?;
    uninstalled(&helm)
}

fn installed(helm: &Helm<'_>) -> Fallible {
    has(&helm.ok("lint shop")?, &["1 chart(s) linted, 0 chart(s) failed"]);
    // Nothing is made by a dry run, which the server takes part in.
    has(&helm.ok("install web shop --dry-run=server")?, &["kind: Deployment", "checksum/config: "]);
    has(&helm.cluster.refused("get deployment web")?, &["deployments.apps \"web\" not found"]);
    has(&helm.refused("install web shop --set replicas=-1")?, &["replicas"]);
    let said = helm.ok("install web shop --wait --timeout 240s")?;
    has(&said, &["STATUS: deployed", "REVISION: 1", "web runs 2 replicas on v1.36."]);
    // --wait: everything was ready when it returned.
    assert_eq!(helm.cluster.ok("get deployment web -o jsonpath='{.status.availableReplicas}'")?, "2");
    assert_eq!(helm.page("web")?, "hello from revision 1");
    has(&helm.cluster.ok("logs job/web-migrate")?, &["migrating 1"]);
    has(
        &helm.ok("test web --logs --timeout 240s")?,
        &["TEST SUITE:     web-test", "Phase:          Succeeded", "hello from"],
    );
    has(&helm.ok("status web")?, &["STATUS: deployed", "TEST SUITE:     web-test"]);
    has(&helm.ok("list")?, &["web", "deployed", "shop-0.1.0", "1.0"]);
    has(&helm.ok("get manifest web")?, &["kind: Service", "name: web"]);
    // The release is a Secret of Helm's own type, found by its labels.
    let secrets = "get secrets -l owner=helm,name=web,status=deployed -o jsonpath='{.items[*].type}'";
    assert_eq!(helm.cluster.ok(secrets)?, "helm.sh/release.v1");
    has(&helm.refused("install web shop")?, &["cannot reuse a name that is still in use"]);
    Ok(())
}

fn upgraded(helm: &Helm<'_>) -> Fallible {
    let said = helm.ok("upgrade web shop --set replicas=3,greeting=welcome --wait --timeout 240s")?;
    has(&said, &["REVISION: 2", "STATUS: deployed"]);
    assert_eq!(helm.cluster.ok("get deployment web -o jsonpath='{.status.availableReplicas}'")?, "3");
    wait("the new page is served", || Ok(helm.page("web").is_ok_and(|page| page == "welcome from revision 2")))?;
    // What somebody else has set meanwhile is kept where the chart says nothing of it.
    helm.cluster.ok("annotate service web example.com/note=kept")?;
    has(&helm.ok("upgrade web shop --reuse-values --set image=nginx:alpine --wait --timeout 240s")?, &["REVISION: 3"]);
    assert_eq!(helm.cluster.ok("get service web -o jsonpath='{.metadata.annotations.example\\.com/note}'")?, "kept");
    assert_eq!(helm.cluster.ok("get pdb web -o jsonpath='{.spec.minAvailable}'")?, "1");
    has(&helm.ok("get values web")?, &["greeting: welcome", "image: nginx:alpine"]);
    // Install or upgrade, whichever it is.
    has(&helm.ok("upgrade --install web shop --reset-values --wait --timeout 240s")?, &["REVISION: 4"]);
    has(&helm.cluster.refused("get pdb web")?, &["not found"]);
    Ok(())
}

fn rolled_back(helm: &Helm<'_>) -> Fallible {
    has(&helm.ok("rollback web 2 --wait --timeout 240s")?, &["Rollback was a success"]);
    assert_eq!(helm.cluster.ok("get deployment web -o jsonpath='{.spec.replicas}'")?, "3");
    wait("the old page is served again", || Ok(helm.page("web").is_ok_and(|page| page == "welcome from revision 2")))?;
    let wanted = [(1, "superseded"), (2, "superseded"), (3, "superseded"), (4, "superseded"), (5, "deployed")];
    assert_eq!(helm.history("web")?, wanted.map(|(n, status)| (n, status.to_owned())));
    Ok(())
}

fn failing(helm: &Helm<'_>) -> Fallible {
    // A hook that fails fails the upgrade before anything of it is there.
    let said = helm.refused("upgrade web shop --set migrate=false,replicas=1 --wait --timeout 240s")?;
    has(&said, &["pre-upgrade hooks failed", "Job/default/web-migrate not ready. status: Failed"]);
    assert_eq!(helm.cluster.ok("get deployment web -o jsonpath='{.spec.replicas}'")?, "3");
    assert_eq!(helm.history("web")?.last(), Some(&(6, "failed".to_owned())));
    // One whose pods never become ready is taken back.
    let said = helm.refused("upgrade web shop --set ready=/absent --rollback-on-failure --timeout 20s")?;
    has(&said, &["release web failed, and has been rolled back due to rollback-on-failure being set"]);
    let history = helm.history("web")?;
    assert_eq!(history[6..], [(7, "failed".to_owned()), (8, "deployed".to_owned())]);
    let path = "get deployment web -o jsonpath='{.spec.template.spec.containers[0].readinessProbe.httpGet.path}'";
    assert_eq!(helm.cluster.ok(path)?, "/");
    helm.cluster.ok("rollout status deployment/web --timeout=120s")?;
    // A chart that the server refuses changes nothing, in the server's words.
    let said = helm.refused("upgrade web shop --set image=")?;
    has(&said, &["spec.template.spec.containers[0].image: Required value"]);
    Ok(())
}

fn uninstalled(helm: &Helm<'_>) -> Fallible {
    has(&helm.ok("uninstall web --wait --timeout 240s")?, &["release \"web\" uninstalled"]);
    helm.cluster.until("get deployments,services,configmaps,pods -l app=web -o name", str::is_empty)?;
    has(&helm.refused("status web")?, &["release: not found"]);
    assert_eq!(helm.cluster.ok("get secrets -l owner=helm -o name")?, "");
    has(&helm.ok("list --all-namespaces -o json")?, &["[]"]);
    // Into a namespace that is made for it.
    has(
        &helm.ok("install web shop --namespace apart --create-namespace --set replicas=1 --wait --timeout 240s")?,
        &["NAMESPACE: apart"],
    );
    has(&helm.ok("uninstall web --namespace apart --keep-history")?, &["release \"web\" uninstalled"]);
    has(&helm.ok("history web --namespace apart")?, &["uninstalled"]);
    Ok(())
}
