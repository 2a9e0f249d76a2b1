//! The engine, measured inside one process: no devices, no kernel, no other core.
//!
//! `cargo bench --no-default-features --bench engine -- CASE [OPTIONS]` prints one JSON object per result and tells
//! people on the standard error how it goes. `scripts/bench.sh` runs it and everything else.

mod buffer;
mod cycles;
mod frame;
mod lab;
mod population;
mod reference;
mod statistics;

use std::time::Duration;

use clap::{Parser, Subcommand};

use frame::Kind;

/// Measures the engine inside one process.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    case: Case,
    /// The core to run on
    #[arg(long, global = true)]
    core: Option<usize>,
    /// Do without reserved huge pages
    #[arg(long, global = true)]
    small_pages: bool,
    /// What cargo adds
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Case {
    /// Cycles per packet of the path alone
    Cycles {
        /// Numbers of live sessions
        #[arg(long, value_delimiter = ',', default_value = "65536,1000000,4000000,10000000")]
        sessions: Vec<u32>,
        /// Kinds of frames: udp4, tcp4, udp6, tcp6
        #[arg(long, value_delimiter = ',', default_value = "udp4,tcp4,udp6,tcp6", value_parser = kind)]
        kinds: Vec<Kind>,
        /// Seconds to measure each
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
        /// Leave out the Zipf run
        #[arg(long)]
        no_zipf: bool,
    },
}

fn kind(name: &str) -> Result<Kind, String> {
    Kind::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| format!("no kind {name}: udp4, tcp4, udp6, tcp6"))
}

fn main() {
    let arguments = Arguments::parse();
    if let Some(core) = arguments.core {
        pin(core);
    }
    let huge_pages = !arguments.small_pages;
    match arguments.case {
        Case::Cycles { sessions, kinds, seconds, no_zipf } => cycles::run(&cycles::Settings {
            sessions,
            kinds,
            duration: Duration::from_secs_f64(seconds),
            zipf: !no_zipf,
            huge_pages,
        }),
    }
}

fn pin(core: usize) {
    let mut set = nix::sched::CpuSet::new();
    set.set(core).and_then(|()| nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)).unwrap_or_else(
        |error| {
            eprintln!("cannot run on core {core}: {error}");
            std::process::exit(1);
        },
    );
}
