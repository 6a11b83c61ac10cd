//! `apiserver_storage_transformation_*`, `apiserver_envelope_encryption_*` and what else upstream tells of encryption at rest.
//!
//! What counts is made with the providers and kept with them, so that to count a value is to add to numbers that are at hand.
//! It outlives a configuration: the next one's providers of the same names go on with the same numbers.

use crate::measure::{Family, Histogram, escaped, head, series};
use crate::registry::measures::Tells;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// `n` bounds from the first on, each twice the one before.
const fn doubling<const N: usize>(first: f64) -> [f64; N] {
    let mut bounds = [first; N];
    let mut at = 1;
    while at < N {
        bounds[at] = bounds[at - 1] * 2.0;
        at += 1;
    }
    bounds
}

const TRANSFORMATIONS: &[f64] = &doubling::<25>(5e-6);
const GENERATIONS: &[f64] = &doubling::<14>(5e-6);
const CALLS: &[f64] = &doubling::<20>(0.0001);
/// How many key ids of a plugin are told in each direction: plugins may change theirs as often as they like.
const MOST_KEY_IDS: usize = 100;

/// Which way a value goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    In,
    Out,
}

/// By [`Way`].
const WAYS: [&str; 2] = ["to_storage", "from_storage"];

/// What upstream has as the status of an error: that of gRPC, when a plugin gave one.
fn status(error: &str) -> &str {
    const CODE: &str = "rpc error: code = ";
    let code = error.split_once(CODE).map(|(_, rest)| rest.split(' ').next().unwrap_or(rest));
    code.unwrap_or("unknown-non-grpc")
}

/// Values that were transformed one way. Only what succeeded is timed.
#[derive(Debug)]
struct OneWay {
    times: Histogram,
    failed: Mutex<BTreeMap<String, u64>>,
}

/// The values of one prefix: a provider's, or a key's of a provider.
#[derive(Debug)]
pub(super) struct Transformed([OneWay; 2]);

impl Default for Transformed {
    fn default() -> Self {
        let one = || OneWay { times: Histogram::of_times(TRANSFORMATIONS), failed: Mutex::default() };
        Transformed([one(), one()])
    }
}

impl Transformed {
    /// Notes what came of a value.
    pub(super) fn note(&self, way: Way, took: Duration, failure: Option<&str>) {
        let one = &self.0[way as usize];
        match failure {
            None => one.times.took(took),
            Some(error) => {
                let mut failed = one.failed.lock().unwrap_or_else(PoisonError::into_inner);
                *failed.entry(status(error).to_owned()).or_default() += 1;
            }
        }
    }
}

/// How often a key id was used, and when last.
#[derive(Debug, Default)]
struct Used {
    count: AtomicU64,
    micros: AtomicI64,
}

/// The key ids of a plugin that were used lately.
#[derive(Debug, Default)]
struct KeyIds(RwLock<HashMap<String, Used>>);

impl KeyIds {
    fn used(&self, id: &str) {
        let now = Timestamp::now().as_microsecond();
        let note = |used: &Used| {
            used.count.fetch_add(1, Ordering::Relaxed);
            used.micros.store(now, Ordering::Relaxed);
        };
        if let Some(used) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(id) {
            return note(used);
        }
        let mut ids = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if ids.len() >= MOST_KEY_IDS && !ids.contains_key(id) {
            let oldest = ids.iter().min_by_key(|(_, used)| used.micros.load(Ordering::Relaxed));
            if let Some(oldest) = oldest.map(|(id, _)| id.clone()) {
                ids.remove(&oldest);
            }
        }
        note(ids.entry(id.to_owned()).or_default());
    }

