//! AlwaysPullImages, AlwaysAdmit, AlwaysDeny.

use super::{Admission, Attributes, Operation, Sides, walk};
use api::{FieldError, Path, Status};
use async_trait::async_trait;
use schema::{Map, Value};

/// Whether images are pulled, with the puller's own rights, each time a container starts.
pub struct AlwaysPullImages;

const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
const ALWAYS: &str = "Always";

/// Whether an update brings no image that the pod did not have.
fn brings_no_image(pod: &Map, old: &Map) -> bool {
    let images = |of: &Map| -> Vec<String> {
        let containers = LISTS.into_iter().flat_map(|list| walk::items(of, &["spec", list]));
        containers.map(|c| c.str_at(&["image"]).to_owned()).collect()
    };
    let known = images(old);
    images(pod).iter().all(|image| known.contains(image))
}

fn concerns(a: &Attributes<'_>) -> bool {
    a.is("", "pods") && !a.old.is_some_and(|old| brings_no_image(a.object, old))
}

#[async_trait]
impl Admission for AlwaysPullImages {
    fn name(&self) -> &'static str {
        "AlwaysPullImages"
    }

    fn sides(&self) -> Sides {
        Sides::Both
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        if !concerns(a) {
            return Ok(());
        }
        for list in LISTS {
            for container in walk::items_mut(a.object, &["spec", list]) {
                container.insert("imagePullPolicy", ALWAYS);
            }
        }
        for volume in walk::items_mut(a.object, &["spec", "volumes"]) {
            if let Some(image) = volume.get_mut("image").and_then(Value::as_map_mut)
                && !image.str_at(&["reference"]).is_empty()
            {
                image.insert("pullPolicy", ALWAYS);
            }
        }
        Ok(())
    }

    async fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        if !concerns(a) {
            return Ok(());
        }
        let spec = Path::root("spec");
        for list in LISTS {
            for (i, container) in walk::items(a.object, &["spec", list]).enumerate() {
                let policy = container.str_at(&["imagePullPolicy"]);
                if policy != ALWAYS {
                    let path = spec.child(list);
                    let path = path.index(i);
                    let error = FieldError::not_supported(&path.child("imagePullPolicy"), policy, &[ALWAYS]);
                    return Err(a.forbidden(error));
                }
            }
        }
        Ok(())
    }
}

/// Lets everything through; it is for completeness.
pub struct AlwaysAdmit;

#[async_trait]
impl Admission for AlwaysAdmit {
    fn name(&self) -> &'static str {
        "AlwaysAdmit"
    }
    fn sides(&self) -> Sides {
        Sides::Both
    }

    fn handles(&self, _: Operation) -> bool {
        false
    }
}

/// Lets nothing through; it is for tests of clients.
pub struct AlwaysDeny;

#[async_trait]
impl Admission for AlwaysDeny {
    fn name(&self) -> &'static str {
        "AlwaysDeny"
    }
    fn sides(&self) -> Sides {
        Sides::Validates
    }

    fn handles(&self, _: Operation) -> bool {
        true
    }
    async fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        Err(a.forbidden("admission control is denying all modifications"))
    }
}
