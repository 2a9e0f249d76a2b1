//! A session's memory: one hot cache line that every packet touches, and one cold line for its beginning and end.
//!
//! ```text
//! client  CIP:cport -> VIP:vport   [gateway]   LIP:lport -> RIP:rport  real server
//!         `----- inbound key ----'             `---- outbound key ---' (seen reversed, as answers)
//! ```

use std::mem::offset_of;

use zerocopy::{FromZeros, Immutable, IntoBytes, transmute, transmute_ref};

use super::key::{Keys, is_v4};
use super::tcp_state::State;
use super::trunk::Trunk;
use crate::clock::Tick;
use crate::cpu;
use crate::wire::field::get_array;
use crate::wire::{Address, Protocol, Tuple};

/// The index of a session in its worker's table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SessionIndex(pub u32);

/// Which way a packet travels.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Direction {
    /// client to real server
    Inbound = 0,
    /// real server to client
    Outbound = 1,
}

impl Direction {
    /// The way of the answers.
    #[inline(always)]
    pub const fn opposite(self) -> Direction {
        match self {
            Direction::Inbound => Direction::Outbound,
            Direction::Outbound => Direction::Inbound,
        }
    }
}

/// Facts about a session, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromZeros, Immutable, IntoBytes)]
#[repr(transparent)]
pub struct Flags(pub u16);

impl Flags {
    /// The client's side is IPv6.
    pub const CLIENT_V6: u16 = 1 << 0;
    /// The real server's side is IPv6.
    pub const SERVER_V6: u16 = 1 << 1;
    /// Any side is IPv6: of the addresses only the client's stands in [`Hot`].
    pub const WIDE: u16 = Flags::CLIENT_V6 | Flags::SERVER_V6;
    /// The real server has sent data, of which the client may have acknowledged some.
    pub const SERVER_DATA: u16 = 1 << 2;
    /// Timestamps are translated by `timestamp_delta`.
    pub const TIMESTAMP: u16 = 1 << 3;
    /// The real server still has to be told the client's address, by TOA or UOA in inbound packets.
    pub const TOA: u16 = 1 << 4;
    /// The real server has answered; `Cold::server_isn` is known.
    pub const ANSWERED: u16 = 1 << 5;
    /// A PROXY protocol header is still to be told to the real server, or to be taken from a front, or UDP and from a
    /// front. Never with a packet of the express lane (`Asked::established`).
    pub const PROXY_HEADER: u16 = 1 << 6;
    /// Both FINs are acknowledged or a RST ended it: the lease may be taken over.
    pub const FINISHED: u16 = 1 << 7;
    /// A client FIN was seen; `Cold::fin_inbound` is valid.
    pub const FIN_INBOUND: u16 = 1 << 8;
    /// A real server FIN was seen; `Cold::fin_outbound` is valid.
    pub const FIN_OUTBOUND: u16 = 1 << 9;
    /// The real server acknowledged the client's FIN.
    pub const FIN_INBOUND_ACKED: u16 = 1 << 10;
    /// The client acknowledged the real server's FIN.
    pub const FIN_OUTBOUND_ACKED: u16 = 1 << 11;
    /// The flow's home is another worker, which hands its inbound packets over.
    pub const GUEST: u16 = 1 << 12;
    /// The real server sent its FIN before the client did: its side may rest in TIME_WAIT.
    pub const SERVER_CLOSED_FIRST: u16 = 1 << 13;
    /// The lease is on offer to new sessions: it stands in the local pool's reclaim list.
    pub const OFFERED: u16 = 1 << 14;
    /// A RST went by that its receiver may have taken for the exact one; `Cold::packets_at_reset` is valid.
    pub const PERHAPS_RESET: u16 = 1 << 15;

    /// The bit that says that the side whose packets travel in `direction` is IPv6.
    #[inline(always)]
    pub(super) const fn v6(direction: Direction) -> u16 {
        Flags::CLIENT_V6 << direction as u16
    }

    /// Whether any of `bits` is set.
    #[inline(always)]
    pub const fn has(self, bits: u16) -> bool {
        self.0 & bits != 0
    }

    /// Sets `bits`.
    #[inline(always)]
    pub fn set(&mut self, bits: u16) {
        self.0 |= bits;
    }

