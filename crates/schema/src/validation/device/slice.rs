//! Slices: the devices that a driver offers, what they count on together, and how they may be shared.

use super::{at_most, binding_conditions, names, unique};
use crate::tree::{Map, Value};
use crate::validation::fields::{Errors, immutable, json, problems, quantity, same};
use crate::validation::pod::{self, scheduling};
use crate::view::List;
use crate::view::core_v1::NodeSelector;
use crate::view::resource_v1::{
    CapacityRequestPolicy, Counter, Device, DeviceAttribute, DeviceCapacity, DeviceCounterConsumption,
    NodeAllocatableResourceMapping, ResourceSlice, ResourceSliceSpec,
};
use crate::view::{Entries, FromValue};
use api::field::Raw;
use api::{FieldError, Path, Quantity, names as words};
use std::collections::BTreeSet;

const SPEC: Path<'static> = Path::root("spec");
const MAX_DEVICES: usize = 128;
/// Where devices have taints, consume counters or tell lists.
const MAX_ADVANCED_DEVICES: usize = 64;
const MAX_COUNTER_SETS: usize = 8;
const MAX_COUNTERS: usize = 32;
const MAX_CONSUMPTIONS: usize = 2;
const MAX_ATTRIBUTES: usize = 32;
/// Of the attributes of a device, each item of a list for itself.
const MAX_VALUES: usize = 48;
const MAX_TAINTS: usize = 16;
const MAX_TEXT: usize = 64;
const MAX_OPTIONS: usize = 10;
/// Of a domain, a slash and an identifier.
const MAX_KEY: usize = 63 + 1 + 32;
const MAX_LABEL: usize = 63;
const NULL: &str = "\"null\"";

pub(in crate::validation) fn slice(object: &Map) -> Errors {
    slice_spec(object, None)
}

pub(in crate::validation) fn slice_update(_: &str, new: &Map, old: &Map) -> Errors {
    slice_spec(new, Some(old))
}

pub(in crate::validation) fn slice_warnings(new: &Map, _: Option<&Map>) -> Vec<String> {
    let driver = new.str_at(&["spec", "driver"]);
    if driver.to_lowercase() == driver {
        return Vec::new();
    }
    let driver = api::field::go_quote(driver);
    vec![format!("spec.driver: driver names should be lowercase; {driver} contains uppercase characters")]
}

fn slice_spec(object: &Map, old: Option<&Map>) -> Errors {
    let mut errors = Errors::new();
    let empty = Map::new();
    let spec = ResourceSlice(object).spec().unwrap_or(ResourceSliceSpec(&empty));
    names::driver(&mut errors, &SPEC.child("driver"), spec.driver().unwrap_or(""));
    pool(&mut errors, spec);
    let pool = SPEC.child("pool");
    if let Some(old) = old {
        let name = ["spec", "pool", "name"];
        immutable(&mut errors, &pool.child("name"), object.at(&name), old.at(&name));
        for field in ["driver", "nodeName"] {
            immutable(&mut errors, &SPEC.child(field), object.at(&["spec", field]), old.at(&["spec", field]));
        }
    }
    let per_device = spec.per_device_node_selection();
    where_it_is(&mut errors, spec);
    if spec.0.contains_key("sharedCounters") && spec.0.contains_key("devices") {
        errors.push(FieldError::invalid(&SPEC, "", "only one of `sharedCounters` or `devices` is allowed"));
    }
    let advanced = spec.devices().iter().any(|device| {
        let lists = |attribute: DeviceAttribute<'_>| {
            ["ints", "bools", "strings", "versions"].iter().any(|field| attribute.0.contains_key(field))
        };
        !device.taints().is_empty()
            || !device.consumes_counters().is_empty()
            || device.attributes().iter().any(|(_, attribute)| lists(attribute))
    });
    let path = SPEC.child("devices");
    let most = if advanced { MAX_ADVANCED_DEVICES } else { MAX_DEVICES };
    if at_most(&mut errors, &path, spec.devices().len(), most) {
        let were = old.and_then(|old| ResourceSlice(old).spec()).map_or(List::new(&[]), |spec| spec.devices());
        for (i, one) in spec.devices().iter().enumerate() {
            let was = were.iter().find(|was| was.name() == one.name());
            device(&mut errors, &path.index(i), one, was, per_device == Some(true));
        }
        unique(&mut errors, &path, spec.devices().iter().map(|device| device.name().unwrap_or("")));
    }
    let path = SPEC.child("sharedCounters");
    if at_most(&mut errors, &path, spec.shared_counters().len(), MAX_COUNTER_SETS) {
        for (i, set) in spec.shared_counters().iter().enumerate() {
            let path = path.index(i);
            super::named(&mut errors, &path.child("name"), set.name(), words::dns1123_label);
            counters(&mut errors, &path, set.counters());
        }
        unique(&mut errors, &path, spec.shared_counters().iter().map(|set| set.name().unwrap_or("")));
    }
    errors
}

