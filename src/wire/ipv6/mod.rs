//! IPv6 headers (RFC 8200) and the walk along their extension headers.

mod extension;

pub use extension::{ExtensionError, ExtensionWalk, Fragment, walk_extensions};

use super::Address;
use super::field::{get_array, get_u16, get_u32, put_array, put_u16, put_u32};

/// Bytes of the fixed header.
pub const HEADER_LEN: usize = 40;
/// Smallest MTU that every link must have (RFC 8200 §5); a path MTU told below this is not believed (RFC 8201 §4).
pub const MTU_MIN: u16 = 1280;

/// Why a packet is not IPv6 that may be forwarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Ipv6Error {
    /// fewer than forty bytes
    #[error("the packet is shorter than an IPv6 header")]
    Truncated,
    /// version other than 6
    #[error("the IP version is not 6")]
    Version,
    /// payload length beyond the packet
    #[error("the IPv6 payload length is beyond the packet")]
    PayloadLength,
    /// payload length 0: a jumbogram (RFC 2675), or an upper layer without room
    #[error("the IPv6 payload length is 0")]
    Empty,
}

/// A fixed header whose version and length were checked.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6<'a> {
    fixed: &'a [u8; HEADER_LEN],
    packet: &'a [u8],
}

impl<'a> Ipv6<'a> {
    /// Checks a packet that lies in one piece. What follows its payload is link padding and not part of the view.
    ///
    /// # Errors
    /// [`Ipv6Error`] says which check failed.
    #[inline]
    pub fn parse(packet: &'a [u8]) -> Result<Self, Ipv6Error> {
        Self::parse_within(packet, packet.len())
    }

    /// Checks a packet of `available` bytes of which `head` holds the first.
    ///
    /// # Errors
    /// [`Ipv6Error`] says which check failed.
    #[inline]
    pub fn parse_within(head: &'a [u8], available: usize) -> Result<Self, Ipv6Error> {
        let fixed = head.first_chunk::<HEADER_LEN>().ok_or(Ipv6Error::Truncated)?;
        if fixed[0] >> 4 != 6 {
            return Err(Ipv6Error::Version);
        }
        let packet_len = HEADER_LEN + usize::from(get_u16(fixed, 4));
        if packet_len == HEADER_LEN {
            return Err(Ipv6Error::Empty);
        }
        if packet_len > available {
            return Err(Ipv6Error::PayloadLength);
        }
        Ok(Ipv6 { fixed, packet: &head[..head.len().min(packet_len)] })
    }

    /// The packet without link padding, as far as it lies in the piece that was parsed; for [`walk_extensions`].
    #[inline(always)]
    pub fn packet(&self) -> &'a [u8] {
        self.packet
    }

    /// What follows the fixed header, as far as it lies in the piece that was parsed.
    #[inline(always)]
    pub fn payload(&self) -> &'a [u8] {
        &self.packet[HEADER_LEN..]
    }

    /// Bytes after the fixed header, extension headers included.
    #[inline(always)]
    pub fn payload_len(&self) -> usize {
        usize::from(get_u16(self.fixed, 4))
    }

    /// Bytes of the packet with its fixed header.
    #[inline(always)]
    pub fn total_len(&self) -> usize {
        HEADER_LEN + self.payload_len()
    }

    /// DSCP and ECN.
    #[inline(always)]
    pub fn traffic_class(&self) -> u8 {
        (get_u16(self.fixed, 0) >> 4) as u8
    }

    /// Flow label, 20 bits.
    #[inline(always)]
    pub fn flow_label(&self) -> u32 {
        get_u32(self.fixed, 0) & 0x000f_ffff
    }

    /// IANA number of what follows the fixed header.
    #[inline(always)]
    pub fn next_header(&self) -> u8 {
        self.fixed[6]
    }

    /// Hop limit.
    #[inline(always)]
    pub fn hop_limit(&self) -> u8 {
        self.fixed[7]
    }

    /// Source address.
    #[inline(always)]
    pub fn src(&self) -> Address {
        Address::from_v6(get_array(self.fixed, 8))
    }

    /// Destination address.
    #[inline(always)]
    pub fn dst(&self) -> Address {
        Address::from_v6(get_array(self.fixed, 24))
    }
}

