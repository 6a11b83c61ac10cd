//! When which revision was made, to the second: of each second, the first revision that changed a key whose history is kept.
//!
//! The times are those of the machine's clock, made to never go back: what a clock that was ahead had stamped is moved to
//! when it was set right; a clock that is behind all that is kept is not believed until it has caught up.

use std::collections::VecDeque;

use super::hooks::{self, Mutant};

/// Seconds since 1970 and the first revision of each, both rising.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Times {
    samples: VecDeque<(i64, i64)>,
}

impl Times {
    /// Takes note of a revision, above those before, and the second in which it is made.
    pub(crate) fn note(&mut self, second: i64, revision: i64) {
        let (mut second, mut first) = (second, revision);
        if let (Some((oldest, _)), Some((newest, _))) = (self.samples.front(), self.samples.back()) {
            if second < *oldest {
                second = *newest;
            }
            while let Some((later, earlier_first)) = self.samples.back().filter(|(later, _)| *later > second) {
                tracing::trace!(later, second, "the clock was set back");
                first = *earlier_first;
                self.samples.pop_back();
            }
        }
        if self.samples.back().is_none_or(|(newest, _)| *newest < second) {
            self.samples.push_back((second, first));
        }
    }

    /// The last revision of a second or those before it, `current` being the present one; `None`: of before what is known.
    pub(crate) fn revision_at(&self, second: i64, current: i64) -> Option<i64> {
        let next = self.samples.partition_point(|(then, _)| *then <= second);
        if next == 0 {
            return None;
        }
        let of_the_next = i64::from(hooks::is(Mutant::SecondHasTheNext));
        Some(self.samples.get(next).map_or(current, |(_, first)| first - 1 + of_the_next))
    }

    /// When a revision was made; `None`: not known.
    pub(crate) fn of(&self, revision: i64) -> Option<i64> {
        let next = self.samples.partition_point(|(_, first)| *first <= revision);
        next.checked_sub(1).map(|at| self.samples[at].0)
    }

    /// The first second of which it is known what was there.
    pub(crate) fn oldest(&self) -> Option<i64> {
        self.samples.front().map(|(second, _)| *second)
    }

    /// Forgets seconds whose state is below a mark.
    pub(crate) fn forget_below(&mut self, mark: i64) {
        while self.samples.get(1).is_some_and(|(_, first)| *first <= mark) {
            self.samples.pop_front();
        }
    }

    /// All up to a revision.
    pub(crate) fn up_to(&self, revision: i64) -> impl Iterator<Item = (i64, i64)> {
        self.samples.iter().copied().take_while(move |(_, first)| *first <= revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(notes: &[(i64, i64)]) -> Times {
        let mut times = Times::default();
        notes.iter().for_each(|(second, revision)| times.note(*second, *revision));
        times
    }

    #[test]
    fn a_second_has_the_state_of_its_end() {
        let times = times(&[(100, 5), (100, 6), (103, 7), (103, 9), (110, 12)]);
        let at = |second| times.revision_at(second, 15);
        assert_eq!(
            [at(99), at(100), at(102), at(103), at(109), at(110), at(500)],
            [None, Some(6), Some(6), Some(11), Some(11), Some(15), Some(15)]
        );
        assert_eq!([times.of(4), times.of(5), times.of(8), times.of(20)], [None, Some(100), Some(103), Some(110)]);
    }

    #[test]
    fn what_is_below_a_mark_is_forgotten_but_for_the_state_at_it() {
        let mut times = times(&[(100, 5), (103, 7), (110, 12)]);
        times.forget_below(6);
        assert_eq!(times.oldest(), Some(100));
        times.forget_below(7);
        assert_eq!((times.oldest(), times.revision_at(105, 15)), (Some(103), Some(11)));
        times.forget_below(100);
        assert_eq!(times.oldest(), Some(110));
    }

    #[test]
    fn a_clock_that_was_ahead_is_corrected() {
        let times = times(&[(100, 5), (9000, 6), (9001, 8), (105, 9), (106, 11)]);
        assert_eq!(times.up_to(99).collect::<Vec<_>>(), [(100, 5), (105, 6), (106, 11)]);
    }

    #[test]
    fn a_clock_that_is_not_set_is_not_believed() {
        let times = times(&[(100, 5), (103, 7), (3, 9), (4, 10), (120, 11)]);
        assert_eq!(times.up_to(99).collect::<Vec<_>>(), [(100, 5), (103, 7), (120, 11)]);
    }
}
