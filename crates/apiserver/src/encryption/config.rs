//! `EncryptionConfiguration` (apiserver.config.k8s.io/v1): read, checked, and made providers by resource. What is wrong is
//! told in upstream's words, and without any secret.

use super::cipher::Cipher;
use super::kms::{Pace, Plugin};
use super::measures::Measures;
use super::transformer::{Key, Provider, Providers, aggregate};
use api::field::{FieldError, Path, Raw, go_quote};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schema::{Map, Value};
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const AES_KEYS: &[usize] = &[16, 24, 32];
const BOX_KEYS: &[usize] = &[32];
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);
const NONE: &str = "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity";
const V1: &str = "KMSv1 is deprecated and will only receive security updates going forward. Use KMSv2 instead.  Set --feature-gates=KMSv1=true to use the deprecated KMSv1 feature.";

/// A group and a plural, either of which may be `*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Resource {
    pub(super) group: String,
    pub(super) plural: String,
}

impl Resource {
    pub(super) fn new(group: &str, plural: &str) -> Self {
        Resource { group: group.to_owned(), plural: plural.to_owned() }
    }
    fn parse(text: &str) -> Self {
        let (plural, group) = text.split_once('.').unwrap_or((text, ""));
        Self::new(group, plural)
    }
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.plural.as_str(), self.group.as_str()) {
            ("*", "") => f.write_str("*."),
            (plural, "") => f.write_str(plural),
            (plural, group) => write!(f, "{plural}.{group}"),
        }
    }
}

/// What a configuration comes to.
#[derive(Debug, Default)]
pub(super) struct Configured {
    pub(super) rules: BTreeMap<Resource, Providers>,
    /// In the order of the configuration.
    pub(super) plugins: Vec<Arc<Plugin>>,
}

impl Configured {
    /// The providers of a resource: its own rule's, its group's, those of everything.
    pub(super) fn of(&self, group: &str, plural: &str) -> Option<&Providers> {
        let rules = [Resource::new(group, plural), Resource::new(group, "*"), Resource::new("*", "*")];
        rules.iter().find_map(|rule| self.rules.get(rule))
    }
}

/// Reads a configuration. `reload`: it replaces another while the server runs, or may be replaced.
///
/// # Errors
/// What is wrong, in upstream's words.
pub(super) fn read(
    text: &[u8],
    file: &str,
    reload: bool,
    pace: Pace,
    measures: &Arc<Measures>,
) -> Result<Configured, String> {
    if text.is_empty() {
        return Err(format!(
            "error while loading file: encryption provider configuration file {} is empty",
            go_quote(file)
        ));
    }
    let wrong =
        |why: String| format!("error decoding encryption provider configuration file {}: {why}", go_quote(file));
    let map = match schema::yaml::parse(text) {
        Ok(Value::Map(map)) => map,
        Ok(_) => return Err(wrong("it is no object".to_owned())),
        Err(error) => return Err(wrong(error.to_string())),
    };
    check_kind(&map).map_err(wrong)?;
    let mut unknown = Vec::new();
    known(&map, "", &["apiVersion", "kind", "resources"], &mut unknown);
    let rules = items(&map, "resources");
    for (at, rule) in rules.iter().enumerate() {
        known_in_rule(rule, &format!("resources[{at}]"), &mut unknown);
    }
    if !unknown.is_empty() {
        let unknown: Vec<String> = unknown.iter().map(|field| format!("unknown field {field:?}")).collect();
        return Err(wrong(format!("strict decoding error: {}", unknown.join(", "))));
    }
    let errors = validate(&rules, reload);
    if let Some(errors) = aggregate(errors.iter().map(ToString::to_string).collect()) {
        return Err(errors);
    }
    build(&rules, pace, measures)
}

