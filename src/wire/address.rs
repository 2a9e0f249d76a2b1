//! One address type for both families: sixteen bytes, an IPv4 address in its IPv4-mapped form (RFC 4291 §2.5.5.2).
//!
//! A packet's path is the same for IPv4, IPv6 and across families because a session holds four of these; the
//! few places where the family matters ask [`Address::is_v4`].

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::{FromZeros, Immutable, IntoBytes, transmute, transmute_ref};

/// An IPv4 or IPv6 address in network order; IPv4 as `::ffff:a.b.c.d`.
///
/// Held as words whose bytes lie as they do on the wire: an array of bytes would be taken apart and put together again
/// byte by byte wherever it is passed by value.
#[derive(Clone, Copy, PartialEq, Eq, FromZeros, Immutable, IntoBytes)]
#[repr(transparent)]
pub struct Address([u32; 4]);

/// The third word of an IPv4-mapped address.
const V4_MARK: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

impl Address {
    /// `::`, the address that no packet may carry as its source or destination through the gateway.
    pub const UNSPECIFIED: Address = Address([0; 4]);

    /// The IPv4-mapped form of four network-order bytes.
    #[inline(always)]
    pub const fn from_v4(octets: [u8; 4]) -> Self {
        Address([0, 0, V4_MARK, u32::from_ne_bytes(octets)])
    }

    /// An IPv6 address of sixteen network-order bytes.
    #[inline(always)]
    pub const fn from_v6(octets: [u8; 16]) -> Self {
        Address(transmute!(octets))
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub fn is_v4(&self) -> bool {
        self.0[0] | self.0[1] | (self.0[2] ^ V4_MARK) == 0
    }

    /// The last four bytes: the whole address if it is an IPv4 one.
    #[inline(always)]
    pub const fn v4_octets(&self) -> [u8; 4] {
        self.0[3].to_ne_bytes()
    }

    /// All sixteen bytes, mapped form for IPv4.
    #[inline(always)]
    pub const fn octets(&self) -> &[u8; 16] {
        transmute_ref!(&self.0)
    }
}

impl Hash for Address {
    /// As one number: the hash of an array begins with its length and takes it in pieces.
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(u128::from_ne_bytes(*self.octets()));
    }
}

impl Ord for Address {
    /// As numbers: IPv4 addresses together, in their usual order.
    fn cmp(&self, other: &Self) -> Ordering {
        self.octets().cmp(other.octets())
    }
}

impl PartialOrd for Address {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Address::from_v4(v4.octets()),
            IpAddr::V6(v6) => Address::from_v6(v6.octets()),
        }
    }
}

impl From<Ipv4Addr> for Address {
    fn from(address: Ipv4Addr) -> Self {
        Address::from_v4(address.octets())
    }
}

impl From<Ipv6Addr> for Address {
    fn from(address: Ipv6Addr) -> Self {
        Address::from_v6(address.octets())
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        if address.is_v4() {
            IpAddr::V4(Ipv4Addr::from(address.v4_octets()))
        } else {
            IpAddr::V6(Ipv6Addr::from(*address.octets()))
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_survive_the_round_trip() {
        for text in ["10.1.0.254", "2001:db8::1", "0.0.0.0", "::", "::1"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(IpAddr::from(Address::from(address)), address);
            assert_eq!(Address::from(address).is_v4(), address.is_ipv4());
        }
    }
}
