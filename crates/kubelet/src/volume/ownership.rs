//! Giving a volume to the group that its pod's processes belong to.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt as _, lchown},
    path::Path,
};

/// Gives everything at and below `path` to `group`, readable (and writable unless `read_only`)
/// by it; what is made in its directories later belongs to it too.
pub(crate) fn set_group(path: &Path, group: u32, read_only: bool) -> io::Result<()> {
    const READ_WRITE: u32 = 0o660;
    const READ: u32 = 0o440;
    const EXECUTE: u32 = 0o110;
    const SET_GROUP: u32 = 0o2000;
    let metadata = fs::symlink_metadata(path)?;
    lchown(path, None, Some(group))?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let mut bits = if read_only { READ } else { READ_WRITE };
    if metadata.is_dir() {
        bits |= EXECUTE | SET_GROUP;
    }
    let mode = metadata.permissions().mode() & 0o7777;
    fs::set_permissions(path, fs::Permissions::from_mode(mode | bits))?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            set_group(&entry?.path(), group, read_only)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn the_group_gets_what_it_needs() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, "x").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("l")).unwrap();
        let passwd = fs::metadata("/etc/passwd").unwrap().gid();
        set_group(dir.path(), 4711, true).unwrap();
        let metadata = fs::metadata(&file).unwrap();
        assert_eq!((metadata.gid(), metadata.mode() & 0o7777), (4711, 0o640));
        let of_dir = fs::metadata(dir.path()).unwrap();
        assert_eq!((of_dir.gid(), of_dir.mode() & 0o2070), (4711, 0o2050));
        assert_eq!(fs::metadata("/etc/passwd").unwrap().gid(), passwd, "links are not followed");
        set_group(dir.path(), 4711, false).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o660);
    }
}
