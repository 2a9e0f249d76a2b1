//! The small languages of the file's strings: addresses, prefixes, listeners, port ranges, devices.
//!
//! Every parser hands back the checked value or a [`Fault`] that says what to write; who calls knows the place.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checked::{Device, RSS_KEY_LEN};
use super::limits;
use super::mistake::Fault;
use crate::service::route::Prefix;
use crate::service::snapshot::Listener;
use crate::wire::Address;

/// An address that a host can have.
pub(super) fn address(text: &str) -> Result<Address, Fault> {
    let address: IpAddr = text.parse().map_err(|_| {
        Fault::new(
            format!("{text:?} is not an address"),
            "write one such as \"10.1.0.100\" or \"2001:db8::100\"",
        )
    })?;
    match address {
        IpAddr::V4(v4) => host_v4(v4)?,
        IpAddr::V6(v6) => host_v6(v6)?,
    }
    Ok(address.into())
}

fn host_v4(v4: Ipv4Addr) -> Result<(), Fault> {
    let why = if v4.is_multicast() {
        "a multicast address"
    } else if v4.is_loopback() {
        "a loopback address"
    } else if v4.octets()[0] == 0 {
        "in 0.0.0.0/8, which no host has"
    } else if v4.octets()[0] >= 240 {
        "reserved or broadcast"
    } else {
        return Ok(());
    };
    Err(Fault::new(format!("{v4} is {why}"), "write a unicast address"))
}

fn host_v6(v6: Ipv6Addr) -> Result<(), Fault> {
    let (why, hint) = if let Some(v4) = v6.to_ipv4_mapped() {
        ("an IPv4 address in IPv6 clothes", format!("write \"{v4}\""))
    } else if v6.is_multicast() {
        ("a multicast address", "write a unicast address".to_owned())
    } else if v6.is_loopback() {
        ("the loopback address", "write a unicast address".to_owned())
    } else if v6.is_unspecified() {
        ("the unspecified address", "write a unicast address".to_owned())
    } else {
        return Ok(());
    };
    Err(Fault::new(format!("{v6} is {why}"), hint))
}

/// An address that is good beyond one link.
pub(super) fn global_address(text: &str) -> Result<Address, Fault> {
    let address = address(text)?;
    if is_link_local(&address) {
        return Err(Fault::new(format!("{address} is link-local"), "write an address that routers forward"));
    }
    Ok(address)
}