    /// Clears `bits`.
    #[inline(always)]
    pub fn clear(&mut self, bits: u16) {
        self.0 &= !bits;
    }
}

/// What every packet of a session reads and writes: one cache line.
///
/// L4 ports are in host order, the destination's first: so both are one number as headers show it.
#[derive(Clone, Debug, FromZeros, Immutable, IntoBytes)]
#[repr(C, align(64))]
pub struct Hot {
    /// client's and virtual address, IPv4; of a session with an IPv6 side the first half of the client's
    inbound: [u8; 8],
    /// virtual port the client dialled
    pub vport: u16,
    /// client port
    pub cport: u16,
    /// the IANA number of the protocol; 0 where no session lives
    pub(super) protocol: u8,
    /// IPVS state; UDP sessions stay in [`State::Established`]
    pub state: State,
    /// one-bit facts
    pub flags: Flags,
    /// real server's and local address, IPv4; of a session with an IPv6 side the second half of the client's
    outbound: [u8; 8],
    /// local port
    pub lport: u16,
    /// real server's port
    pub rport: u16,
    /// added to the client's sequence numbers, taken from the real server's acknowledgements
    pub seq_delta: u32,
    /// added to the client's TSval, taken from the real server's TSecr
    pub timestamp_delta: u32,
    /// the last packet's time
    pub stamp: Tick,
    /// slot of the real server in the snapshot; of a session with an IPv6 side the number of its trunk, which has the
    /// real server and the addresses that have no room here
    pub(super) server_or_trunk: u32,
    /// neighbour indexes toward the real server and toward the client: by the direction of the packets that go there
    pub next_hops: [u16; 2],
    /// sequence number after the furthest byte the client has sent, in the client's numbers
    pub next_seq_inbound: u32,
    /// sequence number after the furthest byte the real server has sent
    pub next_seq_outbound: u32,
    /// one's-complement difference that the new addresses and ports make in the L4 checksum, inbound; the
    /// outbound one is its complement (RFC 1624)
    pub checksum_delta: u16,
    /// the route generation for which the next hops hold
    pub route_epoch: u16,
    /// packets of both directions
    pub packets: u32,
}

/// Bytes from the inbound key (source, destination, ports) in [`Hot`] to the outbound one: a power of two, so that a
/// direction becomes a distance by a shift. Compilers make a selection of two addresses of everything else.
const KEYS_APART: usize = 16;

const _: () = assert!(offset_of!(Hot, protocol) % 4 == 0);
const _: () = assert!(offset_of!(Hot, state) == offset_of!(Hot, protocol) + 1);
const _: () = assert!(offset_of!(Hot, flags) == offset_of!(Hot, protocol) + 2);
const _: () = assert!(offset_of!(Hot, inbound) == 0 && offset_of!(Hot, outbound) == KEYS_APART);
const _: () = assert!(offset_of!(Hot, vport) == 8 && offset_of!(Hot, cport) == 10);
const _: () = assert!(offset_of!(Hot, lport) == KEYS_APART + 8 && offset_of!(Hot, rport) == KEYS_APART + 10);

/// Two addresses that follow each other in memory as the one number that they are there.
#[inline(always)]
pub(super) fn pair(first: u32, second: u32) -> u64 {
    transmute!([first, second])
}

/// Both ports of a tuple as they lie in [`Hot`].
#[inline(always)]
fn ports_word(tuple: &Tuple) -> u32 {
    transmute!([tuple.dport, tuple.sport])
}

/// What is asked of a session beside its key, of the word in which protocol, state and flags lie together: one compare.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    mask: u32,
    wanted: u32,
}

impl Asked {
    /// To live, be of this protocol, and be IPv6 or not on the side whose packets travel in `direction`.
    #[inline(always)]
    pub(super) fn alive(protocol: Protocol, direction: Direction, v6: bool) -> Asked {
        let side = Flags::v6(direction);
        Asked { mask: word(0xff, 0, side), wanted: word(protocol as u8, 0, if v6 { side } else { 0 }) }
    }

