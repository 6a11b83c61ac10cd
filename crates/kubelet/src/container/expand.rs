//! `$(NAME)` in commands, arguments and values of environment variables.

/// Replaces `$(NAME)` by `lookup(NAME)`, leaves it as it is where there is none, and turns `$$`
/// into `$`.
pub(crate) fn expand(text: &str, mut lookup: impl FnMut(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('(') {
            let Some(end) = after.find(')') else {
                // No end: not a reference.
                out.push_str("$(");
                rest = after;
                continue;
            };
            let name = &after[..end];
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = &after[end + 1..];
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// As [`expand`], but an unknown name is an error that names it.
pub(crate) fn expand_strict(text: &str, mut lookup: impl FnMut(&str) -> Option<String>) -> Result<String, String> {
    let mut missing = None;
    let out = expand(text, |name| {
        let found = lookup(name);
        if found.is_none() && missing.is_none() {
            missing = Some(name.to_owned());
        }
        found
    });
    match missing {
        None => Ok(out),
        Some(_) => Err("missing value for ".to_owned() + &missing.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> String {
        expand(text, |name| match name {
            "A" => Some("1".into()),
            "B" => Some("$(A)".into()),
            "E" => Some(String::new()),
            _ => None,
        })
    }

    #[test]
    fn references_are_replaced_once() {
        for (text, expected) in [
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$(B)", "$(A)"),
            ("$(E)", ""),
            ("$(C)", "$(C)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$$$$", "$$"),
            ("$A", "$A"),
            ("$(A", "$(A"),
            ("$($(A)", "$($(A)"),
            ("$()", "$()"),
            ("100$", "100$"),
            ("ü$(A)ü", "ü1ü"),
        ] {
            assert_eq!(of(text), expected, "{text}");
        }
        assert!(expand_strict("a/$(NOPE)", |_| None).is_err());
    }

    proptest! {
        #[test]
        fn text_without_dollars_is_kept(text in "[^$]*") {
            prop_assert_eq!(of(&text), text);
        }
    }
}
