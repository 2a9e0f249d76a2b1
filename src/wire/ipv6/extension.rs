//! From the fixed IPv6 header to layer 4: a bounded walk along the extension headers (RFC 8200 §4).
//!
//! RFC 8504 §5.3 lets a node bound what it looks at. The bounds here leave room for a full chain (hop-by-hop,
//! destination options, routing, fragment, authentication, destination options) and little for games.

use super::HEADER_LEN;
use crate::wire::field::{get_u16, get_u32};

/// Extension headers that the walk passes at most.
const HEADERS_MAX: usize = 8;
/// Bytes of extension headers that the walk passes at most.
const CHAIN_LEN_MAX: usize = 256;

const HOP_BY_HOP: u8 = 0;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const ICMP_V6: u8 = 58;
const DESTINATION_OPTIONS: u8 = 60;

/// Why no layer-4 header was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ExtensionError {
    /// the chain runs past the packet, or past the piece that was given
    #[error("the IPv6 extension header chain is truncated")]
    Truncated,
    /// more headers or bytes than the walk passes
    #[error("the IPv6 extension header chain is longer than the gateway walks")]
    TooLong,
    /// hop-by-hop options behind another header (RFC 8200 §4.3), or a second fragment header
    #[error("an IPv6 extension header stands where it must not")]
    Order,
    /// a type 0 routing header (RFC 5095) or one with segments left, which would send the packet elsewhere
    #[error("the packet carries a type 0 routing header or one with segments left")]
    RoutingHeader,
    /// the chain ends in "no next header" or in a protocol that the gateway does not forward
    #[error("the protocol behind the IPv6 headers is not one the gateway forwards")]
    UnknownProtocol,
}

/// What a fragment header says (RFC 8200 §4.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// where in the datagram its payload belongs, in bytes
    pub offset: u16,
    /// whether more fragments follow
    pub more: bool,
    /// identification
    pub id: u32,
}

impl Fragment {
    /// Whether it is a whole datagram all the same, to be handled on its own (RFC 6946).
    pub const fn is_atomic(&self) -> bool {
        self.offset == 0 && !self.more
    }
}

/// Where the chain ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExtensionWalk {
    /// TCP (6), UDP (17) or ICMPv6 (58); behind a fragment header with an offset whatever that header names
    pub protocol: u8,
    /// where the layer-4 header, or a later fragment's payload, starts; from the start of the IPv6 header
    pub l4_offset: usize,
    /// where the byte stands that names `protocol`; from the start of the IPv6 header
    pub next_header_offset: usize,
    /// the fragment header, if there is one
    pub fragment: Option<Fragment>,
}

/// Walks the chain of `packet`, which starts with a fixed IPv6 header and has no link padding behind it.
///
/// It does not look at layer 4, nor whether there are any bytes of it. Cost: nothing to speak of without extension
/// headers, one round per header with them.
///
/// # Errors
/// [`ExtensionError`] says what ended the walk.
#[inline]
pub fn walk_extensions(packet: &[u8]) -> Result<ExtensionWalk, ExtensionError> {
    let protocol = *packet.get(6).ok_or(ExtensionError::Truncated)?;
    if matches!(protocol, TCP | UDP | ICMP_V6) {
        return Ok(ExtensionWalk { protocol, l4_offset: HEADER_LEN, next_header_offset: 6, fragment: None });
    }
    walk_chain(packet, protocol)
}