/// Sets DSCP and ECN; the flow label stays.
#[inline(always)]
pub fn set_traffic_class(header: &mut [u8], traffic_class: u8) {
    let rest = get_u16(header, 0) & 0xf00f;
    put_u16(header, 0, rest | u16::from(traffic_class) << 4);
}

/// Sets the flow label, whose upper twelve bits must be 0; the traffic class stays.
#[inline(always)]
pub fn set_flow_label(header: &mut [u8], flow_label: u32) {
    debug_assert!(flow_label <= 0x000f_ffff);
    let rest = get_u32(header, 0) & 0xfff0_0000;
    put_u32(header, 0, rest | flow_label & 0x000f_ffff);
}

/// Sets the payload length.
#[inline(always)]
pub fn set_payload_len(header: &mut [u8], payload_len: u16) {
    put_u16(header, 4, payload_len);
}

/// Adds to the payload length, for which there is room.
#[inline(always)]
pub fn lengthen(header: &mut [u8], len: usize) {
    set_payload_len(header, payload_len(header) + len as u16);
}

/// Bytes behind the fixed header.
#[inline(always)]
pub fn payload_len(header: &[u8]) -> u16 {
    get_u16(header, 4)
}

/// Sets the hop limit.
#[inline(always)]
pub fn set_hop_limit(header: &mut [u8], hop_limit: u8) {
    header[7] = hop_limit;
}

/// Takes one from the hop limit, which must not be 0.
#[inline(always)]
pub fn decrement_hop_limit(header: &mut [u8]) {
    debug_assert_ne!(header[7], 0);
    header[7] = header[7].wrapping_sub(1);
}

/// Sets the source address.
#[inline(always)]
pub fn set_src(header: &mut [u8], src: [u8; 16]) {
    put_array(header, 8, src);
}

/// Sets the destination address.
#[inline(always)]
pub fn set_dst(header: &mut [u8], dst: [u8; 16]) {
    put_array(header, 24, dst);
}

/// What a fixed header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ipv6Header {
    /// DSCP and ECN
    pub traffic_class: u8,
    /// flow label, 20 bits
    pub flow_label: u32,
    /// bytes after this header
    pub payload_len: u16,
    /// IANA number of what follows
    pub next_header: u8,
    /// hop limit
    pub hop_limit: u8,
    /// source address
    pub src: [u8; 16],
    /// destination address
    pub dst: [u8; 16],
}

