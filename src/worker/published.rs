//! The counters of one worker as everybody may read them.
//!
//! The worker counts in plain integers of its own and every few milliseconds stores them here; nobody else writes.
//! The cells are guarded by a sequence number (odd while the worker stores), so a reader sees one moment's numbers
//! and `rx + handed in + originated = tx + handed off + drops + held` holds in what it reads. Storing costs one relaxed store per counter, about
//! two dozen cache lines, and never waits; a reader tries again when it meets a store.

use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

use super::phases::TurnPhase;
use crate::path::counters::PathCounters;
use crate::path::drop_reason::{DropCounters, DropReason};
use crate::path::neighbour::NeighbourCounters;

/// Whether a number only grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CounterKind {
    /// only grows
    Counter,
    /// goes up and down
    Gauge,
}

macro_rules! counters {
    ($($variant:ident $name:literal $kind:ident $sentence:literal)*) => {
        /// What a worker counts, besides drops and the traffic of each port.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum Counter { $(#[doc = $sentence] $variant),* }

        impl Counter {
            /// Every counter, in the order of their cells.
            pub const ALL: &'static [Counter] = &[$(Counter::$variant),*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();
            /// The name in metrics and the control socket.
            pub const fn name(self) -> &'static str { match self { $(Counter::$variant => $name),* } }
            /// One sentence for people.
            pub const fn sentence(self) -> &'static str { match self { $(Counter::$variant => $sentence),* } }
            /// Whether it only grows.
            pub const fn kind(self) -> CounterKind { match self { $(Counter::$variant => CounterKind::$kind),* } }
        }
    };
}

counters! {
    RxPackets "rx_packets" Counter "Packets received from the ports."
    RxBytes "rx_bytes" Counter "Bytes of the frames received from the ports."
    TxPackets "tx_packets" Counter "Packets given to the ports."
    TxBytes "tx_bytes" Counter "Bytes of the frames given to the ports."
    OriginatedPackets "originated_packets" Counter "Packets the gateway made itself: resets, ICMP errors, echo replies, neighbour messages."
    HandedOffPackets "handed_off_packets" Counter "Packets given to the worker that is their home."
    HandedInPackets "handed_in_packets" Counter "Packets that other workers handed to this one."
    HeldPackets "held_packets" Gauge "Packets that wait for a neighbour to answer."
    SessionsLive "sessions_live" Gauge "Sessions in the table."
    SessionsMax "sessions_max" Gauge "Sessions the table can hold."
    SessionsCreated "sessions_created" Counter "Sessions ever made."
    SessionsExpired "sessions_expired" Counter "Sessions ended, by time-out or otherwise."
    LeasesTakenOver "leases_taken_over" Counter "Finished sessions that gave their local port to a new one because no other was free."
    ToaSent "toa_sent" Counter "Segments that told the real server the client's address (TOA)."
    ToaNoOptionRoom "toa_no_option_room" Counter "Segments without TOA because the TCP options had no room for it."
    ToaNoMtuRoom "toa_no_mtu_room" Counter "Segments without TOA because they would have exceeded the MTU."
    ToaAhead "toa_ahead" Counter "Bare ACKs with TOA sent ahead of such segments."
    UoaSent "uoa_sent" Counter "Datagrams that told the real server the client's address (UOA)."
    UoaNoOptionRoom "uoa_no_option_room" Counter "Datagrams without UOA because the client's IPv4 options left no room for it."
    UoaNoMtuRoom "uoa_no_mtu_room" Counter "Datagrams without UOA because they would have exceeded the MTU."
    ProxySent "proxy_sent" Counter "Connections whose PROXY protocol header was sent, and datagrams that carried one."
    ProxySentAgain "proxy_sent_again" Counter "PROXY protocol headers sent again to a real server that had not acknowledged them."
    ProxyNoBuffer "proxy_no_buffer" Counter "PROXY protocol headers not sent for want of a packet buffer; each is tried again."
    ProxyTaken "proxy_taken" Counter "PROXY protocol headers taken from fronts that the service trusts."
    RefusalsLimited "refusals_limited" Counter "Resets and ICMP errors not sent because of refusal.per_second."
    AddressConflicts "address_conflicts" Counter "Messages in which another host claimed an address of the gateway."
    AddressDefences "address_defences" Counter "Announcements of own addresses in answer to such claims."
    AnnouncementsLost "announcements_lost" Counter "Announcements of own addresses not sent for want of room."
    NeighbourFactsLost "neighbour_facts_lost" Counter "What was learned of neighbours and did not reach another worker, whose ring was full."
    NeighbourBuffersMissing "neighbour_buffers_missing" Counter "ARP and ND messages not sent for want of a buffer."
    Bursts "bursts" Counter "Bursts received that were not empty."
    EmptyPolls "empty_polls" Counter "Polls of a queue that found nothing."
    CyclesBusy "cycles_busy" Counter "Time-stamp counter cycles spent on turns of the loop that found work."
    CyclesIdle "cycles_idle" Counter "Time-stamp counter cycles spent on turns of the loop that found none, sleep included."
    SampledPackets "sampled_packets" Counter "Packets of the turns whose phases were timed, one working turn of 127."
    Turns "turns" Counter "Turns of the worker's loop; a worker whose turns stand still is stuck."
    Generation "generation" Gauge "Generation of the configuration the worker works by."
}

