//! Lists of indexes as jobs write them: `1,3-5,7`.

/// First and last of an interval, both below `completions`.
fn interval(text: &str, completions: i64) -> Result<(i64, i64), String> {
    let parts: Vec<&str> = text.split('-').collect();
    if parts.len() > 2 {
        return Err(format!(
            "the fragment {} violates the requirement that an index interval can have at most two parts separated by '-'",
            api::field::go_quote(text)
        ));
    }
    let index = |part: &str| {
        let shown = api::field::go_quote(part);
        match part.parse::<i64>() {
            Err(_) => Err(format!("cannot convert string to integer for index: {shown}")),
            Ok(index) if index >= completions => Err(format!("too large index: {shown}")),
            Ok(index) => Ok(index),
        }
    };
    let first = index(parts[0])?;
    let Some(last) = parts.get(1) else { return Ok((first, first)) };
    let last = index(last)?;
    if first >= last {
        return Err(format!("non-increasing order, previous: {first}, current: {last}"));
    }
    Ok((first, last))
}

/// How many indexes a list names, or what is wrong with it.
pub(super) fn count(list: &str, completions: i64) -> Result<i64, String> {
    let mut total = 0;
    let mut previous = None;
    for part in list.split(',').filter(|_| !list.is_empty()) {
        let (first, last) = interval(part, completions)?;
        if let Some(previous) = previous.filter(|previous| *previous >= first) {
            return Err(format!("non-increasing order, previous: {previous}, current: {first}"));
        }
        total += last - first + 1;
        previous = Some(last);
    }
    Ok(total)
}

/// The first index that both lists name; parts that can't be read are left out.
pub(super) fn overlap(a: &str, b: &str, completions: i64) -> Option<i64> {
    let read = |list: &str| -> Vec<(i64, i64)> {
        list.split(',').filter_map(|part| interval(part, completions).ok()).collect()
    };
    let (a, b) = (read(a), read(b));
    let (mut i, mut j) = (0, 0);
    while let (Some(left), Some(right)) = (a.get(i), b.get(j)) {
        if left.0 <= right.1 && right.0 <= left.1 {
            return Some(left.0.max(right.0));
        }
        if left.0 <= right.0 {
            i += 1;
        } else {
            j += 1;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_upstream_does() {
        assert_eq!(count("", 5), Ok(0));
        assert_eq!(count("0,2-4", 5), Ok(4));
        for (list, why) in [
            ("5", "too large index: \"5\""),
            ("a", "cannot convert string to integer for index: \"a\""),
            ("0,,1", "cannot convert string to integer for index: \"\""),
            ("1,0", "non-increasing order, previous: 1, current: 0"),
            ("3-1", "non-increasing order, previous: 3, current: 1"),
            (
                "1-2-3",
                "the fragment \"1-2-3\" violates the requirement that an index interval can have at most two parts separated by '-'",
            ),
        ] {
            assert_eq!(count(list, 5).unwrap_err(), why, "{list}");
        }
    }

    #[test]
    fn lists_overlap() {
        assert_eq!(overlap("0,2-4", "1,3", 9), Some(3));
        assert_eq!(overlap("0-2", "3-5", 9), None);
        assert_eq!(overlap("x,1", "1", 9), Some(1));
        assert_eq!(overlap("", "1", 9), None);
    }
}