fn check_kind(map: &Map) -> Result<(), String> {
    let (version, kind) = (map.str_at(&["apiVersion"]), map.str_at(&["kind"]));
    if kind.is_empty() || version.is_empty() {
        let missing = if kind.is_empty() { "Kind" } else { "apiVersion" };
        // Upstream shows the text here, with its secrets.
        return Err(format!("Object '{missing}' is missing"));
    }
    if version != "apiserver.config.k8s.io/v1" || kind != "EncryptionConfiguration" {
        return Err(format!("no kind {kind:?} is registered for version {version:?} in scheme"));
    }
    Ok(())
}

fn items(map: &Map, key: &str) -> Vec<Map> {
    let list = map.get(key).and_then(Value::as_list).unwrap_or_default();
    list.iter().map(|item| item.as_map().cloned().unwrap_or_default()).collect()
}

fn strings(map: &Map, key: &str) -> Vec<String> {
    let list = map.get(key).and_then(Value::as_list).unwrap_or_default();
    list.iter().map(|item| item.as_str().unwrap_or_default().to_owned()).collect()
}

fn known(map: &Map, place: &str, fields: &[&str], unknown: &mut Vec<String>) {
    let place = if place.is_empty() { String::new() } else { format!("{place}.") };
    unknown.extend(map.iter().filter(|(key, _)| !fields.contains(key)).map(|(key, _)| format!("{place}{key}")));
}

fn known_in_rule(rule: &Map, place: &str, unknown: &mut Vec<String>) {
    known(rule, place, &["resources", "providers"], unknown);
    for (at, provider) in items(rule, "providers").iter().enumerate() {
        let place = format!("{place}.providers[{at}]");
        known(provider, &place, &["aesgcm", "aescbc", "secretbox", "identity", "kms"], unknown);
        for (name, provider) in provider.iter().filter_map(|(name, value)| Some((name, value.as_map()?))) {
            let place = format!("{place}.{name}");
            match name {
                "identity" => known(provider, &place, &[], unknown),
                "kms" => {
                    known(provider, &place, &["apiVersion", "name", "cachesize", "endpoint", "timeout"], unknown);
                }
                _ => {
                    known(provider, &place, &["keys"], unknown);
                    for (at, key) in items(provider, "keys").iter().enumerate() {
                        known(key, &format!("{place}.keys[{at}]"), &["name", "secret"], unknown);
                    }
                }
            }
        }
    }
}

fn validate(rules: &[Map], reload: bool) -> Vec<FieldError> {
    let root = Path::root("resources");
    let one = |what: &dyn std::fmt::Display| format!("at least one {what} is required");
    if rules.is_empty() {
        return vec![FieldError::required(&root, one(&root))];
    }
    let mut errors = Vec::new();
    let mut names = HashSet::new();
    for (at, rule) in rules.iter().enumerate() {
        let place = root.index(at);
        let (resources_at, providers_at) = (place.child("resources"), place.child("providers"));
        let resources = strings(rule, "resources");
        if resources.is_empty() {
            errors.push(FieldError::required(&resources_at, one(&resources_at)));
        }
        check_overlap(&resources, &resources_at, &mut errors);
        check_names(&resources, &resources_at, &mut errors);
        let providers = items(rule, "providers");
        if providers.is_empty() {
            errors.push(FieldError::required(&providers_at, one(&providers_at)));
        }
        for (at, provider) in providers.iter().enumerate() {
            check_provider(provider, &providers_at.index(at), &mut names, reload, &mut errors);
        }
    }
    errors
}

fn check_overlap(resources: &[String], place: &Path<'_>, errors: &mut Vec<FieldError>) {
    let parsed: Vec<Resource> = resources.iter().map(|text| Resource::parse(text)).collect();
    let (mut twice, mut overlap) = (false, false);
    for (i, one) in parsed.iter().enumerate() {
        for (j, other) in parsed.iter().enumerate() {
            if i == j {
                continue;
            }
            if one == other && !twice {
                twice = true;
            } else if *one == Resource::new("*", "*")
                || one.group == other.group && (one.plural == "*" || other.plural == "*")
            {
                overlap = true;
            }
        }
    }
    let shown = || {
        let quoted: Vec<String> = resources.iter().map(|text| go_quote(text)).collect();
        Raw(format!("[{}]", quoted.join(",")))
    };
    if twice {
        errors.push(FieldError::invalid(place, shown(), "the same resource cannot be specified multiple times"));
    }
    if overlap {
        let why = "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked";
        errors.push(FieldError::invalid(place, shown(), why));
    }
}