/// `fe80::/10`.
pub(super) fn is_link_local(address: &Address) -> bool {
    matches!(IpAddr::from(*address), IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// The bits of `address` behind its first `prefix_len`, as a number, and how many they are.
fn host_part(address: &Address, prefix_len: u8) -> (u128, u32) {
    let width = if address.is_v4() { 32 } else { 128 };
    let host_bits = width - u32::from(prefix_len);
    let mask = if host_bits == 128 { u128::MAX } else { (1 << host_bits) - 1 };
    (u128::from_be_bytes(*address.octets()) & mask, host_bits)
}

/// Whether `address` names a whole subnet of this prefix length: its network or (IPv4) broadcast address, or (IPv6) the
/// subnet-router anycast address (RFC 4291 §2.6.1). Subnets of one or two addresses have none (RFC 3021, RFC 6164).
pub(super) fn names_subnet(address: &Address, prefix_len: u8) -> Option<&'static str> {
    let (host, host_bits) = host_part(address, prefix_len);
    if host_bits < 2 {
        return None;
    }
    match (host, address.is_v4()) {
        (0, true) => Some("network"),
        (0, false) => Some("subnet-router anycast"),
        (host, true) if host == (1 << host_bits) - 1 => Some("broadcast"),
        _ => None,
    }
}

/// The address and length of `a.b.c.d/len`, not yet looked at.
fn prefix_parts(text: &str, example: &str) -> Result<(IpAddr, u8), Fault> {
    let fault = || {
        Fault::new(
            format!("{text:?} is not an address with a prefix length"),
            format!("write one such as {example}"),
        )
    };
    let (address, len) = text.split_once('/').ok_or_else(fault)?;
    let address: IpAddr = address.parse().map_err(|_| fault())?;
    let len_max = if address.is_ipv4() { 32 } else { 128 };
    match len.parse::<u8>() {
        Ok(len) if len <= len_max => Ok((address, len)),
        _ => Err(Fault::new(
            format!("{text:?} has a prefix length that its family does not know"),
            format!("write 0 to {len_max} behind the slash"),
        )),
    }
}

/// A host's address with its subnet's length: `10.1.0.254/24`.
pub(super) fn interface_address(text: &str) -> Result<(Address, u8), Fault> {
    let (ip, len) = prefix_parts(text, "\"10.1.0.254/24\"")?;
    let address = address(&ip.to_string())?;
    if len == 0 {
        return Err(Fault::new(
            format!("{text:?} makes everything on-link"),
            "write the subnet's prefix length",
        ));
    }
    match names_subnet(&address, len) {
        Some(what) => Err(Fault::new(
            format!("{ip} is the {what} address of its subnet"),
            "write the port's own address in that subnet",
        )),
        None => Ok((address, len)),
    }
}

/// A prefix without host bits: `10.0.0.0/8`, `::/0`.
pub(super) fn prefix(text: &str) -> Result<(Address, u8), Fault> {
    let (ip, len) = prefix_parts(text, "\"10.0.0.0/8\", or \"0.0.0.0/0\" for the default route")?;
    let mapped = matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    match ipnet::IpNet::new(ip, len).map(|net| net.trunc()) {
        Ok(_) if mapped => {
            Err(Fault::new(format!("{text:?} is an IPv4 prefix in IPv6 clothes"), "write it as IPv4"))
        }
        Ok(net) if net.addr() == ip => Ok((ip.into(), len)),
        Ok(net) => {
            Err(Fault::new(format!("{text:?} has bits behind its prefix"), format!("write \"{net}\"")))
        }
        Err(_) => Err(Fault::new(format!("{text:?} is not a prefix"), "write one such as \"10.0.0.0/8\"")),
    }
}

/// A host's address, or a prefix of them: `10.1.0.5`, `10.1.0.0/28`.
pub(super) fn hosts(text: &str) -> Result<Prefix, Fault> {
    if text.contains('/') {
        return prefix(text).map(|(address, len)| Prefix { address, len });
    }
    let address = global_address(text)?;
    Ok(Prefix { address, len: if address.is_v4() { 32 } else { 128 } })
}

/// The addresses of one entry of a pool: a single one, `first-last`, or a prefix.
pub(super) fn pool_addresses(text: &str) -> Result<Vec<Address>, Fault> {
    let (first, last) = if let Some((first, last)) = text.split_once('-') {
        (global_address(first.trim())?, global_address(last.trim())?)
    } else if text.contains('/') {
        let (first, len) = prefix(text)?;
        let (_, host_bits) = host_part(&first, len);
        let span = if host_bits >= 127 { u128::MAX >> 1 } else { (1 << host_bits) - 1 };
        (first, from_number(number(&first).saturating_add(span)))
    } else {
        let one = global_address(text)?;
        (one, one)
    };
    if first.is_v4() != last.is_v4() {
        return Err(Fault::new(
            format!("{text:?} begins in one family and ends in the other"),
            "write one range per family",
        ));
    }
    let Some(span) = number(&last).checked_sub(number(&first)) else {
        return Err(Fault::new(
            format!("{text:?} ends before it begins"),
            format!("write \"{last}-{first}\""),
        ));
    };
    if span >= limits::POOL_ADDRESSES as u128 {
        return Err(Fault::new(
            format!("{text:?} has more than {} addresses", limits::POOL_ADDRESSES),
            "write a smaller range; each address carries about 60000 sessions to each real server",
        ));
    }
    (0..=span).map(|offset| global_address(&from_number(number(&first) + offset).to_string())).collect()
}

fn number(address: &Address) -> u128 {
    u128::from_be_bytes(*address.octets())
}

fn from_number(number: u128) -> Address {
    Address::from_v6(number.to_be_bytes())
}

/// `first-last` or a single L4 port; 0 is none.
pub(super) fn port_range(text: &str) -> Result<(u16, u16), Fault> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first.trim())?, port(last.trim())?);
    if first > last {
        return Err(Fault::new(
            format!("the port range {text:?} ends before it begins"),
            format!("write \"{last}-{first}\""),
        ));
    }
    Ok((first, last))
}

