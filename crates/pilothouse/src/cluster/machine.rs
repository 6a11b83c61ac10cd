//! Which clusters there are on this machine: a name is one data directory's, from a cluster's first start until its reset.
//!
//! Cgroups, links, service rules and mounts are found by the cluster's name, so two clusters of one name would end each
//! other. What is noted here is as short-lived as what it protects: both are gone after a boot.

use crate::cli::Cidr;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Who has a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    pub data_dir: PathBuf,
    /// Where its links, routes and rules are: `net:[4026531840]`.
    #[serde(default)]
    network_namespace: String,
    /// Networks that its routes and rules are for: empty where it has none.
    #[serde(default)]
    networks: Vec<String>,
}

impl Holding {
    /// The holding of a cluster that starts in this network namespace.
    pub fn here(data_dir: &Path, networks: &[Cidr]) -> Self {
        let namespace = fs::read_link("/proc/self/ns/net").map(|link| link.to_string_lossy().into_owned());
        Holding {
            data_dir: data_dir.to_owned(),
            network_namespace: namespace.unwrap_or_default(),
            networks: networks.iter().map(Cidr::to_string).collect(),
        }
    }

    /// A network of the other's that is one of ours, too.
    fn shares(&self, other: &Self) -> Option<(Cidr, Cidr)> {
        if self.network_namespace != other.network_namespace {
            return None;
        }
        let read = |texts: &[String]| texts.iter().filter_map(|text| text.parse::<Cidr>().ok()).collect::<Vec<_>>();
        let (ours, theirs) = (read(&self.networks), read(&other.networks));
        ours.iter().find_map(|own| theirs.iter().find(|their| own.overlaps(their)).map(|their| (*own, *their)))
    }
}

/// The directory in which names are held.
#[derive(Clone, Debug)]
pub struct Machine(pub PathBuf);

impl Default for Machine {
    fn default() -> Self {
        Machine("/run/pilothouse-clusters".into())
    }
}

impl Machine {
    fn file(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.json"))
    }

    /// Who has a name; `None`: nobody has had it since the machine booted.
    pub fn holder(&self, name: &str) -> Result<Option<Holding>> {
        let file = self.file(name);
        match fs::read(&file) {
            Ok(text) => {
                let read = serde_json::from_slice(&text);
                read.map(Some).with_context(|| format!("{} is damaged: remove it", file.display()))
            }
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("cannot read {}", file.display())),
        }
    }

    /// Whether [`Self::hold`] would be refused. `lives` tells whether a data directory is still a cluster of a name.
    ///
    /// # Errors
    /// The name is another cluster's, or its networks are.
    pub fn check(&self, name: &str, holding: &Holding, lives: impl Fn(&Path, &str) -> bool) -> Result<()> {
        if let Some(other) = self.holder(name)?
            && other.data_dir != holding.data_dir
            && lives(&other.data_dir, name)
        {
            bail!(
                "the name {name:?} is that of the cluster in {0} on this machine: choose another --name, or remove that cluster with `pilothouse reset --data-dir {0}`",
                other.data_dir.display()
            );
        }
        let entries = match fs::read_dir(&self.0) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries.with_context(|| format!("cannot list {}", self.0.display()))?,
        };
        for entry in entries {
            let path = entry.with_context(|| format!("cannot list {}", self.0.display()))?.path();
            let Some(theirs) = path.file_name().and_then(|file| file.to_str()?.strip_suffix(".json")) else { continue };
            let Some(other) = self.holder(theirs)?.filter(|other| other.data_dir != holding.data_dir) else { continue };
            if let Some((own, their)) = holding.shares(&other)
                && lives(&other.data_dir, theirs)
            {
                bail!(
                    "the network {own} overlaps {their} of the cluster {theirs:?} in {}: choose another --pod-cidr and --service-cidr, such as --pod-cidr 10.245.0.0/16 --service-cidr 10.97.0.0/16",
                    other.data_dir.display()
                );
            }
        }
        Ok(())
    }

    /// Notes who has a name, instead of whoever had it.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn hold(&self, name: &str, holding: &Holding) -> Result<()> {
        let text = serde_json::to_vec_pretty(holding)?;
        fs::create_dir_all(&self.0)
            .and_then(|()| crate::pki::write_atomically(&self.file(name), &text, 0o644).map_err(std::io::Error::other))
            .with_context(|| format!("cannot note the cluster {name:?} in {}", self.0.display()))
    }

    /// Gives a name back, if a data directory has it.
    pub fn release(&self, name: &str, data_dir: &Path) -> Result<()> {
        if self.holder(name)?.is_some_and(|holding| holding.data_dir == data_dir) {
            fs::remove_file(self.file(name)).with_context(|| format!("cannot remove {}", self.file(name).display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(directory: &str, networks: &[&str]) -> Holding {
        let networks: Vec<Cidr> = networks.iter().map(|text| text.parse().expect("a network")).collect();
        Holding::here(Path::new(directory), &networks)
    }

    #[test]
    fn a_name_and_a_network_are_one_clusters() {
        let directory = tempfile::tempdir().expect("a directory");
        let machine = Machine(directory.path().join("clusters"));
        let (first, second) = (holding("/a", &["10.244.0.0/16"]), holding("/b", &["10.244.128.0/24"]));
        let lives = |_: &Path, _: &str| true;
        machine.check("one", &first, lives).expect("free");
        machine.hold("one", &first).expect("held");
        machine.check("one", &first, lives).expect("its own");
        let refused = machine.check("one", &second, lives).expect_err("taken").to_string();
        assert!(refused.contains("that of the cluster in /a"), "{refused}");
        let refused = machine.check("two", &second, lives).expect_err("overlaps").to_string();
        assert!(refused.contains("10.244.128.0/24 overlaps 10.244.0.0/16 of the cluster \"one\" in /a"), "{refused}");
        let elsewhere = Holding { network_namespace: "net:[1]".into(), ..second.clone() };
        machine.check("two", &elsewhere, lives).expect("other machines, as far as networks go");
        machine.check("one", &second, |_, _| false).expect("the cluster in /a is no more");
        machine.release("one", Path::new("/b")).expect("nothing to do");
        assert_eq!(machine.holder("one").expect("readable"), Some(first));
        machine.release("one", Path::new("/a")).expect("released");
        machine.check("one", &second, lives).expect("free again");
    }
}
