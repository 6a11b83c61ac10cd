//! What a machine must have before anything is begun: each lack is one message that says what to do.

use crate::cli::PlaneArgs;
use anyhow::{Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// Controllers without which limits can't be kept.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// Checks that the networks of a control plane fit together.
///
/// # Errors
/// The first flag that does not fit.
pub fn networks(args: &PlaneArgs) -> Result<()> {
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
    Ok(())
}

/// Checks what a node needs of its machine, without changing anything.
///
/// # Errors
/// The first lack.
pub fn node() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("running containers needs root: run it again with sudo");
    }
    let kernel = Kernel::this()?;
    kernel.cgroups()?;
    kernel.file_system("overlay", "layers of images")?;
    netfilter(network::nft::Nft::open().and_then(|mut nft| nft.tables().map(drop)))
}

/// Where a kernel says what it can do.
struct Kernel {
    cgroups: PathBuf,
    file_systems: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    fn this() -> Result<Self> {
        let release = nix::sys::utsname::uname()?.release().to_string_lossy().into_owned();
        Ok(Kernel {
            cgroups: "/sys/fs/cgroup".into(),
            file_systems: "/proc/filesystems".into(),
            modules: Path::new("/lib/modules").join(release),
        })
    }

    fn cgroups(&self) -> Result<()> {
        let missing = |name: &str| {
            anyhow::anyhow!(
                "the cgroup controller {name:?} is not available, so limits of pods can't be kept: enable it (kernel command line `cgroup_enable={name}`), or mount it below /sys/fs/cgroup"
            )
        };
        let unified = self.cgroups.join("cgroup.controllers");
        if unified.exists() {
            let have = fs::read_to_string(unified)?;
            return match CONTROLLERS.into_iter().find(|c| !have.split_whitespace().any(|h| h == *c)) {
                Some(name) => Err(missing(name)),
                None => Ok(()),
            };
        }
        match CONTROLLERS.into_iter().find(|c| !self.cgroups.join(c).join("cgroup.procs").exists()) {
            Some(name) => Err(missing(name)),
            None => Ok(()),
        }
    }

    fn file_system(&self, name: &str, purpose: &str) -> Result<()> {
        let known = fs::read_to_string(&self.file_systems)?;
        if known.lines().any(|l| l.split_whitespace().last() == Some(name)) {
            return Ok(());
        }
        // Built as a module: mounting loads it.
        if self.modules.join(format!("kernel/fs/{name}fs")).exists() {
            return Ok(());
        }
        bail!(
            "this kernel has no {name} file system, which {purpose} need: load it with `modprobe {name}`, or use a kernel that has it"
        )
    }
}

fn netfilter(tables: network::Result<()>) -> Result<()> {
    match tables {
        Ok(()) => Ok(()),
        Err(e) => bail!(
            "nftables can't be used, which Services need ({e}): load it with `modprobe nf_tables`, or use a kernel that has it"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(dir: &Path) -> Kernel {
        Kernel { cgroups: dir.join("cgroup"), file_systems: dir.join("filesystems"), modules: dir.join("modules") }
    }

    fn said(outcome: Result<()>) -> String {
        outcome.err().map_or_else(String::new, |e| format!("{e:#}"))
    }

    #[test]
    fn a_missing_cgroup_controller_is_named() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let kernel = kernel(dir.path());
        // Version 1: a hierarchy each.
        for name in CONTROLLERS {
            assert!(said(kernel.cgroups()).contains(&format!("the cgroup controller {name:?} is not available")));
            fs::create_dir_all(kernel.cgroups.join(name))?;
            fs::write(kernel.cgroups.join(name).join("cgroup.procs"), "")?;
        }
        assert_eq!(said(kernel.cgroups()), "");
        // Version 2: one list.
        fs::write(kernel.cgroups.join("cgroup.controllers"), "cpuset cpu io pids")?;
        let error = said(kernel.cgroups());
        assert!(error.contains("\"memory\"") && error.contains("cgroup_enable=memory"), "{error}");
        fs::write(kernel.cgroups.join("cgroup.controllers"), "cpuset cpu io memory pids\n")?;
        assert_eq!(said(kernel.cgroups()), "");
        Ok(())
    }

    #[test]
    fn a_missing_file_system_is_named() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let kernel = kernel(dir.path());
        fs::write(&kernel.file_systems, "nodev\tsysfs\n\text4\n")?;
        let error = said(kernel.file_system("overlay", "layers of images"));
        assert!(error.contains("no overlay file system") && error.contains("modprobe overlay"), "{error}");
        fs::create_dir_all(kernel.modules.join("kernel/fs/overlayfs"))?;
        assert_eq!(said(kernel.file_system("overlay", "layers of images")), "", "a module is loaded by mounting");
        fs::remove_dir_all(&kernel.modules)?;
        fs::write(&kernel.file_systems, "nodev\toverlay\n")?;
        assert_eq!(said(kernel.file_system("overlay", "layers of images")), "");
        Ok(())
    }

    #[test]
    fn a_kernel_without_nftables_is_told() {
        let source = std::io::Error::from_raw_os_error(libc::EPROTONOSUPPORT);
        let error = said(netfilter(Err(network::Error::Socket { operation: "open a netlink socket", source })));
        assert!(error.contains("nftables can't be used") && error.contains("modprobe nf_tables"), "{error}");
    }
}
