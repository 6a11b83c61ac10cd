//! Mounting and unmounting, and finding what is mounted.

use std::{
    fs, io,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Mounts a file system in memory of at most `size` bytes.
pub(crate) fn tmpfs(target: &Path, size: Option<u64>) -> io::Result<()> {
    let size = size.map_or_else(String::new, |size| format!(",size={size}"));
    let try_mount = |options: &str| mount(Some("tmpfs"), target, Some("tmpfs"), MsFlags::empty(), Some(options));
    // Secrets must not reach the disk; kernels before 6.4 cannot promise that.
    match try_mount(&format!("mode=0777,noswap{size}")) {
        Err(nix::errno::Errno::EINVAL) => try_mount(&format!("mode=0777{size}"))?,
        result => result?,
    }
    Ok(())
}

/// Mounts huge pages of this many bytes each.
pub(crate) fn hugetlbfs(target: &Path, page_size: u64, size: Option<u64>) -> io::Result<()> {
    let size = size.map_or_else(String::new, |size| format!(",size={size}"));
    let options = format!("pagesize={page_size}{size}");
    mount(Some("nodev"), target, Some("hugetlbfs"), MsFlags::empty(), Some(options.as_str()))?;
    Ok(())
}

/// Mounts at `target` what is mounted at `source`, and there no longer.
pub(crate) fn relocate(source: &Path, target: &Path) -> io::Result<()> {
    match mount(Some(source), target, None::<&str>, MsFlags::MS_MOVE, None::<&str>) {
        // The kernel moves nothing out of a shared mount.
        Err(nix::errno::Errno::EINVAL) => {
            bind(source, target)?;
            unmount(source)
        }
        result => Ok(result?),
    }
}

/// Mounts `source` at `target` too.
pub(crate) fn bind(source: &Path, target: &Path) -> io::Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(())
}

/// Unmounts; what is busy is detached, and goes when it no longer is.
pub(crate) fn unmount(target: &Path) -> io::Result<()> {
    match umount2(target, MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => Ok(()),
        Err(nix::errno::Errno::EBUSY) => Ok(umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?),
        Err(error) => Err(error.into()),
    }
}

/// What is mounted at or below `dir`, the innermost first.
pub(crate) fn below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mounts = fs::read("/proc/self/mountinfo")?;
    let mut found: Vec<PathBuf> = mounts
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(unescape)
        .filter(|path| path.starts_with(dir))
        .collect();
    found.reverse();
    found.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    Ok(found)
}

/// Whether something is mounted exactly there.
pub(crate) fn is_mounted(path: &Path) -> io::Result<bool> {
    Ok(below(path)?.iter().any(|mounted| mounted == path))
}

/// Unmounts everything at and below a directory.
pub(crate) fn unmount_below(dir: &Path) -> io::Result<()> {
    for mounted in below(dir)? {
        unmount(&mounted)
            .map_err(|error| io::Error::new(error.kind(), format!("unmount {}: {error}", mounted.display())))?;
    }
    Ok(())
}

/// `\040` and the like stand for characters that would split the line.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = (*first == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(byte) = octal {
            out.push(byte);
            rest = &tail[3..];
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_and_undone_inside_out() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let outer = dir.join("a b");
        fs::create_dir(&outer).unwrap();
        tmpfs(&outer, Some(1 << 20)).unwrap();
        let inner = outer.join("inner");
        fs::create_dir(&inner).unwrap();
        tmpfs(&inner, None).unwrap();
        assert_eq!(below(&dir).unwrap(), [inner.clone(), outer.clone()]);
        assert!(is_mounted(&outer).unwrap());
        assert!(fs::write(outer.join("big"), vec![0; 2 << 20]).is_err(), "the size is kept to");
        unmount_below(&dir).unwrap();
        assert!(below(&dir).unwrap().is_empty());
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(unescape(b"/a\\040b\\134c"), Path::new("/a b\\c"));
    }
}
