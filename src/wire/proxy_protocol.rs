//! The PROXY protocol's header, version 1 (text) and 2 (binary): what a proxy puts in front of a connection or datagram
//! so that the server learns whose it is. The words are those of HAProxy's `doc/proxy-protocol.txt`.
//!
//! ```text
//! v1   PROXY TCP4 203.0.113.7 10.1.0.100 40001 80\r\n           source, destination, their ports; 107 bytes at most
//! v2   signature 12 | version 4 bits, command 4 | family 4, transport 4 | length 2 | addresses, ports | TLVs
//! ```
//! Source and destination are the client's connection as the client made it. [`read`] takes whatever comes: a front that
//! is trusted to name clients is not trusted to be without faults.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use arrayvec::{ArrayString, ArrayVec};

use super::field::{get_array, get_u16};
use super::{Address, Protocol, Tuple};

/// Bytes of the longest header of version 1, line end included (§2.1).
pub const V1_LEN_MAX: usize = 107;
/// Bytes of a header of version 2 before the addresses.
pub const V2_FIXED_LEN: usize = 16;
/// Bytes of the longest header that [`write()`] makes.
pub const LEN_MAX: usize = V1_LEN_MAX;
/// Bytes of the longest header that [`read`] takes, TLVs included: what every host receives in one segment, since "the
/// sender must always ensure that the header is sent at once" (§2, RFC 9293 §3.7.1).
pub const READ_LEN_MAX: usize = 536;

/// Bytes of the header of version 2 that [`write()`] makes for a client of this family.
pub const fn v2_len(client_v6: bool) -> usize {
    V2_FIXED_LEN + if client_v6 { 36 } else { 12 }
}

/// What a header of version 2 begins with (§2.2); no protocol's first line looks like it.
pub const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// What a header of version 1 begins with.
const V1_SIGNATURE: &[u8] = b"PROXY ";
const LINE_END: &[u8] = b"\r\n";

const V2_LOCAL: u8 = 0x20;
const V2_PROXY: u8 = 0x21;
const FAMILY_UNSPECIFIED: u8 = 0;
const FAMILY_INET: u8 = 1;
const FAMILY_INET6: u8 = 2;
const FAMILY_UNIX: u8 = 3;
const TRANSPORT_STREAM: u8 = 1;
const TRANSPORT_DATAGRAM: u8 = 2;

/// The two forms of the header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// text, TCP only
    V1,
    /// binary
    V2,
}

/// A header as it goes onto the wire.
pub type Header = ArrayVec<u8, LEN_MAX>;

/// The header for a flow. Where only one end is IPv6 (a front with a socket for both families may say so), both are
/// written in the form of that family, an IPv4 address as IPv4-mapped.
///
/// Version 1 has no word for UDP, and says `UNKNOWN` of it: the receiver then keeps the addresses that it sees.
pub fn write(version: Version, flow: &Tuple) -> Header {
    match version {
        Version::V1 => write_v1(flow),
        Version::V2 => write_v2(flow),
    }
}

/// Whether a flow is one of IPv4 at both ends.
fn is_v4(flow: &Tuple) -> bool {
    flow.src.is_v4() && flow.dst.is_v4()
}

fn write_v1(flow: &Tuple) -> Header {
    let &Tuple { src, dst, sport, dport, protocol } = flow;
    let mut line = ArrayString::<V1_LEN_MAX>::new();
    let written = match protocol {
        Protocol::Tcp if is_v4(flow) => write!(line, "PROXY TCP4 {src} {dst} {sport} {dport}\r\n"),
        Protocol::Tcp => {
            let [src, dst] = [src, dst].map(|address| Ipv6Addr::from(*address.octets()));
            write!(line, "PROXY TCP6 {src} {dst} {sport} {dport}\r\n")
        }
        Protocol::Udp => line.write_str("PROXY UNKNOWN\r\n"),
    };
    written.expect("two addresses and two ports are no longer than a line may be");
    line.bytes().collect()
}

