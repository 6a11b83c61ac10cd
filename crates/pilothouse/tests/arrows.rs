//! The arrows between the crates are data, and only these are allowed.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Crate → what it may import. `pilothouse` may import all.
const ALLOWED: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("schema", &["api"]),
    ("store", &["api"]),
    ("apiserver", &["api", "schema", "store"]),
    ("client", &["api"]),
    ("memory", &[]),
    ("scheduler", &["api", "client"]),
    ("controllers", &["api", "client"]),
    ("kubelet", &["api", "client", "cri"]),
    ("cri", &[]),
    ("runtime", &["cri", "network"]),
    ("network", &[]),
    ("proxy", &["api", "client", "network"]),
    ("dns", &["api", "client"]),
    ("kubectl", &["api", "schema"]),
    ("dashboard", &["api"]),
];

fn ours(package: &str) -> Option<&str> {
    if package == "pilothouse" { Some(package) } else { package.strip_prefix("pilothouse-") }
}

#[test]
fn crates_import_only_what_the_design_allows() -> Result<(), Box<dyn std::error::Error>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version=1", "--offline", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        ALLOWED.iter().map(|(name, to)| (*name, to.iter().copied().collect())).collect();
    let packages = metadata["packages"].as_array().ok_or("cargo metadata lists packages")?;
    assert!(packages.len() > 10, "all crates are seen");
    for package in packages {
        let name = ours(package["name"].as_str().ok_or("a package has a name")?).ok_or("a package of ours")?;
        if name == "pilothouse" {
            continue;
        }
        let allowed = allowed.get(name).ok_or_else(|| format!("crate {name} is not in the table of arrows"))?;
        for dependency in package["dependencies"].as_array().ok_or("a package has dependencies")? {
            let target = dependency["name"].as_str().and_then(ours);
            // A crate's suite may be used by its own tests.
            if let Some(target) = target.filter(|t| *t != name) {
                assert!(allowed.contains(target), "{name} must not import {target}");
            }
        }
    }
    Ok(())
}
