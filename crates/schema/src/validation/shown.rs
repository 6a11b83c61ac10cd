//! How messages show values of upstream's internal types: as Go's json writes them, with every field by its Go name.

use super::fields::{json, shape, shown_list};
use crate::tree::{Map, Value};
use api::field::Raw;

/// A field: Go's name, the one that it has here, and how it is shown.
pub(super) type Field = (&'static str, &'static str, As);

/// How a field is shown.
pub(super) enum As {
    /// A text, which is empty when absent.
    Text,
    /// Anything else that has no fields, or tags for them: null when absent.
    Plain,
    /// A pointer to a struct.
    Struct(&'static [Field]),
    /// A list of structs.
    List(&'static [Field]),
}
use As::{List, Plain, Struct, Text};

/// A struct with these fields.
pub(super) fn shown(map: &Map, fields: &[Field]) -> Raw {
    let fields: Vec<(&str, Raw)> = fields.iter().map(|(go, name, how)| (*go, field(map.get(name), how))).collect();
    shape(&fields)
}

fn field(value: Option<&Value>, how: &As) -> Raw {
    match (how, value) {
        (Text, None) => json(Some(&"".into())),
        (Struct(fields), Some(Value::Map(map))) => shown(map, fields),
        (List(fields), Some(Value::List(list))) => {
            shown_list(list.iter().filter_map(Value::as_map).map(|map| shown(map, fields)).collect())
        }
        (_, value) => json(value),
    }
}

pub(super) const NODE_ADDRESS: &[Field] = &[("Type", "type", Text), ("Address", "address", Text)];

pub(super) const TAINT: &[Field] =
    &[("Key", "key", Text), ("Value", "value", Text), ("Effect", "effect", Text), ("TimeAdded", "timeAdded", Plain)];

pub(super) const TOLERATION: &[Field] = &[
    ("Key", "key", Text),
    ("Operator", "operator", Text),
    ("Value", "value", Text),
    ("Effect", "effect", Text),
    ("TolerationSeconds", "tolerationSeconds", Plain),
];

pub(super) const POD_RESOURCE_CLAIM: &[Field] = &[
    ("Name", "name", Text),
    ("ResourceClaimName", "resourceClaimName", Plain),
    ("ResourceClaimTemplateName", "resourceClaimTemplateName", Plain),
];

pub(super) const TRUST_BUNDLE_PROJECTION: &[Field] = &[
    ("Name", "name", Plain),
    ("SignerName", "signerName", Plain),
    ("LabelSelector", "labelSelector", Plain),
    ("Optional", "optional", Plain),
    ("Path", "path", Text),
];

/// Of seccomp, and of AppArmor.
pub(super) const PROFILE: &[Field] = &[("Type", "type", Text), ("LocalhostProfile", "localhostProfile", Plain)];

pub(super) const SECURITY_CONTEXT: &[Field] = &[
    ("Capabilities", "capabilities", Struct(&[("Add", "add", Plain), ("Drop", "drop", Plain)])),
    ("Privileged", "privileged", Plain),
    (
        "SELinuxOptions",
        "seLinuxOptions",
        Struct(&[("User", "user", Text), ("Role", "role", Text), ("Type", "type", Text), ("Level", "level", Text)]),
    ),
    (
        "WindowsOptions",
        "windowsOptions",
        Struct(&[
            ("GMSACredentialSpecName", "gmsaCredentialSpecName", Plain),
            ("GMSACredentialSpec", "gmsaCredentialSpec", Plain),
            ("RunAsUserName", "runAsUserName", Plain),
            ("HostProcess", "hostProcess", Plain),
        ]),
    ),
    ("RunAsUser", "runAsUser", Plain),
    ("RunAsGroup", "runAsGroup", Plain),
    ("RunAsNonRoot", "runAsNonRoot", Plain),
    ("ReadOnlyRootFilesystem", "readOnlyRootFilesystem", Plain),
    ("AllowPrivilegeEscalation", "allowPrivilegeEscalation", Plain),
    ("ProcMount", "procMount", Plain),
    ("SeccompProfile", "seccompProfile", Struct(PROFILE)),
    ("AppArmorProfile", "appArmorProfile", Struct(PROFILE)),
];

pub(super) const SUCCESS_POLICY: &[Field] = &[(
    "Rules",
    "rules",
    List(&[("SucceededIndexes", "succeededIndexes", Plain), ("SucceededCount", "succeededCount", Plain)]),
)];
