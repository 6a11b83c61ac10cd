//! Cron schedules, as the parser that upstream uses (`robfig/cron`, standard form) reads them and words their faults.

/// A field of a schedule.
struct Bounds {
    least: i64,
    most: i64,
    names: &'static [&'static str],
}

const FIELDS: [Bounds; 5] = [
    Bounds { least: 0, most: 59, names: &[] },
    Bounds { least: 0, most: 23, names: &[] },
    Bounds { least: 1, most: 31, names: &[] },
    Bounds {
        least: 1,
        most: 12,
        names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    },
    Bounds { least: 0, most: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] },
];

/// Whether it is a time zone by its IANA name, in its own spelling.
pub(super) fn is_zone(name: &str) -> bool {
    jiff::tz::TimeZone::get(name).is_ok_and(|zone| zone.iana_name() == Some(name))
}

/// What is wrong with a schedule.
pub(super) fn check(schedule: &str) -> Result<(), String> {
    let mut rest = schedule;
    if schedule.starts_with("TZ=") || schedule.starts_with("CRON_TZ=") {
        let (zone, after) = schedule.split_once(' ').unwrap_or((schedule, ""));
        let zone = zone.split_once('=').map_or("", |(_, zone)| zone);
        if !matches!(zone, "" | "UTC" | "Local") && !is_zone(zone) {
            return Err(format!("provided bad location {zone}: unknown time zone {zone}"));
        }
        rest = after.trim();
    }
    if rest.starts_with('@') {
        return descriptor(rest);
    }
    let fields: Vec<&str> = rest.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    fields.iter().zip(&FIELDS).try_for_each(|(field, bounds)| {
        field.split(',').filter(|range| !range.is_empty()).try_for_each(|expression| range(expression, bounds))
    })
}

fn descriptor(text: &str) -> Result<(), String> {
    if let Some(every) = text.strip_prefix("@every ") {
        return match api::duration::parse(every) {
            Ok(_) => Ok(()),
            Err(why) => Err(format!("failed to parse duration {text}: {why}")),
        };
    }
    match text {
        "@yearly" | "@annually" | "@monthly" | "@weekly" | "@daily" | "@midnight" | "@hourly" => Ok(()),
        other => Err(format!("unrecognized descriptor: {other}")),
    }
}

/// `number | number "-" number [ "/" number ]`, with `*` or `?` for all.
fn range(expression: &str, bounds: &Bounds) -> Result<(), String> {
    let mut halves = expression.split('/');
    let span = halves.next().unwrap_or("");
    let step = halves.next();
    let ends: Vec<&str> = span.split('-').collect();
    let (first, mut last) = match ends[..] {
        ["*" | "?", ..] => (bounds.least, bounds.most),
        [only] => {
            let number = number_or_name(only, bounds)?;
            (number, number)
        }
        [first, last] => (number_or_name(first, bounds)?, number_or_name(last, bounds)?),
        _ => return Err(format!("too many hyphens: {expression}")),
    };
    let mut every = 1;
    if let Some(step) = step {
        if halves.next().is_some() {
            return Err(format!("too many slashes: {expression}"));
        }
        every = number(step)?;
        if ends.len() == 1 {
            last = bounds.most;
        }
    }
    let (least, most) = (bounds.least, bounds.most);
    if first < least {
        return Err(format!("beginning of range ({first}) below minimum ({least}): {expression}"));
    }
    if last > most {
        return Err(format!("end of range ({last}) above maximum ({most}): {expression}"));
    }
    if first > last {
        return Err(format!("beginning of range ({first}) beyond end of range ({last}): {expression}"));
    }
    if every == 0 {
        return Err(format!("step of range should be a positive number: {expression}"));
    }
    Ok(())
}

fn number_or_name(text: &str, bounds: &Bounds) -> Result<i64, String> {
    match bounds.names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
        Some(at) => Ok(bounds.least + i64::try_from(at).unwrap_or(0)),
        None => number(text),
    }
}

fn number(text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let parsed = match text.parse::<i64>() {
        Ok(number) => number,
        Err(_) => {
            let all = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            let why = if all { "value out of range" } else { "invalid syntax" };
            let shown = api::field::go_quote(text);
            return Err(format!("failed to parse int from {text}: strconv.Atoi: parsing {shown}: {why}"));
        }
    };
    if parsed < 0 {
        return Err(format!("negative number ({parsed}) not allowed: {text}"));
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn schedules_that_are_good() {
        for schedule in [
            "* * * * *",
            "*/5 0-23/2 1,15 JAN-mar Mon-Fri",
            "0 0 ? * sun",
            "@hourly",
            "@annually",
            "@every 1h30m",
            "TZ=UTC 0 1 * * *",
            "5/15 * * * *",
            "  1  2 3 4 5 ",
        ] {
            assert_eq!(check(schedule), Ok(()), "{schedule}");
        }
    }

    #[test]
    fn schedules_that_are_bad() {
        for (schedule, why) in [
            ("error", "expected exactly 5 fields, found 1: [error]"),
            ("* * * * * *", "expected exactly 5 fields, found 6: [* * * * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("a * * * *", "failed to parse int from a: strconv.Atoi: parsing \"a\": invalid syntax"),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            ("@often", "unrecognized descriptor: @often"),
            ("@every x", "failed to parse duration @every x: time: invalid duration \"x\""),
            ("TZ=Nowhere/Land * * * * *", "provided bad location Nowhere/Land: unknown time zone Nowhere/Land"),
        ] {
            assert_eq!(check(schedule).unwrap_err(), why, "{schedule}");
        }
    }

    proptest! {
        #[test]
        fn no_schedule_makes_it_panic(text in "[-*/,?@a-zT=0-9 ]{0,24}") {
            let _ = check(&text);
        }
    }
}
