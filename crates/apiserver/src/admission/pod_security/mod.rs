//! PodSecurity: a namespace's labels say which of the Pod Security Standards its pods are held to.
//!
//! What violates the enforced standard is refused; what violates the audited one is noted in the audit event; what
//! violates the one to warn of is told to the client. Templates of pods in workloads are audited and warned of only.

mod checks;
mod measures;
mod policy;

pub use measures::Measures;
pub use policy::{Level, Policy, Standard, Version};

use super::{Admission, Attributes, Operation, Sides, walk};
use crate::context::Context;
use crate::lookup::{Lookup, NAMESPACES, PODS};
use crate::measure::Tells;
use api::{FieldError, GroupKind, Status};
use async_trait::async_trait;
use measures::Mode;
use policy::{PREFIX, Refusals};
use schema::{Map, Value};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// `PodSecurityConfiguration`: what holds where labels are silent, and who is let through.
#[derive(Clone, Debug, Default)]
pub struct Configuration {
    pub defaults: Policy,
    pub exempt_usernames: Vec<String>,
    pub exempt_runtime_classes: Vec<String>,
    pub exempt_namespaces: Vec<String>,
}

pub struct PodSecurity {
    pub objects: Arc<dyn Lookup>,
    pub configuration: Configuration,
    pub measures: Arc<Measures>,
}

/// Pods of a namespace that are checked when its enforced standard becomes stricter, and for how long at most.
const MOST_PODS: usize = 3000;
const LONGEST: Duration = Duration::from_secs(1);

/// Where the pod template is, and its metadata, in the workloads that have one.
const TEMPLATES: [(&str, &str, &[&str]); 8] = [
    ("", "replicationcontrollers", &["spec", "template"]),
    ("", "podtemplates", &["template"]),
    ("apps", "replicasets", &["spec", "template"]),
    ("apps", "deployments", &["spec", "template"]),
    ("apps", "statefulsets", &["spec", "template"]),
    ("apps", "daemonsets", &["spec", "template"]),
    ("batch", "jobs", &["spec", "template"]),
    ("batch", "cronjobs", &["spec", "jobTemplate", "spec", "template"]),
];

/// Subresources of pods that take no pod, or change nothing that is checked.
const IGNORED: [&str; 8] = ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];

fn annotate(cx: &Context, key: &str, value: impl Into<String>) {
    cx.annotate(&[PREFIX, key].concat(), value);
}

impl PodSecurity {
    fn exempts_namespace(&self, name: &str) -> bool {
        self.configuration.exempt_namespaces.iter().any(|n| n == name)
    }

    fn exempts_runtime_class(&self, spec: &Map) -> bool {
        let class = spec.str_at(&["runtimeClassName"]);
        !class.is_empty() && self.configuration.exempt_runtime_classes.iter().any(|c| c == class)
    }

    /// Whether somebody or somewhere is exempt; the audit event says so.
    fn exempts(&self, a: &Attributes<'_>) -> bool {
        let why = if self.exempts_namespace(a.namespace) {
            "namespace"
        } else if self.configuration.exempt_usernames.iter().any(|u| *u == a.cx.user.name) {
            "user"
        } else {
            return false;
        };
        annotate(a.cx, "exempt", why);
        self.measures.exempted(a);
        true
    }

    async fn policy(&self, a: &Attributes<'_>) -> Result<(Policy, Vec<FieldError>), Status> {
        match self.objects.find(NAMESPACES, "", a.namespace).await? {
            Some(namespace) => Ok(Policy::of(&namespace, self.configuration.defaults)),
            None => {
                self.measures.failed(a, true);
                Err(Status::internal(format!("failed to lookup namespace {:?}", a.namespace)))
            }
        }
    }

    async fn pod(&self, a: &Attributes<'_>) -> Result<(), Status> {
        if IGNORED.contains(&a.subresource) || self.exempts(a) {
            return Ok(());
        }
        let (policy, errors) = self.policy(a).await?;
        if errors.is_empty() && policy.is_fully_privileged() {
            annotate(a.cx, "enforce-policy", policy.enforce.to_string());
            self.measures.evaluated(a, policy.enforce, Mode::Enforce, true);
            return Ok(());
        }
        if a.old.is_some_and(|old| !is_significant(a.object, old)) {
            return Ok(());
        }
        let spec = a.object.get("spec").and_then(Value::as_map);
        let metadata = a.object.get("metadata").and_then(Value::as_map);
        let (Some(spec), Some(metadata)) = (spec, metadata) else { return Ok(()) };
        self.evaluate(a, policy, &errors, metadata, spec, true)
    }

