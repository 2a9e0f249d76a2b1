//! Neighbour discovery for IPv6 (RFC 4861): solicitations and advertisements, from the IPv6 header on.
//!
//! [`NdMessage::parse`] makes all checks of RFC 4861 §7.1 and RFC 6980: hop limit 255, no extension header, checksum,
//! lengths, options of length 0. Router messages and redirects are recognised and not read.

use super::Address;
use super::arp::is_host_mac;
use super::checksum::l4_checksum;

/// The EtherType of IPv6.
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// The next header value of ICMPv6.
const ICMPV6: u8 = 58;
const IPV6_LEN: usize = 40;
/// ICMPv6 header, flags and target address.
const BODY_LEN: usize = 24;
/// One link-layer address option.
const OPTION_LEN: usize = 8;
/// Bytes of a frame as this module writes it.
pub const FRAME_LEN: usize = 14 + IPV6_LEN + BODY_LEN + OPTION_LEN;

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const OPTION_SOURCE_MAC: u8 = 1;
const OPTION_TARGET_MAC: u8 = 2;

/// `ff02::1`, every node on the link.
pub const ALL_NODES: Address = Address::from_v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

/// Why bytes are no neighbour discovery message that may be acted on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NdError {
    /// shorter than the headers or than the lengths in them say
    #[error("the message is truncated")]
    Truncated,
    /// an extension header stands before ICMPv6, a fragment header for one (RFC 6980 §5)
    #[error("the message does not follow the IPv6 header directly")]
    NotIcmpv6,
    /// the message was forwarded by a router, so its sender is not on this link
    #[error("the hop limit is not 255")]
    HopLimit,
    /// the ICMPv6 checksum
    #[error("the checksum is wrong")]
    Checksum,
    /// the ICMPv6 code
    #[error("the code is not 0")]
    Code,
    /// an option of length 0, or one that reaches past the end
    #[error("an option is malformed")]
    Option,
    /// source, destination or target are not what such a message may carry
    #[error("an address is not one that such a message may carry")]
    Address,
}

/// A neighbour discovery message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NdMessage {
    /// who has the target address?
    Solicitation(Solicitation),
    /// the target address is at this MAC
    Advertisement(Advertisement),
    /// router messages, redirects and anything else: checked for nothing but its hop limit and checksum
    Other {
        /// the ICMPv6 type
        kind: u8,
    },
}

/// A neighbour solicitation (RFC 4861 §4.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Solicitation {
    /// who asks; unspecified in duplicate address detection
    pub source: Address,
    /// to whom: the target or its solicited-node group
    pub destination: Address,
    /// the address asked for
    pub target: Address,
    /// the asker's MAC address, if told
    pub source_mac: Option<[u8; 6]>,
}

/// A neighbour advertisement (RFC 4861 §4.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Advertisement {
    /// who tells
    pub source: Address,
    /// to whom
    pub destination: Address,
    /// the address told of
    pub target: Address,
    /// the answer to a solicitation
    pub solicited: bool,
    /// replaces what the receiver knows
    pub overrides: bool,
    /// the target's MAC address, if told
    pub target_mac: Option<[u8; 6]>,
}

impl NdMessage {
    /// The message in `packet`, which starts with the IPv6 header; bytes behind its payload are ignored.
    pub fn parse(packet: &[u8]) -> Result<NdMessage, NdError> {
        let (header, rest) = packet.split_first_chunk::<IPV6_LEN>().ok_or(NdError::Truncated)?;
        if header[6] != ICMPV6 {
            return Err(NdError::NotIcmpv6);
        }
        if header[7] != 255 {
            return Err(NdError::HopLimit);
        }
        let payload_len = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let icmp = rest.get(..payload_len).ok_or(NdError::Truncated)?;
        let &[kind, code, ..] = icmp else { return Err(NdError::Truncated) };
        let source = address_at(header, 8);
        let destination = address_at(header, 24);
        if l4_checksum(&source, &destination, ICMPV6, icmp) != 0 {
            return Err(NdError::Checksum);
        }
        if kind != SOLICITATION && kind != ADVERTISEMENT {
            return Ok(NdMessage::Other { kind });
        }
        if code != 0 {
            return Err(NdError::Code);
        }
        let (body, options) = icmp.split_first_chunk::<BODY_LEN>().ok_or(NdError::Truncated)?;
        let target = address_at(body, 8);
        if is_multicast(target) || is_multicast(source) || target == Address::UNSPECIFIED {
            return Err(NdError::Address);
        }
        if kind == SOLICITATION {
            let source_mac = mac_option(options, OPTION_SOURCE_MAC)?;
            // RFC 4861 §7.1.1: duplicate address detection goes to the solicited-node group and names no MAC.
            let detection = source == Address::UNSPECIFIED;
            if detection && (source_mac.is_some() || destination != solicited_node(target)) {
                return Err(NdError::Address);
            }
            Ok(NdMessage::Solicitation(Solicitation { source, destination, target, source_mac }))
        } else {
            let target_mac = mac_option(options, OPTION_TARGET_MAC)?;
            let solicited = body[4] & 0x40 != 0;
            // RFC 4861 §7.1.2
            if source == Address::UNSPECIFIED || (solicited && is_multicast(destination)) {
                return Err(NdError::Address);
            }
            let overrides = body[4] & 0x20 != 0;
            Ok(NdMessage::Advertisement(Advertisement {
                source,
                destination,
                target,
                solicited,
                overrides,
                target_mac,
            }))
        }
    }
}

