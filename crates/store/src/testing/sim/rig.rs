//! What every simulation stands on: a store on a machine, who sees all that it does, and what happened.

use super::machine::{Machine, Slot, take};
use super::story::brief;
use super::witness::Witness;
use crate::Error;
use crate::embedded::Options;
use crate::testing::disk::Loss;

/// The machine, who sees everything on it, and what happened.
pub struct Rig {
    pub machine: Machine,
    pub witness: Witness,
    /// What the store is opened with next.
    pub options: Options,
    /// What becomes of the page cache at the next end, if it is lost.
    pub loss: Option<Loss>,
    /// When it ends next it is not started again by itself.
    pub away: bool,
    /// It ends at one boundary, which was asked for, and never else.
    pub ends_once: bool,
    pub upkeep: Option<Slot<Result<(), Error>>>,
    /// Losses of power and kills.
    pub crashes: u64,
    /// What happened.
    pub trace: Vec<String>,
}

impl Rig {
    /// Around a machine on which no store was opened yet.
    pub fn new(machine: Machine, options: Options) -> Self {
        let witness = Witness::default();
        Self {
            machine,
            witness,
            options,
            loss: None,
            away: false,
            ends_once: false,
            upkeep: None,
            crashes: 0,
            trace: Vec::new(),
        }
    }

    pub fn note(&mut self, words: impl FnOnce() -> String) {
        let words = brief(&words());
        self.trace.push(format!("{:>7} ms  {words}", self.machine.now()));
    }

    /// The upkeep looks what is due, unless it does already.
    pub fn begin_upkeep(&mut self, all: bool) {
        if self.upkeep.is_none() && self.machine.is_open() {
            self.note(|| format!("upkeep, all: {all}"));
            let slot = Slot::default();
            self.machine.upkeep(all, &slot);
            self.upkeep = Some(slot);
        }
    }

    /// Takes note of the end of the upkeep; tells whether it has done its work.
    ///
    /// # Errors
    /// When it failed, and the disk did not.
    pub fn look_at_upkeep(&mut self) -> Result<bool, String> {
        let Some(result) = self.upkeep.as_ref().and_then(|slot| take(slot)) else { return Ok(false) };
        self.upkeep = None;
        match result {
            Ok(()) => Ok(true),
            Err(Error::Io { .. } | Error::ReadOnly { .. } | Error::Unknown { .. }) if self.machine.failures() > 0 => {
                Ok(false)
            }
            Err(error) => Err(format!("the upkeep failed: {error:?}")),
        }
    }
}
