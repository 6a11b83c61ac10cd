//! Jobs and CronJobs.

mod cron_job;
mod indexes;
mod job;
mod policy;
mod schedule;
mod status;
mod update;

pub(super) use cron_job::{cron_job, cron_job_update, cron_job_warnings};
pub(super) use job::{job, warnings};
pub(super) use update::job_update;

use api::Path;

const SPEC: Path<'static> = Path::root("spec");