fn pool(errors: &mut Errors, spec: ResourceSliceSpec<'_>) {
    let path = SPEC.child("pool");
    let pool = spec.pool();
    names::pool(errors, &path.child("name"), pool.and_then(|pool| pool.name()).unwrap_or(""));
    let count = pool.and_then(|pool| pool.resource_slice_count()).unwrap_or(0);
    if count <= 0 {
        errors.push(FieldError::invalid(&path.child("resourceSliceCount"), count, "must be greater than zero"));
    }
    let generation = pool.and_then(|pool| pool.generation()).unwrap_or(0);
    if generation < 0 {
        let why = "must be greater than or equal to zero";
        errors.push(FieldError::invalid(&path.child("generation"), generation, why));
    }
}

/// Places of which exactly one is to be named.
struct Places<'p, 'e> {
    errors: &'e mut Errors,
    path: &'p Path<'p>,
    set: Vec<&'static str>,
}

impl Places<'_, '_> {
    fn node_name(&mut self, name: Option<&str>, empty: &str) {
        let path = self.path.child("nodeName");
        match name {
            None => {}
            Some("") => self.errors.push(FieldError::invalid(&path, "", empty)),
            Some(name) => {
                self.set.push("`nodeName`");
                problems(self.errors, &path, name, words::dns1123_subdomain(name));
            }
        }
    }

    fn node_selector(&mut self, selector: Option<NodeSelector<'_>>) {
        let Some(selector) = selector else { return };
        self.set.push("`nodeSelector`");
        scheduling::node_selector(self.errors, &self.path.child("nodeSelector"), selector);
    }

    fn switch(&mut self, field: &'static str, shown: &'static str, on: Option<bool>) {
        match on {
            None => {}
            Some(true) => self.set.push(shown),
            Some(false) => {
                let why = "must be either unset or set to true";
                self.errors.push(FieldError::invalid(&self.path.child(field), false, why));
            }
        }
    }

    fn one(self, missing: &str, several: &str) {
        match self.set.len() {
            0 => self.errors.push(FieldError::required(self.path, missing)),
            1 => {}
            _ => {
                let shown = format!("{{{}}}", self.set.join(", "));
                self.errors.push(FieldError::invalid(self.path, shown, several));
            }
        }
    }
}

fn where_it_is(errors: &mut Errors, spec: ResourceSliceSpec<'_>) {
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    let mut places = Places { errors, path: &SPEC, set: Vec::new() };
    places.node_name(spec.node_name(), "must be either unset or set to a non-empty string");
    places.node_selector(spec.node_selector());
    if let Some(selector) = spec.node_selector().filter(|selector| selector.node_selector_terms().len() != 1) {
        // Selectors of several slices are merged, which one term each keeps simple.
        let path = SPEC.child("nodeSelector");
        let path = path.child("nodeSelectorTerms");
        let why = "must have exactly one node selector term";
        let shown = json(selector.0.get("nodeSelectorTerms"));
        places.errors.push(FieldError::invalid(&path, shown, why));
    }
    places.switch("allNodes", "`allNodes`", spec.all_nodes());
    places.switch("perDeviceNodeSelection", "`perDeviceNodeSelection`", spec.per_device_node_selection());
    places.one(ONE, &format!("{ONE}, but multiple fields are set"));
}

