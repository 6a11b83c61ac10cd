//! Who holds what, as the store has it, revision by revision: at each, every address and port that a Service has is claimed for it
//! and no other, and nothing else is claimed.

use super::clerk::{PORTS, Request, SIZE, Served, Verb};
use crate::allocator::bitmap::PortBitmap;
use crate::allocator::range::PortRange;
use crate::cache::feed::PATIENCE;
use crate::cache::sim::wire::Known;
use api::{Reason, Status};
use std::collections::{BTreeMap, BTreeSet};
use store::Event;
use store::testing::random::Random;
use store::testing::sim::world::{Verdict, expect};

const SERVICES: &str = "/registry/services/specs/a/";
const ADDRESSES: &str = "/registry/ipaddresses/";
const BITMAP: &str = "/registry/ranges/servicenodeports";
/// Names that are used.
const NAMES: u64 = 8;

/// What was known when something was asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Since {
    revision: i64,
    time: u64,
    known: Known,
}

/// All that is there at a revision.
#[derive(Clone, Debug, Default)]
struct Page {
    services: BTreeMap<String, Served>,
    /// By the Service that they are claimed for.
    addresses: BTreeMap<String, String>,
    ports: BTreeSet<u16>,
}

struct Asked {
    request: Request,
    since: i64,
    /// The revision that did it.
    made: Option<i64>,
}

#[derive(Default)]
pub(super) struct Ledger {
    pub(super) revision: i64,
    now: Page,
    pages: BTreeMap<i64, Page>,
    asked: Vec<Asked>,
}

impl Page {
    /// What is held is what is claimed.
    fn check(&self) -> Verdict {
        let mut addresses = BTreeMap::new();
        let mut ports = BTreeMap::new();
        for (name, service) in &self.services {
            for address in &service.addresses {
                let other = addresses.insert(address.clone(), name.clone());
                expect(other.is_none(), || format!("{address} is {name}'s, and {other:?}'s"))?;
            }
            for port in &service.ports {
                let other = ports.insert(*port, name.clone());
                expect(other.is_none(), || format!("port {port} is {name}'s, and {other:?}'s"))?;
            }
        }
        expect(addresses == self.addresses, || {
            format!("Services have {addresses:?}, and claimed are {:?}", self.addresses)
        })?;
        expect(ports.keys().eq(&self.ports), || format!("Services have {ports:?}, and claimed are {:?}", self.ports))
    }
}

impl Ledger {
    /// The store tells what happened next.
    pub(super) fn add(&mut self, events: &[Event]) -> Verdict {
        for events in events.chunk_by(|one, next| one.revision() == next.revision()) {
            let revision = events[0].revision();
            for event in events {
                self.enter(event).map_err(|why| format!("at {revision}: {why}"))?;
            }
            self.revision = revision;
            self.now.check().map_err(|why| format!("at {revision}: {why}"))?;
            self.pages.insert(revision, self.now.clone());
        }
        Ok(())
    }

