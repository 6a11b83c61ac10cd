//! Which cluster a data directory is: written at its first start, and asked before anything is stopped or removed.
//!
//! Without it, `reset` would remove whatever directory it is pointed at, and a wrong `--name` would end another cluster.

use super::machine::Holding;
use crate::cli::Cidr;
use crate::place::Place;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

pub const DEFAULT_NAME: &str = "pilothouse";
const FILE: &str = "cluster.json";
/// The claim until it is whole.
const UNFINISHED: &str = ".cluster.json.new";
/// What may lie in a directory that is empty otherwise: a file system's own, and what a start makes before it claims.
const NOTHING: [&str; 5] = ["lost+found", "pilothouse.lock", "node.lock", "run", UNFINISHED];
/// What may be given to a cluster before its first start: a restored store, and authorities of one's own.
const GIVEN: [&str; 2] = ["store", "pki"];
const CGROUPS: &str = "/sys/fs/cgroup";

/// A cluster's claim to a data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Empty while only an API server ran here, which needs none, and where another cluster has the name by now: nothing but
    /// the directory is this cluster's then.
    pub name: String,
    /// The machine's shared places (`/var/log/pods`, …) that held something before: they stay when the cluster goes.
    #[serde(default)]
    pub found: Vec<PathBuf>,
}

impl Claim {
    /// The claim in a directory; `None` where there is none.
    fn read(data_dir: &Path) -> Result<Option<Self>> {
        let path = data_dir.join(FILE);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map(Some).with_context(|| {
                format!("{} is damaged: it should be {{\"name\": \"the cluster's name\"}}", path.display())
            }),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// The cluster that a command is about, to be stopped or removed; `None` where there is none. `name` is what the person
    /// said.
    ///
    /// # Errors
    /// A directory that holds something else, or a cluster of another name.
    pub fn of(place: &Place, name: Option<&str>) -> Result<Option<Self>> {
        let directory = place.data_dir.display();
        match Self::read(&place.data_dir)? {
            Some(claim) if claim.name.is_empty() => Ok(Some(claim)),
            Some(claim) => {
                let claim = claim.answers_to(place, name)?;
                let holder = place.machine.holder(&claim.name)?.map(|holding| holding.data_dir);
                let taken = holder.is_some_and(|other| other != place.data_dir && lives(&other, &claim.name));
                Ok(Some(if taken { Claim { name: String::new(), ..claim } } else { claim }))
            }
            None if is_empty(&place.data_dir, &[])? => {
                // The directory was removed by hand; what runs and is mounted is still there, and was this directory's.
                let name = name.unwrap_or(DEFAULT_NAME);
                let held = place.machine.holder(name)?.is_some_and(|holding| holding.data_dir == place.data_dir);
                Ok((held && is_ours(name)).then(|| Claim { name: name.to_owned(), found: shared(place) }))
            }
            None => bail!("{directory} holds no cluster of Pilothouse, but other things: nothing was touched"),
        }
    }

    /// Whether [`Self::take`] would refuse; nothing is written. For a start, before it makes anything.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn check(place: &Place, name: Option<&str>, networks: Option<&[Cidr]>) -> Result<()> {
        let present = Self::read(&place.data_dir)?;
        if place.default && present.is_none() {
            for sign in [place.kubelet.join("pods"), place.kubelet.join("config.yaml")] {
                if sign.is_file() || sign.is_dir() && !is_empty(&sign, &[])? {
                    bail!(
                        "{} belongs to another kubelet: remove that cluster from this machine (and {} with it), or choose another --data-dir",
                        sign.display(),
                        place.kubelet.display()
                    );
                }
            }
        }
        let unnamed = present.as_ref().is_none_or(|claim| claim.name.is_empty());
        let name = if unnamed { name.or(Some(DEFAULT_NAME)) } else { name };
        let claim = Self::wanted(present, place, name)?;
        let Some(networks) = networks else { return Ok(()) };
        place.machine.check(&claim.name, &Holding::here(&place.data_dir, networks), lives)
    }

