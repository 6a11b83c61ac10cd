//! Label and field selectors of a request, made a filter of what is stored.

use super::Served;
use crate::cache::{Cacher, Filter, Scope};
use api::Status;
use api::field::go_quote;
use api::selector::{FieldSelector, LabelSelector, Operator};

/// Kinds whose namespace upstream does not select by: they say themselves which fields they can be selected by.
const WITHOUT_NAMESPACE: [(&str, &str); 6] = [
    ("", "Namespace"),
    ("", "Node"),
    ("certificates.k8s.io", "CertificateSigningRequest"),
    ("certificates.k8s.io", "ClusterTrustBundle"),
    ("certificates.k8s.io", "PodCertificateRequest"),
    ("resource.k8s.io", "ResourceSlice"),
];

/// Reads both selectors for the objects of a resource, in a namespace (empty: all).
///
/// # Errors
/// 400 for a selector that can't be read, or a field that the kind can't be selected by.
pub fn filter(
    served: &Served,
    cacher: &Cacher,
    namespace: &str,
    name: &str,
    label_selector: &str,
    field_selector: &str,
) -> Result<Filter, Status> {
    let labels = LabelSelector::parse(label_selector).map_err(|error| Status::bad_request(error.to_string()))?;
    let fields = FieldSelector::parse(field_selector).map_err(|error| Status::bad_request(error.to_string()))?;
    let mut filter = Filter { labels, ..Filter::everything() };
    let mut indexed = None;
    let mut exact_name = (!name.is_empty()).then(|| name.to_owned());
    let mut exact_namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
    let is = |(group, kind): &(&str, &str)| served.resource.group == *group && served.resource.kind == *kind;
    let no_namespace = WITHOUT_NAMESPACE.iter().any(is);
    for requirement in fields.requirements {
        match requirement.field.as_str() {
            "metadata.name" if requirement.equal && exact_name.is_none() => exact_name = Some(requirement.value),
            "metadata.name" => filter.names.push((requirement.equal, requirement.value)),
            "metadata.namespace" if no_namespace => return Err(unsupported(served, "metadata.namespace")),
            "metadata.namespace" if requirement.equal && exact_namespace.is_none() && served.resource.namespaced => {
                exact_namespace = Some(requirement.value);
            }
            "metadata.namespace" => filter.namespaces.push((requirement.equal, requirement.value)),
            // Pods may be asked for it, and none has it: it is a list.
            "status.podIPs" if served.resource.kind == "Pod" && served.resource.group.is_empty() => {
                if requirement.equal != requirement.value.is_empty() {
                    filter.names.push((true, String::new()));
                }
            }
            label => {
                let number = stored_label(served, label).and_then(|label| cacher.paths().position(label));
                let number = number.ok_or_else(|| unsupported(served, label))?;
                if requirement.equal && indexed.is_none() && cacher.paths().fields()[number].indexed {
                    indexed = Some((number, requirement.value));
                } else {
                    filter.fields.push((number, requirement.equal, requirement.value));
                }
            }
        }
    }
    let namespaced = served.resource.namespaced;
    filter.scope = match (exact_name, &exact_namespace) {
        (Some(name), Some(namespace)) if namespaced => {
            key_scope(&mut filter, &mut indexed, format!("{namespace}/{name}"))
        }
        (Some(name), _) if !namespaced => key_scope(&mut filter, &mut indexed, name),
        (name, namespace) => {
            if let Some(name) = name {
                filter.names.push((true, name));
            }
            match (indexed, namespace) {
                (Some((number, value)), namespace) => {
                    filter.namespace.clone_from(namespace);
                    Scope::Field(number, value)
                }
                (None, namespace) => match rarest_label(cacher, &filter.labels) {
                    Some((key, value)) => Scope::Label { key, value, namespace: namespace.clone() },
                    None => namespace.clone().map_or(Scope::All, Scope::Namespace),
                },
            }
        }
    };
    Ok(filter)
}

/// Of the labels that must have one value, the one that the fewest objects have.
fn rarest_label(cacher: &Cacher, labels: &LabelSelector) -> Option<(String, String)> {
    let exact = labels.requirements().iter().filter(|r| r.operator == Operator::In && r.values.len() == 1);
    let state = cacher.now().0;
    let rarest = exact.min_by_key(|r| state.len_of_label(&r.key, &r.values[0]))?;
    Some((rarest.key.clone(), rarest.values[0].clone()))
}

fn key_scope(filter: &mut Filter, indexed: &mut Option<(usize, String)>, key: String) -> Scope {
    if let Some((number, value)) = indexed.take() {
        filter.fields.push((number, true, value));
    }
    Scope::Key(key)
}

/// How the stored version spells a field.
fn stored_label<'a>(served: &Served, label: &'a str) -> Option<&'a str> {
    if label == "spec.host" && served.resource.kind == "Pod" {
        return Some("spec.nodeName");
    }
    let Some(labels) = served.conversion.and_then(|conversion| conversion.labels) else { return Some(label) };
    labels.iter().find(|(theirs, _)| *theirs == label).map(|(_, ours)| *ours)
}

/// Reads the field selector of a resource that is not stored: it has names, and nothing else.
///
/// # Errors
/// 400 for one that can't be read, or another field.
pub fn of_names(served: &Served, field_selector: &str) -> Result<FieldSelector, Status> {
    let fields = FieldSelector::parse(field_selector).map_err(|error| Status::bad_request(error.to_string()))?;
    let is_name = |field: &str| matches!(field, "metadata.name" | "metadata.namespace");
    match fields.requirements.iter().find(|requirement| !is_name(&requirement.field)) {
        Some(other) => Err(unsupported(served, &other.field)),
        None => Ok(fields),
    }
}

/// 400 for a field that a kind is not selected by, in the words of whom upstream asks.
fn unsupported(served: &Served, label: &str) -> Status {
    let row = &served.resource;
    let no_own = served.cacher.as_ref().is_none_or(|cacher| cacher.paths().fields().is_empty());
    Status::bad_request(match (row.group.as_ref(), row.kind.as_ref()) {
        ("batch", "Job") => format!("field label {} not supported for Job", go_quote(label)),
        ("resource.k8s.io", "ResourceSlice") => {
            format!("field label not supported for {}, Kind={}: {label}", served.api_version(), row.kind)
        }
        _ if no_own => {
            let label = go_quote(label);
            format!("{label} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
        }
        _ => format!("field label not supported: {label}"),
    })
}
