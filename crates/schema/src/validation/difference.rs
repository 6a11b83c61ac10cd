//! Unified diffs of texts, to the letter as upstream's `difflib` makes them: it finds what is equal in its own way.

use std::collections::HashMap;
use std::fmt::Write;
use std::ops::Range;

/// Equal lines around what differs.
const CONTEXT: usize = 10;
/// From so many lines on, those that come often are no beginnings of what is equal.
const MANY: usize = 200;

/// A part of both texts. It is equal, or is replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    equal: bool,
    from: Range<usize>,
    to: Range<usize>,
}

/// What differs between two texts; empty when nothing does.
pub(super) fn unified(from: &str, to: &str) -> String {
    let (from, to): (Vec<&str>, Vec<&str>) = (from.split('\n').collect(), to.split('\n').collect());
    let mut out = String::new();
    for hunk in hunks(parts(&from, &to)) {
        let (Some(first), Some(last)) = (hunk.first(), hunk.last()) else { continue };
        if out.is_empty() {
            out.push_str("--- expected\n+++ got\n");
        }
        let (a, b) = (span(first.from.start..last.from.end), span(first.to.start..last.to.end));
        // A String takes every write.
        writeln!(out, "@@ -{a} +{b} @@").unwrap_or(());
        let mut lines = |sign: char, lines: &[&str]| {
            for line in lines {
                writeln!(out, "{sign}{line}").unwrap_or(());
            }
        };
        for part in hunk {
            if part.equal {
                lines(' ', &from[part.from]);
            } else {
                lines('-', &from[part.from]);
                lines('+', &to[part.to]);
            }
        }
    }
    out
}

/// Lines by their number, as the heads of hunks name them.
fn span(lines: Range<usize>) -> String {
    match lines.len() {
        0 => format!("{},0", lines.start),
        1 => (lines.start + 1).to_string(),
        length => format!("{},{length}", lines.start + 1),
    }
}

/// The two texts in parts, equal and replaced by turns.
fn parts(from: &[&str], to: &[&str]) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let (mut i, mut j) = (0, 0);
    for (at, other, length) in blocks(from, to) {
        if i < at || j < other {
            parts.push(Part { equal: false, from: i..at, to: j..other });
        }
        (i, j) = (at + length, other + length);
        if length > 0 {
            parts.push(Part { equal: true, from: at..i, to: other..j });
        }
    }
    parts
}

/// Where both are equal, and for how long; at last the end of both.
fn blocks(from: &[&str], to: &[&str]) -> Vec<(usize, usize, usize)> {
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (j, line) in to.iter().enumerate() {
        places.entry(line).or_default().push(j);
    }
    if to.len() >= MANY {
        places.retain(|_, places| places.len() <= to.len() / 100 + 1);
    }
    let mut found: Vec<(usize, usize, usize)> = Vec::new();
    let mut open = vec![(0..from.len(), 0..to.len())];
    while let Some((a, b)) = open.pop() {
        let (i, j, length) = longest(from, to, &places, a.clone(), b.clone());
        if length > 0 {
            found.push((i, j, length));
            open.push((a.start..i, b.start..j));
            open.push((i + length..a.end, j + length..b.end));
        }
    }
    found.sort_unstable();
    let mut blocks: Vec<(usize, usize, usize)> = Vec::new();
    for (i, j, length) in found {
        match blocks.last_mut() {
            Some(last) if last.0 + last.2 == i && last.1 + last.2 == j => last.2 += length,
            _ => blocks.push((i, j, length)),
        }
    }
    blocks.push((from.len(), to.len(), 0));
    blocks
}

