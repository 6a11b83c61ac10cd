//! `metadata`, which all kinds have: what the server fills in, and what it refuses.

use crate::cache::hooks;
use crate::context::Context;
use crate::options::check_field_manager;
use api::field::{FieldError, Path, Raw, go_quote};
use api::{Status, names};
use jiff::Timestamp;
use schema::validation::Features;
use schema::{Map, Resource, Value};

const METADATA: Path<'static> = Path::root("metadata");
/// The longest name that a generated one is made of, so that the whole is a label.
const GENERATED_BASE: usize = 58;
const SUFFIX: usize = 5;
/// Without vowels and what looks like them, so that no words come out.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const ANNOTATIONS_MAX: usize = 256 * 1024;
/// Bytes of the subresource that a manager of fields wrote through, at most.
const SUBRESOURCE_MAX: usize = 256;

/// RFC 3339 with seconds, as `metav1.Time` is written.
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The metadata of an object.
pub fn of(object: &mut Map) -> &mut Map {
    let value = object.entry("metadata", || Value::Map(Map::new()));
    if value.as_map().is_none() {
        *value = Value::Map(Map::new());
    }
    match value {
        Value::Map(map) => map,
        _ => unreachable!("it was just made a map"),
    }
}

/// A name that begins with `base`, as `generateName` asks.
///
/// # Errors
/// 500 when the system gives no random bytes.
pub fn generate_name(base: &str) -> Result<String, Status> {
    let mut end = base.len().min(GENERATED_BASE);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let bytes = match hooks::drawn::<SUFFIX>() {
        Some(drawn) => drawn,
        None => {
            let mut bytes = [0; SUFFIX];
            ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes)
                .map_err(|_| Status::internal("no random bytes for a generated name"))?;
            bytes
        }
    };
    let mut name = base[..end].to_owned();
    name.extend(bytes.iter().map(|byte| ALPHABET[usize::from(*byte) % ALPHABET.len()] as char));
    Ok(name)
}

/// Gives a new object what only the server may.
pub fn fill_new(cx: &Context, object: &mut Map) {
    let metadata = of(object);
    metadata.remove("deletionTimestamp");
    metadata.remove("deletionGracePeriodSeconds");
    metadata.remove("selfLink");
    metadata.insert("creationTimestamp", time(cx.now));
    let drawn = hooks::drawn().map(|bytes| uuid::Builder::from_random_bytes(bytes).into_uuid());
    metadata.insert("uid", drawn.unwrap_or_else(uuid::Uuid::new_v4).to_string());
}

/// How many there are of each finalizer and so on is of no interest: whether any is there.
pub fn finalizers(object: &Map) -> &[Value] {
    object.at(&["metadata", "finalizers"]).and_then(Value::as_list).unwrap_or_default()
}

pub fn is_deleting(object: &Map) -> bool {
    !object.str_at(&["metadata", "deletionTimestamp"]).is_empty()
}

/// Gives an updated object what an update can't change.
pub fn keep(object: &mut Map, old: &Map) {
    let metadata = of(object);
    metadata.remove("selfLink");
    for key in ["creationTimestamp", "uid"] {
        if metadata.str_at(&[key]).is_empty() {
            keep_one(metadata, old, key);
        }
    }
    for key in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
        if metadata.get(key).is_none_or(Value::is_null) {
            keep_one(metadata, old, key);
        }
    }
    keep_one(metadata, old, "generation");
}

fn keep_one(metadata: &mut Map, old: &Map, key: &'static str) {
    match old.at(&["metadata", key]) {
        Some(value) => metadata.insert(key, value.clone()),
        None => metadata.remove(key),
    };
}

/// What kind of name a kind's objects have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    Subdomain,
    /// RFC 1123.
    Label,
    /// RFC 1035: it begins with a letter.
    OldLabel,
    /// Anything that can be a part of a path.
    Segment,
    /// An IP address in its canonical form.
    Address,
    /// What may be a key of a ConfigMap.
    Key,
    /// `GROUP.RESOURCE`.
    GroupResource,
}

