//! ARP for IPv4 over Ethernet (RFC 826, RFC 5227): one checked message, parsed from and written to plain bytes.
//!
//! Every message that [`ArpMessage::parse`] lets through may be believed in its form: fixed lengths, a known operation,
//! a sender that can be a host. Whether its contents may be believed is the neighbour table's business.

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Address;

/// The EtherType of ARP.
pub const ETHERTYPE: u16 = 0x0806;
/// Bytes of a message, without the Ethernet header.
pub const MESSAGE_LEN: usize = 28;
/// Bytes of a frame as [`ArpMessage::write_frame`] makes it: the smallest that Ethernet allows, without FCS.
pub const FRAME_LEN: usize = 60;

const HARDWARE_ETHERNET: u16 = 1;
const PROTOCOL_IPV4: u16 = 0x0800;

/// What a message wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum Operation {
    /// who has the target address?
    Request = 1,
    /// the sender address is at the sender's MAC
    Reply = 2,
}

/// Why bytes are no ARP message that may be acted on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ArpError {
    /// shorter than 28 bytes
    #[error("the message is shorter than {MESSAGE_LEN} bytes")]
    Truncated,
    /// hardware or protocol type or one of the lengths is another
    #[error("the message is not about IPv4 over Ethernet")]
    NotIpv4OverEthernet,
    /// neither request nor reply
    #[error("the operation is neither request nor reply")]
    Operation,
    /// zero, broadcast or multicast
    #[error("the sender's MAC address cannot be a host's")]
    SenderMac,
    /// multicast, broadcast or loopback; or unspecified in a reply
    #[error("the sender's IPv4 address cannot be a host's")]
    SenderAddress,
}

/// An ARP message; the addresses are IPv4 ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArpMessage {
    /// request or reply
    pub operation: Operation,
    /// `sha`
    pub sender_mac: [u8; 6],
    /// `spa`; 0.0.0.0 in a probe (RFC 5227 §2.1)
    pub sender: Address,
    /// `tha`; meaningless in a request
    pub target_mac: [u8; 6],
    /// `tpa`
    pub target: Address,
}

/// The message as it stands on the wire.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Layout {
    hardware_type: U16,
    protocol_type: U16,
    hardware_len: u8,
    protocol_len: u8,
    operation: U16,
    sender_mac: [u8; 6],
    sender: [u8; 4],
    target_mac: [u8; 6],
    target: [u8; 4],
}

const _: () = assert!(size_of::<Layout>() == MESSAGE_LEN);

/// The unspecified IPv4 address, the sender of an ARP probe.
pub const UNSPECIFIED: Address = Address::from_v4([0; 4]);

impl ArpMessage {
    /// The message at the start of `bytes`, which follow the Ethernet header; padding behind it is ignored.
    pub fn parse(bytes: &[u8]) -> Result<ArpMessage, ArpError> {
        let (layout, _padding) = Layout::ref_from_prefix(bytes).map_err(|_| ArpError::Truncated)?;
        if layout.hardware_type.get() != HARDWARE_ETHERNET
            || layout.protocol_type.get() != PROTOCOL_IPV4
            || layout.hardware_len != 6
            || layout.protocol_len != 4
        {
            return Err(ArpError::NotIpv4OverEthernet);
        }
        let operation = match layout.operation.get() {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return Err(ArpError::Operation),
        };
        if !is_host_mac(layout.sender_mac) {
            return Err(ArpError::SenderMac);
        }
        // RFC 1812 §3.3.2: no answer and no belief in a sender that claims a broadcast or multicast address.
        let probe = operation == Operation::Request && layout.sender == [0; 4];
        if !probe && matches!(layout.sender[0], 0 | 127 | 224..) {
            return Err(ArpError::SenderAddress);
        }
        Ok(ArpMessage {
            operation,
            sender_mac: layout.sender_mac,
            sender: Address::from_v4(layout.sender),
            target_mac: layout.target_mac,
            target: Address::from_v4(layout.target),
        })
    }

    /// Whether the sender only asks if the target is taken (RFC 5227 §2.1.1).
    pub fn is_probe(&self) -> bool {
        self.sender == UNSPECIFIED
    }

