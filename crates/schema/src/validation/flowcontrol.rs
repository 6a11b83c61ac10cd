//! flowcontrol.apiserver.k8s.io: flow schemas and priority levels, and the ones that every server must have.

use super::fields::{Errors, inclusive, json, json_list, problems, required, same, supported_of};
use crate::tree::{Map, Value};
use crate::view::List;
use crate::view::flowcontrol_v1::{
    FlowSchema, FlowSchemaSpec, LimitResponse, NonResourcePolicyRule, PolicyRulesWithSubjects,
    PriorityLevelConfiguration, PriorityLevelConfigurationSpec, QueuingConfiguration, ResourcePolicyRule, Subject,
};
use api::field::{Raw, go_quote};
use api::{FieldError, Path, names};
use std::collections::BTreeSet;

const SPEC: Path<'static> = Path::root("spec");
const EXEMPT: &str = "exempt";
const MAX_PRECEDENCE: i64 = 10_000;
const MAX_QUEUES: i64 = 10_000_000;
/// How many bits of a hash the dealing of queues may use up.
const MAX_HASH_BITS: i64 = 60;
const VERBS: [&str; 9] = ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

/// The specs that can't be changed, by name.
const SCHEMAS: [(&str, &str); 2] = [
    (
        EXEMPT,
        r#"{"matchingPrecedence":1,"priorityLevelConfiguration":{"name":"exempt"},"rules":[{"subjects":[{"kind":"Group","group":{"name":"system:masters"}}],"resourceRules":[{"verbs":["*"],"apiGroups":["*"],"resources":["*"],"clusterScope":true,"namespaces":["*"]}],"nonResourceRules":[{"verbs":["*"],"nonResourceURLs":["*"]}]}]}"#,
    ),
    (
        "catch-all",
        r#"{"matchingPrecedence":10000,"priorityLevelConfiguration":{"name":"catch-all"},"distinguisherMethod":{"type":"ByUser"},"rules":[{"subjects":[{"kind":"Group","group":{"name":"system:unauthenticated"}},{"kind":"Group","group":{"name":"system:authenticated"}}],"resourceRules":[{"verbs":["*"],"apiGroups":["*"],"resources":["*"],"clusterScope":true,"namespaces":["*"]}],"nonResourceRules":[{"verbs":["*"],"nonResourceURLs":["*"]}]}]}"#,
    ),
];
const LEVELS: [(&str, &str); 2] = [
    (EXEMPT, r#"{"type":"Exempt"}"#),
    (
        "catch-all",
        r#"{"type":"Limited","limited":{"nominalConcurrencyShares":5,"lendablePercent":0,"limitResponse":{"type":"Reject"}}}"#,
    ),
];

/// The spec that an object of this name must have.
fn mandatory(table: &[(&str, &str)], name: &str) -> Option<Value> {
    let (_, text) = table.iter().find(|(of, _)| *of == name)?;
    crate::json::parse(text.as_bytes()).ok()
}

pub(super) fn schema(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let empty = Map::new();
    let name = object.str_at(&["metadata", "name"]);
    let spec = FlowSchema(object).spec().unwrap_or(FlowSchemaSpec(&empty));
    schema_spec(&mut errors, name, spec);
    if let Some(fixed) = mandatory(&SCHEMAS, name)
        && !same(object.get("spec"), Some(&fixed))
    {
        let why = format!("spec of '{name}' must equal the fixed value");
        errors.push(FieldError::invalid(&SPEC, json(object.get("spec")), why));
    }
    conditions(&mut errors, object);
    errors
}

pub(super) fn schema_update(subresource: &str, new: &Map, _: &Map) -> Errors {
    if subresource == "status" { status(new) } else { schema(new) }
}

fn status(object: &Map) -> Errors {
    let mut errors = Errors::new();
    conditions(&mut errors, object);
    errors
}

/// Conditions of both kinds: each type once.
fn conditions(errors: &mut Errors, object: &Map) {
    let status = Path::root("status");
    let root = status.child("conditions");
    let list = object.at(&["status", "conditions"]).and_then(Value::as_list).unwrap_or_default();
    let mut seen = BTreeSet::new();
    for (i, condition) in list.iter().enumerate().filter_map(|(i, condition)| Some((i, condition.as_map()?))) {
        let path = root.index(i);
        let kind = condition.str_at(&["type"]);
        if !seen.insert(kind) {
            errors.push(FieldError::duplicate(&path.child("type"), kind));
        }
        if kind.is_empty() {
            errors.push(FieldError::required(&path.child("type"), "must not be empty"));
        }
    }
}

fn schema_spec(errors: &mut Errors, name: &str, spec: FlowSchemaSpec<'_>) {
    let precedence = spec.matching_precedence().unwrap_or(0);
    let path = SPEC.child("matchingPrecedence");
    let mut refuse = |why: String| errors.push(FieldError::invalid(&path, precedence, why));
    if precedence <= 0 {
        refuse("must be a positive value".to_owned());
    }
    if precedence > MAX_PRECEDENCE {
        refuse(format!("must not be greater than {MAX_PRECEDENCE}"));
    }
    if precedence == 1 && name != EXEMPT {
        refuse("only the schema named 'exempt' may have matchingPrecedence 1".to_owned());
    }
    if let Some(kind) = spec.distinguisher_method().map(|method| method.type_().unwrap_or("")) {
        let supported = ["ByNamespace", "ByUser"];
        if !supported.contains(&kind) {
            let path = SPEC.child("distinguisherMethod");
            let shown = Raw(format!("{{\"Type\":{}}}", go_quote(kind)));
            errors.push(FieldError::not_supported(&path.child("type"), shown, &supported));
        }
    }
    let path = SPEC.child("priorityLevelConfiguration");
    let level = spec.priority_level_configuration().and_then(|level| level.name()).unwrap_or("");
    if level.is_empty() {
        errors.push(FieldError::required(&path.child("name"), "must reference a priority level"));
    } else {
        problems(errors, &path.child("name"), level, names::dns1123_subdomain(level));
    }
    for (i, rule) in spec.rules().iter().enumerate() {
        rules(errors, &SPEC.child("rules").index(i), rule);
    }
}

fn rules(errors: &mut Errors, path: &Path<'_>, rule: PolicyRulesWithSubjects<'_>) {
    let subjects = path.child("subjects");
    if rule.subjects().is_empty() {
        errors.push(FieldError::required(&subjects, "subjects must contain at least one value"));
    }
    for (i, one) in rule.subjects().iter().enumerate() {
        subject(errors, &subjects.index(i), one);
    }
    if rule.resource_rules().is_empty() && rule.non_resource_rules().is_empty() {
        let why = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(FieldError::required(path, why));
    }
    for (i, one) in rule.resource_rules().iter().enumerate() {
        resource_rule(errors, &path.child("resourceRules").index(i), one);
    }
    for (i, one) in rule.non_resource_rules().iter().enumerate() {
        path_rule(errors, &path.child("nonResourceRules").index(i), one);
    }
}

fn subject(errors: &mut Errors, path: &Path<'_>, subject: Subject<'_>) {
    const KINDS: [(&str, &str); 3] = [("Group", "group"), ("ServiceAccount", "serviceAccount"), ("User", "user")];
    let kind = subject.kind().unwrap_or("");
    let Some((_, own)) = KINDS.iter().find(|(of, _)| *of == kind) else {
        let supported = KINDS.map(|(kind, _)| kind);
        errors.push(FieldError::not_supported(&path.child("kind"), kind, &supported));
        return;
    };
    let of = |field: &str| subject.0.get(field).and_then(Value::as_map);
    {
        let path = path.child(own);
        match of(own) {
            None => {
                errors.push(FieldError::required(&path, format!("{own} is required when subject kind is '{kind}'")))
            }
            Some(it) => {
                let name = it.str_at(&["name"]);
                if required(errors, &path.child("name"), Some(name)) && kind == "ServiceAccount" && name != "*" {
                    problems(errors, &path.child("name"), name, names::dns1123_subdomain(name));
                }
                let namespace = it.str_at(&["namespace"]);
                if kind == "ServiceAccount" && namespace.is_empty() {
                    let why = "must specify namespace for service account";
                    errors.push(FieldError::required(&path.child("namespace"), why));
                } else if kind == "ServiceAccount" {
                    problems(errors, &path.child("namespace"), namespace, names::dns1123_label(namespace));
                }
            }
        }
    }
    // Upstream's order of the others: service account, user, group.
    for (other, field) in [KINDS[1], KINDS[2], KINDS[0]].into_iter().filter(|(other, _)| *other != kind) {
        if of(field).is_some() {
            let why = format!("{field} is forbidden when subject kind is not '{other}'");
            errors.push(FieldError::forbidden(&path.child(field), why));
        }
    }
}

fn has_wildcard(list: List<'_, &str>) -> bool {
    list.iter().any(|item| item == "*")
}

fn verbs(errors: &mut Errors, path: &Path<'_>, list: List<'_, &str>) {
    let path = path.child("verbs");
    if list.is_empty() {
        errors.push(FieldError::required(&path, "verbs must contain at least one value"));
    } else if has_wildcard(list) {
        lonely(errors, &path, list, "verbs");
    } else if list.iter().any(|verb| !VERBS.contains(&verb)) {
        errors.push(FieldError::not_supported(&path, json_list(list), &VERBS));
    }
}

/// `*` stands alone.
fn lonely(errors: &mut Errors, path: &Path<'_>, list: List<'_, &str>, what: &str) {
    if list.len() > 1 && has_wildcard(list) {
        let why = format!("if '*' is present, must not specify other {what}");
        errors.push(FieldError::invalid(path, json_list(list), why));
    }
}

fn resource_rule(errors: &mut Errors, path: &Path<'_>, rule: ResourcePolicyRule<'_>) {
    verbs(errors, path, rule.verbs());
    for (field, list, one, many) in [
        ("apiGroups", rule.api_groups(), "api group", "api groups"),
        ("resources", rule.resources(), "resource", "resources"),
    ] {
        if list.is_empty() {
            let why = format!("resource rules must supply at least one {one}");
            errors.push(FieldError::required(&path.child(field), why));
        }
        lonely(errors, &path.child(field), list, many);
    }
    let path = path.child("namespaces");
    let list = rule.namespaces();
    if list.is_empty() && rule.cluster_scope() != Some(true) {
        let why = "resource rules that are not cluster scoped must supply at least one namespace";
        errors.push(FieldError::required(&path, why));
    } else if has_wildcard(list) {
        lonely(errors, &path, list, "namespaces");
    } else {
        for (i, namespace) in list.iter().enumerate() {
            let told = |why| format!("each member of this list must be '*' or a DNS-1123 label; {why}");
            let bad = names::dns1123_label(namespace).into_iter().map(told).collect();
            problems(errors, &path.index(i), namespace, bad);
        }
    }
}

fn path_rule(errors: &mut Errors, path: &Path<'_>, rule: NonResourcePolicyRule<'_>) {
    verbs(errors, path, rule.verbs());
    let path = path.child("nonResourceURLs");
    let list = rule.non_resource_urls();
    if list.is_empty() {
        errors.push(FieldError::required(&path, "nonResourceURLs must contain at least one value"));
    } else if has_wildcard(list) {
        lonely(errors, &path, list, "non-resource URLs");
    } else {
        for (i, url) in list.iter().enumerate() {
            if let Some(why) = bad_url(url) {
                errors.push(FieldError::invalid(&path.index(i), url, why));
            }
        }
    }
}

/// What is wrong with a path that rules may name.
fn bad_url(url: &str) -> Option<&'static str> {
    let stars = url.matches('*').count();
    match url {
        "" => Some("must not be empty"),
        "/" => None,
        _ if !url.starts_with('/') => Some("must start with slash"),
        _ if url.contains(' ') => Some("must not contain white-space"),
        _ if url.contains("//") => Some("must not contain double slash"),
        _ if stars > 1 || stars == 1 && !url.ends_with("/*") => Some("wildcard can only do suffix matching"),
        _ => None,
    }
}

