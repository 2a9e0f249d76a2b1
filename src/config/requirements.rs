//! What memory and hardware a configuration needs, said before anything is opened: `fullnatd --check`.

use std::fmt;

use serde::Serialize;
use utoipa::ToSchema;

use super::buffers::{self, BufferDemand};
use super::checked::{Config, Service};
use super::model::HugePages;
use crate::id::WorkerId;
use crate::local_pool::LeaseMemory;
use crate::session::TableMemory;
use crate::wire::{Address, Tuple};

/// Bytes of one huge page.
const HUGE_PAGE: u64 = 2 << 20;
/// How many times as many books and destinations as the services use at start there is room for, so that real servers,
/// local addresses and services can be added while the gateway runs.
const LEASE_GROWTH: u64 = 4;
/// Books and destinations there is room for however little is configured at start.
const LEASE_ROOM_MIN: u64 = 65_536;
/// Sessions of one worker that others may keep for it: one in so many, within these bounds.
const GUESTS: (u32, std::ops::RangeInclusive<u32>) = (16, 1024..=65_536);

/// Memory and hardware.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[schema(as = config::Requirements)]
pub struct Requirements {
    /// cores that forward
    pub workers: u16,
    /// cores in all: the workers' and control's
    pub cores: u16,
    /// the devices to be opened, in the order of the ports
    pub devices: Vec<String>,
    /// queues each way that each port is asked for; it works with fewer
    pub queues: Vec<u16>,
    /// packet buffers of all ports together
    pub mbufs: u32,
    /// bytes of a packet buffer for headroom and packet
    pub mbuf_data_bytes: u32,
    /// bytes of all packet buffers
    pub mbuf_bytes: u64,
    /// sessions each worker has room for
    pub sessions_per_worker: u32,
    /// bytes of one worker's sessions, index and timers included
    pub session_bytes_per_worker: u64,
    /// bytes of all workers' sessions
    pub session_bytes: u64,
    /// (LIP, protocol, RIP, rport) that the services can come to use
    pub lease_books: u64,
    /// (pool, protocol, RIP, rport) that the services can come to use
    pub lease_destinations: u64,
    /// (LIP, protocol, RIP, rport) that each worker can have leases of at a time, whatever is configured later
    pub lease_books_max: u64,
    /// (pool, protocol, RIP, rport) that each worker can have leases of at a time, whatever is configured later
    pub lease_destinations_max: u64,
    /// bytes of all workers' leases if everything that the services can come to use is in use
    pub lease_bytes: u64,
    /// bytes of address space for all workers' leases; touched with use
    pub lease_bytes_max: u64,
    /// sessions of each worker that others may keep for it
    pub guests_max: u32,
    /// bytes of all workers' notes of those
    pub guest_bytes: u64,
    /// bytes in all, leases as configured
    pub bytes: u64,
    /// 2 MiB huge pages for buffers and sessions; `None`: configured to do without
    pub huge_pages: Option<u64>,
}

