//! Encryption at rest as an administrator sees it: kubectl on one side, etcdctl on the other.

use crate::server::{BINARY, Server, refused, said, until};
use std::fs;
use std::path::Path;
use std::process::Command;

const FIRST: &str = "aescbc: {keys: [{name: key1, secret: MDEyMzQ1Njc4OWFiY2RlZg==}]}";
const SECOND: &str = "secretbox: {keys: [{name: key2, secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=}]}";
const KEY: &str = "/registry/secrets/default/s";
const FLAG: &str = "--encryption-provider-config=encryption.yaml";
const RELOAD: &str = "--encryption-provider-config-automatic-reload";

fn configure(directory: &Path, providers: &[&str]) {
    let providers: Vec<String> = providers.iter().map(|provider| format!("{{{provider}}}")).collect();
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets, \"*.apps\"]\n  providers: [{}]\n",
        providers.join(", ")
    );
    fs::write(directory.join("new.yaml"), text).expect("written");
    fs::rename(directory.join("new.yaml"), directory.join("encryption.yaml")).expect("renamed");
}

#[test]
fn secrets_are_stored_encrypted_and_their_keys_rotated() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path();
    let plain = Server::start(path, &[]);
    said(&plain.kubectl(&["create", "secret", "generic", "s", "--from-literal=a=hidden"]));
    assert!(String::from_utf8_lossy(&plain.stored(KEY)).contains("aGlkZGVu"));
    plain.stop();

    configure(path, &[FIRST, "identity: {}"]);
    let server = Server::start(path, &[FLAG, RELOAD]);
    let rewrite = || {
        let all = said(&server.kubectl(&["get", "secrets", "-A", "-o", "json"]));
        said(&server.feed(&["replace", "-f", "-"], &all))
    };
    rewrite();
    let stored = server.stored(KEY);
    assert!(stored.starts_with(b"k8s:enc:aescbc:v1:key1:"), "{}", String::from_utf8_lossy(&stored));
    assert_eq!(said(&server.kubectl(&["get", "secret", "s", "-o", "jsonpath={.data.a}"])), "aGlkZGVu");
    said(&server.kubectl(&["create", "deployment", "d", "--image=i"]));
    assert!(server.stored("/registry/deployments/default/d").starts_with(b"k8s:enc:aescbc:v1:key1:"), "*.apps");
    said(&server.kubectl(&["create", "configmap", "c", "--from-literal=a=seen"]));
    assert!(server.stored("/registry/configmaps/default/c").starts_with(b"{"), "no rule is for it");
    assert_eq!(said(&server.kubectl(&["get", "--raw", "/readyz/kms-providers"])), "ok");

    configure(path, &[SECOND, FIRST]);
    until("the new key writes", || {
        rewrite();
        server.stored(KEY).starts_with(b"k8s:enc:secretbox:v1:key2:").then_some(())
    });
    let log = fs::read_to_string(path.join("log")).expect("the log");
    assert!(!log.contains("hidden") && !log.contains("aGlkZGVu") && !log.contains("MDEyMzQ1"), "{log}");
    server.stop();

    // Without its key nothing is shown, and nothing passes for absent.
    configure(path, &[FIRST]);
    let server = Server::start(path, &[FLAG]);
    assert_eq!(
        refused(&server.kubectl(&["get", "secret", "s"])),
        "Error from server (InternalError): Internal error occurred: no matching prefix found"
    );
    assert_eq!(
        refused(&server.kubectl(&["get", "secrets"])),
        format!(
            "Error from server (InternalError): Internal error occurred: unable to transform key \"{KEY}\": no matching prefix found"
        )
    );
    let now = said(&server.kubectl(&["get", "configmap", "c", "-o", "jsonpath={.metadata.resourceVersion}"]));
    // Of all else the past is told, and brought back; what cannot be read is not taken for absent.
    said(&server.kubectl(&["patch", "configmap", "c", "-p", r#"{"data": {"a": "changed"}}"#]));
    let store = |arguments: &[&str]| {
        let mut command = Command::new(BINARY);
        command.current_dir(path).args(["store", "--data-dir=data"]).args(arguments);
        command.output().expect("it runs")
    };
    let diff = store(&["diff", "-n", "default", "--from", &now]);
    let told = String::from_utf8_lossy(&diff.stdout);
    assert!(told.contains("\n-  a: seen\n") && told.contains("\n+  a: changed\n"), "{told}");
    assert!(!told.contains("secret"), "{told}");
    assert!(refused(&diff).contains("not compared, as the API server cannot read them: secrets"), "{diff:?}");
    let restored = store(&["restore", "-n", "default", "--to", &now, "--prune"]);
    let told = String::from_utf8_lossy(&restored.stdout);
    assert!(told.contains("configmap/c configured\n") && told.contains("secrets failed: "), "{told}");
    refused(&restored);
    assert_eq!(said(&server.kubectl(&["get", "configmap", "c", "-o", "jsonpath={.data.a}"])), "seen");
    server.stop();

    // What can't be used is told before anything is served.
    configure(path, &["aescbc: {keys: [{name: a, secret: c2hvcnQ=}]}"]);
    let mut command = Command::new(BINARY);
    command.current_dir(path).args(["apiserver", "--secure-port=0", "--data-dir=data", FLAG]);
    let told = refused(&command.output().expect("it runs"));
    let wanted = "resources[0].providers[0].aescbc.keys[0].secret: Invalid value: \"REDACTED\": secret is not of the expected length, got 5, expected one of [16 24 32]";
    assert!(told.contains(wanted) && !told.contains("c2hvcnQ"), "{told}");
}
