//! Which virtual service listens where.
//!
//! Built once with a snapshot, then only read. A single port costs one probe of a keyed hash table; a port range
//! costs a second probe and a binary search among the ranges of its address. Clients choose what is asked for here,
//! so the hash is keyed by whoever builds the snapshot.

use hashbrown::{HashMap, HashSet};

use super::snapshot::Listener;
use crate::id::ServiceId;
use crate::wire::{Address, Protocol};

/// Every listener of every service, made to be asked by packets.
///
/// Invariant: no two listeners of one protocol and address share a port.
#[derive(Clone, Debug)]
pub struct Listeners {
    single: HashMap<(Protocol, Address, u16), ServiceId, ahash::RandomState>,
    ranges: HashMap<(Protocol, Address), Box<[Range]>, ahash::RandomState>,
    addresses: HashSet<Address, ahash::RandomState>,
}

/// A range of more than one port; the ranges of one address stand in ascending order.
#[derive(Clone, Copy, Debug)]
struct Range {
    first: u16,
    last: u16,
    service: ServiceId,
}

/// Two services claim the same port of the same address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{address} port {port} is claimed by two listeners; give each port of an address to one service")]
pub struct Overlap {
    /// the VIP
    pub address: Address,
    /// the lowest port both claim
    pub port: u16,
}

impl Listeners {
    /// Builds the look-up from `(protocol, listener, service)`, hashed with `hasher`.
    ///
    /// # Errors
    /// [`Overlap`] if two listeners share a port.
    pub fn new(
        listeners: impl IntoIterator<Item = (Protocol, Listener, ServiceId)>,
        hasher: &ahash::RandomState,
    ) -> Result<Self, Overlap> {
        let mut by_address: HashMap<(Protocol, Address), Vec<Range>, _> =
            HashMap::with_hasher(hasher.clone());
        for (protocol, listener, service) in listeners {
            let range = Range { first: listener.port_first, last: listener.port_last, service };
            by_address.entry((protocol, listener.address)).or_default().push(range);
        }
        let mut built = Listeners {
            single: HashMap::with_hasher(hasher.clone()),
            ranges: HashMap::with_hasher(hasher.clone()),
            addresses: HashSet::with_hasher(hasher.clone()),
        };
        built.addresses.extend(by_address.keys().map(|(_, address)| *address));
        for ((protocol, address), mut claims) in by_address {
            claims.sort_unstable_by_key(|claim| claim.first);
            if let Some(pair) = claims.windows(2).find(|pair| pair[1].first <= pair[0].last) {
                return Err(Overlap { address, port: pair[1].first });
            }
            let (single, ranges): (Vec<_>, Vec<_>) =
                claims.into_iter().partition(|claim| claim.first == claim.last);
            built.single.extend(single.iter().map(|claim| ((protocol, address, claim.first), claim.service)));
            if !ranges.is_empty() {
                built.ranges.insert((protocol, address), ranges.into());
            }
        }
        Ok(built)
    }

    /// The service that listens on `port` of `address`.
    #[inline]
    pub fn find(&self, protocol: Protocol, address: &Address, port: u16) -> Option<ServiceId> {
        if let Some(service) = self.single.get(&(protocol, *address, port)) {
            return Some(*service);
        }
        if self.ranges.is_empty() {
            return None;
        }
        let ranges = self.ranges.get(&(protocol, *address))?;
        let range = ranges[..ranges.partition_point(|range| range.first <= port)].last()?;
        (port <= range.last).then_some(range.service)
    }

    /// Whether any service listens on `address`, whatever the protocol and port.
    #[inline]
    pub fn has_address(&self, address: &Address) -> bool {
        self.addresses.contains(address)
    }

    /// Every address that a service listens on, each once, in no order.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.addresses.iter()
    }
}

impl Default for Listeners {
    /// Nobody listens anywhere.
    fn default() -> Self {
        let hasher = ahash::RandomState::with_seeds(0, 0, 0, 0);
        Listeners {
            single: HashMap::with_hasher(hasher.clone()),
            ranges: HashMap::with_hasher(hasher.clone()),
            addresses: HashSet::with_hasher(hasher),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VIP: Address = Address::from_v4([10, 1, 0, 100]);
    const OTHER: Address = Address::from_v4([10, 1, 0, 101]);

    fn listener(address: Address, port_first: u16, port_last: u16) -> Listener {
        Listener { address, port_first, port_last }
    }

    fn hasher() -> ahash::RandomState {
        ahash::RandomState::with_seeds(1, 2, 3, 4)
    }

    #[test]
    fn protocol_address_and_port_all_matter() {
        let listeners = Listeners::new(
            [
                (Protocol::Tcp, listener(VIP, 80, 80), ServiceId(0)),
                (Protocol::Udp, listener(VIP, 80, 80), ServiceId(1)),
                (Protocol::Tcp, listener(VIP, 1000, 1010), ServiceId(2)),
                (Protocol::Tcp, listener(OTHER, 81, 81), ServiceId(3)),
            ],
            &hasher(),
        )
        .unwrap();
        assert_eq!(listeners.find(Protocol::Tcp, &VIP, 80), Some(ServiceId(0)));
        assert_eq!(listeners.find(Protocol::Udp, &VIP, 80), Some(ServiceId(1)));
        assert_eq!(listeners.find(Protocol::Tcp, &VIP, 1010), Some(ServiceId(2)));
        assert_eq!(listeners.find(Protocol::Udp, &VIP, 1010), None);
        assert_eq!(listeners.find(Protocol::Tcp, &VIP, 1011), None);
        assert_eq!(listeners.find(Protocol::Tcp, &OTHER, 80), None);
        assert!(listeners.has_address(&OTHER));
        assert!(!listeners.has_address(&Address::from_v4([10, 1, 0, 102])));
    }

    #[test]
    fn a_port_claimed_twice_is_refused() {
        let claims = [
            (Protocol::Tcp, listener(VIP, 1005, 1005), ServiceId(1)),
            (Protocol::Tcp, listener(VIP, 1000, 1010), ServiceId(0)),
        ];
        assert_eq!(Listeners::new(claims, &hasher()).unwrap_err(), Overlap { address: VIP, port: 1005 });
    }

    proptest! {
        #[test]
        fn find_agrees_with_a_walk_over_all_listeners(
            cuts in prop::collection::btree_set(1u16..300, 2..30),
            asked in prop::collection::vec(0u16..310, 1..60),
        ) {
            // Neighbouring cuts bound ranges; every second one is left free, so that there are gaps.
            let cuts: Vec<u16> = cuts.into_iter().collect();
            let claims: Vec<_> = cuts
                .windows(2)
                .step_by(2)
                .enumerate()
                .map(|(i, cut)| (Protocol::Tcp, listener(VIP, cut[0], cut[1] - 1), ServiceId(i as u32)))
                .collect();
            let listeners = Listeners::new(claims.clone(), &hasher()).unwrap();
            for port in asked {
                let expected = claims
                    .iter()
                    .find(|(_, claim, _)| (claim.port_first..=claim.port_last).contains(&port))
                    .map(|(_, _, service)| *service);
                prop_assert_eq!(listeners.find(Protocol::Tcp, &VIP, port), expected);
            }
        }
    }
}
