//! Definitions in the community's groups carry who approved of them.

use super::super::fields::Errors;
use super::{METADATA, spec_of};
use crate::tree::Map;
use api::FieldError;
use api::field::go_quote;

const APPROVED: &str = "api-approved.kubernetes.io";

/// Whether somebody vouches for a definition in one of the community's groups.
#[derive(PartialEq)]
enum Approval {
    Missing,
    Bypassed,
    Invalid,
    Approved,
}

fn approval_of(object: &Map) -> (Approval, &str) {
    let text = object.str_at(&["metadata", "annotations", APPROVED]);
    let url = text.split_once("://").is_some_and(|(scheme, rest)| {
        let host = rest.split(['/', '?', '#']).next().unwrap_or("");
        !scheme.is_empty()
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric())
            && !host.is_empty()
            && !text.contains(' ')
    });
    let state = match text {
        "" => Approval::Missing,
        _ if text.starts_with("unapproved") => Approval::Bypassed,
        _ if url => Approval::Approved,
        _ => Approval::Invalid,
    };
    (state, text)
}

pub(super) fn approval(errors: &mut Errors, object: &Map, old: Option<&Map>) {
    let group = spec_of(object).group().unwrap_or("");
    let protected = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|domain| group.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')));
    let (state, text) = approval_of(object);
    if !protected || old.is_some_and(|old| approval_of(old).0 == state) {
        return;
    }
    const SEE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
    let path = METADATA.child("annotations");
    match state {
        Approval::Missing => {
            let why = format!("protected groups must have approval annotation {}, {SEE}", go_quote(APPROVED));
            errors.push(FieldError::required(&path.key(APPROVED), why));
        }
        Approval::Invalid => {
            let why = format!(
                "protected groups must have approval annotation {} with either a URL or a reason starting with \"unapproved\", {SEE}",
                go_quote(APPROVED)
            );
            errors.push(FieldError::invalid(&path.key(APPROVED), text, why));
        }
        Approval::Bypassed | Approval::Approved => {}
    }
}
