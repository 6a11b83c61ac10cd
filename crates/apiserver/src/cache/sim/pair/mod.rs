//! Two API servers on one store, whose clients make, change and remove Services: nobody is given what another holds, and what
//! nobody holds any more can be had again.

mod clerk;
mod ledger;
mod script;

use super::done::Allotted;
use super::server::{Rows, Seats, Server, Time, Up, run};
use super::wire::{Known, Line};
use crate::cache::hooks::{self, Mutant};
use api::Status;
use clerk::{Request, Served, ask, rows};
use ledger::{Ledger, Since};
use script::{Kind, Script};
use std::ops::Range;
use std::sync::Arc;
use store::Store;
use store::embedded::Clock;
use store::testing::disk::Loss;
use store::testing::fiber;
use store::testing::random::Random;
use store::testing::sim::machine::{Machine, Slot, Stop, take};
use store::testing::sim::rig::{Driver, Rig, TURNS};
use store::testing::sim::story::Step;

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
/// So many turns are waited for an API server that starts.
const PATIENCE: u64 = 300;

struct Asking {
    request: Request,
    since: Since,
    answer: Slot<Result<Served, Status>>,
}

/// An API server, and who writes through it.
struct Site {
    seats: Seats,
    line: Line,
    server: Option<Server>,
    clerks: [Option<Asking>; CLERKS],
}

impl Site {
    fn new(at: usize) -> Site {
        let (line, first) = (at * LINE, INSIDE + at * SITE);
        Site {
            seats: Seats { feed: first, mender: first + 1, opener: first + 2, all: first..first + SITE },
            line: Line::new(line..line + CALLERS, line + CALLERS..line + LINE),
            server: None,
            clerks: Default::default(),
        }
    }

    fn clerk_seats(&self) -> Range<usize> {
        self.seats.opener + 1..self.seats.all.end
    }

    fn up(&self) -> Option<&Up> {
        self.server.as_ref().and_then(Server::up)
    }

    /// Its process ends where it is.
    fn stop(&mut self, machine: &Machine) -> Result<(), String> {
        let Some(server) = self.server.take() else { return Ok(()) };
        server.stop(machine)?;
        self.line.drop_all();
        self.clerks = Default::default();
        Ok(())
    }
}

/// A simulation under way.
pub(in crate::cache) struct Pair {
    rig: Rig,
    sites: [Site; SERVERS],
    ledger: Ledger,
    unique: u64,
    done: Allotted,
    /// Goes last: what is above may have timers.
    time: Time,
}

impl Driver for Pair {
    type Script = Script;
    type Mutant = Mutant;
    type Done = Allotted;

    const PACKAGE: &'static str = env!("CARGO_PKG_NAME");

    fn new(script: Arc<Script>, mutant: Option<Mutant>) -> Self {
        let machine = Machine::new(script.seed, (INSIDE, SERVERS * SITE), move || hooks::mutate(mutant));
        Pair {
            rig: Rig::new(machine, script.options.clone()),
            sites: std::array::from_fn(Site::new),
            ledger: Ledger::default(),
            unique: 0,
            done: Allotted::default(),
            time: Time::new(),
        }
    }

    fn rig(&self) -> &Rig {
        &self.rig
    }

    fn rig_mut(&mut self) -> &mut Rig {
        &mut self.rig
    }

    fn begin(&mut self) -> Result<(), Stop> {
        self.start();
        Ok(())
    }

    fn step(&mut self, step: Step<Kind>) -> Result<(), Stop> {
        let mut random = Random::new(step.dice);
        let turns = random.below(10);
        match step.kind {
            Kind::Request => self.requests(&mut random)?,
            Kind::Compact if self.rig.machine.is_free(COMPACTOR) => {
                let (engine, revision) = (self.rig.machine.engine(), self.ledger.revision);
                self.note(|| format!("compacted at {revision}"));
                // Whether it succeeds is of no interest here.
                self.rig.machine.start(COMPACTOR, &Slot::default(), move || fiber::wait(engine.compact(revision)));
            }
            Kind::Compact => {}
            Kind::Upkeep => self.rig.begin_upkeep(random.chance(50)),
            Kind::Advance => {
                let millis = *random.pick(&[1, 150, 900, 3100, 11_000, 61_000]);
                self.note(|| format!("{millis} ms pass"));
                self.pass(millis);
            }
            Kind::Stall => {
                let site = &self.sites[random.index(SERVERS)];
                self.rig.machine.freeze([site.seats.feed]);
            }
            Kind::Release => self.rig.machine.freeze([]),
            Kind::Lose => {
                let watch = random.chance(60);
                let at = random.index(SERVERS);
                self.note(|| format!("server {at} is cut off, its watch: {watch}"));
                self.sites[at].line.cut(&self.rig.machine, watch)?;
            }
            Kind::Crash => {
                let loss = random.chance(60).then(|| Loss::any(&mut random));
                self.rig.crash_soon(loss, 8, &mut random);
            }
            Kind::Restart => {
                let at = random.index(SERVERS);
                self.note(|| format!("server {at} is started anew"));
                self.sites[at].stop(&self.rig.machine)?;
            }
            Kind::Settle => self.settle()?,
        }
        self.start();
        self.some_turns(turns)
    }

