//! The life of an entry: asking, believing, ageing (RFC 4861 §7.2 and §7.3, for ARP too).

use super::own::{is_on_link, source_for};
use super::{Evidence, NeighbourFact, NeighbourIndex, NeighbourState, NeighbourTable, OwnAddresses};
use crate::clock::{Now, Tick};
use crate::path::packet::{Io, Packet};
use crate::service::snapshot::PortView;
use crate::wire::{arp, nd};

/// RFC 4861 §10, DELAY_FIRST_PROBE_TIME: another worker's probe may answer the question meanwhile.
pub(super) const DELAY_FIRST_PROBE_TICKS: u32 = 5 * Tick::PER_SECOND;

impl<P: Packet> NeighbourTable<P> {
    /// Between bursts: sends due announcements, then looks at the timers of the next `budget` entries.
    ///
    /// What failed is to be fetched with [`Self::take_unreachable`] afterwards.
    pub fn tick(&mut self, own: OwnAddresses<'_>, now: Now, budget: usize, io: &mut impl Io<Packet = P>) {
        self.tick_announcements(own, now, io);
        if self.scanned == Some(now.tick()) {
            return;
        }
        for at in (self.scan_cursor..self.due.len()).take(budget) {
            if self.due[at].is_some_and(|due| now.tick().reached(due)) {
                self.expire(own, NeighbourIndex(at as u16), now, io);
            }
        }
        self.scan_cursor += budget;
        if self.scan_cursor >= self.due.len() {
            self.scan_cursor = 0;
            self.scanned = Some(now.tick());
        }
    }

    /// Applies a fact from another worker. Whom that one found, this one will talk to as well: an entry is made, so that
    /// its first packets need not wait.
    pub fn learn(
        &mut self,
        own: OwnAddresses<'_>,
        fact: NeighbourFact,
        now: Now,
        io: &mut impl Io<Packet = P>,
    ) {
        let is_news = !matches!(fact.evidence, Evidence::Announced { .. });
        self.believe(own, fact, is_news, now, io);
    }

    /// Applies a fact to the entry it is about; `may_make` says whether one is made. True if there is one.
    pub(super) fn believe(
        &mut self,
        own: OwnAddresses<'_>,
        fact: NeighbourFact,
        may_make: bool,
        now: Now,
        io: &mut impl Io<Packet = P>,
    ) -> bool {
        let Some(port) = own.port(fact.port) else { return false };
        let known = self.index.get(&(fact.port, fact.address)).map(|&index| NeighbourIndex(index));
        let index = match known {
            Some(index) => index,
            None if may_make && self.may_make_entry(port, &fact) => self.insert(fact.port, fact.address, now),
            None => return false,
        };
        self.apply(port, index, fact, now, io);
        true
    }

    /// Whether an entry is made for somebody whom no packet goes to yet: only a host on the link, and never from the
    /// last quarter of the table, which belongs to the next hops of packets.
    fn may_make_entry(&self, port: &PortView, fact: &NeighbourFact) -> bool {
        let capacity = usize::from(self.config.capacity);
        let is_of_use = fact.mac.is_some() && is_on_link(port, fact.address);
        is_of_use && self.has_free_entry() && self.len() < capacity - capacity / 4
    }

    /// RFC 4861 §7.2.5 and §7.2.3.
    fn apply(
        &mut self,
        port: &PortView,
        index: NeighbourIndex,
        fact: NeighbourFact,
        now: Now,
        io: &mut impl Io<Packet = P>,
    ) {
        let at = index.index();
        let (answered, overrides) = match fact.evidence {
            Evidence::Asked => (false, true),
            Evidence::Announced { overrides } => (false, overrides),
            Evidence::Answered { overrides } => (true, overrides),
        };
        let was_usable = self.adjacencies[at].is_usable();
        let differs = fact.mac.is_some_and(|mac| !was_usable || mac != self.adjacencies[at].mac());
        if !was_usable && fact.mac.is_none() {
            return;
        }
        if was_usable && differs && !overrides {
            if self.adjacencies[at].state == NeighbourState::Reachable {
                self.set_state(index, NeighbourState::Stale, None);
            }
            return;
        }
        if let (true, Some(mac)) = (differs, fact.mac) {
            self.adjacencies[at].set_macs(mac, port.mac);
        }
        if answered {
            let due = now.tick().plus(self.config.reachable_ticks);
            self.entries[at].since = now.tick();
            self.set_state(index, NeighbourState::Reachable, Some(due));
        } else if differs {
            self.entries[at].since = now.tick();
            self.set_state(index, NeighbourState::Stale, None);
        }
        if !was_usable {
            self.flush(index, io);
        }
    }