impl Requirements {
    /// What `config` needs.
    pub fn of(config: &Config) -> Requirements {
        let dataplane = &config.dataplane;
        let workers = u64::from(dataplane.workers);
        let queues: Vec<u16> =
            config.ports.iter().map(|port| port.queues.unwrap_or(dataplane.workers)).collect();
        let mbufs = dataplane.mbufs.unwrap_or_else(|| {
            let descriptors = u32::from(dataplane.rx_ring) + 1 + u32::from(dataplane.tx_ring);
            let in_queues = queues.iter().map(|&queues| u32::from(queues) * descriptors).sum();
            BufferDemand::of(config, in_queues).buffers()
        });
        let mtu_max = config.ports.iter().map(|port| port.mtu).max().unwrap_or(0);
        let mbuf_data_bytes = u32::from(buffers::data_room(mtu_max));
        let mbuf_bytes = u64::from(mbufs) * (u64::from(mbuf_data_bytes) + buffers::HEADER_BYTES);

        let sessions_per_worker = dataplane.sessions_per_worker();
        let table = TableMemory::for_sessions(sessions_per_worker);
        let trunk_bytes = TableMemory::of_trunks(trunks(config).min(sessions_per_worker.into()) as u32);
        let has_fronts = config.services.iter().any(|service| !service.proxy_protocol_from.is_empty());
        let session_bytes_per_worker = table.full() + trunk_bytes + if has_fronts { table.named } else { 0 };
        let session_bytes = session_bytes_per_worker * workers;

        let (lease_destinations, lease_books) = leases(config);
        // A destination has a book and a book in use has a session: there are never more.
        let room = |configured: u64| {
            (configured * LEASE_GROWTH).max(LEASE_ROOM_MIN).min(u64::from(sessions_per_worker))
        };
        let (lease_destinations_max, lease_books_max) = (room(lease_destinations), room(lease_books));
        let memory = LeaseMemory::of_workers(dataplane.workers.into());
        let in_use = (lease_books.min(lease_books_max), lease_destinations.min(lease_destinations_max));
        let lease_bytes = memory.bytes(in_use.0, in_use.1) * workers;

        let (one_in, bounds) = GUESTS;
        let guests_max = match dataplane.workers {
            1 => 0,
            _ => {
                (sessions_per_worker / one_in).clamp(*bounds.start(), *bounds.end()).min(sessions_per_worker)
            }
        };
        let guest_bytes = guest_bytes(guests_max) * workers;
        // Hot and cold lines are arrays of their own.
        let arrays = [table.index, table.sessions / 2, table.sessions / 2];
        let in_huge_pages = mbuf_bytes.next_multiple_of(HUGE_PAGE)
            + arrays.iter().map(|bytes| bytes.next_multiple_of(HUGE_PAGE)).sum::<u64>() * workers;
        Requirements {
            workers: dataplane.workers,
            cores: dataplane.workers + 1,
            devices: config.ports.iter().map(|port| port.device.as_str().to_owned()).collect(),
            queues,
            mbufs,
            mbuf_data_bytes,
            mbuf_bytes,
            sessions_per_worker,
            session_bytes_per_worker,
            session_bytes,
            lease_books,
            lease_destinations,
            lease_books_max,
            lease_destinations_max,
            lease_bytes,
            lease_bytes_max: memory.bytes(lease_books_max, lease_destinations_max) * workers,
            guests_max,
            guest_bytes,
            bytes: mbuf_bytes + session_bytes + lease_bytes + guest_bytes,
            huge_pages: (dataplane.huge_pages != HugePages::Off).then_some(in_huge_pages / HUGE_PAGE),
        }
    }
}

/// Bytes of a hash map of so many guests: a power of two of places, one in eight free, each with a byte of control.
fn guest_bytes(guests_max: u32) -> u64 {
    let places = (u64::from(guests_max) * 8).div_ceil(7).next_power_of_two();
    if guests_max == 0 { 0 } else { places * (size_of::<(Tuple, WorkerId)>() as u64 + 1) }
}

/// How many (pool, protocol, RIP, rport), and with each LIP of the family how many (LIP, protocol, RIP, rport), the
/// services can come to use.
fn leases(config: &Config) -> (u64, u64) {
    let (mut destinations, mut books) = (0u64, 0u64);
    for service in &config.services {
        let dialled: u64 =
            service.listen.iter().map(|listen| u64::from(listen.port_last - listen.port_first) + 1).sum();
        let locals = Families::of(config.pools[service.pool].addresses.iter().copied());
        for server in &service.real_servers {
            let ports = if server.port.is_some() { 1 } else { dialled };
            destinations += ports;
            books += ports * if server.address.is_v4() { locals.v4 } else { locals.v6 };
        }
    }
    (destinations, books)
}

/// Numbers of addresses.
struct Families {
    v4: u64,
    v6: u64,
}

impl Families {
    fn of(addresses: impl Iterator<Item = Address>) -> Families {
        addresses.fold(Families { v4: 0, v6: 0 }, |Families { v4, v6 }, address| match address.is_v4() {
            true => Families { v4: v4 + 1, v6 },
            false => Families { v4, v6: v6 + 1 },
        })
    }
}

