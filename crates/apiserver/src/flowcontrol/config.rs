//! The configuration out of the objects: levels with their share of the server's seats, and flow schemas in the order in
//! which they are asked. It is prepared when something changes, and swapped in as a whole.

use super::borrow::{Limits, Share, allocate};
use super::classify::FlowSpec;
use super::level::Level;
use super::metrics::Flow;
use super::queueset::Queuing;
use crate::bootstrap;
use arc_swap::ArcSwap;
use http::HeaderValue;
use schema::view::flowcontrol_v1::PriorityLevelConfigurationSpec;
use schema::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

pub(super) const EXEMPT: &str = "exempt";
pub(super) const CATCH_ALL: &str = "catch-all";
/// What of its nominal seats one request may be estimated to need.
const WIDEST: f64 = 0.15;

/// A priority level, as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LevelSpec {
    queuing: Queuing,
    shares: i64,
    lendable: i64,
    /// In percent of its nominal seats; `None`: all there are.
    borrowing: Option<i64>,
}

impl LevelSpec {
    /// Reads `spec` of a PriorityLevelConfiguration; `None` when it contradicts itself.
    pub(super) fn of(name: &str, spec: &Map) -> Option<Self> {
        let spec = PriorityLevelConfigurationSpec(spec);
        let exempt = spec.type_() == Some("Exempt");
        if exempt != (name == EXEMPT) || !exempt && spec.type_() != Some("Limited") {
            return None;
        }
        if exempt {
            let own = spec.exempt()?;
            let (shares, lendable) = (own.nominal_concurrency_shares(), own.lendable_percent());
            return Some(LevelSpec {
                queuing: Queuing::Exempt,
                shares: shares.unwrap_or(0).max(0),
                lendable: lendable.unwrap_or(0).clamp(0, 100),
                borrowing: None,
            });
        }
        let limited = spec.limited()?;
        let response = limited.limit_response()?;
        let queuing = match (response.type_()?, response.queuing()) {
            ("Reject", None) => Queuing::Reject,
            ("Queue", Some(queuing)) => {
                let number = |value: Option<i64>| value.and_then(|value| usize::try_from(value).ok());
                let (queues, hand) = (number(queuing.queues())?, number(queuing.hand_size())?);
                if queues == 0 || hand == 0 || hand > queues {
                    return None;
                }
                Queuing::Queues { queues, hand, length: number(queuing.queue_length_limit())? }
            }
            _ => return None,
        };
        Some(LevelSpec {
            queuing,
            shares: limited.nominal_concurrency_shares().unwrap_or(30).max(0),
            lendable: limited.lendable_percent().unwrap_or(0).clamp(0, 100),
            borrowing: limited.borrowing_limit_percent(),
        })
    }
}

/// A level, ready to be used.
pub(super) struct ReadyLevel {
    pub(super) level: Arc<Level>,
    pub(super) uid: HeaderValue,
    spec: LevelSpec,
    /// What one request may be estimated to need; `None`: as it is.
    pub(super) widest: Option<u32>,
}

/// A flow schema, ready to be asked.
pub(super) struct Schema {
    pub(super) name: Arc<str>,
    pub(super) uid: HeaderValue,
    pub(super) spec: FlowSpec,
    pub(super) level: Arc<ReadyLevel>,
    pub(super) flow: Arc<Flow>,
    /// Where the hashes of its flows begin.
    pub(super) seed: u64,
}

/// All of it, as it is now.
pub(super) struct Prepared {
    pub(super) schemas: Vec<Arc<Schema>>,
    pub(super) catch_all: Arc<Schema>,
    pub(super) levels: BTreeMap<String, Arc<ReadyLevel>>,
    /// Levels that are gone, but for their requests.
    pub(super) quiescing: BTreeMap<String, Arc<ReadyLevel>>,
    nominal_sum: u64,
    fraction: AtomicU64,
}

