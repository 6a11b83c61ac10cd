//! The flags of this process and their values, for `/flagz`.

use super::{Cli, upstream};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, CommandFactory};
use std::collections::BTreeMap;
use std::ffi::OsString;

/// Flags whose values are nobody's business.
const SECRET: [&str; 2] = ["token", "certificate-key"];

/// All flags of the command that this process runs, by their names: as they were given, or as they are when nobody says
/// otherwise. Secrets are not shown.
pub fn all() -> BTreeMap<String, String> {
    told(std::env::args_os())
}

/// The same of any command line. One that is none tells nothing: a process has refused it before it comes here.
fn told(line: impl Iterator<Item = OsString>) -> BTreeMap<String, String> {
    let command = upstream::extend(Cli::command());
    let Ok(matches) = command.clone().try_get_matches_from(line) else { return BTreeMap::new() };
    of(&command, &matches)
}

fn of(command: &Command, matches: &ArgMatches) -> BTreeMap<String, String> {
    if let Some((name, matches)) = matches.subcommand() {
        return command.find_subcommand(name).map(|command| of(command, matches)).unwrap_or_default();
    }
    command.get_arguments().filter_map(|flag| Some((flag.get_long()?.to_owned(), value(flag, matches)?))).collect()
}

/// The value of a flag: several as one flag takes them. Those of upstream that are only read over are told when they are given.
fn value(flag: &Arg, matches: &ArgMatches) -> Option<String> {
    let id = flag.get_id().as_str();
    let given = matches.value_source(id) == Some(ValueSource::CommandLine);
    if flag.is_hide_set() && !given {
        return None;
    }
    let values = matches.get_raw(id).into_iter().flatten().map(|value| value.to_string_lossy());
    let value = values.collect::<Vec<_>>().join(",");
    let secret = flag.get_long().is_some_and(|name| SECRET.contains(&name)) && !value.is_empty();
    Some(if secret { "CLASSIFIED".to_owned() } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told_of(line: &str) -> BTreeMap<String, String> {
        told(line.split(' ').map(OsString::from))
    }

    #[test]
    fn all_flags_are_told_with_what_holds() {
        let told = told_of(
            "pilothouse apiserver --secure-port 7443 --profiling=false --enable-admission-plugins=A,B --contention-profiling=false",
        );
        let value = |name: &str| told.get(name).map(String::as_str);
        for (name, expected) in [
            ("secure-port", "7443"),
            ("profiling", "false"),
            ("enable-admission-plugins", "A,B"),
            // Read over, but given.
            ("contention-profiling", "false"),
            // Not given.
            ("anonymous-auth", "true"),
            ("authorization-mode", "AlwaysAllow"),
            ("service-node-port-range", "30000-32767"),
            ("token-auth-file", ""),
        ] {
            assert_eq!(value(name), Some(expected), "{name}");
        }
        // Read over and not given: what would hold is not known.
        assert_eq!(value("vmodule"), None);
        assert_eq!(value("help"), None);
    }

    #[test]
    fn switches_are_told_and_secrets_are_not() {
        let told = told_of("pilothouse agent --server https://x:6443 --token abcdef.0123456789abcdef");
        assert_eq!(told.get("token").map(String::as_str), Some("CLASSIFIED"));
        let told = told_of("pilothouse up --json");
        assert_eq!(told.get("json").map(String::as_str), Some("true"));
        assert_eq!(told.get("no-merge").map(String::as_str), Some("false"));
        assert!(told_of("pilothouse apiserver --no-such-flag").is_empty());
    }
}