    async fn template(&self, a: &Attributes<'_>, path: &[&str]) -> Result<(), Status> {
        if !a.subresource.is_empty() || self.exempts(a) {
            return Ok(());
        }
        let (policy, errors) = self.policy(a).await?;
        let silent = policy.warn.level == Level::Privileged && policy.audit.level == Level::Privileged;
        let Some(template) = a.object.at(path).and_then(Value::as_map) else { return Ok(()) };
        if errors.is_empty() && silent {
            return Ok(());
        }
        let none = Map::new();
        let part = |key| template.get(key).and_then(Value::as_map).unwrap_or(&none);
        self.evaluate(a, policy, &errors, part("metadata"), part("spec"), false)
    }

    fn evaluate(
        &self,
        a: &Attributes<'_>,
        policy: Policy,
        errors: &[FieldError],
        metadata: &Map,
        spec: &Map,
        enforce: bool,
    ) -> Result<(), Status> {
        if self.exempts_runtime_class(spec) {
            annotate(a.cx, "exempt", "runtimeClass");
            self.measures.exempted(a);
            return Ok(());
        }
        if !errors.is_empty() {
            annotate(a.cx, "error", format!("Failed to parse policy: {}", api::field::aggregate(errors)));
            self.measures.failed(a, false);
        }
        let mut known: Vec<(Standard, Refusals)> = Vec::with_capacity(3);
        let mut refusals = |standard: Standard| {
            if let Some((_, found)) = known.iter().find(|(s, _)| *s == standard) {
                return found.clone();
            }
            let found = standard.refusals(metadata, spec);
            known.push((standard, found.clone()));
            found
        };
        let mut verdict = Ok(());
        if enforce {
            annotate(a.cx, "enforce-policy", policy.enforce.to_string());
            let found = refusals(policy.enforce);
            self.measures.evaluated(a, policy.enforce, Mode::Enforce, found.is_empty());
            if !found.is_empty() {
                let standard = policy.enforce;
                verdict = Err(a.forbidden(format!("violates PodSecurity \"{standard}\": {}", found.details())));
            }
        }
        let would = |standard: Standard, found: &Refusals| {
            format!("would violate PodSecurity \"{standard}\": {}", found.details())
        };
        let found = refusals(policy.audit);
        if !found.is_empty() {
            annotate(a.cx, "audit-violations", would(policy.audit, &found));
            self.measures.evaluated(a, policy.audit, Mode::Audit, false);
        }
        if verdict.is_ok() {
            let found = refusals(policy.warn);
            if !found.is_empty() {
                a.cx.warn(would(policy.warn, &found));
                self.measures.evaluated(a, policy.warn, Mode::Warn, false);
            }
        }
        verdict
    }

    fn namespace(&self, a: &Attributes<'_>) -> Result<(), Status> {
        if !a.subresource.is_empty() {
            return Ok(());
        }
        let defaults = self.configuration.defaults;
        let (policy, errors) = Policy::of(a.object, defaults);
        let name = a.object.str_at(&["metadata", "name"]);
        let invalid = || Err(Status::invalid(&GroupKind::new("", "Namespace"), name, &errors));
        let Some(old) = a.old else {
            if !errors.is_empty() {
                return invalid();
            }
            self.warn_of_exemption(a, &policy);
            return Ok(());
        };
        let (before, errors_before) = Policy::of(old, defaults);
        if !errors.is_empty() && errors != errors_before {
            return invalid();
        }
        let (new, old) = (policy.enforce, before.enforce);
        let relaxed = new.version == old.version && new.level <= old.level;
        if new == old || new.level == Level::Privileged || relaxed {
            return Ok(());
        }
        if self.exempts_namespace(name) {
            self.warn_of_exemption(a, &policy);
            annotate(a.cx, "exempt", "namespace");
            self.measures.exempted(a);
            return Ok(());
        }
        for warning in self.violations(name, new) {
            a.cx.warn(warning);
        }
        Ok(())
    }

    /// Says that labels on an exempt namespace do nothing.
    fn warn_of_exemption(&self, a: &Attributes<'_>, policy: &Policy) {
        let name = a.object.str_at(&["metadata", "name"]);
        let idle = policy.is_fully_privileged() || policy.is_equivalent(&self.configuration.defaults);
        if idle || !self.exempts_namespace(name) {
            return;
        }
        let labelled = |mode: &str| {
            [format!("{PREFIX}{mode}"), format!("{PREFIX}{mode}-version")]
                .iter()
                .any(|label| a.object.at(&["metadata", "labels", label]).is_some())
        };
        let shown: Vec<String> = policy
            .modes()
            .iter()
            .filter(|(mode, standard)| standard.level != Level::Privileged && labelled(mode))
            .map(|(mode, standard)| format!("{mode}={standard}"))
            .collect();
        a.cx.warn(format!(
            "namespace {name:?} is exempt from Pod Security, and the policy ({}) will be ignored",
            shown.join(", ")
        ));
    }

