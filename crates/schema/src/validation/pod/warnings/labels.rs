//! Labels of nodes by their former names.

use crate::validation::warnings::Warnings;
use crate::view::core_v1::{NodeSelector, NodeSelectorTerm};
use api::{Path, names};

const OLD_LABELS: [(&str, &str); 5] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
];

/// Labels of old, and the names that they have got for good.
const FINAL_LABELS: [(&str, &str); 5] = [
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
];

/// The final name of a label of old.
pub(in crate::validation) fn final_label(key: &str) -> Option<&'static str> {
    FINAL_LABELS.iter().find(|(old, _)| *old == key).map(|(_, name)| *name)
}

/// Labels of old in the terms of a node selector.
pub(in crate::validation) fn node_selector_warnings(out: &mut Warnings, path: &Path<'_>, selector: NodeSelector<'_>) {
    let path = path.child("nodeSelectorTerms");
    for (i, term) in selector.node_selector_terms().iter().enumerate() {
        node_term(out, &path.index(i), term, false);
    }
}

/// The same in one term; `values`: also values that no label has, where they are no error.
pub(super) fn node_term(out: &mut Warnings, path: &Path<'_>, term: NodeSelectorTerm<'_>, values: bool) {
    let path = path.child("matchExpressions");
    for (i, expression) in term.match_expressions().iter().enumerate() {
        let path = path.index(i);
        let key = expression.key().unwrap_or("");
        if let Some(why) = old_label(key) {
            out.push(format!("{}: {key} is {why}", path.child("key")));
        }
        for (i, value) in expression.values().iter().enumerate().filter(|_| values) {
            for why in names::label_value(value) {
                out.push(format!("{}: {value} is invalid, {why}", path.child("values").index(i)));
            }
        }
    }
}

/// Why a label of nodes is a former one.
pub(in crate::validation) fn old_label(key: &str) -> Option<&'static str> {
    OLD_LABELS.iter().find(|(name, _)| *name == key).map(|(_, why)| *why)
}
