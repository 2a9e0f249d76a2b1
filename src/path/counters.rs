//! What one worker counts, and the balance that must hold.
//!
//! `received + taken + originated = transmitted + handed + dropped + held`, exactly, at any time between two bursts:
//! a packet that is answered counts as dropped with its reason, and the answer as originated.

use super::drop_reason::DropCounters;
use crate::service::snapshot::ToaSettings;
use crate::session::Direction;

/// Packets through one worker's path.
#[derive(Clone, Debug, Default)]
pub struct PathCounters {
    /// received from the worker's own queues
    pub received: u64,
    /// taken from other workers
    pub taken: u64,
    /// made by the gateway itself: ARP, ND, RST, ICMP
    pub originated: u64,
    /// given to a port, or to the worker that has the port's tx queue
    pub transmitted: u64,
    /// given to the worker that is their home
    pub handed: u64,
    /// finished frames taken from workers that have no tx queue on the port
    pub relays_taken: u64,
    /// dropped, by reason
    pub drops: DropCounters,
    /// sessions begun
    pub sessions_created: u64,
    /// sessions ended
    pub sessions_ended: u64,
    /// sessions whose lease was taken over by a new one
    pub leases_taken_over: u64,
    /// inbound segments that carried TOA
    pub toa_sent: u64,
    /// inbound segments that had no room for TOA in the TCP options
    pub toa_no_option_room: u64,
    /// inbound segments that would have exceeded the MTU with TOA, and sessions whose path turned out to have no room
    pub toa_no_mtu_room: u64,
    /// bare ACKs with TOA that the gateway sent ahead of such segments
    pub toa_ahead: u64,
    /// inbound datagrams that carried UOA
    pub uoa_sent: u64,
    /// inbound datagrams that had no room for UOA among the IPv4 options of the client
    pub uoa_no_option_room: u64,
    /// inbound datagrams that would have exceeded the MTU with UOA, and sessions whose path turned out to have no room
    pub uoa_no_mtu_room: u64,
    /// sessions whose PROXY protocol header was sent, and datagrams that carried one
    pub proxy_sent: u64,
    /// PROXY protocol headers sent again to a real server that had not acknowledged them
    pub proxy_sent_again: u64,
    /// PROXY protocol headers not sent for want of a buffer
    pub proxy_no_buffer: u64,
    /// PROXY protocol headers taken from fronts
    pub proxy_taken: u64,
    /// answers to refused clients that the rate limit suppressed
    pub refusals_limited: u64,
}

/// Packets of one direction.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Traffic {
    /// how many
    pub packets: u64,
    /// their bytes, IP header included
    pub bytes: u64,
}

/// What one worker knows of one real server: one cache line.
#[derive(Clone, Debug, Default)]
#[repr(C, align(64))]
pub struct RealServerCounters {
    /// what clients sent and what it answered, by [`Direction`]
    pub traffic: [Traffic; 2],
    /// sessions ever given to it
    pub sessions: u64,
    /// established TCP sessions and all UDP sessions
    pub active: u32,
    /// all other sessions
    pub inactive: u32,
    /// new sessions refused because no local port toward it was free
    pub no_local_port: u64,
    /// removed from the configuration: copied from the snapshot so that a packet finds it in this line, as the next
    pub removed: bool,
    /// by which TOA its service tells it of clients, if by that
    pub toa: Option<ToaSettings>,
}

const _: () = assert!(size_of::<RealServerCounters>() == 64);

impl RealServerCounters {
    /// Counts a packet of `bytes` bytes, IP header included.
    #[inline(always)]
    pub(super) fn count(&mut self, direction: Direction, bytes: usize) {
        let traffic = &mut self.traffic[direction as usize];
        traffic.packets += 1;
        traffic.bytes += bytes as u64;
    }
}
