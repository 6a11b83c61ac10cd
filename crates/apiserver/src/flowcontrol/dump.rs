//! `/debug/api_priority_and_fairness/dump_*`: what is in the levels, in upstream's tables.

use super::classify::Distinguisher;
use super::config::Prepared;
use super::level::About;
use super::queueset::{Estimate, Id, Queue, Request, Stage, Work};
use crate::measure::escaped;
use crate::request::RequestInfo;
use crate::user::UserInfo;
use jiff::Timestamp;
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

/// A table as Go's `tabwriter` sets it: cells end in a comma and a space, and begin under each other.
struct Table(Vec<Vec<String>>);

/// A column is at least as wide.
const WIDTH: usize = 8;

impl Table {
    fn new(columns: &[&str]) -> Self {
        Table(vec![columns.iter().map(|column| (*column).to_owned()).collect()])
    }

    fn text(self) -> String {
        let Table(rows) = self;
        let columns = rows.first().map_or(0, Vec::len);
        // With the comma, and a space after it.
        let width = |at: usize| rows.iter().map(|row| row[at].chars().count() + 2).max().unwrap_or(0).max(WIDTH);
        let widths: Vec<usize> = (0..columns.saturating_sub(1)).map(width).collect();
        let mut out = String::new();
        for row in &rows {
            for (at, cell) in row.iter().enumerate() {
                match widths.get(at) {
                    // A String takes every write.
                    Some(width) => write!(out, "{:width$}", format!("{cell},"), width = *width).unwrap_or(()),
                    None => out.push_str(cell),
                }
            }
            out.push('\n');
        }
        out
    }
}

/// Seats times seconds, as upstream shows them.
fn seat_seconds(work: Work) -> String {
    let (sign, work) = (if work < 0 { "-" } else { "" }, work.unsigned_abs());
    format!("{sign}{}.{:08}ss", work / 1_000_000_000, work % 1_000_000_000 / 10)
}

