//! Tables for people: columns by name, no frame, no colour, nothing that depends on the terminal.

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use fullnat::control::view;

use crate::Failure;
use crate::output::{Output, clean};
use crate::units::{bytes, count, percent, span};

/// A cell of text.
fn text(value: impl AsRef<str>) -> Cell {
    Cell::new(clean(value.as_ref()))
}

/// A cell of a number.
fn number(value: impl ToString) -> Cell {
    Cell::new(value.to_string()).set_alignment(CellAlignment::Right)
}

/// A table under construction. Columns whose name begins with `>` are aligned to the right.
struct Sheet(Table);

impl Sheet {
    fn new(header: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(header.iter().map(|name| match name.strip_prefix('>') {
            Some(name) => number(name),
            None => Cell::new(name),
        }));
        Sheet(table)
    }

    fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.0.add_row(cells.into_iter().collect::<Vec<_>>());
    }

    fn print(self) -> String {
        self.0
            .lines()
            .fold(String::new(), |all, line| all + line.strip_prefix(' ').unwrap_or(&line).trim_end() + "\n")
    }
}

/// `version`
pub fn version(version: &view::Version) -> String {
    let workers = if version.workers == 1 { "worker" } else { "workers" };
    format!(
        "{} {}, process {}, up {}, {} {workers}, configuration generation {}\n",
        clean(&version.name),
        clean(&version.version),
        version.pid,
        span(version.uptime_secs as f64),
        version.workers,
        version.generation
    )
}

/// `ports`
pub fn ports(ports: &[view::Port]) -> String {
    let header = [
        "PORT",
        "LINK",
        ">SPEED",
        "MAC",
        ">MTU",
        ">RX",
        ">RX BYTES",
        ">TX",
        ">TX BYTES",
        ">MISSED",
        "ADDRESSES",
        "DEVICE",
    ];
    let mut sheet = Sheet::new(&header);
    for port in ports {
        sheet.row([
            text(&port.name),
            text(if port.link.up { "up" } else { "down" }),
            number(port.link.speed_mbps.map_or("-".to_owned(), |mbps| format!("{mbps} Mbit/s"))),
            text(&port.mac),
            number(port.mtu),
            number(count(port.rx_packets)),
            number(bytes(port.rx_bytes)),
            number(count(port.tx_packets)),
            number(bytes(port.tx_bytes)),
            number(count(port.link.rx_missed + port.link.rx_no_buffer)),
            text(port.addresses.join(" ")),
            text(&port.link.device),
        ]);
    }
    sheet.print()
}

/// `workers`
pub fn workers(workers: &[view::Worker]) -> String {
    let header = [
        ">WORKER",
        ">GENERATION",
        ">RX",
        ">TX",
        ">MADE",
        ">HANDED OFF",
        ">HELD",
        ">DROPPED",
        ">SESSIONS",
        ">OF",
        ">CREATED",
    ];
    let mut sheet = Sheet::new(&header);
    for worker in workers {
        sheet.row([
            number(worker.id),
            number(worker.generation),
            number(count(worker.rx_packets)),
            number(count(worker.tx_packets)),
            number(count(worker.originated_packets)),
            number(count(worker.handed_off_packets)),
            number(count(worker.held_packets)),
            number(count(worker.dropped_packets)),
            number(count(worker.sessions_live)),
            number(count(worker.sessions_max)),
            number(count(worker.sessions_created)),
        ]);
    }
    format!("{}\n{}", sheet.print(), loads(workers))
}

/// How busy each worker is, and with what: cycles per packet, of all turns that found work and of each phase.
fn loads(workers: &[view::Worker]) -> String {
    let phases = workers.first().map_or(&[][..], |worker| &worker.phases);
    let header = [">WORKER", ">BUSY", ">PER BURST", ">CYCLES/PACKET"].map(str::to_owned);
    let header: Vec<String> = header
        .into_iter()
        .chain(
            phases.iter().map(|phase| format!(">{}", clean(&phase.phase).to_uppercase().replace('_', " "))),
        )
        .collect();
    let mut sheet = Sheet::new(&header.iter().map(String::as_str).collect::<Vec<_>>());
    // What was never counted is no zero.
    let known = |known: bool, figure: String| number(if known { figure } else { "-".to_owned() });
    let cycles = |cycles: Option<f64>| known(cycles.is_some(), format!("{:.1}", cycles.unwrap_or_default()));
    for worker in workers {
        let head = [
            number(worker.id),
            known(worker.turns > 0, percent(worker.busy)),
            known(worker.bursts > 0, format!("{:.1}", worker.burst_fill)),
            cycles(worker.cycles_per_packet),
        ];
        sheet.row(head.into_iter().chain(worker.phases.iter().map(|phase| cycles(phase.cycles_per_packet))));
    }
    sheet.print()
}

