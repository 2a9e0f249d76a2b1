//! Ethernet II headers (IEEE 802.3) and the VLAN tag (IEEE 802.1Q).

use super::field::{get_array, get_u16, put_array, put_u16};

/// Bytes of an untagged header.
pub const HEADER_LEN: usize = 14;
/// Bytes of both addresses, with which it begins.
pub const ADDRESSES_LEN: usize = 12;
/// Bytes that one VLAN tag adds.
pub const VLAN_LEN: usize = 4;
/// Shortest frame on the wire, without its check sequence; shorter ones are padded with zeros (IEEE 802.3 §4A.2.3).
pub const MIN_FRAME_LEN: usize = 60;

/// EtherType of IPv4
pub const TYPE_IPV4: u16 = 0x0800;
/// EtherType of ARP
pub const TYPE_ARP: u16 = 0x0806;
/// EtherType of a VLAN tag (C-tag)
pub const TYPE_VLAN: u16 = 0x8100;
/// EtherType of IPv6
pub const TYPE_IPV6: u16 = 0x86dd;
/// EtherType of a service VLAN tag (S-tag, "QinQ")
pub const TYPE_QINQ: u16 = 0x88a8;

/// A MAC address.
pub type Mac = [u8; 6];

/// The address of all hosts.
pub const BROADCAST: Mac = [0xff; 6];

/// Whether the address is a multicast or the broadcast one.
#[inline(always)]
pub const fn is_group(mac: &Mac) -> bool {
    mac[0] & 1 != 0
}

/// The group address of an IPv6 multicast address (RFC 2464 §7).
#[inline]
pub const fn ipv6_multicast(address: &[u8; 16]) -> Mac {
    [0x33, 0x33, address[12], address[13], address[14], address[15]]
}

/// Destination address of a frame of at least [`HEADER_LEN`] bytes.
#[inline(always)]
pub fn destination(frame: &[u8]) -> Mac {
    get_array(frame, 0)
}

/// Source address of a frame of at least [`HEADER_LEN`] bytes.
#[inline(always)]
pub fn source(frame: &[u8]) -> Mac {
    get_array(frame, 6)
}

/// EtherType of a frame of at least [`HEADER_LEN`] bytes; below 1536 it is an IEEE 802.3 length.
#[inline(always)]
pub fn ethertype(frame: &[u8]) -> u16 {
    get_u16(frame, 12)
}

/// VLAN identifier of the tag that follows the addresses; the frame is at least [`HEADER_LEN`] + [`VLAN_LEN`] bytes
/// and its EtherType is [`TYPE_VLAN`] or [`TYPE_QINQ`].
#[inline(always)]
pub fn vlan_id(frame: &[u8]) -> u16 {
    get_u16(frame, 14) & 0x0fff
}

/// EtherType behind the VLAN tag of such a frame.
#[inline(always)]
pub fn vlan_inner_type(frame: &[u8]) -> u16 {
    get_u16(frame, 16)
}

/// Writes an untagged header to the first [`HEADER_LEN`] bytes of `frame`.
#[inline(always)]
pub fn write_header(frame: &mut [u8], destination: &Mac, source: &Mac, ethertype: u16) {
    let header = &mut frame[..HEADER_LEN];
    put_array(header, 0, *destination);
    put_array(header, 6, *source);
    put_u16(header, 12, ethertype);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_header_reads_back_and_etherparse_agrees() {
        let mut frame = [0u8; 60];
        write_header(&mut frame, &[2, 0, 0, 0, 0, 1], &[2, 0, 0, 0, 0, 2], TYPE_IPV6);
        assert_eq!(destination(&frame), [2, 0, 0, 0, 0, 1]);
        assert_eq!(source(&frame), [2, 0, 0, 0, 0, 2]);
        assert_eq!(ethertype(&frame), TYPE_IPV6);
        let (oracle, _) = etherparse::Ethernet2Header::from_slice(&frame).unwrap();
        assert_eq!(oracle.destination, destination(&frame));
        assert_eq!(oracle.source, source(&frame));
        assert_eq!(oracle.ether_type, etherparse::ether_type::IPV6);
    }

    #[test]
    fn vlan_tags_show_identifier_and_inner_type() {
        let mut frame = [0u8; 60];
        write_header(&mut frame, &BROADCAST, &[2, 0, 0, 0, 0, 2], TYPE_VLAN);
        frame[14..18].copy_from_slice(&[0xa0, 0x0a, 0x08, 0x00]);
        assert_eq!((vlan_id(&frame), vlan_inner_type(&frame)), (10, TYPE_IPV4));
    }

    #[test]
    fn conformance_a1_group_addresses_are_told_by_their_first_bit() {
        assert!(is_group(&BROADCAST));
        assert!(is_group(&[0x01, 0, 0x5e, 0, 0, 1]));
        assert!(is_group(&ipv6_multicast(&[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 1])));
        assert!(!is_group(&[0x02, 0, 0, 0, 0, 1]));
    }
}
