//! Every kubectl from 1.27 on, unmodified: each creates, shows, describes, changes and deletes an object of every kind, by the
//! table that the API server's own tests go by.

use crate::clients::fetched;
use crate::support::{BINARY, Fallible, PATIENCE, end, has};
use crate::table::{ROWS, Row};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

const VERSIONS: std::ops::RangeInclusive<u32> = 27..=35;

/// What these versions describe only in an alpha or beta version of the API, which is not served any more.
const OUTLIVED: &[(&str, std::ops::RangeInclusive<u32>)] =
    &[("IPAddress", 27..=32), ("ServiceCIDR", 29..=32), ("VolumeAttributesClass", 30..=33)];

/// An API server alone: no controller and no kubelet changes what the clients read.
struct Server {
    process: Child,
    dir: tempfile::TempDir,
}

impl Server {
    fn start() -> Fallible<Self> {
        let dir = tempfile::Builder::new().prefix("ph").tempdir_in("/tmp")?;
        let log = fs::File::create(dir.path().join("log"))?;
        let mut command = Command::new(BINARY);
        command.args(["apiserver", "--bind-address=127.0.0.1", "--secure-port=0", "--authorization-mode=RBAC"]);
        // These ask for what controllers make, and wait for what controllers take away.
        command.args(["--disable-admission-plugins", "ServiceAccount,StorageObjectInUseProtection"]);
        command.arg("--data-dir").arg(dir.path().join("d"));
        let process = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let mut server = Server { process, dir };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = fs::read_to_string(server.dir.path().join("log"))?;
            if said.contains("kube-apiserver is running at") {
                return Ok(server);
            }
            if server.process.try_wait()?.is_some() || Instant::now() > deadline {
                return Err(format!("the API server did not start:\n{said}").into());
            }
            std::thread::park_timeout(std::time::Duration::from_millis(50));
        }
    }

    /// What a kubectl prints when it succeeds.
    fn ok(&self, kubectl: &Path, args: &[&str]) -> Fallible<String> {
        let mut command = Command::new("timeout");
        command.arg("240").arg(kubectl).args(args).current_dir(self.dir.path()).env("HOME", self.dir.path());
        let output = command.env("KUBECONFIG", self.dir.path().join("d/admin.kubeconfig")).output()?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            return Err(format!("{} {args:?}: {err}\n{out}", kubectl.display()).into());
        }
        Ok(out.into_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.process, Signal::SIGTERM);
    }
}

/// The object of a row: full, but for what would admit or refuse the others.
fn object(number: usize, row: &Row, n: u32) -> Value {
    // Two versions of one kind are the same objects: each row has a name of its own.
    let own = |text: &str| text.replace("x$N", &format!("x{n}-{number:02}")).replace("$N", &n.to_string());
    let mut object = json!({"apiVersion": row.api_version, "kind": row.kind, "metadata": {"name": own(row.name)}});
    merge(&mut object, tree(&own(row.minimal)));
    if !row.api_version.starts_with("admissionregistration.k8s.io/") {
        merge(&mut object, tree(&own(row.full)));
    }
    object
}

fn tree(text: &str) -> Value {
    let parsed = schema::yaml::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
    let mut json = Vec::new();
    schema::json::encode_value(&parsed, &mut json);
    serde_json::from_slice(&json).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// Kind and name of every item, as they were asked for.
fn identities(items: &[Value]) -> Vec<(&str, &str, &str)> {
    items
        .iter()
        .map(|i| {
            let part = |pointer: &str| i.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            (part("/apiVersion"), part("/kind"), part("/metadata/name"))
        })
        .collect()
}

#[test]
fn every_kubectl_creates_and_reads_every_kind() -> Fallible {
    let server = Server::start()?;
    for (n, minor) in (1..).zip(VERSIONS) {
        let kubectl = fetched(&format!("binaries/kubectl-1.{minor}"))?;
        let objects: Vec<Value> = ROWS.iter().enumerate().map(|(number, row)| object(number, row, n)).collect();
        let names: Vec<&str> = identities(&objects).into_iter().map(|(.., name)| name).collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        fs::write(server.dir.path().join("all.json"), serde_json::to_vec(&list)?)?;
        let run = |line: &str| server.ok(&kubectl, &line.split(' ').collect::<Vec<_>>());

        let created = run("create -f all.json")?;
        assert_eq!(created.lines().filter(|line| line.ends_with(" created")).count(), ROWS.len(), "{created}");
        let read: Value = serde_json::from_str(&run("get -f all.json -o json")?)?;
        let items = read["items"].as_array().ok_or("no items")?;
        assert_eq!(identities(items), identities(&objects), "1.{minor}");
        let mut documents = tree(&run("get -f all.json -o yaml")?);
        assert_eq!(documents["items"].take(), read["items"], "1.{minor}");
        // Of events a table shows names only when it is wide.
        for view in ["get -f all.json -o wide", "get -f all.json -o name"] {
            has(&run(view)?, &names);
        }
        let headings = run("get -f all.json")?
            .lines()
            .filter(|line| line.contains("NAME ") || line.starts_with("LAST SEEN"))
            .count();
        assert!(headings >= ROWS.len() - 3, "{headings} tables");
        let outlived = |item: &Value| OUTLIVED.iter().any(|(kind, by)| item["kind"] == *kind && by.contains(&minor));
        let known: Vec<&Value> = items.iter().filter(|item| !outlived(item)).collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": known});
        fs::write(server.dir.path().join("known.json"), serde_json::to_vec(&list)?)?;
        let described = run("describe -f known.json")?;
        let shown = described.lines().filter(|line| line.starts_with("Name:")).count();
        assert_eq!(shown, known.len(), "1.{minor}:\n{described}");
        let labelled = run("label -f all.json tried=yes")?;
        assert_eq!(labelled.lines().filter(|line| line.ends_with(" labeled")).count(), ROWS.len(), "{labelled}");
        let applied = run("apply --server-side --force-conflicts -f all.json")?;
        assert_eq!(applied.lines().filter(|l| l.ends_with(" serverside-applied")).count(), ROWS.len(), "{applied}");
        has(&run("explain deployment.spec.strategy")?, &["rollingUpdate", "type"]);
        has(&run("api-resources --no-headers -o name")?, &["pods", "deployments.apps", "events.events.k8s.io"]);
        let deleted = run("delete -f all.json --wait=false")?;
        assert_eq!(deleted.lines().filter(|line| line.contains(" deleted")).count(), ROWS.len(), "{deleted}");
        // A namespace is finalized by a controller.
        let left = run("get -f all.json --ignore-not-found -o name")?;
        assert!(left.lines().all(|line| line.starts_with("namespace/")), "{left}");
    }
    explained(&server)
}

/// The documentation of every kind, down to its last field.
fn explained(server: &Server) -> Fallible {
    let newest = fetched(&format!("binaries/kubectl-1.{}", VERSIONS.end()))?;
    for row in ROWS {
        let (group, version) = row.api_version.rsplit_once('/').unwrap_or(("", row.api_version));
        let resource = schema::resource::of_kind(group, version, row.kind).ok_or("no such kind")?;
        let versioned = format!("--api-version={}", row.api_version);
        let text = server.ok(&newest, &["explain", &resource.plural, &versioned, "--recursive"])?;
        has(&text, &[&format!("KIND:       {}", row.kind), "FIELDS:", "metadata", "managedFields"]);
    }
    Ok(())
}
