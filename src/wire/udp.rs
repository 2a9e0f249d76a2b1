//! UDP headers (RFC 768).

use super::field::{get_u16, put_u16};

/// IANA protocol number
pub const PROTOCOL: u8 = 17;
/// Bytes of the header.
pub const HEADER_LEN: usize = 8;
/// Where the checksum stands in the header.
pub const CHECKSUM_OFFSET: usize = 6;

/// Why a datagram has no valid header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UdpError {
    /// fewer than eight bytes
    #[error("the datagram is shorter than a UDP header")]
    Truncated,
    /// length below 8, or beyond the IP payload
    #[error("the UDP length is below 8 bytes or beyond the IP payload")]
    Length,
    /// port 0 is nobody's
    #[error("the UDP destination port is 0")]
    DestinationPort,
}

/// A datagram whose length and destination port were checked. Source port 0 is valid: it means "no answer wanted".
#[derive(Clone, Copy, Debug)]
pub struct Udp<'a> {
    fixed: &'a [u8; HEADER_LEN],
    datagram: &'a [u8],
}

impl<'a> Udp<'a> {
    /// Checks a datagram that lies in one piece: the IP payload without link padding.
    ///
    /// # Errors
    /// [`UdpError`] says which check failed.
    #[inline]
    pub fn parse(datagram: &'a [u8]) -> Result<Self, UdpError> {
        Self::parse_within(datagram, datagram.len())
    }

    /// Checks a datagram of `available` bytes of which `head` holds the first.
    ///
    /// # Errors
    /// [`UdpError`] says which check failed.
    #[inline]
    pub fn parse_within(head: &'a [u8], available: usize) -> Result<Self, UdpError> {
        let fixed = head.first_chunk::<HEADER_LEN>().ok_or(UdpError::Truncated)?;
        let len = len(fixed);
        if len < HEADER_LEN || len > available {
            return Err(UdpError::Length);
        }
        if dport(fixed) == 0 {
            return Err(UdpError::DestinationPort);
        }
        Ok(Udp { fixed, datagram: &head[..head.len().min(len)] })
    }

    /// Source port.
    #[inline(always)]
    pub fn sport(&self) -> u16 {
        sport(self.fixed)
    }

    /// Destination port.
    #[inline(always)]
    pub fn dport(&self) -> u16 {
        dport(self.fixed)
    }

    /// Bytes of header and payload as the header says; the IP payload may be longer (RFC 9868).
    #[inline(always)]
    pub fn datagram_len(&self) -> usize {
        len(self.fixed)
    }

    /// Checksum field; 0 is "none", allowed over IPv4 only (RFC 8200 §8.1).
    #[inline(always)]
    pub fn checksum(&self) -> u16 {
        checksum(self.fixed)
    }

    /// What follows the header, as far as it lies in the piece that was parsed.
    #[inline(always)]
    pub fn payload(&self) -> &'a [u8] {
        &self.datagram[HEADER_LEN..]
    }
}

/// Source port.
#[inline(always)]
pub fn sport(datagram: &[u8]) -> u16 {
    get_u16(datagram, 0)
}

/// Destination port.
#[inline(always)]
pub fn dport(datagram: &[u8]) -> u16 {
    get_u16(datagram, 2)
}

/// Length field: bytes of header and payload.
#[inline(always)]
pub fn len(datagram: &[u8]) -> usize {
    usize::from(get_u16(datagram, 4))
}

/// Checksum field.
#[inline(always)]
pub fn checksum(datagram: &[u8]) -> u16 {
    get_u16(datagram, CHECKSUM_OFFSET)
}

/// Sets the source port; the checksum is the caller's, as in all setters.
#[inline(always)]
pub fn set_sport(datagram: &mut [u8], port: u16) {
    put_u16(datagram, 0, port);
}

/// Sets the destination port.
#[inline(always)]
pub fn set_dport(datagram: &mut [u8], port: u16) {
    put_u16(datagram, 2, port);
}

/// Sets the length field.
#[inline(always)]
pub fn set_len(datagram: &mut [u8], len: u16) {
    put_u16(datagram, 4, len);
}

/// Sets the checksum field.
#[inline(always)]
pub fn set_checksum(datagram: &mut [u8], checksum: u16) {
    put_u16(datagram, CHECKSUM_OFFSET, checksum);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn datagram(sport: u16, dport: u16, len: u16) -> [u8; 12] {
        let mut bytes = [7; 12];
        set_sport(&mut bytes, sport);
        set_dport(&mut bytes, dport);
        set_len(&mut bytes, len);
        set_checksum(&mut bytes, 0xabcd);
        bytes
    }

    #[test]
    fn conformance_k2_lengths_below_the_header_or_beyond_the_packet_are_refused() {
        for len in 0..20 {
            let expected = if (8..=12).contains(&len) { None } else { Some(UdpError::Length) };
            assert_eq!(Udp::parse(&datagram(1, 2, len)).err(), expected, "length {len}");
        }
        assert_eq!(Udp::parse(&datagram(1, 2, 8)[..7]).err(), Some(UdpError::Truncated));
        let bytes = datagram(1, 2, 10);
        assert_eq!(
            Udp::parse(&bytes).unwrap().payload().len(),
            2,
            "bytes behind the datagram are not its payload"
        );
        assert_eq!(Udp::parse_within(&bytes[..9], 12).unwrap().datagram_len(), 10);
    }

    #[test]
    fn conformance_k3_destination_port_0_is_refused_and_source_port_0_passes() {
        assert_eq!(Udp::parse(&datagram(1, 0, 8)).err(), Some(UdpError::DestinationPort));
        let bytes = datagram(0, 53, 8);
        let view = Udp::parse(&bytes).unwrap();
        assert_eq!((view.sport(), view.dport(), view.checksum()), (0, 53, 0xabcd));
        assert!(view.payload().is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_as_etherparse_does(bytes in prop::collection::vec(any::<u8>(), 0..40), short in any::<bool>()) {
            let mut bytes = bytes;
            if short && bytes.len() > 4 {
                bytes[4] = 0;
            }
            if let Ok(view) = Udp::parse(&bytes) {
                let oracle = etherparse::UdpSlice::from_slice(&bytes).unwrap();
                prop_assert_eq!((view.sport(), view.dport()), (oracle.source_port(), oracle.destination_port()));
                prop_assert_eq!(view.payload(), oracle.payload());
            }
        }
    }
}
