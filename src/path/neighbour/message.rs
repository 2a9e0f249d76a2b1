//! ARP and ND messages that arrive: answered, believed as far as they deserve, or dropped. The verdict is the drop
//! reason under which the message is counted; it never goes further.
//!
//! What may change the table: an answer or announcement changes an entry that exists; a question for one of our
//! addresses from a host on the link also makes one. Router advertisements and redirects change nothing.

use super::own::is_subnet_broadcast;
use super::{Evidence, NeighbourFact, NeighbourTable, OwnAddresses};
use crate::clock::Now;
use crate::id::PortId;
use crate::path::drop_reason::DropReason;
use crate::path::packet::{Io, Packet};
use crate::service::snapshot::PortView;
use crate::wire::{Address, arp, nd};

impl<P: Packet> NeighbourTable<P> {
    /// Acts on an ARP message. `frame` starts with the Ethernet header, whose addresses and VLAN tag the caller has
    /// accepted, and is contiguous as far as the message goes (46 bytes with a priority tag).
    ///
    /// Gives `NeighbourMessage`, `ArpMalformed`, `ArpNotForUs` or `NeighbourLimited`.
    #[cold]
    pub fn handle_arp(
        &mut self,
        own: OwnAddresses<'_>,
        port: PortId,
        frame: &[u8],
        now: Now,
        io: &mut impl Io<Packet = P>,
    ) -> DropReason {
        let Some(port) = own.port(port) else { return DropReason::ArpNotForUs };
        let Some(frame) = Frame::parse(frame) else { return DropReason::ArpMalformed };
        let Ok(message) = arp::ArpMessage::parse(frame.payload) else { return DropReason::ArpMalformed };
        if is_subnet_broadcast(port, message.sender) {
            return DropReason::ArpMalformed;
        }
        if own.has_mac(message.sender_mac) {
            return DropReason::ArpNotForUs; // our own, come back
        }
        if own.answers(port, message.sender) {
            self.defend(port, message.sender, message.sender_mac, now, io);
            return DropReason::NeighbourMessage;
        }
        let asks_us = message.operation == arp::Operation::Request && own.answers(port, message.target);
        if !self.admits(asks_us, message.sender_mac, now) {
            return DropReason::NeighbourLimited;
        }
        if asks_us {
            let answer = arp::ArpMessage {
                operation: arp::Operation::Reply,
                sender_mac: port.mac,
                sender: message.target,
                target_mac: message.sender_mac,
                target: message.sender,
            };
            self.originate(port.id, &answer.write_frame(message.sender_mac, port.mac), io);
        }
        if message.is_probe() {
            return if asks_us { DropReason::NeighbourMessage } else { DropReason::ArpNotForUs };
        }
        let answers_us = message.operation == arp::Operation::Reply
            && !message.is_announcement()
            && frame.destination == port.mac;
        let evidence = match (asks_us, answers_us) {
            (true, _) => Evidence::Asked,
            (_, true) => Evidence::Answered { overrides: true },
            _ => Evidence::Announced { overrides: true },
        };
        let fact =
            NeighbourFact { port: port.id, address: message.sender, mac: Some(message.sender_mac), evidence };
        let believed = self.believe(own, fact, asks_us, now, io);
        // A question between two others is not worth a message to every worker.
        if message.operation == arp::Operation::Reply || asks_us || message.is_announcement() {
            self.tell(fact, io);
        }
        let meant_us = asks_us || answers_us && self.config.workers > 1;
        if believed || meant_us { DropReason::NeighbourMessage } else { DropReason::ArpNotForUs }
    }

    /// Acts on an ICMPv6 message of the types 133 to 137. `frame` starts with the Ethernet header and is contiguous.
    ///
    /// To be called before the destination address is judged: solicitations go to groups and link-local addresses.
    /// Gives `NeighbourMessage`, `NdMalformed`, `NdNotForUs` or `NeighbourLimited`.
    #[cold]
    pub fn handle_nd(
        &mut self,
        own: OwnAddresses<'_>,
        port: PortId,
        frame: &[u8],
        now: Now,
        io: &mut impl Io<Packet = P>,
    ) -> DropReason {
        let Some(port) = own.port(port) else { return DropReason::NdNotForUs };
        let Some(frame) = Frame::parse(frame) else { return DropReason::NdMalformed };
        if own.has_mac(frame.source) {
            return DropReason::NdNotForUs;
        }
        match nd::NdMessage::parse(frame.payload) {
            Err(_) => DropReason::NdMalformed,
            // Router advertisements and redirects of whoever is on the link do not change where packets go.
            Ok(nd::NdMessage::Other { .. }) => DropReason::NdNotForUs,
            Ok(nd::NdMessage::Solicitation(message)) => {
                self.handle_solicitation(own, port, frame.source, message, now, io)
            }
            Ok(nd::NdMessage::Advertisement(message)) => {
                self.handle_advertisement(own, port, frame.source, message, now, io)
            }
        }
    }