impl Prepared {
    /// Levels, with those that only end their requests.
    pub(super) fn all_levels(&self) -> impl Iterator<Item = &Arc<Level>> {
        self.all().map(|ready| &ready.level)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<ReadyLevel>> {
        self.levels.values().chain(self.quiescing.values())
    }

    /// How many requests may be executed, and wait, at once: upstream counts the seats of all levels, and all places of queues.
    pub(super) fn most(&self) -> (u64, u64) {
        let places = |ready: &Arc<ReadyLevel>| match ready.spec.queuing {
            Queuing::Queues { queues, length, .. } => queues.saturating_mul(length) as u64,
            Queuing::Exempt | Queuing::Reject => 0,
        };
        (self.nominal_sum, self.all().map(places).sum())
    }

    /// The fraction of its target that each level gets.
    pub(super) fn fraction(&self) -> f64 {
        f64::from_bits(self.fraction.load(Ordering::Relaxed))
    }

    /// Shares the seats anew, by what each level asked for since the last time.
    fn share(&self, server: u64) {
        let all: Vec<&Arc<ReadyLevel>> = self.all().collect();
        let mut shares = Vec::with_capacity(all.len());
        for ready in &all {
            let moments = ready.level.demand();
            let mut shared = ready.level.limits.lock().unwrap_or_else(PoisonError::into_inner);
            shared.demand.update(moments);
            let share = Share::of(shared.limits, &shared.demand);
            shared.target = share.target;
            shares.push(share);
        }
        let allocated = allocate(self.nominal_sum, &shares);
        if allocated.is_none() {
            tracing::warn!("the seats of priority levels cannot be shared anew: they stay as they are");
        }
        for (at, ready) in all.iter().enumerate() {
            let mut shared = ready.level.limits.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((given, _)) = &allocated {
                shared.current = given[at].round() as u64;
            }
            let current = shared.current;
            drop(shared);
            let denominator = if current > 0 { current } else { (server as f64 / 10.0).round().max(1.0) as u64 };
            ready.level.configure(ready.spec.queuing, current, denominator);
        }
        if let Some((_, fraction)) = allocated {
            self.fraction.store(fraction.to_bits(), Ordering::Relaxed);
        }
    }
}

/// What is known of a level's object: its spec and uid.
type KnownLevel = (LevelSpec, String);
type KnownSchema = (FlowSpec, String);

#[derive(Default)]
struct Known {
    levels: BTreeMap<String, KnownLevel>,
    schemas: BTreeMap<String, KnownSchema>,
    /// By name, over all configurations.
    kept: HashMap<String, Arc<Level>>,
}

/// The configuration as it follows the objects.
pub(super) struct Config {
    /// All seats of the server.
    server: u64,
    known: Mutex<Known>,
    prepared: ArcSwap<Prepared>,
}

/// The mandatory objects, for when they are not there (yet).
fn imagined<T>(plural: &str, read: impl Fn(&str, &Map) -> Option<T>) -> BTreeMap<String, (T, String)> {
    bootstrap::mandatory_flow_control(plural)
        .into_iter()
        .filter_map(|object| {
            let name = object.str_at(&["metadata", "name"]);
            let spec = read(name, object.get("spec").and_then(Value::as_map)?)?;
            Some((name.to_owned(), (spec, String::new())))
        })
        .collect()
}

fn header(uid: &str) -> HeaderValue {
    HeaderValue::from_maybe_shared(bytes::Bytes::copy_from_slice(uid.as_bytes()))
        .unwrap_or_else(|_| HeaderValue::from_static(""))
}

impl Config {
    /// With the mandatory objects alone.
    pub(super) fn new(server: u64) -> Self {
        let mut known = Known::default();
        let prepared = prepare(server, &mut known, None);
        Config { server, known: Mutex::new(known), prepared: ArcSwap::from_pointee(prepared) }
    }

    pub(super) fn load(&self) -> arc_swap::Guard<Arc<Prepared>> {
        self.prepared.load()
    }

    fn change(&self, change: impl FnOnce(&mut Known) -> bool) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if change(&mut known) {
            let prepared = prepare(self.server, &mut known, Some(&self.prepared.load()));
            self.prepared.store(Arc::new(prepared));
        }
    }

    /// A level's object is so now; `None`: it is gone, or says nothing that makes sense.
    pub(super) fn level(&self, name: &str, object: Option<(LevelSpec, String)>) {
        self.change(|known| match object {
            Some(object) => {
                let before = known.levels.insert(name.to_owned(), object);
                before.as_ref() != known.levels.get(name)
            }
            None => known.levels.remove(name).is_some(),
        });
    }

    /// The same of a flow schema's object.
    pub(super) fn schema(&self, name: &str, object: Option<(FlowSpec, String)>) {
        self.change(|known| match object {
            Some(object) => {
                let before = known.schemas.insert(name.to_owned(), object);
                before.as_ref() != known.schemas.get(name)
            }
            None => known.schemas.remove(name).is_some(),
        });
    }

