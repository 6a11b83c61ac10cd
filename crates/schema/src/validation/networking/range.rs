//! IP addresses that are given out, and the ranges that they are from. These kinds are new enough to insist on the
//! canonical form of what they hold.

use super::{SPEC, segment};
use crate::tree::Map;
use crate::validation::fields::{Errors, IMMUTABLE, NOTHING, cidr, json, parse_cidr, problems, same, shape};
use crate::view::List;
use crate::view::networking_v1::{IPAddress, ServiceCIDR};
use api::field::Raw;
use api::{FieldError, Path, names};

pub(in crate::validation) fn address(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let path = SPEC.child("parentRef");
    let Some(parent) = IPAddress(object).spec().and_then(|spec| spec.parent_ref()) else {
        errors.push(FieldError::required(&path, ""));
        return errors;
    };
    // Services are of a group without a name.
    if let Some(group) = parent.group().filter(|group| !group.is_empty()) {
        problems(&mut errors, &path.child("group"), group, names::dns1123_subdomain(group));
    }
    segment(&mut errors, &path.child("resource"), parent.resource());
    segment(&mut errors, &path.child("name"), parent.name());
    if let Some(namespace) = parent.namespace().filter(|namespace| !namespace.is_empty()) {
        problems(&mut errors, &path.child("namespace"), namespace, names::path_segment(namespace));
    }
    errors
}

pub(in crate::validation) fn address_update(_: &str, new: &Map, old: &Map) -> Errors {
    let mut errors = Errors::new();
    let at = ["spec", "parentRef"];
    if !same(new.at(&at), old.at(&at)) {
        let shown =
            IPAddress(new).spec().and_then(|spec| spec.parent_ref()).map_or(json(Some(&NOTHING.into())), |parent| {
                let text = |text: Option<&str>| json(Some(&text.unwrap_or("").into()));
                shape(&[
                    ("Group", text(parent.group())),
                    ("Resource", text(parent.resource())),
                    ("Namespace", text(parent.namespace())),
                    ("Name", text(parent.name())),
                ])
            });
        errors.push(FieldError::invalid(&SPEC.child("parentRef"), shown, IMMUTABLE));
    }
    errors
}

fn ranges(object: &Map) -> List<'_, &str> {
    ServiceCIDR(object).spec().map_or(List::new(&[]), |spec| spec.cidrs())
}

/// The spec, which upstream shows for its list.
fn shown(object: &Map) -> Raw {
    shape(&[("CIDRs", json(object.at(&["spec", "cidrs"])))])
}

pub(in crate::validation) fn service_cidr(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let path = SPEC.child("cidrs");
    let list = ranges(object);
    if list.is_empty() {
        errors.push(FieldError::required(&path, "at least one CIDR required"));
        return errors;
    }
    if list.len() > 2 {
        errors.push(FieldError::invalid(&path, shown(object), "may only hold up to 2 values"));
        return errors;
    }
    let families: Vec<Option<bool>> = list.iter().map(|text| parse_cidr(text).map(|(ip, _)| ip.is_ipv4())).collect();
    if !matches!(families[..], [_] | [Some(true), Some(false)] | [Some(false), Some(true)]) {
        let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.push(FieldError::invalid(&path, shown(object), why));
        return errors;
    }
    for (i, text) in list.iter().enumerate() {
        canonical(&mut errors, &path.index(i), text);
    }
    errors
}

fn canonical(errors: &mut Errors, path: &Path<'_>, text: &str) {
    let before = errors.len();
    let Some((ip, bits)) = cidr(errors, path, text) else { return };
    let form = format!("{ip}/{bits}");
    if errors.len() == before && form != text {
        errors.push(FieldError::invalid(path, text, format!("must be in canonical form ({form:?})")));
    }
}

/// What is given out stays; a second family may be added.
pub(in crate::validation) fn service_cidr_update(subresource: &str, new: &Map, old: &Map) -> Errors {
    let mut errors = Errors::new();
    if subresource == "status" {
        return errors;
    }
    let path = SPEC.child("cidrs");
    let (now, was) = (ranges(new), ranges(old));
    match (was.len(), now.len()) {
        (had, has) if had == has || had == 1 && has == 2 => {
            for (i, (now, _)) in now.iter().zip(was.iter()).enumerate().filter(|(_, (now, was))| now != was) {
                errors.push(FieldError::invalid(&path.index(i), now, IMMUTABLE));
            }
            if had != has {
                errors.extend(service_cidr(new));
            }
        }
        _ => errors.push(FieldError::invalid(&path, json(new.at(&["spec", "cidrs"])), IMMUTABLE)),
    }
    errors
}