fn device(errors: &mut Errors, path: &Path<'_>, device: Device<'_>, was: Option<Device<'_>>, per_device: bool) {
    let name = device.name().unwrap_or("");
    problems(errors, &path.child("name"), name, words::dns1123_label(name));
    let count = device.attributes().len() + device.capacity().len();
    if count > MAX_ATTRIBUTES {
        let why = format!("the total number of attributes and capacities must not exceed {MAX_ATTRIBUTES}");
        errors.push(FieldError::invalid(path, i64::try_from(count).unwrap_or(i64::MAX), why));
    }
    let count: usize = device.attributes().iter().map(|(_, attribute)| values(attribute)).sum();
    if count > MAX_VALUES {
        let why = format!("the total number of attribute values must not exceed {MAX_VALUES}");
        errors.push(FieldError::invalid(path, i64::try_from(count).unwrap_or(i64::MAX), why));
    }
    entries(errors, &path.child("attributes"), device.attributes(), MAX_KEY, names::qualified, attribute);
    let shared = device.allow_multiple_allocations() == Some(true);
    let judge = |errors: &mut Errors, path: &Path<'_>, capacity: DeviceCapacity<'_>| {
        let Some(policy) = capacity.request_policy() else { return };
        let path = path.child("requestPolicy");
        if shared {
            request_policy(errors, &path, quantity(capacity.value().unwrap_or("0")), policy);
        } else {
            errors.push(FieldError::forbidden(&path, "allowMultipleAllocations must be true"));
        }
    };
    entries(errors, &path.child("capacity"), device.capacity(), MAX_KEY, names::qualified, judge);
    let taints = path.child("taints");
    // What did not change is not judged again.
    let changed = was.is_none_or(|was| !same(was.0.get("taints"), device.0.get("taints")));
    if changed && at_most(errors, &taints, device.taints().len(), MAX_TAINTS) {
        for (i, one) in device.taints().iter().enumerate() {
            super::taint::taint(errors, &taints.index(i), one.0, None);
        }
    }
    let consumed = path.child("consumesCounters");
    if at_most(errors, &consumed, device.consumes_counters().len(), MAX_CONSUMPTIONS) {
        for (i, one) in device.consumes_counters().iter().enumerate() {
            consumption(errors, &consumed.index(i), one);
        }
        unique(errors, &consumed, device.consumes_counters().iter().map(|one| one.counter_set().unwrap_or("")));
    }
    if per_device {
        const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
        let mut places = Places { errors, path, set: Vec::new() };
        places.node_name(device.node_name(), "must not be empty");
        places.node_selector(device.node_selector());
        places.switch("allNodes", "`allNodes`", device.all_nodes());
        places.one(ONE, ONE);
    } else if ["nodeName", "nodeSelector", "allNodes"].iter().any(|field| device.0.contains_key(field)) {
        let why = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
        errors.push(FieldError::invalid(path, Raw(NULL.to_owned()), why));
    }
    binding_conditions(errors, path, device.binding_conditions(), device.binding_failure_conditions());
    for (name, mapping) in device.node_allocatable_resource_mappings().iter() {
        let path = path.child("nodeAllocatableResourceMappings");
        node_resource(errors, &path.key(name), name, mapping, device.capacity());
    }
}

/// How many values an attribute tells.
fn values(attribute: DeviceAttribute<'_>) -> usize {
    let listed = ["bools", "ints", "strings", "versions"]
        .iter()
        .filter_map(|field| attribute.0.get(field).and_then(Value::as_list))
        .map(<[Value]>::len)
        .sum();
    if listed == 0 { 1 } else { listed }
}

/// What a device takes of a resource of its node: so much each time, or as much as one of its capacities.
fn node_resource(
    errors: &mut Errors,
    path: &Path<'_>,
    name: &str,
    mapping: NodeAllocatableResourceMapping<'_>,
    capacities: Entries<'_, DeviceCapacity<'_>>,
) {
    if !pod::resources::is_native(name) {
        errors.push(FieldError::invalid(path, name, "must be a node allocatable resource name"));
    }
    let (multiplier, key) = (mapping.allocation_multiplier(), mapping.capacity_key());
    if multiplier.is_none() && key.is_none() {
        errors.push(FieldError::invalid(path, "", "at least one of allocationMultiplier or capacityKey must be set"));
    }
    if let Some(multiplier) = multiplier.filter(|multiplier| quantity(multiplier).signum() <= 0) {
        errors.push(FieldError::invalid(&path.child("allocationMultiplier"), multiplier, "must be positive"));
    }
    let path = path.child("capacityKey");
    match key {
        Some("") => errors.push(FieldError::invalid(&path, "", "capacityKey must not be an empty string")),
        Some(key) if capacities.iter().all(|(of, _)| of != key) => errors.push(FieldError::not_found(&path, key)),
        _ => {}
    }
}