    /// Whether the object of a level is there and makes sense.
    pub(super) fn has_level(&self, name: &str) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).levels.contains_key(name)
    }

    /// Shares the seats anew, and forgets levels that are gone and idle.
    pub(super) fn adjust(&self) {
        self.change(|_| {
            // Nothing is prepared meanwhile: levels are not set back to what they were.
            let prepared = self.prepared.load();
            let forgets = prepared.quiescing.values().any(|ready| ready.level.is_idle());
            if !forgets {
                prepared.share(self.server);
            }
            forgets
        });
    }
}

fn prepare(server: u64, known: &mut Known, before: Option<&Prepared>) -> Prepared {
    let mut specs: BTreeMap<&str, &KnownLevel> = BTreeMap::new();
    let imagined_levels = imagined("prioritylevelconfigurations", LevelSpec::of);
    specs.extend(imagined_levels.iter().map(|(name, known)| (name.as_str(), known)));
    specs.extend(known.levels.iter().map(|(name, known)| (name.as_str(), known)));
    let gone: Vec<&Arc<ReadyLevel>> = before
        .into_iter()
        .flat_map(Prepared::all)
        .filter(|ready| !specs.contains_key(ready.level.name.as_str()) && !ready.level.is_idle())
        .collect();
    let shares: i64 =
        specs.values().map(|(spec, _)| spec.shares).chain(gone.iter().map(|ready| ready.spec.shares)).sum();
    let mut nominal_sum = 0;
    let mut ready = |level: Arc<Level>, spec: &LevelSpec, uid: HeaderValue| {
        let nominal = (server as f64 * spec.shares as f64 / shares.max(1) as f64).ceil();
        let lendable = (nominal * spec.lendable as f64 / 100.0).round();
        let borrowing = spec.borrowing.map_or(server as f64, |percent| (nominal * percent as f64 / 100.0).round());
        let limits =
            Limits { nominal: nominal as u64, least: (nominal - lendable) as u64, most: (nominal + borrowing) as u64 };
        nominal_sum += limits.nominal;
        let mut shared = level.limits.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.limits == Limits::default() {
            shared.current = limits.nominal - (limits.nominal - limits.least) / 2;
        }
        shared.limits = limits;
        drop(shared);
        let widest = match spec.queuing {
            Queuing::Queues { hand, .. } => {
                let widest = (nominal * WIDEST).ceil().min((limits.nominal / hand.max(1) as u64) as f64).max(1.0);
                Some(widest as u32)
            }
            Queuing::Exempt | Queuing::Reject => None,
        };
        Arc::new(ReadyLevel { level, uid, spec: spec.clone(), widest })
    };
    let mut levels = BTreeMap::new();
    for (name, (spec, uid)) in &specs {
        let level = known.kept.entry((*name).to_owned()).or_insert_with(|| Level::new(name, spec.queuing)).clone();
        levels.insert((*name).to_owned(), ready(level, spec, header(uid)));
    }
    let quiescing: BTreeMap<String, Arc<ReadyLevel>> = gone
        .into_iter()
        .map(|old| (old.level.name.clone(), ready(old.level.clone(), &old.spec, old.uid.clone())))
        .collect();
    known.kept.retain(|name, _| levels.contains_key(name) || quiescing.contains_key(name));
    let (schemas, catch_all) = schemas(known, &levels);
    let fraction = AtomicU64::new(before.map_or(0.0, Prepared::fraction).to_bits());
    let prepared = Prepared { schemas, catch_all, levels, quiescing, nominal_sum, fraction };
    prepared.share(server);
    prepared
}