    /// Their hashes, in order, how often each was used, and when last, in seconds.
    fn all(&self) -> Vec<(String, u64, f64)> {
        let ids = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let told = |(id, used): (&String, &Used)| {
            let seconds = used.micros.load(Ordering::Relaxed) as f64 / 1e6;
            (hash(id), used.count.load(Ordering::Relaxed), seconds)
        };
        let mut all: Vec<_> = ids.iter().map(told).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

/// What upstream shows in the place of ids.
pub(super) fn hash(id: &str) -> String {
    if id.is_empty() { String::new() } else { format!("sha256:{}", super::hex(&Sha256::digest(id.as_bytes()))) }
}

/// A call of a plugin's service, and the status that it was answered with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Call {
    method: &'static str,
    status: String,
}

/// What is counted of a plugin.
#[derive(Debug, Default)]
pub(super) struct OfPlugin {
    calls: Family<Call, Histogram>,
    used: [KeyIds; 2],
    /// Those that it named when it was asked how it is.
    named: KeyIds,
    /// How often it then named none, or one that is too long.
    empty: AtomicU64,
    too_long: AtomicU64,
    /// How many seeds are remembered; -1: none ever was.
    seeds: AtomicI64,
}

impl OfPlugin {
    /// Notes a call of a method.
    pub(super) fn called(&self, method: &'static str, took: Duration, failure: Option<&str>) {
        let call = Call { method, status: failure.map_or("OK", status).to_owned() };
        self.calls.with(&call, || Histogram::of_times(CALLS), |times| times.took(took));
    }

    /// Notes that a value was written, or read, with a key of this id.
    pub(super) fn used(&self, way: Way, key_id: &str) {
        self.used[way as usize].used(key_id);
    }

