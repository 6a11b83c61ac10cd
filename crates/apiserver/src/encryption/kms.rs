//! A KMS v2 plugin: gRPC over a unix socket. It encrypts the seed from which the keys of values are derived, and says by its
//! key id when there is to be a new one. A plugin that is away is no obstacle to what was read or written with its seed
//! before, for a while.

use super::cipher::DataKey;
use super::measures::{Measures, OfPlugin, Way, hash};
use super::transformer::aggregate;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use hyper_util::rt::TokioIo;
use prost::Message;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use v2::key_management_service_client::KeyManagementServiceClient;
use v2::{DecryptRequest, EncryptRequest, EncryptedDekSourceType, EncryptedObject, StatusRequest, StatusResponse};

/// The messages of `proto/kms.proto`.
pub(super) mod v2 {
    #![allow(clippy::all, missing_docs, unused_qualifications, reason = "generated")]
    tonic::include_proto!("v2");
}

/// How often plugins are asked how they are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// How long a good answer holds, and a bad one.
    pub(super) healthy: Duration,
    pub(super) unhealthy: Duration,
    /// How often it is asked anyway, when it was well and when not.
    pub(super) look: Duration,
    pub(super) look_again: Duration,
}

impl Default for Pace {
    /// Upstream's.
    fn default() -> Self {
        Pace {
            healthy: Duration::from_secs(20),
            unhealthy: Duration::from_secs(3),
            look: Duration::from_secs(60),
            look_again: Duration::from_secs(10),
        }
    }
}

// Upstream's times and sizes.
/// How long a seed is written with after the plugin was last well.
const WRITES: Duration = Duration::from_secs(180);
const KEPT: Duration = Duration::from_secs(24 * 3600);
const MOST_KEY_ID: usize = 1024;
const MOST_SOURCE: usize = 1024;
const MOST_ANNOTATIONS: usize = 32 * 1024;
/// After a plugin failed, the next values fail at once: thousands may wait. So long at first, twice as long after each
/// further failure, up to so long.
const BREATH: Duration = Duration::from_secs(1);
const LONGEST_BREATH: Duration = Duration::from_secs(10);
/// How long what cannot wait waits for a plugin: less than reads wait for the caches.
const MOMENT: Duration = Duration::from_secs(1);
/// How long health waits for a plugin that may take longer: as long as upstream's plugins have by default.
const HEALTH: Duration = Duration::from_secs(3);
const LATE: &str = "rpc error: code = DeadlineExceeded desc = context deadline exceeded";

/// How long a plugin is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Until it answers, or the time that it has is up.
    Answer,
    /// For a moment if it is well, else not at all: what is read this way keeps everything else waiting. It can be read
    /// again, with patience.
    Moment,
}

/// What the plugin answered, or would have.
type Answer = Result<Arc<DataKey>, String>;

/// Why a key was not had, and until when it is not asked for again.
#[derive(Debug)]
struct Failure {
    error: String,
    until: Instant,
    pause: Duration,
}

impl Failure {
    fn after(last: Option<&Failure>, error: String) -> Self {
        let pause = last.map_or(BREATH, |last| (last.pause * 2).min(LONGEST_BREATH));
        Failure { error, until: Instant::now() + pause, pause }
    }
}

#[derive(Debug, Default)]
struct Failures {
    /// The plugin does not answer.
    away: Option<Failure>,
    /// It answers that it has no such key.
    keys: HashMap<[u8; 32], Failure>,
}

impl Failures {
    /// The error that is still the answer; `None`: the plugin may be asked.
    fn hold(&mut self, fingerprint: &[u8; 32], wait: Wait, timeout: Duration) -> Option<String> {
        let now = Instant::now();
        if let Some(failure) = self.keys.get(fingerprint).filter(|failure| now < failure.until) {
            return Some(failure.error.clone());
        }
        let away = self.away.as_mut()?;
        if now < away.until || wait == Wait::Moment {
            return Some(away.error.clone());
        }
        // One tries whether it is back; the others go on without it meanwhile.
        away.until = now + timeout;
        None
    }
}

/// What values are written with now.
struct Current {
    key: Arc<DataKey>,
    /// Without its data.
    envelope: EncryptedObject,
    /// Writing ends then, unless the plugin is well again.
    until: Instant,
}

