//! Announcements of our own addresses (RFC 5227 §2.3, RFC 4861 §7.2.6), so that the caches of our peers are right at
//! start, after an address was added or taken over, and when a link comes up.
//!
//! As keepalived does: five at once, because one may be lost, and five more after five seconds, because a switch may
//! have needed that long to forward. Only worker 0 announces. Each tick sends a few, the first announcement of every
//! address before the second of any.

use std::collections::VecDeque;

use super::{NeighbourTable, OwnAddresses};
use crate::clock::{Now, Tick};
use crate::id::PortId;
use crate::path::packet::{Io, Packet};
use crate::service::snapshot::PortView;
use crate::wire::{Address, arp, nd};

const REPEAT: u8 = 5;
const SECOND_ROUND_TICKS: u32 = 5 * Tick::PER_SECOND;
/// Addresses that may be announced at the same time.
const ANNOUNCEMENTS_MAX: usize = 16_384;
/// Frames per tick.
const FRAMES_PER_TICK: usize = 64;

#[derive(Clone, Copy)]
struct Announcement {
    port: PortId,
    address: Address,
    left: u8,
    second_round: bool,
    due: Tick,
}

/// What is still to be announced. Announcements move from `now` to `later` and out.
pub(super) struct Announcements {
    now: VecDeque<Announcement>,
    /// Those whose second round waits, in the order of their time.
    later: VecDeque<Announcement>,
    room: usize,
}

impl Announcements {
    pub(super) fn new(announces: bool) -> Self {
        let room = if announces { ANNOUNCEMENTS_MAX } else { 0 };
        Announcements { now: VecDeque::with_capacity(room), later: VecDeque::with_capacity(room), room }
    }

    fn is_empty(&self) -> bool {
        self.now.is_empty() && self.later.is_empty()
    }

    /// What goes out next, if anything is due.
    fn next(&mut self, now: Tick) -> Option<(PortId, Address)> {
        while self.later.front().is_some_and(|first| now.reached(first.due)) {
            let due = self.later.pop_front()?;
            self.now.push_back(due);
        }
        let mut next = self.now.pop_front()?;
        next.left -= 1;
        if next.left > 0 {
            self.now.push_back(next);
        } else if !next.second_round {
            let due = now.plus(SECOND_ROUND_TICKS);
            self.later.push_back(Announcement { left: REPEAT, second_round: true, due, ..next });
        }
        Some((next.port, next.address))
    }
}

impl<P: Packet> NeighbourTable<P> {
    /// Announces every address that is ours on a port: at start, and after a takeover.
    pub fn announce_all(&mut self, own: OwnAddresses<'_>, now: Now) {
        self.announcements.now.clear();
        self.announcements.later.clear();
        for (&address, owned) in own.owned {
            if let Some(port) = owned.port {
                self.schedule(port, address, now);
            }
        }
    }

    /// Announces what is ours now and was not, or not on that port, before: after a change of the configuration.
    pub fn announce_added(&mut self, before: OwnAddresses<'_>, own: OwnAddresses<'_>, now: Now) {
        for (&address, owned) in own.owned {
            let was_there = before.owned.get(&address).is_some_and(|was| was.port == owned.port);
            if let (Some(port), false) = (owned.port, was_there) {
                self.schedule(port, address, now);
            }
        }
    }

    /// Announces the addresses on one port: when its link has come up.
    pub fn announce_port(&mut self, own: OwnAddresses<'_>, port: PortId, now: Now) {
        self.announcements.now.retain(|announcement| announcement.port != port);
        self.announcements.later.retain(|announcement| announcement.port != port);
        for (&address, owned) in own.owned {
            if owned.port == Some(port) {
                self.schedule(port, address, now);
            }
        }
    }

    fn schedule(&mut self, port: PortId, address: Address, now: Now) {
        let announcements = &mut self.announcements;
        if announcements.room == 0 {
            return; // another worker's task
        }
        if announcements.now.len() + announcements.later.len() >= announcements.room {
            self.counters.announcements_lost += 1;
            return;
        }
        announcements.now.push_back(Announcement {
            port,
            address,
            left: REPEAT,
            second_round: false,
            due: now.tick(),
        });
    }

    /// Sends what is due, a bounded number of frames.
    #[inline]
    pub(super) fn tick_announcements(
        &mut self,
        own: OwnAddresses<'_>,
        now: Now,
        io: &mut impl Io<Packet = P>,
    ) {
        if !self.announcements.is_empty() {
            self.send_announcements(own, now, io);
        }
    }

    #[cold]
    #[inline(never)]
    fn send_announcements(&mut self, own: OwnAddresses<'_>, now: Now, io: &mut impl Io<Packet = P>) {
        for _ in 0..FRAMES_PER_TICK {
            let Some((port, address)) = self.announcements.next(now.tick()) else { return };
            // It may have been taken from us since.
            let still_ours = own.owned.get(&address).is_some_and(|owned| owned.port == Some(port));
            if let (true, Some(view)) = (still_ours, own.port(port)) {
                self.announce(view, address, io);
            }
        }
    }

    /// Tells everybody on the link that `address` is ours.
    pub(super) fn announce(&mut self, port: &PortView, address: Address, io: &mut impl Io<Packet = P>) {
        if address.is_v4() {
            // RFC 5227 §3: a request rather than a reply, which some stacks ignore unasked.
            let message = arp::ArpMessage {
                operation: arp::Operation::Request,
                sender_mac: port.mac,
                sender: address,
                target_mac: [0; 6],
                target: address,
            };
            self.originate(port.id, &message.write_frame([0xff; 6], port.mac), io);
        } else {
            let message = nd::Advertisement {
                source: address,
                destination: nd::ALL_NODES,
                target: address,
                solicited: false,
                overrides: true,
                target_mac: Some(port.mac),
            };
            self.originate(port.id, &message.write_frame(nd::group_mac(nd::ALL_NODES), port.mac), io);
        }
    }
}