/// The schemas whose level is there, in the order of their precedence, then of their names; and the last of all.
fn schemas(known: &Known, levels: &BTreeMap<String, Arc<ReadyLevel>>) -> (Vec<Arc<Schema>>, Arc<Schema>) {
    let imagined = imagined("flowschemas", |_, spec| Some(FlowSpec::of(spec)));
    let good = |(_, (spec, _)): &(&String, &KnownSchema)| levels.contains_key(&spec.level);
    let mut specs: BTreeMap<&str, &KnownSchema> = BTreeMap::new();
    specs.extend(imagined.iter().map(|(name, known)| (name.as_str(), known)));
    specs.extend(known.schemas.iter().filter(good).map(|(name, known)| (name.as_str(), known)));
    let mut all: Vec<Arc<Schema>> = specs
        .into_iter()
        .filter_map(|(name, (spec, uid))| {
            let level = levels.get(&spec.level)?.clone();
            let mut seed = std::hash::DefaultHasher::new();
            std::hash::Hash::hash(name, &mut seed);
            Some(Arc::new(Schema {
                name: name.into(),
                uid: header(uid),
                spec: spec.clone(),
                flow: level.level.flow(name),
                level,
                seed: std::hash::Hasher::finish(&seed),
            }))
        })
        .collect();
    all.sort_by(|a, b| (a.spec.precedence, &a.name).cmp(&(b.spec.precedence, &b.name)));
    let catch_all = all.iter().find(|schema| *schema.name == *CATCH_ALL).or(all.last()).cloned();
    (all, catch_all.expect("the mandatory schemas are of levels that are always there"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::map;

    fn level(text: &str) -> (LevelSpec, String) {
        (LevelSpec::of("l", &map(text)).expect("a level"), "uid".to_owned())
    }

    fn schema(level: &str, precedence: i64) -> (FlowSpec, String) {
        let text =
            format!("{{priorityLevelConfiguration: {{name: {level}}}, matchingPrecedence: {precedence}, rules: []}}");
        (FlowSpec::of(&map(&text)), "uid".to_owned())
    }

    const QUEUE: &str = "limitResponse: {type: Queue, queuing: {queues: 16, handSize: 4, queueLengthLimit: 50}}";

    fn limits(config: &Config, name: &str) -> (u64, u64, u64) {
        let prepared = config.load();
        let shared = *prepared.levels[name].level.limits.lock().expect("no panic");
        (shared.limits.nominal, shared.limits.least, shared.limits.most)
    }

    #[test]
    fn seats_are_shared_by_shares() {
        let config = Config::new(600);
        assert_eq!(limits(&config, CATCH_ALL), (600, 600, 1200), "it has all as long as there is no other");
        config.level("a", Some(level(&format!("{{type: Limited, limited: {{nominalConcurrencyShares: 15, lendablePercent: 50, borrowingLimitPercent: 10, {QUEUE}}}}}"))));
        assert_eq!((limits(&config, CATCH_ALL), limits(&config, "a")), ((150, 150, 750), (450, 225, 495)));
        assert_eq!(config.load().levels["a"].widest, Some(68));
        assert_eq!(limits(&config, EXEMPT), (0, 0, 600));
    }

    #[test]
    fn what_makes_no_sense_is_not_there() {
        for text in [
            "{type: Exempt, exempt: {}}",
            "{type: Limited}",
            "{type: Limited, limited: {limitResponse: {type: Queue}}}",
            "{type: Limited, limited: {limitResponse: {type: Reject, queuing: {queues: 1, handSize: 1, queueLengthLimit: 1}}}}",
        ] {
            assert_eq!(LevelSpec::of("l", &map(text)), None, "{text}");
        }
    }

    #[test]
    fn schemas_come_by_precedence_then_name_and_only_with_their_level() {
        let config = Config::new(600);
        for (name, level, precedence) in [("b", "a", 500), ("a", "a", 500), ("c", "a", 400), ("d", "missing", 2)] {
            config.schema(name, Some(schema(level, precedence)));
        }
        let names = || config.load().schemas.iter().map(|s| s.name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(), ["exempt", "catch-all"]);
        config.level("a", Some(level(&format!("{{type: Limited, limited: {{{QUEUE}}}}}"))));
        assert_eq!(names(), ["exempt", "c", "a", "b", "catch-all"]);
        config.level("a", None);
        assert_eq!(names(), ["exempt", "catch-all"]);
    }

    #[tokio::test]
    async fn a_level_that_is_gone_ends_its_requests() {
        use super::super::level::About;
        use super::super::queueset::Estimate;
        let config = Config::new(600);
        let spec = level(&format!("{{type: Limited, limited: {{{QUEUE}}}}}"));
        config.level("a", Some(spec.clone()));
        let ready = config.load().levels["a"].clone();
        let info = crate::request::RequestInfo::parse("GET", "/", "").expect("a path");
        let user = crate::user::UserInfo::new("jane", ["g"]);
        let about = About::new(&Arc::new(info), &Arc::new(user), &Arc::from("s"), jiff::Timestamp::UNIX_EPOCH);
        let flow = ready.level.flow("s");
        let entered = ready.level.enter(&flow, Estimate::seats(1), 1, about, std::time::Duration::ZERO, || ());
        let held = entered.await.expect("a seat");
        config.level("a", None);
        assert!(config.load().quiescing.contains_key("a"));
        drop(held);
        config.adjust();
        assert!(config.load().quiescing.is_empty());
    }
}
