//! Paths inside an image: where its links lead, and making what is missing, without ever leaving it.

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
};

use nix::{errno::Errno, sys::stat::Mode};

use super::syscalls;

/// The kernel's own limit on links in a row.
const MAX_LINKS: u32 = 40;

/// Where a path of a container leads, as far as its image says; what is missing is taken as it is written.
/// Nobody else may change the image meanwhile.
pub(super) fn resolve(rootfs: &Path, path: &Path) -> io::Result<PathBuf> {
    let mut rest: Vec<PathBuf> = components_reversed(path);
    let mut done = PathBuf::from("/");
    let mut links = 0;
    while let Some(component) = rest.pop() {
        if component == Path::new("..") {
            done.pop();
            continue;
        }
        let next = done.join(&component);
        let inside = next.strip_prefix("/").unwrap_or(&next);
        let Ok(target) = fs::read_link(rootfs.join(inside)) else {
            done = next;
            continue;
        };
        links += 1;
        if links > MAX_LINKS {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        if target.is_absolute() {
            done = PathBuf::from("/");
        }
        rest.extend(components_reversed(&target));
    }
    Ok(done)
}

fn components_reversed(path: &Path) -> Vec<PathBuf> {
    path.components()
        .rev()
        .filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir))
        .map(|c| PathBuf::from(c.as_os_str()))
        .collect()
}

/// Without `.` and `..`, relative to the root.
fn lexical(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            _ => {}
        }
    }
    out
}

/// `mkdir -p` below `root`, following links only inside of it.
pub(super) fn make_dirs(root: &OwnedFd, path: &Path) -> io::Result<()> {
    let mut current = PathBuf::new();
    for component in lexical(path).components() {
        let parent = syscalls::open_in_root(root.as_fd(), &current, libc::O_PATH | libc::O_DIRECTORY)?;
        let name = CString::new(component.as_os_str().as_bytes())?;
        match nix::sys::stat::mkdirat(Some(parent.as_raw_fd()), name.as_c_str(), Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        current.push(component);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_an_image_lead_inside_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let link = |to: &str, at: &str| std::os::unix::fs::symlink(to, dir.path().join(at)).unwrap();
        fs::create_dir_all(dir.path().join("var")).unwrap();
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        link("/run", "var/run");
        link("../../../../run/stub/resolv.conf", "etc/resolv.conf");
        link("../../proc/self", "me");
        link("dev", "devices");
        link("loop", "loop");
        let at = |path: &str| resolve(dir.path(), Path::new(path));
        for (path, real) in [
            ("/var/run/secrets", "/run/secrets"),
            ("/etc/resolv.conf", "/run/stub/resolv.conf"),
            ("/devices", "/dev"),
            ("/me/attr", "/proc/self/attr"),
            ("/var/../../x", "/x"),
        ] {
            assert_eq!(at(path).unwrap(), Path::new(real), "{path}");
        }
        assert!(at("/loop/x").is_err());
    }

    #[test]
    fn directories_are_made_inside() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        fs::create_dir(&root).unwrap();
        fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("escape")).unwrap();
        let handle = syscalls::open_path(&root).unwrap();
        make_dirs(&handle, Path::new("/a/b/../c")).unwrap();
        assert!(root.join("a/c").is_dir());
        // Inside of the root the link leads nowhere.
        assert!(make_dirs(&handle, Path::new("/escape/x")).is_err());
        assert!(fs::read_dir(&outside).unwrap().next().is_none());
    }
}
