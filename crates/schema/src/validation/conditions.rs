//! Conditions of the shape that all newer kinds share (`metav1.Condition`).

use super::fields::{Errors, problems, supported_of};
use crate::view::List;
use crate::view::meta_v1::Condition;
use api::{FieldError, Path, names};
use std::collections::BTreeSet;

const MAX_REASON: usize = 1024;
const MAX_MESSAGE: usize = 32 * 1024;
const BAD_REASON: &str = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";

pub(super) fn conditions(errors: &mut Errors, path: &Path<'_>, list: List<'_, Condition<'_>>) {
    let mut seen = BTreeSet::new();
    for (i, condition) in list.iter().enumerate() {
        let path = path.index(i);
        let kind = condition.type_().unwrap_or("");
        if !seen.insert(kind) {
            errors.push(FieldError::duplicate(&path.child("type"), kind));
        }
        problems(errors, &path.child("type"), kind, names::qualified_name(kind));
        let status = condition.status().unwrap_or("");
        supported_of(errors, &path.child("status"), Some(status), &["False", "True", "Unknown"]);
        if let Some(generation) = condition.observed_generation().filter(|generation| *generation < 0) {
            let why = "must be greater than or equal to zero";
            errors.push(FieldError::invalid(&path.child("observedGeneration"), generation, why));
        }
        if condition.last_transition_time().unwrap_or("").is_empty() {
            errors.push(FieldError::required(&path.child("lastTransitionTime"), "must be set"));
        }
        let reason = condition.reason().unwrap_or("");
        if reason.is_empty() {
            errors.push(FieldError::required(&path.child("reason"), "must be set"));
        } else {
            if !is_reason(reason) {
                errors.push(FieldError::invalid(&path.child("reason"), reason, BAD_REASON));
            }
            if reason.len() > MAX_REASON {
                errors.push(FieldError::too_long(&path.child("reason"), MAX_REASON));
            }
        }
        if condition.message().unwrap_or("").len() > MAX_MESSAGE {
            errors.push(FieldError::too_long(&path.child("message"), MAX_MESSAGE));
        }
    }
}

fn is_reason(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b',' | b':'))
        && bytes.last().is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_')
}
