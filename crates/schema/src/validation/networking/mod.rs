//! Ingresses and their classes, network policies, IP addresses and the ranges that Services have theirs from.

mod class;
mod ingress;
mod policy;
mod range;

pub(super) use class::{class, class_update};
pub(super) use ingress::{ingress, ingress_update, ingress_warnings};
pub(super) use policy::{policy, policy_update, policy_warnings};
pub(super) use range::{address, address_update, service_cidr, service_cidr_update};

use super::fields::{Errors, problems, required};
use api::{Path, names};

const SPEC: Path<'static> = Path::root("spec");

/// A kind or a name that becomes a part of a path.
fn segment(errors: &mut Errors, path: &Path<'_>, value: Option<&str>) {
    if required(errors, path, value) {
        let value = value.unwrap_or("");
        problems(errors, path, value, names::path_segment(value));
    }
}