fn check_names(resources: &[String], place: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (at, text) in resources.iter().enumerate() {
        let resource = Resource::parse(text);
        let why = if text.to_lowercase() != *text {
            "resource name should not contain capital letters"
        } else if text == "*" {
            "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources"
        } else if matches!(text.as_str(), "apiserveripinfo" | "serviceipallocations" | "servicenodeportallocations") {
            "resources which do not have REST API/s cannot be encrypted"
        } else if resource.group == "events.k8s.io" {
            "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file"
        } else if resource.group == "extensions" {
            "'extensions' group has been removed and cannot be used for encryption"
        } else if resource.group == "*" && resource.plural != "*" {
            "encrypting the same resource across groups is not supported"
        } else {
            continue;
        };
        errors.push(FieldError::invalid(&place.index(at), text, why));
    }
}

fn check_provider(
    provider: &Map,
    place: &Path<'_>,
    names: &mut HashSet<String>,
    reload: bool,
    errors: &mut Vec<FieldError>,
) {
    let given: Vec<&str> =
        provider.iter().filter(|(_, value)| value.as_map().is_some()).map(|(name, _)| name).collect();
    match given.len() {
        0 => errors.push(FieldError::invalid_unshown(place, NONE)),
        1 => {}
        _ => {
            let why = "more than one provider specified in a single element, should split into different list elements";
            errors.push(FieldError::invalid_unshown(place, why));
        }
    }
    let Some(name) = ["kms", "aesgcm", "aescbc", "secretbox"].into_iter().find(|name| given.contains(name)) else {
        return;
    };
    let Some(own) = provider.get(name).and_then(Value::as_map) else { return };
    match name {
        "kms" => check_kms(own, &place.child("kms"), names, reload, errors),
        _ => check_keys(own, &place.child(name), if name == "secretbox" { BOX_KEYS } else { AES_KEYS }, errors),
    }
}

fn check_keys(provider: &Map, place: &Path<'_>, lengths: &[usize], errors: &mut Vec<FieldError>) {
    let place = place.child("keys");
    let keys = items(provider, "keys");
    if keys.is_empty() {
        errors.push(FieldError::required(&place, "at least one keys is required"));
    }
    for (at, key) in keys.iter().enumerate() {
        let place = place.index(at);
        let secret_at = place.child("secret");
        let mandatory = |field: &str| format!("{field} is a mandatory field for a key");
        if key.str_at(&["name"]).is_empty() {
            errors.push(FieldError::required(&place.child("name"), mandatory("name")));
        }
        let secret = key.str_at(&["secret"]);
        if secret.is_empty() {
            errors.push(FieldError::required(&secret_at, mandatory("secret")));
            continue;
        }
        match STANDARD.decode(secret) {
            Err(_) => errors.push(FieldError::invalid(&secret_at, "REDACTED", "secrets must be base64 encoded")),
            Ok(secret) if !lengths.contains(&secret.len()) => {
                let lengths: Vec<String> = lengths.iter().map(ToString::to_string).collect();
                let why = format!(
                    "secret is not of the expected length, got {}, expected one of [{}]",
                    secret.len(),
                    lengths.join(" ")
                );
                errors.push(FieldError::invalid(&secret_at, "REDACTED", why));
            }
            Ok(_) => {}
        }
    }
}

fn version(kms: &Map) -> &str {
    match kms.str_at(&["apiVersion"]) {
        "" => "v1",
        version => version,
    }
}