/// The longest run of equal lines, and of those the first.
fn longest(
    from: &[&str],
    to: &[&str],
    places: &HashMap<&str, Vec<usize>>,
    a: Range<usize>,
    b: Range<usize>,
) -> (usize, usize, usize) {
    let (mut i, mut j, mut length) = (a.start, b.start, 0);
    // How long the run is that ends at a line of `to` and the line of `from` before.
    let mut ending: HashMap<usize, usize> = HashMap::new();
    for at in a.clone() {
        let mut next = HashMap::new();
        for other in places.get(from[at]).into_iter().flatten().copied().filter(|other| b.contains(other)) {
            let run = 1 + other.checked_sub(1).and_then(|before| ending.get(&before)).unwrap_or(&0);
            next.insert(other, run);
            if run > length {
                (i, j, length) = (at + 1 - run, other + 1 - run, run);
            }
        }
        ending = next;
    }
    // Lines that come often do not begin a run, but belong to one.
    while i > a.start && j > b.start && from[i - 1] == to[j - 1] {
        (i, j, length) = (i - 1, j - 1, length + 1);
    }
    while i + length < a.end && j + length < b.end && from[i + length] == to[j + length] {
        length += 1;
    }
    (i, j, length)
}

/// The parts in groups with what is around them; what is equal for long parts them.
fn hunks(mut parts: Vec<Part>) -> Vec<Vec<Part>> {
    if let Some(first) = parts.first_mut().filter(|part| part.equal) {
        *first = tail(first);
    }
    if let Some(last) = parts.last_mut().filter(|part| part.equal) {
        *last = head(last);
    }
    let mut hunks = Vec::new();
    let mut hunk: Vec<Part> = Vec::new();
    for part in parts {
        if part.equal && part.from.len() > 2 * CONTEXT {
            hunk.push(head(&part));
            hunks.push(std::mem::take(&mut hunk));
            hunk.push(tail(&part));
        } else {
            hunk.push(part);
        }
    }
    hunks.push(hunk);
    hunks.retain(|hunk| hunk.iter().any(|part| !part.equal));
    hunks
}

/// The first lines of an equal part.
fn head(part: &Part) -> Part {
    let length = part.from.len().min(CONTEXT);
    Part { equal: true, from: part.from.start..part.from.start + length, to: part.to.start..part.to.start + length }
}

/// The last lines of an equal part.
fn tail(part: &Part) -> Part {
    let length = part.from.len().min(CONTEXT);
    Part { equal: true, from: part.from.end - length..part.from.end, to: part.to.end - length..part.to.end }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lines: impl IntoIterator<Item = String>) -> String {
        lines.into_iter().collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_differs_has_ten_lines_around_it() {
        let line = |n: usize| n.to_string();
        let from = text((1..=60).map(line));
        let to = text((1..=60).filter(|n| *n != 50).map(|n| if n == 12 { "twelve".to_owned() } else { line(n) }));
        let around = |lines: Range<usize>| lines.map(|n| format!(" {n}\n")).collect::<String>();
        let wanted = [
            "--- expected\n+++ got\n@@ -2,21 +2,21 @@\n",
            &around(2..12),
            "-12\n+twelve\n",
            &around(13..23),
            "@@ -40,21 +40,20 @@\n",
            &around(40..50),
            "-50\n",
            &around(51..61),
        ];
        assert_eq!(unified(&from, &to), wanted.concat());
        assert_eq!(unified(&from, &from), "");
        assert_eq!(unified("a", "b"), "--- expected\n+++ got\n@@ -1 +1 @@\n-a\n+b\n");
        assert_eq!(unified("a", "a\nb"), "--- expected\n+++ got\n@@ -1 +1,2 @@\n a\n+b\n");
    }

    /// As Python's `difflib`, after which upstream's is made, shows it.
    #[test]
    fn lines_that_come_often_begin_nothing_in_long_texts() {
        let from = text((0..300).map(|n| if n % 3 == 0 { "x".to_owned() } else { n.to_string() }));
        let to = text((0..300).filter(|n| *n != 6).map(|n| if n % 3 == 0 { "x".to_owned() } else { n.to_string() }));
        let shown = unified(&from, &to);
        assert!(
            shown.starts_with("--- expected\n+++ got\n@@ -1,17 +1,16 @@\n x\n 1\n 2\n x\n 4\n 5\n-x\n 7\n 8\n"),
            "{shown}"
        );
    }
}
