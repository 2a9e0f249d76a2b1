//! `fullnatctl`: the operator's client of the control socket.
//!
//! Exit status: 0 done; 1 the gateway refused, the reasons are on standard error; 2 wrong usage; 3 the gateway cannot
//! be reached.

mod commands;
mod output;
mod tables;
mod units;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use fullnat::control::client::{ClientError, SOCKET_DEFAULT};
use fullnat::cpu;
use std::path::PathBuf;

/// Asks and changes a running FULLNAT gateway.
#[derive(Parser)]
#[command(name = "fullnatctl", version, max_term_width = 110)]
struct Arguments {
    /// the gateway's control socket
    #[arg(long, global = true, env = "FULLNAT_SOCKET", default_value = SOCKET_DEFAULT, value_name = "PATH")]
    socket: PathBuf,
    /// print JSON for programs instead of tables for people
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What runs
    Version,
    /// The NIC ports, their links and traffic
    Ports,
    /// The workers: what they counted, how busy they are and with what
    Workers {
        /// over the next so many seconds instead of since start
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        seconds: Option<u32>,
    },
    /// The virtual services and their real servers
    Services {
        /// only this service
        name: Option<String>,
    },
    /// Sessions
    Sessions(Sessions),
    /// The neighbour tables
    Neighbours,
    /// The routes
    Routes,
    /// The local pools and how far they are used
    Pools,
    /// Why packets were not forwarded
    Drops {
        /// also reasons that never occurred
        #[arg(long)]
        all: bool,
    },
    /// The configuration
    #[command(subcommand)]
    Config(Config),
    /// Real servers of a service
    #[command(subcommand)]
    RealServer(RealServer),
    /// The OpenAPI document of the control socket
    Openapi {
        /// the one built into this program, without asking a gateway
        #[arg(long)]
        offline: bool,
    },
    /// All counters in the OpenMetrics text format
    Metrics,
}

#[derive(clap::Args)]
struct Sessions {
    /// only sessions of this client, with or without a port
    #[arg(long, value_name = "ADDRESS")]
    client: Option<String>,
    /// only sessions to this virtual address, with or without a port
    #[arg(long, value_name = "ADDRESS")]
    vip: Option<String>,
    /// only sessions at this real server, with or without a port
    #[arg(long, value_name = "ADDRESS")]
    rip: Option<String>,
    /// only tcp or udp
    #[arg(long)]
    protocol: Option<String>,
    /// only sessions in this state, such as ESTABLISHED
    #[arg(long)]
    state: Option<String>,
    /// how many
    #[arg(long, default_value_t = 100, conflicts_with = "all", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// all of them, however many
    #[arg(long)]
    all: bool,
}

#[derive(Subcommand)]
enum Config {
    /// Prints the running configuration, as TOML or with --json as JSON
    Show,
    /// Replaces the running configuration, whole or not at all
    Apply {
        /// a TOML file, a JSON file by its name's end (.json), or - for TOML on standard input
        file: PathBuf,
        /// only check whether it could be done
        #[arg(long)]
        check: bool,
    },
    /// Makes the gateway read its file again
    Reload {
        /// only check whether it could be done
        #[arg(long)]
        check: bool,
    },
    /// Writes the running configuration into the gateway's file, whose comments are lost
    Save,
}

/// Which real server of which service.
#[derive(clap::Args)]
struct Whom {
    /// the service's name
    service: String,
    /// the real server: address:port, or address for the port the client dialled
    address: String,
}

#[derive(Subcommand)]
enum RealServer {
    /// Adds one
    Add {
        #[command(flatten)]
        whom: Whom,
        /// its weight
        #[arg(long)]
        weight: Option<u16>,
    },
    /// Removes one; what becomes of its sessions is the service's on_remove
    Remove {
        #[command(flatten)]
        whom: Whom,
    },
    /// Sets the weight of one
    Weight {
        #[command(flatten)]
        whom: Whom,
        /// 0 takes no new sessions
        weight: u16,
    },
    /// Gives one no new sessions
    Drain {
        #[command(flatten)]
        whom: Whom,
    },
    /// Gives a drained one new sessions again
    Undrain {
        #[command(flatten)]
        whom: Whom,
        /// its weight; the one it had if left out
        #[arg(long)]
        weight: Option<u16>,
    },
}

/// Why the command did not do its work.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot read {path}: {error}")]
    Input {
        /// the file
        path: PathBuf,
        /// what the system said
        error: std::io::Error,
    },
    #[error("cannot write the output: {0}")]
    Output(std::io::Error),
    #[error("cannot start: {0}")]
    Start(std::io::Error),
}

fn main() -> ExitCode {
    // First, and with nothing but precompiled functions: all the rest may hold instructions that this processor lacks.
    if !cpu::fit() {
        let _ = std::io::stderr().write_all(b"fullnatctl: ");
        let _ = std::io::stderr().write_all(cpu::UNFIT.as_bytes());
        return ExitCode::from(3);
    }
    start()
}

#[inline(never)]
fn start() -> ExitCode {
    let arguments = Arguments::parse();
    let json = arguments.json;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Start);
    match runtime.and_then(|runtime| runtime.block_on(commands::run(arguments))) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has had enough of it.
        Err(Failure::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            output::complain(&failure, json);
            ExitCode::from(match failure {
                Failure::Client(ClientError::Unreachable { .. }) | Failure::Start(_) => 3,
                Failure::Input { .. } => 2,
                Failure::Client(_) | Failure::Output(_) => 1,
            })
        }
    }
}