/// How many (VIP, LIP, RIP) of which at least one is IPv6 the services can come to use.
fn trunks(config: &Config) -> u64 {
    let of_service = |service: &Service| -> u64 {
        let vips = Families::of(service.listen.iter().map(|listen| listen.address));
        let lips = Families::of(config.pools[service.pool].addresses.iter().copied());
        let rips = Families::of(service.real_servers.iter().map(|server| server.address));
        // A local address is of the real server's family.
        (vips.v4 + vips.v6) * lips.v6 * rips.v6 + vips.v6 * lips.v4 * rips.v4
    };
    config.services.iter().map(of_service).sum()
}

impl fmt::Display for Requirements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "cores        {} ({} forward, 1 for control)", self.cores, self.workers)?;
        for (device, queues) in self.devices.iter().zip(&self.queues) {
            writeln!(f, "port         {device}, {queues} queue(s) each way if it has them")?;
        }
        writeln!(
            f,
            "buffers      {} of {} bytes, {}",
            self.mbufs,
            self.mbuf_data_bytes,
            Bytes(self.mbuf_bytes)
        )?;
        writeln!(
            f,
            "sessions     {} for each worker, {} each, {} in all",
            self.sessions_per_worker,
            Bytes(self.session_bytes_per_worker),
            Bytes(self.session_bytes)
        )?;
        writeln!(
            f,
            "leases       {} if every local address is used to every real server, room for {} pairs in each worker",
            Bytes(self.lease_bytes),
            self.lease_books_max
        )?;
        match self.huge_pages {
            Some(pages) => writeln!(f, "huge pages   {pages} of 2 MiB")?,
            None => writeln!(f, "huge pages   none")?,
        }
        write!(f, "memory       {}", Bytes(self.bytes))
    }
}

