//! What memory and hardware a configuration needs, said before anything is opened: `fullnatd --check`.

use std::fmt;

use serde::Serialize;
use utoipa::ToSchema;

use super::checked::{Config, Dataplane};
use super::model::HugePages;
use crate::session::{Cold, Hot, Wide};

/// Bytes of one huge page.
const HUGE_PAGE: u64 = 2 << 20;
/// A session's part of the index that finds it from both directions.
const SESSION_INDEX_BYTES: u64 = 32;
/// `struct rte_mbuf` and the mempool's header of an object.
const MBUF_HEADER_BYTES: u64 = 128 + 64;
/// `RTE_PKTMBUF_HEADROOM`.
const HEADROOM_BYTES: u32 = 128;
/// Ethernet header, a VLAN tag and the FCS.
const ETHERNET_BYTES: u32 = 14 + 4 + 4;
/// The data room that most PMDs expect at least (`RTE_MBUF_DEFAULT_DATAROOM`).
const DATA_ROOM_MIN: u32 = 2048;
/// Buffers a mempool keeps aside for each worker, and those in the worker's hands.
const MBUFS_PER_WORKER: u64 = 1024;
/// Bytes of a book of leases for all 65536 ports, split among the workers.
const BOOK_BYTES: u64 = 65_536 / 8;

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
    /// (LIP, protocol, RIP, rport) that can have leases
    pub lease_books_max: u64,
    /// (pool, protocol, RIP, rport) that can have leases
    pub lease_destinations_max: u64,
    /// bytes of leases if all of them are in use
    pub lease_bytes_max: u64,
    /// bytes in all
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
        let mbufs = dataplane.mbufs.unwrap_or_else(|| mbufs(dataplane, &queues, config.neighbours.queue_len));
        let mtu_max = config.ports.iter().map(|port| u32::from(port.mtu)).max().unwrap_or(0);
        let mbuf_data_bytes =
            HEADROOM_BYTES + DATA_ROOM_MIN.max((mtu_max + ETHERNET_BYTES).next_multiple_of(64));
        let mbuf_bytes = u64::from(mbufs) * (u64::from(mbuf_data_bytes) + MBUF_HEADER_BYTES);

        let mut per_session = (size_of::<Hot>() + size_of::<Cold>()) as u64 + SESSION_INDEX_BYTES;
        if config.uses_ipv6() {
            per_session += size_of::<Wide>() as u64;
        }
        let session_bytes_per_worker = u64::from(dataplane.sessions_per_worker()) * per_session;
        let session_bytes = session_bytes_per_worker * workers;

        let (lease_destinations_max, lease_books_max) = leases(config);
        // A book's memory is touched with use, and a book in use has a session: there are never more.
        let lease_bytes_max = lease_books_max.min(u64::from(dataplane.sessions_max)) * BOOK_BYTES;
        let in_huge_pages = mbuf_bytes.next_multiple_of(HUGE_PAGE)
            + session_bytes_per_worker.next_multiple_of(HUGE_PAGE) * workers;
        Requirements {
            workers: dataplane.workers,
            cores: dataplane.workers + 1,
            devices: config.ports.iter().map(|port| port.device.as_str().to_owned()).collect(),
            queues,
            mbufs,
            mbuf_data_bytes,
            mbuf_bytes,
            sessions_per_worker: dataplane.sessions_per_worker(),
            session_bytes_per_worker,
            session_bytes,
            lease_books_max,
            lease_destinations_max,
            lease_bytes_max,
            bytes: mbuf_bytes + session_bytes + lease_bytes_max,
            huge_pages: (dataplane.huge_pages != HugePages::Off).then_some(in_huge_pages / HUGE_PAGE),
        }
    }
}

/// Packet buffers that keep every queue filled while rings between workers and the queues of unresolved neighbours
/// hold some; one less than a power of two, which a mempool stores best.
fn mbufs(dataplane: &Dataplane, queues: &[u16], neighbour_queue_len: u16) -> u32 {
    let workers = u64::from(dataplane.workers);
    let descriptors = u64::from(dataplane.rx_ring) + u64::from(dataplane.tx_ring);
    let in_queues: u64 = queues.iter().map(|&queues| u64::from(queues) * descriptors).sum();
    // The rings are far apart from full as a rule, and full ones drop: room for one full ring per worker.
    let in_hand_off = if workers > 1 { workers * u64::from(dataplane.hand_off_ring) } else { 0 };
    let waiting = workers * 8 * u64::from(neighbour_queue_len);
    let wanted = in_queues + in_hand_off + waiting + workers * MBUFS_PER_WORKER;
    let rounded = (wanted + 1).next_power_of_two() - 1;
    u32::try_from(rounded).unwrap_or(u32::MAX)
}

/// How many (pool, protocol, RIP, rport), and with each LIP of the family how many (LIP, protocol, RIP, rport), the
/// services can come to use.
fn leases(config: &Config) -> (u64, u64) {
    let (mut destinations, mut books) = (0u64, 0u64);
    for service in &config.services {
        let dialled: u64 =
            service.listen.iter().map(|listen| u64::from(listen.port_last - listen.port_first) + 1).sum();
        let locals = &config.pools[service.pool].addresses;
        let locals_v4 = locals.iter().filter(|local| local.is_v4()).count() as u64;
        let locals_v6 = locals.len() as u64 - locals_v4;
        for server in &service.real_servers {
            let ports = if server.port.is_some() { 1 } else { dialled };
            destinations += ports;
            books += ports * if server.address.is_v4() { locals_v4 } else { locals_v6 };
        }
    }
    (destinations, books)
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
            "leases       {} if every local address is used to every real server",
            Bytes(self.lease_bytes_max)
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
        assert!(small.session_bytes <= 160 * 1_000_000, "at most 160 bytes per IPv4 session");
        assert_eq!(small.mbuf_data_bytes, 2048 + 128);
        assert_eq!(small.lease_destinations_max, 11 + 1);
        assert_eq!(small.lease_books_max, 12 * 4);
        let pages = small.huge_pages.unwrap();
        assert!(pages * HUGE_PAGE >= small.mbuf_bytes + small.session_bytes);
        assert_eq!(of("workers = 2\nhuge_pages = \"off\"").huge_pages, None);
        assert_eq!(of("workers = 2\neal = [\"--no-huge\"]").huge_pages, None);
        assert!(of("workers = 8").mbufs > small.mbufs);
        assert_eq!(of("mbufs = 5000").mbufs, 5000);
    }

    #[test]
    fn people_can_read_it() {
        let text = of("workers = 2\nsessions_max = 4_000_000").to_string();
        assert!(text.contains("cores        3 (2 forward, 1 for control)"), "{text}");
        assert!(text.contains("GiB") || text.contains("MiB"), "{text}");
    }
}