/// `services`
pub fn services(services: &[view::Service]) -> String {
    let header = [
        "SERVICE",
        "LISTEN",
        "SCHEDULER",
        "REAL SERVER",
        ">WEIGHT",
        "STATE",
        ">ACTIVE",
        ">INACTIVE",
        ">CREATED",
        ">NO PORT",
        ">IN",
        ">IN BYTES",
        ">OUT",
        ">OUT BYTES",
    ];
    let mut sheet = Sheet::new(&header);
    for service in services {
        let listen = match service.removed {
            true => "(removed)".to_owned(),
            false => format!("{} {}", service.protocol, service.listen.join(" ")),
        };
        let mut head = Some([text(&service.name), text(listen), text(&service.scheduler)]);
        if service.real_servers.is_empty() {
            sheet.row(head.take().into_iter().flatten().chain([text("(none)")]));
        }
        for server in &service.real_servers {
            let state = match server.state {
                view::RealServerState::Active => "active",
                view::RealServerState::Draining => "draining",
                view::RealServerState::Removed => "removed",
            };
            // A dot keeps the columns apart for programs that split at blanks.
            let head = head.take().unwrap_or_else(|| [text("."), text("."), text(".")]);
            sheet.row(head.into_iter().chain([
                text(&server.address),
                number(server.weight),
                text(state),
                number(count(server.sessions_active)),
                number(count(server.sessions_inactive)),
                number(count(server.sessions_created)),
                number(count(server.refused_no_port)),
                number(count(server.inbound_packets)),
                number(bytes(server.inbound_bytes)),
                number(count(server.outbound_packets)),
                number(bytes(server.outbound_bytes)),
            ]));
        }
    }
    sheet.print()
}

/// Prints sessions page by page.
pub struct SessionPrinter {
    output: Output,
    printed: usize,
}

impl SessionPrinter {
    /// Nothing printed yet.
    pub fn new(output: Output) -> Self {
        SessionPrinter { output, printed: 0 }
    }

    /// Prints one page: rows of a table, or elements of a JSON array.
    pub fn page(&mut self, sessions: &[view::Session]) -> Result<(), Failure> {
        let mut all = String::new();
        if self.output.json {
            for session in sessions {
                let json = serde_json::to_string(session).map_err(|error| Failure::Output(error.into()))?;
                all += if self.printed == 0 { "{\"sessions\": [\n  " } else { ",\n  " };
                all += &json;
                self.printed += 1;
            }
        } else if !sessions.is_empty() {
            let table = sessions_table(sessions);
            // The header once is enough.
            let from = if self.printed == 0 { 0 } else { table.find('\n').map_or(0, |end| end + 1) };
            all += &table[from..];
            self.printed += sessions.len();
        }
        self.output.text(&all)
    }

    /// Ends the output; `more` says that there are further sessions.
    pub fn end(self, more: bool) -> Result<(), Failure> {
        if self.output.json {
            return self.output.text(if self.printed == 0 { "{\"sessions\": []}\n" } else { "\n]}\n" });
        }
        match (self.printed, more) {
            (_, true) => eprintln!("(there are more: --all shows them)"),
            (0, false) => eprintln!("(no session)"),
            _ => {}
        }
        Ok(())
    }
}

