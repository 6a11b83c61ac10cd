//! Coordinated leader election: candidates, and the strategies by which one of them is picked.

use super::fields::{Errors, immutable, problems};
use crate::tree::Map;
use crate::view::coordination_v1beta1::{LeaseCandidate, LeaseCandidateSpec};
use api::{FieldError, Path, names};
use std::cmp::Ordering;

const SPEC: Path<'static> = Path::root("spec");
static EMPTY: Map = Map::new();

/// A strategy: upstream's own, or one with a domain.
pub(super) fn strategy(errors: &mut Errors, path: &Path<'_>, strategy: &str) {
    let path = path.child("strategy");
    match strategy.split('/').collect::<Vec<_>>()[..] {
        ["OldestEmulationVersion"] => {}
        [_] => errors.push(FieldError::not_supported(&path, strategy, &["OldestEmulationVersion"])),
        _ => problems(errors, &path, strategy, names::qualified_name(strategy)),
    }
}

pub(super) fn candidate(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let spec = LeaseCandidate(object).spec().unwrap_or(LeaseCandidateSpec(&EMPTY));
    if spec.lease_name().unwrap_or("").is_empty() {
        errors.push(FieldError::required(&SPEC.child("leaseName"), ""));
    }
    // One that is absent or can't be read counts as 0.0.0.
    let version = |errors: &mut Errors, field: &str, text: &str| {
        let parsed = Semver::parse(text);
        if parsed.is_none() && !text.is_empty() {
            let why = "must be a valid semantic version";
            errors.push(FieldError::invalid(&SPEC.child(field), text, why));
        }
        parsed.unwrap_or_default()
    };
    let (emulated, binary) = (spec.emulation_version().unwrap_or(""), spec.binary_version().unwrap_or(""));
    let emulation = version(&mut errors, "emulationVersion", emulated);
    if binary.is_empty() {
        errors.push(FieldError::required(&SPEC.child("binaryVersion"), ""));
    }
    let built = version(&mut errors, "binaryVersion", binary);
    if !binary.is_empty() && !emulated.is_empty() && built.cmp(&emulation) == Ordering::Less {
        let why = "must be greater than or equal to `emulationVersion`";
        errors.push(FieldError::invalid(&SPEC.child("binaryVersion"), binary, why));
    }
    let path = SPEC.child("strategy");
    match spec.strategy().unwrap_or("") {
        "" => errors.push(FieldError::required(&path, "")),
        picked => {
            if picked == "OldestEmulationVersion" && emulation == Semver::default() {
                let why = "must be specified when `strategy` is 'OldestEmulationVersion'";
                errors.push(FieldError::required(&SPEC.child("emulationVersion"), why));
            }
            strategy(&mut errors, &path, picked);
        }
    }
    errors
}

pub(super) fn candidate_update(_: &str, new: &Map, old: &Map) -> Errors {
    let mut errors = candidate(new);
    let name = |object: &'_ Map| object.at(&["spec", "leaseName"]).cloned();
    immutable(&mut errors, &SPEC.child("leaseName"), name(new).as_ref(), name(old).as_ref());
    errors
}

/// A version as <https://semver.org> has it; what was built with is not compared.
#[derive(Debug, Default, PartialEq, Eq)]
struct Semver {
    numbers: [u64; 3],
    /// Empty: a release, which is after all that lead to it.
    pre: Vec<Identifier>,
}

/// Numbers are before words.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    Number(u64),
    Word(String),
}

impl Semver {
    fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| {
            let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
            plain.then(|| text.parse::<u64>().ok()).flatten()
        };
        let word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
        let (text, pre) = text.split_once('-').map_or((text, None), |(text, pre)| (text, Some(pre)));
        if build.is_some_and(|build| !build.split('.').all(word)) {
            return None;
        }
        let mut numbers = text.split('.').map(number);
        let version = [numbers.next()??, numbers.next()??, numbers.next()??];
        if numbers.next().is_some() {
            return None;
        }
        let identifier = |text: &str| match text.bytes().all(|b| b.is_ascii_digit()) {
            _ if !word(text) => None,
            true => number(text).map(Identifier::Number),
            false => Some(Identifier::Word(text.to_owned())),
        };
        let pre: Option<Vec<Identifier>> = pre.map_or(Some(Vec::new()), |pre| pre.split('.').map(identifier).collect());
        Some(Semver { numbers: version, pre: pre? })
    }

    fn cmp(&self, other: &Semver) -> Ordering {
        let pre = match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            _ => self.pre.cmp(&other.pre),
        };
        self.numbers.cmp(&other.numbers).then(pre)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered() {
        let all =
            ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0", "1.36.0"];
        for pair in all.windows(2) {
            let (low, high) = (Semver::parse(pair[0]).expect(pair[0]), Semver::parse(pair[1]).expect(pair[1]));
            assert_eq!(low.cmp(&high), Ordering::Less, "{pair:?}");
        }
        assert_eq!(Semver::parse("1.2.3+a.b"), Semver::parse("1.2.3"));
        for bad in ["", "1", "1.2", "v1.2.3", "01.2.3", "1.2.3.4", "1.2.3-", "1.2.3-01", "1.2.3+", "1.2.x"] {
            assert_eq!(Semver::parse(bad), None, "{bad}");
        }
    }
}