fn write_v2(flow: &Tuple) -> Header {
    let transport = match flow.protocol {
        Protocol::Tcp => TRANSPORT_STREAM,
        Protocol::Udp => TRANSPORT_DATAGRAM,
    };
    let (family, addresses) = if is_v4(flow) {
        let mut addresses = ArrayVec::<u8, 32>::new();
        addresses.extend([flow.src.v4_octets(), flow.dst.v4_octets()].into_iter().flatten());
        (FAMILY_INET, addresses)
    } else {
        (FAMILY_INET6, [*flow.src.octets(), *flow.dst.octets()].into_iter().flatten().collect())
    };
    let ports = [flow.sport, flow.dport].map(u16::to_be_bytes);
    let len = (addresses.len() + ports.as_flattened().len()) as u16;
    let mut header = Header::from_iter(V2_SIGNATURE);
    header.extend([V2_PROXY, family << 4 | transport]);
    header.extend(len.to_be_bytes());
    header.extend(addresses);
    header.extend(ports.into_iter().flatten());
    header
}

/// What a header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Said {
    /// whose connection it is; `None`: the sender's own (`LOCAL`), or one that cannot be told in addresses of IP
    /// (`UNKNOWN`, `AF_UNSPEC`, `AF_UNIX`), for which the addresses on the wire hold
    pub flow: Option<Tuple>,
    /// bytes of the header; what follows is the client's
    pub len: usize,
}

/// Why bytes are no header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadError {
    /// As far as they go they are the beginning of one.
    #[error("the PROXY protocol header is not complete")]
    Incomplete,
    /// They begin with neither signature.
    #[error("there is no PROXY protocol header")]
    Absent,
    /// A line without an end, or more TLVs than is taken.
    #[error(
        "the PROXY protocol header is longer than {V1_LEN_MAX} bytes of text or {READ_LEN_MAX} bytes in all"
    )]
    TooLong,
    /// The line is not as §2.1 wants it.
    #[error("the line is no PROXY protocol header of version 1")]
    Line,
    /// §2.2: "any other value must be rejected".
    #[error("version, command, family or transport of the binary PROXY protocol header is none there is")]
    Kind,
    /// The length has no room for the addresses, or a TLV reaches beyond it.
    #[error("the length of the binary PROXY protocol header does not fit what it holds")]
    Length,
}

/// Reads the header at the front of `bytes`, of either version.
///
/// # Errors
/// [`ReadError::Incomplete`] asks for more bytes; with any other the connection is to be ended (§2: "the receiver must
/// not try to guess").
pub fn read(bytes: &[u8]) -> Result<Said, ReadError> {
    if begins_like(bytes, &V2_SIGNATURE) {
        read_v2(bytes)
    } else if begins_like(bytes, V1_SIGNATURE) {
        read_v1(bytes)
    } else {
        Err(ReadError::Absent)
    }
}

/// Whether one of the two is the beginning of the other.
fn begins_like(bytes: &[u8], signature: &[u8]) -> bool {
    let len = bytes.len().min(signature.len());
    bytes[..len] == signature[..len]
}

fn read_v1(bytes: &[u8]) -> Result<Said, ReadError> {
    let within = &bytes[..bytes.len().min(V1_LEN_MAX)];
    let Some(end) = within.windows(LINE_END.len()).position(|window| window == LINE_END) else {
        return Err(if within.len() < V1_LEN_MAX { ReadError::Incomplete } else { ReadError::TooLong });
    };
    let line = &within[V1_SIGNATURE.len()..end];
    let flow = match line.split(|&byte| byte == b' ').next() {
        // "The receiver must ignore anything presented before the CRLF", be it text or not.
        Some(b"UNKNOWN") => None,
        _ => Some(std::str::from_utf8(line).ok().and_then(read_line).ok_or(ReadError::Line)?),
    };
    Ok(Said { flow, len: end + LINE_END.len() })
}