    /// To be of this protocol, established, and IPv6 on both sides or on none; and to have no PROXY protocol header on its
    /// way, if `told` nothing at all that the real server has still to learn of the client.
    #[inline(always)]
    pub(super) fn established(protocol: Protocol, v6: bool, told: bool) -> Asked {
        let sides = if v6 { Flags::WIDE } else { 0 };
        let untold = Flags::PROXY_HEADER | if told { Flags::TOA } else { 0 };
        let wanted = word(protocol as u8, State::Established as u8, sides);
        Asked { mask: word(0xff, 0xff, Flags::WIDE | untold), wanted }
    }

    /// The bits in which a session is not as asked.
    #[inline(always)]
    fn lacks(self, hot: &Hot) -> u32 {
        let words: &[u32; 16] = transmute_ref!(hot);
        words[offset_of!(Hot, protocol) / 4] & self.mask ^ self.wanted
    }
}

/// Protocol, state and flags as they lie in [`Hot`].
#[inline(always)]
fn word(protocol: u8, state: u8, flags: u16) -> u32 {
    let [first, second] = flags.to_ne_bytes();
    u32::from_ne_bytes([protocol, state, first, second])
}

impl Hot {
    /// A session that has its keys and nothing else yet.
    pub(super) fn of(keys: &Keys) -> Hot {
        let (inbound, outbound) = (&keys.inbound, &keys.outbound);
        let sides = [(inbound, Flags::CLIENT_V6), (outbound, Flags::SERVER_V6)];
        let flags = Flags(sides.map(|(key, v6)| if is_v4(key) { 0 } else { v6 }).iter().sum());
        let addresses: [[u8; 8]; 2] = if flags.has(Flags::WIDE) {
            transmute!(*inbound.src.octets())
        } else {
            [inbound, outbound].map(|key| transmute!([key.src, key.dst].map(|address| address.v4_octets())))
        };
        Hot {
            inbound: addresses[0],
            cport: inbound.sport,
            vport: inbound.dport,
            outbound: addresses[1],
            rport: outbound.sport,
            lport: outbound.dport,
            protocol: inbound.protocol as u8,
            flags,
            ..Hot::new_zeroed()
        }
    }

    /// Whether an IPv4 tuple is this session's key of `direction` and the session is as asked.
    ///
    /// The direction chooses an address, not a branch: of random packets half would be predicted wrong, at
    /// more than the cost of the whole compare.
    #[inline(always)]
    pub(super) fn is_key_v4(&self, tuple: &Tuple, direction: Direction, asked: Asked) -> bool {
        let (addresses, ports) = self.key_at(KEYS_APART * direction as usize);
        let [src, dst] = [tuple.src, tuple.dst].map(|a| u32::from_ne_bytes(a.v4_octets()));
        let rest = (ports ^ ports_word(tuple)) | asked.lacks(self);
        (addresses ^ pair(src, dst)) | u64::from(rest) == 0
    }

    /// The key that begins at a byte of the line: both addresses, and both ports.
    #[inline(always)]
    fn key_at(&self, at: usize) -> (u64, u32) {
        let line: &[u8; 64] = transmute_ref!(self);
        (u64::from_ne_bytes(get_array(line, at)), u32::from_ne_bytes(get_array(line, at + 8)))
    }

    /// The key of the packets that travel against `direction`.
    #[inline(always)]
    fn key_against(&self, direction: Direction) -> (u64, u32) {
        self.key_at(KEYS_APART * direction.opposite() as usize)
    }

    /// Source and destination port of a packet that travels in `direction`, behind the gateway.
    #[inline(always)]
    pub fn ports_behind(&self, direction: Direction) -> (u16, u16) {
        let (_, ports) = self.key_against(direction);
        let [dport, sport]: [u16; 2] = transmute!(ports);
        (dport, sport)
    }

    /// Source and destination of an IPv4 packet that travels in `direction`, behind the gateway, as its header has them.
    #[inline(always)]
    pub fn addresses_behind(&self, direction: Direction) -> [u8; 8] {
        let (addresses, _) = self.key_against(direction);
        addresses.rotate_left(32).to_ne_bytes()
    }

    /// The client's address of a session with an IPv6 side.
    #[inline(always)]
    pub(super) fn client(&self) -> Address {
        Address::from_v6(transmute!([self.inbound, self.outbound]))
    }

