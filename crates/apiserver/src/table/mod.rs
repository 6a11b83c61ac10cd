//! Tables: the cells that `kubectl get` shows (`meta.k8s.io/v1 Table`), as upstream's printers make them.
//!
//! Columns are data of the kind's row; a cell is a path, a count, or a small function of [`cells`].

mod cells;
mod pod;
mod workloads;

use api::duration;
use jiff::Timestamp;
use schema::resource::Column;
use schema::{Map, Resource, Value};

/// How one cell is made.
enum Cell {
    /// The value at a path; empty text when there is none.
    Path(&'static [&'static str]),
    /// The value at a path, or this text.
    Or(&'static [&'static str], &'static str),
    /// The value at a path, or this number.
    Number(&'static [&'static str], i64),
    /// The length of the list or map at a path.
    Count(&'static [&'static str]),
    /// How long ago the time at a path was.
    Ago(&'static [&'static str]),
    By(fn(&Map, Timestamp) -> Value),
}

const UNKNOWN: &str = "<unknown>";
const NONE: &str = "<none>";
const UNSET: &str = "<unset>";

/// The cells of an object, in the order of [`columns`].
pub fn cells(row: &Resource, object: &Map, now: Timestamp) -> Vec<Value> {
    let Some(rules) = cells::of(&row.group, &row.kind) else {
        // Kinds without columns of their own show name and age (creation time as it is).
        return vec![
            object.str_at(&["metadata", "name"]).into(),
            object.str_at(&["metadata", "creationTimestamp"]).into(),
        ];
    };
    rules.iter().map(|rule| cell(rule, object, now)).collect()
}

/// The columns of a kind.
pub fn columns(row: &Resource) -> Vec<Column> {
    if cells::of(&row.group, &row.kind).is_some() && !row.columns.is_empty() {
        return row.columns.to_vec();
    }
    let column = |name: &'static str, kind: &'static str, format: &'static str, description: &'static str| Column {
        name: name.into(),
        kind: kind.into(),
        format: format.into(),
        description: description.into(),
        priority: 0,
    };
    vec![
        column("Name", "string", "name", "Name must be unique within a namespace."),
        column(
            "Created At",
            "date",
            "",
            "CreationTimestamp is a timestamp representing the server time when this object was created.",
        ),
    ]
}

fn cell(rule: &Cell, object: &Map, now: Timestamp) -> Value {
    match rule {
        Cell::Path(path) => object.at(path).cloned().unwrap_or_else(|| "".into()),
        Cell::Or(path, text) => match object.at(path) {
            Some(Value::Str(s)) if s.is_empty() => (*text).into(),
            Some(value) if !value.is_null() => value.clone(),
            _ => (*text).into(),
        },
        Cell::Number(path, number) => object.at(path).cloned().unwrap_or(Value::Int(*number)),
        Cell::Count(path) => Value::Int(count(object, path)),
        Cell::Ago(path) => ago(object.str_at(path), now).into(),
        Cell::By(make) => make(object, now),
    }
}

fn count(object: &Map, path: &[&str]) -> i64 {
    let len = match object.at(path) {
        Some(Value::List(list)) => list.len(),
        Some(Value::Map(map)) => map.len(),
        _ => 0,
    };
    i64::try_from(len).unwrap_or(i64::MAX)
}

/// How long ago an RFC 3339 time was.
fn ago(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(then) => duration::human(now.as_second() - then.as_second()),
        Err(_) => UNKNOWN.to_owned(),
    }
}

/// A list's strings, joined.
fn joined(object: &Map, path: &[&str], separator: &str) -> String {
    let items = object.at(path).and_then(Value::as_list).unwrap_or(&[]);
    items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(separator)
}

fn or(text: String, default: &str) -> String {
    if text.is_empty() { default.to_owned() } else { text }
}

/// The maps of a list.
fn maps<'o>(object: &'o Map, path: &[&str]) -> impl DoubleEndedIterator<Item = &'o Map> + use<'o> {
    object.at(path).and_then(Value::as_list).unwrap_or(&[]).iter().filter_map(Value::as_map)
}

fn int(object: &Map, path: &[&str]) -> i64 {
    object.at(path).and_then(Value::as_i64).unwrap_or(0)
}

fn flag(object: &Map, path: &[&str]) -> bool {
    object.at(path).and_then(Value::as_bool).unwrap_or(false)
}

