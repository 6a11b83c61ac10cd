//! The vocabulary of the Kubernetes API, without IO: group/version/kind, names, quantities, selectors, Status errors, resource versions.
//!
//! Every other crate speaks in these words; this one imports none of them.

pub mod duration;
pub mod events;
pub mod features;
pub mod field;
pub mod gvk;
pub mod measure;
pub mod names;
pub mod number;
pub mod panic;
pub mod pod_template;
pub mod quantity;
pub mod quota;
pub mod resource_version;
pub mod selector;
pub mod status;

pub use field::{FieldError, FieldErrorKind, Path};
pub use gvk::{GroupKind, GroupResource, GroupVersion, GroupVersionKind, GroupVersionResource};
pub use quantity::Quantity;
pub use resource_version::ResourceVersion;
pub use selector::{FieldSelector, LabelSelector};
pub use status::{Cause, Details, Reason, Status};