    /// The key of `direction` of a session with two IPv4 sides.
    #[inline(always)]
    pub(super) fn tuple_v4(&self, direction: Direction) -> Tuple {
        let (addresses, ports) = self.key_at(KEYS_APART * direction as usize);
        let ([src, dst], [dport, sport]): ([[u8; 4]; 2], [u16; 2]) =
            (transmute!(addresses), transmute!(ports));
        let [src, dst] = [src, dst].map(Address::from_v4);
        Tuple { src, dst, sport, dport, protocol: self.protocol() }
    }

    /// Whether a tuple is the key of `direction` of this session if that has an IPv6 side; `trunk` is the session's.
    #[inline(always)]
    pub(super) fn is_key_wide(
        &self,
        trunk: &Trunk,
        tuple: &Tuple,
        direction: Direction,
        asked: Asked,
    ) -> bool {
        let client = self.client();
        let [src, dst] = match direction {
            Direction::Inbound => [&client, &trunk.vip],
            Direction::Outbound => [&trunk.rip, &trunk.lip],
        };
        let rest = (self.key_at(KEYS_APART * direction as usize).1 ^ ports_word(tuple)) | asked.lacks(self);
        rest == 0
            && cpu::equal_pairs(
                [src, dst].map(Address::octets),
                [&tuple.src, &tuple.dst].map(Address::octets),
            )
    }

    /// The neighbours ahead of and behind a packet that travels in `direction`.
    #[inline(always)]
    pub const fn next_hops(&self, direction: Direction) -> (u16, u16) {
        let ahead = direction as usize;
        (self.next_hops[ahead], self.next_hops[ahead ^ 1])
    }

    /// What the new addresses and ports of a packet that travels in `direction` add to its L4 checksum.
    #[inline(always)]
    pub const fn ends_delta(&self, direction: Direction) -> u16 {
        // One's complement takes away what the other direction adds.
        self.checksum_delta ^ (direction as u16).wrapping_neg()
    }

    /// TCP or UDP.
    #[inline(always)]
    pub const fn protocol(&self) -> Protocol {
        if self.protocol == Protocol::Udp as u8 { Protocol::Udp } else { Protocol::Tcp }
    }

    /// Whether a session lives here.
    #[inline(always)]
    pub const fn is_live(&self) -> bool {
        self.protocol != 0
    }
}

/// What only a session's beginning, its end and its timer touch.
#[derive(Clone, Debug, FromZeros, Immutable, IntoBytes)]
#[repr(C, align(64))]
pub struct Cold {
    /// links of the timer wheel's slot, owned by the wheel; of the free list, owned by the table, where no
    /// session lives
    pub(super) timer_next: u32,
    /// see `timer_next`
    pub(super) timer_prev: u32,
    /// links of the list of sessions whose lease may be taken over, owned by the local pool
    pub reclaim_next: u32,
    /// see `reclaim_next`
    pub reclaim_prev: u32,
    /// what the local pool needs to take the lease back, opaque to others
    pub lease_slot: u32,
    /// when it began
    pub created: Tick,
    /// client's initial sequence number, in the client's numbers: the one before its first byte, once a front's header
    /// has come before that; of UDP [`Cold::uoa_sent`]
    pub client_isn: u32,
    /// real server's initial sequence number
    pub server_isn: u32,
    /// sequence number after the client's FIN, in the client's numbers
    pub fin_inbound: u32,
    /// sequence number after the real server's FIN
    pub fin_outbound: u32,
    /// the last TSval the real server saw from us before the end
    pub last_timestamp: u32,
    /// the client's last acknowledgement: the one that did not complete the handshake, or, while a PROXY protocol
    /// header is on its way, the one that goes with it
    pub client_ack: u32,
    /// `Hot::packets` behind the last RST that may have been the exact one; valid with [`Flags::PERHAPS_RESET`]
    pub packets_at_reset: u32,
    /// the wheel's slot the session hangs in plus 1, 0 for none, owned by the wheel
    pub(super) timer_slot: u16,
    /// index of the service in the snapshot
    pub service: u16,
    /// all zeros where there never was one
    pub header: HeaderOnItsWay,
}