/// A worker's own counters, plain integers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    values: [u64; Counter::COUNT],
    /// cycles of the turns whose phases were timed
    phases: [u64; TurnPhase::COUNT],
}

impl Default for Counters {
    fn default() -> Self {
        Counters { values: [0; Counter::COUNT], phases: [0; TurnPhase::COUNT] }
    }
}

impl Counters {
    /// Adds to a counter.
    #[inline(always)]
    pub fn add(&mut self, counter: Counter, amount: u64) {
        self.values[counter as usize] += amount;
    }

    /// Sets a counter, usually a gauge.
    #[inline(always)]
    pub fn set(&mut self, counter: Counter, value: u64) {
        self.values[counter as usize] = value;
    }

    /// Adds the cycles of a turn whose phases were timed.
    pub fn add_phases(&mut self, cycles: &[u64; TurnPhase::COUNT]) {
        self.phases.iter_mut().zip(cycles).for_each(|(sum, cycles)| *sum += cycles);
    }

    /// Cycles of a phase in the turns that were timed.
    pub fn phase(&self, phase: TurnPhase) -> u64 {
        self.phases[phase as usize]
    }

    /// Takes over what the path and the neighbour table counted of single outcomes.
    pub(super) fn set_outcomes(&mut self, path: &PathCounters, neighbours: &NeighbourCounters) {
        for (counter, value) in [
            (Counter::SessionsCreated, path.sessions_created),
            (Counter::SessionsExpired, path.sessions_ended),
            (Counter::LeasesTakenOver, path.leases_taken_over),
            (Counter::ToaSent, path.toa_sent),
            (Counter::ToaNoOptionRoom, path.toa_no_option_room),
            (Counter::ToaNoMtuRoom, path.toa_no_mtu_room),
            (Counter::ToaAhead, path.toa_ahead),
            (Counter::UoaSent, path.uoa_sent),
            (Counter::UoaNoOptionRoom, path.uoa_no_option_room),
            (Counter::UoaNoMtuRoom, path.uoa_no_mtu_room),
            (Counter::ProxySent, path.proxy_sent),
            (Counter::ProxySentAgain, path.proxy_sent_again),
            (Counter::ProxyNoBuffer, path.proxy_no_buffer),
            (Counter::ProxyTaken, path.proxy_taken),
            (Counter::RefusalsLimited, path.refusals_limited),
            (Counter::AddressConflicts, neighbours.conflicts),
            (Counter::AddressDefences, neighbours.defences),
            (Counter::AnnouncementsLost, neighbours.announcements_lost),
            (Counter::NeighbourFactsLost, neighbours.facts_lost),
            (Counter::NeighbourBuffersMissing, neighbours.buffers_missing),
        ] {
            self.set(counter, value);
        }
    }

