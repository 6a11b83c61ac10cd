//! Path elements: a field, an item by its keys, an item by its value, an item by its index.

use crate::json;
use crate::tree::{Map, Value};
use crate::types::{Field, Kind, ListType, Struct, Topology, TypeRef};
use compact_str::CompactString;
use std::cmp::Ordering;
use std::fmt;

/// One step of a path.
#[derive(Clone, Debug)]
pub enum Element {
    /// `f:name`
    Field(CompactString),
    /// `k:{"name":"x"}`: the keys of an item of an associative list.
    Keys(Map),
    /// `v:"x"`: an item of a set.
    Value(Value),
    /// `i:0`
    Index(usize),
}

fn text(value: &Value) -> String {
    let mut out = Vec::new();
    json::encode_value(value, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// Appends a field as it is spelled in `fieldsV1`, as a JSON string.
pub(super) fn write_field(name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\"f:");
    json::encode_text(name, out);
    out.push(b'"');
}

impl Element {
    /// As it is spelled in `fieldsV1`.
    pub fn spelled(&self) -> String {
        match self {
            Element::Field(name) => ["f:", name].concat(),
            Element::Keys(keys) => ["k:", &json::to_string(keys)].concat(),
            Element::Value(value) => ["v:", &text(value)].concat(),
            Element::Index(index) => format!("i:{index}"),
        }
    }

    /// Appends [`Element::spelled`] as a JSON string.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        if let Element::Field(name) = self {
            write_field(name, out);
        } else {
            json::encode_str(&self.spelled(), out);
        }
    }

    /// Reads what [`Element::spelled`] writes; `None` for anything else.
    pub fn parse(spelled: &str) -> Option<Self> {
        let (kind, rest) = spelled.split_once(':')?;
        match kind {
            "f" => Some(Element::Field(rest.into())),
            "v" => json::parse(rest.as_bytes()).ok().map(Element::Value),
            "i" => rest.parse().ok().map(Element::Index),
            "k" => match json::parse(rest.as_bytes()) {
                Ok(Value::Map(keys)) => Some(Element::Keys(keys)),
                _ => None,
            },
            _ => None,
        }
    }
}

impl fmt::Display for Element {
    /// As in messages: `.spec`, `[name="x"]`, `["x"]`, `[0]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Element::Field(name) => write!(f, ".{name}"),
            Element::Keys(keys) => {
                f.write_str("[")?;
                for (i, (key, value)) in keys.iter().enumerate() {
                    write!(f, "{}{key}={}", if i > 0 { "," } else { "" }, text(value))?;
                }
                f.write_str("]")
            }
            Element::Value(value) => write!(f, "[={}]", text(value)),
            Element::Index(index) => write!(f, "[{index}]"),
        }
    }
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Int(_) => 2,
        Value::Float(_) => 3,
        Value::Str(_) => 4,
        Value::List(_) => 5,
        Value::Map(_) => 6,
        Value::Raw(_) => 7,
    }
}

fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Float(a), Value::Float(b)) => a.total_cmp(b),
        (Value::Str(a), Value::Str(b)) => a.cmp(b),
        (Value::List(a), Value::List(b)) => {
            let pairs = a.iter().zip(b).map(|(a, b)| compare(a, b)).find(|o| o.is_ne());
            pairs.unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        (Value::Map(a), Value::Map(b)) => compare_maps(a, b),
        (Value::Raw(a), Value::Raw(b)) => a.cmp(b),
        _ => rank(a).cmp(&rank(b)),
    }
}

fn compare_maps(a: &Map, b: &Map) -> Ordering {
    let pairs = a.iter().zip(b.iter()).map(|((ka, va), (kb, vb))| ka.cmp(kb).then_with(|| compare(va, vb)));
    pairs.into_iter().find(|o| o.is_ne()).unwrap_or_else(|| a.len().cmp(&b.len()))
}

