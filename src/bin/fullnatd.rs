//! The gateway's daemon: reads its configuration, starts, says `ready`, runs until it is told to stop.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use fullnat::config::{self, Config, Requirements};
use fullnat::gateway::Gateway;
use nix::sys::signal::{SigSet, Signal};
use tracing_subscriber::EnvFilter;

/// A FULLNAT layer-4 gateway on DPDK.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file, in TOML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Only check the configuration and say what it needs
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")))
        .with_target(false)
        .init();
    let config = match config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => return fail(&error),
    };
    for warning in &config.warnings {
        eprintln!("warning: {warning}");
    }
    if arguments.check {
        println!("{}: no mistakes. It needs:\n{}", arguments.config.display(), Requirements::of(&config));
        return ExitCode::SUCCESS;
    }
    run(&arguments.config, config)
}

fn run(path: &std::path::Path, config: Config) -> ExitCode {
    // Blocked before any thread starts, so that every thread inherits it and only `wait` below sees them.
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    if let Err(error) = signals.thread_block() {
        return fail(&format!("signals cannot be blocked: {error}"));
    }
    let gateway = match Gateway::start(path, config) {
        Ok(gateway) => gateway,
        Err(error) => return fail(&error),
    };
    println!("ready");
    loop {
        match signals.wait() {
            Ok(Signal::SIGHUP) => gateway.reload(),
            Ok(signal) => {
                tracing::info!(%signal, "stopping");
                break;
            }
            Err(_) => {}
        }
    }
    drop(gateway);
    ExitCode::SUCCESS
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("fullnatd: {error}");
    ExitCode::FAILURE
}
