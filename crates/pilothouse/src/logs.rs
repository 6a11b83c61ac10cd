//! What is logged, to standard error: `RUST_LOG` says what, else the `-v` of components, which can be changed while they run.

use std::sync::OnceLock;
use tracing_subscriber::EnvFilter;

type Reload = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

static RELOAD: OnceLock<Reload> = OnceLock::new();

/// What `-v` stands for.
fn level(verbosity: i32) -> &'static str {
    match verbosity {
        ..=0 => "warn",
        1..=3 => "info",
        4..=7 => "debug",
        8.. => "trace",
    }
}

/// Begins to log; to be called once.
pub fn begin(verbosity: Option<u8>) {
    let usual = level(verbosity.map_or(0, i32::from));
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // It would be told to standard error too, by a macro that panics when that fails: a full disk below a log file, or a
        // reader of a pipe that has gone, must not take down whoever has something to log.
        .log_internal_errors(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_filter_reloading();
    let handle = logs.reload_handle();
    // Whoever came first may change it.
    RELOAD.get_or_init(|| Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string())));
    logs.init();
}

/// Logs as `-v` says from here on, whatever `RUST_LOG` said.
///
/// # Errors
/// Nothing is logged yet, or any more.
pub fn set_verbosity(verbosity: i32) -> Result<(), String> {
    let reload = RELOAD.get().ok_or_else(|| "nothing is logged".to_owned())?;
    reload(EnvFilter::new(level(verbosity)))
}