pub(super) fn level(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let empty = Map::new();
    let name = object.str_at(&["metadata", "name"]);
    let spec = PriorityLevelConfiguration(object).spec().unwrap_or(PriorityLevelConfigurationSpec(&empty));
    level_spec(&mut errors, name, spec);
    if let Some(fixed) = mandatory(&LEVELS, name) {
        let mut own = spec.0.clone();
        let mut why = format!("spec of '{name}' must equal the fixed value");
        if name == EXEMPT {
            // How much of others' capacity the exempt level takes into account is the administrator's to say.
            own.remove(EXEMPT);
            why = format!("spec of '{name}' except the 'spec.exempt' field must equal the fixed value");
        }
        if !same(Some(&Value::Map(own)), Some(&fixed)) {
            errors.push(FieldError::invalid(&SPEC, json(object.get("spec")), why));
        }
    }
    conditions(&mut errors, object);
    errors
}

pub(super) fn level_update(subresource: &str, new: &Map, _: &Map) -> Errors {
    if subresource == "status" { status(new) } else { level(new) }
}

fn level_spec(errors: &mut Errors, name: &str, spec: PriorityLevelConfigurationSpec<'_>) {
    let kind = spec.type_().unwrap_or("");
    if (name == EXEMPT) != (kind == "Exempt") {
        let why = "type must be 'Exempt' if and only if name is 'exempt'";
        errors.push(FieldError::invalid(&SPEC.child("type"), kind, why));
    }
    let (limited_path, exempt_path) = (SPEC.child("limited"), SPEC.child(EXEMPT));
    match kind {
        "Exempt" => {
            if spec.limited().is_some() {
                errors.push(FieldError::forbidden(&limited_path, "must be nil if the type is not Limited"));
            }
            if let Some(exempt) = spec.exempt() {
                shares(errors, &exempt_path, exempt.nominal_concurrency_shares());
                lendable(errors, &exempt_path, exempt.lendable_percent());
            }
        }
        "Limited" => {
            match spec.limited() {
                None => {
                    errors.push(FieldError::required(&limited_path, "must not be empty when type is Limited"));
                }
                Some(limited) => {
                    shares(errors, &limited_path, limited.nominal_concurrency_shares());
                    let empty = Map::new();
                    let response = limited.limit_response().unwrap_or(LimitResponse(&empty));
                    limit_response(errors, &limited_path.child("limitResponse"), response);
                    lendable(errors, &limited_path, limited.lendable_percent());
                    if let Some(percent) = limited.borrowing_limit_percent().filter(|percent| *percent < 0) {
                        let why = "if specified, must be a non-negative integer";
                        errors.push(FieldError::invalid(&limited_path.child("borrowingLimitPercent"), percent, why));
                    }
                }
            }
            if spec.exempt().is_some() {
                errors.push(FieldError::forbidden(&exempt_path, "must be nil if the type is Limited"));
            }
        }
        kind => supported_of(errors, &SPEC.child("type"), Some(kind), &["Exempt", "Limited"]),
    }
}