/// The rule of a row.
pub fn name_rule(row: &Resource, features: Features) -> NameRule {
    match (row.group.as_ref(), row.kind.as_ref()) {
        ("", "Service") if !features.relaxed_service_names => NameRule::OldLabel,
        ("", "Namespace" | "Service") | ("apps", "StatefulSet") => NameRule::Label,
        ("networking.k8s.io", "IPAddress") => NameRule::Address,
        ("coordination.k8s.io", "LeaseCandidate") => NameRule::Key,
        ("internal.apiserver.k8s.io", "StorageVersion") => NameRule::GroupResource,
        // What else their names must be depends on the object, and is for its own rules to say.
        ("", "Event") | ("apiregistration.k8s.io", "APIService") => NameRule::Segment,
        ("certificates.k8s.io", "CertificateSigningRequest" | "ClusterTrustBundle") => NameRule::Segment,
        // Upstream's own rules of this kind leave out its metadata.
        ("policy", "PodDisruptionBudget") => NameRule::Segment,
        ("rbac.authorization.k8s.io", _) => NameRule::Segment,
        _ => NameRule::Subdomain,
    }
}

fn name_problems(rule: NameRule, name: &str, prefix: bool) -> Vec<String> {
    // A prefix may end in a dash, which the generated part follows.
    let masked = (prefix && name.ends_with('-')).then(|| [name.trim_end_matches('-'), "a"].concat());
    let name = masked.as_deref().unwrap_or(name);
    match rule {
        NameRule::Subdomain => names::dns1123_subdomain(name),
        NameRule::Label => names::dns1123_label(name),
        NameRule::OldLabel => names::dns1035_label(name),
        NameRule::Segment => segment_problems(name, prefix),
        NameRule::Key => names::config_map_key(name),
        NameRule::GroupResource => match name.rsplit_once('.') {
            None => vec!["name must be in the form of <group>.<resource>".to_owned()],
            Some((group, resource)) => {
                let group = names::dns1123_subdomain(group).into_iter().map(|why| format!("the group segment {why}"));
                let resource = names::dns1035_label(resource).into_iter();
                group.chain(resource.map(|why| format!("the resource segment {why}"))).collect()
            }
        },
        NameRule::Address => match name.parse::<std::net::IpAddr>() {
            Ok(address) if address.to_string() == name => Vec::new(),
            Ok(address) => vec![format!("must be in canonical form (\"{address}\")")],
            Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
        },
    }
}

/// What a part of a path may not be or have.
pub fn segment_problems(name: &str, prefix: bool) -> Vec<String> {
    if !prefix && matches!(name, "." | "..") {
        return vec![format!("may not be '{name}'")];
    }
    ["/", "%"].iter().filter(|part| name.contains(**part)).map(|part| format!("may not contain '{part}'")).collect()
}

/// What is wrong with the metadata of any object.
pub fn validate(row: &Resource, object: &Map, features: Features) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let Some(metadata) = object.get("metadata").and_then(Value::as_map) else { return errors };
    let rule = name_rule(row, features);
    let generate = metadata.str_at(&["generateName"]);
    if !generate.is_empty() {
        for problem in name_problems(rule, generate, true) {
            errors.push(FieldError::invalid(&METADATA.child("generateName"), generate, problem));
        }
    }
    let name = metadata.str_at(&["name"]);
    if name.is_empty() {
        errors.push(FieldError::required(&METADATA.child("name"), "name or generateName is required"));
    } else {
        for problem in name_problems(rule, name, false) {
            errors.push(FieldError::invalid(&METADATA.child("name"), name, problem));
        }
    }
    let namespace = metadata.str_at(&["namespace"]);
    if row.namespaced {
        if namespace.is_empty() {
            errors.push(FieldError::required(&METADATA.child("namespace"), ""));
        } else {
            for problem in names::dns1123_label(namespace) {
                errors.push(FieldError::invalid(&METADATA.child("namespace"), namespace, problem));
            }
        }
    } else if !namespace.is_empty() {
        errors.push(FieldError::forbidden(&METADATA.child("namespace"), "not allowed on this type"));
    }
    validate_common(metadata, &mut errors);
    errors
}

