//! The flags of the audit log.

use super::flags::read;
use crate::cli::values::GoDuration;
use anyhow::{Context as _, Result, bail};
use apiserver::audit::{Audit, Batch, Mode, Policy, Rotation, Sink, Throttle};
use clap::{ArgAction, Args};
use std::path::PathBuf;

/// What is recorded of requests, and how.
#[derive(Args, Clone, Debug)]
pub(super) struct AuditArgs {
    /// What is recorded of requests
    #[arg(long, value_name = "FILE")]
    audit_policy_file: Option<PathBuf>,
    /// Where it is written; -: standard output. Without a policy, nothing is recorded
    #[arg(long, value_name = "FILE")]
    audit_log_path: Option<PathBuf>,
    /// Form of the audit log
    #[arg(long, value_parser = ["json"], value_name = "FORM")]
    audit_log_format: Option<String>,
    /// Megabytes after which the audit log is rotated; 0: never
    #[arg(long, default_value_t = 100, allow_negative_numbers = true, value_name = "MB")]
    audit_log_maxsize: i64,
    /// How many rotated audit logs stay; 0: all
    #[arg(long, default_value_t = 100, allow_negative_numbers = true, value_name = "N")]
    audit_log_maxbackup: i64,
    /// Days that rotated audit logs stay, by the time in their names; 0: for ever
    #[arg(long, default_value_t = 366, allow_negative_numbers = true, value_name = "DAYS")]
    audit_log_maxage: i64,
    /// Compress rotated audit logs
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", value_name = "BOOL")]
    audit_log_compress: bool,
    /// Requests wait until the log has them (blocking), are refused if it can't (blocking-strict), or never wait (batch)
    #[arg(long, default_value = "blocking", value_name = "MODE")]
    audit_log_mode: String,
    /// How many events may wait in batch mode; more are lost
    #[arg(long, default_value_t = 10_000, allow_negative_numbers = true, value_name = "N")]
    audit_log_batch_buffer_size: i64,
    /// How many are written at once in batch mode at most
    #[arg(long, default_value_t = 1, allow_negative_numbers = true, value_name = "N")]
    audit_log_batch_max_size: i64,
    /// How long the first of them waits for others
    #[arg(long, default_value = "0s", value_name = "DURATION")]
    audit_log_batch_max_wait: GoDuration,
    /// Limit how often is written in batch mode
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", value_name = "BOOL")]
    audit_log_batch_throttle_enable: bool,
    /// How often in a second, on an average
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true, value_name = "N")]
    audit_log_batch_throttle_qps: f64,
    /// How often at once at most
    #[arg(long, default_value_t = 0, allow_negative_numbers = true, value_name = "N")]
    audit_log_batch_throttle_burst: i64,
    /// Take the objects out of events that are too large
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", value_name = "BOOL")]
    audit_log_truncate_enabled: bool,
    /// Bytes that an event may have; what has more without objects is lost
    #[arg(long, default_value_t = 100 << 10, allow_negative_numbers = true, value_name = "BYTES")]
    audit_log_truncate_max_event_size: i64,
    /// Bytes that a batch may have; events are handed over one by one, so it is only to be no less than an event may have
    #[arg(long, default_value_t = 10 << 20, allow_negative_numbers = true, value_name = "BYTES")]
    audit_log_truncate_max_batch_size: i64,
}

impl AuditArgs {
    /// The audit log that is asked for, if one is.
    ///
    /// # Errors
    /// Flags that contradict themselves, a policy that is none, a file that cannot be opened.
    pub(super) fn audit(&self) -> Result<Option<Audit>> {
        let policy = match &self.audit_policy_file {
            Some(file) => Some(
                Policy::parse(&read("audit-policy-file", file)?)
                    .with_context(|| format!("--audit-policy-file {}", file.display()))?,
            ),
            None => None,
        };
        let Some(log) = &self.audit_log_path else { return Ok(None) };
        let (mode, largest, rotation) = (self.mode()?, self.largest()?, self.rotation()?);
        let Some(policy) = policy else {
            tracing::info!("no audit policy file is given: no events are recorded");
            return Ok(None);
        };
        let audit = Audit::new(policy, Sink::open(log, rotation, mode).context("--audit-log-path")?);
        Ok(Some(match largest {
            Some(largest) => audit.truncating(largest),
            None => audit,
        }))
    }

    fn mode(&self) -> Result<Mode> {
        match self.audit_log_mode.as_str() {
            "blocking" => Ok(Mode::Blocking),
            "blocking-strict" => Ok(Mode::BlockingStrict),
            "batch" => Ok(Mode::Batch(self.batch()?)),
            other => bail!(
                "invalid audit log mode {other}, allowed modes are {:?}",
                ["batch", "blocking", "blocking-strict"].join(",")
            ),
        }
    }

    fn batch(&self) -> Result<Batch> {
        let throttle = if self.audit_log_batch_throttle_enable {
            let per_second = self.audit_log_batch_throttle_qps;
            if per_second.is_nan() || per_second <= 0.0 {
                bail!("invalid audit batch log throttle QPS {per_second}, must be a positive number");
            }
            let burst = u32::try_from(positive("batch log throttle burst", self.audit_log_batch_throttle_burst)?);
            Some(Throttle { per_second, burst: burst.unwrap_or(u32::MAX) })
        } else {
            None
        };
        Ok(Batch {
            buffer: positive("batch log buffer size", self.audit_log_batch_buffer_size)?,
            size: positive("batch log max batch size", self.audit_log_batch_max_size)?,
            wait: self.audit_log_batch_max_wait.0,
            throttle,
        })
    }