fn shares(errors: &mut Errors, path: &Path<'_>, shares: Option<i64>) {
    if let Some(shares) = shares.filter(|shares| *shares < 0) {
        let path = path.child("nominalConcurrencyShares");
        errors.push(FieldError::invalid(&path, shares, "must be a non-negative integer"));
    }
}

fn lendable(errors: &mut Errors, path: &Path<'_>, percent: Option<i64>) {
    if let Some(percent) = percent.filter(|percent| !(0..=100).contains(percent)) {
        errors.push(FieldError::invalid(&path.child("lendablePercent"), percent, inclusive(0, 100)));
    }
}

fn limit_response(errors: &mut Errors, path: &Path<'_>, response: LimitResponse<'_>) {
    let queuing_path = path.child("queuing");
    match response.type_().unwrap_or("") {
        "Reject" => {
            if response.queuing().is_some() {
                let why = "must be nil if limited.limitResponse.type is not Limited";
                errors.push(FieldError::forbidden(&queuing_path, why));
            }
        }
        "Queue" => match response.queuing() {
            None => {
                let why = "must not be empty if limited.limitResponse.type is Limited";
                errors.push(FieldError::required(&queuing_path, why));
            }
            Some(given) => queuing(errors, &queuing_path, given),
        },
        kind => supported_of(errors, &path.child("type"), Some(kind), &["Queue", "Reject"]),
    }
}

