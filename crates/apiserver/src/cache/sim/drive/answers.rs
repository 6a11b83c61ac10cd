//! What was answered and told is judged.

use super::{Begun, Single, Watching};
use crate::cache::sim::client::Pieces;
use crate::cache::sim::follow::{Begin, Ended, Follower};
use crate::cache::sim::judge::{Found, Read, Since};
use crate::cache::sim::script::Watched;
use crate::cache::sim::write::{Write, Wrote};
use crate::options::{ListOptions, Match};
use crate::registry::token::Token;
use api::Status;
use std::sync::{Arc, Mutex};
use store::testing::sim::driver::Driver;
use store::testing::sim::machine::{Request, Slot, take};
use store::testing::sim::world::{Verdict, expect};

impl Single {
    pub(super) fn read(&mut self, at: usize, read: &Read, since: Since, answer: Result<Found, Status>) -> Verdict {
        self.note(|| format!("  reader {at} is answered {answer:?}"));
        self.done.reads += 1;
        let verdict = self.judge.answered(read, since, &answer);
        verdict.map_err(|why| format!("{read:?} since {}: {why}", since.revision))?;
        let next = match (&answer, read) {
            (Ok(found), Read::List(view, options)) => {
                self.resume.push((view.clone(), found.revision));
                self.listed = Some(found.revision);
                (!found.next.is_empty()).then(|| (found.next.clone(), view, options))
            }
            (Err(status), Read::List(view, options)) => {
                self.done.refused += 1;
                let token = status.details.as_ref().map(|details| details.continue_token.clone());
                token.filter(|token| !token.is_empty()).map(|token| (token, view, options))
            }
            _ => None,
        };
        if let Some((token, view, options)) = next {
            let token = Token::decode(&token).map_err(|status| status.message)?;
            let options =
                ListOptions { token: Some(token), version: None, version_match: Match::Unset, ..options.clone() };
            self.tokens.push((view.clone(), options));
        }
        Ok(())
    }

    pub(super) fn written(
        &mut self,
        at: usize,
        write: &Write,
        since: Since,
        answer: &Result<Wrote, Status>,
    ) -> Verdict {
        self.note(|| format!("  author {at} is answered {answer:?}"));
        match answer {
            Ok(_) => self.done.writes += 1,
            Err(_) => self.done.denied += 1,
        }
        let verdict = self.judge.answered_write(write, since, answer);
        verdict.map_err(|why| format!("{write:?} since {} is answered {answer:?}: {why}", since.revision))
    }

    pub(super) fn look_at_watch(&mut self, at: usize) -> Verdict {
        match self.watchers[at].as_mut() {
            None => Ok(()),
            Some(Watching::Beginning(request)) => match take(&request.answer) {
                Some(begun) => self.watch_begun(at, begun),
                None => Ok(()),
            },
            Some(Watching::There(follower, _, told)) => {
                follower.waits(&self.judge);
                match take(told) {
                    Some(pieces) => self.watch_told(at, &pieces),
                    None => Ok(()),
                }
            }
        }
    }

    fn watch_begun(&mut self, at: usize, begun: Begun) -> Verdict {
        let Some(Watching::Beginning(Request { asked, since, .. })) = self.watchers[at].take() else { return Ok(()) };
        let Watched { view, options, timeout } = *asked;
        let asked = options.version.map_or(0, u64::cast_signed);
        let (body, initial) = match begun {
            Ok(begun) => begun,
            Err(status) => {
                self.note(|| format!("  watch {at} is refused: {status:?}"));
                self.done.refused += 1;
                return self.judge.may_refuse(&status, asked, view.storage, |key| view.reaches(key), since);
            }
        };
        self.note(|| format!("  watch {at} begins with {initial:?}"));
        self.done.watches += 1;
        let begin = match initial {
            Some(revision) => {
                let least = options.version.map_or(since.revision, u64::cast_signed);
                expect((least..=self.judge.revision()).contains(&revision), || {
                    format!("a watch begins with {revision}, and {least} was there before")
                })?;
                Begin::With(revision)
            }
            None if asked == 0 => {
                let least = options.version.map_or(since.revision, u64::cast_signed);
                Begin::Between(least, self.judge.revision())
            }
            None => Begin::After(asked),
        };
        let marks = (options.bookmarks, options.bookmarks && options.send_initial_events == Some(true));
        let timeout = timeout.as_millis() as u64;
        let follower = Follower::new(view, since, &begin, marks, timeout, &self.judge);
        let stream = Arc::new(Mutex::new(Some(body)));
        self.watchers[at] = Some(Watching::There(Box::new(follower), stream, Slot::default()));
        Ok(())
    }

    fn watch_told(&mut self, at: usize, told: &Pieces) -> Verdict {
        let mut ended = None;
        for piece in &told.pieces {
            for line in piece.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                self.note(|| format!("  watch {at} is told {}", String::from_utf8_lossy(line)));
                let event = serde_json::from_slice(line).map_err(|error| format!("watch {at}: {error}"))?;
                let Some(Watching::There(follower, ..)) = &mut self.watchers[at] else { return Ok(()) };
                expect(ended.is_none(), || format!("watch {at} is told {event} after its end"))?;
                let verdict = follower.told(&event, &self.judge);
                ended = verdict.map_err(|why| format!("watch {at} of {:?}: {why}", follower.view))?;
                if event["type"] == "BOOKMARK" {
                    self.done.bookmarks += 1;
                } else {
                    self.done.events += 1;
                }
            }
        }
        let Some(Watching::There(follower, ..)) = &self.watchers[at] else { return Ok(()) };
        if told.ended && ended.is_none() {
            let why = follower.ended(&self.judge);
            ended = Some(why.map_err(|why| format!("watch {at} of {:?}: {why}", follower.view))?);
        }
        let Some(ended) = ended else { return Ok(()) };
        self.note(|| format!("  watch {at} ends: {ended:?}"));
        match ended {
            Ended::Expired => {
                self.done.expired += 1;
                // Its client lists again.
                self.watchers[at] = None;
            }
            Ended::Slow | Ended::Timeout => {
                self.done.slow += u64::from(ended == Ended::Slow);
                self.forget_watch(at);
            }
        }
        Ok(())
    }
}