    /// The claim of a cluster's start on this machine, made if the directory is new. The directory is locked by the caller.
    /// `networks` are what the machine's routes and rules will be for; `None` where there will be no pods: the name on the
    /// machine is left to whoever has them.
    ///
    /// # Errors
    /// A directory that holds something else or a cluster of another name, a name or a network that another cluster on the
    /// machine has, a name whose cgroup is somebody else's, and for the default directory another kubelet on the machine.
    pub fn take(place: &Place, name: Option<&str>, networks: Option<&[Cidr]>) -> Result<Self> {
        Self::check(place, name, networks)?;
        let claim = Self::write_wanted(place, name)?;
        let claim = if claim.name.is_empty() { Self::write_wanted(place, Some(DEFAULT_NAME))? } else { claim };
        if let Some(networks) = networks {
            place.machine.hold(&claim.name, &Holding::here(&place.data_dir, networks))?;
        }
        Ok(claim)
    }

    /// The same for a component that runs alone; an API server has no name to claim.
    ///
    /// # Errors
    /// As [`Self::take`], but for the other kubelet: this may be it.
    pub fn take_for(place: &Place, name: Option<&str>) -> Result<Self> {
        if let Some(name) = name {
            let holding = Holding::here(&place.data_dir, &[]);
            place.machine.check(name, &holding, lives)?;
            let claim = Self::write_wanted(place, Some(name))?;
            place.machine.hold(name, &holding)?;
            return Ok(claim);
        }
        Self::write_wanted(place, None)
    }

    fn write_wanted(place: &Place, name: Option<&str>) -> Result<Self> {
        let present = Self::read(&place.data_dir)?;
        let claim = Self::wanted(present.clone(), place, name)?;
        if present.as_ref() != Some(&claim) {
            claim.write(&place.data_dir).with_context(|| format!("cannot claim {}", place.data_dir.display()))?;
        }
        Ok(claim)
    }

    /// What the claim is to be.
    fn wanted(present: Option<Self>, place: &Place, name: Option<&str>) -> Result<Self> {
        let directory = place.data_dir.display();
        let claim = match present {
            Some(claim) if claim.name.is_empty() => Claim { name: name.unwrap_or_default().to_owned(), ..claim },
            Some(claim) => return claim.answers_to(place, name),
            None if !is_empty(&place.data_dir, &GIVEN)? => {
                bail!("{directory} is not empty and holds no cluster of Pilothouse: choose another --data-dir")
            }
            None => Claim { name: name.unwrap_or_default().to_owned(), found: shared(place) },
        };
        if let Some(group) = groups(&claim.name).into_iter().next()
            && !is_ours(&claim.name)
        {
            bail!("the cgroup {} is somebody else's: choose another --name", group.display());
        }
        Ok(claim)
    }

    fn answers_to(self, place: &Place, name: Option<&str>) -> Result<Self> {
        match name {
            Some(name) if name != self.name => bail!(
                "{} is the cluster {:?}, not {name:?}: leave --name away, or choose another --data-dir",
                place.data_dir.display(),
                self.name
            ),
            _ => Ok(self),
        }
    }

    fn write(&self, data_dir: &Path) -> std::io::Result<()> {
        let new = data_dir.join(UNFINISHED);
        let mut file = fs::File::create(&new)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        fs::rename(new, data_dir.join(FILE))?;
        fs::File::open(data_dir)?.sync_all()
    }

    /// Removes the data directory, the claim last: a removal that is cut short can be done again.
    pub fn remove_directory(data_dir: &Path) -> std::io::Result<()> {
        let entries = match fs::read_dir(data_dir) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_name() == FILE {
                continue;
            }
            if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
        }
        match fs::remove_file(data_dir.join(FILE)) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        match fs::remove_dir(data_dir) {
            // A mount point stays, empty.
            Err(e) if e.kind() == ErrorKind::ResourceBusy => Ok(()),
            done => done,
        }
    }
}