/// The time that a plugin has to answer: as given, when it can be read.
fn timeout(kms: &Map) -> Option<Duration> {
    match kms.str_at(&["timeout"]) {
        "" => Some(DEFAULT_TIMEOUT),
        text => text.parse::<jiff::SignedDuration>().ok().and_then(|given| Duration::try_from(given).ok()),
    }
}

fn check_kms(kms: &Map, place: &Path<'_>, names: &mut HashSet<String>, reload: bool, errors: &mut Vec<FieldError>) {
    let (name, version) = (kms.str_at(&["name"]), version(kms));
    let name_at = place.child("name");
    if name.is_empty() {
        errors.push(FieldError::required(&name_at, "name is a mandatory field for a provider"));
    }
    if version != "v1" && name.contains(':') {
        let why = format!("invalid KMS provider name {name}, must not contain ':'");
        errors.push(FieldError::invalid(&name_at, name, why));
    }
    if !names.insert(name.to_owned()) && (reload || version != "v1") {
        let why = format!("duplicate KMS provider name {name}, names must be unique");
        errors.push(FieldError::invalid(&name_at, name, why));
    }
    if timeout(kms).is_none_or(|timeout| timeout.is_zero()) {
        let given = kms.str_at(&["timeout"]);
        errors.push(FieldError::invalid(&place.child("timeout"), given, "timeout should be a positive value"));
    }
    let endpoint = kms.str_at(&["endpoint"]);
    let endpoint_at = place.child("endpoint");
    if endpoint.is_empty() {
        errors.push(FieldError::invalid(&endpoint_at, "", "endpoint is a mandatory field for a kms"));
    } else if socket(endpoint).is_none() {
        let scheme = endpoint.split_once(':').map_or("", |(scheme, _)| scheme);
        let why = format!("unsupported scheme {} for KMS provider, only unix is supported", go_quote(scheme));
        errors.push(FieldError::invalid(&endpoint_at, endpoint, why));
    }
    if version != "v1"
        && let Some(size) = kms.get("cachesize").and_then(Value::as_i64)
    {
        errors.push(FieldError::invalid(&place.child("cachesize"), size, "cachesize is not supported in v2"));
    }
    if !matches!(version, "v1" | "v2") {
        let why = "unsupported apiVersion apiVersion for KMS provider, only v1 and v2 are supported";
        errors.push(FieldError::invalid(&place.child("apiVersion"), version, why));
    }
}

/// The socket of `unix:///path`; an abstract one begins with `@`.
fn socket(endpoint: &str) -> Option<PathBuf> {
    let rest = endpoint.strip_prefix("unix:")?;
    let path = rest.strip_prefix("//").unwrap_or(rest);
    let path = path.strip_prefix("/@").map_or_else(|| path.to_owned(), |name| format!("\0{name}"));
    Some(PathBuf::from(path))
}

fn build(rules: &[Map], pace: Pace, measures: &Arc<Measures>) -> Result<Configured, String> {
    let mut configured = Configured::default();
    for rule in rules {
        let mut providers = Vec::new();
        for provider in items(rule, "providers") {
            providers.push(Arc::new(make(&provider, pace, measures, &mut configured.plugins)?));
        }
        for resource in strings(rule, "resources").iter().map(|text| Resource::parse(text)) {
            for wider in [Resource::new(&resource.group, "*"), Resource::new("*", "*")] {
                if configured.rules.contains_key(&wider) {
                    return Err(format!(
                        "error while building transformers: resource {:?} is masked by earlier rule {:?}",
                        resource.to_string(),
                        wider.to_string()
                    ));
                }
            }
            configured
                .rules
                .entry(resource)
                .or_insert_with(|| Providers::new(measures))
                .all
                .extend(providers.iter().cloned());
        }
    }
    Ok(configured)
}

