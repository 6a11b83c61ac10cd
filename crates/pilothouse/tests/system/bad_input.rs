//! Bad input, one clear message each: it names the thing and says what to do, and nothing half-done is left.

use crate::support::{BINARY, Cluster, Fallible, has};
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a command that must fail says, with its exit code.
fn refused(command: &mut Command) -> Fallible<(String, i32)> {
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.code() {
        Some(code) if code != 0 => Ok((said, code)),
        code => Err(format!("{command:?} ended with {code:?}: {said}").into()),
    }
}

#[test]
fn wrong_flags_are_named_and_nothing_is_begun() -> Fallible {
    let cluster = Cluster::new()?;
    for (flags, parts) in [
        (["--prot=1", "--json"], ["--prot", "--port"]),
        (["--port=99999", "--json"], ["--port", "99999"]),
        (["--service-cidr=10.96.0.1/16", "--json"], ["--service-cidr", "did you mean 10.96.0.0/16?"]),
        (["--pod-cidr=nonsense", "--json"], ["--pod-cidr", "is not an IPv4 network such as"]),
        (["--service-cidr=10.0.0.0/8", "--pod-cidr=10.1.0.0/16"], ["overlap", "--pod-cidr"]),
        (["--node-name=Not_A_Name", "--json"], ["--node-name", "lowercase RFC 1123 subdomain"]),
        (["--registry-mirror=localhost", "--json"], ["--registry-mirror", "HOST=URL"]),
        (["--bind-address=192.0.2.77", "--port=0"], ["192.0.2.77 is no address of this machine", "--bind-address"]),
        (["--store=sqlite", "--json"], ["\"sqlite\"", "http://host:port"]),
    ] {
        let (said, _) = refused(cluster.pilothouse("up").arg("--no-merge").args(flags))?;
        has(&said, &parts);
        assert!(!cluster.data().exists(), "{flags:?} left {}", cluster.data().display());
    }
    let (said, code) = refused(cluster.machines.command(BINARY).arg("upp"))?;
    has(&said, &["unrecognized subcommand 'upp'", "'up'"]);
    assert_eq!(code, 2);
    let long = format!("/tmp/{}", "x".repeat(100));
    let (said, _) = refused(cluster.machines.command(BINARY).args(["up", "--no-merge", "--data-dir", &long]))?;
    has(&said, &["is too long for the sockets below it: choose one of at most"]);
    let file = cluster.dir.path().join("file");
    fs::write(&file, "")?;
    let (said, _) = refused(cluster.machines.command(BINARY).args(["up", "--no-merge", "--data-dir"]).arg(&file))?;
    has(&said, &[&file.display().to_string(), "is not a directory"]);
    assert!(Path::new(&file).is_file());
    Ok(())
}

#[test]
fn a_taken_port_and_a_lack_of_rights_are_told() -> Fallible {
    let cluster = Cluster::new()?;
    let node = network::netns::Namespace::open(&PathBuf::from("/run/netns").join(format!("lab-{}", cluster.name)))?;
    let taken = node.run(|| std::net::TcpListener::bind("0.0.0.0:0"))??;
    let port = taken.local_addr()?.port();
    let (said, code) = refused(cluster.pilothouse("up").args(["--no-merge", "--port", &port.to_string()]))?;
    has(&said, &[&format!("0.0.0.0:{port} is taken by another program"), "choose another port with --port"]);
    assert_eq!(code, 1);
    assert!(!cluster.data().exists());

    // Somebody without rights; the binary is where they may reach it.
    let binary = cluster.dir.path().join("pilothouse");
    fs::hard_link(BINARY, &binary).or_else(|_| fs::copy(BINARY, &binary).map(drop))?;
    fs::set_permissions(cluster.dir.path(), fs::Permissions::from_mode(0o755))?;
    for command in ["up", "down", "reset"] {
        let mut run = cluster.machines.command("setpriv");
        run.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&binary).arg(command);
        let (said, code) = refused(run.arg("--data-dir").arg(cluster.data()))?;
        has(&said, &["needs root: run it again with sudo"]);
        assert_eq!((said.trim().lines().count(), code), (1, 1), "{said}");
    }
    assert!(!cluster.data().exists());
    Ok(())
}

/// The files below a directory with a name that ends so.
fn files(dir: &Path, end: &str) -> Fallible<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir)?.flatten().map(|e| e.path()).collect();
    found.retain(|p| p.to_string_lossy().ends_with(end));
    found.sort();
    Ok(found)
}

