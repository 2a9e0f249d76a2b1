//! The packet that an ICMP error quotes: which flow it concerns, and where its headers stand.
//!
//! Routers quote as little as eight bytes of layer 4 (RFC 792); more is not asked for. Lengths are not held against the
//! quote, since it may be cut anywhere, and the layer-4 checksum is not checked (RFC 5508 REQ-3).

use crate::wire::checksum::{fold, sum};
use crate::wire::field::{get_array, get_u16};
use crate::wire::{Address, Protocol, Tuple, ipv4, ipv6};

/// Bytes of layer 4 that a quote has to have: the ports, and a TCP sequence number or UDP checksum.
const L4_LEN_MIN: usize = 8;

/// Why a quoted packet names no flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// the quote ends before the eighth byte of layer 4
    #[error("the packet quoted in the ICMP error is cut off before its ports")]
    Truncated,
    /// version, header length or extension headers are wrong
    #[error("the IP header quoted in the ICMP error is wrong")]
    Header,
    /// a later fragment, which has no ports
    #[error("the packet quoted in the ICMP error is a fragment without ports")]
    Fragment,
    /// neither TCP nor UDP
    #[error("the packet quoted in the ICMP error is neither TCP nor UDP")]
    UnknownProtocol,
}

/// A quoted packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Embedded {
    /// the flow as the quoted packet shows it: from whom it came, to whom it went
    pub tuple: Tuple,
    /// bytes of its IP header: IPv4 with options, IPv6 without extension headers
    pub ip_header_len: usize,
    /// where its layer 4 starts, from the start of the quote
    pub l4_offset: usize,
    /// whether its IPv4 header checksum is right; always true for IPv6
    pub ip_checksum_ok: bool,
}

impl Embedded {
    /// Looks at the body of an ICMP error.
    ///
    /// # Errors
    /// [`EmbeddedError`] says why no flow can be read from it.
    pub fn parse_v4(quoted: &[u8]) -> Result<Self, EmbeddedError> {
        let fixed = quoted.first_chunk::<{ ipv4::HEADER_LEN }>().ok_or(EmbeddedError::Truncated)?;
        let ip_header_len = usize::from(fixed[0] & 0x0f) * 4;
        if fixed[0] >> 4 != 4 || ip_header_len < ipv4::HEADER_LEN {
            return Err(EmbeddedError::Header);
        }
        let header = quoted.get(..ip_header_len).ok_or(EmbeddedError::Truncated)?;
        if get_u16(fixed, 6) & 0x1fff != 0 {
            return Err(EmbeddedError::Fragment);
        }
        Ok(Embedded {
            tuple: tuple(
                Address::from_v4(get_array(fixed, 12)),
                Address::from_v4(get_array(fixed, 16)),
                fixed[9],
                quoted,
                ip_header_len,
            )?,
            ip_header_len,
            l4_offset: ip_header_len,
            ip_checksum_ok: fold(sum(header)) == 0xffff,
        })
    }

    /// Looks at the body of an ICMPv6 error.
    ///
    /// # Errors
    /// [`EmbeddedError`] says why no flow can be read from it.
    pub fn parse_v6(quoted: &[u8]) -> Result<Self, EmbeddedError> {
        let fixed = quoted.first_chunk::<{ ipv6::HEADER_LEN }>().ok_or(EmbeddedError::Truncated)?;
        if fixed[0] >> 4 != 6 {
            return Err(EmbeddedError::Header);
        }
        let walk = ipv6::walk_extensions(quoted).map_err(|error| match error {
            ipv6::ExtensionError::Truncated => EmbeddedError::Truncated,
            ipv6::ExtensionError::UnknownProtocol => EmbeddedError::UnknownProtocol,
            _ => EmbeddedError::Header,
        })?;
        if walk.fragment.is_some_and(|fragment| fragment.offset != 0) {
            return Err(EmbeddedError::Fragment);
        }
        Ok(Embedded {
            tuple: tuple(
                Address::from_v6(get_array(fixed, 8)),
                Address::from_v6(get_array(fixed, 24)),
                walk.protocol,
                quoted,
                walk.l4_offset,
            )?,
            ip_header_len: ipv6::HEADER_LEN,
            l4_offset: walk.l4_offset,
            ip_checksum_ok: true,
        })
    }
}

