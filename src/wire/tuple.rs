//! The five values that name a flow on one wire.

use super::Address;

/// The layer-4 protocols that sessions exist for, with their IANA numbers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Protocol {
    /// RFC 9293
    Tcp = 6,
    /// RFC 768
    Udp = 17,
}

/// A flow as one packet shows it: source to destination. L4 ports are in host order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tuple {
    /// source address
    pub src: Address,
    /// destination address
    pub dst: Address,
    /// source L4 port
    pub sport: u16,
    /// destination L4 port
    pub dport: u16,
    /// layer-4 protocol
    pub protocol: Protocol,
}

impl Tuple {
    /// The same flow as its answers show it.
    #[inline(always)]
    pub const fn reversed(&self) -> Tuple {
        Tuple { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport, protocol: self.protocol }
    }
}