    /// RFC 4861 §7.2.3 and §7.2.4.
    fn handle_solicitation(
        &mut self,
        own: OwnAddresses<'_>,
        port: &PortView,
        frame_source: [u8; 6],
        message: nd::Solicitation,
        now: Now,
        io: &mut impl Io<Packet = P>,
    ) -> DropReason {
        if own.answers(port, message.source) {
            self.defend(port, message.source, frame_source, now, io);
            return DropReason::NeighbourMessage;
        }
        let to_us = nd::is_multicast(message.destination) || own.answers(port, message.destination);
        if !to_us || !own.answers(port, message.target) {
            return DropReason::NdNotForUs;
        }
        if !self.admits(true, frame_source, now) {
            return DropReason::NeighbourLimited;
        }
        let detection = message.source == Address::UNSPECIFIED;
        let destination = if detection { nd::ALL_NODES } else { message.source };
        let answer = nd::Advertisement {
            source: message.target,
            destination,
            target: message.target,
            solicited: !detection,
            overrides: true,
            target_mac: Some(port.mac),
        };
        let destination_mac =
            if detection { nd::group_mac(destination) } else { message.source_mac.unwrap_or(frame_source) };
        self.originate(port.id, &answer.write_frame(destination_mac, port.mac), io);
        if let (false, Some(_)) = (detection, message.source_mac) {
            let fact = NeighbourFact {
                port: port.id,
                address: message.source,
                mac: message.source_mac,
                evidence: Evidence::Asked,
            };
            self.believe(own, fact, true, now, io);
            self.tell(fact, io);
        }
        DropReason::NeighbourMessage
    }

    /// RFC 4861 §7.2.5.
    fn handle_advertisement(
        &mut self,
        own: OwnAddresses<'_>,
        port: &PortView,
        frame_source: [u8; 6],
        message: nd::Advertisement,
        now: Now,
        io: &mut impl Io<Packet = P>,
    ) -> DropReason {
        if own.answers(port, message.target) {
            self.defend(port, message.target, message.target_mac.unwrap_or(frame_source), now, io);
            return DropReason::NeighbourMessage;
        }
        if !nd::is_multicast(message.destination) && !own.answers(port, message.destination) {
            return DropReason::NdNotForUs;
        }
        if !self.admits(false, frame_source, now) {
            return DropReason::NeighbourLimited;
        }
        let overrides = message.overrides;
        let evidence = if message.solicited {
            Evidence::Answered { overrides }
        } else {
            Evidence::Announced { overrides }
        };
        let fact =
            NeighbourFact { port: port.id, address: message.target, mac: message.target_mac, evidence };
        let believed = self.believe(own, fact, false, now, io);
        self.tell(fact, io);
        let meant_us = message.solicited && self.config.workers > 1;
        if believed || meant_us { DropReason::NeighbourMessage } else { DropReason::NdNotForUs }
    }

    fn admits(&mut self, asks_us: bool, sender_mac: [u8; 6], now: Now) -> bool {
        if asks_us { self.limiter.admits_question(sender_mac, now) } else { self.limiter.admits_other(now) }
    }

    /// Another host claims an address of ours: it stays ours, and everybody is told so now and then (RFC 5227 §2.4 b).
    fn defend(
        &mut self,
        port: &PortView,
        address: Address,
        claimed_by: [u8; 6],
        now: Now,
        io: &mut impl Io<Packet = P>,
    ) {
        self.counters.conflicts += 1;
        if self.conflicts.note(port.id, address, claimed_by, now.tick()) {
            self.counters.defences += 1;
            self.announce(port, address, io);
        }
    }
}

/// An Ethernet frame, a priority tag skipped.
struct Frame<'a> {
    destination: [u8; 6],
    source: [u8; 6],
    payload: &'a [u8],
}

impl<'a> Frame<'a> {
    fn parse(frame: &'a [u8]) -> Option<Self> {
        const VLAN: [u8; 2] = [0x81, 0x00];
        let (&destination, rest) = frame.split_first_chunk()?;
        let (&source, rest) = rest.split_first_chunk()?;
        let (&ether_type, rest) = rest.split_first_chunk::<2>()?;
        let payload = if ether_type == VLAN { rest.get(4..)? } else { rest };
        Some(Frame { destination, source, payload })
    }
}
