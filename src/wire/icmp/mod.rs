//! ICMP for IPv4 (RFC 792) and IPv6 (RFC 4443): messages, the packets that errors quote, the answers the gateway gives.

mod answer;
mod embedded;
mod family;

pub use answer::{
    ERROR_LEN_MAX_V4, ERROR_LEN_MAX_V6, reply_to_echo_v4, reply_to_echo_v6, write_error_v4, write_error_v6,
};
pub use embedded::{Embedded, EmbeddedError};
pub use family::{Error, error_to_v4, error_to_v6};

use super::Address;
use super::checksum::{fold, sum, verify_l4};
use super::field::{get_u16, get_u32, put_u16, put_u32};

/// IANA protocol number of ICMP
pub const PROTOCOL_V4: u8 = 1;
/// IANA protocol number of ICMPv6
pub const PROTOCOL_V6: u8 = 58;
/// Bytes before the body: type, code, checksum and four that depend on the type.
pub const HEADER_LEN: usize = 8;

/// ICMP echo reply
pub const V4_ECHO_REPLY: u8 = 0;
/// ICMP destination unreachable
pub const V4_UNREACHABLE: u8 = 3;
/// ICMP source quench, no longer of any meaning (RFC 6633)
pub const V4_SOURCE_QUENCH: u8 = 4;
/// ICMP redirect
pub const V4_REDIRECT: u8 = 5;
/// ICMP echo request
pub const V4_ECHO_REQUEST: u8 = 8;
/// ICMP time exceeded
pub const V4_TIME_EXCEEDED: u8 = 11;
/// ICMP parameter problem
pub const V4_PARAMETER_PROBLEM: u8 = 12;

/// code of [`V4_UNREACHABLE`]: the host does not answer
pub const V4_CODE_HOST: u8 = 1;
/// code of [`V4_UNREACHABLE`]: nobody speaks that protocol here
pub const V4_CODE_PROTOCOL: u8 = 2;
/// code of [`V4_UNREACHABLE`]: nobody listens on that port
pub const V4_CODE_PORT: u8 = 3;
/// code of [`V4_UNREACHABLE`]: too big and not to be fragmented; the MTU is in the rest (RFC 1191 §4)
pub const V4_CODE_TOO_BIG: u8 = 4;
/// code of [`V4_UNREACHABLE`]: administratively prohibited (RFC 1812 §5.2.7.1)
pub const V4_CODE_PROHIBITED: u8 = 13;

/// ICMPv6 destination unreachable
pub const V6_UNREACHABLE: u8 = 1;
/// ICMPv6 packet too big; the MTU is in the rest
pub const V6_TOO_BIG: u8 = 2;
/// ICMPv6 time exceeded
pub const V6_TIME_EXCEEDED: u8 = 3;
/// ICMPv6 parameter problem
pub const V6_PARAMETER_PROBLEM: u8 = 4;
/// ICMPv6 echo request
pub const V6_ECHO_REQUEST: u8 = 128;
/// ICMPv6 echo reply
pub const V6_ECHO_REPLY: u8 = 129;
/// ICMPv6 redirect (RFC 4861 §4.5)
pub const V6_REDIRECT: u8 = 137;

/// code of [`V6_UNREACHABLE`]: no route
pub const V6_CODE_NO_ROUTE: u8 = 0;
/// code of [`V6_UNREACHABLE`]: administratively prohibited
pub const V6_CODE_PROHIBITED: u8 = 1;
/// code of [`V6_UNREACHABLE`]: the host does not answer
pub const V6_CODE_ADDRESS: u8 = 3;
/// code of [`V6_UNREACHABLE`]: nobody listens on that port
pub const V6_CODE_PORT: u8 = 4;
/// code of [`V6_PARAMETER_PROBLEM`]: unknown next header; the pointer is in the rest
pub const V6_CODE_NEXT_HEADER: u8 = 1;

/// Whether an ICMP message is an error that concerns a session and is translated. Source quench and redirects are
/// not (RFC 6633, RFC 1812 §5.2.7.2).
#[inline(always)]
pub const fn is_error_v4(kind: u8) -> bool {
    matches!(kind, V4_UNREACHABLE | V4_TIME_EXCEEDED | V4_PARAMETER_PROBLEM)
}

/// Whether an ICMPv6 message is an error that concerns a session and is translated.
#[inline(always)]
pub const fn is_error_v6(kind: u8) -> bool {
    matches!(kind, V6_UNREACHABLE..=V6_PARAMETER_PROBLEM)
}

/// Whether an ICMP message must not itself be answered by an error (RFC 1812 §4.3.2.7).
#[inline(always)]
pub const fn forbids_error_v4(kind: u8) -> bool {
    is_error_v4(kind) || matches!(kind, V4_SOURCE_QUENCH | V4_REDIRECT)
}

