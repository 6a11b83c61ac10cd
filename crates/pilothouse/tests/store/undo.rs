//! The past of objects as people reach it: kubectl below `/at/`, and `pilothouse store history|diff|restore`.

use crate::server::{BINARY, Server, refused, said, until};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// `pilothouse store` with the rights of the server's administrator.
fn store(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.current_dir(directory).args(["store", "--data-dir=data"]).args(arguments);
    command.output().expect("it runs")
}

/// What there is of some kinds, by name.
fn names(server: &Server, view: &str, kinds: &str) -> Vec<String> {
    let url = said(&server.kubectl(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"]));
    let names = server.kubectl(&["--server", &format!("{url}{view}"), "-n", "shop", "get", kinds, "-o", "name"]);
    said(&names).lines().map(str::to_owned).collect()
}

/// A namespace with two ConfigMaps, a Secret and a Deployment, which is then worked upon; the resource version in between.
fn work(server: &Server) -> String {
    said(&server.kubectl(&["create", "namespace", "shop"]));
    let shop = |arguments: &[&str]| said(&server.kubectl(&[&["-n", "shop"][..], arguments].concat()));
    shop(&["create", "configmap", "a", "--from-literal=greeting=hello"]);
    shop(&["create", "configmap", "b", "--from-literal=greeting=hello"]);
    shop(&["create", "secret", "generic", "s", "--from-literal=password=hidden"]);
    shop(&["create", "deployment", "web", "--image=example.org/web:1", "--replicas=3"]);
    let then = shop(&["get", "deployment", "web", "-o", "jsonpath={.metadata.resourceVersion}"]);
    shop(&["patch", "configmap", "a", "-p", r#"{"data": {"greeting": "good bye"}}"#]);
    shop(&["delete", "configmap", "b"]);
    shop(&["delete", "secret", "s"]);
    shop(&["delete", "deployment", "web"]);
    shop(&["create", "configmap", "c", "--from-literal=made=later"]);
    then
}

#[test]
fn what_was_deleted_is_looked_at_and_brought_back() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path();
    let server = Server::start(path, &[]);
    let then = work(&server);
    let kinds = "configmaps,secrets,deployments";
    let all = ["configmap/a", "configmap/b", "secret/s", "deployment.apps/web"];
    assert_eq!(names(&server, "", kinds), ["configmap/a", "configmap/c"]);
    // The past outlives the process, and a look at its files.
    server.stop();
    said(&store(path, &["snapshot", "save", "snap.db"]));
    let server = Server::start(path, &[]);

    // kubectl, as it is.
    assert_eq!(names(&server, &format!("/at/{then}"), kinds), all);
    let url = said(&server.kubectl(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"]));
    let at = format!("{url}/at/{then}");
    let table = said(&server.kubectl(&["--server", &at, "-n", "shop", "get", "deployment", "web"]));
    assert!(table.lines().nth(1).is_some_and(|line| line.starts_with("web ") && line.contains("0/3")), "{table}");
    let refusal = refused(&server.kubectl(&["--server", &at, "-n", "shop", "delete", "configmap", "a"]));
    assert!(refusal.contains("the past can only be looked at"), "{refusal}");
    let versions =
        said(&server.kubectl(&["--server", &format!("{url}/history"), "-n", "shop", "get", "configmap", "b"]));
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(versions.lines().next().unwrap_or_default()), ["VERSION", "TIME", "CHANGE", "MANAGER"]);
    assert!(versions.lines().nth(1).is_some_and(|line| line.contains("DELETED")), "{versions}");
    let raw = said(&server.kubectl(&["get", "--raw", &format!("/at/{then}/api/v1/namespaces/shop/configmaps/b")]));
    assert!(raw.contains(r#""greeting":"hello""#), "{raw}");

    // The history and the difference.
    let told = said(&store(path, &["history", "cm", "a", "-n", "shop"]));
    let lines: Vec<Vec<String>> = told.lines().map(words).collect();
    assert_eq!(lines.len(), 3, "{told}");
    assert_eq!((&*lines[1][2], &*lines[1][3], &*lines[1][4]), ("MODIFIED", "kubectl-patch", "data.greeting"));
    let diff = said(&store(path, &["diff", "configmap/a", "-n", "shop", "--from", &then]));
    assert!(diff.contains("\n-  greeting: hello\n") && diff.contains("\n+  greeting: good bye\n"), "{diff}");
    let diff = said(&store(path, &["diff", "-n", "shop", "--from", &then, "-o", "json"]));
    let changes: serde_json::Value = serde_json::from_str(&diff).expect("JSON");
    let mut changed: Vec<&str> =
        changes.as_array().into_iter().flatten().filter_map(|c| c["object"].as_str()).collect();
    changed.sort_unstable();
    assert_eq!(changed, ["configmap/a", "configmap/b", "configmap/c", "deployment.apps/web", "secret/s"]);

    // A rehearsal changes nothing; then it is done, and done again it does nothing.
    let rehearsed = said(&store(path, &["restore", "-n", "shop", "--to", &then, "--dry-run", "--prune"]));
    assert!(rehearsed.contains("deployment.apps/web created (dry run)"), "{rehearsed}");
    assert_eq!(names(&server, "", kinds), ["configmap/a", "configmap/c"]);
    let restored = said(&store(path, &["restore", "-n", "shop", "--to", &then]));
    let line = |wanted: &str| assert!(restored.lines().any(|line| line == wanted), "{wanted}: {restored}");
    line("namespace/shop unchanged");
    line("configmap/a configured");
    line("configmap/b created");
    line("secret/s created");
    line("deployment.apps/web created");
    line("configmap/c newer: it was made since then, and --prune deletes it");
    let at_of = |wanted: &str| restored.find(wanted).expect("told");
    assert!(at_of("secret/s created") < at_of("deployment.apps/web created"), "{restored}");
    let shop = |arguments: &[&str]| said(&server.kubectl(&[&["-n", "shop"][..], arguments].concat()));
    assert_eq!(shop(&["get", "configmap", "a", "-o", "jsonpath={.data.greeting}"]), "hello");
    assert_eq!(shop(&["get", "secret", "s", "-o", "jsonpath={.data.password}"]), "aGlkZGVu");
    assert_eq!(shop(&["get", "deployment", "web", "-o", "jsonpath={.spec.replicas}"]), "3");
    let again = said(&store(path, &["restore", "-n", "shop", "--to", &then, "--prune"]));
    assert!(again.contains("deployment.apps/web unchanged") && again.contains("configmap/c deleted"), "{again}");
    assert_eq!(names(&server, "", kinds), all);

    // One object alone, by how long ago it is forgotten.
    shop(&["delete", "configmap", "a"]);
    assert_eq!(said(&store(path, &["restore", "configmap", "a", "-n", "shop", "--to", &then])), "configmap/a created");
    server.stop();
}

#[test]
fn what_cannot_be_brought_back_is_told() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path();
    let server = Server::start(path, &[]);
    let shop = |arguments: &[&str]| said(&server.kubectl(&[&["-n", "default"][..], arguments].concat()));
    shop(&["create", "configmap", "fine", "--from-literal=a=1"]);
    shop(&["create", "deployment", "web", "--image=example.org/web:1"]);
    let then = shop(&["get", "deployment", "web", "-o", "jsonpath={.metadata.resourceVersion}"]);
    shop(&["delete", "configmap", "fine"]);
    shop(&["delete", "deployment", "web"]);
    // Another of the same name, in which what cannot be changed is different.
    shop(&["create", "deployment", "web", "--image=example.org/web:1"]);
    let other = shop(&["get", "deployment", "web", "-o", "json"]).replace(r#""app": "web""#, r#""app": "other""#);
    shop(&["delete", "deployment", "web"]);
    said(&server.feed(&["create", "-f", "-"], &other));
    let partly = store(path, &["restore", "-n", "default", "--to", &then]);
    let told = refused(&partly);
    assert!(told.contains("1 of ") && told.contains("could not be brought back"), "{told}");
    let lines = String::from_utf8_lossy(&partly.stdout).into_owned();
    assert!(lines.contains("configmap/fine created"), "the others are: {lines}");
    let failed = lines.lines().find(|line| line.starts_with("deployment.apps/web failed: "));
    assert!(failed.is_some_and(|line| line.contains("field is immutable")), "{lines}");

    let shown = |arguments: &[&str]| refused(&store(path, arguments));
    let before = "2001-01-01T00:00:00Z";
    let told = shown(&["restore", "configmap", "fine", "--to", before]);
    let wanted =
        format!("pilothouse: configmap/fine: {before} is older than what is kept of configmaps: the oldest is of ");
    assert!(told.starts_with(&wanted), "{told}");
    assert!(shown(&["restore", "configmap", "never", "--to", &then]).contains("did not exist at that moment"));
    assert!(shown(&["history", "nonsense", "x"]).contains("doesn't have a resource type \"nonsense\""));
    assert!(shown(&["history", "lease", "x"]).contains("not found"));
    assert!(shown(&["diff", "--from", &then]).contains("--namespace"));
    assert!(shown(&["diff", "cm", "fine", "--from", "yesterday"]).contains("is no moment"));
    server.stop();

    // Without a past, only that of watches is there; none of it after a restart.
    let server = Server::start(path, &["--undo-horizon=0"]);
    let told = shown(&["diff", "cm", "fine", "--from", "2026-01-31T08:00:00Z"]);
    assert!(told.contains("ask for a resource version"), "{told}");
    server.stop();
}

/// The controllers, ended with the test.
struct Manager(Child);

impl Manager {
    fn start(directory: &Path, server: &Server) -> Self {
        let mut command = Command::new(BINARY);
        command.current_dir(directory).args(["controller-manager", "--secure-port=0", "--leader-elect=false"]);
        command.arg("--kubeconfig").arg(server.kubeconfig());
        let log = std::fs::File::create(directory.join("manager.log")).expect("a log");
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("it starts"))
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_namespace_comes_back_as_a_whole_and_controllers_make_the_rest() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path();
    let server = Server::start(path, &[]);
    let _manager = Manager::start(path, &server);
    let shop = |arguments: &[&str]| server.kubectl(&[&["-n", "shop"][..], arguments].concat());
    said(&server.kubectl(&["create", "namespace", "shop"]));
    said(&server.kubectl(&["label", "namespace", "shop", "team=blue"]));
    said(&shop(&["create", "configmap", "prices", "--from-literal=apple=1"]));
    said(&shop(&["create", "deployment", "web", "--image=example.org/web:1"]));
    said(&shop(&["expose", "deployment", "web", "--port=80"]));
    let address = said(&shop(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"]));
    let pod = || {
        let name = said(&shop(&["get", "pods", "-o", "jsonpath={.items[*].metadata.name}"]));
        (!name.is_empty() && !name.contains(' ')).then_some(name)
    };
    let before = until("a pod is made", pod);
    let then = said(&server.kubectl(&["-n", "shop", "get", "--raw", "/api/v1/namespaces/shop/pods"]));
    let then: serde_json::Value = serde_json::from_str(&then).expect("JSON");
    let then = then["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    said(&server.kubectl(&["delete", "namespace", "shop"]));
    until("it is gone", || server.kubectl(&["get", "namespace", "shop"]).status.code().filter(|code| *code == 1));

    let rehearsed = said(&store(path, &["restore", "-n", "shop", "--to", &then, "--dry-run"]));
    assert!(
        rehearsed.contains("configmap/prices created (dry run): not tried, as its namespace is not there"),
        "{rehearsed}"
    );
    let restored = said(&store(path, &["restore", "-n", "shop", "--to", &then]));
    let told = |wanted: &str| assert!(restored.lines().any(|line| line.starts_with(wanted)), "{wanted}: {restored}");
    told("namespace/shop created");
    told("configmap/prices created");
    told("service/web created");
    told("deployment.apps/web created");
    told(&format!("pod/{before} skipped: ReplicaSet web-"));
    until("controllers make a pod again", || pod().filter(|now| *now != before));
    assert_eq!(said(&shop(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"])), address);
    assert_eq!(said(&server.kubectl(&["get", "namespace", "shop", "-o", "jsonpath={.metadata.labels.team}"])), "blue");
    let again = said(&store(path, &["restore", "-n", "shop", "--to", &then]));
    assert!(!again.contains("created") && !again.contains("failed"), "{again}");
    server.stop();
}