    /// Its value.
    #[inline(always)]
    pub fn get(&self, counter: Counter) -> u64 {
        self.values[counter as usize]
    }
}

/// One worker's traffic on one port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PortCounters {
    /// packets received
    pub rx_packets: u64,
    /// bytes of the frames received
    pub rx_bytes: u64,
    /// packets the device took
    pub tx_packets: u64,
    /// bytes of the frames the device took
    pub tx_bytes: u64,
}

impl PortCounters {
    const CELLS: usize = 4;

    fn to_cells(self) -> [u64; Self::CELLS] {
        [self.rx_packets, self.rx_bytes, self.tx_packets, self.tx_bytes]
    }

    fn from_cells(cells: [u64; Self::CELLS]) -> Self {
        let [rx_packets, rx_bytes, tx_packets, tx_bytes] = cells;
        PortCounters { rx_packets, rx_bytes, tx_packets, tx_bytes }
    }
}

/// The cells: written by one worker, read by control. Aligned so that two workers' never share a line, nor a pair of
/// lines that the adjacent-line prefetcher fetches together.
#[repr(align(128))]
pub struct Published {
    sequence: AtomicU64,
    counters: [AtomicU64; Counter::COUNT],
    phases: [AtomicU64; TurnPhase::COUNT],
    drops: [AtomicU64; DropReason::COUNT],
    ports: Box<[[AtomicU64; PortCounters::CELLS]]>,
}

impl Published {
    /// Cells for a worker of a gateway with `ports` ports, all 0.
    pub fn new(ports: usize) -> Self {
        Published {
            sequence: AtomicU64::new(0),
            counters: [const { AtomicU64::new(0) }; Counter::COUNT],
            phases: [const { AtomicU64::new(0) }; TurnPhase::COUNT],
            drops: [const { AtomicU64::new(0) }; DropReason::COUNT],
            ports: (0..ports).map(|_| [const { AtomicU64::new(0) }; PortCounters::CELLS]).collect(),
        }
    }

    /// Stores everything. Only the owning worker calls this; `ports` is indexed by port id.
    pub fn store(&self, counters: &Counters, drops: &DropCounters, ports: &[PortCounters]) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        let store = |cell: &AtomicU64, value: u64| cell.store(value, Ordering::Relaxed);
        self.counters.iter().zip(counters.values).for_each(|(cell, value)| store(cell, value));
        self.phases.iter().zip(counters.phases).for_each(|(cell, value)| store(cell, value));
        self.drops.iter().zip(drops.as_array()).for_each(|(cell, &value)| store(cell, value));
        for (cells, port) in self.ports.iter().zip(ports) {
            cells.iter().zip(port.to_cells()).for_each(|(cell, value)| store(cell, value));
        }
        self.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }

    /// Reads everything as of one moment. Should the worker be suspended in the middle of a store for as long as all
    /// attempts take, the numbers are those of two moments next to each other.
    pub fn read(&self) -> PublishedView {
        const ATTEMPTS: usize = 1000;
        const PAUSE: Duration = Duration::from_micros(1);
        for _ in 0..ATTEMPTS {
            if let Some(view) = self.read_at_once() {
                return view;
            }
            // The worker may need this very core to go on.
            std::thread::sleep(PAUSE);
        }
        self.read_once()
    }

    /// `None` if the worker stored meanwhile.
    fn read_at_once(&self) -> Option<PublishedView> {
        let before = self.sequence.load(Ordering::Acquire);
        let view = before.is_multiple_of(2).then(|| self.read_once())?;
        fence(Ordering::Acquire);
        (self.sequence.load(Ordering::Relaxed) == before).then_some(view)
    }

    fn read_once(&self) -> PublishedView {
        let load = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        PublishedView {
            counters: Counters {
                values: std::array::from_fn(|i| load(&self.counters[i])),
                phases: std::array::from_fn(|i| load(&self.phases[i])),
            },
            drops: std::array::from_fn(|i| load(&self.drops[i])),
            ports: self
                .ports
                .iter()
                .map(|cells| PortCounters::from_cells(std::array::from_fn(|i| load(&cells[i]))))
                .collect(),
        }
    }
}

