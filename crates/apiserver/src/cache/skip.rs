//! Finds the end of a list or map of JSON without looking at what is in it: most of the text that a start reads is only passed over.
//!
//! Blocks of 64 bytes are looked at at once: a bit for each byte says where quotes, brackets and the like are; those between quotes
//! count for nothing, and where fewer brackets close than are open, the end is further on.

/// How many bytes a block has.
const BLOCK: usize = 64;

/// Where the list or map ends that begins at a place: behind its last bracket. Brackets are counted, not paired.
///
/// `None`: the text ends before, or a string has a control character.
pub(super) fn container(text: &[u8], at: usize) -> Option<usize> {
    let mut walk = Walk::into(text, at)?;
    while let Some(block) = text.get(walk.at..).and_then(|rest| rest.first_chunk()) {
        let bits = Bits::of(block);
        // A backslash takes what follows it, maybe in the next block.
        if bits.backslashes != 0 || !walk.pass(&bits)? {
            let end = walk.at + BLOCK;
            if let Some(end) = walk.slowly(text, end)? {
                return Some(end);
            }
        }
    }
    walk.slowly(text, text.len())?
}

/// How far the text is read.
struct Walk {
    at: usize,
    depth: usize,
    in_string: bool,
}

impl Walk {
    /// Behind the first bracket of a container.
    fn into(text: &[u8], at: usize) -> Option<Walk> {
        matches!(text.get(at)?, b'{' | b'[').then_some(Walk { at: at + 1, depth: 1, in_string: false })
    }

    /// Goes behind a block without backslashes, unless the end may be in it; `None` for a control character in a string.
    fn pass(&mut self, bits: &Bits) -> Option<bool> {
        // What stands between quotes, with the first of them: each bit is the parity of those up to it.
        let mut inside = bits.quotes;
        for shift in [1, 2, 4, 8, 16, 32] {
            inside ^= inside << shift;
        }
        if self.in_string {
            inside = !inside;
        }
        let closing = (bits.closing & !inside).count_ones() as usize;
        if closing >= self.depth {
            return Some(false);
        }
        if bits.controls & inside != 0 {
            return None;
        }
        self.depth += (bits.opening & !inside).count_ones() as usize;
        self.depth -= closing;
        self.in_string = inside >> (BLOCK - 1) != 0;
        self.at += BLOCK;
        Some(true)
    }

    /// Goes on byte by byte, to a place or a little further. The end of the container, if it came; `None` when there is none.
    fn slowly(&mut self, text: &[u8], to: usize) -> Option<Option<usize>> {
        while self.at < to {
            if self.in_string {
                self.at += schema::json::plain(text.get(self.at..to)?);
                if self.at == to {
                    break;
                }
            }
            match (*text.get(self.at)?, self.in_string) {
                (b'"', _) => self.in_string = !self.in_string,
                (b'\\', true) => self.at += 1,
                (0..0x20, true) => return None,
                (b'{' | b'[', false) => self.depth += 1,
                (b'}' | b']', false) => {
                    self.depth = self.depth.checked_sub(1)?;
                    if self.depth == 0 {
                        return Some(Some(self.at + 1));
                    }
                }
                _ => {}
            }
            self.at += 1;
        }
        Some(None)
    }
}

/// A bit for each byte of a block, the first one's lowest: whether it is one of those.
#[derive(Debug, PartialEq, Eq)]
struct Bits {
    quotes: u64,
    backslashes: u64,
    opening: u64,
    closing: u64,
    controls: u64,
}