fn tuple(src: Address, dst: Address, protocol: u8, quoted: &[u8], l4: usize) -> Result<Tuple, EmbeddedError> {
    let protocol = match protocol {
        6 => Protocol::Tcp,
        17 => Protocol::Udp,
        _ => return Err(EmbeddedError::UnknownProtocol),
    };
    let ports = quoted.get(l4..l4 + L4_LEN_MIN).ok_or(EmbeddedError::Truncated)?;
    Ok(Tuple { src, dst, sport: get_u16(ports, 0), dport: get_u16(ports, 2), protocol })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ipv4::{Ipv4Header, fill_checksum};
    use crate::wire::ipv6::Ipv6Header;
    use proptest::prelude::*;

    /// An IPv4 packet with `options` and eight bytes of layer 4, 80 to 40001.
    fn quote_v4(protocol: u8, options: &[u8]) -> Vec<u8> {
        let mut quote = vec![0; 20];
        let header = Ipv4Header {
            tos: 0,
            total_len: 1500,
            id: 1,
            dont_fragment: true,
            ttl: 3,
            protocol,
            src: [10, 1, 0, 100],
            dst: [10, 1, 0, 1],
        };
        ipv4::write_header(&mut quote, &header);
        quote.extend_from_slice(options);
        quote[0] = 0x40 | (quote.len() / 4) as u8;
        fill_checksum(&mut quote);
        quote.extend_from_slice(&[0, 80, 0x9c, 0x41, 0, 0, 0, 1]);
        quote
    }

    fn quote_v6(next_header: u8, extensions: &[u8]) -> Vec<u8> {
        let mut quote = vec![0; 40];
        let header = Ipv6Header {
            traffic_class: 0,
            flow_label: 0,
            payload_len: 1400,
            next_header,
            hop_limit: 3,
            src: [0x20; 16],
            dst: [0x21; 16],
        };
        ipv6::write_header(&mut quote, &header);
        quote.extend_from_slice(extensions);
        quote.extend_from_slice(&[0, 80, 0x9c, 0x41, 0, 0, 0, 1]);
        quote
    }

    #[test]
    fn conformance_f3_eight_bytes_of_layer_4_are_enough() {
        let quote = quote_v4(6, &[]);
        let embedded = Embedded::parse_v4(&quote).unwrap();
        let expected = Tuple {
            src: Address::from_v4([10, 1, 0, 100]),
            dst: Address::from_v4([10, 1, 0, 1]),
            sport: 80,
            dport: 40_001,
            protocol: Protocol::Tcp,
        };
        assert_eq!(
            embedded,
            Embedded { tuple: expected, ip_header_len: 20, l4_offset: 20, ip_checksum_ok: true }
        );
        for len in 0..quote.len() {
            assert_eq!(Embedded::parse_v4(&quote[..len]), Err(EmbeddedError::Truncated), "length {len}");
        }
    }

    #[test]
    fn conformance_f5_embedded_options_are_skipped_and_the_checksum_is_looked_at() {
        let mut quote = quote_v4(17, &[1; 40]);
        let embedded = Embedded::parse_v4(&quote).unwrap();
        assert_eq!((embedded.ip_header_len, embedded.l4_offset, embedded.tuple.sport), (60, 60, 80));
        assert_eq!(embedded.tuple.protocol, Protocol::Udp);
        assert!(embedded.ip_checksum_ok);
        quote[30] ^= 4;
        assert!(!Embedded::parse_v4(&quote).unwrap().ip_checksum_ok);
    }

    #[test]
    fn quotes_without_a_flow_are_refused() {
        let mut quote = quote_v4(6, &[]);
        quote[7] = 1;
        assert_eq!(Embedded::parse_v4(&quote), Err(EmbeddedError::Fragment));
        quote[6..8].copy_from_slice(&[0x20, 0]);
        assert!(Embedded::parse_v4(&quote).is_ok(), "a first fragment has ports");
        assert_eq!(Embedded::parse_v4(&quote_v4(1, &[])), Err(EmbeddedError::UnknownProtocol));
        quote[0] = 0x44;
        assert_eq!(Embedded::parse_v4(&quote), Err(EmbeddedError::Header));
        assert_eq!(Embedded::parse_v4(&quote_v6(6, &[])), Err(EmbeddedError::Header));
        assert_eq!(Embedded::parse_v6(&quote_v4(6, &[1; 40])), Err(EmbeddedError::Header));
        assert_eq!(Embedded::parse_v6(&quote_v6(58, &[])), Err(EmbeddedError::UnknownProtocol));
        assert_eq!(Embedded::parse_v6(&quote_v6(59, &[])), Err(EmbeddedError::UnknownProtocol));
    }

    #[test]
    fn embedded_ipv6_extension_headers_are_skipped() {
        let quote = quote_v6(60, &[44, 0, 1, 4, 0, 0, 0, 0, 6, 0, 0, 1, 0, 0, 0, 9]);
        let embedded = Embedded::parse_v6(&quote).unwrap();
        assert_eq!((embedded.ip_header_len, embedded.l4_offset), (40, 56));
        assert_eq!((embedded.tuple.sport, embedded.tuple.dport), (80, 40_001));
        for len in 0..quote.len() {
            assert_eq!(Embedded::parse_v6(&quote[..len]), Err(EmbeddedError::Truncated), "length {len}");
        }
        let later = quote_v6(44, &[6, 0, 0, 8, 0, 0, 0, 9]);
        assert_eq!(Embedded::parse_v6(&later), Err(EmbeddedError::Fragment));
    }

    proptest! {
        #[test]
        fn whatever_is_quoted_is_read_within_bounds(mut bytes in prop::collection::vec(any::<u8>(), 0..200), first: bool) {
            if let Some(byte) = bytes.first_mut() {
                *byte = if first { 0x40 | *byte & 0x0f } else { 0x60 };
            }
            for embedded in [Embedded::parse_v4(&bytes), Embedded::parse_v6(&bytes)].into_iter().flatten() {
                prop_assert!(embedded.l4_offset + 8 <= bytes.len() && embedded.ip_header_len <= embedded.l4_offset);
            }
        }
    }
}