fn sessions_table(sessions: &[view::Session]) -> String {
    let header = [
        ">WORKER",
        "PROTO",
        "CLIENT",
        "VIRTUAL",
        "LOCAL",
        "REAL SERVER",
        "STATE",
        ">PACKETS",
        ">AGE",
        ">IDLE",
        "SERVICE",
    ];
    let mut sheet = Sheet::new(&header);
    for session in sessions {
        sheet.row([
            number(session.worker),
            text(&session.protocol),
            text(client(session)),
            text(&session.virtual_address),
            text(&session.local),
            text(&session.real_server),
            text(&session.state),
            number(count(session.packets.into())),
            number(span(session.age_secs)),
            number(span(session.idle_secs)),
            text(session.service.as_deref().unwrap_or("-")),
        ]);
    }
    sheet.print()
}

/// The client by the word of the front that its packets come from, if there is one.
fn client(session: &view::Session) -> String {
    match &session.named_client {
        Some(named) => format!("{named} via {}", session.client),
        None => session.client.clone(),
    }
}

/// `neighbours`
pub fn neighbours(neighbours: &[view::Neighbour]) -> String {
    let mut sheet = Sheet::new(&["PORT", "ADDRESS", "MAC", "STATE", ">AGE", ">HELD", ">WORKER"]);
    for neighbour in neighbours {
        sheet.row([
            text(&neighbour.port),
            text(&neighbour.address),
            text(neighbour.mac.as_deref().unwrap_or("-")),
            text(&neighbour.state),
            number(span(neighbour.age_secs)),
            number(neighbour.held),
            number(neighbour.worker),
        ]);
    }
    sheet.print()
}

/// `routes`
pub fn routes(routes: &[view::Route]) -> String {
    let mut sheet = Sheet::new(&["TO", "VIA", "PORT", "KIND"]);
    for route in routes {
        sheet.row([
            text(&route.to),
            text(route.via.as_deref().unwrap_or("-")),
            text(&route.port),
            text(if route.connected { "connected" } else { "static" }),
        ]);
    }
    sheet.print()
}

/// `pools`
pub fn pools(pools: &[view::Pool]) -> String {
    let header =
        ["POOL", "PORT", "L4 PORTS", "WHAT", "ADDRESS", ">LEASED", ">RESTING", ">ROOM", ">USED", ">REFUSED"];
    let mut sheet = Sheet::new(&header);
    for pool in pools {
        let head = || [text(&pool.name), text(&pool.port), text(&pool.l4_ports)];
        for local in &pool.by_address {
            sheet.row(head().into_iter().chain([
                text(if local.removed { "removed" } else { "local" }),
                text(&local.address),
                number(count(local.leased)),
                number(count(local.resting)),
                number("-"),
                number("-"),
                number("-"),
            ]));
        }
        for to in &pool.by_real_server {
            let used = if to.ports == 0 { 0.0 } else { to.leased as f64 / to.ports as f64 };
            sheet.row(head().into_iter().chain([
                text(format!("to {}", to.protocol)),
                text(&to.address),
                number(count(to.leased)),
                number(count(to.resting)),
                number(count(to.ports)),
                number(percent(used)),
                number(count(to.refused)),
            ]));
        }
    }
    sheet.print()
}

/// `drops`: those that occurred, most first, or all in the order of the packet's way.
pub fn drops(drops: &[view::Drop], all: bool) -> String {
    let mut shown: Vec<_> = drops.iter().filter(|drop| all || drop.total > 0).collect();
    if shown.is_empty() {
        return "no packet was dropped\n".to_owned();
    }
    if !all {
        shown.sort_by_key(|drop| std::cmp::Reverse(drop.total));
    }
    let mut sheet = Sheet::new(&["REASON", "SEVERITY", ">PACKETS", ">PER WORKER", "WHAT IT MEANS"]);
    for drop in shown {
        let per_worker: Vec<_> = drop.workers.iter().map(|&packets| count(packets)).collect();
        sheet.row([
            text(&drop.reason),
            text(&drop.severity),
            number(count(drop.total)),
            number(per_worker.join(" + ")),
            text(&drop.sentence),
        ]);
    }
    sheet.print()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_worker_is_no_plural() {
        let of = |workers| {
            let (name, number) = ("fullnat".into(), "0.1.0".into());
            version(&view::Version { name, version: number, pid: 7, uptime_secs: 5, workers, generation: 1 })
        };
        assert!(of(1).contains(", 1 worker,"), "{}", of(1));
        assert!(of(2).contains(", 2 workers,"), "{}", of(2));
    }
}