struct Health {
    at: Option<Instant>,
    holds: Duration,
    last: Result<(), String>,
}

/// One configured plugin.
pub(super) struct Plugin {
    name: String,
    timeout: Duration,
    pace: Pace,
    client: KeyManagementServiceClient<Channel>,
    current: RwLock<Option<Current>>,
    /// By the hash of their encrypted form.
    keys: Mutex<HashMap<[u8; 32], (Instant, Arc<DataKey>)>>,
    /// The keys that the plugin is being asked for: once, however many wait.
    asked: Mutex<HashMap<[u8; 32], Shared<BoxFuture<'static, Answer>>>>,
    failures: Mutex<Failures>,
    health: tokio::sync::Mutex<Health>,
    measures: Arc<Measures>,
    counted: Arc<OfPlugin>,
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plugin({})", self.name)
    }
}

/// As Go's gRPC words it.
fn told(status: &tonic::Status) -> String {
    let code = match status.code() {
        tonic::Code::Ok => "OK".to_owned(),
        tonic::Code::Cancelled => "Canceled".to_owned(),
        code => format!("{code:?}"),
    };
    format!("rpc error: code = {code} desc = {}", status.message())
}

fn decrypting(error: &str) -> String {
    format!("failed to decrypt DEK, error: {error}")
}

fn check_key_id(id: &str) -> Result<(), String> {
    match id.len() {
        0 => Err("keyID is empty".to_owned()),
        length if length > MOST_KEY_ID => {
            Err(format!("keyID is {length} bytes, which exceeds the max size of {MOST_KEY_ID}"))
        }
        _ => Ok(()),
    }
}

/// What an envelope must have, but for its data.
fn check(envelope: &EncryptedObject) -> Result<(), String> {
    if EncryptedDekSourceType::try_from(envelope.encrypted_dek_source_type).is_err() {
        return Err(format!("unknown encryptedDEKSourceType: {}", envelope.encrypted_dek_source_type));
    }
    let wrong = "failed to validate encrypted DEK source";
    match envelope.encrypted_dek_source.len() {
        0 => return Err(format!("{wrong}: encrypted DEK source is empty")),
        length if length > MOST_SOURCE => {
            return Err(format!(
                "{wrong}: encrypted DEK source is {length} bytes, which exceeds the max size of {MOST_SOURCE}"
            ));
        }
        _ => {}
    }
    check_key_id(&envelope.key_id).map_err(|why| format!("failed to validate key id: {why}"))?;
    let mut errors = Vec::new();
    for name in envelope.annotations.keys() {
        let labels = name.trim_end_matches('.').split('.');
        if labels.clone().count() < 2 || !api::names::dns1123_subdomain(name.trim_end_matches('.')).is_empty() {
            errors.push(format!(
                "annotations: Invalid value: {}: should be a domain with at least two segments separated by dots",
                api::field::go_quote(name)
            ));
        }
    }
    let size: usize = envelope.annotations.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > MOST_ANNOTATIONS {
        errors.push(format!("total size of annotations is {size}, which exceeds the max size of {MOST_ANNOTATIONS}"));
    }
    aggregate(errors).map_or(Ok(()), |why| Err(format!("failed to validate annotations: {why}")))
}

fn decode(data: &[u8]) -> Result<EncryptedObject, String> {
    let envelope = EncryptedObject::decode(data).map_err(|error| format!("proto: {error}"))?;
    check(&envelope)?;
    if envelope.encrypted_data.is_empty() {
        return Err("encrypted data is empty".to_owned());
    }
    Ok(envelope)
}

/// Tells the key of values apart by all that the plugin gave with it.
fn fingerprint(envelope: &EncryptedObject) -> [u8; 32] {
    let mut digest = Sha256::new();
    let mut part = |bytes: &[u8]| {
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(bytes);
    };
    part(&envelope.encrypted_dek_source_type.to_le_bytes());
    part(&envelope.encrypted_dek_source);
    part(envelope.key_id.as_bytes());
    let mut annotations: Vec<_> = envelope.annotations.iter().collect();
    annotations.sort();
    for (name, value) in annotations {
        part(name.as_bytes());
        part(value);
    }
    digest.finalize().into()
}

