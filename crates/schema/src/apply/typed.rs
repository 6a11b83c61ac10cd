//! Whether a configuration is of its type, as upstream's typed values judge it: nothing that is undeclared, values of their
//! fields' types, and lists whose items can be told apart.
//!
//! It is stricter than decoding (an item without its keys has no path that could be owned) and laxer (what is one of several
//! types, such as a quantity, is not looked at).

use super::path::{Element, Shape};
use crate::patch::{go_syntax, go_type, shown};
use crate::tree::{Map, Value};
use crate::types::{Field, Kind, TypeRef};
use std::collections::BTreeSet;
use std::fmt;

/// What is wrong at a place of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fault {
    /// As messages show it: `.spec.containers[name="c"].env`.
    path: String,
    why: String,
}

/// Everything that keeps a configuration from being of its type; `Display` is upstream's wording.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Faults(Vec<Fault>);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            return f.write_str(&self.why);
        }
        write!(f, "{}: {}", self.path, self.why)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [fault] = self.0.as_slice() {
            return fault.fmt(f);
        }
        f.write_str("errors:")?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

/// Judges a configuration that is to be applied to an object of a type.
///
/// # Errors
/// All that is wrong with it.
pub fn judge(ty: TypeRef<'_>, config: &Map) -> Result<(), Faults> {
    let mut judge = Judge { path: String::new(), faults: Vec::new() };
    judge.entries(ty, config);
    if judge.faults.is_empty() { Ok(()) } else { Err(Faults(judge.faults)) }
}

struct Judge {
    path: String,
    faults: Vec<Fault>,
}

/// More faults than these are not told, nor longer texts: both can be many times as large as the configuration.
const MAX_FAULTS: usize = 100;
const MAX_TEXT: usize = 1024;

/// The beginning of a text that is too long.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

impl Judge {
    fn fault(&mut self, why: impl Into<String>) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(Fault { path: shortened(&self.path), why: shortened(&why.into()) });
        }
    }

    /// Does something one step further down.
    fn below(&mut self, step: &Element, then: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        self.path.push_str(&step.to_string());
        then(self);
        self.path.truncate(length);
    }

    fn value(&mut self, ty: TypeRef<'_>, field: Option<Field<'_>>, value: &Value) {
        let kind = ty.kind();
        match (kind, value) {
            (_, Value::Null)
            // One of several types is deduced from what is given: it always fits.
            | (
                Kind::Json | Kind::Quantity | Kind::IntOrString | Kind::OrBool(_) | Kind::OrList(_) | Kind::OrStrings(_),
                _,
            )
            | (Kind::String | Kind::Bytes | Kind::Duration, Value::Str(_))
            | (Kind::Bool, Value::Bool(_))
            | (Kind::Int32 | Kind::Int64 | Kind::Float, Value::Int(_) | Value::Float(_))
            | (Kind::Time | Kind::MicroTime, Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Str(_))
            | (Kind::Raw | Kind::Fields, Value::Map(_) | Value::Raw(_)) => {}
            (Kind::Map(_) | Kind::Struct(_), Value::Map(map)) => self.entries(ty, map),
            (Kind::List(of), Value::List(items)) => self.items(Shape::of(ty, field), of, items),
            (Kind::String | Kind::Bytes | Kind::Duration, _) => {
                self.fault(format!("expected string, got &value.valueUnstructured{{Value:{}}}", go_syntax(value)));
            }
            (Kind::Int32 | Kind::Int64 | Kind::Float, _) => {
                self.fault(format!("expected numeric (int or float), got {}", go_type(value)));
            }
            _ => {
                let wanted = match kind {
                    Kind::Bool => "boolean",
                    Kind::Time | Kind::MicroTime => "any scalar",
                    Kind::List(_) => "list",
                    _ => "map",
                };
                self.fault(format!("expected {wanted}, got &{{{}}}", shown(value)));
            }
        }
    }

    fn entries(&mut self, ty: TypeRef<'_>, map: &Map) {
        for (key, value) in map.iter() {
            let step = Element::Field(key.into());
            let (of, field) = match ty.kind() {
                Kind::Map(of) => (of, None),
                Kind::Struct(s) => match s.field(key) {
                    Some(field) => (field.ty(), Some(field)),
                    None if s.open() => (ty.json(), None),
                    None => {
                        // Upstream looks at no more of an object that has one.
                        self.below(&step, |judge| judge.fault("field not declared in schema"));
                        return;
                    }
                },
                _ => return,
            };
            self.below(&step, |judge| judge.value(of, field, value));
        }
    }

    fn items(&mut self, shape: Shape<'_>, of: TypeRef<'_>, items: &[Value]) {
        let mut seen: BTreeSet<Element> = BTreeSet::new();
        for (n, item) in items.iter().enumerate() {
            if let Some(why) = unplaceable(shape, item) {
                // What has no place has none for the faults below it, either.
                self.fault(format!("element {n}: {why}"));
                return;
            }
            let step = shape.element(n, item);
            if seen.contains(&step) {
                self.fault(format!("duplicate entries for key {step}"));
            }
            self.below(&step, |judge| judge.value(of, None, item));
            if matches!(shape, Shape::Keyed { .. } | Shape::Set) {
                seen.insert(step);
            }
        }
    }
}