/// `TCP4 src dst sport dport`, one space between each.
fn read_line(line: &str) -> Option<Tuple> {
    let words: ArrayVec<&str, 6> = line.split(' ').take(6).collect();
    let [family, src, dst, sport, dport] = words[..] else { return None };
    let address = |text: &str| -> Option<Address> {
        let address = match family {
            "TCP4" => IpAddr::V4(text.parse::<Ipv4Addr>().ok()?),
            "TCP6" => IpAddr::V6(text.parse::<Ipv6Addr>().ok()?),
            _ => return None,
        };
        Some(address.into())
    };
    // §2.1: decimal, "without leading zeroes"
    let port = |text: &str| {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        text.parse::<u16>().ok().filter(|_| plain)
    };
    Some(Tuple {
        src: address(src)?,
        dst: address(dst)?,
        sport: port(sport)?,
        dport: port(dport)?,
        protocol: Protocol::Tcp,
    })
}

fn read_v2(bytes: &[u8]) -> Result<Said, ReadError> {
    let fixed: &[u8; V2_FIXED_LEN] = bytes.first_chunk().ok_or(ReadError::Incomplete)?;
    let [command, kind] = get_array(fixed, 12);
    let len = V2_FIXED_LEN + usize::from(get_u16(fixed, 14));
    let is_local = match command {
        V2_LOCAL => true,
        V2_PROXY => false,
        _ => return Err(ReadError::Kind),
    };
    // §2.2: of LOCAL "the receiver must ... discard the protocol block including the family".
    let (family, transport) = (kind >> 4, kind & 0xf);
    if !is_local && (family > FAMILY_UNIX || transport > TRANSPORT_DATAGRAM) {
        return Err(ReadError::Kind);
    }
    if len > READ_LEN_MAX {
        return Err(ReadError::TooLong);
    }
    let body = bytes.get(V2_FIXED_LEN..len).ok_or(ReadError::Incomplete)?;
    if is_local {
        return Ok(Said { flow: None, len });
    }
    let addresses_len = match family {
        FAMILY_INET => 12,
        FAMILY_INET6 => 36,
        FAMILY_UNIX => 216,
        _ => 0,
    };
    let (addresses, tlvs) = body.split_at_checked(addresses_len).ok_or(ReadError::Length)?;
    // Without a family there is nothing to tell addresses and TLVs apart by.
    if family != FAMILY_UNSPECIFIED && !are_whole(tlvs) {
        return Err(ReadError::Length);
    }
    let protocol = match transport {
        TRANSPORT_STREAM => Some(Protocol::Tcp),
        TRANSPORT_DATAGRAM => Some(Protocol::Udp),
        _ => None,
    };
    let flow = match (family, protocol) {
        (FAMILY_INET, Some(protocol)) => Some(Tuple {
            src: Address::from_v4(get_array(addresses, 0)),
            dst: Address::from_v4(get_array(addresses, 4)),
            sport: get_u16(addresses, 8),
            dport: get_u16(addresses, 10),
            protocol,
        }),
        (FAMILY_INET6, Some(protocol)) => Some(Tuple {
            src: Address::from_v6(get_array(addresses, 0)),
            dst: Address::from_v6(get_array(addresses, 16)),
            sport: get_u16(addresses, 32),
            dport: get_u16(addresses, 34),
            protocol,
        }),
        _ => None,
    };
    Ok(Said { flow, len })
}

/// Whether bytes are a sequence of whole TLVs: type, length of two bytes, value (§2.2.7).
fn are_whole(mut tlvs: &[u8]) -> bool {
    while !tlvs.is_empty() {
        let Some(head) = tlvs.first_chunk::<3>() else { return false };
        let Some(rest) = tlvs.get(3 + usize::from(get_u16(head, 1))..) else { return false };
        tlvs = rest;
    }
    true
}

#[cfg(test)]
#[path = "proxy_protocol_tests.rs"]
mod tests;
