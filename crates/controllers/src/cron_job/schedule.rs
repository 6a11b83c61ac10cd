//! Cron schedules: five fields, names of months and days, `@hourly` and the like, `@every 1h`.

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan};

/// How far ahead a next time is looked for; a schedule without one until then (30 February) has none.
const YEARS: i16 = 5;

/// When something is to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Schedule {
    Fields { minutes: u64, hours: u64, days: u64, months: u64, weekdays: u64, any_day: bool, any_weekday: bool },
    Every(i64),
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl Schedule {
    /// # Errors
    /// What is wrong with the text.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(every) = text.strip_prefix("@every ") {
            let nanos = api::duration::parse(every).map_err(|why| format!("failed to parse duration {text}: {why}"))?;
            return Ok(Schedule::Every((nanos / 1_000_000_000).max(1)));
        }
        let text = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other if other.starts_with('@') => return Err(format!("unrecognized descriptor: {other}")),
            other => other,
        };
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(format!("expected exactly 5 fields, found {}: [{text}]", fields.len()));
        };
        let any = |field: &str| {
            field.split(',').any(|part| matches!(part.split('/').next(), Some("*" | "?")) && !part.contains('/'))
        };
        Ok(Schedule::Fields {
            minutes: bits(minute, 0, 59, &[])?,
            hours: bits(hour, 0, 23, &[])?,
            days: bits(day, 1, 31, &[])?,
            months: bits(month, 1, 12, &MONTHS)?,
            weekdays: bits(weekday, 0, 6, &WEEKDAYS)?,
            any_day: any(day),
            any_weekday: any(weekday),
        })
    }

    /// The first time after another.
    pub(super) fn after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let Schedule::Fields { minutes, hours, days, months, weekdays, any_day, any_weekday } = self else {
            let Schedule::Every(seconds) = self else { return None };
            return after.checked_add(seconds.seconds()).ok();
        };
        let on = |set: u64, n: i8| u32::try_from(n).is_ok_and(|n| set >> n & 1 == 1);
        let start = after.to_zoned(zone.clone());
        let mut date: Date = start.date();
        let last = date.year().saturating_add(YEARS);
        while date.year() <= last {
            let weekday = on(*weekdays, date.weekday().to_sunday_zero_offset());
            let day = on(*days, date.day());
            // Either will do where both are restricted.
            let matches = if *any_day || *any_weekday { weekday && day } else { weekday || day };
            if on(*months, date.month()) && matches {
                for hour in (0..24).filter(|hour| on(*hours, *hour)) {
                    for minute in (0..60).filter(|minute| on(*minutes, *minute)) {
                        let time = date.to_datetime(Time::constant(hour, minute, 0, 0));
                        let Ok(zoned) = zone.to_zoned(time) else { continue };
                        // A time that a change of clocks skips does not happen.
                        if zoned.datetime() == time && zoned.timestamp() > after {
                            return Some(zoned.timestamp());
                        }
                    }
                }
            }
            date = date.checked_add(Span::new().days(1)).ok()?;
        }
        None
    }
}

/// The set that a field says, as bits.
fn bits(field: &str, low: u32, high: u32, names: &[&str]) -> Result<u64, String> {
    let mut set = 0;
    for part in field.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (part, None),
        };
        let number = |text: &str| -> Result<u32, String> {
            let lower = text.to_ascii_lowercase();
            if let Some(i) = names.iter().position(|name| *name == lower) {
                return Ok(low + u32::try_from(i).unwrap_or(0));
            }
            text.parse()
                .map_err(|_| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"))
        };
        let (first, mut last) = match range {
            "*" | "?" => (low, high),
            _ => match range.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => {
                    let one = number(range)?;
                    (one, one)
                }
            },
        };
        let step = match step {
            None => 1,
            Some(step) => {
                // `5/10` goes on from five.
                if !range.contains('-') {
                    last = high;
                }
                number(step)?
            }
        };
        if first < low {
            return Err(format!("beginning of range ({first}) below minimum ({low}): {part}"));
        }
        if last > high {
            return Err(format!("end of range ({last}) above maximum ({high}): {part}"));
        }
        if first > last {
            return Err(format!("beginning of range ({first}) beyond end of range ({last}): {part}"));
        }
        if step == 0 {
            return Err(format!("step of range should be a positive number: {part}"));
        }
        for n in (first..=last).step_by(usize::try_from(step).unwrap_or(1)) {
            set |= 1 << n;
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, after: &str) -> String {
        let schedule = Schedule::parse(schedule).expect("a schedule");
        let after: Timestamp = after.parse().expect("a time");
        schedule.after(after, &TimeZone::UTC).map(|t| t.to_string()).unwrap_or_default()
    }

    #[test]
    fn times_follow_the_fields() {
        assert_eq!(next("*/5 * * * *", "2026-01-01T00:00:00Z"), "2026-01-01T00:05:00Z");
        assert_eq!(next("30 4 * * *", "2026-01-01T04:30:00Z"), "2026-01-02T04:30:00Z");
        assert_eq!(next("0 0 29 feb *", "2026-01-01T00:00:00Z"), "2028-02-29T00:00:00Z");
        assert_eq!(next("0 0 13 * fri", "2026-01-03T00:00:00Z"), "2026-01-09T00:00:00Z", "a Friday, or a thirteenth");
        assert_eq!(next("0 12 * * MON-WED", "2026-01-01T00:00:00Z"), "2026-01-05T12:00:00Z");
        assert_eq!(next("5/20 1 * * ?", "2026-01-01T01:06:00Z"), "2026-01-01T01:25:00Z");
        assert_eq!(next("@hourly", "2026-01-01T00:30:00Z"), "2026-01-01T01:00:00Z");
        assert_eq!(next("@every 90s", "2026-01-01T00:00:00Z"), "2026-01-01T00:01:30Z");
        assert_eq!(next("0 0 30 2 *", "2026-01-01T00:00:00Z"), "");
    }

    #[test]
    fn nonsense_is_named() {
        for (text, why) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("@sometimes", "unrecognized descriptor: @sometimes"),
        ] {
            assert_eq!(Schedule::parse(text), Err(why.to_owned()));
        }
    }
}
