//! The last steps of a process before it becomes the container's: privileges, system call filter, `execve`.
//!
//! Shared by a container's first process (after libcontainer has set everything else up) and by executed
//! ones. libcontainer's own steps are not used for this: it filters system calls too early, filters no
//! executed process at all, and looks names up through libc.

#![allow(unsafe_code, reason = "capset, prctl, seccomp and execve right before the process image is replaced")]

use std::{
    ffi::{CStr, CString},
    fs, io,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::syscalls::{self, CapabilityData};

/// A process as it shall run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ProcessSpec {
    pub(crate) args: Vec<String>,
    /// `NAME=value`; has HOME and PATH.
    pub(crate) env: Vec<String>,
    pub(crate) cwd: PathBuf,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) capabilities: Capabilities,
    pub(crate) no_new_privileges: bool,
    /// A file with the compiled filter; `None` is unconfined.
    pub(crate) seccomp: Option<PathBuf>,
    /// Whether what the filter refuses is logged by the kernel.
    #[serde(default)]
    pub(crate) seccomp_log: bool,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) terminal: bool,
}

/// Capability sets as bit masks; the inheritable set equals the ambient one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Capabilities {
    pub(crate) bounding: u64,
    /// Permitted and effective.
    pub(crate) permitted: u64,
    pub(crate) ambient: u64,
}

/// A compiled filter: instructions as the kernel reads them.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    instructions: Vec<u8>,
    log: bool,
}

const SOCK_FILTER_SIZE: usize = size_of::<libc::sock_filter>();

impl Filter {
    /// Reads the filter of a process. To be called while the host's files are visible.
    pub(crate) fn of(process: &ProcessSpec) -> io::Result<Option<Self>> {
        process.seccomp.as_deref().map(|path| Self::read(path, process.seccomp_log)).transpose()
    }

    fn read(path: &Path, log: bool) -> io::Result<Self> {
        let bytes = fs::read(path)?;
        let count = bytes.len() / SOCK_FILTER_SIZE;
        if bytes.len() % SOCK_FILTER_SIZE != 0 || count == 0 || count > usize::from(u16::MAX) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} is not a compiled filter", path.display()),
            ));
        }
        Ok(Self { instructions: bytes, log })
    }

    fn install(&self) -> Result<(), Errno> {
        let instructions: Vec<libc::sock_filter> = self
            .instructions
            .chunks_exact(SOCK_FILTER_SIZE)
            .map(|c| libc::sock_filter {
                code: u16::from_ne_bytes([c[0], c[1]]),
                jt: c[2],
                jf: c[3],
                k: u32::from_ne_bytes([c[4], c[5], c[6], c[7]]),
            })
            .collect();
        let program = libc::sock_fprog { len: instructions.len() as u16, filter: instructions.as_ptr().cast_mut() };
        let mut flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
        if self.log {
            flags |= libc::SECCOMP_FILTER_FLAG_LOG;
        }
        // SAFETY: the program points to `instructions`, which live until the kernel has copied them.
        let result =
            unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
        Errno::result(result).map(drop)
    }
}

/// The calls of [`become_process`], prepared while memory may still be allocated freely.
pub(crate) struct Prepared {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
    capabilities: Capabilities,
    no_new_privileges: bool,
    filter: Option<Filter>,
}

impl Prepared {
    /// Finds the executable and turns everything to C strings.
    ///
    /// # Errors
    /// The wording that users know from other runtimes, such as
    /// `exec: "x": executable file not found in $PATH`.
    pub(crate) fn new(spec: &ProcessSpec, filter: Option<Filter>) -> Result<Self, String> {
        let name = spec.args.first().ok_or("no command specified")?;
        let path = look_up(name, &spec.env)?;
        let c = |s: &str| CString::new(s).map_err(|_| format!("{s:?} contains a NUL byte"));
        Ok(Self {
            path: CString::new(path.as_os_str().as_bytes()).map_err(|e| e.to_string())?,
            args: spec.args.iter().map(|s| c(s)).collect::<Result<_, _>>()?,
            env: spec.env.iter().map(|s| c(s)).collect::<Result<_, _>>()?,
            capabilities: spec.capabilities,
            no_new_privileges: spec.no_new_privileges,
            filter,
        })
    }
}

