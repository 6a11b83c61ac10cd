//! Two API servers on one store, whose clients make, change and remove Services: nobody is given what another holds, and what
//! nobody holds any more can be had again.

mod clerk;
mod ledger;
mod script;

use super::done::Allotted;
use super::server::{PATIENCE, Rows, Seats, Site, Time, run};
use super::wire::Line;
use crate::cache::hooks::{self, Mutant};
use api::Status;
use clerk::{Served, ask, rows};
use ledger::{Ledger, Since};
use script::{Kind, Setting};
use store::embedded::Clock;
use store::testing::fiber;
use store::testing::random::Random;
use store::testing::sim::driver::Driver;
use store::testing::sim::machine::{Machine, Request, Slot, Stop, answered};
use store::testing::sim::rig::Rig;
use store::testing::sim::world::{Verdict, World};
use store::{Event, Store};

const SERVERS: usize = 2;
/// In the store's process: who calls for each server, and who serves its watch.
const CALLERS: usize = 3;
const LINE: usize = CALLERS + 1;
/// Who compacts.
const COMPACTOR: usize = SERVERS * LINE;
const INSIDE: usize = COMPACTOR + 1;
/// In each API server's process: what feeds its caches, and who writes through it.
const CLERKS: usize = 3;
const SITE: usize = 3 + CLERKS;

type Asking = Request<clerk::Request, Since, Result<Served, Status>>;

/// An API server, and who writes through it.
struct Office {
    site: Site,
    clerks: [Option<Asking>; CLERKS],
}

impl Office {
    fn new(at: usize) -> Office {
        let (line, first) = (at * LINE, INSIDE + at * SITE);
        let seats = Seats { feed: first, mender: first + 1, opener: first + 2, all: first..first + SITE };
        let line = Line::new(line..line + CALLERS, line + CALLERS..line + LINE);
        Office { site: Site::new(seats, line), clerks: Default::default() }
    }

    /// Its process ends where it is.
    fn stop(&mut self, machine: &Machine) -> Verdict {
        self.clerks = Default::default();
        self.site.stop(machine).map(drop)
    }
}

/// A simulation under way.
pub(in crate::cache) struct Pair {
    rig: Rig,
    offices: [Office; SERVERS],
    ledger: Ledger,
    unique: u64,
    done: Allotted,
    /// Goes last: what is above may have timers.
    time: Time,
}

impl World for Pair {
    type Setting = Setting;
    type Mutant = Mutant;
    type Done = Allotted;

    const SEATS: (usize, usize) = (INSIDE, SERVERS * SITE);

    fn mutate(mutant: Option<Mutant>) {
        hooks::mutate(mutant);
    }

    fn new(rig: Rig, _: Setting) -> Pair {
        Pair {
            rig,
            offices: std::array::from_fn(Office::new),
            ledger: Ledger::default(),
            unique: 0,
            done: Allotted::default(),
            time: Time::new(),
        }
    }

    fn rig(&mut self) -> &mut Rig {
        &mut self.rig
    }

    fn step(&mut self, kind: Kind, random: &mut Random) -> Result<(), Stop> {
        let at = random.index(SERVERS);
        match kind {
            Kind::Request => self.requests(random)?,
            Kind::Compact if self.rig.machine.is_free(COMPACTOR) => {
                let (engine, revision) = (self.rig.machine.engine(), self.ledger.revision);
                self.note(|| format!("compacted at {revision}"));
                // Whether it succeeds is of no interest here.
                self.rig.machine.start(COMPACTOR, &Slot::default(), move || fiber::wait(engine.compact(revision)));
            }
            Kind::Compact => {}
            Kind::Stall => self.rig.machine.freeze([self.offices[at].site.seats.feed]),
            Kind::Release => self.rig.machine.freeze([]),
            Kind::Lose => {
                let watch = random.chance(60);
                self.note(|| format!("server {at} is cut off, its watch: {watch}"));
                self.offices[at].site.line.cut(&self.rig.machine, watch)?;
            }
            Kind::Restart => {
                self.note(|| format!("server {at} is started anew"));
                self.offices[at].stop(&self.rig.machine)?;
            }
        }
        Ok(())
    }

    fn span(&self, random: &mut Random) -> u64 {
        *random.pick(&[1, 150, 900, 3100, 11_000, 61_000])
    }