fn queuing(errors: &mut Errors, path: &Path<'_>, queuing: QueuingConfiguration<'_>) {
    const POSITIVE: &str = "must be positive";
    let of = |value: Option<i64>| value.unwrap_or(0);
    let (length, queues, hand) = (of(queuing.queue_length_limit()), of(queuing.queues()), of(queuing.hand_size()));
    let mut refuse = |field: &str, value: i64, why: String| {
        errors.push(FieldError::invalid(&path.child(field), value, why));
    };
    if length <= 0 {
        refuse("queueLengthLimit", length, POSITIVE.to_owned());
    }
    if queues <= 0 {
        refuse("queues", queues, POSITIVE.to_owned());
    } else if queues > MAX_QUEUES {
        refuse("queues", queues, format!("must not be greater than {MAX_QUEUES}"));
    }
    if hand <= 0 {
        refuse("handSize", hand, POSITIVE.to_owned());
    } else if hand > queues {
        refuse("handSize", hand, format!("should not be greater than queues ({queues})"));
    } else if entropy_bits(queues, hand) > MAX_HASH_BITS {
        let why = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {MAX_HASH_BITS}"
        );
        refuse("handSize", hand, why);
    }
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "small whole numbers, rounded up")]
fn entropy_bits(deck: i64, hand: i64) -> i64 {
    ((deck as f64).log2() * hand as f64).ceil() as i64
}
