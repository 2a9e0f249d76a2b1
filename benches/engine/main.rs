//! The engine, measured inside one process: no devices, no kernel, no other core.
//!
//! `cargo run --release --example engine -- CASE [OPTIONS]` prints one JSON object per result and tells people on
//! the standard error how it goes. `scripts/bench.sh` runs it and everything else.

mod both_ways;
mod buffer;
mod clock;
mod count;
mod cycles;
mod frame;
mod lab;
mod latency;
mod memory;
mod new_sessions;
mod parts;
mod population;
mod reference;
mod rounds;
mod speed;
mod statistics;
mod toa;
mod workers;

use std::time::Duration;

use clap::{Parser, Subcommand};

use frame::Kind;
use new_sessions::Beginning;
use rounds::Plan;

/// Measures the engine inside one process.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    case: Case,
    /// The core to run on
    #[arg(long, global = true)]
    core: Option<usize>,
    /// Simple steps per cycle that this CPU was seen to make at full speed, as `speed` prints them
    #[arg(long, global = true, default_value_t = 0.0)]
    full_speed: f64,
    /// Do without reserved huge pages
    #[arg(long, global = true)]
    small_pages: bool,
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
    /// Cycles per new session, its end included
    NewSessions {
        /// What begins: udp, syn, life
        #[arg(long, value_delimiter = ',', default_value = "udp,syn,life", value_parser = beginning)]
        beginnings: Vec<Beginning>,
        /// Percentages of the local pool in use
        #[arg(long, value_delimiter = ',', default_value = "10,50,90,99")]
        pool_use: Vec<u32>,
        /// Seconds to measure each
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
    },
    /// Bytes per live session
    Memory {
        /// Numbers of live sessions
        #[arg(long, value_delimiter = ',', default_value = "1000000,10000000")]
        sessions: Vec<u32>,
        /// Kinds of frames
        #[arg(long, value_delimiter = ',', default_value = "tcp4,tcp6", value_parser = kind)]
        kinds: Vec<Kind>,
    },
    /// As many answers as requests, against requests alone
    BothWays {
        /// Numbers of live sessions
        #[arg(long, value_delimiter = ',', default_value = "1000,1000000")]
        sessions: Vec<u32>,
        /// Seconds to measure each
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
    },
    /// The client's address in every request, against none
    Toa {
        /// Numbers of live sessions
        #[arg(long, value_delimiter = ',', default_value = "1000,1000000")]
        sessions: Vec<u32>,
        /// Seconds to measure each
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
    },
    /// Round trips of UDP datagrams at a fixed rate; the standard input is the bound socket that they arrive at
    Latency {
        /// Address and port of that socket, or of the service before it
        to: std::net::SocketAddr,
        /// Datagrams per second
        #[arg(long, default_value_t = 10_000)]
        rate: u32,
        /// Seconds to send
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
    },
    /// How many simple steps the core makes in a cycle right now
    Speed,
    /// Run a part once, for callgrind to count; without a name: list them
    Count {
        /// As listed
        name: Option<String>,
    },
    /// Several workers against one
    Workers {
        /// Numbers of workers; those beyond the cores are left out
        #[arg(long, value_delimiter = ',', default_value = "2,4,8")]
        counts: Vec<u16>,
        /// Live sessions of all workers together
        #[arg(long, default_value_t = 1_000_000)]
        sessions: u32,
        /// Seconds to measure each
        #[arg(long, default_value_t = 4.0)]
        seconds: f64,
    },
}

fn beginning(name: &str) -> Result<Beginning, String> {
    match name {
        "udp" => Ok(Beginning::Udp),
        "syn" => Ok(Beginning::Syn),
        "life" => Ok(Beginning::Life),
        _ => Err(format!("no beginning {name}: udp, syn, life")),
    }
}

fn kind(name: &str) -> Result<Kind, String> {
    Kind::ALL
        .into_iter()
        .find(|kind| kind.name() == name)
        .ok_or_else(|| format!("no kind {name}: udp4, tcp4, udp6, tcp6"))
}

fn main() {
    let arguments = Arguments::parse();
    if let Some(core) = arguments.core {
        pin(core);
    }
    let huge_pages = !arguments.small_pages;
    let full_speed = arguments.full_speed;
    let plan = |seconds| Plan { duration: Duration::from_secs_f64(seconds), full_speed };
    match arguments.case {
        Case::Cycles { sessions, kinds, seconds, no_zipf } => cycles::run(&cycles::Settings {
            sessions,
            kinds,
            plan: plan(seconds),
            zipf: !no_zipf,
            huge_pages,
        }),
        Case::NewSessions { beginnings, pool_use, seconds } => new_sessions::run(&new_sessions::Settings {
            beginnings,
            pool_use,
            plan: plan(seconds),
            huge_pages,
        }),
        Case::Memory { sessions, kinds } => memory::run(&sessions, &kinds),
        Case::BothWays { sessions, seconds } => both_ways::run(&sessions, plan(seconds), huge_pages),
        Case::Toa { sessions, seconds } => toa::run(&sessions, plan(seconds), huge_pages),
        Case::Latency { to, rate, seconds } => finish(
            latency::far_end()
                .and_then(|far| latency::measure(&far, to, rate, Duration::from_secs_f64(seconds))),
        ),
        Case::Speed => speed::run(),
        Case::Count { name: None } => count::names().iter().for_each(|name| println!("{name}")),
        Case::Count { name: Some(name) } => match count::run(&name) {
            Some(times) => println!("{times}"),
            None => {
                eprintln!("nothing is called {name:?}; `count` without a name lists everything");
                std::process::exit(2);
            }
        },
        Case::Workers { counts, sessions, seconds } => workers::run(&counts, sessions, plan(seconds)),
    }
}

fn finish(done: std::io::Result<()>) {
    if let Err(error) = done {
        eprintln!("the socket failed: {error}");
        std::process::exit(1);
    }
}

/// Keeps this thread on a core.
fn pin(core: usize) {
    let mut set = nix::sched::CpuSet::new();
    set.set(core)
        .and_then(|()| nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set))
        .unwrap_or_else(|error| {
            eprintln!("cannot run on core {core}: {error}");
            std::process::exit(1);
        });
}
