//! How the servers of one etcd come to trust each other's certificates and tokens: one CA and one token key for all.
//!
//! The first server puts its own into etcd, encrypted with a key that is not there (kubeadm's `--certificate-key`), and the
//! next ones take them from there. A server that has others is refused: it would issue what the rest do not believe.

use super::join::ca_hash;
use crate::backend::Backend;
use crate::pki::{Pki, write_atomically};
use anyhow::{Context, Result, bail};
use apiserver::tokens::SigningKey;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use store::{Etcd, KeyRange, Op, OpResult, Range, Store, Txn};

/// Where etcd holds them, below the prefix.
const PLACE: &str = "/registry/pilothouse/authority";
/// The certificate key, beside the files that it encrypts.
pub const KEY_FILE: &str = "certificate.key";

/// What the servers have in common.
#[derive(Clone, Debug, clap::Args)]
pub struct PeerArgs {
    /// Key with which the servers of one etcd share their CA and token key: 64 hexadecimal digits [default: DATA/pki/certificate.key, made by the first server]
    #[arg(long, value_name = "HEX", env = "PILOTHOUSE_CERTIFICATE_KEY", hide_env_values = true, value_parser = CertificateKey::parse)]
    pub certificate_key: Option<CertificateKey>,
}

/// An AES-256 key.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateKey([u8; 32]);

impl std::fmt::Debug for CertificateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CertificateKey")
    }
}

impl CertificateKey {
    fn parse(text: &str) -> Result<Self, String> {
        // The key itself is a secret, even a mistyped one.
        let wrong = || "it must be 64 hexadecimal digits".to_owned();
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut key = [0; 32];
        for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        Ok(CertificateKey(key))
    }

    fn text(&self) -> String {
        use std::fmt::Write;
        self.0.iter().fold(String::new(), |mut text, byte| {
            // A String takes every write.
            write!(text, "{byte:02x}").unwrap_or(());
            text
        })
    }

    /// The key that was given, or that a file holds, or a new one; it is in the file then.
    fn ensure(given: Option<&Self>, file: &Path) -> Result<Self> {
        let key = match (given, fs::read_to_string(file)) {
            (Some(key), _) => key.clone(),
            (None, Ok(text)) => {
                Self::parse(text.trim()).map_err(|e| anyhow::anyhow!("{} is damaged: {e}", file.display()))?
            }
            (None, Err(e)) if e.kind() == std::io::ErrorKind::NotFound => CertificateKey(random()?),
            (None, Err(e)) => return Err(e).with_context(|| format!("cannot read {}", file.display())),
        };
        write_atomically(file, format!("{}\n", key.text()).as_bytes(), 0o600)?;
        Ok(key)
    }

    fn cipher(&self) -> Result<LessSafeKey> {
        let key = UnboundKey::new(&AES_256_GCM, &self.0).map_err(|_| anyhow::anyhow!("no AES-256"))?;
        Ok(LessSafeKey::new(key))
    }

    fn seal(&self, mut plain: Vec<u8>) -> Result<String> {
        let nonce: [u8; NONCE_LEN] = random()?;
        let sealed =
            self.cipher()?.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(PLACE), &mut plain);
        sealed.map_err(|_| anyhow::anyhow!("the keys can't be encrypted"))?;
        Ok(STANDARD.encode([&nonce[..], &plain].concat()))
    }

    fn open(&self, sealed: &str) -> Result<Vec<u8>> {
        let wrong = || {
            anyhow::anyhow!(
                "--certificate-key does not fit what etcd holds: give the key of the cluster's other servers, which each keeps in DATA/pki/{KEY_FILE}"
            )
        };
        let bytes = STANDARD.decode(sealed).map_err(|_| wrong())?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>().ok_or_else(wrong)?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = self.cipher()?.open_in_place(nonce, Aad::from(PLACE), &mut sealed).map_err(|_| wrong())?;
        Ok(plain.to_vec())
    }
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system gives no random bytes"))?;
    Ok(bytes)
}

/// Which CA and token key the servers of an etcd have, as etcd holds it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    ca_hash: String,
    token_key_id: String,
    /// [`Keys`], encrypted.
    sealed: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Keys {
    ca: String,
    ca_key: String,
    token_key: String,
}

impl Record {
    fn of(pki: &Pki, key: &CertificateKey) -> Result<Self> {
        let keys = Keys { ca: pki.ca_pem()?, ca_key: pki.ca_key_pem()?, token_key: pki.token_key_pem()? };
        let (ca_hash, token_key_id) = identity(pki)?;
        Ok(Record { ca_hash, token_key_id, sealed: key.seal(serde_json::to_vec(&keys)?)? })
    }

    fn is_of(&self, pki: &Pki) -> Result<bool> {
        let (ca_hash, token_key_id) = identity(pki)?;
        Ok(self.ca_hash == ca_hash && self.token_key_id == token_key_id)
    }
}

/// The hash of the CA, and the name of the token key.
fn identity(pki: &Pki) -> Result<(String, String)> {
    let (_, ca) = x509_parser::pem::parse_x509_pem(pki.ca_pem()?.as_bytes()).context("the CA's certificate")?;
    let token_key = SigningKey::from_pem(pki.token_key_pem()?.as_bytes()).context("the token key")?;
    Ok((ca_hash(&ca.contents).context("the CA's certificate")?, token_key.public().id().to_owned()))
}

