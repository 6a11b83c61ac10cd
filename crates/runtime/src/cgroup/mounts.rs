//! The cgroup mounts in a mount table.

use std::path::PathBuf;

/// One mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mount {
    /// The controllers it has; none for a named hierarchy such as systemd's.
    V1 {
        root: PathBuf,
        controllers: Vec<String>,
    },
    V2 {
        root: PathBuf,
    },
}

/// Controllers that only a super block of version 1 has among its options.
const CONTROLLERS: [&str; 13] = [
    "cpuset",
    "cpu",
    "cpuacct",
    "blkio",
    "memory",
    "devices",
    "freezer",
    "net_cls",
    "perf_event",
    "net_prio",
    "hugetlb",
    "pids",
    "rdma",
];

/// Reads the lines of `/proc/self/mountinfo`; others than cgroup mounts, and malformed ones, are passed over.
pub(super) fn parse(table: &str) -> Vec<Mount> {
    table.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Mount> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let root = PathBuf::from(unescape(mount.split(' ').nth(4)?));
    let mut filesystem = filesystem.split(' ');
    match filesystem.next()? {
        "cgroup2" => Some(Mount::V2 { root }),
        "cgroup" => Some(Mount::V1 {
            root,
            controllers: filesystem.nth(1)?.split(',').filter(|o| CONTROLLERS.contains(o)).map(str::to_owned).collect(),
        }),
        _ => None,
    }
}

/// Undoes the octal escapes of spaces, tabs, newlines and backslashes.
pub(crate) fn unescape(field: &str) -> String {
    let mut out = String::with_capacity(field.len());
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|o| u8::from_str_radix(o, 8).ok());
        match code {
            Some(code) => {
                out.push(code as char);
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_versions() {
        let table = "\
25 24 0:22 / /proc rw,relatime - proc proc rw
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
33 30 0:29 / /sys/fs/cgroup/my\\040two rw - cgroup2 cgroup2 rw,nsdelegate
";
        assert_eq!(
            parse(table),
            [
                Mount::V1 {
                    root: "/sys/fs/cgroup/cpu,cpuacct".into(),
                    controllers: vec!["cpu".into(), "cpuacct".into()]
                },
                Mount::V1 { root: "/sys/fs/cgroup/systemd".into(), controllers: vec![] },
                Mount::V2 { root: "/sys/fs/cgroup/my two".into() },
            ]
        );
    }
}