impl Solicitation {
    /// The whole frame from `source_mac`, which its option names, to `destination_mac`.
    pub fn write_frame(&self, destination_mac: [u8; 6], source_mac: [u8; 6]) -> [u8; FRAME_LEN] {
        write_frame(
            (destination_mac, source_mac),
            (self.source, self.destination),
            SOLICITATION,
            0,
            self.target,
            (OPTION_SOURCE_MAC, source_mac),
        )
    }
}

impl Advertisement {
    /// The whole frame from `source_mac`, which its option names, to `destination_mac`.
    pub fn write_frame(&self, destination_mac: [u8; 6], source_mac: [u8; 6]) -> [u8; FRAME_LEN] {
        write_frame(
            (destination_mac, source_mac),
            (self.source, self.destination),
            ADVERTISEMENT,
            u8::from(self.solicited) << 6 | u8::from(self.overrides) << 5,
            self.target,
            (OPTION_TARGET_MAC, source_mac),
        )
    }
}

/// The group that the owner of `address` listens to (RFC 4291 §2.7.1).
pub fn solicited_node(address: Address) -> Address {
    let [.., a, b, c] = *address.octets();
    Address::from_v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// The MAC address of an IPv6 group (RFC 2464 §7).
pub fn group_mac(group: Address) -> [u8; 6] {
    let [.., a, b, c, d] = *group.octets();
    [0x33, 0x33, a, b, c, d]
}

/// The link-local address that a MAC address stands for (RFC 4291 appendix A).
pub fn link_local(mac: [u8; 6]) -> Address {
    let [a, b, c, d, e, f] = mac;
    Address::from_v6([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// Whether `address` is in `fe80::/10`.
pub fn is_link_local(address: Address) -> bool {
    let [a, b, ..] = *address.octets();
    a == 0xfe && b & 0xc0 == 0x80
}

/// Whether `address` is in `ff00::/8`.
pub fn is_multicast(address: Address) -> bool {
    address.octets()[0] == 0xff
}

fn address_at(bytes: &[u8], at: usize) -> Address {
    let mut octets = [0; 16];
    octets.copy_from_slice(&bytes[at..at + 16]);
    Address::from_v6(octets)
}

/// The MAC address in the first option of this kind; every option is checked.
fn mac_option(mut options: &[u8], wanted: u8) -> Result<Option<[u8; 6]>, NdError> {
    let mut found = None;
    while let &[kind, units, ..] = options {
        let len = usize::from(units) * 8;
        // RFC 4861 §4.6: a length of 0 discards the message; followed, it would never end.
        if len == 0 || len > options.len() {
            return Err(NdError::Option);
        }
        if kind == wanted && found.is_none() {
            let &[_, _, a, b, c, d, e, f] = &options[..8] else { return Err(NdError::Option) };
            let mac = [a, b, c, d, e, f];
            if units != 1 || !is_host_mac(mac) {
                return Err(NdError::Option);
            }
            found = Some(mac);
        }
        options = &options[len..];
    }
    if options.is_empty() { Ok(found) } else { Err(NdError::Option) }
}

fn write_frame(
    (destination_mac, source_mac): ([u8; 6], [u8; 6]),
    (source, destination): (Address, Address),
    kind: u8,
    flags: u8,
    target: Address,
    (option, option_mac): (u8, [u8; 6]),
) -> [u8; FRAME_LEN] {
    let mut frame = [0; FRAME_LEN];
    frame[..6].copy_from_slice(&destination_mac);
    frame[6..12].copy_from_slice(&source_mac);
    frame[12..14].copy_from_slice(&ETHERTYPE_IPV6.to_be_bytes());
    let (header, icmp) = frame[14..].split_at_mut(IPV6_LEN);
    header[0] = 6 << 4;
    header[4..6].copy_from_slice(&((BODY_LEN + OPTION_LEN) as u16).to_be_bytes());
    header[6] = ICMPV6;
    header[7] = 255;
    header[8..24].copy_from_slice(source.octets());
    header[24..40].copy_from_slice(destination.octets());
    icmp[0] = kind;
    icmp[4] = flags;
    icmp[8..24].copy_from_slice(target.octets());
    icmp[24] = option;
    icmp[25] = 1;
    icmp[26..32].copy_from_slice(&option_mac);
    let sum = l4_checksum(&source, &destination, ICMPV6, icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

    fn v6(text: &str) -> Address {
        text.parse::<std::net::Ipv6Addr>().unwrap().into()
    }

    fn solicitation() -> Solicitation {
        let target = v6("2001:db8:1::fe");
        Solicitation {
            source: v6("2001:db8:1::9"),
            destination: solicited_node(target),
            target,
            source_mac: Some(MAC),
        }
    }

    /// The IPv6 packet of the solicitation, changed and summed up again.
    fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Result<NdMessage, NdError> {
        let mut packet = solicitation().write_frame([0xff; 6], MAC)[14..].to_vec();
        change(&mut packet);
        packet[42..44].fill(0);
        let len = usize::from(u16::from_be_bytes([packet[4], packet[5]])).min(packet.len() - 40);
        let sum =
            l4_checksum(&address_at(&packet, 8), &address_at(&packet, 24), ICMPV6, &packet[40..40 + len]);
        packet[42..44].copy_from_slice(&sum.to_be_bytes());
        NdMessage::parse(&packet)
    }

    #[test]
    fn written_messages_are_read_back_and_their_checksum_is_right_for_etherparse() {
        let advertisement = Advertisement {
            source: v6("2001:db8:1::fe"),
            destination: v6("2001:db8:1::9"),
            target: v6("2001:db8:1::fe"),
            solicited: true,
            overrides: true,
            target_mac: Some(MAC),
        };
        let frames = [
            (solicitation().write_frame([0xff; 6], MAC), NdMessage::Solicitation(solicitation())),
            (advertisement.write_frame([0xff; 6], MAC), NdMessage::Advertisement(advertisement)),
        ];
        for (frame, message) in frames {
            assert_eq!(NdMessage::parse(&frame[14..]), Ok(message));
            let seen = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
            let (Some(etherparse::NetSlice::Ipv6(ip)), Some(etherparse::TransportSlice::Icmpv6(icmp))) =
                (seen.net, seen.transport)
            else {
                panic!("no ICMPv6")
            };
            assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
        }
    }

    #[test]
    fn each_malformed_field_has_its_error() {
        assert_eq!(changed(|_| ()), Ok(NdMessage::Solicitation(solicitation())));
        assert_eq!(changed(|p| p[7] = 254), Err(NdError::HopLimit));
        assert_eq!(changed(|p| p[6] = 44), Err(NdError::NotIcmpv6));
        assert_eq!(changed(|p| p[41] = 1), Err(NdError::Code));
        assert_eq!(changed(|p| p[48] = 0xff), Err(NdError::Address), "multicast target");
        assert_eq!(changed(|p| p[65] = 0), Err(NdError::Option), "length 0");
        assert_eq!(changed(|p| p[65] = 2), Err(NdError::Option), "past the end");
        assert_eq!(changed(|p| p[66] = 1), Err(NdError::Option), "group bit");
        assert_eq!(changed(|p| p[5] = 23), Err(NdError::Truncated));
        assert_eq!(changed(|p| p[5] = 28), Err(NdError::Option), "half an option");
        assert_eq!(changed(|p| p[5] = 33), Err(NdError::Truncated));
        assert_eq!(changed(|p| p[8..24].fill(0)), Err(NdError::Address), "detection that names a MAC");
        let mut packet = solicitation().write_frame([0xff; 6], MAC)[14..].to_vec();
        packet[50] ^= 1;
        assert_eq!(NdMessage::parse(&packet), Err(NdError::Checksum));
        assert_eq!(changed(|p| p[40] = 137), Ok(NdMessage::Other { kind: 137 }));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_fall(mut bytes in proptest::collection::vec(any::<u8>(), 0..120), kind in 133u8..138) {
            let _ = NdMessage::parse(&bytes);
            if bytes.len() > 44 {
                // past the first checks
                (bytes[6], bytes[7], bytes[4], bytes[5], bytes[40]) = (58, 255, 0, (bytes.len() - 40) as u8, kind);
                bytes[42..44].fill(0);
                let sum = l4_checksum(&address_at(&bytes, 8), &address_at(&bytes, 24), ICMPV6, &bytes[40..]);
                bytes[42..44].copy_from_slice(&sum.to_be_bytes());
                prop_assert_ne!(NdMessage::parse(&bytes), Err(NdError::Checksum));
            }
        }
    }
}
