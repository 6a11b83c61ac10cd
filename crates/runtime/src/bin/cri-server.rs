//! The embedded CRI server alone, for trying it with `crictl` and for the tests of this crate.
//!
//! `cri-server DATA-DIR [NAME=VALUE…]` with `cluster`, `socket` and `pod-cidr`; `cri-server --reset DATA-DIR …`.

use std::process::ExitCode;

use runtime::Config;

fn main() -> ExitCode {
    runtime::dispatch();
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let reset = args.first().is_some_and(|a| a == "--reset");
    if reset {
        args.remove(0);
    }
    let result = config(&args).and_then(|config| if reset { run_reset(&config) } else { serve(config) });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            #[allow(clippy::print_stderr, reason = "the program's own message")]
            {
                eprintln!("cri-server: {message}");
            }
            ExitCode::FAILURE
        }
    }
}

fn config(args: &[String]) -> Result<Config, String> {
    let (data_dir, options) = args.split_first().ok_or("which data directory?")?;
    let mut config = Config::new("cri", data_dir);
    for option in options {
        match option.split_once('=') {
            Some(("cluster", name)) => name.clone_into(&mut config.cluster),
            Some(("socket", path)) => config.socket = path.into(),
            Some(("pod-cidr", cidr)) => {
                config.pod_cidr = Some(cidr.to_owned());
                config.cluster_cidrs = vec![cidr.to_owned()];
            }
            Some(("mirror", mirror)) => config.registry_mirrors.push(mirror.to_owned()),
            _ => return Err(format!("unknown option {option:?}")),
        }
    }
    Ok(config)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn run_reset(config: &Config) -> Result<(), String> {
    runtime::reset(config).map_err(|e| chain(&e))
}

fn serve(config: Config) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    runtime.block_on(async {
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).map_err(|e| e.to_string())?;
        let shutdown = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        };
        runtime::serve(config, shutdown).await.map_err(|e| chain(&e))
    })
}