#[test]
fn damage_in_the_data_directory_is_told_with_its_place() -> Fallible {
    let mut cluster = Cluster::new()?;
    cluster.up()?;
    cluster.ok("create configmap kept --from-literal=key=a-value-that-is-damaged")?;
    cluster.ok("create configmap later --from-literal=key=value")?;
    cluster.stop(Signal::SIGTERM)?;
    let damaged = |path: &Path, parts: &[&str], damage: &dyn Fn(&mut Vec<u8>)| -> Fallible {
        let good = fs::read(path)?;
        let mut bad = good.clone();
        damage(&mut bad);
        fs::write(path, &bad)?;
        let (said, code) = refused(cluster.pilothouse("up").args(["--port=0", "--no-merge"]))?;
        has(&said, parts);
        has(&said, &[&path.display().to_string()]);
        assert_eq!(code, 1);
        assert_eq!(fs::read(path)?, bad, "what is damaged is left for whoever looks at it");
        Ok(fs::write(path, &good)?)
    };
    let store = cluster.data().join("store");
    let logs = files(&store, ".seg")?;
    let log = logs.last().ok_or_else(|| format!("no log in {}", store.display()))?.clone();
    damaged(&log, &["damaged"], &|bytes| {
        let at = bytes.windows(23).position(|w| w == b"a-value-that-is-damaged").unwrap_or(bytes.len() / 2);
        bytes[at] ^= 0x40;
    })?;
    for (file, parts) in
        [("ca.crt", ["ca.crt", "certificate"]), ("ca.key", ["ca.key", "key"]), ("sa.key", ["sa.key", "key"])]
    {
        damaged(&cluster.data().join("pki").join(file), &parts, &|bytes| bytes.truncate(40))?;
    }
    // Mended, all is there.
    cluster.up()?;
    assert_eq!(cluster.ok("get configmap kept -o jsonpath='{.data.key}'")?, "a-value-that-is-damaged");
    Ok(())
}

#[test]
fn invalid_manifests_are_refused_by_field() -> Fallible {
    let mut cluster = Cluster::new()?;
    cluster.up()?;
    for (manifest, parts) in [
        (
            "{apiVersion: v1, kind: Pod, metadata: {name: bad}, spec: {containers: [{name: main, image: x, imagge: y}]}}",
            ["unknown field \"spec.containers[0].imagge\"", "strict decoding error"],
        ),
        (
            "{apiVersion: v1, kind: Pod, metadata: {name: bad}, spec: {containers: [{name: Main, image: x}]}}",
            ["spec.containers[0].name: Invalid value: \"Main\"", "RFC 1123 label"],
        ),
        (
            "{apiVersion: v1, kind: Pod, metadata: {name: bad}, spec: {containers: []}}",
            ["spec.containers: Required value", "The Pod \"bad\" is invalid"],
        ),
        (
            "{apiVersion: v1, kind: Pod, metadata: {name: bad}, spec: {containers: [{name: main, image: x, resources: {requests: {memory: 2Gi}, limits: {memory: 1Gi}}}]}}",
            [
                "spec.containers[0].resources.requests: Invalid value: \"2Gi\"",
                "must be less than or equal to memory limit of 1Gi",
            ],
        ),
        (
            "{apiVersion: apps/v1, kind: Deployment, metadata: {name: bad}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: c}}, spec: {containers: [{name: main, image: x}]}}}}",
            [
                "spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}",
                "`selector` does not match template `labels`",
            ],
        ),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: bad}, spec: {ports: [{port: 70000}]}}",
            ["spec.ports[0].port: Invalid value: 70000", "must be between 1 and 65535, inclusive"],
        ),
        (
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: bad}, data: {a: [1]}}",
            [
                "cannot unmarshal array into Go struct field ConfigMap.data of type string",
                "Error from server (BadRequest)",
            ],
        ),
        ("{apiVersion: v1, kind: Pod", ["error parsing STDIN", "error:"]),
    ] {
        let output = cluster.feed("create -f -", manifest)?;
        assert_eq!(output.status.code(), Some(1), "{manifest}");
        has(&String::from_utf8_lossy(&output.stderr), &parts);
    }
    for kind in ["pod", "deployment", "service", "configmap"] {
        has(&cluster.refused(&format!("get {kind} bad"))?, &["not found"]);
    }
    // Unknown fields are told as asked.
    let unknown = "{apiVersion: v1, kind: ConfigMap, metadata: {name: lax}, dataa: {a: b}}";
    let output = cluster.feed("create --validate=warn -f -", unknown)?;
    has(&String::from_utf8_lossy(&output.stderr), &["Warning: unknown field \"dataa\""]);
    assert!(output.status.success());
    let output = cluster.feed("replace --validate=ignore -f -", unknown)?;
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");

    // An image that is none.
    let archive = cluster.dir.path().join("garbage.tar");
    fs::write(&archive, vec![7; 4096])?;
    let (said, code) = refused(cluster.pilothouse("image load").arg(&archive))?;
    has(&said, &["garbage.tar"]);
    assert_eq!(code, 1);
    Ok(())
}
