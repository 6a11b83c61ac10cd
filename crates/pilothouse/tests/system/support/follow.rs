//! A program that goes on while a scenario does: what it has printed so far.

use super::{Fallible, PATIENCE, end};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

#[derive(Debug)]
pub struct Follower {
    process: Child,
    stdin: Option<ChildStdin>,
    printed: Arc<(Mutex<String>, Condvar)>,
}

impl Follower {
    pub fn start(mut command: Command) -> Fallible<Self> {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let printed = Arc::new((Mutex::new(String::new()), Condvar::new()));
        let streams: [Option<Box<dyn Read + Send>>; 2] = [
            process.stdout.take().map(|s| Box::new(s) as Box<dyn Read + Send>),
            process.stderr.take().map(|s| Box::new(s) as Box<dyn Read + Send>),
        ];
        for stream in streams.into_iter().flatten() {
            let printed = printed.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let mut text = printed.0.lock().unwrap_or_else(PoisonError::into_inner);
                    text.push_str(&line);
                    text.push('\n');
                    printed.1.notify_all();
                }
            });
        }
        Ok(Follower { stdin: process.stdin.take(), process, printed })
    }

    /// Waits until what it has printed is as wanted; gives it.
    pub fn until(&self, wanted: impl Fn(&str) -> bool) -> Fallible<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut text = self.printed.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !wanted(&text) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("so far it printed only:\n{text}").into());
            }
            text = self.printed.1.wait_timeout(text, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(text.clone())
    }

    pub fn type_in(&mut self, text: &str) -> Fallible {
        let stdin = self.stdin.as_mut().ok_or("its standard input is closed")?;
        stdin.write_all(text.as_bytes())?;
        Ok(stdin.flush()?)
    }

    /// Waits until it ends by itself; whether it succeeded.
    pub fn finished(&mut self) -> Fallible<bool> {
        self.stdin = None;
        Ok(self.process.wait()?.success())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        end(&mut self.process, nix::sys::signal::Signal::SIGTERM);
    }
}