/// What a worker had counted at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedView {
    /// its counters
    pub counters: Counters,
    /// packets dropped, in the order of [`DropReason::ALL`]
    pub drops: [u64; DropReason::COUNT],
    /// its traffic on each port, indexed by port id
    pub ports: Vec<PortCounters>,
}

impl PublishedView {
    /// Value of a counter.
    pub fn get(&self, counter: Counter) -> u64 {
        self.counters.get(counter)
    }

    /// Packets dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// Packets dropped for any reason.
    pub fn dropped_total(&self) -> u64 {
        self.drops.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read() {
        let published = Published::new(2);
        let (mut counters, mut drops) = (Counters::default(), DropCounters::default());
        counters.add(Counter::RxPackets, 5);
        counters.add_phases(&std::array::from_fn(|phase| phase as u64));
        counters.set(Counter::SessionsLive, 3);
        drops.count(DropReason::NoService);
        let ports = [PortCounters { rx_packets: 5, ..Default::default() }, PortCounters::default()];
        published.store(&counters, &drops, &ports);
        let view = published.read();
        assert_eq!(view.counters, counters);
        assert_eq!(view.counters.phase(TurnPhase::Housekeeping), TurnPhase::COUNT as u64 - 1);
        assert_eq!((view.dropped(DropReason::NoService), view.dropped_total()), (1, 1));
        assert_eq!(view.ports, ports);
    }

    /// A field that is new in either struct must be published, or fail to compile here.
    #[test]
    fn every_outcome_that_is_counted_is_published() {
        let path = PathCounters {
            received: 0,
            taken: 0,
            originated: 0,
            transmitted: 0,
            handed: 0,
            relays_taken: 0,
            drops: DropCounters::default(),
            sessions_created: 1,
            sessions_ended: 2,
            leases_taken_over: 3,
            toa_sent: 4,
            toa_no_option_room: 5,
            toa_no_mtu_room: 6,
            toa_ahead: 7,
            uoa_sent: 8,
            uoa_no_option_room: 9,
            uoa_no_mtu_room: 10,
            proxy_sent: 11,
            proxy_sent_again: 12,
            proxy_no_buffer: 13,
            proxy_taken: 14,
            refusals_limited: 15,
        };
        let neighbours = NeighbourCounters {
            originated: 0,
            released: 0,
            buffers_missing: 16,
            facts_lost: 17,
            announcements_lost: 18,
            conflicts: 19,
            defences: 20,
        };
        let mut counters = Counters::default();
        counters.set_outcomes(&path, &neighbours);
        let mut published: Vec<u64> = counters.values.into_iter().filter(|&value| value > 0).collect();
        published.sort_unstable();
        assert_eq!(published, (1..=20).collect::<Vec<_>>());
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = Counter::ALL.iter().map(|c| c.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Counter::COUNT);
    }

    #[test]
    fn a_reader_never_sees_two_moments_mixed() {
        let published = Published::new(1);
        let rounds = 1_000_000u64;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let drops = DropCounters::default();
                let mut counters = Counters::default();
                for round in 1..=rounds {
                    Counter::ALL.iter().for_each(|&counter| counters.set(counter, round));
                    let port = PortCounters { tx_bytes: round, ..Default::default() };
                    published.store(&counters, &drops, &[port]);
                }
            });
            let mut seen = 0;
            while seen < rounds {
                let Some(view) = published.read_at_once() else { continue };
                seen = view.get(Counter::RxPackets);
                assert!(Counter::ALL.iter().all(|&counter| view.get(counter) == seen));
                assert_eq!(view.ports[0].tx_bytes, seen);
            }
        });
    }
}
