//! The mount table, for what a path is mounted on.

use std::path::{Path, PathBuf};

/// One mount.
pub(super) struct MountEntry {
    pub(super) point: PathBuf,
    pub(super) shared: bool,
    pub(super) slave: bool,
}

/// Reads `/proc/self/mountinfo`.
pub(super) fn parse(table: &str) -> Vec<MountEntry> {
    table
        .lines()
        .filter_map(|line| {
            let (head, _) = line.split_once(" - ")?;
            let mut fields = head.split(' ').skip(4);
            let point = PathBuf::from(crate::cgroup::unescape(fields.next()?));
            let optional: Vec<_> = fields.skip(1).collect();
            Some(MountEntry {
                point,
                shared: optional.iter().any(|o| o.starts_with("shared:")),
                slave: optional.iter().any(|o| o.starts_with("master:")),
            })
        })
        .collect()
}

/// The mount that a path is on: the last of the longest, since later ones cover earlier ones.
pub(super) fn mount_of<'a>(path: &Path, table: &'a [MountEntry]) -> Option<&'a MountEntry> {
    table.iter().filter(|m| path.starts_with(&m.point)).max_by_key(|m| m.point.components().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_mount_of_a_path() {
        let table = parse(
            "1 0 8:1 / / rw shared:1 - ext4 /dev/vda rw\n\
             2 1 8:2 / /data rw master:3 - ext4 /dev/vdb rw\n\
             3 1 8:2 / /data rw - ext4 /dev/vdc rw\n",
        );
        let data = mount_of(Path::new("/data/x"), &table).unwrap();
        assert!(!data.slave && !data.shared, "the later mount covers the earlier one");
        assert!(mount_of(Path::new("/database"), &table).unwrap().shared);
    }
}