/// One L4 port; 0 is none.
fn port(text: &str) -> Result<u16, Fault> {
    match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(Fault::new(format!("{text:?} is not a port"), "write a port of 1 to 65535")),
    }
}

/// Splits `address:ports` or `[address]:ports`; no ports: `None`.
fn split_ports(text: &str) -> Result<(&str, Option<&str>), Fault> {
    if let Some(rest) = text.strip_prefix('[') {
        let fault = || {
            Fault::new(
                format!("{text:?} lacks its closing bracket or its port"),
                "write it as \"[2001:db8::100]:80\"",
            )
        };
        let (address, rest) = rest.split_once(']').ok_or_else(fault)?;
        return match rest.strip_prefix(':') {
            Some(ports) => Ok((address, Some(ports))),
            None if rest.is_empty() => Ok((address, None)),
            None => Err(fault()),
        };
    }
    match text.split_once(':') {
        // More than one colon: an IPv6 address without brackets, which has no room for a port.
        Some((_, rest)) if rest.contains(':') => Ok((text, None)),
        Some((address, ports)) => Ok((address, Some(ports))),
        None => Ok((text, None)),
    }
}

/// Where a service listens: `10.1.0.100:80`, `10.1.0.100:1000-1010`, `[2001:db8::100]:80`.
pub(super) fn listener(text: &str) -> Result<Listener, Fault> {
    let (address, ports) = split_ports(text)?;
    let address = global_address(address)?;
    let Some(ports) = ports else {
        let with_port = if address.is_v4() { format!("{address}:80") } else { format!("[{address}]:80") };
        return Err(Fault::new(
            format!("{text:?} names no port"),
            format!("write for example \"{with_port}\""),
        ));
    };
    let (port_first, port_last) = port_range(ports)?;
    Ok(Listener { address, port_first, port_last })
}

/// A real server: `10.2.0.11:8080`, `[2001:db8::11]:8080`, or without a port.
pub(super) fn real_server(text: &str) -> Result<(Address, Option<u16>), Fault> {
    let (address, text_port) = split_ports(text)?;
    let address = global_address(address)?;
    if text_port.is_some_and(|text| text.contains('-')) {
        return Err(Fault::new(
            format!("{text:?} has a range of ports"),
            "write one port, or none for the port that the client dialled",
        ));
    }
    Ok((address, text_port.map(port).transpose()?))
}

/// A name for people, paths and metrics.
pub(super) fn name(text: &str) -> Result<String, Fault> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > 64 || !text.chars().all(good) {
        return Err(Fault::new(
            format!("{text:?} is not a name"),
            "write 1 to 64 letters, digits, dots, dashes or underscores",
        ));
    }
    Ok(text.to_owned())
}

/// A PCI address or a vdev with arguments.
pub(super) fn device(text: &str) -> Result<Device, Fault> {
    let (name, _) = text.split_once(',').unwrap_or((text, ""));
    if let Some(pci) = pci_address(name) {
        return if name == text {
            Ok(Device::Pci(pci))
        } else {
            Ok(Device::Pci(format!("{pci}{}", &text[name.len()..])))
        };
    }
    let driver = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let is_vdev = (name.starts_with("net_") || name.starts_with("eth_")) && name.chars().all(driver);
    if is_vdev && !text.contains(char::is_whitespace) {
        return Ok(Device::Virtual(text.to_owned()));
    }
    let plain_interface =
        !name.is_empty() && name == text && name.len() < 16 && !name.contains([':', '/', ' ']);
    let hint = if plain_interface && !is_vdev {
        format!("for the kernel interface {name:?} write \"net_af_packet0,iface={name}\"")
    } else {
        "write a PCI address such as \"0000:3b:00.0\" or a vdev such as \"net_af_packet0,iface=eth1\""
            .to_owned()
    };
    Err(Fault::new(format!("{text:?} is neither a PCI address nor a DPDK vdev"), hint))
}

