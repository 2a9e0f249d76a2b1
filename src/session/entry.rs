//! A session's memory: one hot cache line that every packet touches, one cold line for its beginning and end, and a
//! third line of addresses that only sessions with an IPv6 side have.
//!
//! ```text
//! client  CIP:cport -> VIP:vport   [gateway]   LIP:lport -> RIP:rport  real server
//!         `----- inbound key ----'             `---- outbound key ---' (seen reversed, as answers)
//! ```

use super::tcp_state::State;
use crate::clock::Tick;
use crate::wire::Protocol;

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

/// Facts about a session, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags(pub u16);

impl Flags {
    /// The client's side is IPv6.
    pub const CLIENT_V6: u16 = 1 << 0;
    /// The real server's side is IPv6.
    pub const SERVER_V6: u16 = 1 << 1;
    /// Any side is IPv6: the addresses stand in [`Wide`].
    pub const WIDE: u16 = Flags::CLIENT_V6 | Flags::SERVER_V6;
    /// Sequence numbers are translated by `seq_delta`.
    pub const SEQ: u16 = 1 << 2;
    /// Timestamps are translated by `timestamp_delta`.
    pub const TIMESTAMP: u16 = 1 << 3;
    /// TOA still goes into inbound segments.
    pub const TOA: u16 = 1 << 4;
    /// The real server has answered; `Cold::server_isn` is known.
    pub const ANSWERED: u16 = 1 << 5;
    /// Counted as active at its real server (TCP: established).
    pub const ACTIVE: u16 = 1 << 6;
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
/// Addresses are IPv4 in network order; where a side is IPv6 its two addresses stand in [`Wide`] and the fields here
/// are 0. L4 ports are in host order.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Hot {
    /// client address
    pub cip: [u8; 4],
    /// virtual address
    pub vip: [u8; 4],
    /// client port
    pub cport: u16,
    /// virtual port the client dialled
    pub vport: u16,
    /// real server's address
    pub rip: [u8; 4],
    /// local address
    pub lip: [u8; 4],
    /// real server's port
    pub rport: u16,
    /// local port
    pub lport: u16,
    /// TCP or UDP
    pub protocol: Protocol,
    /// IPVS state; UDP sessions stay in [`State::Established`]
    pub state: State,
    /// one-bit facts
    pub flags: Flags,
    /// added to the client's sequence numbers, taken from the real server's acknowledgements
    pub seq_delta: u32,
    /// added to the client's TSval, taken from the real server's TSecr
    pub timestamp_delta: u32,
    /// the last packet's time
    pub stamp: Tick,
    /// index of the real server in the snapshot; stable while the session lives
    pub real_server: u32,
    /// neighbour index toward the real server
    pub next_hop_inbound: u16,
    /// neighbour index toward the client
    pub next_hop_outbound: u16,
    /// sequence number after the furthest byte the client has sent, in the client's numbers
    pub next_seq_inbound: u32,
    /// sequence number after the furthest byte the real server has sent
    pub next_seq_outbound: u32,
    /// one's-complement difference that the new addresses and ports make in the L4 checksum, inbound; the outbound
    /// one is its complement (RFC 1624)
    pub checksum_delta: u16,
    /// the route generation for which the next hops hold
    pub route_epoch: u16,
    /// packets of both directions
    pub packets: u32,
}

/// What only a session's beginning, its end and its timer touch.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Cold {
    /// links of the timer wheel's slot, owned by the wheel
    pub timer_next: u32,
    /// see `timer_next`
    pub timer_prev: u32,
    /// links of the list of sessions whose lease may be taken over, owned by the local pool
    pub reclaim_next: u32,
    /// see `reclaim_next`
    pub reclaim_prev: u32,
    /// what the local pool needs to take the lease back, opaque to others
    pub lease_slot: u32,
    /// when it began
    pub created: Tick,
    /// client's initial sequence number, in the client's numbers
    pub client_isn: u32,
    /// real server's initial sequence number
    pub server_isn: u32,
    /// sequence number after the client's FIN, in the client's numbers
    pub fin_inbound: u32,
    /// sequence number after the real server's FIN
    pub fin_outbound: u32,
    /// the last TSval the real server saw from us before the end
    pub last_timestamp: u32,
    /// index of the service in the snapshot
    pub service: u32,
    /// the wheel's slot the session hangs in, owned by the wheel
    pub timer_slot: u16,
    /// room to 64 bytes
    pub reserved: [u8; 14],
}

/// The addresses of a session that has an IPv6 side, IPv4 ones in mapped form: one cache line.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Wide {
    /// client
    pub cip: crate::wire::Address,
    /// virtual
    pub vip: crate::wire::Address,
    /// real server
    pub rip: crate::wire::Address,
    /// local
    pub lip: crate::wire::Address,
}

const _: () = assert!(size_of::<Hot>() == 64);
const _: () = assert!(size_of::<Cold>() == 64);
const _: () = assert!(size_of::<Wide>() == 64);