#[cold]
fn walk_chain(packet: &[u8], first: u8) -> Result<ExtensionWalk, ExtensionError> {
    let mut walk =
        ExtensionWalk { protocol: first, l4_offset: HEADER_LEN, next_header_offset: 6, fragment: None };
    for passed in 0..=HEADERS_MAX {
        let at = walk.l4_offset;
        match walk.protocol {
            TCP | UDP | ICMP_V6 => return Ok(walk),
            HOP_BY_HOP if passed > 0 => return Err(ExtensionError::Order),
            HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS => {}
            _ => return Err(ExtensionError::UnknownProtocol),
        }
        if passed == HEADERS_MAX || at - HEADER_LEN >= CHAIN_LEN_MAX {
            return Err(ExtensionError::TooLong);
        }
        let header =
            packet.get(at..).and_then(|rest| rest.first_chunk::<8>()).ok_or(ExtensionError::Truncated)?;
        let len = match walk.protocol {
            FRAGMENT => 8,
            // RFC 4302 §2.2: in 4-byte units, less two
            AUTHENTICATION => (usize::from(header[1]) + 2) * 4,
            // RFC 8200 §4.3, §4.4, §4.6: in 8-byte units, less the first
            _ => (usize::from(header[1]) + 1) * 8,
        };
        if walk.protocol == ROUTING && (header[2] == 0 || header[3] != 0) {
            return Err(ExtensionError::RoutingHeader);
        }
        if at + len > packet.len() {
            return Err(ExtensionError::Truncated);
        }
        if at + len - HEADER_LEN > CHAIN_LEN_MAX {
            return Err(ExtensionError::TooLong);
        }
        if walk.protocol == FRAGMENT {
            if walk.fragment.is_some() {
                return Err(ExtensionError::Order);
            }
            let field = get_u16(header, 2);
            let fragment = Fragment { offset: field & 0xfff8, more: field & 1 != 0, id: get_u32(header, 4) };
            walk.fragment = Some(fragment);
        }
        walk = ExtensionWalk {
            protocol: header[0],
            l4_offset: at + len,
            next_header_offset: at,
            fragment: walk.fragment,
        };
        // A later fragment continues the payload; there are no headers to read in it.
        if walk.fragment.is_some_and(|fragment| fragment.offset != 0) {
            return Ok(walk);
        }
    }
    Err(ExtensionError::TooLong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A packet whose chain is `headers` (kind, bytes) before `last`, with 20 bytes of layer 4.
    fn chain(headers: &[(u8, &[u8])], last: u8) -> Vec<u8> {
        let mut packet = vec![0; HEADER_LEN];
        packet[0] = 0x60;
        let mut names = 6;
        for (kind, bytes) in headers {
            packet[names] = *kind;
            names = packet.len();
            packet.extend_from_slice(bytes);
        }
        packet[names] = last;
        packet.extend_from_slice(&[0; 20]);
        let payload_len = (packet.len() - HEADER_LEN) as u16;
        packet[4..6].copy_from_slice(&payload_len.to_be_bytes());
        packet
    }

    const OPTIONS: &[u8] = &[0, 0, 1, 4, 0, 0, 0, 0];
    const ROUTED: &[u8] = &[0, 0, 4, 0, 0, 0, 0, 0];
    const ATOMIC: &[u8] = &[0, 0, 0, 0, 1, 2, 3, 4];
    const AUTHENTICATED: &[u8] = &[0, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    #[test]
    fn conformance_d1_a_full_chain_leads_to_tcp() {
        let headers: [(u8, &[u8]); 6] = [
            (HOP_BY_HOP, OPTIONS),
            (DESTINATION_OPTIONS, OPTIONS),
            (ROUTING, ROUTED),
            (FRAGMENT, ATOMIC),
            (AUTHENTICATION, AUTHENTICATED),
            (DESTINATION_OPTIONS, OPTIONS),
        ];
        let packet = chain(&headers, TCP);
        let walk = walk_extensions(&packet).unwrap();
        assert_eq!((walk.protocol, walk.l4_offset, walk.next_header_offset), (TCP, 40 + 64, 40 + 56));
        assert_eq!(walk.fragment, Some(Fragment { offset: 0, more: false, id: 0x0102_0304 }));
        assert!(walk.fragment.unwrap().is_atomic());
        for len in 0..packet.len() - 20 {
            assert!(walk_extensions(&packet[..len]).is_err(), "truncated to {len}");
        }
    }

    #[test]
    fn conformance_d1_chains_of_0_to_64_headers_end_or_are_refused() {
        for count in 0..=64 {
            let headers = vec![(DESTINATION_OPTIONS, OPTIONS); count];
            let walk = walk_extensions(&chain(&headers, UDP));
            if count <= HEADERS_MAX {
                assert_eq!(walk.map(|walk| walk.l4_offset), Ok(40 + 8 * count));
            } else {
                assert_eq!(walk, Err(ExtensionError::TooLong));
            }
        }
        let mut long = [0; 264];
        long[1] = 32;
        assert_eq!(
            walk_extensions(&chain(&[(DESTINATION_OPTIONS, &long)], UDP)),
            Err(ExtensionError::TooLong)
        );
        long[1] = 31;
        assert!(walk_extensions(&chain(&[(DESTINATION_OPTIONS, &long[..256])], UDP)).is_ok());
    }

    #[test]
    fn conformance_d2_routing_headers_that_lead_elsewhere_are_refused() {
        for (kind, segments_left, refused) in
            [(0, 0, true), (0, 1, true), (2, 1, true), (4, 2, true), (4, 0, false)]
        {
            let header = [0, 0, kind, segments_left, 0, 0, 0, 0];
            let walk = walk_extensions(&chain(&[(ROUTING, &header)], TCP));
            assert_eq!(walk == Err(ExtensionError::RoutingHeader), refused, "type {kind}");
        }
    }

    #[test]
    fn conformance_d2_protocols_the_gateway_does_not_know_are_named_so() {
        for protocol in [59, 50, 132, 136, 4, 41, 253] {
            assert_eq!(walk_extensions(&chain(&[], protocol)), Err(ExtensionError::UnknownProtocol));
            let behind = chain(&[(DESTINATION_OPTIONS, OPTIONS)], protocol);
            assert_eq!(walk_extensions(&behind), Err(ExtensionError::UnknownProtocol));
        }
    }

    #[test]
    fn headers_out_of_order_are_refused() {
        let late = chain(&[(DESTINATION_OPTIONS, OPTIONS), (HOP_BY_HOP, OPTIONS)], TCP);
        assert_eq!(walk_extensions(&late), Err(ExtensionError::Order));
        let twice = chain(&[(FRAGMENT, ATOMIC), (FRAGMENT, ATOMIC)], TCP);
        assert_eq!(walk_extensions(&twice), Err(ExtensionError::Order));
    }

    #[test]
    fn a_later_fragment_ends_the_walk_whatever_it_carries() {
        let later = [0, 0, 0x05, 0xa9, 0, 0, 0, 7];
        let walk = walk_extensions(&chain(&[(FRAGMENT, &later)], DESTINATION_OPTIONS)).unwrap();
        assert_eq!(walk.fragment, Some(Fragment { offset: 1448, more: true, id: 7 }));
        assert_eq!((walk.protocol, walk.l4_offset), (DESTINATION_OPTIONS, 48));
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_as_etherparse_does(
            kinds in prop::collection::vec(prop::sample::select(vec![0u8, 43, 44, 51, 60, 60, 60]), 0..7),
            bytes in prop::collection::vec(any::<u8>(), 0..160),
        ) {
            let mut packet = chain(&[], kinds.first().copied().unwrap_or(TCP));
            packet.truncate(HEADER_LEN);
            packet.extend_from_slice(&bytes);
            let mut at = HEADER_LEN;
            for kind in kinds.iter().skip(1).chain([&TCP]) {
                if at + 8 > packet.len() { break; }
                packet[at] = *kind;
                packet[at + 1] &= 1;
                at += 8 * (1 + usize::from(packet[at + 1]));
            }
            if let Ok(walk) = walk_extensions(&packet) {
                prop_assert!(walk.l4_offset <= packet.len());
                prop_assert_eq!(packet[walk.next_header_offset], walk.protocol);
                let first = etherparse::IpNumber(packet[6]);
                let later_fragment = walk.fragment.is_some_and(|fragment| fragment.offset != 0);
                if let (false, Ok((_, next, rest))) =
                    (later_fragment, etherparse::Ipv6ExtensionsSlice::from_slice(first, &packet[HEADER_LEN..]))
                    && matches!(next.0, TCP | UDP | ICMP_V6)
                {
                    prop_assert_eq!(next.0, walk.protocol);
                    prop_assert_eq!(packet.len() - rest.len(), walk.l4_offset);
                }
            }
        }
    }
}