/// Drops privileges, filters system calls and executes. Comes back only with an error to print.
///
/// The caller is single-threaded, already has its user, groups, working directory, stdio and namespaces, and
/// all of its other descriptors close on exec.
pub(crate) fn become_process(p: &Prepared) -> String {
    reset_signals();
    // SAFETY: umask only sets a number.
    unsafe { libc::umask(0o022) };
    let result = if p.no_new_privileges {
        set_capabilities(p.capabilities)
            .and_then(|()| prctl(libc::PR_SET_NO_NEW_PRIVS, 1))
            .and_then(|()| p.filter.as_ref().map_or(Ok(()), Filter::install))
    } else {
        // Without no-new-privileges only CAP_SYS_ADMIN may install a filter, so it comes first.
        p.filter.as_ref().map_or(Ok(()), Filter::install).and_then(|()| set_capabilities(p.capabilities))
    };
    if let Err(error) = result {
        return format!("cannot drop privileges: {}", error.desc());
    }
    let error = match nix::unistd::execve(&p.path, &p.args, &p.env) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    format!("exec {}: {}", p.path.to_string_lossy(), error.desc().to_lowercase())
}

/// The runtime of Rust ignores SIGPIPE and the shim blocks what it reads as events; both would be inherited.
fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: setting a default action; the kernel refuses the numbers that can't have one.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // An empty set can't be refused.
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
}

/// How soon this process, and those that it starts, are killed for want of memory.
///
/// Without CAP_SYS_RESOURCE (as where we ourselves run in a container) the kernel only lets the value rise:
/// then a lower one stays what it is.
pub(crate) fn set_oom_score(score: i32) -> io::Result<()> {
    const FILE: &str = "/proc/self/oom_score_adj";
    match fs::write(FILE, score.to_string()) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let current = fs::read_to_string(FILE)?;
            let lower = current.trim().parse().is_ok_and(|c: i32| score < c);
            if lower { Ok(()) } else { Err(error) }
        }
        result => result,
    }
}

/// Names this process, for those who list processes; at most 15 bytes.
pub(crate) fn set_name(name: &CStr) -> Result<(), Errno> {
    prctl(libc::PR_SET_NAME, name.as_ptr() as libc::c_ulong)
}

pub(crate) fn prctl(option: libc::c_int, value: libc::c_ulong) -> Result<(), Errno> {
    // SAFETY: the options used take one number.
    Errno::result(unsafe { libc::prctl(option, value, 0, 0, 0) }).map(drop)
}

/// Sets all five sets of the calling process.
pub(crate) fn set_capabilities(sets: Capabilities) -> Result<(), Errno> {
    for capability in 0..64 {
        if sets.bounding & (1 << capability) != 0 {
            continue;
        }
        match prctl(libc::PR_CAPBSET_DROP, capability) {
            Ok(()) => {}
            // Past the last one that this kernel knows.
            Err(Errno::EINVAL) => break,
            Err(error) => return Err(error),
        }
    }
    prctl_ambient_clear()?;
    let half = |mask: u64, high: bool| (mask >> if high { 32 } else { 0 }) as u32;
    syscalls::put_capabilities(&[false, true].map(|high| CapabilityData {
        effective: half(sets.permitted, high),
        permitted: half(sets.permitted, high),
        inheritable: half(sets.ambient, high),
    }))?;
    for capability in 0..64u64 {
        if sets.ambient & (1 << capability) != 0 {
            // SAFETY: takes numbers only.
            let result = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, capability, 0, 0) };
            Errno::result(result)?;
        }
    }
    Ok(())
}

fn prctl_ambient_clear() -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    let result = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    Errno::result(result).map(drop)
}

