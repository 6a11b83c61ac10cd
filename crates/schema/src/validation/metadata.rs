//! Labels, annotations and the like, wherever they are.

use super::fields::{Errors, labels, problems};
use crate::view::StrMap;
use crate::view::meta_v1::ObjectMeta;
use api::{FieldError, Path, names};

/// 256 KiB for all keys and values.
const ANNOTATIONS_MAX: usize = 256 * 1024;

/// The metadata of a template.
pub(super) fn template(errors: &mut Errors, path: &Path<'_>, metadata: Option<ObjectMeta<'_>>) {
    let Some(metadata) = metadata else { return };
    labels(errors, &path.child("labels"), metadata.labels());
    annotations(errors, &path.child("annotations"), metadata.annotations());
}

pub(super) fn annotations(errors: &mut Errors, path: &Path<'_>, annotations: StrMap<'_>) {
    let mut total = 0;
    for (key, value) in annotations.iter() {
        problems(errors, path, key, names::qualified_name(&key.to_lowercase()));
        total += key.len() + value.len();
    }
    if total > ANNOTATIONS_MAX {
        errors.push(FieldError::too_long(path, ANNOTATIONS_MAX));
    }
}
