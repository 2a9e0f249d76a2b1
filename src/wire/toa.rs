//! The client's address as a TCP option (TOA): kind, length, port and address, all in network order.
//!
//! ```text
//! IPv4   kind 254 | 8  | cport | CIP             8 bytes: two words, the header stays 4-byte aligned
//! IPv6   kind 254 | 20 | cport | CIP            20 bytes; kind 253 for the receivers of the other ecosystem
//! ```
//! The option goes first, right behind the fixed TCP header.

use super::field::{get_u16, put_array, put_u32};
use super::{Address, tcp_option};

/// Kind that nearly all receivers read: DPVS, Alibaba, Huawei, UCloud.
pub const KIND_DEFAULT: u8 = 254;
/// Kind that some receivers want for IPv6 clients.
pub const KIND_V6_ALTERNATE: u8 = 253;
/// Kinds by which receivers learn a client's address; none of them may come from a client.
pub const KINDS: [u8; 2] = [KIND_V6_ALTERNATE, KIND_DEFAULT];
/// Kind that `ip_vs_ca` reads, and UCloud's receiver beside the usual ones: where TOA is sent it may not come from a client
/// either.
pub const KIND_CA: u8 = 200;
/// Bytes of the option with an IPv4 client.
pub const V4_LEN: usize = 8;
/// Bytes of the option with an IPv6 client.
pub const V6_LEN: usize = 20;
/// A client port that makes kind 254 look like a Fast Open cookie (RFC 6994 ExID `0xF989`) on a SYN.
pub const FAST_OPEN_PORT: u16 = 0xf989;

/// Bytes of the option for a client.
#[inline(always)]
pub fn len_for(client: &Address) -> usize {
    if client.is_v4() { V4_LEN } else { V6_LEN }
}

/// What stands before the address in an option of `len` bytes.
#[inline(always)]
pub const fn front(kind: u8, len: usize, cport: u16) -> u32 {
    (kind as u32) << 24 | (len as u32) << 16 | cport as u32
}

/// Writes the option for an IPv4 client.
#[inline(always)]
pub fn write_v4(out: &mut [u8; V4_LEN], kind: u8, cport: u16, cip: [u8; 4]) {
    put_u32(out, 0, front(kind, V4_LEN, cport));
    put_array(out, 4, cip);
}

/// Writes the option for an IPv6 client.
#[inline(always)]
pub fn write_v6(out: &mut [u8; V6_LEN], kind: u8, cport: u16, cip: [u8; 16]) {
    put_u32(out, 0, front(kind, V6_LEN, cport));
    put_array(out, 4, cip);
}