impl Ord for Element {
    /// Fields, indexes, keys, values, as they are spelled; each by its content.
    fn cmp(&self, other: &Self) -> Ordering {
        fn kind(element: &Element) -> u8 {
            match element {
                Element::Field(_) => 0,
                Element::Index(_) => 1,
                Element::Keys(_) => 2,
                Element::Value(_) => 3,
            }
        }
        match (self, other) {
            (Element::Field(a), Element::Field(b)) => a.cmp(b),
            (Element::Keys(a), Element::Keys(b)) => compare_maps(a, b),
            (Element::Value(a), Element::Value(b)) => compare(a, b),
            (Element::Index(a), Element::Index(b)) => a.cmp(b),
            _ => kind(self).cmp(&kind(other)),
        }
    }
}

impl PartialOrd for Element {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Element {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Element {}

/// How the value at a place is owned: as one, or by its parts.
#[derive(Clone, Copy)]
pub enum Shape<'s> {
    Leaf,
    /// A struct, whose fields are owned one by one.
    Struct(Struct<'s>),
    /// A map of values of one type, owned key by key.
    Map(TypeRef<'s>),
    /// A list whose items are known by their keys.
    Keyed {
        of: TypeRef<'s>,
        topology: &'s Topology,
    },
    /// A list of distinct scalars.
    Set,
}

impl<'s> Shape<'s> {
    /// The shape of a value of a type, which stands in a field if it does (the topology is the field's).
    pub fn of(ty: TypeRef<'s>, field: Option<Field<'s>>) -> Self {
        let topology = field.map(Field::topology);
        let atomic = topology.is_some_and(|t| t.atomic_map);
        match ty.kind() {
            Kind::Struct(s) if !s.atomic() && !atomic => Shape::Struct(s),
            Kind::Map(of) if !atomic => Shape::Map(of),
            Kind::List(of) => match topology {
                Some(t) if t.list == ListType::Map => Shape::Keyed { of, topology: t },
                Some(t) if t.list == ListType::Set => Shape::Set,
                _ => Shape::Leaf,
            },
            _ => Shape::Leaf,
        }
    }

    /// The shape of a part, and its type.
    pub fn child(self, element: &Element) -> Shape<'s> {
        match (self, element) {
            (_, Element::Field(name)) => self.field(name),
            (Shape::Keyed { of, .. }, Element::Keys(_)) => Shape::of(of, None),
            _ => Shape::Leaf,
        }
    }

    /// The shape of the field, or the value of the key, of a name.
    pub fn field(self, name: &str) -> Shape<'s> {
        match self {
            Shape::Struct(s) => s.field(name).map_or(Shape::Leaf, |f| Shape::of(f.ty(), Some(f))),
            Shape::Map(of) => Shape::of(of, None),
            _ => Shape::Leaf,
        }
    }

    /// The element of a list's item.
    pub fn element(self, index: usize, item: &Value) -> Element {
        match (self, item) {
            (Shape::Keyed { of, topology }, Value::Map(map)) => {
                let mut keys = Map::new();
                for key in topology.keys.iter() {
                    let default = || of.as_struct().and_then(|s| s.field(key)).and_then(Field::default).cloned();
                    if let Some(value) = map.get(key).cloned().or_else(default) {
                        keys.insert(*key, value);
                    }
                }
                Element::Keys(keys)
            }
            (Shape::Set, value) => Element::Value(value.clone()),
            _ => Element::Index(index),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::tests_support::value;

    #[test]
    fn elements_are_read_as_they_are_spelled() {
        let Value::Map(keys) = value(r#"{"containerPort":80,"protocol":"TCP"}"#) else { panic!("a map") };
        for (element, spelled, shown) in [
            (Element::Field("spec".into()), "f:spec", ".spec"),
            (Element::Keys(keys), r#"k:{"containerPort":80,"protocol":"TCP"}"#, r#"[containerPort=80,protocol="TCP"]"#),
            (Element::Value("a:b".into()), r#"v:"a:b""#, r#"[="a:b"]"#),
            (Element::Index(3), "i:3", "[3]"),
        ] {
            assert_eq!(element.spelled(), spelled);
            assert_eq!(Element::parse(spelled).as_ref(), Some(&element));
            assert_eq!(element.to_string(), shown);
        }
        assert_eq!(Element::parse("x:y"), None);
        assert_eq!(Element::parse("k:[]"), None);
    }
}