/// Writes a header of [`HEADER_LEN`] bytes to the front of `out`.
#[inline]
pub fn write_header(out: &mut [u8], header: &Ipv6Header) {
    let out = &mut out[..HEADER_LEN];
    let traffic_class = u32::from(header.traffic_class) << 20;
    put_u32(out, 0, 6 << 28 | traffic_class | header.flow_label & 0x000f_ffff);
    set_payload_len(out, header.payload_len);
    out[6] = header.next_header;
    out[7] = header.hop_limit;
    set_src(out, header.src);
    set_dst(out, header.dst);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: Ipv6Header = Ipv6Header {
        traffic_class: 0xbb,
        flow_label: 0xa_bcde,
        payload_len: 20,
        next_header: 6,
        hop_limit: 64,
        src: [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        dst: [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
    };

    fn packet() -> [u8; 60] {
        let mut packet = [0; 60];
        write_header(&mut packet, &HEADER);
        packet
    }

    #[test]
    fn a_written_header_reads_back_and_etherparse_agrees() {
        let bytes = packet();
        let view = Ipv6::parse(&bytes).unwrap();
        assert_eq!((view.traffic_class(), view.flow_label()), (0xbb, 0xa_bcde));
        assert_eq!((view.payload_len(), view.total_len(), view.payload().len()), (20, 60, 20));
        assert_eq!((view.next_header(), view.hop_limit()), (6, 64));
        assert_eq!((view.src(), view.dst()), (Address::from_v6(HEADER.src), Address::from_v6(HEADER.dst)));
        let (oracle, _) = etherparse::Ipv6Header::from_slice(&bytes).unwrap();
        assert_eq!((oracle.traffic_class, oracle.flow_label.value()), (0xbb, 0xa_bcde));
        assert_eq!((oracle.source, oracle.destination, oracle.hop_limit), (HEADER.src, HEADER.dst, 64));
    }

    #[test]
    fn conformance_c11_changing_one_field_keeps_its_neighbours() {
        let mut bytes = packet();
        set_traffic_class(&mut bytes, 0x5a);
        assert_eq!(Ipv6::parse(&bytes).unwrap().flow_label(), 0xa_bcde);
        set_flow_label(&mut bytes, 0x1_2345);
        decrement_hop_limit(&mut bytes);
        let before = payload_len(&bytes);
        set_payload_len(&mut bytes, before - 20);
        lengthen(&mut bytes, 20);
        assert_eq!(payload_len(&bytes), before);
        let view = Ipv6::parse(&bytes).unwrap();
        assert_eq!((view.traffic_class(), view.flow_label(), view.hop_limit()), (0x5a, 0x1_2345, 63));
    }

    #[test]
    fn conformance_d9_empty_oversized_and_truncated_packets_are_refused() {
        let mut bytes = packet();
        bytes[5] = 21;
        assert_eq!(Ipv6::parse(&bytes).err(), Some(Ipv6Error::PayloadLength));
        assert_eq!(Ipv6::parse_within(&bytes, 61).unwrap().payload_len(), 21);
        bytes[5] = 0;
        assert_eq!(Ipv6::parse(&bytes).err(), Some(Ipv6Error::Empty));
        bytes[6] = 0; // a hop-by-hop header that would carry the jumbo payload option
        assert_eq!(Ipv6::parse(&bytes).err(), Some(Ipv6Error::Empty));
        bytes[0] = 0x45;
        assert_eq!(Ipv6::parse(&bytes).err(), Some(Ipv6Error::Version));
        assert_eq!(Ipv6::parse(&bytes[..39]).err(), Some(Ipv6Error::Truncated));
        bytes = packet();
        bytes[5] = 19;
        assert_eq!(Ipv6::parse(&bytes).unwrap().payload().len(), 19, "the rest is link padding");
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_as_etherparse_does(mut bytes in prop::collection::vec(any::<u8>(), 0..120), v6 in any::<bool>()) {
            if v6 && bytes.len() > 5 {
                bytes[0] = 0x60 | (bytes[0] & 0x0f);
                bytes[4] = 0;
            }
            let oracle = etherparse::Ipv6HeaderSlice::from_slice(&bytes);
            match Ipv6::parse(&bytes) {
                Ok(view) => {
                    let oracle = oracle.unwrap();
                    prop_assert_eq!(view.payload_len(), usize::from(oracle.payload_length()));
                    prop_assert_eq!(view.traffic_class(), oracle.traffic_class());
                    prop_assert_eq!(view.flow_label(), oracle.flow_label().value());
                    prop_assert_eq!(*view.src().octets(), oracle.source());
                    prop_assert_eq!(*view.dst().octets(), oracle.destination());
                }
                Err(Ipv6Error::Truncated | Ipv6Error::Version) => prop_assert!(oracle.is_err()),
                Err(_) => {
                    let len = usize::from(oracle.unwrap().payload_length());
                    prop_assert!(len == 0 || len > bytes.len() - 40);
                }
            }
        }
    }
}
