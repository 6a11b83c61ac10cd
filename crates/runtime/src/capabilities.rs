//! Capabilities by name and number.

/// Names without `CAP_`, in the order of their numbers.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

pub(crate) const DAC_READ_SEARCH: u8 = 2;
pub(crate) const SYS_MODULE: u8 = 16;
pub(crate) const SYS_RAWIO: u8 = 17;
pub(crate) const SYS_CHROOT: u8 = 18;
pub(crate) const SYS_PTRACE: u8 = 19;
pub(crate) const SYS_PACCT: u8 = 20;
pub(crate) const SYS_ADMIN: u8 = 21;
pub(crate) const SYS_BOOT: u8 = 22;
pub(crate) const SYS_NICE: u8 = 23;
pub(crate) const SYS_TIME: u8 = 25;
pub(crate) const SYS_TTY_CONFIG: u8 = 26;
pub(crate) const SYSLOG: u8 = 34;
pub(crate) const PERFMON: u8 = 38;
pub(crate) const BPF: u8 = 39;

/// What a container has when nothing is asked for, as with other runtimes.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// The number of a capability, with or without `CAP_`, in any case.
pub(crate) fn number(name: &str) -> Option<u8> {
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("CAP_").unwrap_or(&name);
    NAMES.iter().position(|n| *n == name).map(|n| n as u8)
}

/// A set of capabilities as a bit mask.
pub(crate) fn mask<'a>(names: impl IntoIterator<Item = &'a str>) -> u64 {
    names.into_iter().filter_map(number).fold(0, |mask, n| mask | 1 << n)
}

/// The default set.
pub(crate) fn default_mask() -> u64 {
    mask(DEFAULT)
}

/// All that this process may have: what the machine gives a privileged container.
pub(crate) fn all_available() -> u64 {
    let known = (1 << NAMES.len()) - 1;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|l| l.strip_prefix("CapBnd:"))
        .and_then(|v| u64::from_str_radix(v.trim(), 16).ok())
        .unwrap_or(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree_with_the_kernel() {
        for (name, expected) in [
            ("CHOWN", 0),
            ("cap_net_raw", 13),
            ("CAP_SYS_ADMIN", 21),
            ("CHECKPOINT_RESTORE", 40),
            ("DAC_READ_SEARCH", DAC_READ_SEARCH),
            ("SYS_MODULE", SYS_MODULE),
            ("SYS_RAWIO", SYS_RAWIO),
            ("SYS_CHROOT", SYS_CHROOT),
            ("SYS_PTRACE", SYS_PTRACE),
            ("SYS_PACCT", SYS_PACCT),
            ("SYS_BOOT", SYS_BOOT),
            ("SYS_NICE", SYS_NICE),
            ("SYS_TIME", SYS_TIME),
            ("SYS_TTY_CONFIG", SYS_TTY_CONFIG),
            ("SYSLOG", SYSLOG),
            ("PERFMON", PERFMON),
            ("BPF", BPF),
        ] {
            assert_eq!(number(name), Some(expected), "{name}");
        }
        assert_eq!(number("NOTHING"), None);
        // The well-known mask of an ordinary container.
        assert_eq!(default_mask(), 0xa804_25fb);
    }
}
