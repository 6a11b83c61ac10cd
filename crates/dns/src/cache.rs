//! Answers of other resolvers, kept as they came while they hold.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// For how long an answer is kept at most, whatever it says.
const LONGEST: Duration = Duration::from_secs(30);
/// How many answers are kept.
const MOST: usize = 4096;

const HEADER: usize = 12;
const TYPE_SOA: u16 = 6;
const TYPE_OPT: u16 = 41;

/// Kept answers by question. The time is given by the caller.
#[derive(Default)]
pub(crate) struct Cache {
    answers: HashMap<Vec<u8>, Kept>,
}

struct Kept {
    bytes: Vec<u8>,
    /// Where the times to live are.
    ttls: Vec<usize>,
    since: Instant,
    until: Instant,
}

impl Cache {
    /// The kept answer to a question, with times to live that have gone on. The id and the question are
    /// those of the first who asked.
    pub(crate) fn get(&self, key: &[u8], now: Instant) -> Option<Vec<u8>> {
        let kept = self.answers.get(key).filter(|kept| kept.until > now)?;
        let age = u32::try_from(now.saturating_duration_since(kept.since).as_secs()).unwrap_or(u32::MAX);
        let mut bytes = kept.bytes.clone();
        for at in &kept.ttls {
            let ttl = bytes.get_mut(*at..at + 4)?;
            let left = u32::from_be_bytes([ttl[0], ttl[1], ttl[2], ttl[3]]).saturating_sub(age);
            ttl.copy_from_slice(&left.to_be_bytes());
        }
        Some(bytes)
    }

    /// Keeps an answer if it may be kept: it is complete, and is an answer or says that there is none.
    pub(crate) fn put(&mut self, key: Vec<u8>, bytes: &[u8], now: Instant) {
        let Some(answer) = Scan::of(bytes).filter(|scan| scan.ttl > 0) else { return };
        if self.answers.len() >= MOST && !self.answers.contains_key(&key) {
            self.make_room(now);
        }
        let until = now + Duration::from_secs(answer.ttl.into()).min(LONGEST);
        self.answers.insert(key, Kept { bytes: bytes.to_vec(), ttls: answer.ttls, since: now, until });
    }

    fn make_room(&mut self, now: Instant) {
        self.answers.retain(|_, kept| kept.until > now);
        // Half of those that end first, so that this is seldom done.
        if self.answers.len() >= MOST {
            let mut ends: Vec<Instant> = self.answers.values().map(|kept| kept.until).collect();
            ends.sort();
            let middle = ends[ends.len() / 2];
            self.answers.retain(|_, kept| kept.until > middle);
        }
    }
}

/// What has to be known of an answer to keep it.
struct Scan {
    /// Where the times to live are.
    ttls: Vec<usize>,
    /// For how many seconds the answer holds; 0 when it may not be kept.
    ttl: u32,
}

impl Scan {
    fn of(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..HEADER)?;
        let (truncated, code) = (header[2] & 0x02 != 0, header[3] & 0x0f);
        const NO_ERROR: u8 = 0;
        const NO_NAME: u8 = 3;
        if truncated || !matches!(code, NO_ERROR | NO_NAME) {
            return None;
        }
        let count = |at: usize| usize::from(u16::from_be_bytes([header[at], header[at + 1]]));
        let (questions, answers, authorities, additionals) = (count(4), count(6), count(8), count(10));
        let mut at = HEADER;
        for _ in 0..questions {
            at = skip_name(bytes, at)? + 4;
        }
        let mut scan = Self { ttls: Vec::new(), ttl: u32::MAX };
        let mut soa = None;
        for record in 0..answers + authorities + additionals {
            let fields = skip_name(bytes, at)?;
            let field =
                |from: usize| Some(u16::from_be_bytes(bytes.get(fields + from..fields + from + 2)?.try_into().ok()?));
            let (kind, length) = (field(0)?, usize::from(field(8)?));
            let ttl = u32::from_be_bytes(bytes.get(fields + 4..fields + 8)?.try_into().ok()?);
            at = fields + 10 + length;
            bytes.get(..at)?;
            if kind == TYPE_OPT {
                continue;
            }
            scan.ttls.push(fields + 4);
            scan.ttl = scan.ttl.min(ttl);
            if kind == TYPE_SOA && record >= answers {
                // The last field of a SOA record says for how long a name may be taken not to exist.
                soa = Some(u32::from_be_bytes(bytes.get(at - 4..at)?.try_into().ok()?).min(ttl));
            }
        }
        if answers == 0 || code == NO_NAME {
            scan.ttl = soa?.min(scan.ttl);
        }
        Some(scan)
    }
}

