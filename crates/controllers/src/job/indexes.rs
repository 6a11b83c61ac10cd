//! Sets of completion indexes as Jobs write them: `1,3-5,7`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Reads a set; what cannot be read, or is not below `end`, is left out.
pub(super) fn parse(text: &str, end: u32) -> BTreeSet<u32> {
    let mut set = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            set.extend((first..=last).take_while(|index| *index < end));
        }
    }
    set
}

/// Writes a set: runs of three and more as ranges, as upstream does with two, too.
pub(super) fn write(set: &BTreeSet<u32>) -> String {
    let mut text = String::new();
    let mut rest = set.iter().copied().peekable();
    while let Some(first) = rest.next() {
        let mut last = first;
        while let Some(next) = rest.next_if(|next| *next == last + 1) {
            last = next;
        }
        if !text.is_empty() {
            text.push(',');
        }
        let separator = if last == first + 1 { ',' } else { '-' };
        // Writing to a string does not fail.
        let _ = if first == last { write!(text, "{first}") } else { write!(text, "{first}{separator}{last}") };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_come_back() {
        for text in ["", "0", "1,3-5,7", "0,1", "2-9"] {
            assert_eq!(write(&parse(text, 10)), text);
        }
        assert_eq!(write(&parse("8-20,x", 10)), "8,9");
    }
}