    /// What is to be said of the pods that are there already when a stricter standard is enforced.
    fn violations(&self, namespace: &str, standard: Standard) -> Vec<String> {
        let pods = match self.objects.list(PODS, Some(namespace)) {
            Ok(pods) => representatives_first(pods),
            Err(error) => {
                tracing::error!(namespace, error = error.message, "pods cannot be checked against a new standard");
                return vec!["failed to list pods while checking new PodSecurity enforce level".to_owned()];
            }
        };
        let (total, end) = (pods.len(), Instant::now() + LONGEST);
        let mut checked = 0;
        let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
        let none = Map::new();
        for pod in pods.iter().take(MOST_PODS) {
            if Instant::now() > end {
                break;
            }
            checked += 1;
            let part = |key| pod.get(key).and_then(Value::as_map).unwrap_or(&none);
            if self.exempts_runtime_class(part("spec")) {
                continue;
            }
            let refusals = standard.refusals(part("metadata"), part("spec"));
            if !refusals.is_empty() {
                let name = pod.str_at(&["metadata", "name"]);
                let (first, count) = found.entry(refusals.reasons()).or_insert_with(|| (name.to_owned(), 0));
                *count += 1;
                if name < first.as_str() {
                    name.clone_into(first);
                }
            }
        }
        let mut warnings = Vec::new();
        if checked < total {
            warnings.push(format!(
                "new PodSecurity enforce level only checked against the first {checked} of {total} existing pods"
            ));
        }
        if !found.is_empty() {
            warnings.push(format!(
                "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{standard}\""
            ));
        }
        let mut each: Vec<String> = found
            .into_iter()
            .map(|(reasons, (pod, count))| match count {
                1 => format!("{pod}: {reasons}"),
                2 => format!("{pod} (and 1 other pod): {reasons}"),
                more => format!("{pod} (and {} other pods): {reasons}", more - 1),
            })
            .collect();
        each.sort();
        warnings.extend(each);
        warnings
    }
}

/// One pod of each controller, and those without, before the others: most of a namespace's pods are alike.
fn representatives_first(pods: Vec<Arc<Map>>) -> Vec<Arc<Map>> {
    let mut seen = HashSet::new();
    let is_first = |pod: &Arc<Map>| {
        let mut owners = walk::items(pod, &["metadata", "ownerReferences"]);
        let owner = owners.find(|o| o.get("controller").and_then(Value::as_bool) == Some(true));
        owner.is_none_or(|o| seen.insert(o.str_at(&["uid"]).to_owned()))
    };
    let (mut first, rest): (Vec<_>, Vec<_>) = pods.into_iter().partition(is_first);
    first.extend(rest);
    first
}

/// Whether an update of a pod changes anything that is checked. Most of a pod's spec cannot change.
fn is_significant(pod: &Map, old: &Map) -> bool {
    const POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
    const CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
    let annotation = |of: &Map, key: &str| of.str_at(&["metadata", "annotations", key]).to_owned();
    if annotation(pod, POD) != annotation(old, POD) {
        return true;
    }
    let differs = |new: &Map, old_container: &Map| {
        let key = format!("{CONTAINER}{}", new.str_at(&["name"]));
        new.get("image") != old_container.get("image") || annotation(pod, &key) != annotation(old, &key)
    };
    for list in ["containers", "initContainers"] {
        let new: Vec<&Map> = walk::items(pod, &["spec", list]).collect();
        let before: Vec<&Map> = walk::items(old, &["spec", list]).collect();
        if new.len() != before.len() || new.iter().zip(&before).any(|(n, b)| differs(n, b)) {
            return true;
        }
    }
    let path = ["spec", "ephemeralContainers"];
    walk::items(pod, &path).any(|new| {
        let before = walk::items(old, &path).find(|o| o.get("name") == new.get("name"));
        before.is_none_or(|before| differs(new, before))
    })
}

#[async_trait]
impl Admission for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn sides(&self) -> Sides {
        Sides::Validates
    }

    fn tells(&self) -> Option<Arc<dyn Tells>> {
        Some(self.measures.clone())
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let (group, plural) = (a.resource.group.as_ref(), a.resource.plural.as_ref());
        match (group, plural) {
            ("", "pods") => self.pod(a).await,
            ("", "namespaces") => self.namespace(a),
            _ => match TEMPLATES.iter().find(|(g, p, _)| *p == plural && *g == group) {
                Some((.., path)) => self.template(a, path).await,
                None => Ok(()),
            },
        }
    }
}