    fn enter(&mut self, event: &Event) -> Verdict {
        let key = String::from_utf8_lossy(event.key()).into_owned();
        let value = match event {
            Event::Put { kv, .. } => Some(&kv.value),
            Event::Delete { .. } => None,
        };
        let parsed = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).map_err(|error| error.to_string());
        if let Some(name) = key.strip_prefix(SERVICES) {
            let before = self.now.services.remove(name);
            let now = match value {
                Some(value) => Some(Served::of(&parsed(value)?, Some(event.revision()))),
                None => None,
            };
            self.explain(name, before.as_ref(), now.as_ref(), event.revision())?;
            now.and_then(|now| self.now.services.insert(name.to_owned(), now));
        } else if let Some(address) = key.strip_prefix(ADDRESSES) {
            self.now.addresses.remove(address);
            if let Some(value) = value {
                let claim = parsed(value)?;
                let owner = claim.pointer("/spec/parentRef/name").and_then(serde_json::Value::as_str);
                self.now.addresses.insert(address.to_owned(), owner.unwrap_or_default().to_owned());
            }
        } else if key == BITMAP {
            let range = PortRange::parse(PORTS).ok_or("no range of ports")?;
            let bitmap = value.and_then(|value| PortBitmap::from_stored(range, value)).ok_or("no bitmap")?;
            self.now.ports = (30_000..30_000 + SIZE as u16).filter(|port| bitmap.taken(*port)).collect();
        }
        Ok(())
    }

    /// Somebody has asked for it, and not for a dry run.
    fn explain(&mut self, name: &str, before: Option<&Served>, now: Option<&Served>, revision: i64) -> Verdict {
        let mut asked = self.asked.iter_mut().filter(|asked| {
            asked.request.name == name && !asked.request.dry && asked.since < revision && asked.made.is_none()
        });
        let found = match (before, now) {
            (_, None) => asked.find(|asked| matches!(asked.request.verb, Verb::Delete)),
            (None, Some(now)) => {
                asked.find(|asked| matches!(asked.request.verb, Verb::Create(_)) && asked.request.mark == now.mark)
            }
            (Some(_), Some(now)) => {
                asked.find(|asked| matches!(asked.request.verb, Verb::Change(_)) && asked.request.mark == now.mark)
            }
        };
        match found {
            Some(asked) => asked.made = Some(revision),
            None => return Err(format!("nobody wanted {name} to become {now:?} of {before:?}")),
        }
        Ok(())
    }

    /// A name that several write at a time.
    pub(super) fn subject(&self, random: &mut Random) -> String {
        format!("s{}", random.below(NAMES))
    }

    pub(super) fn draw(&self, random: &mut Random, subject: Option<String>, unique: u64, wall: i64) -> Request {
        let name = subject.unwrap_or_else(|| self.subject(random));
        let exists = self.now.services.contains_key(&name);
        Request::any(random, name, exists, unique, wall)
    }

    /// Something is asked.
    pub(super) fn asked(&mut self, request: &Request, known: Known, time: u64) -> Since {
        self.asked.push(Asked { request: request.clone(), since: self.revision, made: None });
        Since { revision: self.revision, time, known }
    }

    /// All that was there from a moment on.
    fn pages_since(&self, since: Since) -> impl Iterator<Item = &Page> {
        let before = self.pages.range(..=since.revision).next_back().map(|(_, page)| page);
        before.into_iter().chain(self.pages.range(since.revision + 1..).map(|(_, page)| page))
    }

    /// It was answered.
    pub(super) fn answered(
        &self,
        request: &Request,
        since: Since,
        answer: &Result<Served, Status>,
        (known, now): (Known, u64),
    ) -> Verdict {
        match answer {
            Ok(served) => self.served(request, since, served),
            Err(status) => {
                let failed = known.failures > since.known.failures;
                let unknown = match status.code {
                    500 | 503 | 504 if failed => true,
                    503 => known.losses > since.known.losses,
                    504 => now - since.time >= PATIENCE.as_millis() as u64,
                    500 => known.losses > since.known.losses && status.message.contains("the store does not answer"),
                    _ => false,
                };
                if unknown { Ok(()) } else { self.refused(request, since, status) }
            }
        }
    }

    fn served(&self, request: &Request, since: Since, served: &Served) -> Verdict {
        if request.dry {
            return Ok(());
        }
        if matches!(request.verb, Verb::Delete) {
            let gone = self.pages_since(since).any(|page| !page.services.contains_key(&request.name));
            return expect(served.gone && gone, || "it is still there".into());
        }
        let page = self.pages.get(&served.revision);
        let there = page.and_then(|page| page.services.get(&request.name));
        expect(there == Some(served) && served.mark == request.mark, || format!("there was {there:?}"))
    }

    fn refused(&self, request: &Request, since: Since, status: &Status) -> Verdict {
        let mut pages = self.pages_since(since).peekable();
        // Before anything happened nothing is there.
        let empty = Page::default();
        let first = if since.revision <= 1 { Some(&empty) } else { None };
        let pages: Vec<&Page> = first.into_iter().chain(std::iter::from_fn(|| pages.next())).collect();
        let there = |page: &&&Page| page.services.contains_key(&request.name);
        let spec = match &request.verb {
            Verb::Create(spec) | Verb::Change(spec) => Some(spec),
            Verb::Delete => None,
        };
        let message = &status.message;
        let holds = match status.reason {
            Reason::NotFound => pages.iter().any(|page| !there(&page)),
            Reason::AlreadyExists => pages.iter().any(|page| there(&page)),
            _ if message.contains("provided IP is already allocated") => {
                let asked = spec.and_then(|spec| spec.address.clone()).unwrap_or_default();
                pages.iter().any(|page| page.addresses.contains_key(&asked))
            }
            _ if message.contains("provided port is already allocated") => {
                let asked = spec.and_then(|spec| spec.port).unwrap_or_default();
                pages.iter().any(|page| page.ports.contains(&asked))
            }
            _ if message.contains("serviceIP: range is full") => {
                let all: BTreeSet<&String> = pages.iter().flat_map(|page| page.addresses.keys()).collect();
                all.len() == SIZE
            }
            _ if message.contains("nodePort: range is full") => {
                let all: BTreeSet<u16> = pages.iter().flat_map(|page| page.ports.iter().copied()).collect();
                all.len() == SIZE
            }
            // What a Service is may not fit what it is to become.
            Reason::Invalid => matches!(request.verb, Verb::Change(_)) && !message.contains("allocat"),
            _ => false,
        };
        let made = self.asked.iter().find(|asked| asked.request.mark == request.mark).and_then(|asked| asked.made);
        let done = made.filter(|_| !matches!(request.verb, Verb::Delete));
        expect(holds && done.is_none(), || format!("done: {done:?}, and there were {pages:?}"))
    }
}
