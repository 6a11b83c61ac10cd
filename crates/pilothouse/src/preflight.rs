//! What a machine must have before anything is begun: each lack is one message that says what to do.

use crate::cli::ClusterArgs;
use anyhow::{Result, bail};
use std::fs;
use std::path::Path;

/// Controllers without which limits can't be kept.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// Checks everything that can be checked without changing anything.
///
/// # Errors
/// The first lack.
pub fn check(args: &ClusterArgs) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("running containers needs root: run it again with sudo");
    }
    if args.service_cidr.overlaps(&args.pod_cidr) {
        bail!(
            "--service-cidr {} and --pod-cidr {} overlap: choose networks that have no address in common",
            args.service_cidr,
            args.pod_cidr
        );
    }
    if args.service_cidr.prefix > 27 {
        bail!("--service-cidr {} is too small: it must be at least a /27", args.service_cidr);
    }
    if args.pod_cidr.prefix > 24 {
        bail!("--pod-cidr {} is too small: every node gets a /24 of it", args.pod_cidr);
    }
    cgroups()?;
    file_system("overlay", "layers of images")?;
    netfilter()
}

fn cgroups() -> Result<()> {
    let missing = |name: &str| {
        anyhow::anyhow!(
            "the cgroup controller {name:?} is not available, so limits of pods can't be kept: enable it (kernel command line `cgroup_enable={name}`), or mount it below /sys/fs/cgroup"
        )
    };
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers");
    if unified.exists() {
        let have = fs::read_to_string(unified)?;
        return match CONTROLLERS.into_iter().find(|c| !have.split_whitespace().any(|h| h == *c)) {
            Some(name) => Err(missing(name)),
            None => Ok(()),
        };
    }
    match CONTROLLERS.into_iter().find(|c| !Path::new("/sys/fs/cgroup").join(c).join("cgroup.procs").exists()) {
        Some(name) => Err(missing(name)),
        None => Ok(()),
    }
}

fn file_system(name: &str, purpose: &str) -> Result<()> {
    let known = fs::read_to_string("/proc/filesystems")?;
    if known.lines().any(|l| l.split_whitespace().last() == Some(name)) {
        return Ok(());
    }
    // Built as a module: mounting loads it.
    if Path::new(&format!("/lib/modules/{}/kernel/fs/{name}fs", uname()?)).exists() {
        return Ok(());
    }
    bail!(
        "this kernel has no {name} file system, which {purpose} need: load it with `modprobe {name}`, or use a kernel that has it"
    )
}

fn uname() -> Result<String> {
    Ok(nix::sys::utsname::uname()?.release().to_string_lossy().into_owned())
}

fn netfilter() -> Result<()> {
    match network::nft::Nft::open().and_then(|mut nft| nft.tables().map(drop)) {
        Ok(()) => Ok(()),
        Err(e) => bail!(
            "nftables can't be used, which Services need ({e}): load it with `modprobe nf_tables`, or use a kernel that has it"
        ),
    }
}
