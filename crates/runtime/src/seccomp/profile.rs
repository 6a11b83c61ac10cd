//! A filter as people write it: in the format that Docker made and the OCI took over.

use serde::Deserialize;

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Allow,
    Log,
    Errno(i32),
    Trace(u16),
    Trap,
    KillThread,
    KillProcess,
}

/// A whole filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) default_action: Action,
    /// Names such as `SCMP_ARCH_X86_64`; the native one is always in.
    pub(crate) architectures: Vec<String>,
    pub(crate) rules: Vec<Rule>,
    /// Log all actions but `Allow`.
    pub(crate) log: bool,
}

/// What happens to some calls, under conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) names: Vec<String>,
    pub(crate) action: Action,
    pub(crate) args: Vec<Argument>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Argument {
    pub(crate) index: u32,
    pub(crate) operator: Operator,
    /// With [`Operator::MaskedEqual`] the mask.
    pub(crate) value: u64,
    pub(crate) value_two: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum Operator {
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

/// A profile that can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProfileError {
    #[error("it is not valid JSON of a seccomp profile")]
    Json(#[from] serde_json::Error),
    #[error("action {0:?} is not supported")]
    Action(String),
    #[error("flag {0:?} is not supported")]
    Flag(String),
    #[error("architecture {0:?} is not known")]
    Architecture(String),
    #[error("a rule for {0} compares argument {1}; there are six, counted from 0")]
    Argument(String, u32),
    #[error("conditions on {0:?} are not supported")]
    NewSyscall(String),
    #[error("the seccomp library refused: {0}")]
    Library(#[from] libseccomp::error::SeccompError),
    #[error("the compiled filter could not be read")]
    Output(#[from] std::io::Error),
    #[error("it has {0} instructions, more than the kernel takes")]
    TooLong(usize),
}

impl Rule {
    pub(super) fn allow<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self { names: names.into_iter().map(str::to_owned).collect(), action: Action::Allow, args: Vec::new() }
    }

    pub(super) fn when(mut self, index: u32, operator: Operator, value: u64) -> Self {
        self.args.push(Argument { index, operator, value, value_two: 0 });
        self
    }
}

/// This machine's architecture and those whose programs it also runs.
pub(super) fn native_architectures() -> Vec<String> {
    let names: &[&str] = if cfg!(target_arch = "x86_64") {
        &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    } else if cfg!(target_arch = "aarch64") {
        &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    } else {
        &["SCMP_ARCH_NATIVE"]
    };
    names.iter().map(|n| (*n).to_owned()).collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonProfile {
    default_action: String,
    #[serde(default)]
    default_errno_ret: Option<i32>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    syscalls: Vec<JsonRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonRule {
    #[serde(default)]
    names: Vec<String>,
    /// An older form.
    #[serde(default)]
    name: Option<String>,
    action: String,
    #[serde(default)]
    errno_ret: Option<i32>,
    #[serde(default)]
    args: Option<Vec<JsonArgument>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonArgument {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: Operator,
}

/// Reads a profile file's contents.
pub(crate) fn parse(json: &[u8]) -> Result<Profile, ProfileError> {
    let json: JsonProfile = serde_json::from_slice(json)?;
    let mut log = false;
    for flag in json.flags {
        match flag.as_str() {
            "SECCOMP_FILTER_FLAG_LOG" => log = true,
            // Processes start with one thread, and this is on anyway.
            "SECCOMP_FILTER_FLAG_TSYNC" | "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => {}
            _ => return Err(ProfileError::Flag(flag)),
        }
    }
    let mut rules = Vec::new();
    for rule in json.syscalls {
        let action = action(&rule.action, rule.errno_ret)?;
        let mut names = rule.names;
        names.extend(rule.name);
        let args = rule.args.unwrap_or_default();
        if let Some(argument) = args.iter().find(|a| a.index > 5) {
            return Err(ProfileError::Argument(names.join(", "), argument.index));
        }
        rules.push(Rule {
            names,
            action,
            args: args
                .into_iter()
                .map(|a| Argument { index: a.index, operator: a.op, value: a.value, value_two: a.value_two })
                .collect(),
        });
    }
    let architectures =
        if json.architectures.is_empty() { vec!["SCMP_ARCH_NATIVE".to_owned()] } else { json.architectures };
    Ok(Profile { default_action: action(&json.default_action, json.default_errno_ret)?, architectures, rules, log })
}

fn action(name: &str, errno: Option<i32>) -> Result<Action, ProfileError> {
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_ERRNO" => Action::Errno(errno.unwrap_or(libc::EPERM)),
        "SCMP_ACT_TRACE" => Action::Trace(errno.unwrap_or(libc::EPERM) as u16),
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        _ => return Err(ProfileError::Action(name.to_owned())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_common_format() {
        let profile = parse(
            br#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,
                 "architectures":["SCMP_ARCH_X86_64"],
                 "syscalls":[{"names":["read","write"],"action":"SCMP_ACT_ALLOW"},
                             {"names":["socket"],"action":"SCMP_ACT_ERRNO","errnoRet":22,
                              "args":[{"index":0,"value":16,"op":"SCMP_CMP_EQ"}]}]}"#,
        )
        .unwrap();
        assert_eq!(profile.default_action, Action::Errno(38));
        assert_eq!(profile.rules[1].action, Action::Errno(22));
        assert_eq!(profile.rules[1].args[0].value, 16);
    }

    #[test]
    fn refuses_what_it_would_not_apply() {
        for bad in [
            "{}",
            "not json",
            r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["x"],"action":"SCMP_ACT_ALLOW","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}]}"#,
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
