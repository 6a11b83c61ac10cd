//! Who may have an image that is on the machine.
//!
//! An image that was pulled with credentials is for pods that have the same ones, or a pull secret that it was
//! pulled with; others have to pull it with their own. So it is written down, before a pull, that there will be
//! one, and after it, with whose credentials it was made: `pulling` and `pulled` below the directory, in the
//! form of upstream's `ImagePullIntent` and `ImagePulledRecord`. An image of which nothing is written was
//! there before, and is for everybody.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{keyring::Source, name};

const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImagePullIntent {
    kind: String,
    api_version: String,
    image: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImagePulledRecord {
    kind: String,
    api_version: String,
    last_updated_time: Timestamp,
    image_ref: String,
    /// By the image's name without tag and digest.
    #[serde(default)]
    credential_mapping: BTreeMap<String, Credentials>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Credentials {
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    node_pods_accessible: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    kubernetes_secrets: Vec<ImagePullSecret>,
}

/// A pull secret and what it said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ImagePullSecret {
    pub(crate) uid: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) credential_hash: String,
}

/// The records of the machine's images. Calls that write block.
pub(crate) struct Records {
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By what the runtime calls the image.
    pulled: HashMap<String, ImagePulledRecord>,
    /// How many pulls of a name are under way.
    pulling: HashMap<String, usize>,
    /// Names of which a pull broke off, so that the image may be there or not.
    broken_off: HashSet<String>,
}

impl Records {
    /// Reads what an earlier run wrote. What can't be read counts as a pull that broke off.
    pub(crate) fn open(dir: PathBuf) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let mut state = State::default();
        for name in ["pulling", "pulled"] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir.join(name))?;
        }
        for intent in read_all::<ImagePullIntent>(&dir.join("pulling"))? {
            state.broken_off.insert(intent.image);
        }
        for record in read_all::<ImagePulledRecord>(&dir.join("pulled"))? {
            state.pulled.insert(record.image_ref.clone(), record);
        }
        Ok(Self { dir, state: Mutex::new(state) })
    }

    /// Whether a pod with pull secrets of these sources has to pull `image` though the runtime has it.
    pub(crate) fn must_pull(&self, image: &str, image_ref: &str, sources: &[Source]) -> bool {
        let state = self.lock();
        let Some(record) = state.pulled.get(image_ref) else {
            // Nothing written: it was not pulled by us, or is being pulled.
            return state.broken_off.contains(image) || state.pulling.contains_key(image);
        };
        let Some(credentials) = record.credential_mapping.get(repository(image)) else { return true };
        !credentials.node_pods_accessible && !sources.iter().any(|source| credentials.allow(source))
    }

    /// There will be a pull of `image`.
    pub(crate) fn begin(&self, image: &str) -> io::Result<()> {
        let mut state = self.lock();
        let intent =
            ImagePullIntent { kind: "ImagePullIntent".into(), api_version: API_VERSION.into(), image: image.into() };
        if !state.broken_off.contains(image) && !state.pulling.contains_key(image) {
            write(&self.file("pulling", image), &intent)?;
        }
        *state.pulling.entry(image.to_owned()).or_default() += 1;
        Ok(())
    }

    /// A pull succeeded, with credentials of this source.
    pub(crate) fn pulled(&self, image: &str, image_ref: &str, source: &Source) -> io::Result<()> {
        let mut state = self.lock();
        let mut record = state.pulled.get(image_ref).cloned().unwrap_or_else(|| ImagePulledRecord {
            kind: "ImagePulledRecord".into(),
            api_version: API_VERSION.into(),
            last_updated_time: Timestamp::now(),
            image_ref: image_ref.into(),
            credential_mapping: BTreeMap::new(),
        });
        let credentials = record.credential_mapping.entry(repository(image).to_owned()).or_default();
        let changed = credentials.add(source);
        record.last_updated_time = Timestamp::now();
        if changed {
            write(&self.file("pulled", image_ref), &record)?;
        }
        state.pulled.insert(image_ref.to_owned(), record);
        state.broken_off.remove(image);
        self.end(&mut state, image)
    }

    /// A pull failed. One of which nobody knows how it ended `broke_off`.
    pub(crate) fn failed(&self, image: &str, broke_off: bool) -> io::Result<()> {
        let mut state = self.lock();
        if broke_off {
            state.broken_off.insert(image.to_owned());
        }
        self.end(&mut state, image)
    }

    fn end(&self, state: &mut State, image: &str) -> io::Result<()> {
        let others = state.pulling.get_mut(image).map_or(0, |count| {
            *count -= 1;
            *count
        });
        if others == 0 {
            state.pulling.remove(image);
            if !state.broken_off.contains(image) {
                return remove(&self.file("pulling", image));
            }
        }
        Ok(())
    }

    /// Forgets images that were not on the machine at a time; not those that were pulled since.
    pub(crate) fn retain(&self, present: &HashSet<&str>, at: Timestamp) -> io::Result<()> {
        let mut state = self.lock();
        let gone: Vec<String> = state
            .pulled
            .iter()
            .filter(|(image_ref, record)| !present.contains(image_ref.as_str()) && record.last_updated_time < at)
            .map(|(image_ref, _)| image_ref.clone())
            .collect();
        for image_ref in gone {
            remove(&self.file("pulled", &image_ref))?;
            state.pulled.remove(&image_ref);
        }
        Ok(())
    }

    fn file(&self, kind: &str, of: &str) -> PathBuf {
        let digest = ring::digest::digest(&ring::digest::SHA256, of.as_bytes());
        let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        self.dir.join(kind).join(format!("sha256-{hex}"))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Credentials {
    /// The same secret, whatever it says by now, or another that says the same.
    fn allow(&self, source: &Source) -> bool {
        match source {
            Source::Everybody => false,
            Source::Secret(own) => self.kubernetes_secrets.iter().any(|known| {
                known.credential_hash == own.credential_hash
                    || (&known.uid, &known.namespace, &known.name) == (&own.uid, &own.namespace, &own.name)
            }),
        }
    }

    /// Whether that is new.
    fn add(&mut self, source: &Source) -> bool {
        let before = self.clone();
        match source {
            Source::Everybody => {
                *self = Self { node_pods_accessible: true, kubernetes_secrets: Vec::new() };
            }
            Source::Secret(_) if self.node_pods_accessible => {}
            Source::Secret(own) => {
                let same = |known: &ImagePullSecret| known.uid == own.uid && known.name == own.name;
                self.kubernetes_secrets.retain(|known| !same(known));
                self.kubernetes_secrets.push(own.clone());
                self.kubernetes_secrets.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
            }
        }
        *self != before
    }
}

fn repository(image: &str) -> &str {
    name::parse(image).map_or(image, |name| name.repository)
}

fn read_all<T: DeserializeOwned>(dir: &Path) -> io::Result<Vec<T>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "tmp") {
            fs::remove_file(path)?;
            continue;
        }
        let text = fs::read(&path)?;
        let named = |error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()));
        all.push(serde_json::from_slice(&text).map_err(named)?);
    }
    Ok(all)
}