/// A scalar as text.
fn shown(value: &Value) -> String {
    match value {
        Value::Str(s) => s.to_string(),
        Value::Int(i) => i.to_string(),
        Value::Bool(b) => b.to_string(),
        Value::Float(f) => f.to_string(),
        _ => String::new(),
    }
}

/// A map as a selector: `a=b,c=d`.
fn selector_of_map(object: &Map, path: &[&str]) -> String {
    let map = object.at(path).and_then(Value::as_map);
    let pairs = map.into_iter().flat_map(Map::iter).map(|(k, v)| format!("{k}={}", shown(v)));
    or(pairs.collect::<Vec<_>>().join(","), NONE)
}

/// A `metav1.LabelSelector` as text (`metav1.FormatLabelSelector`).
fn selector(object: &Map, path: &[&str]) -> String {
    let Some(selector) = object.at(path).and_then(Value::as_map) else { return NONE.to_owned() };
    let mut parts: Vec<String> = Vec::new();
    if let Some(labels) = selector.get("matchLabels").and_then(Value::as_map) {
        parts.extend(labels.iter().map(|(k, v)| format!("{k}={}", shown(v))));
    }
    for expression in maps(selector, &["matchExpressions"]) {
        let key = expression.str_at(&["key"]);
        let values = joined(expression, &["values"], ",");
        parts.push(match expression.str_at(&["operator"]) {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    parts.sort();
    or(parts.join(","), NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(group: &str, version: &str, kind: &str, json: &str) -> Vec<String> {
        let row = schema::resource::of_kind(group, version, kind).unwrap_or_else(|| panic!("{kind} is served"));
        let object = match schema::json::parse(json.as_bytes()) {
            Ok(Value::Map(map)) => map,
            other => panic!("{other:?}"),
        };
        let now = Timestamp::from_second(1_000_000).unwrap_or_else(|e| panic!("{e}"));
        let cells = cells(row, &object, now);
        assert_eq!(cells.len(), columns(row).len(), "{kind} has a cell for each column");
        cells.iter().map(shown).collect()
    }

    #[test]
    fn every_kind_has_a_cell_for_each_column() {
        let mut seen = 0;
        let rows = schema::resource::all().iter().chain(schema::resource::optional());
        for resource in rows.filter(|r| !r.columns.is_empty()) {
            let cells = cells(resource, &Map::new(), Timestamp::UNIX_EPOCH);
            assert_eq!(cells.len(), columns(resource).len(), "{} {}", resource.group, resource.kind);
            seen += usize::from(cells::of(&resource.group, &resource.kind).is_some());
        }
        assert!(seen > 40, "{seen}");
    }

    #[test]
    fn deployments_services_and_nodes() {
        let deployment = row(
            "apps",
            "v1",
            "Deployment",
            r#"{"metadata":{"name":"d","creationTimestamp":"1970-01-12T13:46:35Z"},"spec":{"replicas":3,"selector":{"matchLabels":{"app":"x"}},
                "template":{"spec":{"containers":[{"name":"a","image":"i"},{"name":"b","image":"j"}]}}},"status":{"readyReplicas":2,"updatedReplicas":3}}"#,
        );
        assert_eq!(deployment, ["d", "2/3", "3", "0", "5s", "a,b", "i,j", "app=x"]);
        let service = row(
            "",
            "v1",
            "Service",
            r#"{"metadata":{"name":"s"},"spec":{"type":"NodePort","clusterIP":"10.0.0.1","ports":[{"port":80,"nodePort":30008,"protocol":"TCP"},{"port":53,"protocol":"UDP"}]}}"#,
        );
        assert_eq!(service, ["s", "NodePort", "10.0.0.1", "<none>", "80:30008/TCP,53/UDP", "<unknown>", "<none>"]);
        let node = row(
            "",
            "v1",
            "Node",
            r#"{"metadata":{"name":"n","labels":{"node-role.kubernetes.io/control-plane":""}},"spec":{"unschedulable":true},
                "status":{"conditions":[{"type":"Ready","status":"True"}],"addresses":[{"type":"InternalIP","address":"1.2.3.4"}]}}"#,
        );
        assert_eq!(&node[..3], ["n", "Ready,SchedulingDisabled", "control-plane"]);
        assert_eq!(&node[5..7], ["1.2.3.4", "<none>"]);
    }
}