/// Whether an ICMPv6 message must not itself be answered by an error (RFC 4443 §2.4 (e.1), (e.2)).
#[inline(always)]
pub const fn forbids_error_v6(kind: u8) -> bool {
    kind < 128 || kind == V6_REDIRECT
}

/// A message of either family that has at least its eight first bytes; its checksum was not checked.
#[derive(Clone, Copy, Debug)]
pub struct Icmp<'a> {
    fixed: &'a [u8; HEADER_LEN],
    message: &'a [u8],
}

impl<'a> Icmp<'a> {
    /// Looks at a message: the IP payload without link padding. `None` if it is shorter than eight bytes.
    #[inline]
    pub fn parse(message: &'a [u8]) -> Option<Self> {
        Some(Icmp { fixed: message.first_chunk()?, message })
    }

    /// Type.
    #[inline(always)]
    pub fn kind(&self) -> u8 {
        self.fixed[0]
    }

    /// Code.
    #[inline(always)]
    pub fn code(&self) -> u8 {
        self.fixed[1]
    }

    /// Checksum field.
    #[inline(always)]
    pub fn checksum(&self) -> u16 {
        checksum(self.fixed)
    }

    /// The four bytes behind the checksum: MTU, pointer, or identifier and sequence number.
    #[inline(always)]
    pub fn rest(&self) -> u32 {
        rest(self.fixed)
    }

    /// Next-hop MTU of [`V4_CODE_TOO_BIG`]: the lower half of the rest, 0 from routers before RFC 1191.
    #[inline(always)]
    pub fn mtu_v4(&self) -> u16 {
        get_u16(self.fixed, 6)
    }

    /// Identifier of an echo.
    #[inline(always)]
    pub fn echo_id(&self) -> u16 {
        get_u16(self.fixed, 4)
    }

    /// Sequence number of an echo.
    #[inline(always)]
    pub fn echo_seq(&self) -> u16 {
        get_u16(self.fixed, 6)
    }

    /// What follows: the quoted packet of an error, the data of an echo.
    #[inline(always)]
    pub fn body(&self) -> &'a [u8] {
        &self.message[HEADER_LEN..]
    }

    /// Whether the checksum of an ICMP message is right.
    pub fn checksum_ok_v4(&self) -> bool {
        fold(sum(self.message)) == 0xffff
    }

    /// Whether the checksum of an ICMPv6 message between these addresses is right (RFC 4443 §2.3).
    pub fn checksum_ok_v6(&self, src: &Address, dst: &Address) -> bool {
        verify_l4(src, dst, PROTOCOL_V6, self.message)
    }
}

/// Checksum field of a message.
#[inline(always)]
pub fn checksum(message: &[u8]) -> u16 {
    get_u16(message, 2)
}

/// Sets the checksum field of a message.
#[inline(always)]
pub fn set_checksum(message: &mut [u8], checksum: u16) {
    put_u16(message, 2, checksum);
}

/// The four bytes behind the checksum of a message.
#[inline(always)]
pub fn rest(message: &[u8]) -> u32 {
    get_u32(message, 4)
}

/// Sets the four bytes behind the checksum of a message; the checksum is the caller's.
#[inline(always)]
pub fn set_rest(message: &mut [u8], rest: u32) {
    put_u32(message, 4, rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_shows_its_fields_whatever_its_type() {
        let message = [8, 0, 0x12, 0x34, 0, 7, 0, 9, 1, 2, 3];
        let view = Icmp::parse(&message).unwrap();
        assert_eq!((view.kind(), view.code(), view.checksum()), (8, 0, 0x1234));
        assert_eq!((view.echo_id(), view.echo_seq(), view.rest(), view.mtu_v4()), (7, 9, 0x0007_0009, 9));
        assert_eq!(view.body(), [1, 2, 3]);
        assert!(Icmp::parse(&message[..7]).is_none());
    }

    #[test]
    fn conformance_f10_only_errors_about_sessions_are_translated() {
        let translated =
            |is_error: fn(u8) -> bool| (0..=255).filter(|kind| is_error(*kind)).collect::<Vec<_>>();
        assert_eq!(translated(is_error_v4), [3, 11, 12]);
        assert_eq!(translated(is_error_v6), [1, 2, 3, 4]);
    }

    #[test]
    fn conformance_c3_errors_are_not_answered_by_errors() {
        for kind in [3, 4, 5, 11, 12] {
            assert!(forbids_error_v4(kind));
        }
        assert!(!forbids_error_v4(V4_ECHO_REQUEST));
        for kind in [1, 2, 3, 4, 100, 127, 137] {
            assert!(forbids_error_v6(kind));
        }
        assert!(!forbids_error_v6(V6_ECHO_REQUEST));
    }
}