    fn rotation(&self) -> Result<Rotation> {
        let max_age = limit("maxage", self.audit_log_maxage)?;
        let backups = limit("maxbackup", self.audit_log_maxbackup)?;
        Ok(Rotation {
            max_size: limit("maxsize", self.audit_log_maxsize)?.saturating_mul(1 << 20),
            backups: usize::try_from(backups).unwrap_or(usize::MAX),
            max_age,
            compress: self.audit_log_compress,
        })
    }

    /// The largest event. Sizes that make no sense are refused even where nothing is truncated.
    fn largest(&self) -> Result<Option<usize>> {
        let (event, batch) = (self.audit_log_truncate_max_event_size, self.audit_log_truncate_max_batch_size);
        let largest = positive("truncate log max event size", event)?;
        if batch < event {
            bail!("invalid audit truncate log max batch size {batch}, must be greater than max event size ({event})");
        }
        Ok(self.audit_log_truncate_enabled.then_some(largest))
    }
}

fn limit(flag: &str, number: i64) -> Result<u64> {
    u64::try_from(number).map_err(|_| anyhow::anyhow!("--audit-log-{flag} {number} can't be a negative number"))
}

fn positive(what: &str, number: i64) -> Result<usize> {
    match usize::try_from(number) {
        Ok(number) if number > 0 => Ok(number),
        _ => bail!("invalid audit {what} {number}, must be a positive number"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        audit: AuditArgs,
    }

    fn of(flags: &[&str]) -> AuditArgs {
        Line::try_parse_from(["x"].iter().chain(flags)).expect("flags").audit
    }

    #[test]
    fn modes_are_upstreams() {
        assert!(matches!(of(&[]).mode(), Ok(Mode::Blocking)));
        assert!(matches!(of(&["--audit-log-mode=blocking-strict"]).mode(), Ok(Mode::BlockingStrict)));
        let batch = of(&["--audit-log-mode=batch"]).mode().expect("a mode");
        assert!(
            matches!(batch, Mode::Batch(Batch { buffer: 10_000, size: 1, throttle: None, wait }) if wait.is_zero()),
            "{batch:?}"
        );
        let all = of(&[
            "--audit-log-mode=batch",
            "--audit-log-batch-buffer-size=5",
            "--audit-log-batch-max-size=4",
            "--audit-log-batch-max-wait=3s",
            "--audit-log-batch-throttle-enable",
            "--audit-log-batch-throttle-qps=2.5",
            "--audit-log-batch-throttle-burst=1",
        ]);
        let batch = all.mode().expect("a mode");
        let told = format!("{batch:?}");
        assert_eq!(
            told,
            "Batch(Batch { buffer: 5, size: 4, wait: 3s, throttle: Some(Throttle { per_second: 2.5, burst: 1 }) })"
        );
    }

    #[test]
    fn logs_are_rotated_and_kept_as_upstream_does() {
        let of = |flags: &[&str]| of(flags).rotation().map_err(|error| error.to_string());
        let told = format!("{:?}", of(&[]).expect("the default"));
        assert_eq!(told, "Rotation { max_size: 104857600, backups: 100, max_age: 366, compress: false }");
        let all = ["--audit-log-maxsize=0", "--audit-log-maxbackup=2", "--audit-log-maxage=3", "--audit-log-compress"];
        let told = format!("{:?}", of(&all).expect("flags"));
        assert_eq!(told, "Rotation { max_size: 0, backups: 2, max_age: 3, compress: true }");
        for flag in ["maxsize", "maxbackup", "maxage"] {
            let why = of(&[&format!("--audit-log-{flag}=-1")]).expect_err("refused");
            assert_eq!(why, format!("--audit-log-{flag} -1 can't be a negative number"));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_as_upstream_does() {
        let why = |flags: &[&str]| {
            let args = of(flags);
            args.mode().map(drop).and_then(|()| args.largest().map(drop)).expect_err("refused").to_string()
        };
        assert_eq!(
            why(&["--audit-log-mode=fast"]),
            "invalid audit log mode fast, allowed modes are \"batch,blocking,blocking-strict\""
        );
        assert_eq!(
            why(&["--audit-log-mode=batch", "--audit-log-batch-buffer-size=-1"]),
            "invalid audit batch log buffer size -1, must be a positive number"
        );
        assert_eq!(
            why(&["--audit-log-mode=batch", "--audit-log-batch-throttle-enable=true"]),
            "invalid audit batch log throttle QPS 0, must be a positive number"
        );
        assert_eq!(
            why(&["--audit-log-truncate-enabled", "--audit-log-truncate-max-batch-size=7"]),
            "invalid audit truncate log max batch size 7, must be greater than max event size (102400)"
        );
        // The sizes of batches matter in their mode only, those of events always.
        assert!(of(&["--audit-log-batch-max-size=0"]).mode().is_ok());
        assert_eq!(
            why(&["--audit-log-truncate-max-event-size=0"]),
            "invalid audit truncate log max event size 0, must be a positive number"
        );
        assert!(matches!(of(&[]).largest(), Ok(None)));
        assert!(matches!(of(&["--audit-log-truncate-enabled"]).largest(), Ok(Some(102_400))));
        // Without a log, nothing is looked at.
        assert!(matches!(of(&["--audit-log-truncate-max-event-size=0"]).audit(), Ok(None)));
    }
}
