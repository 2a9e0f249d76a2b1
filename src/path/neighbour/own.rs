//! What the gateway itself holds on its ports, as the neighbour table needs to know it: a borrowed part of the
//! snapshot, so that the table keeps no copy that could grow old.

use hashbrown::HashMap;

use crate::id::PortId;
use crate::service::snapshot::{Owned, PortView, Snapshot};
use crate::wire::{Address, arp, nd};

/// The gateway's ports and the addresses it answers for.
#[derive(Clone, Copy)]
pub struct OwnAddresses<'a> {
    /// indexed by [`PortId`]
    pub ports: &'a [PortView],
    /// every VIP, LIP and port address
    pub owned: &'a HashMap<Address, Owned, ahash::RandomState>,
}

impl<'a> OwnAddresses<'a> {
    /// Those of a snapshot.
    #[inline]
    pub fn of(snapshot: &'a Snapshot) -> Self {
        OwnAddresses { ports: &snapshot.ports, owned: &snapshot.owned }
    }

    /// A port, if it is configured.
    pub fn port(self, port: PortId) -> Option<&'a PortView> {
        self.ports.get(port.index())
    }

    /// Whether questions for `address` on `port` are ours to answer: the addresses of the port itself (strong host,
    /// RFC 1122 §3.3.4.2), those of other ports only if it is configured so.
    pub fn answers(self, port: &PortView, address: Address) -> bool {
        match self.owned.get(&address) {
            Some(owned) => owned.port == Some(port.id) || port.answer_for_other_ports,
            None => is_own_link_local(port, address),
        }
    }

    /// Whether a MAC address is one of ours, so that a frame from it is an echo.
    pub fn has_mac(self, mac: [u8; 6]) -> bool {
        self.ports.iter().any(|port| port.mac == mac)
    }
}

/// Whether `address` is the one that every IPv6 interface has (RFC 4291 §2.1).
fn is_own_link_local(port: &PortView, address: Address) -> bool {
    nd::is_link_local(address)
        && address == nd::link_local(port.mac)
        && port.addresses.iter().any(|(own, _)| !own.is_v4())
}

/// Whether `address` is on the link behind `port`.
pub(super) fn is_on_link(port: &PortView, address: Address) -> bool {
    nd::is_link_local(address) || port.addresses.iter().any(|&(own, len)| in_prefix(address, own, len))
}

/// The sender of a question for `target`: the address of the port in the target's subnet, else any of its family. A
/// port without one asks as a probe does (RFC 5227 §2.1.1) or from its link-local address.
pub(super) fn source_for(port: &PortView, target: Address) -> Address {
    if nd::is_link_local(target) {
        return nd::link_local(port.mac);
    }
    let same_subnet = port.addresses.iter().find(|&&(own, len)| in_prefix(target, own, len));
    let same_family = || port.addresses.iter().find(|(own, _)| own.is_v4() == target.is_v4());
    match same_subnet.or_else(same_family) {
        Some(&(own, _)) => own,
        None if target.is_v4() => arp::UNSPECIFIED,
        None => nd::link_local(port.mac),
    }
}

/// Whether `address` is the broadcast address of one of the port's subnets.
pub(super) fn is_subnet_broadcast(port: &PortView, address: Address) -> bool {
    let is_last = |own: Address, len: u8| address == Address::from_v4(last_of_subnet(own.v4_octets(), len));
    address.is_v4() && port.addresses.iter().any(|&(own, len)| own.is_v4() && len < 31 && is_last(own, len))
}

fn last_of_subnet(address: [u8; 4], len: u8) -> [u8; 4] {
    let host_bits = u32::MAX.checked_shr(u32::from(len)).unwrap_or(0);
    (u32::from_be_bytes(address) | host_bits).to_be_bytes()
}

fn in_prefix(address: Address, network: Address, len: u8) -> bool {
    if address.is_v4() != network.is_v4() {
        return false;
    }
    let len = u32::from(len) + if network.is_v4() { 96 } else { 0 };
    let differing = u128::from_be_bytes(*address.octets()) ^ u128::from_be_bytes(*network.octets());
    differing.leading_zeros() >= len
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn a_prefix_holds_its_own_and_nothing_of_the_other_family() {
        for (inside, network, len, expected) in [
            ("10.1.0.9", "10.1.0.254", 24, true),
            ("10.1.1.9", "10.1.0.254", 24, false),
            ("10.1.0.9", "0.0.0.0", 0, true),
            ("10.1.0.254", "10.1.0.254", 32, true),
            ("10.1.0.255", "10.1.0.254", 32, false),
            ("2001:db8:1::9", "2001:db8:1::fe", 64, true),
            ("2001:db8:2::9", "2001:db8:1::fe", 64, false),
            ("10.1.0.9", "::", 0, false),
            ("2001:db8::9", "0.0.0.0", 0, false),
        ] {
            assert_eq!(
                in_prefix(address(inside), address(network), len),
                expected,
                "{inside} in {network}/{len}"
            );
        }
    }

    #[test]
    fn the_last_address_of_a_subnet() {
        assert_eq!(last_of_subnet([10, 1, 0, 254], 24), [10, 1, 0, 255]);
        assert_eq!(last_of_subnet([10, 1, 0, 254], 0), [255; 4]);
        assert_eq!(last_of_subnet([10, 1, 0, 254], 32), [10, 1, 0, 254]);
    }
}