/// The client that the first well-formed TOA option of `kind` names.
pub fn read(options: &[u8], kind: u8) -> Option<(Address, u16)> {
    tcp_option::Options::new(options).find_map(|option| match option {
        tcp_option::TcpOption::Unknown { kind: found, offset, len } if found == kind => {
            let bytes = &options[offset..offset + len];
            let address = match len {
                V4_LEN => Address::from_v4(*bytes[4..].first_chunk()?),
                V6_LEN => Address::from_v6(*bytes[4..].first_chunk()?),
                _ => return None,
            };
            Some((address, get_u16(bytes, 2)))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conformance_j1_an_ipv4_client_takes_eight_bytes_in_network_order() {
        let mut option = [0; V4_LEN];
        write_v4(&mut option, KIND_DEFAULT, 40_001, [203, 0, 113, 7]);
        assert_eq!(option, [254, 8, 0x9c, 0x41, 203, 0, 113, 7]);
        assert_eq!(read(&option, 254), Some((Address::from_v4([203, 0, 113, 7]), 40_001)));
    }

    #[test]
    fn conformance_j1_an_ipv6_client_takes_twenty_bytes_in_network_order() {
        let client: std::net::Ipv6Addr = "2001:db8::7".parse().unwrap();
        let mut option = [0; V6_LEN];
        write_v6(&mut option, KIND_V6_ALTERNATE, 40_001, client.octets());
        assert_eq!(option, [253, 20, 0x9c, 0x41, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!(read(&option, 253), Some((Address::from(client), 40_001)));
        assert_eq!(read(&option, 254), None);
    }

    #[test]
    fn conformance_j1_both_lengths_keep_the_header_aligned() {
        assert!(V4_LEN.is_multiple_of(4) && V6_LEN.is_multiple_of(4));
        assert_eq!(len_for(&Address::from_v4([1, 2, 3, 4])), V4_LEN);
        assert_eq!(len_for(&Address::UNSPECIFIED), V6_LEN);
    }

    /// A kernel module's way through the options of a segment, as all of them walk: which kinds and lengths it takes for
    /// IPv4 and for IPv6 clients, and whether the last of several counts.
    struct Module {
        name: &'static str,
        v4: &'static [(u8, usize)],
        v6: &'static [(u8, usize)],
        last: bool,
    }

    /// DPVS `kmod/toa` (`struct toa_ip4_data`, `toa_ip6_data`), Huawei `TCP_option_address` and elb-toa 2.1, Alibaba LVS v3,
    /// UCloud, `ip_vs_ca` (`struct ip_vs_tcpo_addr`), and the kernel patches behind Akamai's and other networks.
    const MODULES: [Module; 7] = [
        Module { name: "DPVS", v4: &[(254, 8)], v6: &[(254, 20)], last: false },
        Module { name: "Huawei toa 1.0", v4: &[(254, 8)], v6: &[], last: false },
        Module { name: "Huawei elb-toa 2.1", v4: &[(254, 8)], v6: &[(254, 20), (253, 20)], last: true },
        Module { name: "Alibaba", v4: &[(254, 8)], v6: &[(253, 20)], last: false },
        Module { name: "UCloud", v4: &[(200, 8), (254, 8), (253, 8)], v6: &[], last: false },
        Module { name: "ip_vs_ca", v4: &[(200, 8)], v6: &[], last: false },
        Module { name: "Akamai", v4: &[(28, 8)], v6: &[], last: false },
    ];
    /// What every one of them has behind its kind, for 203.0.113.7 and 2001:db8::7, port 40001.
    const V4_BEHIND: [u8; 7] = [8, 0x9c, 0x41, 203, 0, 113, 7];
    const V6_BEHIND: [u8; 19] = [20, 0x9c, 0x41, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];

    impl Module {
        fn reads(&self, options: &[u8]) -> Option<(Address, u16)> {
            let (mut at, mut found) = (0, None);
            while at < options.len() && options[at] != 0 {
                if options[at] == 1 {
                    at += 1;
                    continue;
                }
                let option = &options[at..at + usize::from(options[at + 1])];
                let form = (option[0], option.len());
                let address = if self.v4.contains(&form) {
                    Some(Address::from_v4(option[4..8].try_into().unwrap()))
                } else if self.v6.contains(&form) {
                    Some(Address::from_v6(option[4..20].try_into().unwrap()))
                } else {
                    None
                };
                if let Some(address) = address {
                    found = Some((address, u16::from_be_bytes([option[2], option[3]])));
                    if !self.last {
                        return found;
                    }
                }
                at += option.len();
            }
            found
        }
    }

    /// Timestamps as a kernel sends them behind it, and SACK permitted with a window scale as on a SYN.
    const OTHERS: [&[u8]; 3] =
        [&[], &[1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 7], &[2, 4, 5, 180, 4, 2, 1, 3, 3, 7, 0, 0]];

    #[test]
    fn conformance_j1_the_kernel_modules_read_what_is_sent() {
        let v4 = (Address::from_v4([203, 0, 113, 7]), 40_001);
        let v6 = (Address::from("2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap()), 40_001);
        for module in &MODULES {
            for others in OTHERS {
                for kind in module.v4.iter().map(|form| form.0) {
                    let mut option = [0; V4_LEN];
                    write_v4(&mut option, kind, 40_001, [203, 0, 113, 7]);
                    assert_eq!(option[..], [&[kind], &V4_BEHIND[..]].concat());
                    assert_eq!(module.reads(&[&option, others].concat()), Some(v4), "{} {kind}", module.name);
                }
                for kind in module.v6.iter().map(|form| form.0) {
                    let mut option = [0; V6_LEN];
                    write_v6(&mut option, kind, 40_001, *v6.0.octets());
                    assert_eq!(option[..], [&[kind], &V6_BEHIND[..]].concat());
                    assert_eq!(module.reads(&[&option, others].concat()), Some(v6), "{} {kind}", module.name);
                }
            }
        }
    }

    /// docs/real-servers.md says which.
    #[test]
    fn some_modules_want_another_kind_than_is_sent_unless_a_service_says_so() {
        let want_another = |forms: fn(&Module) -> &'static [(u8, usize)]| {
            let others = MODULES.iter().filter(|module| {
                !forms(module).is_empty() && forms(module).iter().all(|form| form.0 != KIND_DEFAULT)
            });
            others.map(|module| module.name).collect::<Vec<_>>()
        };
        assert_eq!(want_another(|module| module.v4), ["ip_vs_ca", "Akamai"]);
        assert_eq!(want_another(|module| module.v6), ["Alibaba"]);
    }

    /// Of a client's own options those of `KINDS`, `KIND_CA` and the kind that is sent are erased: ours is not always ahead of
    /// them, since a client can leave no room for it.
    #[test]
    fn conformance_j2_no_module_takes_a_clients_own_option() {
        for module in &MODULES {
            for (sent, _) in module.v4 {
                for (kind, _) in module.v4.iter().chain(module.v6) {
                    let is_erased = KINDS.contains(kind) || [KIND_CA, *sent].contains(kind);
                    assert!(is_erased, "{} reads {kind}", module.name);
                }
            }
        }
    }

    #[test]
    fn another_length_is_not_a_client_address() {
        assert_eq!(read(&[254, 4, 1, 2], 254), None);
        assert_eq!(
            read(&[254, 4, 1, 2, 254, 8, 0, 80, 1, 2, 3, 4], 254),
            Some((Address::from_v4([1, 2, 3, 4]), 80))
        );
        assert_eq!(read(&[1, 1, 1, 0], 254), None);
    }
}
