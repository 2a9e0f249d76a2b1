//! `fullnat-toa`: the real server's side of TOA. Unmodified servers see the client in `accept()` and `getpeername()`.
//!
//! It attaches eBPF programs to a cgroup and ends; they stay until `detach` or the next start of the machine. Exit status:
//! 0 done; 1 it could not be done; 2 wrong usage; 3 this machine lacks what the receiver needs, the sentence is on standard
//! error.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use fullnat::cpu;
use fullnat::receiver::{
    self, Connection, Cost, Extras, PIN_DEFAULT, Place, Prefix, ReceiverError, Status, Trust,
};
use serde::Serialize;

/// Makes the servers of this machine see the client behind a FULLNAT gateway.
#[derive(Parser)]
#[command(name = "fullnat-toa", version, max_term_width = 110)]
struct Arguments {
    /// where links and maps are pinned: a directory on a bpf file system
    #[arg(long, global = true, default_value = PIN_DEFAULT, value_name = "PATH")]
    pin: PathBuf,
    /// print JSON for programs instead of text for people
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Attach the programs, or put them in the place of those that are attached
    Attach {
        /// whose sockets: a cgroup and those below it; the root of the cgroup2 hierarchy unless named
        #[arg(long, value_name = "PATH")]
        cgroup: Option<PathBuf>,
        /// take the option from these senders only: the gateway's local addresses
        #[arg(long, value_name = "CIDR,...", value_delimiter = ',')]
        trust: Vec<Prefix>,
        /// also answer getsockopt(IPPROTO_IP, 4096) as toa.ko of DPVS does, for IPv6 clients of IPv4 sockets; slows every
        /// getsockopt of the cgroup a little
        #[arg(long)]
        nat64: bool,
        /// also for UDP (`client_address = "uoa"`): recvfrom() names the client, and what a server answers it goes back to
        /// the gateway; every datagram of the cgroup takes some tens of nanoseconds more
        #[arg(long)]
        udp: bool,
        /// how long a UDP session lives in the gateway without a datagram: `timeouts.udp_secs` of the service, the shortest
        /// of several
        #[arg(long, value_name = "SECONDS", default_value_t = 300, requires = "udp",
              value_parser = clap::value_parser!(u64).range(1..=2_592_000))]
        udp_idle: u64,
    },
    /// Take the programs away
    Detach,
    /// What the programs did
    Status {
        /// list the live connections: who the client is, and what stands on the wire
        #[arg(long)]
        connections: bool,
    },
}

fn main() -> ExitCode {
    // First, and with nothing but precompiled functions: all the rest may hold instructions that this processor lacks.
    if !cpu::fit() {
        let _ = std::io::stderr().write_all(b"fullnat-toa: ");
        let _ = std::io::stderr().write_all(cpu::UNFIT.as_bytes());
        return ExitCode::from(3);
    }
    start()
}

#[inline(never)]
fn start() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(text) => {
            // A reader that has seen enough is no failure.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("fullnat-toa: {error}");
            ExitCode::from(if error.is_of_the_machine() { 3 } else { 1 })
        }
    }
}

/// What goes to standard output.
fn run(arguments: &Arguments) -> Result<String, ReceiverError> {
    let place = Place::at(&arguments.pin)?;
    match &arguments.command {
        Command::Attach { cgroup, trust, nat64, udp, udp_idle } => {
            let trust = Trust::of(trust)?;
            let udp_idle = udp.then_some(Duration::from_secs(*udp_idle));
            let extras = Extras { look_up: *nat64, udp_idle };
            let attached = receiver::attach(&place, cgroup.as_deref(), &trust, &extras)?;
            if trust.is_everybody() {
                eprintln!(
                    "fullnat-toa: any sender's option is taken: name the gateway's local addresses with --trust \
                     unless nobody else can reach this server"
                );
            }
            for lack in attached.lacks {
                eprintln!("fullnat-toa: this kernel goes without {lack}");
            }
            if arguments.json {
                return Ok(json(&receiver::status(&place)?));
            }
            let how = if attached.replaced { "attached anew" } else { "attached" };
            Ok(format!("{how} to {}\n", attached.cgroup.display()))
        }
        Command::Detach => receiver::detach(&place).map(|()| "detached\n".to_owned()),
        Command::Status { connections: true } => {
            let connections = receiver::connections(&place)?;
            Ok(if arguments.json { json(&connections) } else { connection_table(&connections) })
        }
        Command::Status { connections: false } => {
            let status = receiver::status(&place)?;
            Ok(if arguments.json { json(&status) } else { status_text(&status) })
        }
    }
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string_pretty(value).expect("plain values") + "\n"
}

fn status_text(status: &Status) -> String {
    let trusted = if status.trusted.is_empty() { "everybody".into() } else { status.trusted.join(", ") };
    let mut text = format!(
        "attached to          {}\nprograms             {}\ntrusted              {trusted}\n",
        status.cgroup,
        status.programs.join(", ")
    );
    let counts = &status.counts;
    for (name, value) in [
        ("sessions", counts.sessions),
        ("options taken", counts.options),
        ("without option", counts.without_option),
        ("rejected, untrusted", counts.rejected_untrusted),
        ("rejected, malformed", counts.rejected_malformed),
        ("no memory", counts.no_memory),
        ("rewritten", counts.rewritten),
        ("not sayable", counts.not_sayable),
        ("looked up", counts.looked_up),
        ("udp options taken", counts.udp_options),
        ("udp, untrusted", counts.udp_rejected_untrusted),
        ("udp, malformed", counts.udp_rejected_malformed),
        ("udp, no memory", counts.udp_no_memory),
        ("udp, not sayable", counts.udp_not_sayable),
        ("udp shown", counts.udp_shown),
        ("udp answers", counts.udp_answers),
    ] {
        let _ = writeln!(text, "{name:<20} {value}");
    }
    for Cost { program, runs, nanoseconds } in &status.costs {
        let each = nanoseconds / runs;
        let _ = writeln!(text, "{:<20} {runs} runs, {each} ns each", format!("took, {program}"));
    }
    text
}

fn connection_table(connections: &[Connection]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["CLIENT", "GATEWAY", "LOCAL", "STATE"]);
    for connection in connections {
        table.add_row([
            Cell::new(connection.client),
            Cell::new(connection.gateway),
            Cell::new(connection.local),
            Cell::new(connection.state).set_alignment(CellAlignment::Left),
        ]);
    }
    table
        .lines()
        .fold(String::new(), |all, line| all + line.strip_prefix(' ').unwrap_or(&line).trim_end() + "\n")
}
