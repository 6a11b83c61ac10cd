//! What a CronJob is to do now: a Job to start, Jobs to remove, and when to look again.

use super::schedule::Schedule;
use crate::events::Kind;
use crate::objects::{CronJob, Job};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Above this many missed times something is wrong with the clock, or it was off for long.
const MANY_MISSED: usize = 100;

pub(super) struct Start {
    pub(super) name: String,
    pub(super) at: Timestamp,
    pub(super) body: Value,
}

#[derive(Default)]
pub(super) struct Plan {
    pub(super) start: Option<Start>,
    pub(super) delete: Vec<Arc<Job>>,
    pub(super) status: Status,
    pub(super) events: Vec<(Kind, &'static str, String)>,
    pub(super) look_again: Option<Duration>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Status {
    active: Vec<ObjectReference>,
    last_schedule: Option<Time>,
    last_success: Option<Time>,
}

impl Status {
    pub(super) fn of(cron: &CronJob) -> Self {
        Status {
            active: cron.status.active.clone(),
            last_schedule: cron.status.last_schedule_time.clone(),
            last_success: cron.status.last_successful_time.clone(),
        }
    }
    pub(super) fn started(&mut self, job: &Job, at: Timestamp) {
        self.active.push(crate::events::reference(job));
        self.last_schedule = Some(Time(at));
    }
    pub(super) fn merge(&self) -> Value {
        json!({"active": self.active, "lastScheduleTime": self.last_schedule, "lastSuccessfulTime": self.last_success})
    }
}

/// `Complete` or `Failed`, when a Job is over.
fn finished(job: &Job) -> Option<&str> {
    let conditions = job.status.conditions.iter().flatten();
    conditions.filter(|c| c.status == "True").map(|c| c.type_.as_str()).find(|t| matches!(*t, "Complete" | "Failed"))
}

pub(super) fn plan(cron: &CronJob, jobs: &[Arc<Job>], now: Timestamp) -> Plan {
    let mut plan = Plan { status: Status::of(cron), ..Plan::default() };
    clean(cron, jobs, &mut plan);
    follow(jobs, &mut plan);
    if cron.metadata.deletion_timestamp.is_some() || cron.spec.suspend {
        return plan;
    }
    let zone = match &cron.spec.time_zone {
        None => TimeZone::system(),
        Some(name) => match TimeZone::get(name) {
            Ok(zone) => zone,
            Err(e) => {
                plan.events.push((Kind::Warning, "UnknownTimeZone", format!("invalid timeZone: {name:?}: {e}")));
                return plan;
            }
        },
    };
    let schedule = match Schedule::parse(&cron.spec.schedule) {
        Ok(schedule) => schedule,
        Err(why) => {
            let text = format!("unparseable schedule: {:?} : {why}", cron.spec.schedule);
            plan.events.push((Kind::Warning, "UnparseableSchedule", text));
            return plan;
        }
    };
    plan.look_again = schedule.after(now, &zone).map(|next| {
        Duration::from_millis(u64::try_from(next.as_millisecond() - now.as_millisecond()).unwrap_or(0) + 100)
    });
    start(cron, jobs, &schedule, &zone, now, &mut plan);
    plan
}

/// Jobs that are over beyond the number that is kept, the oldest first.
fn clean(cron: &CronJob, jobs: &[Arc<Job>], plan: &mut Plan) {
    for (end, limit) in [
        ("Complete", cron.spec.successful_jobs_history_limit.unwrap_or(3)),
        ("Failed", cron.spec.failed_jobs_history_limit.unwrap_or(1)),
    ] {
        let mut over: Vec<&Arc<Job>> = jobs.iter().filter(|job| finished(job) == Some(end)).collect();
        let keep = usize::try_from(limit).unwrap_or(0);
        if over.len() > keep {
            over.sort_by_key(|job| {
                let start = job.status.start_time.as_ref().or(job.metadata.creation_timestamp.as_ref());
                (start.map(|t| t.0), job.metadata.name.clone())
            });
            over.truncate(over.len() - keep);
            plan.delete.extend(over.into_iter().filter(|j| j.metadata.deletion_timestamp.is_none()).cloned());
        }
    }
}

/// Takes Jobs that are over, or gone, from the list of active ones.
fn follow(jobs: &[Arc<Job>], plan: &mut Plan) {
    let events = &mut plan.events;
    plan.status.active.retain(|reference| {
        let Some(job) = jobs.iter().find(|job| job.metadata.uid == reference.uid) else {
            let name = reference.name.as_deref().unwrap_or("");
            events.push((Kind::Normal, "MissingJob", format!("Active job went missing: {name}")));
            return false;
        };
        let Some(end) = finished(job) else { return true };
        let name = job.metadata.name.as_deref().unwrap_or("");
        events.push((Kind::Normal, "SawCompletedJob", format!("Saw completed job: {name}, condition: {end}")));
        false
    });
    let ends =
        jobs.iter().filter(|job| finished(job) == Some("Complete")).filter_map(|j| j.status.completion_time.clone());
    plan.status.last_success = plan.status.last_success.take().into_iter().chain(ends).max_by_key(|time| time.0);
}

/// The last time that has passed since the one that was acted on; and how many have.
fn due(cron: &CronJob, schedule: &Schedule, zone: &TimeZone, now: Timestamp) -> (Option<Timestamp>, usize) {
    let made = cron.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0);
    let mut since = cron.status.last_schedule_time.as_ref().map_or(made, |t| t.0);
    if let Some(deadline) = cron.spec.starting_deadline_seconds {
        since = since.max(Timestamp::from_second(now.as_second() - deadline).unwrap_or(since));
    }
    let (mut last, mut missed) = (None, 0);
    while let Some(next) = schedule.after(last.unwrap_or(since), zone).filter(|next| *next <= now) {
        last = Some(next);
        missed += 1;
        // It may have been off for years: the last time is found from the end then.
        if missed > MANY_MISSED {
            let near = [3600_i64, 86_400, 31 * 86_400];
            let from = near.iter().filter_map(|back| Timestamp::from_second(now.as_second() - back).ok());
            for from in from.filter(|from| Some(*from) > last) {
                if schedule.after(from, zone).is_some_and(|next| next <= now) {
                    last = Some(from);
                    break;
                }
            }
        }
    }
    (last, missed)
}

fn start(cron: &CronJob, jobs: &[Arc<Job>], schedule: &Schedule, zone: &TimeZone, now: Timestamp, plan: &mut Plan) {
    let (due, missed) = due(cron, schedule, zone, now);
    let Some(at) = due else { return };
    if missed > MANY_MISSED {
        let text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
        plan.events.push((Kind::Warning, "TooManyMissedTimes", text.to_owned()));
    }
    if cron.spec.starting_deadline_seconds.is_some_and(|deadline| at.as_second() + deadline < now.as_second()) {
        let shown = at.to_zoned(zone.clone()).strftime("%a, %d %b %Y %H:%M:%S %z").to_string();
        plan.events.push((Kind::Warning, "MissSchedule", format!("Missed scheduled time to start a job: {shown}")));
        return;
    }
    let name = format!("{}-{}", cron.metadata.name.as_deref().unwrap_or(""), at.as_second() / 60);
    let known = plan.status.active.iter().any(|r| r.name.as_deref() == Some(&name));
    if known || cron.status.last_schedule_time.as_ref().map(|t| t.0) == Some(at) {
        return;
    }
    match cron.spec.concurrency_policy.as_str() {
        "Forbid" if !plan.status.active.is_empty() => {
            let text = "Not starting job because prior execution is running and concurrency policy is Forbid";
            plan.events.push((Kind::Normal, "JobAlreadyActive", text.to_owned()));
            return;
        }
        "Replace" => {
            let active = std::mem::take(&mut plan.status.active);
            let is_active = |job: &&Arc<Job>| active.iter().any(|r| r.uid == job.metadata.uid);
            plan.delete.extend(jobs.iter().filter(is_active).cloned());
        }
        _ => {}
    }
    let scheduled = at.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
    let scheduled = scheduled.strip_suffix("+00:00").map_or(scheduled.clone(), |utc| format!("{utc}Z"));
    let body = super::job(cron, &name, &scheduled);
    plan.start = Some(Start { name, at, body });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cron(spec: &Value, status: &Value) -> CronJob {
        let mut all =
            json!({"schedule": "0 * * * *", "timeZone": "Etc/UTC", "jobTemplate": {"spec": {"template": {}}}});
        for (key, value) in spec.as_object().expect("an object") {
            all[key] = value.clone();
        }
        serde_json::from_value(json!({"metadata": {"name": "c", "namespace": "n", "uid": "u",
            "creationTimestamp": "2026-01-01T00:30:00Z"}, "spec": all, "status": status}))
        .expect("a cron job")
    }

    fn job(uid: &str, end: &str) -> Arc<Job> {
        let conditions = if end.is_empty() { json!([]) } else { json!([{"type": end, "status": "True"}]) };
        let job = json!({"metadata": {"name": uid, "uid": uid, "creationTimestamp": format!("2026-01-01T00:0{}:00Z", uid.len())},
            "status": {"conditions": conditions, "completionTime": "2026-01-01T01:00:05Z"}});
        Arc::new(serde_json::from_value(job).expect("a job"))
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn a_job_starts_at_its_time_and_once() {
        let early = plan(&cron(&json!({}), &json!({})), &[], at("2026-01-01T00:59:00Z"));
        assert!(early.start.is_none());
        assert_eq!(early.look_again.map(|d| d.as_secs()), Some(60));
        let due = plan(&cron(&json!({}), &json!({})), &[], at("2026-01-01T01:00:01Z"));
        let start = due.start.expect("a job");
        assert_eq!(start.name, format!("c-{}", at("2026-01-01T01:00:00Z").as_second() / 60));
        let key = "batch.kubernetes.io/cronjob-scheduled-timestamp";
        assert_eq!(start.body["metadata"]["annotations"][key], "2026-01-01T01:00:00Z");
        let done = json!({"lastScheduleTime": "2026-01-01T01:00:00Z"});
        assert!(plan(&cron(&json!({}), &done), &[], at("2026-01-01T01:10:00Z")).start.is_none());
        assert!(plan(&cron(&json!({"suspend": true}), &json!({})), &[], at("2026-01-01T01:10:00Z")).start.is_none());
        let late = plan(&cron(&json!({}), &json!({})), &[], at("2026-03-01T01:10:00Z"));
        assert_eq!(late.start.expect("the last one alone").at, at("2026-03-01T01:00:00Z"));
        assert_eq!(late.events[0].1, "TooManyMissedTimes");
    }

    #[test]
    fn concurrency_is_as_the_policy_says() {
        let active = json!({"active": [{"name": "a", "uid": "a"}], "lastScheduleTime": "2026-01-01T00:00:00Z"});
        let of = |policy: &str| {
            plan(&cron(&json!({"concurrencyPolicy": policy}), &active), &[job("a", "")], at("2026-01-01T01:00:01Z"))
        };
        assert!(of("Allow").start.is_some() && of("Allow").delete.is_empty());
        let forbid = of("Forbid");
        assert!(forbid.start.is_none() && forbid.events[0].1 == "JobAlreadyActive");
        let replace = of("Replace");
        assert!(replace.start.is_some() && replace.delete.len() == 1);
    }

    #[test]
    fn what_is_over_is_followed_and_cleaned() {
        let active = json!({"active": [{"name": "a", "uid": "a"}, {"name": "x", "uid": "x"}]});
        let spec = json!({"successfulJobsHistoryLimit": 1, "suspend": true});
        let plan =
            plan(&cron(&spec, &active), &[job("a", "Complete"), job("bb", "Complete")], at("2026-01-01T01:00:01Z"));
        assert!(plan.status.active.is_empty());
        assert_eq!(plan.status.last_success.map(|t| t.0), Some(at("2026-01-01T01:00:05Z")));
        assert_eq!(plan.delete.len(), 1);
        assert_eq!(plan.delete[0].metadata.uid.as_deref(), Some("a"), "the older one");
        let reasons: Vec<&str> = plan.events.iter().map(|e| e.1).collect();
        assert_eq!(reasons, ["SawCompletedJob", "MissingJob"]);
    }
}
