//! ICMP errors of one family in the words of the other, for sessions whose two sides differ (RFC 7915 §4.2, §5.2).
//!
//! Only the first eight bytes are translated here; the quoted packet is the caller's.

use super::{
    V4_CODE_HOST, V4_CODE_PORT, V4_CODE_PROTOCOL, V4_CODE_TOO_BIG, V4_PARAMETER_PROBLEM, V4_TIME_EXCEEDED,
    V4_UNREACHABLE, V6_CODE_NEXT_HEADER, V6_CODE_NO_ROUTE, V6_CODE_PORT, V6_CODE_PROHIBITED,
    V6_PARAMETER_PROBLEM, V6_TIME_EXCEEDED, V6_TOO_BIG, V6_UNREACHABLE,
};
use crate::wire::{ipv4, ipv6};

/// By how much an IPv6 header is longer than an IPv4 one without options, in bytes.
const HEADER_DIFFERENCE: u32 = (ipv6::HEADER_LEN - ipv4::HEADER_LEN) as u32;

/// The first eight bytes of an ICMP error, without the checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Error {
    /// type
    pub kind: u8,
    /// code
    pub code: u8,
    /// MTU or pointer as they stand behind the checksum
    pub rest: u32,
}

/// An ICMP error as ICMPv6. `None` for one that says nothing in IPv6 and is dropped.
///
/// The MTU grows by what the IPv6 header is longer, to 1,280 at least; the caller lowers it to that of its own links.
pub fn error_to_v6(error: Error) -> Option<Error> {
    let unreachable = |code| Some(Error { kind: V6_UNREACHABLE, code, rest: 0 });
    match (error.kind, error.code) {
        (V4_UNREACHABLE, V4_CODE_PROTOCOL) => {
            // The pointer names the next header field of the fixed header.
            Some(Error { kind: V6_PARAMETER_PROBLEM, code: V6_CODE_NEXT_HEADER, rest: 6 })
        }
        (V4_UNREACHABLE, V4_CODE_PORT) => unreachable(V6_CODE_PORT),
        (V4_UNREACHABLE, V4_CODE_TOO_BIG) => {
            let mtu = ((error.rest & 0xffff) + HEADER_DIFFERENCE).max(u32::from(ipv6::MTU_MIN));
            Some(Error { kind: V6_TOO_BIG, code: 0, rest: mtu })
        }
        (V4_UNREACHABLE, 9 | 10 | 13 | 15) => unreachable(V6_CODE_PROHIBITED),
        (V4_UNREACHABLE, 0 | V4_CODE_HOST | 5..=8 | 11 | 12) => unreachable(V6_CODE_NO_ROUTE),
        (V4_TIME_EXCEEDED, code) => Some(Error { kind: V6_TIME_EXCEEDED, code, rest: 0 }),
        (V4_PARAMETER_PROBLEM, 0 | 2) => {
            let pointer = pointer_to_v6((error.rest >> 24) as u8)?;
            Some(Error { kind: V6_PARAMETER_PROBLEM, code: 0, rest: pointer })
        }
        _ => None,
    }
}

/// An ICMPv6 error as ICMP. `None` for one that says nothing in IPv4 and is dropped.
///
/// The MTU shrinks by what the IPv4 header is shorter; the caller lowers it to that of its own links.
pub fn error_to_v4(error: Error) -> Option<Error> {
    let unreachable = |code, rest| Some(Error { kind: V4_UNREACHABLE, code, rest });
    match (error.kind, error.code) {
        (V6_UNREACHABLE, V6_CODE_NO_ROUTE | 2 | 3) => unreachable(V4_CODE_HOST, 0),
        (V6_UNREACHABLE, V6_CODE_PROHIBITED) => unreachable(10, 0),
        (V6_UNREACHABLE, V6_CODE_PORT) => unreachable(V4_CODE_PORT, 0),
        (V6_TOO_BIG, _) => {
            unreachable(V4_CODE_TOO_BIG, error.rest.saturating_sub(HEADER_DIFFERENCE).min(0xffff))
        }
        (V6_TIME_EXCEEDED, code) => Some(Error { kind: V4_TIME_EXCEEDED, code, rest: 0 }),
        (V6_PARAMETER_PROBLEM, 0) => {
            let pointer = pointer_to_v4(error.rest)?;
            Some(Error { kind: V4_PARAMETER_PROBLEM, code: 0, rest: pointer << 24 })
        }
        (V6_PARAMETER_PROBLEM, V6_CODE_NEXT_HEADER) => unreachable(V4_CODE_PROTOCOL, 0),
        _ => None,
    }
}

/// RFC 7915 figure 3: fields of the IPv4 header and their places in the IPv6 one.
const fn pointer_to_v6(pointer: u8) -> Option<u32> {
    match pointer {
        0 | 1 => Some(pointer as u32),
        2 | 3 => Some(4),
        8 => Some(7),
        9 => Some(6),
        12..=15 => Some(8),
        16..=19 => Some(24),
        _ => None,
    }
}

/// RFC 7915 figure 6: the way back.
const fn pointer_to_v4(pointer: u32) -> Option<u32> {
    match pointer {
        0 | 1 => Some(pointer),
        4 | 5 => Some(2),
        6 => Some(9),
        7 => Some(8),
        8..=23 => Some(12),
        24..=39 => Some(16),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn error(kind: u8, code: u8, rest: u32) -> Error {
        Error { kind, code, rest }
    }

    #[test]
    fn conformance_d8_errors_cross_the_families_as_rfc_7915_says() {
        for (v4, v6) in [
            (error(3, 1, 0), Some(error(1, 0, 0))),
            (error(3, 2, 0), Some(error(4, 1, 6))),
            (error(3, 3, 0), Some(error(1, 4, 0))),
            (error(3, 4, 1400), Some(error(2, 0, 1420))),
            (error(3, 4, 600), Some(error(2, 0, 1280))),
            (error(3, 13, 0), Some(error(1, 1, 0))),
            (error(3, 14, 0), None),
            (error(11, 1, 0), Some(error(3, 1, 0))),
            (error(12, 0, 8 << 24), Some(error(4, 0, 7))),
            (error(12, 0, 10 << 24), None),
            (error(12, 1, 0), None),
            (error(4, 0, 0), None),
        ] {
            assert_eq!(error_to_v6(v4), v6, "{v4:?}");
        }
        for (v6, v4) in [
            (error(1, 0, 0), Some(error(3, 1, 0))),
            (error(1, 1, 0), Some(error(3, 10, 0))),
            (error(1, 3, 0), Some(error(3, 1, 0))),
            (error(1, 4, 0), Some(error(3, 3, 0))),
            (error(1, 5, 0), None),
            (error(2, 0, 1280), Some(error(3, 4, 1260))),
            (error(2, 0, 5), Some(error(3, 4, 0))),
            (error(2, 0, u32::MAX), Some(error(3, 4, 0xffff))),
            (error(3, 0, 0), Some(error(11, 0, 0))),
            (error(4, 0, 30), Some(error(12, 0, 16 << 24))),
            (error(4, 0, 40), None),
            (error(4, 1, 6), Some(error(3, 2, 0))),
            (error(4, 2, 0), None),
        ] {
            assert_eq!(error_to_v4(v6), v4, "{v6:?}");
        }
    }
}