/// As Go shows a duration below a minute.
fn duration(nanos: u64) -> String {
    let of = |unit: u64, name: &str| {
        let text = format!("{}.{:09}", nanos / unit, u128::from(nanos % unit) * 1_000_000_000 / u128::from(unit));
        format!("{}{name}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => of(1_000, "µs"),
        1_000_000..1_000_000_000 => of(1_000_000, "ms"),
        _ => of(1_000_000_000, "s"),
    }
}

/// A row for each level.
pub(super) fn levels(prepared: &Prepared) -> String {
    let mut table = Table::new(&[
        "PriorityLevelName",
        "ActiveQueues",
        "IsIdle",
        "IsQuiescing",
        "WaitingRequests",
        "ExecutingRequests",
        "DispatchedRequests",
        "RejectedRequests",
        "TimedoutRequests",
        "CancelledRequests",
    ]);
    for ready in prepared.all() {
        let quiescing = prepared.quiescing.contains_key(&ready.level.name);
        let set = ready.level.lock();
        table.0.push(vec![
            ready.level.name.clone(),
            set.queues().iter().filter(|queue| !queue.waiting.is_empty()).count().to_string(),
            set.is_idle().to_string(),
            quiescing.to_string(),
            set.waiting().to_string(),
            set.executing().to_string(),
            set.totals.dispatched.to_string(),
            set.totals.rejected.to_string(),
            set.totals.timed_out.to_string(),
            set.totals.cancelled.to_string(),
        ]);
    }
    table.text()
}

/// A row for each queue.
pub(super) fn queues(prepared: &Prepared) -> String {
    let mut table = Table::new(&[
        "PriorityLevelName",
        "Index",
        "PendingRequests",
        "ExecutingRequests",
        "SeatsInUse",
        "NextDispatchR",
        "InitialSeatsSum",
        "MaxSeatsSum",
        "TotalWorkSum",
    ]);
    for ready in prepared.all() {
        // Numbers are made texts after the lock is given back: requests wait for it.
        let copied = |queue: &Queue| {
            let counts = [queue.waiting.len() as u64, queue.executing as u64, queue.seats];
            (counts, queue.next, [queue.waiting_initial, queue.waiting_most], queue.waiting_work)
        };
        let queues: Vec<_> = ready.level.lock().queues().iter().map(copied).collect();
        for (index, (counts, next, waiting, work)) in queues.into_iter().enumerate() {
            let mut row = vec![ready.level.name.clone(), index.to_string()];
            row.extend(counts.map(|count| count.to_string()));
            row.push(seat_seconds(next));
            row.extend(waiting.map(|seats| seats.to_string()));
            row.push(seat_seconds(work));
            table.0.push(row);
        }
    }
    table.text()
}

/// What is told of a request, copied: its level goes on while this is written.
struct Row {
    id: Id,
    queue: Option<usize>,
    stage: Stage,
    estimate: Estimate,
    info: Arc<RequestInfo>,
    user: Arc<UserInfo>,
    schema: Arc<str>,
    arrived: Timestamp,
}

impl Row {
    fn of(id: Id, request: &Request<About>) -> Self {
        let Request { queue, stage, estimate, about, .. } = request;
        Row {
            id,
            queue: *queue,
            stage: *stage,
            estimate: *estimate,
            info: about.info.clone(),
            user: about.user.clone(),
            schema: about.schema.clone(),
            arrived: about.arrived,
        }
    }
}

/// A row for each request that waits or is executed.
pub(super) fn requests(prepared: &Prepared, details: bool) -> String {
    let mut columns = vec![
        "PriorityLevelName",
        "FlowSchemaName",
        "QueueIndex",
        "RequestIndexInQueue",
        "FlowDistingsher",
        "ArriveTime",
        "InitialSeats",
        "FinalSeats",
        "AdditionalLatency",
        "StartTime",
    ];
    if details {
        columns.extend(["UserName", "Verb", "APIPath", "Namespace", "Name", "APIVersion", "Resource", "SubResource"]);
    }
    let mut table = Table::new(&columns);
    let distinguishers: HashMap<&str, Distinguisher> =
        prepared.schemas.iter().map(|schema| (&*schema.name, schema.spec.distinguisher)).collect();
    for ready in prepared.all() {
        let (mut all, places) = {
            let set = ready.level.lock();
            let all: Vec<_> = set.requests().map(|(id, request)| Row::of(id, request)).collect();
            let places: HashMap<Id, usize> = set
                .queues()
                .iter()
                .flat_map(|queue| queue.waiting.iter().copied().enumerate())
                .map(|(place, id)| (id, place))
                .collect();
            (all, places)
        };
        let place = |row: &Row| places.get(&row.id).copied();
        all.sort_by_key(|row| (row.queue, place(row).is_none(), place(row), row.arrived));
        let index = |at: Option<usize>| at.map_or_else(|| "-1".to_owned(), |at| at.to_string());
        for one in all {
            let place = place(&one);
            let Row { queue, stage, estimate, info, user, schema, arrived, .. } = one;
            let started = match stage {
                Stage::Waiting => "0001-01-01T00:00:00Z".to_owned(),
                Stage::Executing(since) => ready.level.time(since).to_string(),
            };
            let flow = queue.and_then(|_| distinguishers.get(&*schema));
            let mut row = vec![
                ready.level.name.clone(),
                schema.to_string(),
                index(queue),
                index(place),
                flow.map_or_else(String::new, |flow| flow.of(&info, &user).to_owned()),
                arrived.to_string(),
                estimate.initial.to_string(),
                estimate.finally.to_string(),
                duration(estimate.lingering),
                started,
            ];
            if details {
                let version = if info.group.is_empty() {
                    info.version.clone()
                } else {
                    format!("{}/{}", info.group, info.version)
                };
                row.extend([
                    user.name.clone(),
                    info.verb.clone(),
                    info.path.clone(),
                    info.namespace.clone(),
                    info.name.clone(),
                    version,
                    info.resource.clone(),
                    info.subresource.clone(),
                ]);
            }
            // Names are the client's: no line of its own begins in one.
            row.iter_mut().for_each(|cell| *cell = escaped(cell));
            table.0.push(row);
        }
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_begin_under_each_other() {
        let mut table = Table::new(&["Name", "Index", "Last"]);
        table.0.push(["a-long-name", "1", "x"].map(str::to_owned).into());
        assert_eq!(table.text(), "Name,        Index,  Last\na-long-name, 1,      x\n");
    }

    #[test]
    fn numbers_are_shown_as_go_shows_them() {
        assert_eq!(seat_seconds(77_643_420_190), "77.64342019ss");
        assert_eq!(seat_seconds(-810_000_000), "-0.81000000ss");
        for (nanos, text) in [(0, "0s"), (5_000_000, "5ms"), (1_500_000_000, "1.5s"), (2_500, "2.5µs"), (7, "7ns")] {
            assert_eq!(duration(nanos), text);
        }
    }
}
