//! What classification leaves behind of a packet: its flow and where its headers stand.

use crate::wire::{Address, Protocol, Tuple, ethernet};

/// A TCP or UDP packet whose headers were checked; offsets in bytes from the start of the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parsed {
    /// the flow, as the packet shows it
    pub tuple: Tuple,
    /// start of the TCP or UDP header
    pub l4: u16,
    /// end of the IP packet; what follows is Ethernet padding
    pub end: u32,
    /// the TCP flags; 0 for UDP
    pub tcp_flags: u8,
    /// whether the packet is an IPv6 one: asked so often that it is not read from the addresses
    pub v6: bool,
    /// workers that already passed this packet on because their local ports were used up
    pub hops: u16,
}

impl Parsed {
    /// Start of the IP header: what may stand between it and the Ethernet header was taken away.
    pub const L3: usize = ethernet::HEADER_LEN;
    /// A place to parse into.
    pub const EMPTY: Parsed = Parsed {
        tuple: Tuple {
            src: Address::UNSPECIFIED,
            dst: Address::UNSPECIFIED,
            sport: 0,
            dport: 0,
            protocol: Protocol::Tcp,
        },
        l4: 0,
        end: 0,
        tcp_flags: 0,
        v6: false,
        hops: 0,
    };

    /// Bytes of the IP packet.
    #[inline(always)]
    pub fn ip_len(&self) -> usize {
        self.end as usize - Self::L3
    }
}