/// The keys and the values of a map.
fn entries<'a, T: FromValue<'a>>(
    errors: &mut Errors,
    path: &Path<'_>,
    map: Entries<'a, T>,
    longest: usize,
    key_rule: fn(&mut Errors, &Path<'_>, &str),
    judge: impl Fn(&mut Errors, &Path<'_>, T),
) {
    for (key, value) in map.iter() {
        key_rule(errors, path, key);
        judge(errors, &path.key(&shortened(key, longest)), value);
    }
}

/// A key as messages show it: without its middle, if it is too long.
fn shortened(key: &str, longest: usize) -> String {
    const GAP: &str = "...";
    if key.len() <= longest {
        return key.to_owned();
    }
    let rest = longest - GAP.len();
    let bytes = key.as_bytes();
    let (head, tail) = (&bytes[..rest.div_ceil(2)], &bytes[bytes.len() - rest / 2..]);
    format!("{}{GAP}{}", String::from_utf8_lossy(head), String::from_utf8_lossy(tail))
}

fn attribute(errors: &mut Errors, path: &Path<'_>, attribute: DeviceAttribute<'_>) {
    const ONE: &str = "exactly one value must be specified";
    let text = |errors: &mut Errors, path: &Path<'_>, value: &str| {
        if value.len() > MAX_TEXT {
            errors.push(FieldError::too_long(path, MAX_TEXT));
        }
    };
    let version = |errors: &mut Errors, path: &Path<'_>, value: &str| {
        if !names::is_semver(value) {
            let why = "must be a string compatible with semver.org spec 2.0.0";
            errors.push(FieldError::invalid(path, value, why));
        }
        text(errors, path, value);
    };
    if let Some(value) = attribute.string() {
        text(errors, &path.child("string"), value);
    }
    if let Some(value) = attribute.version() {
        version(errors, &path.child("version"), value);
    }
    for field in ["bools", "ints", "strings", "versions"] {
        if attribute.0.get(field).and_then(Value::as_list).is_some_and(<[Value]>::is_empty) {
            errors.push(FieldError::invalid(&path.child(field), Raw("[]".into()), "must not be empty if specified"));
        }
    }
    for (i, value) in attribute.strings().iter().enumerate() {
        text(errors, &path.child("strings").index(i), value);
    }
    for (i, value) in attribute.versions().iter().enumerate() {
        version(errors, &path.child("versions").index(i), value);
    }
    let fields = ["bool", "int", "string", "version", "bools", "ints", "strings", "versions"];
    match fields.iter().filter(|field| attribute.0.contains_key(field)).count() {
        0 => errors.push(FieldError::invalid(path, "", ONE)),
        1 => {}
        _ => errors.push(FieldError::invalid(path, json(Some(&Value::Map(attribute.0.clone()))), ONE)),
    }
}

fn counters(errors: &mut Errors, path: &Path<'_>, counters: Entries<'_, Counter<'_>>) {
    let path = path.child("counters");
    if counters.is_empty() {
        errors.push(FieldError::required(&path, ""));
    } else if at_most(errors, &path, counters.len(), MAX_COUNTERS) {
        let rule = |errors: &mut Errors, path: &Path<'_>, key: &str| {
            problems(errors, path, key, words::dns1123_label(key));
        };
        entries(errors, &path, counters, MAX_LABEL, rule, |_, _, _| {});
    }
}

fn consumption(errors: &mut Errors, path: &Path<'_>, consumption: DeviceCounterConsumption<'_>) {
    super::named(errors, &path.child("counterSet"), consumption.counter_set(), words::dns1123_label);
    counters(errors, path, consumption.counters());
}

