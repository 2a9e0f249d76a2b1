//! The gateway's daemon: reads its configuration, starts, says `ready`, runs until it is told to stop.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use fullnat::config::{self, Config, Requirements};
use fullnat::cpu;
use fullnat::gateway::Gateway;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tracing_subscriber::EnvFilter;

/// How often the links are looked at.
const HOUSE_KEEPING_MILLIS: u8 = 250;

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
    // First, and with nothing but precompiled functions: all the rest may hold instructions that this processor lacks.
    if !cpu::fit() {
        let _ = io::stderr().write_all(b"fullnatd: ");
        let _ = io::stderr().write_all(cpu::UNFIT.as_bytes());
        return ExitCode::FAILURE;
    }
    start()
}

#[inline(never)]
fn start() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        // It would complain of a log that cannot be written in the same place, and panic.
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal())
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")))
        .with_target(false)
        .init();
    let config = match config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => return fail(&error),
    };
    for warning in &config.warnings {
        complain(&format_args!("warning: {warning}"));
    }
    if arguments.check {
        let needs = Requirements::of(&config);
        return match say(&format_args!("{}: no mistakes. It needs:\n{needs}", arguments.config.display())) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                fail(&format_args!("cannot write the output: {error}"))
            }
            _ => ExitCode::SUCCESS,
        };
    }
    run(&arguments.config, config)
}

fn run(path: &std::path::Path, config: Config) -> ExitCode {
    // Blocked before any thread starts, so that every thread inherits it and only the file descriptor sees them.
    let mut blocked = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        blocked.add(signal);
    }
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    let signals = match blocked.thread_block().and_then(|()| SignalFd::with_flags(&blocked, flags)) {
        Ok(signals) => signals,
        Err(error) => return fail(&format!("signals cannot be waited for: {error}")),
    };
    let mut gateway = match Gateway::start(path, config) {
        Ok(gateway) => gateway,
        Err(error) => return fail(&error),
    };
    if let Err(error) = say(&"ready") {
        tracing::warn!("nobody was told that it is ready: {error}");
    }
    let signal = loop {
        match next_signal(&signals) {
            None => gateway.keep_house(),
            Some(Signal::SIGHUP) => gateway.reload(),
            Some(signal) => break signal,
        }
    };
    tracing::info!(%signal, "stopping");
    // Whoever says it twice does not want to wait: the same signal again ends the process at once.
    if let Err(error) = SigSet::from(signal).thread_unblock() {
        tracing::warn!(%signal, "a second one will not be heard: {error}");
    }
    drop(gateway);
    ExitCode::SUCCESS
}

/// The next signal that has arrived, or nothing within a house-keeping period.
fn next_signal(signals: &SignalFd) -> Option<Signal> {
    let mut waiting = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    poll(&mut waiting, PollTimeout::from(HOUSE_KEEPING_MILLIS)).ok()?;
    let info = signals.read_signal().ok()??;
    Signal::try_from(info.ssi_signo as i32).ok()
}

fn fail(error: &dyn Display) -> ExitCode {
    complain(&format_args!("fullnatd: {error}"));
    ExitCode::FAILURE
}

fn say(text: &dyn Display) -> io::Result<()> {
    writeln!(io::stdout(), "{text}")
}

/// Whether somebody reads it or not: a closed terminal or a full disk ends no gateway.
fn complain(text: &dyn Display) {
    let _ = writeln!(io::stderr(), "{text}");
}
