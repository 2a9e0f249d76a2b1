//! The client's address as an IPv4 option (UOA): type, length, port and address, all in network order.
//!
//! ```text
//! IPv4   type 31 | 8  | cport | CIP             8 bytes
//! IPv6   type 31 | 20 | cport | CIP            20 bytes
//! ```
//! The layout of DPVS (`struct ipopt_uoa`): type 31 is of class "control", copied to no fragment (RFC 791 §3.1) and
//! assigned to nobody. The option goes first, right behind the fixed IPv4 header.

use super::field::{get_u16, put_array, put_u16};
use super::{Address, ipv4};

/// The option's type.
pub const KIND: u8 = 31;
/// Bytes of the option with an IPv4 client.
pub const V4_LEN: usize = 8;
/// Bytes of the option with an IPv6 client.
pub const V6_LEN: usize = 20;

const END: u8 = 0;
const NO_OPERATION: u8 = 1;

/// Bytes of the option for a client.
pub fn len_for(client: &Address) -> usize {
    if client.is_v4() { V4_LEN } else { V6_LEN }
}

/// Writes the option for a client to the front of `out`, [`len_for`] bytes.
pub fn write(out: &mut [u8], client: &Address, cport: u16) {
    out[0] = KIND;
    out[1] = len_for(client) as u8;
    put_u16(out, 2, cport);
    if client.is_v4() {
        put_array(out, 4, client.v4_octets());
    } else {
        put_array(out, 4, *client.octets());
    }
}

/// The client that the first well-formed option among the options of an IPv4 header names.
pub fn read(options: &[u8]) -> Option<(Address, u16)> {
    let mut from = 0;
    while let Some((at, len)) = find(options, from) {
        let option = &options[at..at + len];
        let address = match len {
            V4_LEN => Some(Address::from_v4(*option[4..].first_chunk()?)),
            V6_LEN => Some(Address::from_v6(*option[4..].first_chunk()?)),
            _ => None,
        };
        if let Some(address) = address {
            return Some((address, get_u16(option, 2)));
        }
        from = at + len;
    }
    None
}

/// Overwrites every such option of a header with no-operations; the checksum is the caller's.
#[cold]
pub fn erase(header: &mut [u8]) {
    let options = &mut header[ipv4::HEADER_LEN..];
    let mut from = 0;
    while let Some((at, len)) = find(options, from) {
        options[at..at + len].fill(NO_OPERATION);
        from = at + len;
    }
}

/// Where the next such option begins, and its length.
fn find(options: &[u8], from: usize) -> Option<(usize, usize)> {
    let mut at = from;
    loop {
        let kind = *options.get(at)?;
        if kind == END {
            return None;
        }
        if kind == NO_OPERATION {
            at += 1;
            continue;
        }
        let len = usize::from(*options.get(at + 1)?);
        if len < 2 || at + len > options.len() {
            return None;
        }
        if kind == KIND {
            return Some((at, len));
        }
        at += len;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v6() -> Address {
        Address::from("2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap())
    }

    /// `struct ipopt_uoa` of DPVS: `op_code`, `op_len`, `op_port`, `op_addr`, packed.
    #[test]
    fn the_bytes_are_those_of_dpvs() {
        let mut option = [0xee; V6_LEN];
        write(&mut option, &Address::from_v4([203, 0, 113, 7]), 40_001);
        assert_eq!(option[..V4_LEN], [31, 8, 0x9c, 0x41, 203, 0, 113, 7]);
        assert!(option[V4_LEN..].iter().all(|&byte| byte == 0xee));
        write(&mut option, &v6(), 40_001);
        assert_eq!(option, [31, 20, 0x9c, 0x41, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
        assert!(V4_LEN.is_multiple_of(4) && V6_LEN.is_multiple_of(4), "the header keeps whole words");
        // RFC 791 §3.1: neither copied on fragmentation nor of another class than control.
        assert_eq!((KIND >> 7, KIND >> 5 & 3, KIND & 31), (0, 0, 31));
    }

    #[test]
    fn what_is_written_is_read_behind_whatever_else() {
        for client in [Address::from_v4([203, 0, 113, 7]), v6()] {
            for before in [&[][..], &[1, 1], &[7, 7, 4, 0, 0, 0, 0], &[31, 4, 0, 0]] {
                let mut options = before.to_vec();
                options.resize(before.len() + len_for(&client), 0);
                write(&mut options[before.len()..], &client, 9);
                assert_eq!(read(&options), Some((client, 9)), "{before:?}");
            }
        }
        for nobody in [&[][..], &[0, 31, 8, 0, 1, 1, 2, 3, 4], &[31], &[31, 8, 0, 1], &[31, 1], &[7, 0, 31]] {
            assert_eq!(read(nobody), None, "{nobody:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_left_of_what_is_erased(
            mut header in prop::collection::vec(prop_oneof![Just(31u8), Just(8), Just(1), any::<u8>()], 20..=60),
        ) {
            let before = header.clone();
            erase(&mut header);
            prop_assert_eq!(find(&header[ipv4::HEADER_LEN..], 0), None);
            prop_assert_eq!(&header[..ipv4::HEADER_LEN], &before[..ipv4::HEADER_LEN]);
            prop_assert!(header.iter().zip(&before).all(|(now, was)| now == was || *now == NO_OPERATION));
        }
    }
}
