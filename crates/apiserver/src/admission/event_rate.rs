//! EventRateLimit: nobody floods the server with events.

use super::{Admission, Attributes, Operation, Sides};
use api::Status;
use async_trait::async_trait;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Whose events are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Server,
    Namespace,
    User,
    SourceAndObject,
}

impl Scope {
    pub fn parse(text: &str) -> Option<Self> {
        [Scope::Server, Scope::Namespace, Scope::User, Scope::SourceAndObject].into_iter().find(|s| s.as_str() == text)
    }
    pub const fn as_str(self) -> &'static str {
        match self {
            Scope::Server => "Server",
            Scope::Namespace => "Namespace",
            Scope::User => "User",
            Scope::SourceAndObject => "SourceAndObject",
        }
    }
}

/// One limit of the plugin's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub scope: Scope,
    /// Events per second in the long run.
    pub qps: u32,
    /// Events at once.
    pub burst: u32,
    /// How many namespaces, users or objects are told apart.
    pub cache_size: usize,
}

/// A cache's size where the configuration does not say.
pub const CACHE_SIZE: usize = 4096;

struct Bucket {
    tokens: f64,
    at: Instant,
}

/// The buckets of one limit; the ones used longest ago are forgotten.
struct Buckets {
    limit: Limit,
    by_key: Mutex<(HashMap<String, Bucket>, VecDeque<String>)>,
}

impl Buckets {
    fn take(&self, key: &str, now: Instant) -> bool {
        let mut guard = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        let (buckets, order) = &mut *guard;
        if !buckets.contains_key(key) {
            if buckets.len() >= self.limit.cache_size
                && let Some(oldest) = order.pop_front()
            {
                buckets.remove(&oldest);
            }
            order.push_back(key.to_owned());
            buckets.insert(key.to_owned(), Bucket { tokens: f64::from(self.limit.burst), at: now });
        }
        let Some(bucket) = buckets.get_mut(key) else { return true };
        let gained = now.saturating_duration_since(bucket.at).as_secs_f64() * f64::from(self.limit.qps);
        bucket.tokens = (bucket.tokens + gained).min(f64::from(self.limit.burst));
        bucket.at = now;
        let may = bucket.tokens >= 1.0;
        if may {
            bucket.tokens -= 1.0;
        }
        may
    }
}

pub struct EventRateLimit(Vec<Buckets>);

impl EventRateLimit {
    pub fn new(limits: &[Limit]) -> Self {
        EventRateLimit(limits.iter().map(|limit| Buckets { limit: *limit, by_key: Mutex::default() }).collect())
    }
}

fn key(scope: Scope, a: &Attributes<'_>) -> String {
    match scope {
        Scope::Server => String::new(),
        Scope::Namespace => a.namespace.to_owned(),
        Scope::User => a.cx.user.name.clone(),
        Scope::SourceAndObject => {
            let path: [&[&str]; 8] = [
                &["source", "component"],
                &["source", "host"],
                &["involvedObject", "kind"],
                &["involvedObject", "namespace"],
                &["involvedObject", "name"],
                &["involvedObject", "uid"],
                &["involvedObject", "apiVersion"],
                &["involvedObject", "fieldPath"],
            ];
            path.map(|p| a.object.str_at(p)).concat()
        }
    }
}

#[async_trait]
impl Admission for EventRateLimit {
    fn name(&self) -> &'static str {
        "EventRateLimit"
    }

    fn sides(&self) -> Sides {
        Sides::Validates
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let is_event = a.subresource.is_empty()
            && a.resource.plural == "events"
            && matches!(a.resource.group.as_ref(), "" | "events.k8s.io");
        if !is_event || a.dry_run {
            return Ok(());
        }
        let now = Instant::now();
        // Every bucket pays, also when another refuses.
        let mut refused = Vec::new();
        for buckets in &self.0 {
            let (scope, key) = (buckets.limit.scope, key(buckets.limit.scope, a));
            if !buckets.take(&key, now) {
                refused.push(format!("limit reached on type {} for key {key}", scope.as_str()));
            }
        }
        match refused.as_slice() {
            [] => Ok(()),
            [one] => Err(Status::too_many_requests(one.as_str(), 0)),
            many => Err(Status::too_many_requests(format!("[{}]", many.join(", ")), 0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_bucket_fills_again_and_keys_are_apart() {
        let limit = Limit { scope: Scope::Namespace, qps: 2, burst: 3, cache_size: 2 };
        let buckets = Buckets { limit, by_key: Mutex::default() };
        let start = Instant::now();
        let taken = (0..5).filter(|_| buckets.take("a", start)).count();
        assert_eq!(taken, 3);
        assert!(buckets.take("b", start));
        assert!(buckets.take("a", start + Duration::from_millis(500)));
        assert!(!buckets.take("a", start + Duration::from_millis(500)));
        assert!(buckets.take("c", start), "a is forgotten");
        assert_eq!(buckets.by_key.lock().expect("no panic").0.len(), 2);
    }
}
