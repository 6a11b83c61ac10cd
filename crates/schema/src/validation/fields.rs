//! Checks that every kind shares, each in upstream's words.

use crate::tree::{Map, Value};
use crate::view::meta_v1::LabelSelector;
use crate::view::{IntOrString, List, StrMap};
use api::field::Raw;
use api::{FieldError, Path, Quantity, names};
use std::net::{IpAddr, Ipv4Addr};

pub(super) type Errors = Vec<FieldError>;

pub(super) const IMMUTABLE: &str = "field is immutable";
pub(super) const NEGATIVE: &str = "must be greater than or equal to 0";
pub(super) const MAX_INT32: i64 = i32::MAX as i64;

/// How Go's json writes a value that a message shows.
pub(super) fn json(value: Option<&Value>) -> Raw {
    let mut out = Vec::new();
    crate::json::encode_value(value.unwrap_or(&Value::Null), &mut out);
    Raw(String::from_utf8_lossy(&out).into_owned())
}

pub(super) fn json_map(map: &Map) -> Raw {
    let mut out = Vec::new();
    crate::json::encode(map, &mut out);
    Raw(String::from_utf8_lossy(&out).into_owned())
}

/// How Go's json writes a struct of its internal types: every field, by its Go name.
pub(super) fn shape(fields: &[(&str, Raw)]) -> Raw {
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{}", value.0)).collect();
    Raw(format!("{{{}}}", fields.join(",")))
}

/// How Go's json writes a list of such structs, of which one without any is none.
pub(super) fn shown_list(items: Vec<Raw>) -> Raw {
    if items.is_empty() {
        return json(None);
    }
    let items: Vec<String> = items.into_iter().map(|item| item.0).collect();
    Raw(format!("[{}]", items.join(",")))
}

/// What Go prints for a list of strings that a message shows.
pub(super) fn json_list(list: List<'_, &str>) -> Raw {
    let items: Vec<String> = list.iter().map(|item| json(Some(&item.into())).0).collect();
    Raw(format!("[{}]", items.join(",")))
}

/// One error for each problem of a name.
pub(super) fn problems(errors: &mut Errors, path: &Path<'_>, value: &str, problems: Vec<String>) {
    errors.extend(problems.into_iter().map(|problem| FieldError::invalid(path, value, problem)));
}

pub(super) fn inclusive(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

pub(super) fn non_negative(errors: &mut Errors, path: &Path<'_>, value: Option<i64>) {
    if let Some(value) = value.filter(|value| *value < 0) {
        errors.push(FieldError::invalid(path, value, NEGATIVE));
    }
}

/// A string of a fixed set; absent is an error.
pub(super) fn required_of(errors: &mut Errors, path: &Path<'_>, value: Option<&str>, supported: &[&str]) {
    match value.unwrap_or("") {
        "" => errors.push(FieldError::required(path, "")),
        value => supported_of(errors, path, Some(value), supported),
    }
}

/// A string of a fixed set, if it is there.
pub(super) fn supported_of(errors: &mut Errors, path: &Path<'_>, value: Option<&str>, supported: &[&str]) {
    if let Some(value) = value.filter(|value| !supported.contains(value)) {
        errors.push(FieldError::not_supported(path, value, supported));
    }
}

pub(super) fn required(errors: &mut Errors, path: &Path<'_>, value: Option<&str>) -> bool {
    let missing = value.unwrap_or("").is_empty();
    if missing {
        errors.push(FieldError::required(path, ""));
    }
    !missing
}

/// How Go shows a pointer to nothing: as if it were this word. A list of nothing is shown without quotes.
pub(super) const NOTHING: &str = "null";

/// How a field that may be absent is shown; what it was tells a list from others.
fn shown(new: Option<&Value>, old: Option<&Value>) -> Raw {
    match (new, old) {
        (None, Some(Value::List(_))) | (Some(_), _) => json(new),
        (None, _) => Raw(api::field::go_quote(NOTHING)),
    }
}

/// A field that may not change.
pub(super) fn immutable(errors: &mut Errors, path: &Path<'_>, new: Option<&Value>, old: Option<&Value>) {
    if !same(new, old) {
        errors.push(FieldError::invalid(path, shown(new, old), IMMUTABLE));
    }
}

/// What upstream looks at twice in an update, once as of a new object: it tells each error twice.
pub(super) fn twice(errors: Errors) -> Errors {
    let mut all = errors.clone();
    all.extend(errors);
    all
}

/// A field that its own declaration forbids to change: upstream shows nothing then. Whether it did change.
pub(super) fn unchangeable(errors: &mut Errors, path: &Path<'_>, new: Option<&Value>, old: Option<&Value>) -> bool {
    let changed = !same(new, old);
    if changed {
        errors.push(FieldError::invalid(path, NOTHING, IMMUTABLE));
    }
    changed
}

/// Whether a list is short enough to be looked at further.
pub(super) fn at_most(errors: &mut Errors, path: &Path<'_>, actual: usize, max: usize) -> bool {
    if actual > max {
        errors.push(FieldError::too_many(path, actual, max));
    }
    actual <= max
}

/// A number that has a least value.
pub(super) fn at_least(errors: &mut Errors, path: &Path<'_>, value: i64, least: i64) {
    if value < least {
        errors.push(FieldError::invalid(path, value, format!("must be greater than or equal to {least}")));
    }
}

/// Whether something is as it was: what is empty is as what is absent. Of an old object that rules are given, quantities are written
/// as the new one's ([`crate::semantic`]).
pub(super) fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    fn empty(value: Option<&Value>) -> bool {
        match value {
            None | Some(Value::Null) => true,
            Some(Value::List(list)) => list.is_empty(),
            Some(Value::Map(map)) => map.is_empty(),
            _ => false,
        }
    }
    match (a, b) {
        (Some(a), Some(b)) if a == b => true,
        (Some(Value::Map(a)), Some(Value::Map(b))) => same_map(a, b),
        (Some(Value::List(a)), Some(Value::List(b))) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(Some(a), Some(b)))
        }
        (a, b) => empty(a) && empty(b),
    }
}

