//! Pilothouse: Kubernetes in one binary. Flags, certificates and bootstrap, supervisor, composition root.

mod authority;
mod backend;
mod cli;
mod cluster;
mod components;
mod demo_server;
mod election;
mod kubeconfig;
mod lock;
mod logs;
mod pki;
mod place;
mod preflight;
mod progress;
mod supervisor;
mod systemd;

use cli::{Cli, Command};
use std::io::Write;
use std::process::ExitCode;

/// The version of Pilothouse itself.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// What the API and the kubelet say: the Kubernetes that is spoken, and us.
pub const KUBERNETES_VERSION: &str = concat!("v1.36.0+pilothouse.", env!("CARGO_PKG_VERSION"));

fn main() -> ExitCode {
    // A shim's process becomes one here, before any thread exists.
    runtime::dispatch();
    let (cli, findings) = Cli::read();
    logs::begin(cli.verbosity());
    for warning in &findings.warnings {
        tracing::warn!("{warning}");
    }
    let outcome = match findings.refusals.first() {
        Some(refusal) => Err(anyhow::anyhow!("{refusal}")),
        None => run(cli.command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // The one place where a command says why it failed. Where that can't be written, the exit code says it.
            drop(writeln!(std::io::stderr(), "pilothouse: {e:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(args) => cluster::up(*args),
        Command::Server(args) => cluster::server(*args),
        Command::Agent(args) => cluster::agent::run(*args),
        Command::Apiserver(args) => components::apiserver::run(*args),
        Command::Scheduler(args) => components::scheduler::run(*args),
        Command::ControllerManager(args) => components::controller_manager::run(*args),
        Command::Kubelet(args) => components::kubelet::run(*args),
        Command::Proxy(args) => components::proxy::run(*args),
        Command::Dns(args) => components::dns::run(*args),
        Command::Down(args) => cluster::down(&args),
        Command::Reset(args) => cluster::reset(&args.place),
        Command::Image(command) => cli::image::run(command),
        Command::Store(args) => cli::store::run(*args),
        Command::DemoServer(args) => demo_server::run(&args),
    }
}
