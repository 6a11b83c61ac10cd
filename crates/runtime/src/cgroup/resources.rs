//! The limits of a group, as the CRI asks for them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Limits; a field that is `None` (or empty) is left alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resources {
    pub(crate) cpu_shares: Option<u64>,
    /// Microseconds in a period; negative means unlimited.
    pub(crate) cpu_quota: Option<i64>,
    pub(crate) cpu_period: Option<u64>,
    pub(crate) cpuset_cpus: Option<String>,
    pub(crate) cpuset_mems: Option<String>,
    /// Bytes; negative means unlimited.
    pub(crate) memory_limit: Option<i64>,
    /// Memory and swap together, in bytes; negative means unlimited.
    pub(crate) memory_swap_limit: Option<i64>,
    pub(crate) hugepage_limits: Vec<HugepageLimit>,
    /// Files of the version 2 group and their contents.
    pub(crate) unified: BTreeMap<String, String>,
}

/// A limit on pages of one size, such as `2MB`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HugepageLimit {
    pub(crate) page_size: String,
    pub(crate) limit: u64,
}

/// Devices that may be used. Numbers that are `None` stand for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeviceRule {
    pub(crate) kind: DeviceKind,
    pub(crate) major: Option<u32>,
    pub(crate) minor: Option<u32>,
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) mknod: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum DeviceKind {
    Char,
    Block,
}

impl DeviceRule {
    /// All access to one device.
    pub(crate) const fn full(kind: DeviceKind, major: u32, minor: u32) -> Self {
        Self { kind, major: Some(major), minor: Some(minor), read: true, write: true, mknod: true }
    }

    /// All access to all devices of a kind.
    pub(crate) const fn any(kind: DeviceKind) -> Self {
        Self { kind, major: None, minor: None, read: true, write: true, mknod: true }
    }

    /// The line that the version 1 controller understands.
    pub(super) fn line(&self) -> String {
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        let kind = match self.kind {
            DeviceKind::Char => 'c',
            DeviceKind::Block => 'b',
        };
        let mut access = String::new();
        for (allowed, letter) in [(self.read, 'r'), (self.write, 'w'), (self.mknod, 'm')] {
            if allowed {
                access.push(letter);
            }
        }
        format!("{kind} {}:{} {access}", number(self.major), number(self.minor))
    }
}

/// The version 2 weight of version 1 shares: a curve through (2, 1), (1024, 100) and (262144, 10000).
pub(super) fn shares_to_weight(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let l = (shares as f64).log2();
    let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
    (10f64.powf(exponent)).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_meet_the_fixed_points_and_rise() {
        assert_eq!(shares_to_weight(0), 1);
        assert_eq!(shares_to_weight(2), 1);
        assert_eq!(shares_to_weight(1024), 100);
        assert_eq!(shares_to_weight(262_144), 10_000);
        let mut last = 0;
        for shares in 2..=262_144 {
            let weight = shares_to_weight(shares);
            assert!(weight >= last && (1..=10_000).contains(&weight), "{shares}");
            last = weight;
        }
    }

    #[test]
    fn rule_lines() {
        assert_eq!(DeviceRule::full(DeviceKind::Char, 1, 3).line(), "c 1:3 rwm");
        let mknod = DeviceRule { read: false, write: false, ..DeviceRule::any(DeviceKind::Block) };
        assert_eq!(mknod.line(), "b *:* m");
    }
}