fn same_map(a: &Map, b: &Map) -> bool {
    a.iter().all(|(key, value)| same(Some(value), b.get(key)))
        && b.iter().all(|(key, value)| a.contains_key(key) || same(None, Some(value)))
}

pub(super) fn labels(errors: &mut Errors, path: &Path<'_>, labels: StrMap<'_>) {
    for (key, value) in labels.iter() {
        problems(errors, path, key, names::qualified_name(key));
        problems(errors, path, value, names::label_value(value));
    }
}

/// A selector of labels.
pub(super) fn label_selector(errors: &mut Errors, path: &Path<'_>, selector: Option<LabelSelector<'_>>) {
    label_selector_with(errors, path, selector, Values::Checked);
}

/// Whether the values that a selector's requirements list must be values of labels.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Values {
    Checked,
    /// They are let pass: older servers took any, and what is stored must stay changeable.
    Any,
}

impl Values {
    /// For the selector that takes the place of `old`.
    pub(super) fn after(old: Option<LabelSelector<'_>>) -> Self {
        if old.is_none_or(is_selector) { Values::Checked } else { Values::Any }
    }
}

/// Whether something can be selected by a selector.
pub(super) fn is_selector(selector: LabelSelector<'_>) -> bool {
    let mut errors = Errors::new();
    label_selector(&mut errors, &Path::root("selector"), Some(selector));
    errors.is_empty()
}