/// A number of bytes for people.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0 as f64;
        match self.0 {
            0..0x10_0000 => write!(f, "{:.0} KiB", bytes / 1024.0),
            0x10_0000..0x4000_0000 => write!(f, "{:.0} MiB", bytes / 1_048_576.0),
            _ => write!(f, "{:.1} GiB", bytes / 1_073_741_824.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn of(dataplane: &str) -> Requirements {
        let rest = r#"
            [[port]]
            name = "lan"
            device = "net_af_packet0,iface=lan"
            addresses = ["10.2.0.254/24"]
            [[local_pool]]
            name = "p"
            port = "lan"
            addresses = ["10.2.0.100-10.2.0.103"]
            [[service]]
            name = "ftp"
            listen = ["10.2.0.200:21", "10.2.0.200:1000-1009"]
            protocol = "tcp"
            local_pool = "p"
            real_server = [{ address = "10.2.0.11" }, { address = "10.2.0.12:21" }]
        "#;
        Requirements::of(&parse(&format!("[dataplane]\n{dataplane}\n{rest}")).unwrap())
    }

    #[test]
    fn memory_follows_the_configuration() {
        let small = of("workers = 2\nsessions_max = 1_000_000");
        assert_eq!(small.cores, 3);
        assert_eq!(small.sessions_per_worker, 500_000);
        assert_eq!(small.mbuf_data_bytes, 2048 + 128);
        assert_eq!(small.lease_destinations, 11 + 1);
        assert_eq!(small.lease_books, 12 * 4);
        assert_eq!((small.lease_destinations_max, small.lease_books_max), (65_536, 65_536));
        let pages = small.huge_pages.unwrap();
        assert!(pages * HUGE_PAGE >= small.mbuf_bytes + small.session_bytes);
        assert_eq!(of("workers = 2\nhuge_pages = \"off\"").huge_pages, None);
        assert_eq!(of("workers = 2\neal = [\"--no-huge\"]").huge_pages, None);
        assert!(of("workers = 8").mbufs > small.mbufs);
        assert_eq!(of("mbufs = 5000").mbufs, 5000);
    }

    #[test]
    fn a_million_ipv4_sessions_take_160_bytes_each_with_all_that_belongs_to_them() {
        for workers in [1, 2, 4, 8] {
            let needs = of(&format!("workers = {workers}\nsessions_max = 1_000_000"));
            let bytes = needs.session_bytes + needs.lease_bytes + needs.guest_bytes;
            assert!(bytes <= 160 * 1_000_000, "{workers} workers: {bytes}");
        }
    }

    /// What is shared takes a line for each combination, however many sessions share it.
    #[test]
    fn sessions_with_an_ipv6_side_take_no_more_than_others() {
        let text = |vips: &str| {
            format!(
                r#"
            dataplane = {{ workers = 2, sessions_max = 1_000_000 }}
            port = [{{ name = "lan", device = "net_af_packet0,iface=lan",
                addresses = ["10.2.0.254/24", "2001:db8:2::fe/64"] }}]
            local_pool = [{{ name = "p", port = "lan",
                addresses = ["10.2.0.100-10.2.0.103", "2001:db8:2::100-2001:db8:2::101"] }}]
            service = [{{ name = "web", listen = [{vips}], protocol = "tcp", local_pool = "p",
                real_server = [{{ address = "10.2.0.11" }}, {{ address = "2001:db8:2::11" }}] }}]
        "#
            )
        };
        let trunks = |vips: &str| trunks(&parse(&text(vips)).unwrap());
        assert_eq!(trunks("\"10.2.0.200:80\""), 2, "an IPv4 client and an IPv6 server");
        assert_eq!(trunks("\"10.2.0.200:80\", \"[2001:db8:2::200]:80\""), 2 + 2 + 4);
        let bytes = |vips| Requirements::of(&parse(&text(vips)).unwrap()).session_bytes;
        assert_eq!(
            bytes("\"[2001:db8:2::200]:80\"") - bytes("\"10.2.0.200:80\""),
            2 * ((2 + 4 - 2) * 64 + (8 - 2) * 4)
        );
    }

    #[test]
    fn sessions_of_fronts_have_room_for_the_clients_that_those_name() {
        let text = |more: &str| {
            format!(
                r#"
            dataplane = {{ workers = 2, sessions_max = 1_000_000 }}
            port = [{{ name = "lan", device = "net_af_packet0,iface=lan", addresses = ["10.2.0.254/24"] }}]
            local_pool = [{{ name = "p", port = "lan", addresses = ["10.2.0.100"] }}]
            service = [{{ name = "web", listen = "10.2.0.200:80", protocol = "tcp", local_pool = "p", {more}
                real_server = [{{ address = "10.2.0.11" }}] }}]
        "#
            )
        };
        let [without, with] = ["", "proxy_protocol_from = [\"10.2.0.5\"],"]
            .map(|more| Requirements::of(&parse(&text(more)).unwrap()));
        assert_eq!(with.session_bytes - without.session_bytes, 40 * 1_000_000);
        assert_eq!(with.bytes - without.bytes, 40 * 1_000_000);
    }

    /// What is configured at start says little of what will be; sessions bound what can be used at a time.
    #[test]
    fn leases_have_room_for_what_comes_later_and_for_no_more_than_there_are_sessions() {
        assert_eq!(of("sessions_max = 5000").lease_books_max, 5000);
        let text = r#"
            dataplane.sessions_max = 1_000_000
            port = [{ name = "lan", device = "net_af_packet0,iface=lan", addresses = ["10.2.0.254/24"] }]
            local_pool = [{ name = "p", port = "lan", addresses = ["10.2.0.100-10.2.0.115"] }]
            service = [{ name = "wide", listen = "10.2.0.200:1-65535", protocol = "tcp", local_pool = "p",
                real_server = [{ address = "10.2.0.11" }, { address = "10.2.0.12" }] }]
        "#;
        let wide = Requirements::of(&parse(text).unwrap());
        assert_eq!(wide.lease_books, 2 * 65_535 * 16);
        assert_eq!((wide.lease_books_max, wide.lease_destinations_max), (1_000_000, 4 * 2 * 65_535));
    }

    #[test]
    fn people_can_read_it() {
        let text = of("workers = 2\nsessions_max = 4_000_000").to_string();
        assert!(text.contains("cores        3 (2 forward, 1 for control)"), "{text}");
        assert!(text.contains("GiB") || text.contains("MiB"), "{text}");
    }
}