impl Bits {
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code, reason = "the compiler asks for it where a function needs more than any processor has")]
    fn of(block: &[u8; BLOCK]) -> Bits {
        // SAFETY: every processor of this architecture has SSE2.
        unsafe { Bits::by_sixteen(block) }
    }

    /// Sixteen bytes at a time.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "sse2")]
    fn by_sixteen(block: &[u8; BLOCK]) -> Bits {
        use std::arch::x86_64::{
            __m128i, _mm_cmpeq_epi8, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8,
        };
        let all = |byte: u8| _mm_set1_epi8(byte.cast_signed());
        let (quote, backslash, case, last) = (all(b'"'), all(b'\\'), all(0x20), all(0x1f));
        let (opening, closing) = (all(b'{'), all(b'}'));
        let mut bits = Bits { quotes: 0, backslashes: 0, opening: 0, closing: 0, controls: 0 };
        for (n, bytes) in block.as_chunks::<16>().0.iter().enumerate() {
            let (low, high) = bytes.split_at(8);
            let word = |bytes: &[u8]| bytes.first_chunk().map_or(0, |bytes| i64::from_le_bytes(*bytes));
            let bytes = _mm_set_epi64x(word(high), word(low));
            let marked = |same: __m128i| u64::from(_mm_movemask_epi8(same).cast_unsigned()) << (16 * n);
            // The brackets differ from the braces by one bit.
            let folded = _mm_or_si128(bytes, case);
            bits.quotes |= marked(_mm_cmpeq_epi8(bytes, quote));
            bits.backslashes |= marked(_mm_cmpeq_epi8(bytes, backslash));
            bits.opening |= marked(_mm_cmpeq_epi8(folded, opening));
            bits.closing |= marked(_mm_cmpeq_epi8(folded, closing));
            bits.controls |= marked(_mm_cmpeq_epi8(_mm_min_epu8(bytes, last), bytes));
        }
        bits
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn of(block: &[u8; BLOCK]) -> Bits {
        Bits::one_by_one(block)
    }

    #[cfg(any(test, not(target_arch = "x86_64")))]
    fn one_by_one(block: &[u8; BLOCK]) -> Bits {
        let marked = |is: fn(u8) -> bool| block.iter().rev().fold(0, |bits, byte| bits << 1 | u64::from(is(*byte)));
        Bits {
            quotes: marked(|byte| byte == b'"'),
            backslashes: marked(|byte| byte == b'\\'),
            opening: marked(|byte| matches!(byte, b'{' | b'[')),
            closing: marked(|byte| matches!(byte, b'}' | b']')),
            controls: marked(|byte| byte < 0x20),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(text: &[u8]) -> Option<usize> {
        let mut walk = Walk::into(text, 0)?;
        walk.slowly(text, text.len())?
    }

    #[test]
    fn the_end_of_a_container_is_found() {
        for (text, end) in [
            ("{}", Some(2)),
            ("[]]", Some(2)),
            ("{\"a\":\"}\"}, ", Some(9)),
            ("{\"a\":[1,{\"b\":\"\\\"]\"}]}x", Some(21)),
            ("{\"a\":\"\n\"}", None),
            ("{\"a", None),
            ("{\"a\":1", None),
            ("", None),
        ] {
            assert_eq!(container(text.as_bytes(), 0), end, "{text}");
            for pad in [60, 63, 64, 127, 128] {
                let long = format!("{{\"{}\":{text}", "x".repeat(pad));
                assert_eq!(container(long.as_bytes(), pad + 4), end.map(|end| end + pad + 4), "{long}");
                assert_eq!(container(long.as_bytes(), 0), whole(long.as_bytes()), "{long}");
            }
        }
    }

    proptest! {
        #[test]
        fn blocks_say_what_bytes_say(block in any::<[u8; 32]>(), other in "[{}\\[\\]\"\\\\a\n]{32}") {
            let mut bytes = [0; BLOCK];
            bytes[..32].copy_from_slice(&block);
            bytes[32..].copy_from_slice(other.as_bytes());
            prop_assert_eq!(Bits::of(&bytes), Bits::one_by_one(&bytes));
        }

        #[test]
        fn the_end_is_that_of_a_walk_over_all_bytes(text in "\\{[{}\\[\\]\",:\\\\ab ü\n]{0,400}", long in "\\{(\"[a-z{}ü]{0,20}\"[:,\\[{}\\]]{0,2}){0,60}") {
            prop_assert_eq!(container(text.as_bytes(), 0), whole(text.as_bytes()));
            prop_assert_eq!(container(long.as_bytes(), 0), whole(long.as_bytes()));
        }
    }
}