fn make(
    provider: &Map,
    pace: Pace,
    measures: &Arc<Measures>,
    plugins: &mut Vec<Arc<Plugin>>,
) -> Result<Provider, String> {
    let own = |name: &str| provider.get(name).and_then(Value::as_map);
    let (own, prefix, unknown, cipher): (_, _, _, fn(&[u8]) -> Option<Cipher>) = if let Some(own) = own("aesgcm") {
        (own, "k8s:enc:aesgcm:v1:", "no matching key was found for the provided AES transformer", Cipher::gcm)
    } else if let Some(own) = own("aescbc") {
        (own, "k8s:enc:aescbc:v1:", "no matching key was found for the provided AES transformer", Cipher::cbc)
    } else if let Some(own) = own("secretbox") {
        let unknown = "no matching key was found for the provided Secretbox transformer";
        (own, "k8s:enc:secretbox:v1:", unknown, Cipher::secretbox)
    } else if let Some(kms) = own("kms") {
        let name = kms.str_at(&["name"]);
        if version(kms) == "v1" {
            return Err(format!("error while building transformers: {V1}"));
        }
        let endpoint = socket(kms.str_at(&["endpoint"])).unwrap_or_default();
        let plugin = Plugin::new(name, endpoint, timeout(kms).unwrap_or(DEFAULT_TIMEOUT), pace, measures);
        plugins.push(plugin.clone());
        let prefix = format!("k8s:enc:kms:v2:{name}:");
        return Ok(Provider::Kms { counted: measures.of(&prefix), prefix, plugin });
    } else {
        return Ok(Provider::Identity { read: measures.of("identity"), written: measures.of("") });
    };
    let mut keys = Vec::new();
    for key in items(own, "keys") {
        let name = key.str_at(&["name"]);
        // Validation has let nothing else through.
        let made = STANDARD.decode(key.str_at(&["secret"])).ok().and_then(|secret| cipher(&secret));
        let made = made.ok_or_else(|| format!("error while creating cipher for named key {name}"))?;
        keys.push(Key::new(name, made, measures));
    }
    Ok(Provider::Keys { prefix, unknown, keys, counted: measures.of(prefix) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n";
        read(format!("{head}{text}").as_bytes(), "e.yaml", false, Pace::default(), &Arc::default()).expect_err(text)
    }

    const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZg==";

    #[tokio::test]
    async fn what_is_wrong_is_told_in_upstreams_words_and_without_secrets() {
        let one = "resources: [{resources: [secrets], providers: [";
        let cases = [
            ("resources: []".to_owned(), "resources: Required value: at least one resources is required"),
            ("resources: [{resources: [secrets]}]".to_owned(), "resources[0].providers: Required value: at least one resources[0].providers is required"),
            ("resources: [{providers: [identity: {}]}]".to_owned(), "resources[0].resources: Required value: at least one resources[0].resources is required"),
            (format!("{one}{{}}]}}]"), "resources[0].providers[0]: Invalid value: provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity"),
            (format!("{one}{{identity: {{}}, aescbc: {{keys: [{{name: a, secret: {KEY}}}]}}}}]}}]"), "resources[0].providers[0]: Invalid value: more than one provider specified in a single element, should split into different list elements"),
            (format!("{one}{{aescbc: {{keys: []}}}}]}}]"), "resources[0].providers[0].aescbc.keys: Required value: at least one keys is required"),
            (format!("{one}{{aescbc: {{keys: [{{secret: {KEY}}}]}}}}]}}]"), "resources[0].providers[0].aescbc.keys[0].name: Required value: name is a mandatory field for a key"),
            (format!("{one}{{aesgcm: {{keys: [{{name: a, secret: c2VjcmV0}}]}}}}]}}]"), "resources[0].providers[0].aesgcm.keys[0].secret: Invalid value: \"REDACTED\": secret is not of the expected length, got 6, expected one of [16 24 32]"),
            (format!("{one}{{secretbox: {{keys: [{{name: a, secret: {KEY}}}]}}}}]}}]"), "resources[0].providers[0].secretbox.keys[0].secret: Invalid value: \"REDACTED\": secret is not of the expected length, got 16, expected one of [32]"),
            (format!("{one}{{aescbc: {{keys: [{{name: a, secret: \"?\"}}]}}}}]}}]"), "resources[0].providers[0].aescbc.keys[0].secret: Invalid value: \"REDACTED\": secrets must be base64 encoded"),
            (format!("{one}{{kms: {{apiVersion: v2, name: \"a:b\", endpoint: \"unix:///x\"}}}}]}}]"), "resources[0].providers[0].kms.name: Invalid value: \"a:b\": invalid KMS provider name a:b, must not contain ':'"),
            (format!("{one}{{kms: {{apiVersion: v2, name: a, endpoint: \"http://x\"}}}}]}}]"), "resources[0].providers[0].kms.endpoint: Invalid value: \"http://x\": unsupported scheme \"http\" for KMS provider, only unix is supported"),
            (format!("{one}{{kms: {{apiVersion: v2, name: a, endpoint: \"unix:///x\", cachesize: 5}}}}]}}]"), "resources[0].providers[0].kms.cachesize: Invalid value: 5: cachesize is not supported in v2"),
            (format!("{one}{{kms: {{apiVersion: v2, name: a, endpoint: \"unix:///x\"}}}}, {{kms: {{apiVersion: v2, name: a, endpoint: \"unix:///y\"}}}}]}}]"), "resources[0].providers[1].kms.name: Invalid value: \"a\": duplicate KMS provider name a, names must be unique"),
            (format!("{one}{{kms: {{name: a, endpoint: \"unix:///x\"}}}}]}}]"), "error while building transformers: KMSv1 is deprecated and will only receive security updates going forward. Use KMSv2 instead.  Set --feature-gates=KMSv1=true to use the deprecated KMSv1 feature."),
            ("resources: [{resources: [\"*\"], providers: [identity: {}]}]".to_owned(), "resources[0].resources[0]: Invalid value: \"*\": use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources"),
            ("resources: [{resources: [secrets, secrets], providers: [identity: {}]}]".to_owned(), "resources[0].resources: Invalid value: [\"secrets\",\"secrets\"]: the same resource cannot be specified multiple times"),
            ("resources: [{resources: [secrets, \"*.\"], providers: [identity: {}]}]".to_owned(), "resources[0].resources: Invalid value: [\"secrets\",\"*.\"]: using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked"),
            ("resources: [{resources: [\"*.*\"], providers: [identity: {}]}, {resources: [secrets], providers: [identity: {}]}]".to_owned(), "error while building transformers: resource \"secrets\" is masked by earlier rule \"*.*\""),
            ("resource: []".to_owned(), "error decoding encryption provider configuration file \"e.yaml\": strict decoding error: unknown field \"resource\""),
        ];
        for (text, told) in cases {
            assert_eq!(refused(&text), told);
        }
    }

    #[test]
    fn the_nearest_rule_holds() {
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
             - {{resources: [secrets, widgets.example.com], providers: [aescbc: {{keys: [{{name: a, secret: {KEY}}}]}}]}}\n\
             - {{resources: [\"*.apps\"], providers: [aesgcm: {{keys: [{{name: b, secret: {KEY}}}]}}]}}\n\
             - {{resources: [\"*.*\"], providers: [identity: {{}}]}}\n"
        );
        let configured = read(text.as_bytes(), "e.yaml", false, Pace::default(), &Arc::default()).expect("configured");
        let first = |group: &str, plural: &str| match &*configured.of(group, plural).expect("a rule").all[0] {
            Provider::Keys { prefix, .. } => *prefix,
            _ => "",
        };
        assert_eq!(first("", "secrets"), "k8s:enc:aescbc:v1:");
        assert_eq!(first("example.com", "widgets"), "k8s:enc:aescbc:v1:");
        assert_eq!(first("apps", "deployments"), "k8s:enc:aesgcm:v1:");
        assert_eq!(first("", "pods"), "");
    }
}