    /// Sends everything that waited, in order.
    pub(super) fn flush(&mut self, index: NeighbourIndex, io: &mut impl Io<Packet = P>) {
        let adjacency = self.adjacencies[index.index()];
        while let Some(mut packet) = self.waiting.pop(&mut self.entries[index.index()].queue) {
            packet.head_mut()[..12].copy_from_slice(&adjacency.header);
            io.transmit(adjacency.port, packet);
            self.counters.released += 1;
        }
    }

    /// Asks for the first time, or again after a failure.
    pub(super) fn begin_resolution(
        &mut self,
        own: OwnAddresses<'_>,
        index: NeighbourIndex,
        now: Now,
        io: &mut impl Io<Packet = P>,
    ) {
        self.entries[index.index()].attempts = 0;
        self.entries[index.index()].since = now.tick();
        self.set_state(index, NeighbourState::Incomplete, None);
        self.solicit(own, index, None, now, io);
    }

    /// A timer has run out.
    #[cold]
    fn expire(
        &mut self,
        own: OwnAddresses<'_>,
        index: NeighbourIndex,
        now: Now,
        io: &mut impl Io<Packet = P>,
    ) {
        let at = index.index();
        let attempts = self.entries[at].attempts;
        let known = self.adjacencies[at].mac();
        match self.adjacencies[at].state {
            NeighbourState::Reachable => self.set_state(index, NeighbourState::Stale, None),
            NeighbourState::Delay => {
                self.entries[at].attempts = 0;
                self.set_state(index, NeighbourState::Probe, None);
                self.solicit(own, index, Some(known), now, io);
            }
            NeighbourState::Incomplete if attempts < self.config.attempts => {
                self.solicit(own, index, None, now, io);
            }
            NeighbourState::Probe if attempts < self.config.attempts => {
                self.solicit(own, index, Some(known), now, io);
            }
            // RFC 7048 §3: before giving up a neighbour that worked, ask everybody; it may have a new MAC address.
            NeighbourState::Probe if attempts < self.config.attempts.saturating_mul(2) => {
                self.solicit(own, index, None, now, io);
            }
            NeighbourState::Incomplete | NeighbourState::Probe => self.fail(index),
            NeighbourState::Stale | NeighbourState::Failed => self.due[at] = None,
        }
    }

    /// Gives a neighbour up, and what waited for it.
    fn fail(&mut self, index: NeighbourIndex) {
        let entry = &mut self.entries[index.index()];
        self.waiting.append(&mut self.unreachable, &mut entry.queue);
        let forgotten = entry.references == 0;
        self.set_state(index, NeighbourState::Failed, None);
        if forgotten {
            self.remove(index);
        }
    }

    fn set_state(&mut self, index: NeighbourIndex, state: NeighbourState, due: Option<Tick>) {
        self.adjacencies[index.index()].state = state;
        self.due[index.index()] = due;
    }

    /// Asks the neighbour at `known`, or everybody, and sets the time to ask again.
    fn solicit(
        &mut self,
        own: OwnAddresses<'_>,
        index: NeighbourIndex,
        known: Option<[u8; 6]>,
        now: Now,
        io: &mut impl Io<Packet = P>,
    ) {
        let entry = &mut self.entries[index.index()];
        entry.attempts = entry.attempts.saturating_add(1);
        let target = entry.address;
        self.due[index.index()] = Some(now.tick().plus(self.config.retry_ticks));
        let Some(port) = own.port(self.adjacencies[index.index()].port) else { return };
        let source = source_for(port, target);
        if target.is_v4() {
            let message = arp::ArpMessage {
                operation: arp::Operation::Request,
                sender_mac: port.mac,
                sender: source,
                target_mac: known.unwrap_or([0; 6]),
                target,
            };
            self.originate(port.id, &message.write_frame(known.unwrap_or([0xff; 6]), port.mac), io);
        } else {
            let group = nd::solicited_node(target);
            let destination = if known.is_some() { target } else { group };
            let message = nd::Solicitation { source, destination, target, source_mac: Some(port.mac) };
            let destination_mac = known.unwrap_or(nd::group_mac(group));
            self.originate(port.id, &message.write_frame(destination_mac, port.mac), io);
        }
    }
}