    /// Notes the key id that it named.
    pub(super) fn named(&self, key_id: &str, fits: bool) {
        match (fits, key_id.is_empty()) {
            (true, _) => self.named.used(key_id),
            (false, true) => drop(self.empty.fetch_add(1, Ordering::Relaxed)),
            (false, false) => drop(self.too_long.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// Notes how many seeds are remembered now.
    pub(super) fn seeds(&self, count: usize) {
        self.seeds.store(i64::try_from(count).unwrap_or(i64::MAX), Ordering::Relaxed);
    }
}

/// Times that the configuration was read again.
#[derive(Debug, Default)]
struct Reloads {
    count: AtomicU64,
    micros: AtomicI64,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Measures {
    server: String,
    /// By prefix; `identity` and `unknown` among them.
    transformed: Family<String, Transformed>,
    plugins: Family<String, OfPlugin>,
    misses: AtomicU64,
    generated: Histogram,
    generations_failed: AtomicU64,
    /// Those that failed, and those that did not.
    reloads: [Reloads; 2],
    /// The hash of the configuration that holds.
    configuration: Mutex<String>,
}

impl Default for Measures {
    fn default() -> Self {
        Measures {
            server: hash(&server()),
            transformed: Family::default(),
            plugins: Family::default(),
            misses: AtomicU64::default(),
            generated: Histogram::of_times(GENERATIONS),
            generations_failed: AtomicU64::default(),
            reloads: Default::default(),
            configuration: Mutex::default(),
        }
    }
}

/// By what upstream knows a server: a hash of its host's name and its own.
fn server() -> String {
    const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut digest = Sha256::new();
    for part in [host.trim(), "kube-apiserver"] {
        digest.update(u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes());
        digest.update(part);
    }
    let digest = digest.finalize();
    let mut text = String::from("apiserver-");
    // 128 bits by five, the last of which are filled up with zeros.
    for at in (0..128).step_by(5) {
        let bit = |at: usize| at < 128 && digest[at / 8] >> (7 - at % 8) & 1 == 1;
        let digit = (at..at + 5).fold(0, |digit, at| digit << 1 | usize::from(bit(at)));
        text.push(DIGITS[digit].into());
    }
    text
}

impl Measures {
    /// What is counted of values of a prefix.
    pub(super) fn of(&self, prefix: &str) -> Arc<Transformed> {
        self.transformed.with(&prefix.to_owned(), Transformed::default, Arc::clone)
    }

    /// What is counted of a plugin.
    pub(super) fn plugin(&self, name: &str) -> Arc<OfPlugin> {
        let make = || OfPlugin { seeds: AtomicI64::new(-1), ..OfPlugin::default() };
        self.plugins.with(&name.to_owned(), make, Arc::clone)
    }

    /// Notes that a value's seed is not remembered.
    pub(super) fn missed(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a seed was made, or was to be.
    pub(super) fn generated(&self, took: Duration, failed: bool) {
        if failed {
            self.generations_failed.fetch_add(1, Ordering::Relaxed);
        } else {
            self.generated.took(took);
        }
    }

    /// Notes that a configuration was to be taken over while the server runs.
    pub(super) fn reloaded(&self, done: bool) {
        let reloads = &self.reloads[usize::from(done)];
        reloads.count.fetch_add(1, Ordering::Relaxed);
        reloads.micros.store(Timestamp::now().as_microsecond(), Ordering::Relaxed);
    }

    /// Notes which configuration holds, by the hash of its text.
    pub(super) fn configured(&self, hash: &[u8; 32]) {
        let told = format!("k8s:enc:unstable:1:{}", super::hex(hash));
        *self.configuration.lock().unwrap_or_else(PoisonError::into_inner) = told;
    }

    fn transformations(&self, out: &mut String) -> fmt::Result {
        let all = self.transformed.sorted();
        let ways = || {
            all.iter()
                .flat_map(|(prefix, both)| both.0.iter().zip(WAYS).map(move |(one, way)| (escaped(prefix), way, one)))
        };
        let name = "apiserver_storage_transformation_duration_seconds";
        head(out, name, "histogram", "[ALPHA] Latencies in seconds of value transformation operations.")?;
        for (prefix, way, one) in ways().filter(|(.., one)| !one.times.is_empty()) {
            one.times.write(out, name, &format!("transformation_type=\"{way}\",transformer_prefix=\"{prefix}\""))?;
        }
        let name = "apiserver_storage_transformation_operations_total";
        head(out, name, "counter", "[ALPHA] Total number of transformations.")?;
        for (prefix, way, one) in ways() {
            let mut by_status = one.failed.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if !one.times.is_empty() {
                by_status.insert("OK".to_owned(), one.times.count());
            }
            for (status, count) in by_status {
                let labels =
                    format!("status=\"{status}\",transformation_type=\"{way}\",transformer_prefix=\"{prefix}\"");
                series(out, name, &labels, count)?;
            }
        }
        let name = "apiserver_storage_envelope_transformation_cache_misses_total";
        let help = "[ALPHA] Total number of cache misses while accessing key decryption key(KEK).";
        head(out, name, "counter", help)?;
        series(out, name, "", self.misses.load(Ordering::Relaxed))?;
        let name = "apiserver_storage_data_key_generation_duration_seconds";
        let help = "[ALPHA] Latencies in seconds of data encryption key(DEK) generation operations.";
        head(out, name, "histogram", help)?;
        self.generated.write(out, name, "")?;
        let name = "apiserver_storage_data_key_generation_failures_total";
        let help = "[ALPHA] Total number of failed data encryption key(DEK) generation operations.";
        head(out, name, "counter", help)?;
        series(out, name, "", self.generations_failed.load(Ordering::Relaxed))
    }

    fn envelopes(&self, out: &mut String) -> fmt::Result {
        let plugins: Vec<(String, Arc<OfPlugin>)> =
            self.plugins.sorted().into_iter().map(|(name, of)| (escaped(&name), of)).collect();
        let name = "apiserver_envelope_encryption_dek_source_cache_size";
        head(
            out,
            name,
            "gauge",
            "[ALPHA] Number of records in data encryption key (DEK) source cache. On a restart, this value is an approximation of the number of decrypt RPC calls the server will make to the KMS plugin.",
        )?;
        for (plugin, of) in &plugins {
            let seeds = of.seeds.load(Ordering::Relaxed);
            if seeds >= 0 {
                series(out, name, &format!("provider_name=\"{plugin}\""), seeds)?;
            }
        }
        let name = "apiserver_envelope_encryption_invalid_key_id_from_status_total";
        let help = "[ALPHA] Number of times an invalid keyID is returned by the Status RPC call split by error.";
        head(out, name, "counter", help)?;
        for (plugin, of) in &plugins {
            for (error, count) in [("empty", &of.empty), ("too_long", &of.too_long)] {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    series(out, name, &format!("error=\"{error}\",provider_name=\"{plugin}\""), count)?;
                }
            }
        }
        let server = format!("apiserver_id_hash=\"{}\"", self.server);
        let used: Vec<(String, u64, f64)> = plugins
            .iter()
            .flat_map(|(plugin, of)| of.used.iter().zip(WAYS).map(move |(ids, way)| (plugin, ids, way)))
            .flat_map(|(plugin, ids, way)| {
                let labels = |id: &str| {
                    format!("{server},key_id_hash=\"{id}\",provider_name=\"{plugin}\",transformation_type=\"{way}\"")
                };
                ids.all().into_iter().map(|(id, count, last)| (labels(&id), count, last)).collect::<Vec<_>>()
            })
            .collect();
        let name = "apiserver_envelope_encryption_key_id_hash_last_timestamp_seconds";
        head(out, name, "gauge", "[ALPHA] The last time in seconds when a keyID was used.")?;
        for (labels, _, last) in &used {
            series(out, name, labels, last)?;
        }
        let name = "apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds";
        let help = "[ALPHA] The last time in seconds when a keyID was returned by the Status RPC call.";
        head(out, name, "gauge", help)?;
        for (plugin, of) in &plugins {
            for (id, _, last) in of.named.all() {
                series(out, name, &format!("{server},key_id_hash=\"{id}\",provider_name=\"{plugin}\""), last)?;
            }
        }
        let name = "apiserver_envelope_encryption_key_id_hash_total";
        let help =
            "[ALPHA] Number of times a keyID is used split by transformation type, provider, and apiserver identity.";
        head(out, name, "counter", help)?;
        for (labels, count, _) in &used {
            series(out, name, labels, count)?;
        }
        let name = "apiserver_envelope_encryption_kms_operations_latency_seconds";
        head(out, name, "histogram", "[ALPHA] KMS operation duration with gRPC error code status total.")?;
        for (plugin, of) in &plugins {
            for (Call { method, status }, times) in of.calls.sorted() {
                let method = format!("/v2.KeyManagementService/{method}");
                let labels =
                    format!("grpc_status_code=\"{status}\",method_name=\"{method}\",provider_name=\"{plugin}\"");
                times.write(out, name, &labels)?;
            }
        }
        Ok(())
    }

    fn reloads(&self, out: &mut String) -> fmt::Result {
        const RESULTS: [&str; 2] = ["failure", "success"];
        let server = format!("apiserver_id_hash=\"{}\"", self.server);
        let told = || {
            let all = RESULTS.into_iter().zip(&self.reloads);
            all.filter(|(_, reloads)| reloads.count.load(Ordering::Relaxed) > 0)
        };
        let name = "apiserver_encryption_config_controller_automatic_reload_last_timestamp_seconds";
        head(
            out,
            name,
            "gauge",
            "[ALPHA] Timestamp of the last successful or failed automatic reload of encryption configuration split by apiserver identity.",
        )?;
        for (result, reloads) in told() {
            let seconds = reloads.micros.load(Ordering::Relaxed) as f64 / 1e6;
            series(out, name, &format!("{server},status=\"{result}\""), seconds)?;
        }
        let name = "apiserver_encryption_config_controller_automatic_reloads_total";
        head(
            out,
            name,
            "counter",
            "[ALPHA] Total number of reload successes and failures of encryption configuration split by apiserver identity.",
        )?;
        for (result, reloads) in told() {
            series(out, name, &format!("{server},status=\"{result}\""), reloads.count.load(Ordering::Relaxed))?;
        }
        let name = "apiserver_encryption_config_controller_last_config_info";
        head(
            out,
            name,
            "gauge",
            "[ALPHA] Information about the last applied encryption configuration with hash as label, split by apiserver identity.",
        )?;
        let hash = self.configuration.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if hash.is_empty() { Ok(()) } else { series(out, name, &format!("{server},hash=\"{hash}\""), 1) }
    }
}

impl Tells for Measures {
    fn render(&self, out: &mut String) -> fmt::Result {
        self.transformations(out)?;
        self.envelopes(out)?;
        self.reloads(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_the_status_that_the_plugin_gave() {
        assert_eq!(status("failed to decrypt DEK, error: rpc error: code = Unavailable desc = away"), "Unavailable");
        assert_eq!(status("no matching prefix found"), "unknown-non-grpc");
    }

    #[test]
    fn the_key_ids_used_last_are_told() {
        let ids = KeyIds::default();
        for at in 0..MOST_KEY_IDS + 10 {
            ids.used(&at.to_string());
            ids.used("often");
        }
        let all = ids.all();
        assert_eq!(all.len(), MOST_KEY_IDS);
        let count = |id: &str| all.iter().find(|(hashed, ..)| *hashed == hash(id)).map(|(_, count, _)| *count);
        assert_eq!(count("often"), Some(MOST_KEY_IDS as u64 + 10));
    }

    #[test]
    fn a_server_is_known_by_a_name_that_is_one() {
        let name = server();
        assert_eq!(name.len(), "apiserver-".len() + 26);
        assert!(api::names::dns1123_subdomain(&name).is_empty(), "{name}");
    }
}