pub(super) fn label_selector_with(
    errors: &mut Errors,
    path: &Path<'_>,
    selector: Option<LabelSelector<'_>>,
    checked: Values,
) {
    let Some(selector) = selector else { return };
    labels(errors, &path.child("matchLabels"), selector.match_labels());
    for (i, requirement) in selector.match_expressions().iter().enumerate() {
        let path = path.child("matchExpressions");
        let path = path.index(i);
        let values = requirement.values();
        match requirement.operator().unwrap_or("") {
            "In" | "NotIn" if values.is_empty() => errors.push(FieldError::required(
                &path.child("values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(FieldError::forbidden(
                &path.child("values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.push(FieldError::invalid(&path.child("operator"), other, "not a valid selector operator")),
        }
        let key = requirement.key().unwrap_or("");
        problems(errors, &path.child("key"), key, names::qualified_name(key));
        for (i, value) in values.iter().enumerate().filter(|_| checked == Values::Checked) {
            problems(errors, &path.child("values").index(i), value, names::label_value(value));
        }
    }
}

/// Whether a selector asks for nothing.
pub(super) fn selects_all(selector: LabelSelector<'_>) -> bool {
    selector.match_labels().is_empty() && selector.match_expressions().is_empty()
}

/// Whether a selector picks an object with these labels.
pub(super) fn selects(selector: LabelSelector<'_>, labels: StrMap<'_>) -> bool {
    let has = |key: &str| labels.get(key);
    selector.match_labels().iter().all(|(key, value)| has(key) == Some(value))
        && selector.match_expressions().iter().all(|requirement| {
            let value = has(requirement.key().unwrap_or(""));
            let listed = value.is_some_and(|value| requirement.values().iter().any(|one| one == value));
            match requirement.operator().unwrap_or("") {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

pub(super) fn port_num(errors: &mut Errors, path: &Path<'_>, port: i64) {
    errors.extend(names::port_number(port).into_iter().map(|problem| FieldError::invalid(path, port, problem)));
}

pub(super) fn port_or_name(errors: &mut Errors, path: &Path<'_>, port: Option<IntOrString<'_>>) {
    match port.unwrap_or(IntOrString::Int(0)) {
        IntOrString::Int(port) => port_num(errors, path, port),
        IntOrString::Str(name) => problems(errors, path, name, names::port_name(name)),
    }
}

pub(super) const BAD_IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
pub(super) const BAD_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

const LEADING_ZEROS: &str = "must not have leading 0s";
const MAPPED: &str = "must not be an IPv4-mapped IPv6 address";
const LEADING_ZEROS_OF_RANGE: &str = "must not have leading 0s in IP or prefix length";
const MAPPED_RANGE: &str = "must not have an IPv4-mapped IPv6 address";
const BITS_BEYOND: &str = "must not have bits set beyond the prefix length";
/// What `StrictIPCIDRValidation` alone refuses.
pub(super) const STRICT: [&str; 5] = [LEADING_ZEROS, MAPPED, LEADING_ZEROS_OF_RANGE, MAPPED_RANGE, BITS_BEYOND];

/// An address as upstream's legacy fields take it: parts may have leading zeros.
pub(super) fn parse_ip(text: &str) -> Option<IpAddr> {
    if let Ok(ip) = text.parse() {
        return Some(ip);
    }
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next().filter(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))?;
        *octet = part
            .trim_start_matches('0')
            .parse()
            .or_else(|e| if part.trim_start_matches('0').is_empty() { Ok(0) } else { Err(e) })
            .ok()?;
    }
    parts.next().is_none().then(|| IpAddr::V4(Ipv4Addr::from(octets)))
}

/// An address, without the forms that tools read differently.
pub(super) fn ip(errors: &mut Errors, path: &Path<'_>, text: &str) -> Option<IpAddr> {
    let parsed = parse_ip(text);
    let problem = match parsed {
        None => BAD_IP,
        Some(_) if text.parse::<IpAddr>().is_err() => LEADING_ZEROS,
        Some(IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => MAPPED,
        Some(_) => return parsed,
    };
    errors.push(FieldError::invalid(path, text, problem));
    parsed
}

pub(super) fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let address = parse_ip(address)?;
    let bits: u8 = bits.bytes().all(|b| b.is_ascii_digit()).then(|| bits.parse().ok()).flatten()?;
    (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, bits))
}

/// The first address of a range.
pub(super) fn network((address, bits): (IpAddr, u8)) -> IpAddr {
    match address {
        IpAddr::V4(ip) => {
            IpAddr::V4((u32::from(ip) & u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0)).into())
        }
        IpAddr::V6(ip) => {
            IpAddr::V6((u128::from(ip) & u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0)).into())
        }
    }
}

/// A range, without the forms that tools read differently.
pub(super) fn cidr(errors: &mut Errors, path: &Path<'_>, text: &str) -> Option<(IpAddr, u8)> {
    let parsed = parse_cidr(text);
    let (address, bits) = text.split_once('/').unwrap_or((text, ""));
    let problem = match parsed {
        None => BAD_CIDR,
        Some(_) if address.parse::<IpAddr>().is_err() || bits.len() > 1 && bits.starts_with('0') => {
            LEADING_ZEROS_OF_RANGE
        }
        Some((IpAddr::V6(ip), _)) if ip.to_ipv4_mapped().is_some() => MAPPED_RANGE,
        Some(range) if network(range) != range.0 => BITS_BEYOND,
        Some(_) => return parsed,
    };
    errors.push(FieldError::invalid(path, text, problem));
    parsed
}

/// Addresses that make no sense behind a service.
pub(super) fn non_special_ip(errors: &mut Errors, path: &Path<'_>, text: &str) {
    let Some(ip) = parse_ip(text) else {
        errors.push(FieldError::invalid(path, text, "must be a valid IP address"));
        return;
    };
    let (link_local, link_local_multicast) = match ip {
        IpAddr::V4(ip) => (ip.is_link_local(), ip.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(ip) => (ip.is_unicast_link_local(), ip.segments()[0] & 0xff0f == 0xff02),
    };
    let mut refuse = |why: &str| errors.push(FieldError::invalid(path, text, why));
    if ip.is_unspecified() {
        refuse("may not be unspecified (0.0.0.0 or ::)");
    }
    if ip.is_loopback() {
        refuse("may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if link_local {
        refuse("may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if link_local_multicast {
        refuse("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

/// A path below a domain, as `acme.io/foo`.
pub(super) fn domain_prefixed_path(errors: &mut Errors, path: &Path<'_>, text: &str) {
    const BAD_PATH: &str = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
    if text.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let (host, rest) = text.split_once('/').unwrap_or((text, ""));
    if host.is_empty() || rest.is_empty() {
        let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        errors.push(FieldError::invalid(path, text, why));
        return;
    }
    problems(errors, path, host, names::dns1123_subdomain(host));
    if !rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b)) {
        errors.push(FieldError::invalid(path, rest, BAD_PATH));
    }
}

/// A quantity of the tree, which its type has checked already.
pub(super) fn quantity(text: &str) -> Quantity {
    Quantity::parse(text).unwrap_or(Quantity::ZERO)
}

/// A path below another: not absolute, without steps back.
pub(super) fn local_descending_path(errors: &mut Errors, path: &Path<'_>, text: &str) {
    if text.starts_with('/') {
        errors.push(FieldError::invalid(path, text, "must be a relative path"));
    }
    no_backsteps(errors, path, text);
}

pub(super) fn no_backsteps(errors: &mut Errors, path: &Path<'_>, text: &str) {
    if text.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(path, text, "must not contain '..'"));
    }
}

/// The same for paths that the kubelet's own links must not collide with.
pub(super) fn local_non_reserved_path(errors: &mut Errors, path: &Path<'_>, text: &str) {
    local_descending_path(errors, path, text);
    if text.starts_with("..") && !text.starts_with("../") {
        errors.push(FieldError::invalid(path, text, "must not start with '..'"));
    }
}

/// A count that may be a percentage.
pub(super) fn positive_int_or_percent(errors: &mut Errors, path: &Path<'_>, value: Option<IntOrString<'_>>) {
    match value {
        None => {}
        Some(IntOrString::Int(value)) => non_negative(errors, path, Some(value)),
        Some(IntOrString::Str(text)) => {
            let digits = text.strip_suffix('%').unwrap_or("");
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                errors.push(FieldError::invalid(
                    path,
                    text,
                    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%', or '93%', regex used for validation is '[0-9]+%')",
                ));
            }
        }
    }
}

/// A percentage of at most a hundred.
pub(super) fn not_over_100_percent(errors: &mut Errors, path: &Path<'_>, value: Option<IntOrString<'_>>) {
    if let Some(IntOrString::Str(text)) = value {
        let over = text.strip_suffix('%').and_then(|digits| digits.parse::<i64>().ok()).is_some_and(|n| n > 100);
        if over {
            errors.push(FieldError::invalid(path, text, "must not be greater than 100%"));
        }
    }
}

/// The number of a count or a percentage, without its sign.
pub(super) fn int_or_percent(value: Option<IntOrString<'_>>) -> i64 {
    match value {
        Some(IntOrString::Int(n)) => n,
        Some(IntOrString::Str(text)) => text.strip_suffix('%').and_then(|digits| digits.parse().ok()).unwrap_or(0),
        None => 0,
    }
}