/// Where a name that starts at `at` ends.
fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            pointer if pointer >= 0xc0 => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
    use hickory_proto::rr::rdata::{A, SOA};
    use hickory_proto::rr::{Name, RData, Record, RecordType};
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn message(code: ResponseCode) -> Message {
        let mut message = Message::new(7, MessageType::Response, OpCode::Query);
        message.metadata.response_code = code;
        message.add_query(Query::query(name("www.example.org."), RecordType::A));
        message
    }

    fn address(ttl: u32) -> Record {
        Record::from_rdata(name("www.example.org."), ttl, RData::A(A::new(192, 0, 2, 1)))
    }

    fn soa(ttl: u32, minimum: u32) -> Record {
        let soa = SOA::new(name("ns.example.org."), name("admin.example.org."), 1, 2, 3, 4, minimum);
        Record::from_rdata(name("example.org."), ttl, RData::SOA(soa))
    }

    fn kept_for(message: &Message) -> u64 {
        let (now, mut cache) = (Instant::now(), Cache::default());
        cache.put(vec![1], &message.to_vec().unwrap(), now);
        (0..100).take_while(|seconds| cache.get(&[1], now + Duration::from_secs(*seconds)).is_some()).count() as u64
    }

    #[test]
    fn answers_hold_as_long_as_they_say_but_not_too_long() {
        let mut answer = message(ResponseCode::NoError);
        answer.add_answer(address(20)).add_answer(address(9));
        assert_eq!(kept_for(&answer), 9);
        let mut long = message(ResponseCode::NoError);
        long.add_answer(address(86_400));
        assert_eq!(kept_for(&long), 30);
        let mut never = message(ResponseCode::NoError);
        never.add_answer(address(0));
        assert_eq!(kept_for(&never), 0);
    }

    #[test]
    fn absence_holds_as_long_as_the_zone_says() {
        let mut absent = message(ResponseCode::NXDomain);
        absent.add_authority(soa(600, 12));
        assert_eq!(kept_for(&absent), 12);
        assert_eq!(kept_for(&message(ResponseCode::NXDomain)), 0);
        assert_eq!(kept_for(&message(ResponseCode::NoError)), 0);
        let mut failed = message(ResponseCode::ServFail);
        failed.add_authority(soa(600, 12));
        assert_eq!(kept_for(&failed), 0);
    }

    #[test]
    fn times_to_live_go_on() {
        let (now, mut cache) = (Instant::now(), Cache::default());
        let mut answer = message(ResponseCode::NoError);
        answer.add_answer(address(20)).add_additional(soa(15, 1));
        cache.put(vec![1], &answer.to_vec().unwrap(), now);
        let later = cache.get(&[1], now + Duration::from_secs(4)).unwrap();
        let later = Message::from_vec(&later).unwrap();
        assert_eq!((later.answers[0].ttl, later.additionals[0].ttl), (16, 11));
    }

    #[test]
    fn room_is_made_when_it_is_full() {
        let (now, mut cache) = (Instant::now(), Cache::default());
        let mut answer = message(ResponseCode::NoError);
        answer.add_answer(address(20));
        let bytes = answer.to_vec().unwrap();
        for n in 0..(MOST as u32) * 2 {
            cache.put(n.to_be_bytes().into(), &bytes, now + Duration::from_millis(n.into()));
        }
        assert!(cache.answers.len() <= MOST && cache.answers.len() > MOST / 4, "{}", cache.answers.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn hostile_answers_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..80), at in 0usize..60, with: u8) {
            let now = Instant::now();
            let mut cache = Cache::default();
            cache.put(vec![1], &bytes, now);
            cache.get(&[1], now);
            let mut answer = message(ResponseCode::NoError);
            answer.add_answer(address(20)).add_authority(soa(600, 12));
            let mut damaged = answer.to_vec().unwrap();
            damaged[at] = with;
            cache.put(vec![2], &damaged, now);
            cache.get(&[2], now);
        }
    }
}
