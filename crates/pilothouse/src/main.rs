//! Pilothouse: Kubernetes in one binary. Flags, certificates and bootstrap, supervisor, composition root.

mod backend;
mod cli;
mod cluster;
mod demo_server;
mod kubeconfig;
mod lock;
mod pki;
mod place;
mod preflight;
mod progress;
mod supervisor;
mod systemd;

use clap::Parser;
use cli::{Cli, Command};
use std::process::ExitCode;

/// The version of Pilothouse itself.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// What the API and the kubelet say: the Kubernetes that is spoken, and us.
pub const KUBERNETES_VERSION: &str = concat!("v1.36.0+pilothouse.", env!("CARGO_PKG_VERSION"));

fn main() -> ExitCode {
    // A shim's process becomes one here, before any thread exists.
    runtime::dispatch();
    let cli = Cli::parse();
    log();
    let outcome = match cli.command {
        Command::Up(args) => cluster::up(*args),
        Command::Down(args) => cluster::down(&args),
        Command::Reset(args) => cluster::reset(&args.place),
        Command::Image(command) => cli::image::run(command),
        Command::Store(args) => cli::store::run(args),
        Command::DemoServer(args) => demo_server::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            #[allow(clippy::print_stderr, reason = "the one place where a command says why it failed")]
            {
                eprintln!("pilothouse: {e:#}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Logs to standard error; `RUST_LOG` says what.
fn log() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
}