impl Plugin {
    /// Of a socket that need not be there yet. It is looked after on the runtime until the last handle is gone.
    pub(super) fn new(
        name: &str,
        socket: PathBuf,
        timeout: Duration,
        pace: Pace,
        measures: &Arc<Measures>,
    ) -> Arc<Self> {
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move {
                let stream = UnixStream::connect(&socket).await.map_err(|error| {
                    std::io::Error::new(error.kind(), format!("dial unix {}: {error}", socket.display()))
                })?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        });
        // The connector ignores the address.
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
        Arc::new(Plugin {
            name: name.to_owned(),
            timeout,
            pace,
            client: KeyManagementServiceClient::new(channel),
            current: RwLock::new(None),
            keys: Mutex::default(),
            asked: Mutex::default(),
            failures: Mutex::default(),
            health: tokio::sync::Mutex::new(Health { at: None, holds: pace.unhealthy, last: Ok(()) }),
            measures: measures.clone(),
            counted: measures.plugin(name),
        })
    }

    /// Keeps the seed in step with the plugin's key. When this returns the first look has been made, or the plugin is slow:
    /// then nothing waits for it before it has answered, or what is tried again is tried again.
    pub(super) async fn look_after(self: &Arc<Self>) {
        let pause = match tokio::time::timeout(MOMENT, self.check()).await {
            Ok(Ok(())) => self.pace.look_again,
            Ok(Err(error)) => {
                tracing::warn!(plugin = self.name, error, "a KMS plugin is not well yet, and is asked again");
                self.pace.look_again
            }
            Err(_) => {
                tracing::warn!(plugin = self.name, "a KMS plugin does not answer yet, and is asked again");
                self.is_slow();
                Duration::ZERO
            }
        };
        tokio::spawn(Self::watch_over(Arc::downgrade(self), pause));
    }

    /// It has let somebody wait for a moment; tells what it is told then.
    fn is_slow(&self) -> String {
        let error = decrypting(LATE);
        self.failures().away.get_or_insert_with(|| Failure::after(None, error.clone()));
        error
    }

    async fn watch_over(plugin: Weak<Self>, mut pause: Duration) {
        loop {
            tokio::time::sleep(pause).await;
            let Some(plugin) = plugin.upgrade() else { return };
            pause = match plugin.check().await {
                Ok(()) => plugin.pace.look,
                Err(error) => {
                    tracing::warn!(plugin = plugin.name, error, "a KMS plugin is not well");
                    plugin.pace.look_again
                }
            };
        }
    }

    /// How the plugin is, asked again when the last answer is old; a new key id brings a new seed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) async fn check(&self) -> Result<(), String> {
        let mut health = self.health.lock().await;
        if health.at.is_some_and(|at| at.elapsed() < health.holds) {
            return health.last.clone();
        }
        // What is remembered is the bare error, as upstream does.
        let (shown, last) = match self.ask("Status", self.client.clone().status(StatusRequest {})).await {
            Err(error) => (Err(self.no_status(&error)), Err(error)),
            Ok(status) => {
                let judged = self.judge(status).await;
                (judged.clone(), judged)
            }
        };
        health.holds = if last.is_ok() { self.pace.healthy } else { self.pace.unhealthy };
        health.at = Some(Instant::now());
        health.last = last;
        shown
    }

    /// The same, for who can't wait as long as the plugin may take: then it is not well.
    pub(super) async fn health(&self) -> Result<(), String> {
        let looked = tokio::time::timeout(HEALTH, self.check()).await;
        looked.unwrap_or_else(|_| Err(self.no_status(LATE)))
    }

    fn no_status(&self, error: &str) -> String {
        format!("failed to perform status section of the healthz check for KMS Provider {}, error: {error}", self.name)
    }

    async fn judge(&self, status: StatusResponse) -> Result<(), String> {
        let mut errors = Vec::new();
        if status.healthz != "ok" {
            errors.push(format!("got unexpected healthz status: {}", status.healthz));
        }
        if status.version != "v2" && status.version != "v2beta1" {
            errors.push(format!("expected KMSv2 API version v2, got {}", status.version));
        }
        let checked = check_key_id(&status.key_id);
        self.counted.named(&status.key_id, checked.is_ok());
        match checked {
            Err(why) => errors.push(format!("got invalid KMSv2 KeyID hash {:?}: {why}", hash(&status.key_id))),
            Ok(()) => errors.extend(self.rotate(&status.key_id).await.err()),
        }
        let wrong = aggregate(errors);
        wrong.map_or(Ok(()), |why| Err(format!("kmsv2 Provider {} is not healthy, error: {why}", self.name)))
    }

    fn current_key_id(&self) -> Option<String> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().map(|current| current.envelope.key_id.clone())
    }

    /// Makes a new seed if the plugin's key is another; else the present one may be written with for longer.
    async fn rotate(&self, key_id: &str) -> Result<(), String> {
        let until = Instant::now() + WRITES;
        let present = self.current_key_id();
        if present.as_deref() == Some(key_id) {
            if let Some(current) = &mut *self.current.write().unwrap_or_else(PoisonError::into_inner) {
                current.until = until;
            }
            return Ok(());
        }
        let uid = uuid::Uuid::new_v4().to_string();
        let (given, why) = match self.generate(&uid).await {
            Ok((key, envelope)) if envelope.key_id == key_id => {
                self.keep(fingerprint(&envelope), key.clone());
                let current = Current { key, envelope, until };
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(current);
                tracing::info!(plugin = self.name, key_id_hash = hash(key_id), "values are written with a new seed");
                return Ok(());
            }
            Ok((_, envelope)) => (envelope.key_id, "<nil>".to_owned()),
            Err(why) => (String::new(), why),
        };
        Err(format!(
            "failed to rotate DEK uid={uid:?}, errGen={why}, statusKeyIDHash={:?}, encryptKeyIDHash={:?}, stateKeyIDHash={:?}",
            hash(key_id),
            hash(&given),
            hash(&present.unwrap_or_default()),
        ))
    }

    async fn generate(&self, uid: &str) -> Result<(Arc<DataKey>, EncryptedObject), String> {
        let began = Instant::now();
        let generated = DataKey::generate();
        self.measures.generated(began.elapsed(), generated.is_err());
        let (key, seed) = generated?;
        let request = EncryptRequest { plaintext: Bytes::copy_from_slice(&seed), uid: uid.to_owned() };
        let encrypted = self.ask("Encrypt", self.client.clone().encrypt(request)).await;
        let encrypted = encrypted.map_err(|error| format!("failed to encrypt DEK, error: {error}"))?;
        let envelope = EncryptedObject {
            encrypted_data: Bytes::new(),
            key_id: encrypted.key_id,
            encrypted_dek_source: encrypted.ciphertext,
            annotations: encrypted.annotations,
            encrypted_dek_source_type: EncryptedDekSourceType::HkdfSha256XnonceAesGcmSeed.into(),
        };
        check(&envelope)?;
        Ok((Arc::new(key), envelope))
    }

    async fn ask<T>(
        &self,
        method: &'static str,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, String> {
        let began = Instant::now();
        let answer = match tokio::time::timeout(self.timeout, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(told(&status)),
            Err(_) => Err(LATE.to_owned()),
        };
        self.counted.called(method, began.elapsed(), answer.as_ref().err().map(String::as_str));
        answer
    }

    fn keep(&self, fingerprint: [u8; 32], key: Arc<DataKey>) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        keys.retain(|_, (at, _)| now.duration_since(*at) < KEPT);
        keys.insert(fingerprint, (now, key));
        self.counted.seeds(keys.len());
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key of a stored value, from memory or from the plugin.
    async fn key_of(self: &Arc<Self>, envelope: &EncryptedObject, wait: Wait) -> Answer {
        let fingerprint = fingerprint(envelope);
        let kept = self.keys.lock().unwrap_or_else(PoisonError::into_inner).get(&fingerprint).cloned();
        if let Some((_, key)) = kept {
            return Ok(key);
        }
        self.measures.missed();
        if let Some(error) = self.failures().hold(&fingerprint, wait, self.timeout) {
            return Err(error);
        }
        let answer = self.asked(fingerprint, envelope);
        match wait {
            Wait::Answer => answer.await,
            Wait::Moment => match tokio::time::timeout(MOMENT, answer).await {
                Ok(answer) => answer,
                Err(_) => Err(self.is_slow()),
            },
        }
    }

    /// Asks for a key, or joins who does already.
    fn asked(
        self: &Arc<Self>,
        fingerprint: [u8; 32],
        envelope: &EncryptedObject,
    ) -> Shared<BoxFuture<'static, Answer>> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = asked.get(&fingerprint) {
            return answer.clone();
        }
        let request = DecryptRequest {
            ciphertext: envelope.encrypted_dek_source.clone(),
            uid: uuid::Uuid::new_v4().to_string(),
            key_id: envelope.key_id.clone(),
            annotations: envelope.annotations.clone(),
        };
        let seed = EncryptedDekSourceType::HkdfSha256XnonceAesGcmSeed;
        let seeded = envelope.encrypted_dek_source_type == i32::from(seed);
        let plugin = self.clone();
        // A task of its own, so that the answer is kept though nobody may wait for it any more.
        let task = tokio::spawn(async move { plugin.decrypt(fingerprint, request, seeded).await });
        let answer = async move { task.await.unwrap_or_else(|error| Err(decrypting(&error.to_string()))) };
        let answer = answer.boxed().shared();
        asked.insert(fingerprint, answer.clone());
        answer
    }

    /// Has the plugin decrypt a key, and remembers what came of it.
    async fn decrypt(&self, fingerprint: [u8; 32], request: DecryptRequest, seeded: bool) -> Answer {
        let decrypted = self.ask("Decrypt", self.client.clone().decrypt(request)).await;
        let away = decrypted
            .as_ref()
            .is_err_and(|error| error.contains("code = Unavailable") || error.contains("code = DeadlineExceeded"));
        let key = decrypted
            .map_err(|error| decrypting(&error))
            .and_then(|decrypted| DataKey::new(&decrypted.plaintext, seeded).map(Arc::new));
        if let Ok(key) = &key {
            self.keep(fingerprint, key.clone());
        }
        {
            let mut failures = self.failures();
            let failures = &mut *failures;
            match &key {
                Err(error) if away => failures.away = Some(Failure::after(failures.away.as_ref(), error.clone())),
                Err(error) => {
                    failures.away = None;
                    let now = Instant::now();
                    failures.keys.retain(|_, failure| now < failure.until + LONGEST_BREATH);
                    let failure = Failure::after(failures.keys.get(&fingerprint), error.clone());
                    failures.keys.insert(fingerprint, failure);
                }
                Ok(_) => {
                    failures.away = None;
                    failures.keys.remove(&fingerprint);
                }
            }
        }
        // Last: whoever asks from now on finds the key, or the failure.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).remove(&fingerprint);
        key
    }

    /// Encrypts a value into its envelope.
    ///
    /// # Errors
    /// The plugin has given no seed yet, or has not been well for too long.
    pub(super) fn seal(&self, data: &[u8], context: &[u8]) -> Result<Vec<u8>, String> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let current = current.as_ref().ok_or("got unexpected nil transformer")?;
        let late = Instant::now().saturating_duration_since(current.until);
        if !late.is_zero() {
            return Err(format!(
                "encryptedDEKSource with keyID hash {:?} expired {} seconds ago",
                hash(&current.envelope.key_id),
                late.as_secs()
            ));
        }
        let encrypted_data = current.key.seal(data, context)?.into();
        self.counted.used(Way::In, &current.envelope.key_id);
        Ok(EncryptedObject { encrypted_data, ..current.envelope.clone() }.encode_to_vec())
    }

    /// Decrypts a value from its envelope, and tells whether the value is of another key than the plugin's present one.
    ///
    /// # Errors
    /// It is damaged, or the plugin does not give its key.
    pub(super) async fn open(
        self: &Arc<Self>,
        data: &[u8],
        context: &[u8],
        wait: Wait,
    ) -> Result<(Vec<u8>, bool), String> {
        let envelope = decode(data)?;
        let key = self.key_of(&envelope, wait).await?;
        self.counted.used(Way::Out, &envelope.key_id);
        let opened = key.open(&envelope.encrypted_data, context)?;
        let seed = i32::from(EncryptedDekSourceType::HkdfSha256XnonceAesGcmSeed);
        let other = self.current_key_id().is_some_and(|key_id| envelope.key_id != key_id);
        Ok((opened, other || envelope.encrypted_dek_source_type != seed))
    }
}
