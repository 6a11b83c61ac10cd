//! Becoming a shim or one of its helpers.

use std::{ffi::OsString, io::Write, path::Path};

use crate::shim;

/// Runs the role that `argv[0]` names, and then ends the process; returns at once when it names none.
///
/// To be called first in `main`, before any thread exists: a shim forks and goes on running in the child,
/// which only a process with one thread may do.
pub fn dispatch() {
    let mut args = std::env::args_os();
    let Some(name) = args.next() else { return };
    let Some(name) = Path::new(&name).file_name().and_then(|n| n.to_str()) else {
        return;
    };
    match name {
        shim::NAME => {
            let args: Vec<OsString> = std::env::args_os().collect();
            std::process::exit(shim::main(&args));
        }
        shim::hook::NAME => std::process::exit(match shim::hook::run(args) {
            Ok(()) => 0,
            Err(error) => {
                // libcontainer passes it on.
                drop(writeln!(std::io::stderr(), "{error}"));
                1
            }
        }),
        _ => {}
    }
}
