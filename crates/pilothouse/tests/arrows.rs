//! The arrows between the crates are data, and only these are allowed; what comes from elsewhere is in ARCHITECTURE.md's list.

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

/// What cargo says of our packages.
fn packages() -> Result<Vec<serde_json::Value>, Box<dyn std::error::Error>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version=1", "--offline", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata lists packages")?;
    assert!(packages.len() > 10, "all crates are seen");
    Ok(packages.clone())
}

#[test]
fn crates_import_only_what_the_design_allows() -> Result<(), Box<dyn std::error::Error>> {
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        ALLOWED.iter().map(|(name, to)| (*name, to.iter().copied().collect())).collect();
    for package in packages()? {
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

/// The crates in the table of direct dependencies: its second column, but for what parentheses say of them.
fn listed(architecture: &str) -> BTreeSet<&str> {
    let (_, list) = architecture.split_once("## Direct dependencies").unwrap_or_default();
    let rows = list.lines().filter_map(|line| line.split('|').nth(2));
    let names = rows.flat_map(|crates| crates.split(['(', ')']).step_by(2)).flat_map(|crates| crates.split([',', ';']));
    // The first rows are the table's head.
    names.map(str::trim).filter(|name| !name.is_empty() && *name != "crates" && *name != "---").collect()
}

#[test]
fn all_dependencies_are_listed() -> Result<(), Box<dyn std::error::Error>> {
    let architecture = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../ARCHITECTURE.md"))?;
    let packages = packages()?;
    let dependencies = packages.iter().flat_map(|package| package["dependencies"].as_array()).flatten();
    let names = dependencies.filter_map(|dependency| dependency["name"].as_str());
    let imported: BTreeSet<&str> = names.filter(|name| ours(name).is_none()).collect();
    let listed = listed(&architecture);
    assert!(imported.len() > 50, "all are seen");
    let unlisted: Vec<_> = imported.difference(&listed).collect();
    let unknown: Vec<_> = listed.difference(&imported).collect();
    assert!(unlisted.is_empty() && unknown.is_empty(), "not listed: {unlisted:?}; of nobody: {unknown:?}");
    Ok(())
}