/// Finds an executable as a shell does, in the environment that it will have.
fn look_up(name: &str, env: &[String]) -> Result<PathBuf, String> {
    let quoted = format!("exec: {name:?}");
    if name.contains('/') {
        let path = PathBuf::from(name);
        return match usable(&path) {
            Ok(()) => Ok(path),
            Err(Errno::ENOENT) => Err(format!("{quoted}: stat {name}: no such file or directory")),
            Err(error) => Err(format!("{quoted}: {}", error.desc().to_lowercase())),
        };
    }
    let path = env.iter().rev().find_map(|e| e.strip_prefix("PATH=")).unwrap_or("");
    let mut refused = None;
    for dir in path.split(':') {
        let dir = if dir.is_empty() { "." } else { dir };
        let candidate = Path::new(dir).join(name);
        match usable(&candidate) {
            Ok(()) if candidate.is_absolute() => return Ok(candidate),
            Err(Errno::EACCES) => refused = refused.or(Some(())),
            _ => {}
        }
    }
    match refused {
        Some(()) if !name.is_empty() => Err(format!("{quoted}: permission denied")),
        _ => Err(format!("{quoted}: executable file not found in $PATH")),
    }
}

fn usable(path: &Path) -> Result<(), Errno> {
    let metadata = fs::metadata(path).map_err(|e| e.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
    if metadata.is_dir() {
        return Err(Errno::EISDIR);
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(Errno::EACCES);
    }
    Ok(())
}

/// Enters the working directory, making it when it is missing, and checks that it is inside the container.
///
/// # Errors
/// Says which directory and why.
pub(crate) fn enter_cwd(cwd: &Path, create: bool) -> Result<(), String> {
    let failed = |what: &str, error: io::Error| {
        format!("{what} to cwd ({:?}) set in config.json failed: {error}", cwd.display())
    };
    if let Err(error) = std::env::set_current_dir(cwd) {
        if error.kind() != io::ErrorKind::NotFound || !create {
            return Err(failed("chdir", error));
        }
        make_dirs(cwd).map_err(|e| failed("mkdir", e))?;
        std::env::set_current_dir(cwd).map_err(|e| failed("chdir", e))?;
    }
    // Through a leaked descriptor of the host the directory has no path below this root.
    match fs::read_link("/proc/self/cwd") {
        Ok(path) if path.is_absolute() => {}
        Ok(_) => return Err("current working directory is outside of container mount namespace root -- possible container breakout attempt".into()),
        // No procfs in the container: ask the kernel another way.
        Err(_) => {
            let current = std::env::current_dir().map_err(|e| failed("getcwd", e))?;
            if !current.is_absolute() {
                return Err("current working directory is outside of container mount namespace root -- possible container breakout attempt".into());
            }
        }
    }
    Ok(())
}

/// The directories belong to root, whoever the process runs as.
fn make_dirs(path: &Path) -> io::Result<()> {
    let mut current = PathBuf::new();
    for component in path.components() {
        current.push(component);
        match fs::create_dir(&current) {
            Ok(()) => std::os::unix::fs::lchown(&current, Some(0), Some(0))?,
            Err(error) if current.is_dir() => drop(error),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn look_up_says_what_other_runtimes_say() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("plain"), "").unwrap();
        fs::write(dir.path().join("run"), "").unwrap();
        fs::set_permissions(dir.path().join("run"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(dir.path().join("plain"), fs::Permissions::from_mode(0o644)).unwrap();
        let env = ["PATH=/nowhere".to_owned(), format!("PATH=/nowhere:{}", dir.path().display())];
        assert_eq!(look_up("run", &env).unwrap(), dir.path().join("run"));
        assert_eq!(look_up("none", &env).unwrap_err(), "exec: \"none\": executable file not found in $PATH");
        assert_eq!(look_up("plain", &env).unwrap_err(), "exec: \"plain\": permission denied");
        assert_eq!(look_up("/x/none", &env).unwrap_err(), "exec: \"/x/none\": stat /x/none: no such file or directory");
        let path = dir.path().display().to_string();
        assert_eq!(look_up(&path, &env).unwrap_err(), format!("exec: \"{path}\": is a directory"));
    }

    #[test]
    fn filters_must_be_whole() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Filter::read(file.path(), false).is_err());
        fs::write(file.path(), [0; 12]).unwrap();
        assert!(Filter::read(file.path(), false).is_err());
        fs::write(file.path(), [0; 16]).unwrap();
        assert!(Filter::read(file.path(), false).is_ok());
    }
}
