//! Unmodified clients in other languages, each with a cluster of its own: the programs in `tests/clients` drive it as programs
//! written with these packages do. What they need is fetched by `tests/clients/fetch`, of which `scripts/install test` makes use.

use crate::support::{Cluster, Fallible};
use std::path::{Path, PathBuf};

/// A file of the clients that `tests/clients/fetch` fetches.
pub fn fetched(path: &str) -> Fallible<PathBuf> {
    let cache = std::env::var_os("PILOTHOUSE_TEST_CLIENTS").unwrap_or("/var/cache/pilothouse-test-clients".into());
    let file = Path::new(&cache).join(path);
    if !file.exists() {
        return Err(format!("{} is missing: run scripts/install test", file.display()).into());
    }
    Ok(file)
}

/// Runs a program of `tests/clients` on the cluster's node; all parts that failed are in the error.
fn exercised(program: &Path, script: &str, environment: &[(&str, &str)]) -> Fallible {
    let cluster = Cluster::running()?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients").join(script).canonicalize()?;
    let mut command = cluster.machines.command("timeout");
    command.arg("600").arg(program).arg(script).envs(environment.iter().copied());
    command.env("KUBECONFIG", cluster.data().join("admin.kubeconfig")).env("HOME", cluster.dir.path());
    let output = command.current_dir(cluster.dir.path()).output()?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}:\n{out}\n{err}", output.status);
    print!("{out}");
    Ok(())
}

#[test]
fn python_programs_work() -> Fallible {
    exercised(&fetched("python/bin/python")?, "python/exercise.py", &[("PYTHONDONTWRITEBYTECODE", "1")])
}

#[test]
fn javascript_programs_work() -> Fallible {
    let modules = fetched("javascript/node_modules")?;
    let modules = modules.parent().unwrap_or(&modules).display().to_string();
    exercised(Path::new("node"), "javascript/exercise.mjs", &[("NODE_MODULES", &modules)])
}