/// Why an item of a list can't be told from others by its keys or its value.
fn unplaceable(shape: Shape<'_>, item: &Value) -> Option<String> {
    let why = match (shape, item) {
        (Shape::Keyed { of, topology }, Value::Map(map)) => {
            let default = |key: &str| of.as_struct().and_then(|s| s.field(key)).and_then(Field::default);
            let omitted = topology.keys.iter().find(|key| !map.contains_key(key) && default(key).is_none())?;
            return Some(format!(
                "associative list with keys has an element that omits key field {omitted:?} (and doesn't have default value)"
            ));
        }
        (Shape::Keyed { .. }, Value::Null) => "associative list with keys may not have a null element",
        (Shape::Keyed { .. }, _) => "associative list with keys may not have non-map elements",
        (Shape::Set, Value::Map(_)) => "associative list without keys has an element that's a map type",
        (Shape::Set, Value::List(_)) => "not supported: associative list with lists as elements",
        (Shape::Set, Value::Null) => "associative list without keys has an element that's an explicit null",
        _ => return None,
    };
    Some(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::tests_support::value;

    fn judged(kind: &str, config: &str) -> String {
        let group = if kind == "Deployment" { "apps" } else { "" };
        let ty = crate::types::of_kind(group, "v1", kind).unwrap_or_else(|| panic!("{kind} is known"));
        let Value::Map(config) = value(config) else { panic!("an object") };
        judge(ty, &config).err().map(|faults| faults.to_string()).unwrap_or_default()
    }

    #[test]
    fn what_is_told_does_not_grow_beyond_what_was_sent() {
        let args = vec!["1"; 5_000].join(",");
        let name = "n".repeat(5_000);
        let config = format!(r#"{{"spec":{{"containers":[{{"name":"{name}","args":[{args}]}}]}}}}"#);
        let told = judged("Pod", &config);
        assert!(told.starts_with("errors:\n  .spec.containers[name=\"nnn"), "{}", &told[..100]);
        assert!(told.lines().count() == MAX_FAULTS + 1 && told.len() < MAX_FAULTS * 2 * MAX_TEXT, "{}", told.len());
    }

    #[test]
    fn values_are_of_their_types() {
        for (kind, config, why) in [
            ("ConfigMap", r#"{"apiVersion":"v1","kind":"ConfigMap","data":{"a":"b"}}"#, ""),
            ("ConfigMap", r#"{"data":{"a":1}}"#, ".data.a: expected string, got &value.valueUnstructured{Value:1}"),
            (
                "ConfigMap",
                r#"{"data":{"a":{"b":["x",true,null]}}}"#,
                r#".data.a: expected string, got &value.valueUnstructured{Value:map[string]interface {}{"b":[]interface {}{"x", true, interface {}(nil)}}}"#,
            ),
            ("ConfigMap", r#"{"data":["a"]}"#, ".data: expected map, got &{[a]}"),
            ("ConfigMap", r#"{"data":null,"immutable":"x"}"#, ".immutable: expected boolean, got &{x}"),
            ("Pod", r#"{"spec":{"containers":{"a":1}}}"#, ".spec.containers: expected list, got &{map[a:1]}"),
            ("Pod", r#"{"spec":{"priority":"1"}}"#, ".spec.priority: expected numeric (int or float), got string"),
            (
                "Pod",
                r#"{"spec":{"priority":[]}}"#,
                ".spec.priority: expected numeric (int or float), got []interface {}",
            ),
            (
                "Pod",
                r#"{"metadata":{"creationTimestamp":{}},"spec":3}"#,
                "errors:\n  .metadata.creationTimestamp: expected any scalar, got &{map[]}\n  .spec: expected map, got &{3}",
            ),
            (
                "Pod",
                r#"{"spec":{"containers":[{"name":"c","commands":["x"],"imagee":"y"}]}}"#,
                r#".spec.containers[name="c"].commands: field not declared in schema"#,
            ),
            // A quantity is what can be made of it, which is found out later.
            ("Pod", r#"{"spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":1,"memory":"x"}}}]}}"#, ""),
            (
                "Pod",
                r#"{"spec":{"containers":[{"name":"c","args":["a","a",1]}]}}"#,
                r#".spec.containers[name="c"].args[2]: expected string, got &value.valueUnstructured{Value:1}"#,
            ),
        ] {
            assert_eq!(judged(kind, config), why, "{config}");
        }
    }

    #[test]
    fn items_are_told_apart() {
        let container = |inner: &str| format!(r#"{{"spec":{{"containers":[{{"name":"c",{inner}}}]}}}}"#);
        for (config, why) in [
            (
                container(r#""env":[{"name":"A"},{"name":"B"},{"name":"A","value":1}]"#),
                "errors:\n  .spec.containers[name=\"c\"].env: duplicate entries for key [name=\"A\"]\n  .spec.containers[name=\"c\"].env[name=\"A\"].value: expected string, got &value.valueUnstructured{Value:1}",
            ),
            // The protocol has a default.
            (
                container(
                    r#""ports":[{"containerPort":1},{"containerPort":1,"protocol":"TCP"},{"containerPort":1,"protocol":"UDP"}]"#,
                ),
                r#".spec.containers[name="c"].ports: duplicate entries for key [containerPort=1,protocol="TCP"]"#,
            ),
            (
                container(r#""ports":[{"name":"a"}]"#),
                r#".spec.containers[name="c"].ports: element 0: associative list with keys has an element that omits key field "containerPort" (and doesn't have default value)"#,
            ),
            (
                container(r#""env":[{"name":"A"},null,{"name":"A"}]"#),
                r#".spec.containers[name="c"].env: element 1: associative list with keys may not have a null element"#,
            ),
            (
                container(r#""env":["A"]"#),
                r#".spec.containers[name="c"].env: element 0: associative list with keys may not have non-map elements"#,
            ),
            (
                r#"{"metadata":{"finalizers":["a/b","a/c","a/b"]}}"#.to_owned(),
                r#".metadata.finalizers: duplicate entries for key [="a/b"]"#,
            ),
            (
                r#"{"metadata":{"finalizers":[{}]}}"#.to_owned(),
                ".metadata.finalizers: element 0: associative list without keys has an element that's a map type",
            ),
        ] {
            assert_eq!(judged("Pod", &config), why, "{config}");
        }
    }
}
