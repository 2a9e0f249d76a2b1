//! What the gateway itself sends: errors about a packet, and echo replies.

use super::{HEADER_LEN, PROTOCOL_V6, V4_ECHO_REPLY, V4_ECHO_REQUEST, V6_ECHO_REPLY, V6_ECHO_REQUEST};
use super::{checksum, set_checksum, set_rest};
use crate::wire::checksum::{Delta, adjust, internet_checksum, l4_checksum};
use crate::wire::{Address, ipv4, ipv6};

/// Bytes of the longest ICMP error, its IP header not counted: 576 with it (RFC 1812 §4.3.2.3).
pub const ERROR_LEN_MAX_V4: usize = 576 - ipv4::HEADER_LEN;
/// Bytes of the longest ICMPv6 error, its IP header not counted: 1,280 with it (RFC 4443 §2.4 (c)).
pub const ERROR_LEN_MAX_V6: usize = ipv6::MTU_MIN as usize - ipv6::HEADER_LEN;

/// Writes an ICMP error about the packet `quoted`, which starts with its IP header; as much of it goes in as `out` and
/// [`ERROR_LEN_MAX_V4`] let. `rest` holds MTU or pointer as they stand in the header. The result is the length written.
pub fn write_error_v4(out: &mut [u8], kind: u8, code: u8, rest: u32, quoted: &[u8]) -> usize {
    let message = write_message(out, ERROR_LEN_MAX_V4, kind, code, rest, quoted);
    let checksum = internet_checksum(message);
    set_checksum(message, checksum);
    message.len()
}

/// [`write_error_v4`] for ICMPv6: the checksum covers the addresses that the error will travel between.
pub fn write_error_v6(
    out: &mut [u8],
    src: &Address,
    dst: &Address,
    kind: u8,
    code: u8,
    rest: u32,
    quoted: &[u8],
) -> usize {
    let message = write_message(out, ERROR_LEN_MAX_V6, kind, code, rest, quoted);
    let checksum = l4_checksum(src, dst, PROTOCOL_V6, message);
    set_checksum(message, checksum);
    message.len()
}

/// Everything but the checksum, whose field is left 0.
fn write_message<'a>(
    out: &'a mut [u8],
    len_max: usize,
    kind: u8,
    code: u8,
    rest: u32,
    quoted: &[u8],
) -> &'a mut [u8] {
    let quoted_len = quoted.len().min(len_max.min(out.len()) - HEADER_LEN);
    let message = &mut out[..HEADER_LEN + quoted_len];
    message[0] = kind;
    message[1] = code;
    set_checksum(message, 0);
    set_rest(message, rest);
    message[HEADER_LEN..].copy_from_slice(&quoted[..quoted_len]);
    message
}

/// Turns an ICMP echo request into its reply, in place. Identifier, sequence number and data stay, and so does an error
/// in the checksum.
pub fn reply_to_echo_v4(message: &mut [u8]) {
    change_type(message, V4_ECHO_REQUEST, V4_ECHO_REPLY);
}

/// Turns an ICMPv6 echo request into its reply, in place; the caller swaps the addresses, which the checksum does not
/// notice.
pub fn reply_to_echo_v6(message: &mut [u8]) {
    change_type(message, V6_ECHO_REQUEST, V6_ECHO_REPLY);
}

fn change_type(message: &mut [u8], from: u8, to: u8) {
    debug_assert_eq!(message[0], from);
    message[0] = to;
    // The type is the upper half of the first word; the code beside it stays.
    let delta = Delta::default().replace_u16(u16::from(from) << 8, u16::from(to) << 8);
    let checksum = adjust(checksum(message), delta.fold());
    set_checksum(message, checksum);
}

#[cfg(test)]
mod tests {
    use super::super::{Icmp, V4_CODE_TOO_BIG, V4_UNREACHABLE, V6_TOO_BIG};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn conformance_c3_an_error_quotes_as_much_as_fits_576_bytes() {
        let quoted: Vec<u8> = (0..1500u32).map(|i| i as u8).collect();
        let mut out = [0xee; 1500];
        let len = write_error_v4(&mut out, V4_UNREACHABLE, V4_CODE_TOO_BIG, 1400, &quoted);
        assert_eq!(len, 556);
        let message = Icmp::parse(&out[..len]).unwrap();
        assert!(message.checksum_ok_v4());
        assert_eq!((message.kind(), message.code(), message.mtu_v4()), (3, 4, 1400));
        assert_eq!(message.body(), &quoted[..548]);
        assert_eq!(out[len], 0xee);
        assert_eq!(write_error_v4(&mut out, 11, 0, 0, &quoted[..28]), 36, "a short packet is quoted whole");
        assert_eq!(write_error_v4(&mut out[..20], 11, 0, 0, &quoted), 20, "a small buffer bounds the quote");
    }

    #[test]
    fn conformance_d4_an_icmpv6_error_stays_within_1280_bytes() {
        let quoted = [7; 1500];
        let (src, dst) = (Address::from_v6([1; 16]), Address::from_v6([2; 16]));
        let mut out = [0; 1500];
        let len = write_error_v6(&mut out, &src, &dst, V6_TOO_BIG, 0, 1280, &quoted);
        assert_eq!(len + ipv6::HEADER_LEN, 1280);
        let message = Icmp::parse(&out[..len]).unwrap();
        assert!(message.checksum_ok_v6(&src, &dst));
        assert!(!message.checksum_ok_v6(&src, &src));
        assert_eq!((message.kind(), message.rest()), (2, 1280));
        let oracle = etherparse::Icmpv6Slice::from_slice(&out[..len]).unwrap();
        assert!(oracle.is_checksum_valid(*src.octets(), *dst.octets()));
    }

    proptest! {
        #[test]
        fn conformance_f1_echo_replies_keep_id_seq_and_data(body in prop::collection::vec(any::<u8>(), 4..1473)) {
            let mut message = [&[V4_ECHO_REQUEST, 0, 0, 0][..], &body].concat();
            let sum = internet_checksum(&message);
            set_checksum(&mut message, sum);
            reply_to_echo_v4(&mut message);
            prop_assert!(Icmp::parse(&message).unwrap().checksum_ok_v4());
            prop_assert_eq!((message[0], message[1], &message[4..]), (V4_ECHO_REPLY, 0, &body[..]));

            let (client, vip) = (Address::from_v6([3; 16]), Address::from_v6([4; 16]));
            message[0] = V6_ECHO_REQUEST;
            set_checksum(&mut message, 0);
            let sum = l4_checksum(&client, &vip, PROTOCOL_V6, &message);
            set_checksum(&mut message, sum);
            reply_to_echo_v6(&mut message);
            prop_assert!(Icmp::parse(&message).unwrap().checksum_ok_v6(&vip, &client));
        }

        #[test]
        fn conformance_f2_a_corrupt_echo_is_not_made_right(at in 4usize..40, bit in 0u8..8) {
            let mut message = [9u8; 40];
            message[..2].copy_from_slice(&[V4_ECHO_REQUEST, 0]);
            set_checksum(&mut message, 0);
            let sum = internet_checksum(&message);
            set_checksum(&mut message, sum);
            message[at] ^= 1 << bit;
            reply_to_echo_v4(&mut message);
            prop_assert!(!Icmp::parse(&message).unwrap().checksum_ok_v4());
        }
    }
}
