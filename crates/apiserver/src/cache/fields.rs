//! The fields that a kind's objects can be selected by.

use schema::Resource;
use std::borrow::Cow;

/// One selectable field beside `metadata.name` and `metadata.namespace`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectableField {
    /// As selectors spell it: `spec.nodeName`.
    pub label: Cow<'static, str>,
    /// Where it is in what is stored; a second path counts where the first is absent or empty.
    pub path: Cow<'static, str>,
    pub fallback: Option<Cow<'static, str>>,
    /// What an absent one equals.
    pub absent: &'static str,
    /// Lists and watches that ask for one value of it cost only what they return.
    pub indexed: bool,
}

/// The selectable fields of a stored kind, compiled for scanning.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    fields: Vec<SelectableField>,
    roots: Vec<Node>,
    slots: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    name: String,
    /// Mostly one: what is one field's fallback may be another field itself.
    pub(super) slots: Vec<usize>,
    pub(super) children: Vec<Node>,
}

impl Node {
    pub(super) fn child(&self, name: &[u8]) -> Option<&Node> {
        self.children.iter().find(|child| child.name.as_bytes() == name)
    }

    /// The slots of all fields below.
    pub(super) fn below(&self, each: &mut dyn FnMut(usize)) {
        for child in &self.children {
            child.slots.iter().copied().for_each(&mut *each);
            child.below(each);
        }
    }
}

impl Paths {
    pub fn new(fields: Vec<SelectableField>) -> Self {
        let mut paths = Paths { slots: fields.len() * 2, roots: Vec::new(), fields: Vec::new() };
        for (i, field) in fields.iter().enumerate() {
            insert(&mut paths.roots, &field.path, i * 2);
            if let Some(fallback) = &field.fallback {
                insert(&mut paths.roots, fallback, i * 2 + 1);
            }
        }
        paths.fields = fields;
        paths
    }

    /// Those of a built-in kind, by the group and plural of its storage.
    pub fn of(row: &Resource) -> Self {
        let kind = row.storage.as_ref().map_or(row.kind.as_ref(), |s| s.kind.as_ref());
        let group = row.storage.as_ref().map_or(row.group.as_ref(), |s| s.group.as_ref());
        let field = |&(_, _, label, path, fallback, absent, indexed): &Row| SelectableField {
            label: label.into(),
            path: path.into(),
            fallback: (!fallback.is_empty()).then(|| fallback.into()),
            absent,
            indexed,
        };
        Paths::new(TABLE.iter().filter(|row| row.0 == group && row.1 == kind).map(field).collect())
    }

    pub fn fields(&self) -> &[SelectableField] {
        &self.fields
    }
    /// The number of a field.
    pub fn position(&self, label: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.label == label)
    }
    /// Two for each field: its path and its fallback.
    pub(super) fn slots(&self) -> usize {
        self.slots
    }
    pub(super) fn child(&self, name: &[u8]) -> Option<&Node> {
        self.roots.iter().find(|root| root.name.as_bytes() == name)
    }
}

fn insert(nodes: &mut Vec<Node>, path: &str, slot: usize) {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let at = nodes.iter().position(|node| node.name == name).unwrap_or_else(|| {
        nodes.push(Node { name: name.to_owned(), slots: Vec::new(), children: Vec::new() });
        nodes.len() - 1
    });
    match rest {
        Some(rest) => insert(&mut nodes[at].children, rest, slot),
        None => nodes[at].slots.push(slot),
    }
}

/// Group, kind, label, path, fallback, absent, indexed.
type Row = (&'static str, &'static str, &'static str, &'static str, &'static str, &'static str, bool);

const TABLE: &[Row] = &[
    ("", "Pod", "spec.nodeName", "spec.nodeName", "", "", true),
    ("", "Pod", "spec.restartPolicy", "spec.restartPolicy", "", "", false),
    ("", "Pod", "spec.schedulerName", "spec.schedulerName", "", "", false),
    ("", "Pod", "spec.serviceAccountName", "spec.serviceAccountName", "", "", false),
    ("", "Pod", "spec.hostNetwork", "spec.hostNetwork", "", "false", false),
    ("", "Pod", "status.phase", "status.phase", "", "", false),
    ("", "Pod", "status.podIP", "status.podIP", "", "", false),
    ("", "Pod", "status.nominatedNodeName", "status.nominatedNodeName", "", "", false),
    ("", "Node", "spec.unschedulable", "spec.unschedulable", "", "false", false),
    ("", "Namespace", "status.phase", "status.phase", "", "", false),
    ("", "ReplicationController", "status.replicas", "status.replicas", "", "0", false),
    ("", "Secret", "type", "type", "", "", false),
    ("", "Service", "spec.clusterIP", "spec.clusterIP", "", "", false),
    ("", "Service", "spec.type", "spec.type", "", "", false),
    ("", "Event", "involvedObject.kind", "involvedObject.kind", "", "", false),
    ("", "Event", "involvedObject.namespace", "involvedObject.namespace", "", "", false),
    ("", "Event", "involvedObject.name", "involvedObject.name", "", "", true),
    ("", "Event", "involvedObject.uid", "involvedObject.uid", "", "", true),
    ("", "Event", "involvedObject.apiVersion", "involvedObject.apiVersion", "", "", false),
    ("", "Event", "involvedObject.resourceVersion", "involvedObject.resourceVersion", "", "", false),
    ("", "Event", "involvedObject.fieldPath", "involvedObject.fieldPath", "", "", false),
    ("", "Event", "reason", "reason", "", "", false),
    ("", "Event", "reportingComponent", "reportingComponent", "", "", false),
    ("", "Event", "source", "source.component", "reportingComponent", "", false),
    ("", "Event", "type", "type", "", "", false),
    ("batch", "Job", "status.successful", "status.succeeded", "", "0", false),
    ("certificates.k8s.io", "CertificateSigningRequest", "spec.signerName", "spec.signerName", "", "", false),
    ("certificates.k8s.io", "ClusterTrustBundle", "spec.signerName", "spec.signerName", "", "", false),
    ("certificates.k8s.io", "PodCertificateRequest", "spec.signerName", "spec.signerName", "", "", false),
    ("certificates.k8s.io", "PodCertificateRequest", "spec.podName", "spec.podName", "", "", false),
    ("certificates.k8s.io", "PodCertificateRequest", "spec.nodeName", "spec.nodeName", "", "", true),
    ("resource.k8s.io", "ResourceSlice", "spec.nodeName", "spec.nodeName", "", "", true),
    ("resource.k8s.io", "ResourceSlice", "spec.driver", "spec.driver", "", "", false),
];
