//! What can be relied on in which version of etcd.

/// Whether progress notifications of this version never tell a revision before its events: they did in versions before
/// 3.4.31 and in 3.5.0 to 3.5.12 (etcd issues 15220 and 17507).
pub(super) fn progress_is_reliable(version: &str) -> bool {
    // A suffix such as "-rc.0" comes before the version that it leads to.
    let (numbers, suffix) = version.split_once(['-', '+']).map_or((version, ""), |(numbers, suffix)| (numbers, suffix));
    let mut parts = numbers.split('.').map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch)), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    match (major, minor) {
        (3, 4) => patch > 31 || (patch == 31 && suffix.is_empty()),
        (3, 5) => patch > 13 || (patch == 13 && suffix.is_empty()),
        (3, 0..4) | (0..3, _) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mended_versions_are_relied_on() {
        for (version, expected) in [
            ("3.4.23", false),
            ("3.4.30", false),
            ("3.4.31", true),
            ("3.4.31-rc.0", false),
            ("3.5.0", false),
            ("3.5.12", false),
            ("3.5.13", true),
            ("3.5.21+git", true),
            ("3.6.0-alpha.0", true),
            ("4.0.0", true),
            ("3.3.27", false),
            ("", false),
            ("3.5", false),
            ("x.y.z", false),
        ] {
            assert_eq!(progress_is_reliable(version), expected, "{version}");
        }
    }
}