/// Whether a directory is that of a cluster of a name.
fn lives(data_dir: &Path, name: &str) -> bool {
    Claim::read(data_dir).is_ok_and(|claim| claim.is_some_and(|claim| claim.name == name))
}

/// Whether a directory is absent or has nothing but what is `given`.
fn is_empty(directory: &Path, given: &[&str]) -> Result<bool> {
    let entries = match fs::read_dir(directory) {
        // What is no directory is told by whoever makes it one.
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(true),
        entries => entries.with_context(|| format!("cannot list {}", directory.display()))?,
    };
    for entry in entries {
        let name = entry.with_context(|| format!("cannot list {}", directory.display()))?.file_name();
        if !NOTHING.iter().chain(given).any(|nothing| name == *nothing) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The shared places of the default cluster that hold something already. What can't be listed is not ours to remove.
fn shared(place: &Place) -> Vec<PathBuf> {
    if !place.default {
        return Vec::new();
    }
    let places = [&place.kubelet, &place.pod_logs, &place.container_logs];
    places.into_iter().filter(|directory| !is_empty(directory, &[]).unwrap_or(false)).cloned().collect()
}

/// The control groups of that name, one a hierarchy.
fn groups(name: &str) -> Vec<PathBuf> {
    if name.is_empty() {
        return Vec::new();
    }
    let root = Path::new(CGROUPS);
    let hierarchies = fs::read_dir(root).into_iter().flatten().filter_map(|entry| entry.ok().map(|e| e.path()));
    let groups = std::iter::once(root.to_owned()).chain(hierarchies).map(|hierarchy| hierarchy.join(name));
    groups.filter(|group| group.join("cgroup.procs").exists()).collect()
}

/// Whether the control groups of a name are a cluster's of ours: nobody else has shims there.
fn is_ours(name: &str) -> bool {
    groups(name).iter().any(|group| group.join("shims").is_dir())
}

#[cfg(test)]
mod tests {
    use super::super::machine::Machine;
    use super::*;

    /// A data directory on a machine of its own.
    fn place() -> (tempfile::TempDir, Place) {
        let directory = tempfile::tempdir().expect("a directory");
        let data_dir = directory.path().join("data");
        fs::create_dir(&data_dir).expect("made");
        let place = Place::new(&data_dir).expect("a place");
        let machine = Machine(directory.path().join("clusters"));
        (directory, Place { machine, ..place })
    }

    #[test]
    fn a_claim_is_made_once_and_names_the_cluster() {
        let (_directory, place) = place();
        assert_eq!(Claim::of(&place, Some("no-such-cluster")).expect("readable"), None);
        let made = Claim::take(&place, Some("dev-of-a-test"), Some(&[])).expect("claimed");
        assert_eq!(Claim::take(&place, None, Some(&[])).expect("the same"), made);
        assert_eq!(Claim::of(&place, None).expect("readable"), Some(made));
        for refused in [Claim::of(&place, Some("other")).err(), Claim::take(&place, Some("other"), Some(&[])).err()] {
            assert!(refused.expect("refused").to_string().contains("is the cluster \"dev-of-a-test\", not \"other\""));
        }
    }

    #[test]
    fn what_is_no_clusters_is_left_alone() {
        let (_directory, place) = place();
        fs::write(place.data_dir.join("precious"), "x").expect("written");
        assert!(Claim::of(&place, None).expect_err("refused").to_string().contains("holds no cluster"));
        assert!(
            Claim::take(&place, None, Some(&[]))
                .expect_err("refused")
                .to_string()
                .contains("choose another --data-dir")
        );
        assert!(place.data_dir.join("precious").exists());
    }

    #[test]
    fn a_claim_that_was_cut_short_is_made_anew() {
        let (_directory, place) = place();
        fs::write(place.data_dir.join(UNFINISHED), "{").expect("written");
        let made = Claim::take(&place, Some("dev-of-a-test"), Some(&[])).expect("claimed");
        assert_eq!(Claim::of(&place, None).expect("readable"), Some(made));
    }

    #[test]
    fn an_api_server_alone_leaves_the_name_open() {
        let (_directory, place) = place();
        Claim::take_for(&place, None).expect("claimed");
        fs::create_dir(place.data_dir.join("store")).expect("made");
        let named = Claim::take_for(&place, Some("dev-of-a-test")).expect("named");
        assert_eq!(Claim::take_for(&place, None).expect("any name will do"), named);
        assert_eq!(Claim::take(&place, None, Some(&[])).expect("the name it has"), named);
        assert!(Claim::take_for(&place, Some("other")).is_err());
    }

    #[test]
    fn a_restored_store_can_be_started_but_not_removed() {
        let (_directory, place) = place();
        fs::create_dir(place.data_dir.join("store")).expect("made");
        assert!(Claim::of(&place, None).is_err());
        Claim::take(&place, Some("dev-of-a-test"), Some(&[])).expect("claimed");
    }

    #[test]
    fn a_new_file_system_is_empty() {
        let (_directory, place) = place();
        fs::create_dir(place.data_dir.join("lost+found")).expect("made");
        Claim::take(&place, Some("dev-of-a-test"), Some(&[])).expect("claimed");
    }

    #[test]
    fn a_damaged_claim_is_told() {
        let (_directory, place) = place();
        fs::write(place.data_dir.join(FILE), "{").expect("written");
        assert!(
            format!("{:#}", Claim::take(&place, None, Some(&[])).expect_err("refused"))
                .contains("cluster.json is damaged")
        );
    }

    #[test]
    fn removing_takes_the_claim_last() {
        let (_directory, place) = place();
        Claim::take(&place, Some("dev-of-a-test"), Some(&[])).expect("claimed");
        fs::create_dir_all(place.data_dir.join("store/log")).expect("made");
        Claim::remove_directory(&place.data_dir).expect("removed");
        assert!(!place.data_dir.exists());
        Claim::remove_directory(&place.data_dir).expect("gone is fine");
    }

    #[test]
    fn another_clusters_name_is_never_ended() {
        let (directory, place) = place();
        Claim::take(&place, Some("dev-of-a-test"), Some(&[])).expect("claimed");
        let beside = |name: &str| {
            let data_dir = directory.path().join(name);
            let place = Place { machine: place.machine.clone(), ..Place::new(&data_dir).expect("a place") };
            (data_dir, place)
        };
        let (data_dir, second) = beside("second");
        assert_eq!(
            Claim::of(&second, Some("dev-of-a-test")).expect("readable"),
            None,
            "a mistyped directory is no cluster"
        );
        fs::create_dir(&data_dir).expect("made");
        let refused = Claim::take(&second, Some("dev-of-a-test"), Some(&[])).expect_err("refused").to_string();
        assert!(refused.contains("choose another --name"), "{refused}");
        // One that had the name before this machine knew, or an API server's.
        let claim = Claim { name: "dev-of-a-test".into(), found: Vec::new() };
        claim.write(&data_dir).expect("written");
        assert_eq!(Claim::of(&second, None).expect("readable").expect("there").name, "");
        let (data_dir, server) = beside("server");
        fs::create_dir(&data_dir).expect("made");
        Claim::take(&server, Some("dev-of-a-test"), None).expect("a control plane has no pods here");
        assert_eq!(Claim::of(&server, None).expect("readable").expect("there").name, "");
        let (data_dir, third) = beside("third");
        fs::create_dir(&data_dir).expect("made");
        Claim::take_for(&third, None).expect("claimed");
        assert_eq!(Claim::of(&third, None).expect("readable").expect("there").name, "");
    }
}