    /// Whether the sender tells of itself (RFC 5227 §2.3).
    pub fn is_announcement(&self) -> bool {
        self.sender == self.target
    }

    /// The whole frame, zero padded to the Ethernet minimum, from `source` to `destination`.
    pub fn write_frame(&self, destination: [u8; 6], source: [u8; 6]) -> [u8; FRAME_LEN] {
        let layout = Layout {
            hardware_type: HARDWARE_ETHERNET.into(),
            protocol_type: PROTOCOL_IPV4.into(),
            hardware_len: 6,
            protocol_len: 4,
            operation: (self.operation as u16).into(),
            sender_mac: self.sender_mac,
            sender: self.sender.v4_octets(),
            target_mac: self.target_mac,
            target: self.target.v4_octets(),
        };
        let mut frame = [0; FRAME_LEN];
        frame[..6].copy_from_slice(&destination);
        frame[6..12].copy_from_slice(&source);
        frame[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
        frame[14..14 + MESSAGE_LEN].copy_from_slice(layout.as_bytes());
        frame
    }
}

/// Whether a MAC address can be one host's: not zero and without the group bit.
pub(crate) fn is_host_mac(mac: [u8; 6]) -> bool {
    mac[0] & 1 == 0 && mac != [0; 6]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message() -> ArpMessage {
        ArpMessage {
            operation: Operation::Request,
            sender_mac: [2, 0, 0, 0, 0, 9],
            sender: Address::from_v4([10, 1, 0, 9]),
            target_mac: [0; 6],
            target: Address::from_v4([10, 1, 0, 254]),
        }
    }

    #[test]
    fn a_written_message_is_read_back_and_by_etherparse_too() {
        let frame = message().write_frame([0xff; 6], [2, 0, 0, 0, 0, 9]);
        assert_eq!(ArpMessage::parse(&frame[14..]), Ok(message()));
        let seen = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(etherparse::NetSlice::Arp(arp)) = seen.net else { panic!("no ARP: {seen:?}") };
        assert_eq!(arp.operation(), etherparse::ArpOperation::REQUEST);
        assert_eq!(arp.sender_protocol_addr(), [10, 1, 0, 9]);
        assert_eq!(arp.target_protocol_addr(), [10, 1, 0, 254]);
        assert_eq!(frame[42..], [0; 18], "padding");
    }

    #[test]
    fn each_malformed_field_has_its_error() {
        let good = message().write_frame([0xff; 6], [2, 0, 0, 0, 0, 9])[14..].to_vec();
        let with = |at: usize, bytes: &[u8]| {
            let mut bad = good.clone();
            bad[at..at + bytes.len()].copy_from_slice(bytes);
            ArpMessage::parse(&bad)
        };
        assert_eq!(ArpMessage::parse(&good[..27]), Err(ArpError::Truncated));
        assert_eq!(with(0, &[0, 6]), Err(ArpError::NotIpv4OverEthernet));
        assert_eq!(with(2, &[0x86, 0xdd]), Err(ArpError::NotIpv4OverEthernet));
        assert_eq!(with(4, &[7]), Err(ArpError::NotIpv4OverEthernet));
        assert_eq!(with(5, &[16]), Err(ArpError::NotIpv4OverEthernet));
        assert_eq!(with(6, &[0, 0]), Err(ArpError::Operation));
        assert_eq!(with(6, &[0, 9]), Err(ArpError::Operation));
        assert_eq!(with(8, &[0; 6]), Err(ArpError::SenderMac));
        assert_eq!(with(8, &[0xff; 6]), Err(ArpError::SenderMac));
        assert_eq!(with(14, &[224, 0, 0, 1]), Err(ArpError::SenderAddress));
        assert_eq!(with(14, &[255, 255, 255, 255]), Err(ArpError::SenderAddress));
        assert_eq!(with(14, &[127, 0, 0, 1]), Err(ArpError::SenderAddress));
        assert!(with(14, &[0; 4]).unwrap().is_probe());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_fall(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = ArpMessage::parse(&bytes);
        }
    }
}