    fn passed(&mut self, millis: u64) {
        self.time.advance(millis);
    }

    fn ended(&mut self) -> Verdict {
        self.offices.iter_mut().for_each(|office| office.site.line.drop_all());
        Ok(())
    }

    fn start(&mut self) {
        for site in self.offices.iter_mut().map(|office| &mut office.site).filter(|site| !site.runs()) {
            let rows = Rows { served: rows(), followed: rows(), allocates: Some(clerk::allocator) };
            site.start(&self.rig.machine, &self.time, rows);
        }
    }

    fn revision(&self) -> i64 {
        self.ledger.revision.max(1)
    }

    fn seen(&mut self, events: &[Event], _: bool) -> Verdict {
        self.ledger.add(events)
    }

    fn carry(&mut self) {
        self.offices.iter_mut().for_each(|office| office.site.line.pump(&self.rig.machine));
    }

    fn look(&mut self) -> Verdict {
        for at in 0..SERVERS {
            let office = &mut self.offices[at];
            if !office.site.look(&self.rig.machine)? {
                office.stop(&self.rig.machine)?;
            }
            for clerk in 0..CLERKS {
                let Some((request, since, answer)) = answered(&mut self.offices[at].clerks[clerk]) else { continue };
                self.note(|| format!("  clerk {clerk} of server {at} is answered {answer:?}"));
                match &answer {
                    Ok(_) => self.done.given += 1,
                    Err(status) if status.message.contains("range is full") => self.done.full += 1,
                    Err(_) => self.done.denied += 1,
                }
                let known = self.offices[at].site.known(&self.rig.machine);
                let verdict = self.ledger.answered(&request, since, &answer, (known, self.rig.machine.now()));
                verdict.map_err(|why| format!("{request:?} since {since:?} is answered {answer:?}: {why}"))?;
            }
        }
        Ok(())
    }

    fn is_quiet(&self) -> bool {
        self.offices.iter().all(|office| office.site.line.wire.is_quiet())
    }

    fn is_settled(&self) -> Result<bool, String> {
        let settled = |office: &Office| office.site.follows() && office.clerks.iter().all(Option::is_none);
        Ok(self.offices.iter().all(settled))
    }

    fn finish(&mut self) -> Result<Allotted, String> {
        self.offices.iter_mut().try_for_each(|office| office.stop(&self.rig.machine))?;
        self.done.revisions = self.ledger.revision;
        self.done.crashes = self.rig.crashes;
        Ok(self.done.clone())
    }
}

impl Pair {
    /// Clients write through either server, of which one may not know what the other did.
    fn requests(&mut self, random: &mut Random) -> Result<(), Stop> {
        self.turns_while(PATIENCE, |pair| pair.offices.iter().all(|office| office.site.up().is_some()))?;
        let lags = random.chance(40).then(|| self.offices[random.index(SERVERS)].site.seats.feed);
        self.rig.machine.freeze(lags);
        let subject = self.ledger.subject(random);
        for _ in 0..1 + random.below(5) {
            let subject = random.chance(50).then(|| subject.clone());
            self.request(random, subject);
            self.some_turns(random.below(30))?;
        }
        if lags.is_some() {
            self.some_turns(random.below(40))?;
            self.rig.machine.freeze([]);
        }
        Ok(())
    }

    fn request(&mut self, random: &mut Random, subject: Option<String>) {
        let at = random.index(SERVERS);
        let Office { site, clerks } = &self.offices[at];
        let Some(clerk) = clerks.iter().position(Option::is_none) else { return };
        let Some(up) = site.up().cloned() else { return };
        let (known, seat) = (site.known(&self.rig.machine), site.seats.opener + 1 + clerk);
        self.unique += 1;
        let wall = self.rig.machine.hand().wall_millis();
        let request = self.ledger.draw(random, subject, self.unique, wall);
        let since = self.ledger.asked(&request, known, self.rig.machine.now());
        self.note(|| format!("clerk {clerk} of server {at}: {request:?}"));
        let answer = Slot::default();
        run(&self.rig.machine, seat, &self.time.handle(), &answer, ask(up, request.clone()));
        self.offices[at].clerks[clerk] = Some(Request { asked: request, since, answer });
    }
}