fn validate_common(metadata: &Map, errors: &mut Vec<FieldError>) {
    if metadata.get("generation").and_then(Value::as_i64).is_some_and(|generation| generation < 0) {
        let value = metadata.get("generation").and_then(Value::as_i64).unwrap_or_default();
        errors.push(FieldError::invalid(&METADATA.child("generation"), value, "must be greater than or equal to 0"));
    }
    if let Some(labels) = metadata.get("labels").and_then(Value::as_map) {
        labels_errors(labels, &METADATA.child("labels"), errors);
    }
    if let Some(annotations) = metadata.get("annotations").and_then(Value::as_map) {
        annotations_errors(annotations, errors);
    }
    owners_errors(metadata.get("ownerReferences").and_then(Value::as_list).unwrap_or_default(), errors);
    let finalizers = METADATA.child("finalizers");
    for finalizer in metadata.get("finalizers").and_then(Value::as_list).unwrap_or_default() {
        let finalizer = finalizer.as_str().unwrap_or("");
        for problem in names::qualified_name(finalizer) {
            errors.push(FieldError::invalid(&finalizers, finalizer, problem));
        }
    }
    let has = |name: &str| {
        metadata
            .get("finalizers")
            .and_then(Value::as_list)
            .is_some_and(|list| list.iter().any(|f| f.as_str() == Some(name)))
    };
    if has(ORPHAN) && has(FOREGROUND) {
        errors.push(FieldError::invalid(
            &finalizers,
            Raw(shown_strings(metadata.get("finalizers"))),
            format!("finalizer {FOREGROUND} and {ORPHAN} cannot be both set"),
        ));
    }
    managers_errors(metadata, errors);
}

/// What is wrong with those who manage the object. Entries that can't be read have been left out before.
fn managers_errors(metadata: &Map, errors: &mut Vec<FieldError>) {
    let path = METADATA.child("managedFields");
    let entries = metadata.get("managedFields").and_then(Value::as_list).unwrap_or_default();
    for (i, entry) in entries.iter().enumerate().filter_map(|(i, entry)| Some((i, entry.as_map()?))) {
        let path = path.index(i);
        let operation = entry.str_at(&["operation"]);
        if !matches!(operation, "Apply" | "Update") {
            errors.push(FieldError::invalid(&path.child("operation"), operation, "must be `Apply` or `Update`"));
        }
        let format = entry.str_at(&["fieldsType"]);
        if !matches!(format, "" | "FieldsV1") {
            errors.push(FieldError::invalid(&path.child("fieldsType"), format, "must be `FieldsV1`"));
        }
        check_field_manager(&path.child("manager"), entry.str_at(&["manager"]), errors);
        if entry.str_at(&["subresource"]).len() > SUBRESOURCE_MAX {
            errors.push(FieldError::too_long(&path.child("subresource"), SUBRESOURCE_MAX));
        }
    }
}

pub const ORPHAN: &str = "orphan";
pub const FOREGROUND: &str = "foregroundDeletion";

fn shown_strings(list: Option<&Value>) -> String {
    let list = list.and_then(Value::as_list).unwrap_or_default();
    let items: Vec<String> = list.iter().filter_map(Value::as_str).map(go_quote).collect();
    format!("[{}]", items.join(","))
}

fn labels_errors(labels: &Map, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (key, value) in labels.iter() {
        for problem in names::qualified_name(key) {
            errors.push(FieldError::invalid(path, key, problem));
        }
        let value = value.as_str().unwrap_or("");
        for problem in names::label_value(value) {
            errors.push(FieldError::invalid(path, value, problem));
        }
    }
}

fn annotations_errors(annotations: &Map, errors: &mut Vec<FieldError>) {
    let path = METADATA.child("annotations");
    let mut total = 0;
    for (key, value) in annotations.iter() {
        for problem in names::qualified_name(&key.to_lowercase()) {
            errors.push(FieldError::invalid(&path, key, problem));
        }
        total += key.len() + value.as_str().map_or(0, str::len);
    }
    if total > ANNOTATIONS_MAX {
        errors.push(FieldError::too_long(&path, ANNOTATIONS_MAX));
    }
}