/// Whole or not at all, and safe on disk.
fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let temporary = path.with_extension("tmp");
    let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    file.write_all(&serde_json::to_vec(value).map_err(io::Error::other)?)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_dir(path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync_dir(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| fs::File::open(parent)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: &str = "registry.example/team/app:1";
    const ID: &str = "sha256:1";

    fn secret(uid: &str, hash: &str) -> Source {
        Source::Secret(ImagePullSecret {
            uid: uid.into(),
            namespace: uid.into(),
            name: "pull".into(),
            credential_hash: hash.into(),
        })
    }

    fn pull(records: &Records, source: &Source) {
        records.begin(IMAGE).unwrap();
        records.pulled(IMAGE, ID, source).unwrap();
    }

    #[test]
    fn an_image_is_for_those_who_could_pull_it() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path().into()).unwrap();
        assert!(!records.must_pull(IMAGE, ID, &[]), "it was there before");
        pull(&records, &secret("a", "1"));
        // Also for the next kubelet.
        for records in [records, Records::open(dir.path().into()).unwrap()] {
            assert!(records.must_pull(IMAGE, ID, &[]));
            assert!(records.must_pull(IMAGE, ID, &[secret("b", "2")]));
            assert!(!records.must_pull(IMAGE, ID, &[secret("b", "2"), secret("b", "1")]), "the same credentials");
            assert!(!records.must_pull(IMAGE, ID, &[secret("a", "9")]), "the same secret, changed");
            assert!(!records.must_pull("registry.example/team/app:2", ID, &[secret("a", "1")]));
            assert!(records.must_pull("other.example/app:1", ID, &[secret("a", "1")]), "of another place");
        }
        let records = Records::open(dir.path().into()).unwrap();
        pull(&records, &secret("b", "2"));
        assert!(!records.must_pull(IMAGE, ID, &[secret("a", "1")]));
        assert!(!records.must_pull(IMAGE, ID, &[secret("b", "2")]));
        pull(&records, &Source::Everybody);
        assert!(!records.must_pull(IMAGE, ID, &[]));
        records.retain(&HashSet::new(), Timestamp::UNIX_EPOCH).unwrap();
        assert!(dir.path().join("pulled").read_dir().unwrap().count() == 1, "pulled after the look at what is there");
        records.retain(&HashSet::new(), Timestamp::now()).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("pulled")).unwrap().count(), 0);
        assert!(!records.must_pull(IMAGE, ID, &[]));
    }

    #[test]
    fn a_pull_that_broke_off_gives_the_image_to_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path().into()).unwrap();
        records.begin(IMAGE).unwrap();
        assert!(records.must_pull(IMAGE, ID, &[secret("a", "1")]));
        // As after a crash, and after one more failure.
        let records = Records::open(dir.path().into()).unwrap();
        records.begin(IMAGE).unwrap();
        records.failed(IMAGE, false).unwrap();
        assert!(Records::open(dir.path().into()).unwrap().must_pull(IMAGE, ID, &[secret("a", "1")]));
        pull(&records, &secret("a", "1"));
        let records = Records::open(dir.path().into()).unwrap();
        assert!(!records.must_pull(IMAGE, ID, &[secret("a", "1")]));
        // One that failed for a reason that is known leaves nothing.
        records.begin("other.example/app:1").unwrap();
        records.failed("other.example/app:1", false).unwrap();
        assert!(!records.must_pull("other.example/app:1", "sha256:2", &[]));
        assert_eq!(fs::read_dir(dir.path().join("pulling")).unwrap().count(), 0);
    }
}
