//! Jobs: the selector of their pods is made of the job's UID, unless the client insists on its own.

use super::{Rules, Strategy};
use crate::context::Context;
use schema::{Map, Resource, Value};

/// Jobs get labels and selector when they are made.
#[derive(Debug)]
pub struct Jobs(pub Rules);

const UID: &str = "batch.kubernetes.io/controller-uid";
const NAME: &str = "batch.kubernetes.io/job-name";
const OLD_UID: &str = "controller-uid";
const OLD_NAME: &str = "job-name";

impl Strategy for Jobs {
    fn prepare_for_create(&self, _: &Context, _: &Resource, object: &mut Map) {
        object.insert("status", Map::new());
        if object.at(&["spec", "manualSelector"]).and_then(Value::as_bool) != Some(true) {
            generate_selector(object);
        }
    }

    fn rules(&self) -> Rules {
        self.0
    }
}

/// Labels the template, and selects by the UID. A template that carries another job's labels keeps them, so that
/// validation refuses it rather than that the job adopts pods that are not its own.
fn generate_selector(job: &mut Map) {
    let uid = job.str_at(&["metadata", "uid"]).to_owned();
    let name = job.str_at(&["metadata", "name"]).to_owned();
    for (key, value) in [(NAME, &name), (OLD_NAME, &name), (UID, &uid), (OLD_UID, &uid)] {
        let path = ["spec", "template", "metadata", "labels", key];
        if job.at(&path).is_none() {
            job.set_at(&path, value.as_str());
        }
    }
    let path = ["spec", "selector", "matchLabels", UID];
    if job.at(&path).is_none() {
        job.set_at(&path, uid.as_str());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_picks_the_jobs_own_pods() {
        let mut job = Map::new();
        job.set_at(&["metadata", "name"], "pi");
        job.set_at(&["metadata", "uid"], "1-2");
        generate_selector(&mut job);
        assert_eq!(job.str_at(&["spec", "selector", "matchLabels", UID]), "1-2");
        for (key, value) in [(UID, "1-2"), (OLD_UID, "1-2"), (NAME, "pi"), (OLD_NAME, "pi")] {
            assert_eq!(job.str_at(&["spec", "template", "metadata", "labels", key]), value);
        }
        let once = job.clone();
        generate_selector(&mut job);
        assert_eq!(job, once);
    }
}