    fn turn(&mut self) -> Result<bool, Stop> {
        let went_on = self.rig.machine.turn()?;
        for site in &mut self.sites {
            site.line.pump(&self.rig.machine);
        }
        self.see()?;
        self.look()?;
        Ok(went_on)
    }

    fn opened(&mut self) -> Result<(), Stop> {
        Ok(self.see()?)
    }

    fn ended(&mut self) -> Result<(), String> {
        self.sites.iter_mut().for_each(|site| site.line.drop_all());
        Ok(())
    }

    fn last(&mut self) -> Result<(), Stop> {
        self.settle()
    }

    fn finish(&mut self) -> Result<Allotted, String> {
        self.sites.iter_mut().try_for_each(|site| site.stop(&self.rig.machine))?;
        self.done.revisions = self.ledger.revision;
        self.done.crashes = self.rig.crashes;
        Ok(self.done.clone())
    }

    fn pass(&mut self, millis: u64) {
        self.rig.machine.hand().advance(millis);
        self.time.advance(millis);
    }
}

impl Pair {
    /// Starts the servers that do not run.
    fn start(&mut self) {
        for site in self.sites.iter_mut().filter(|site| site.server.is_none()) {
            let (machine, handle) = (&self.rig.machine, self.time.handle());
            let rows = Rows { served: rows(), followed: rows(), allocates: Some(clerk::allocator) };
            site.server = Some(Server::start(machine, &site.line.wire, &handle, site.seats.clone(), rows));
        }
    }

    /// The ledger sees what the store did.
    fn see(&mut self) -> Result<(), String> {
        if !self.rig.machine.is_open() {
            return Ok(());
        }
        let seen = self.rig.witness.see(&self.rig.machine.engine(), self.ledger.revision.max(1) + 1)?;
        self.ledger.add(&seen)
    }

    fn known(&self, at: usize) -> Known {
        Known { failures: self.rig.machine.failures(), ..self.sites[at].line.wire.known() }
    }

    /// Judges what has been answered.
    fn look(&mut self) -> Result<(), String> {
        self.rig.look_at_upkeep()?;
        for at in 0..SERVERS {
            let site = &mut self.sites[at];
            if let Some(server) = &mut site.server
                && !server.look(&self.rig.machine)?
            {
                site.stop(&self.rig.machine)?;
            }
            for clerk in 0..CLERKS {
                let answer = self.sites[at].clerks[clerk].as_ref().and_then(|asking| take(&asking.answer));
                let Some(answer) = answer else { continue };
                let Some(Asking { request, since, .. }) = self.sites[at].clerks[clerk].take() else { continue };
                self.note(|| format!("  clerk {clerk} of server {at} is answered {answer:?}"));
                match &answer {
                    Ok(_) => self.done.given += 1,
                    Err(status) if status.message.contains("range is full") => self.done.full += 1,
                    Err(_) => self.done.denied += 1,
                }
                let (known, now) = (self.known(at), self.rig.machine.now());
                let verdict = self.ledger.answered(&request, since, &answer, (known, now));
                verdict.map_err(|why| format!("{request:?} since {since:?} is answered {answer:?}: {why}"))?;
            }
        }
        Ok(())
    }

    /// Clients write through either server, of which one may not know what the other did.
    fn requests(&mut self, random: &mut Random) -> Result<(), Stop> {
        for _ in 0..PATIENCE {
            if self.sites.iter().all(|site| site.up().is_some()) || !self.turn()? {
                break;
            }
        }
        let lags = random.chance(40).then(|| self.sites[random.index(SERVERS)].seats.feed);
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
        let site = &self.sites[at];
        let Some(clerk) = site.clerks.iter().position(Option::is_none) else { return };
        let Some(up) = site.up().cloned() else { return };
        self.unique += 1;
        let wall = self.rig.machine.hand().wall_millis();
        let request = self.ledger.draw(random, subject, self.unique, wall);
        let since = self.ledger.asked(&request, self.known(at), self.rig.machine.now());
        self.note(|| format!("clerk {clerk} of server {at}: {request:?}"));
        let (answer, asked) = (Slot::default(), request.clone());
        let seat = self.sites[at].clerk_seats().start + clerk;
        run(&self.rig.machine, seat, &self.time.handle(), &answer, async move { ask(&up, &asked).await });
        self.sites[at].clerks[clerk] = Some(Asking { request, since, answer });
    }

    /// All comes to rest.
    fn settle(&mut self) -> Result<(), Stop> {
        self.rig.machine.heal();
        self.rig.machine.freeze([]);
        let idle = |pair: &Self| {
            let idle = |site: &Site| {
                let follows = site.up().is_some_and(|up| up.registry.caches().following());
                follows && site.clerks.iter().all(Option::is_none)
            };
            pair.sites.iter().all(idle)
        };
        for _ in 0..30 {
            self.start();
            for _ in 0..TURNS {
                if !self.turn()? && self.sites.iter().all(|site| site.line.wire.is_quiet()) {
                    break;
                }
            }
            if idle(self) {
                return Ok(());
            }
            self.pass(1000);
        }
        Err(Stop::Wrong("the API servers do not come to rest".into()))
    }
}
