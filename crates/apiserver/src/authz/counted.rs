//! An authorizer whose decisions are counted.

use super::{Attributes, Authorizer, Decision, Rules};
use crate::measure::{Tells, head, series};
use crate::user::UserInfo;
use async_trait::async_trait;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One of several authorizers. That it has no opinion is no decision.
pub struct Counted {
    /// As upstream calls it: `RBAC`.
    pub kind: &'static str,
    pub inner: Arc<dyn Authorizer>,
    allowed: AtomicU64,
    denied: AtomicU64,
}

impl Counted {
    pub fn new(kind: &'static str, inner: Arc<dyn Authorizer>) -> Self {
        Counted { kind, inner, allowed: AtomicU64::default(), denied: AtomicU64::default() }
    }
}

#[async_trait]
impl Authorizer for Counted {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let decision = self.inner.authorize(attributes).await;
        match decision {
            Decision::Allow(_) => {
                self.allowed.fetch_add(1, Ordering::Relaxed);
            }
            Decision::Deny(_) => {
                self.denied.fetch_add(1, Ordering::Relaxed);
            }
            Decision::NoOpinion(_) => {}
        }
        decision
    }

    async fn rules_for(&self, user: &UserInfo, namespace: &str) -> Rules {
        self.inner.rules_for(user, namespace).await
    }
}

/// The decisions of all of them.
pub struct Decisions(pub Vec<Arc<Counted>>);

impl Tells for Decisions {
    fn render(&self, out: &mut String) -> fmt::Result {
        let name = "apiserver_authorization_decisions_total";
        let help = "[ALPHA] Total number of terminal decisions made by an authorizer split by authorizer type, name, and decision.";
        head(out, name, "counter", help)?;
        for counted in &self.0 {
            for (decision, count) in [("allowed", &counted.allowed), ("denied", &counted.denied)] {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    // Upstream names those that need no configuration by their type.
                    let (kind, own) = (counted.kind, counted.kind.to_lowercase());
                    series(out, name, &format!("decision=\"{decision}\",name=\"{own}\",type=\"{kind}\""), count)?;
                }
            }
        }
        Ok(())
    }
}