fn owners_errors(owners: &[Value], errors: &mut Vec<FieldError>) {
    let path = METADATA.child("ownerReferences");
    let mut controller: Option<String> = None;
    for owner in owners.iter().filter_map(Value::as_map) {
        let text = |key: &str| owner.str_at(&[key]);
        if text("apiVersion").is_empty() {
            errors.push(FieldError::invalid(&path.child("apiVersion"), "", "version must not be empty"));
        }
        for (key, what) in [("kind", "kind"), ("name", "name"), ("uid", "uid")] {
            if text(key).is_empty() {
                errors.push(FieldError::invalid(&path.child(key), "", format!("{what} must not be empty")));
            }
        }
        if text("apiVersion") == "v1" && text("kind") == "Event" {
            let why = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(FieldError::invalid(&path, Raw(shown_owner(owner)), why));
        }
        if owner.get("controller").and_then(Value::as_bool) == Some(true) {
            let name = format!("{}/{}", text("kind"), text("name"));
            let Some(first) = &controller else {
                controller = Some(name);
                continue;
            };
            let all: Vec<String> = owners.iter().filter_map(Value::as_map).map(shown_owner).collect();
            let why = format!(
                "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
            );
            errors.push(FieldError::invalid(&path, Raw(format!("[{}]", all.join(","))), why));
        }
    }
}

/// A reference to an owner as Go writes it: its fields in the order of their declaration.
fn shown_owner(owner: &Map) -> String {
    let mut out = Vec::new();
    for key in ["apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion"] {
        let value = match owner.get(key) {
            Some(value) => value,
            None if key == "controller" || key == "blockOwnerDeletion" => continue,
            None => &Value::Str("".into()),
        };
        out.push(if out.is_empty() { b'{' } else { b',' });
        schema::json::encode_str(key, &mut out);
        out.push(b':');
        schema::json::encode_value(value, &mut out);
    }
    out.push(b'}');
    String::from_utf8_lossy(&out).into_owned()
}

/// Kinds whose own rules look at the whole of an updated object as at a new one.
const WHOLE_AGAIN: [(&str, &str); 12] = [
    ("", "ConfigMap"),
    ("", "Namespace"),
    ("", "Node"),
    ("", "PersistentVolume"),
    ("", "PersistentVolumeClaim"),
    ("", "ReplicationController"),
    ("", "Secret"),
    ("apps", "DaemonSet"),
    ("apps", "ReplicaSet"),
    ("batch", "Job"),
    ("networking.k8s.io", "NetworkPolicy"),
    ("storage.k8s.io", "StorageClass"),
];

/// What is wrong with the metadata of an update, as often as upstream tells it: it looks at the metadata of any object as at that
/// of a new one, then at how it changes, and the kinds' own rules do the latter again. Those of statuses look at nothing else.
pub fn validate_update(row: &Resource, subresource: &str, object: &Map, old: &Map) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (Some(new), Some(old)) =
        (object.get("metadata").and_then(Value::as_map), old.get("metadata").and_then(Value::as_map))
    else {
        return errors;
    };
    validate_common(new, &mut errors);
    let (whole, changes) = (errors.clone(), changes(new, old));
    errors.extend(changes.iter().cloned());
    let kind = (row.group.as_ref(), row.kind.as_ref());
    let status = subresource == "status";
    if !status && WHOLE_AGAIN.contains(&kind) {
        errors.extend(whole.iter().cloned());
    }
    match kind {
        ("policy", "PodDisruptionBudget") => {}
        // Its rules for new ones are asked twice, and none of those for changes.
        ("", "PersistentVolume") if !status => errors.extend(whole),
        _ => errors.extend(changes),
    }
    errors
}

