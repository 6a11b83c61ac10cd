//! Objects and their differences as people read them.

use super::cluster::text;
use super::moment::Moment;
use crate::kubeconfig::to_yaml;
use anyhow::Result;
use serde_json::Value;
use similar::TextDiff;

/// Fields of the metadata that change with every write.
const ALWAYS: [&str; 3] = ["managedFields", "resourceVersion", "generation"];
/// Changed fields that a line of the history names.
const NAMED: usize = 3;

/// An object without what changes with every write; without its status too, unless that is wanted.
pub fn bare(mut object: Value, status: bool) -> Value {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.retain(|key, _| !ALWAYS.contains(&key.as_str()));
    }
    if let (Some(object), false) = (object.as_object_mut(), status) {
        object.remove("status");
    }
    object
}

/// The difference between an object at two moments, as a unified diff of YAML.
pub fn difference(title: &str, from: (&Moment, Option<&Value>), to: (&Moment, Option<&Value>)) -> Result<String> {
    let yaml = |object: Option<&Value>| object.map_or(Ok(String::new()), to_yaml);
    let head = |(moment, object): (&Moment, Option<&Value>)| match object {
        Some(_) => format!("{title}\t{moment}"),
        None => format!("/dev/null\t{moment}"),
    };
    let (before, after) = (yaml(from.1)?, yaml(to.1)?);
    let diff = TextDiff::from_lines(&before, &after);
    Ok(diff.unified_diff().header(&head(from), &head(to)).to_string())
}

/// A line for each version, newest first.
pub fn versions(versions: &[Value]) -> String {
    let mut rows = vec![["VERSION", "TIME", "CHANGE", "MANAGER", "FIELDS"].map(str::to_owned)];
    for (at, version) in versions.iter().enumerate() {
        let object = version.get("object");
        let before = versions.get(at + 1).and_then(|older| older.get("object"));
        let fields = match (before, object) {
            (Some(before), Some(object)) if version["type"] == "MODIFIED" => summary(before, object),
            _ => text(&version["message"]).to_owned(),
        };
        let time = match text(&version["time"]) {
            "" => "<unknown>",
            time => time,
        };
        let manager = text(&version["manager"]);
        rows.push(
            [text(&version["resourceVersion"]), time, text(&version["type"]), manager, &fields].map(str::to_owned),
        );
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..4).map(width).collect();
    let line = |row: &[String; 5]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}   ")).collect::<String>();
        format!("{}\n", format!("{cells}{}", row[4]).trim_end())
    };
    rows.iter().map(line).collect()
}

/// The fields in which two versions differ.
fn summary(before: &Value, after: &Value) -> String {
    let mut paths = Vec::new();
    changed(&bare(before.clone(), true), &bare(after.clone(), true), String::new(), 0, &mut paths);
    let more = paths.len().saturating_sub(NAMED);
    paths.truncate(NAMED);
    match more {
        0 => paths.join(", "),
        more => format!("{}, and {more} more", paths.join(", ")),
    }
}

/// Two levels down, as `spec.replicas` and `status.conditions`.
fn changed(before: &Value, after: &Value, path: String, depth: usize, paths: &mut Vec<String>) {
    if before == after {
        return;
    }
    let (Some(old), Some(new)) = (before.as_object(), after.as_object()) else { return paths.push(path) };
    if depth == 2 {
        return paths.push(path);
    }
    let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
        changed(&of(old), &of(new), below, depth + 1, paths);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn versions_say_what_changed() {
        let object = |replicas: i64| {
            json!({"metadata": {"name": "d", "resourceVersion": replicas.to_string()},
                   "spec": {"replicas": replicas, "template": {"spec": {"x": replicas}}}})
        };
        let told = versions(&[
            json!({"type": "DELETED", "resourceVersion": "30", "time": "2026-01-31T08:02:00Z"}),
            json!({"type": "MODIFIED", "resourceVersion": "20", "time": "2026-01-31T08:01:00Z", "manager": "kubectl-scale", "object": object(2)}),
            json!({"type": "ADDED", "resourceVersion": "10", "manager": "kubectl", "object": object(1)}),
        ]);
        let wanted = "\
VERSION   TIME                   CHANGE     MANAGER         FIELDS
30        2026-01-31T08:02:00Z   DELETED
20        2026-01-31T08:01:00Z   MODIFIED   kubectl-scale   spec.replicas, spec.template
10        <unknown>              ADDED      kubectl
";
        assert_eq!(told, wanted);
    }

    #[test]
    fn a_difference_is_a_unified_diff() -> Result<()> {
        let object = |value: &str| {
            bare(
                json!({"kind": "ConfigMap", "data": {"a": value}, "metadata": {"name": "c", "resourceVersion": value}, "status": value}),
                false,
            )
        };
        let (then, now) = (Moment::Revision(7), Moment::Now);
        let told = difference("configmap/c", (&then, Some(&object("1"))), (&now, Some(&object("2"))))?;
        assert!(told.starts_with("--- configmap/c\t7\n+++ configmap/c\tnow\n@@"), "{told}");
        let changed: Vec<&str> = told.lines().skip(3).filter(|line| !line.starts_with(' ')).collect();
        assert_eq!(changed.len(), 2, "{told}");
        assert!(changed[0].starts_with("-  a: ") && changed[1].starts_with("+  a: "), "{told}");
        let gone = difference("configmap/c", (&then, Some(&object("1"))), (&now, None))?;
        assert!(gone.contains("+++ /dev/null\tnow"), "{gone}");
        Ok(())
    }
}
