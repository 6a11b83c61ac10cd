//! What admits: webhooks and policies. Some names are, or will be, for those that come of files.

use super::{Kind, Rules, Strategy, validation};
use crate::context::Context;
use api::field::{FieldError, Path};
use schema::Map;

/// All kinds of `admissionregistration.k8s.io`.
#[derive(Debug)]
pub struct Admitting {
    pub rules: Rules,
    /// The feature that reads them from files is on: it owns the names that are reserved.
    pub files: bool,
}

/// The feature.
pub const FROM_FILES: &str = "ManifestBasedAdmissionControlConfig";
/// Of names that are reserved.
const SUFFIX: &str = ".static.k8s.io";

fn is_reserved(object: &Map) -> bool {
    object.str_at(&["metadata", "name"]).ends_with(SUFFIX)
}

impl Admitting {
    fn reservation(&self, object: &Map) -> Option<String> {
        (!self.files && is_reserved(object)).then(|| {
            format!(
                "metadata.name: names ending with {SUFFIX:?} will be reserved for static manifest-based configurations when the {FROM_FILES} feature gate is enabled"
            )
        })
    }
}

impl Strategy for Admitting {
    fn validate_create(&self, _: &Context, kind: Kind<'_>, object: &Map) -> Vec<FieldError> {
        let mut errors = validation::create(kind, object);
        if self.files && is_reserved(object) {
            let metadata = Path::root("metadata");
            let why = format!(
                "names ending with {SUFFIX:?} are reserved for static manifest-based configurations and cannot be managed via the API"
            );
            errors.push(FieldError::invalid(&metadata.child("name"), object.str_at(&["metadata", "name"]), why));
        }
        errors
    }

    fn warnings_on_create(&self, kind: Kind<'_>, object: &Map) -> Vec<String> {
        let mut warnings = validation::warnings(kind, "", object, None);
        warnings.extend(self.reservation(object));
        warnings
    }

    fn warnings_on_update(&self, kind: Kind<'_>, subresource: &str, object: &Map, old: &Map) -> Vec<String> {
        let mut warnings = validation::warnings(kind, subresource, object, Some(old));
        if subresource.is_empty() {
            warnings.extend(self.reservation(object));
        }
        warnings
    }

    fn rules(&self) -> Rules {
        self.rules
    }
}