/// `dddd:bb:dd.f` or `bb:dd.f`, in the long form and lower case.
fn pci_address(text: &str) -> Option<String> {
    let long = if text.matches(':').count() == 1 { format!("0000:{text}") } else { text.to_owned() };
    let (domain, rest) = long.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    let hex = |part: &str, len: usize| part.len() == len && part.chars().all(|c| c.is_ascii_hexdigit());
    let good =
        hex(domain, 4) && hex(bus, 2) && hex(device, 2) && matches!(function.as_bytes(), [b'0'..=b'7']);
    good.then(|| long.to_ascii_lowercase())
}

/// A Toeplitz key of 40 or 52 bytes in hexadecimal, colons and blanks between them allowed.
pub(super) fn rss_key(text: &str) -> Result<[u8; RSS_KEY_LEN], Fault> {
    let digits: Vec<u32> = text
        .chars()
        .filter(|c| !matches!(c, ':' | ' '))
        .map(|c| c.to_digit(16))
        .collect::<Option<_>>()
        .unwrap_or_default();
    if digits.len() != 80 && digits.len() != 104 {
        return Err(Fault::new(
            "this is not a key of 40 or 52 bytes",
            "write 80 or 104 hexadecimal digits, or leave it out for a random key",
        ));
    }
    let mut key = [0; RSS_KEY_LEN];
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = (pair[0] << 4 | pair[1]) as u8;
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_of_both_families_and_ranges() {
        let listen = |text: &str| listener(text).unwrap();
        assert_eq!(listen("10.1.0.100:80").port_last, 80);
        let range = listen("10.1.0.100:1000-1010");
        assert_eq!((range.port_first, range.port_last), (1000, 1010));
        assert_eq!(listen("[2001:db8::100]:443").address, address("2001:db8::100").unwrap());
    }

    #[test]
    fn real_servers_with_and_without_a_port() {
        assert_eq!(real_server("10.2.0.11:8080").unwrap().1, Some(8080));
        assert_eq!(real_server("10.2.0.11").unwrap().1, None);
        assert_eq!(real_server("2001:db8::11").unwrap().1, None);
        assert_eq!(real_server("[2001:db8::11]").unwrap().1, None);
        assert_eq!(real_server("[2001:db8::11]:53").unwrap().1, Some(53));
    }

    #[test]
    fn pools_expand() {
        let count = |text: &str| pool_addresses(text).unwrap().len();
        assert_eq!(count("10.2.0.100"), 1);
        assert_eq!(count("10.2.0.100-10.2.0.115"), 16);
        assert_eq!(count("10.2.0.96/28"), 16);
        assert_eq!(count("2001:db8:2::100 - 2001:db8:2::10f"), 16);
        assert_eq!(count("2001:db8:2::/124"), 16);
        assert!(pool_addresses("2001:db8::/32").is_err());
        assert!(pool_addresses("::/0").is_err());
        assert_eq!(pool_addresses("10.2.0.254-10.2.1.1").unwrap()[2], address("10.2.1.0").unwrap());
    }

    #[test]
    fn devices_as_dpdk_names_them() {
        assert_eq!(device("3B:00.1").unwrap(), Device::Pci("0000:3b:00.1".to_owned()));
        let vdev = device("net_af_packet0,iface=gw-wan,qpairs=2").unwrap();
        assert_eq!(vdev.name(), "net_af_packet0");
        assert!(matches!(vdev, Device::Virtual(_)));
        assert!(device("eth0").unwrap_err().hint.contains("net_af_packet0,iface=eth0"));
        assert!(device("0000:3b:00.9").is_err());
    }

    #[test]
    fn subnets_have_names() {
        let names = |text: &str, len| names_subnet(&address(text).unwrap(), len);
        assert_eq!(names("10.1.0.0", 24), Some("network"));
        assert_eq!(names("10.1.0.255", 24), Some("broadcast"));
        assert_eq!(names("10.1.0.255", 16), None);
        assert_eq!(names("10.1.0.0", 31), None);
        assert_eq!(names("2001:db8::", 64), Some("subnet-router anycast"));
        assert_eq!(names("2001:db8::1", 64), None);
    }
}