/// Makes sure that the CA and the token key in a directory are those of all servers of the same etcd. With an embedded store
/// there are no others.
///
/// # Errors
/// Another CA or token key than the others', no certificate key to take theirs with, or an etcd that can't be used.
pub async fn agree(backend: &Backend, dir: &Path, args: &PeerArgs) -> Result<()> {
    let Backend::Etcd(options) = backend else { return Ok(()) };
    let options = store::etcd::Options { compaction_interval: None, ..options.clone() };
    let store = Etcd::connect(options).await.context("etcd can't be used")?;
    // Made beside, so that there is never a part of it at its place.
    let fresh = PathBuf::from(format!("{}.new", dir.display()));
    let own = ["ca.crt", "ca.key", "sa.key"].iter().any(|file| dir.join(file).exists());
    let held = read(&*store).await?;
    let key = args.certificate_key.as_ref();
    match held {
        Some(record) if own => refuse_others(&record, dir),
        Some(record) => take(&record, &fresh, dir, key),
        None if own => match publish(&*store, &Pki::open(dir.to_owned())?, dir, key).await? {
            Some(record) => refuse_others(&record, dir),
            None => Ok(()),
        },
        None => match publish(&*store, &Pki::open(fresh.clone())?, &fresh, key).await? {
            // Another server was first.
            Some(record) => take(&record, &fresh, dir, key),
            None => put_in_place(&fresh, dir),
        },
    }
}

async fn read(store: &dyn Store) -> Result<Option<Record>> {
    let found = store.range(Range::of(KeyRange::key(PLACE))).await.context("etcd can't be read")?;
    found.kvs.first().map(|kv| parse(&kv.value)).transpose()
}

fn parse(value: &[u8]) -> Result<Record> {
    serde_json::from_slice(value).with_context(|| format!("what etcd holds at {PLACE} is damaged"))
}

/// Puts what a directory has into etcd, or gives what is there already.
async fn publish(store: &dyn Store, pki: &Pki, dir: &Path, key: Option<&CertificateKey>) -> Result<Option<Record>> {
    let key = CertificateKey::ensure(key, &dir.join(KEY_FILE))?;
    let value = serde_json::to_vec(&Record::of(pki, &key)?)?;
    let put = Op::Put { key: PLACE.into(), value: value.into(), lease: 0 };
    let result = store.txn(Txn::guarded(PLACE.into(), 0, put)).await.context("etcd can't be written")?;
    match (result.succeeded, result.results.first()) {
        (true, _) => Ok(None),
        (false, Some(OpResult::Range(found))) => {
            let kv = found.kvs.first().context("etcd does not tell what it holds")?;
            parse(&kv.value).map(Some)
        }
        (false, _) => bail!("etcd does not tell what it holds"),
    }
}

fn refuse_others(record: &Record, dir: &Path) -> Result<()> {
    if record.is_of(&Pki::open(dir.to_owned())?)? {
        return Ok(());
    }
    bail!(
        "the servers of this etcd have the CA {} and the token key {}, and {} holds others: start with an empty data directory and the other servers' --certificate-key, or name another --etcd-prefix for a cluster of its own (after a change of the authorities on all servers, delete {PLACE} from etcd)",
        record.ca_hash,
        record.token_key_id,
        dir.display()
    )
}

/// Takes over what the other servers have.
fn take(record: &Record, fresh: &Path, dir: &Path, key: Option<&CertificateKey>) -> Result<()> {
    // A first server that was stopped after it had published finds its own.
    if fresh.join("sa.key").exists() && record.is_of(&Pki::open(fresh.to_owned())?)? {
        return put_in_place(fresh, dir);
    }
    let Some(key) = key else {
        bail!(
            "another server has put its CA into this etcd: give its certificate key as --certificate-key or PILOTHOUSE_CERTIFICATE_KEY (it is in DATA/pki/{KEY_FILE} there), or name another --etcd-prefix for a cluster of its own"
        )
    };
    let keys: Keys = serde_json::from_slice(&key.open(&record.sealed)?)
        .with_context(|| format!("what etcd holds at {PLACE} is damaged"))?;
    if fresh.exists() {
        fs::remove_dir_all(fresh).with_context(|| format!("cannot remove {}", fresh.display()))?;
    }
    fs::create_dir_all(fresh).with_context(|| format!("cannot create {}", fresh.display()))?;
    for (file, text, mode) in
        [("ca.crt", &keys.ca, 0o644), ("ca.key", &keys.ca_key, 0o600), ("sa.key", &keys.token_key, 0o600)]
    {
        write_atomically(&fresh.join(file), text.as_bytes(), mode)?;
    }
    CertificateKey::ensure(Some(key), &fresh.join(KEY_FILE))?;
    Pki::open(fresh.to_owned())?;
    put_in_place(fresh, dir)
}

/// The directory there may be empty or have leaves, which are made anew.
fn put_in_place(fresh: &Path, dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir(dir).with_context(|| {
            format!("{} holds neither a CA nor nothing: empty it, or put the other servers' CA there", dir.display())
        })?;
    }
    fs::rename(fresh, dir).with_context(|| format!("cannot rename {} to {}", fresh.display(), dir.display()))?;
    let parent = dir.parent().unwrap_or(Path::new("/"));
    fs::File::open(parent)
        .and_then(|parent| parent.sync_all())
        .with_context(|| format!("cannot sync {}", parent.display()))
}