/// What there is of the PROXY protocol about a session; and of TCP the header until the real server has acknowledged it.
///
/// Until it is sent for the first time the session's numbers are without it; from then on `Hot::seq_delta` holds its
/// length, for good.
#[derive(Clone, Copy, Debug, FromZeros, Immutable, IntoBytes)]
#[repr(C)]
pub struct HeaderOnItsWay {
    /// the last sixteen bits of the [`Tick`] at which it was sent last
    pub sent: u16,
    /// the client's window, as its last segment has it
    pub client_window: u16,
    /// one-bit facts
    pub facts: ProxyFacts,
    /// bytes at its end that the real server has not acknowledged
    pub unacknowledged: u8,
    /// how often it was sent; stops counting at 255
    pub times_sent: u8,
    /// bits by which the real server's windows are shifted
    pub server_window_shift: u8,
}

/// Which headers a session has to do with, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromZeros, Immutable, IntoBytes)]
#[repr(transparent)]
pub struct ProxyFacts(pub u8);

impl ProxyFacts {
    /// The real server of a TCP session is told by version 1.
    pub const TO_SERVER_V1: u8 = 1 << 0;
    /// The real server of a TCP session is told by version 2.
    pub const TO_SERVER_V2: u8 = 1 << 1;
    /// By either.
    pub const TO_SERVER: u8 = ProxyFacts::TO_SERVER_V1 | ProxyFacts::TO_SERVER_V2;
    /// It comes from a front that names the client.
    pub const FROM_FRONT: u8 = 1 << 2;
    /// The front has not named it yet; [`Named`] is not valid.
    pub const AWAITED: u8 = 1 << 3;

    /// Whether any of `bits` is set.
    #[inline(always)]
    pub const fn has(self, bits: u8) -> bool {
        self.0 & bits != 0
    }

    /// Sets `bits`.
    pub const fn set(&mut self, bits: u8) {
        self.0 |= bits;
    }

    /// Clears `bits`.
    pub const fn clear(&mut self, bits: u8) {
        self.0 &= !bits;
    }

    /// Whether a front has named the client: [`Named`] is valid.
    #[inline(always)]
    pub const fn is_named(self) -> bool {
        self.0 & (ProxyFacts::FROM_FRONT | ProxyFacts::AWAITED) == ProxyFacts::FROM_FRONT
    }
}

/// Whose connection a session from a front is, by the front's word: a line of its own, which no other session has.
#[derive(Clone, Copy, Debug, FromZeros, Immutable, IntoBytes)]
#[repr(C)]
pub struct Named {
    /// the client's address
    pub src: Address,
    /// the address that it dialled
    pub dst: Address,
    /// the client's port
    pub sport: u16,
    /// the port that it dialled
    pub dport: u16,
    /// of TCP: bytes of the header, which the client's numbers are without
    pub header_len: u16,
    /// of UDP: whether a datagram has told the real server
    pub is_told: bool,
    pub(super) unused: u8,
}

impl Named {
    /// What a header of `header_len` bytes says.
    pub const fn new(flow: &Tuple, header_len: u16) -> Named {
        let &Tuple { src, dst, sport, dport, protocol: _ } = flow;
        Named { src, dst, sport, dport, header_len, is_told: false, unused: 0 }
    }

    /// The client's connection as the client made it.
    pub const fn flow(&self, protocol: Protocol) -> Tuple {
        Tuple { src: self.src, dst: self.dst, sport: self.sport, dport: self.dport, protocol }
    }
}

impl Cold {
    /// How many datagrams of a UDP session carried UOA.
    pub const fn uoa_sent(&self) -> u32 {
        self.client_isn
    }

    /// Counts one of them.
    pub const fn count_uoa_sent(&mut self) {
        self.client_isn += 1;
    }

    /// Begins to count anew.
    pub const fn forget_uoa_sent(&mut self) {
        self.client_isn = 0;
    }
}

const _: () = assert!(Flags::v6(Direction::Inbound) == Flags::CLIENT_V6);
const _: () = assert!(Flags::v6(Direction::Outbound) == Flags::SERVER_V6);
const _: () = assert!(size_of::<Hot>() == 64);
const _: () = assert!(size_of::<Cold>() == 64);
const _: () = assert!(size_of::<Named>() == 40);