/// What is wrong with how the metadata changes.
fn changes(new: &Map, old: &Map) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let immutable = |key: &'static str, errors: &mut Vec<FieldError>| {
        if new.get(key) != old.get(key) {
            // What is absent is shown as Go shows it: an empty string, no time, a pointer to nothing.
            let shown = match (key, new.get(key)) {
                (_, Some(value)) => {
                    let mut shown = Vec::new();
                    schema::json::encode_value(value, &mut shown);
                    String::from_utf8(shown).unwrap_or_default()
                }
                ("name" | "namespace" | "uid", None) => go_quote(""),
                ("creationTimestamp", None) => "null".to_owned(),
                (_, None) => go_quote("null"),
            };
            errors.push(FieldError::invalid(&METADATA.child(key), Raw(shown), "field is immutable"));
        }
    };
    if !old.str_at(&["deletionTimestamp"]).is_empty() {
        let had = |finalizer: &Value| {
            old.get("finalizers").and_then(Value::as_list).is_some_and(|list| list.contains(finalizer))
        };
        let list = new.get("finalizers").and_then(Value::as_list).unwrap_or_default();
        let added: Vec<String> = list.iter().filter(|f| !had(f)).filter_map(Value::as_str).map(go_quote).collect();
        if !added.is_empty() {
            errors.push(FieldError::forbidden(
                &METADATA.child("finalizers"),
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    added.join(", ")
                ),
            ));
        }
    }
    for key in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        immutable(key, &mut errors);
    }
    if let Some(labels) = new.get("labels").and_then(Value::as_map) {
        labels_errors(labels, &METADATA.child("labels"), &mut errors);
    }
    if let Some(annotations) = new.get("annotations").and_then(Value::as_map) {
        annotations_errors(annotations, &mut errors);
    }
    owners_errors(new.get("ownerReferences").and_then(Value::as_list).unwrap_or_default(), &mut errors);
    managers_errors(new, &mut errors);
    errors
}

/// What is written through a path must be the path's object, in what is sent and in what a patch makes of it.
///
/// # Errors
/// 400 for another name or namespace, or no name.
pub fn check_name(object: &Map, name: &str, namespace: &str) -> Result<(), Status> {
    let own = object.str_at(&["metadata", "name"]);
    if own.is_empty() {
        return Err(Status::bad_request(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        )));
    }
    if own != name {
        return Err(Status::bad_request(format!(
            "the name of the object ({own}) does not match the name on the URL ({name})"
        )));
    }
    let own = object.str_at(&["metadata", "namespace"]);
    if !namespace.is_empty() && !own.is_empty() && own != namespace {
        return Err(Status::bad_request(format!(
            "the namespace of the object ({own}) does not match the namespace on the request ({namespace})"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_fit_a_label() -> Result<(), Status> {
        let name = generate_name(&"x".repeat(80))?;
        assert_eq!(name.len(), 63);
        assert_ne!(generate_name("a-")?, generate_name("a-")?);
        Ok(())
    }

    #[test]
    fn owners_that_may_not_be_are_shown() {
        let owners = crate::test_support::map(
            "{of: [{apiVersion: v1, kind: Event, name: e, uid: u}, {apiVersion: v1, kind: Pod, name: p, uid: v, controller: true}, {apiVersion: v1, kind: Pod, name: q, uid: w, controller: true}]}",
        );
        let mut errors = Vec::new();
        owners_errors(owners.get("of").and_then(Value::as_list).expect("a list"), &mut errors);
        let [first, others @ ..] = [
            r#"{"apiVersion":"v1","kind":"Event","name":"e","uid":"u"}"#,
            r#"{"apiVersion":"v1","kind":"Pod","name":"p","uid":"v","controller":true}"#,
            r#"{"apiVersion":"v1","kind":"Pod","name":"q","uid":"w","controller":true}"#,
        ];
        let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                format!(
                    "metadata.ownerReferences: Invalid value: {first}: /v1, Kind=Event is disallowed from being an owner"
                ),
                format!(
                    "metadata.ownerReferences: Invalid value: [{first},{}]: Only one reference can have Controller set to true. Found \"true\" in references for Pod/p and Pod/q",
                    others.join(",")
                ),
            ]
        );
    }

    #[test]
    fn times_have_seconds() {
        let at: Timestamp = "2024-02-29T01:02:03.999Z".parse().expect("a time");
        assert_eq!(time(at), "2024-02-29T01:02:03Z");
    }

    #[test]
    fn names_are_checked_by_rule() {
        assert!(name_problems(NameRule::Subdomain, "a.b-", true).is_empty());
        assert!(!name_problems(NameRule::Subdomain, "a.b-", false).is_empty());
        assert!(name_problems(NameRule::Segment, "system:node", false).is_empty());
        assert_eq!(name_problems(NameRule::Segment, "a/b", false), ["may not contain '/'"]);
        assert!(name_problems(NameRule::Label, "1a", false).is_empty());
        assert!(!name_problems(NameRule::Label, "a.b", false).is_empty());
    }
}