/// What parts of a capacity may be asked for: some values, or a range.
fn request_policy(errors: &mut Errors, path: &Path<'_>, capacity: Quantity, policy: CapacityRequestPolicy<'_>) {
    let values = policy.valid_values();
    if !values.is_empty() && policy.valid_range().is_some() {
        let why =
            "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time";
        errors.push(FieldError::forbidden(path, why));
        return;
    }
    let kind = match (values.is_empty(), policy.valid_range()) {
        (false, _) => "validValues",
        (true, Some(_)) => "validRange",
        (true, None) => return,
    };
    let Some(default) = policy.default() else {
        errors.push(FieldError::required(&path.child("default"), format!("required when {kind} is defined")));
        return;
    };
    match policy.valid_range() {
        Some(range) => request_range(errors, &path.child(kind), &capacity, default, range),
        None => request_values(errors, &path.child(kind), &capacity, default, values),
    }
}

fn request_values(errors: &mut Errors, path: &Path<'_>, capacity: &Quantity, default: &str, list: List<'_, &str>) {
    let values: Vec<&str> = list.iter().collect();
    for (i, pair) in values.windows(2).enumerate() {
        if quantity(pair[0]).nanos() > quantity(pair[1]).nanos() {
            let why = "values must be sorted in ascending order";
            errors.push(FieldError::invalid(&path.index(i + 1), pair[1], why));
        }
    }
    let wanted = quantity(default).nanos();
    if at_most(errors, path, values.len(), MAX_OPTIONS) {
        for (i, value) in values.iter().enumerate() {
            if quantity(value).nanos() > capacity.nanos() {
                let why = format!("option is larger than capacity value: {capacity}");
                errors.push(FieldError::invalid(&path.index(i), *value, why));
            }
        }
        let mut seen = BTreeSet::new();
        for (i, value) in values.iter().enumerate() {
            let whole = quantity(value).value();
            if !seen.insert(whole) {
                errors.push(FieldError::duplicate(&path.index(i), whole.to_string()));
            }
        }
    }
    if !values.iter().any(|value| quantity(value).nanos() == wanted) {
        let why = "default value is not valid according to the requestPolicy";
        errors.push(FieldError::invalid(path, default, why));
    }
}

fn request_range(
    errors: &mut Errors,
    path: &Path<'_>,
    capacity: &Quantity,
    default: &str,
    range: crate::view::resource_v1::CapacityRequestPolicyRange<'_>,
) {
    let Some(min) = range.min() else {
        errors.push(FieldError::required(&path.child("min"), "required when validRange is defined"));
        return;
    };
    let (least, wanted, all) = (quantity(min), quantity(default), capacity.nanos());
    let mut refuse = |field: &str, value: &str, why: String| {
        errors.push(FieldError::invalid(&path.child(field), value, why));
    };
    if least.nanos() > all {
        refuse("min", min, format!("min is larger than capacity value: {capacity}"));
    }
    if wanted.nanos() < least.nanos() {
        refuse("min", default, format!("default is less than min: {min}"));
    }
    if let Some(max) = range.max() {
        let most = quantity(max).nanos();
        if least.nanos() > most {
            refuse("max", min, format!("min is larger than max: {max}"));
        }
        if most > all {
            refuse("max", max, format!("max is larger than capacity value: {capacity}"));
        }
        if wanted.nanos() > most {
            refuse("max", default, format!("default is more than max: {max}"));
        }
    }
    let Some(step) = range.step() else { return };
    let each = quantity(step);
    if each.signum() <= 0 {
        refuse("step", step, "must be greater than zero".to_owned());
        return;
    }
    let first = least.add(&each);
    if first.nanos() > all {
        refuse("step", step, format!("one step {first} is larger than capacity value: {capacity}"));
    }
    for value in std::iter::once(default).chain(range.max()) {
        let (whole, from, by) = (quantity(value).value(), least.value(), each.value());
        if whole.checked_sub(from).is_none_or(|distance| distance.checked_rem(by) != Some(0)) {
            refuse("step", value, format!("value is not a multiple of a given step ({step}) from ({min})"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_keys_lose_their_middle() {
        assert_eq!(shortened("abc", 16), "abc");
        assert_eq!(shortened("0123456789abcdefghij", 16), "0123456...efghij");
        assert!(shortened(&"ü".repeat(100), 63).len() < 80);
    }
}
