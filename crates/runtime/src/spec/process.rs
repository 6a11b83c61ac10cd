//! Command, environment and working directory: the request over the image.

use std::path::PathBuf;

use cri::v1::KeyValue;

use super::{ImageConfig, SpecError};

/// Where executables are looked for when neither image nor request says.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The command line: a request's command replaces the image's entrypoint and its default arguments.
pub(crate) fn args(command: &[String], args: &[String], image: &ImageConfig) -> Result<Vec<String>, SpecError> {
    let mut line = command.to_vec();
    if command.is_empty() {
        line.extend_from_slice(&image.entrypoint);
    }
    if command.is_empty() && args.is_empty() {
        line.extend_from_slice(&image.cmd);
    } else {
        line.extend_from_slice(args);
    }
    if line.is_empty() {
        return Err(SpecError::NoCommand);
    }
    Ok(line)
}

/// The environment: later ones replace earlier ones of the same name.
pub(crate) fn env(hostname: &str, terminal: bool, home: &str, image: &ImageConfig, asked: &[KeyValue]) -> Vec<String> {
    let mut env = Environment::default();
    env.set("PATH", DEFAULT_PATH);
    if terminal {
        env.set("TERM", "xterm");
    }
    env.set("HOSTNAME", hostname);
    for entry in &image.env {
        match entry.split_once('=') {
            Some((name, value)) => env.set(name, value),
            None => env.set(entry, ""),
        }
    }
    for KeyValue { key, value } in asked {
        env.set(key, value);
    }
    if !env.has("HOME") {
        env.set("HOME", home);
    }
    env.0.into_iter().map(|(n, v)| format!("{n}={v}")).collect()
}

#[derive(Default)]
struct Environment(Vec<(String, String)>);

impl Environment {
    fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some(entry) => value.clone_into(&mut entry.1),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n == name)
    }
}

/// The working directory, always absolute.
pub(crate) fn cwd(asked: &str, image: &ImageConfig) -> PathBuf {
    let dir = if asked.is_empty() { &image.working_dir } else { asked };
    PathBuf::from("/").join(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn command_and_arguments_merge_as_documented() {
        let image = ImageConfig { entrypoint: strings(&["/ep"]), cmd: strings(&["foo", "bar"]), ..Default::default() };
        let merged = |c: &[&str], a: &[&str]| args(&strings(c), &strings(a), &image).unwrap();
        assert_eq!(merged(&[], &[]), ["/ep", "foo", "bar"]);
        assert_eq!(merged(&["/c"], &[]), ["/c"]);
        assert_eq!(merged(&[], &["a"]), ["/ep", "a"]);
        assert_eq!(merged(&["/c"], &["a"]), ["/c", "a"]);
        assert!(matches!(args(&[], &[], &ImageConfig::default()), Err(SpecError::NoCommand)));
    }

    #[test]
    fn environment_replaces_in_place() {
        let image = ImageConfig { env: strings(&["PATH=/image", "A=1", "EMPTY"]), ..Default::default() };
        let asked = [KeyValue { key: "A".into(), value: "x=y".into() }];
        assert_eq!(
            env("host", true, "/root", &image, &asked),
            ["PATH=/image", "TERM=xterm", "HOSTNAME=host", "A=x=y", "EMPTY=", "HOME=/root"]
        );
    }

    #[test]
    fn cwd_is_absolute() {
        let image = ImageConfig { working_dir: "srv".into(), ..Default::default() };
        assert_eq!(cwd("", &image), PathBuf::from("/srv"));
        assert_eq!(cwd("/x", &image), PathBuf::from("/x"));
        assert_eq!(cwd("", &ImageConfig::default()), PathBuf::from("/"));
    }
}
