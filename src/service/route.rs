//! Longest prefix match over connected and static routes.
//!
//! A gateway has few routes of few different prefix lengths, and asks only when a session begins, when a neighbour is
//! resolved anew, or when an error must be sent: a table per prefix length, longest first, is one look-up per length in
//! use (two to four as a rule) and nothing to maintain. A few routes of one length are compared one by one, which is
//! less than a hash. Built with the snapshot, then only read.

use arrayvec::ArrayVec;
use hashbrown::HashMap;
use std::cmp::Reverse;

use crate::id::PortId;
use crate::wire::Address;

/// Where to send a packet for a destination.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NextHop {
    /// the way out
    pub port: PortId,
    /// the router to hand it to; `None`: the destination itself is on the link
    pub via: Option<Address>,
}

/// One entry of the table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Route {
    /// the prefix; bits behind `prefix_len` do not count
    pub prefix: Address,
    /// bits that must agree: IPv4 0 to 32, IPv6 0 to 128
    pub prefix_len: u8,
    /// where to
    pub next_hop: NextHop,
}

impl Route {
    /// Whether `address` is of the prefix's family and lies in it.
    pub fn covers(&self, address: &Address) -> bool {
        Prefix { address: self.prefix, len: self.prefix_len }.covers(address)
    }
}

/// The addresses of one family that agree in their first bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Prefix {
    /// any of them; bits behind `len` do not count
    pub address: Address,
    /// bits that must agree: IPv4 0 to 32, IPv6 0 to 128
    pub len: u8,
}

impl Prefix {
    /// Whether `address` is one of them.
    pub fn covers(&self, address: &Address) -> bool {
        let mask = mask(self.len, self.address.is_v4());
        address.is_v4() == self.address.is_v4() && (bits(address) ^ bits(&self.address)) & mask == 0
    }
}

/// Connected and static routes of both families.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    routes: Vec<Route>,
    v4: Vec<Level>,
    v6: Vec<Level>,
}

/// The routes of one family and prefix length.
#[derive(Clone, Debug)]
struct Level {
    mask: u128,
    ways: Ways,
}

/// Most routes of a level that are compared one by one.
const FEW: usize = 4;

/// What a prefix leads to.
#[derive(Clone, Copy, Debug)]
struct Way {
    next_hop: NextHop,
    /// whether any of the gateway's own addresses lies there
    has_own: bool,
}

/// Ways by prefix, each prefix once.
#[derive(Clone, Debug)]
enum Ways {
    Few(ArrayVec<(u128, Way), FEW>),
    Many(HashMap<u128, Way, ahash::RandomState>),
}

impl Ways {
    #[inline]
    fn get(&self, prefix: u128) -> Option<&Way> {
        match self {
            Ways::Few(few) => few.iter().find(|(known, _)| *known == prefix).map(|(_, way)| way),
            Ways::Many(many) => many.get(&prefix),
        }
    }

    fn get_mut(&mut self, prefix: u128) -> Option<&mut Way> {
        match self {
            Ways::Few(few) => few.iter_mut().find(|(known, _)| *known == prefix).map(|(_, way)| way),
            Ways::Many(many) => many.get_mut(&prefix),
        }
    }

    /// Adds a route unless there is one with this prefix.
    fn add(&mut self, prefix: u128, next_hop: NextHop) {
        if self.get(prefix).is_some() {
            return;
        }
        let way = Way { next_hop, has_own: false };
        match self {
            Ways::Few(few) if few.is_full() => {
                // Prefixes come from the configuration, nobody can choose them to collide: no key is needed.
                let mut many = HashMap::with_hasher(ahash::RandomState::with_seeds(1, 2, 3, 4));
                many.extend(few.take());
                many.insert(prefix, way);
                *self = Ways::Many(many);
            }
            Ways::Few(few) => few.push((prefix, way)),
            Ways::Many(many) => {
                many.insert(prefix, way);
            }
        }
    }
}

impl RouteTable {
    /// Builds the table. Of two routes with the same prefix the first one counts.
    pub fn new(routes: impl IntoIterator<Item = Route>) -> Self {
        let mut table = RouteTable { routes: routes.into_iter().collect(), ..RouteTable::default() };
        // Longest first; the sort is stable, so that the first of two equal prefixes stays the first.
        table.routes.sort_by_key(|route| (!route.prefix.is_v4(), Reverse(route.prefix_len)));
        for route in &table.routes {
            let levels = if route.prefix.is_v4() { &mut table.v4 } else { &mut table.v6 };
            let mask = mask(route.prefix_len, route.prefix.is_v4());
            if levels.last().is_none_or(|level| level.mask != mask) {
                levels.push(Level { mask, ways: Ways::Few(ArrayVec::new()) });
            }
            if let Some(level) = levels.last_mut() {
                level.ways.add(bits(&route.prefix) & mask, route.next_hop);
            }
        }
        table
    }

    /// The next hop of the longest prefix that covers `destination`. A prefix of one family never covers an address
    /// of the other.
    #[inline]
    pub fn lookup(&self, destination: &Address) -> Option<&NextHop> {
        self.way(destination).map(|way| &way.next_hop)
    }

    /// As [`RouteTable::lookup`]; and whether `destination` may be one of the addresses that were
    /// [noted](RouteTable::note_own): no if none of them is reached by the same route.
    #[inline]
    pub fn lookup_stranger(&self, destination: &Address) -> Option<(&NextHop, bool)> {
        self.way(destination).map(|way| (&way.next_hop, way.has_own))
    }

    /// Notes by which route one of the gateway's own addresses would be reached.
    pub fn note_own(&mut self, address: &Address) {
        let levels = if address.is_v4() { &mut self.v4 } else { &mut self.v6 };
        let bits = bits(address);
        if let Some(way) = levels.iter_mut().find_map(|level| level.ways.get_mut(bits & level.mask)) {
            way.has_own = true;
        }
    }

    #[inline]
    fn way(&self, destination: &Address) -> Option<&Way> {
        let levels = if destination.is_v4() { &self.v4 } else { &self.v6 };
        let bits = bits(destination);
        levels.iter().find_map(|level| level.ways.get(bits & level.mask))
    }

    /// Every route, IPv4 first, longest prefix first.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }
}

fn bits(address: &Address) -> u128 {
    u128::from_be_bytes(*address.octets())
}

/// The bits that count, over all sixteen bytes: an IPv4 prefix lies behind the 96 bits of the mapped form.
fn mask(prefix_len: u8, is_v4: bool) -> u128 {
    let len = if is_v4 { 96 + u32::from(prefix_len.min(32)) } else { u32::from(prefix_len.min(128)) };
    u128::MAX.checked_shl(128 - len).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::IpAddr;

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn route(prefix: &str, prefix_len: u8, port: u16, via: Option<&str>) -> Route {
        let next_hop = NextHop { port: PortId(port), via: via.map(address) };
        Route { prefix: address(prefix), prefix_len, next_hop }
    }

    #[test]
    fn the_longest_prefix_wins_and_families_do_not_mix() {
        let table = RouteTable::new([
            route("0.0.0.0", 0, 0, Some("10.1.0.1")),
            route("10.2.0.0", 24, 1, None),
            route("10.2.0.128", 25, 2, Some("10.2.0.1")),
            route("2001:db8::", 32, 3, None),
        ]);
        let port = |text: &str| table.lookup(&address(text)).map(|hop| hop.port.0);
        assert_eq!(port("192.0.2.1"), Some(0));
        assert_eq!(port("10.2.0.127"), Some(1));
        assert_eq!(port("10.2.0.128"), Some(2));
        assert_eq!(port("2001:db8:ffff::1"), Some(3));
        assert_eq!(port("2001:db9::1"), None, "the IPv4 default route must not catch IPv6");

        let v6_only = RouteTable::new([route("::", 0, 0, Some("fe80::1"))]);
        assert_eq!(v6_only.lookup(&address("10.0.0.1")), None, "nor the IPv6 one IPv4");
        assert!(v6_only.lookup(&address("2001:db8::1")).is_some());
    }

    fn any_address() -> impl Strategy<Value = Address> {
        // Few values per byte, so that prefixes nest and addresses hit them.
        let byte = || prop_oneof![Just(0u8), Just(1), Just(0x80), Just(0xff)];
        prop_oneof![
            [byte(), byte(), byte(), byte()].prop_map(Address::from_v4),
            [byte(), byte(), byte(), byte()].prop_map(|[a, b, c, d]| {
                Address::from_v6([0x20, a, b, 0, 0, 0, 0, c, 0, 0, 0, 0, 0, 0, 0, d])
            }),
        ]
    }

    fn any_route() -> impl Strategy<Value = Route> {
        (any_address(), 0u8..=128, 0u16..4).prop_map(|(prefix, len, port)| Route {
            prefix,
            prefix_len: if prefix.is_v4() { len % 33 } else { len },
            next_hop: NextHop { port: PortId(port), via: None },
        })
    }

    #[test]
    fn only_routes_to_own_addresses_may_lead_to_them() {
        let on_link = |net: u8| route(&format!("10.{net}.0.0"), 24, u16::from(net), None);
        let mut routes: Vec<Route> = (0..6).map(on_link).collect();
        routes.push(route("0.0.0.0", 0, 0, Some("10.0.0.1")));
        let mut table = RouteTable::new(routes);
        let may_be_own = |table: &RouteTable, text: &str| table.lookup_stranger(&address(text)).unwrap().1;
        assert!(!may_be_own(&table, "10.5.0.1"));
        table.note_own(&address("10.5.0.254"));
        assert!(may_be_own(&table, "10.5.0.1"), "it could be");
        assert!(!may_be_own(&table, "10.4.0.254") && !may_be_own(&table, "192.0.2.1"));
        table.note_own(&address("198.51.100.1"));
        assert!(may_be_own(&table, "192.0.2.1") && !may_be_own(&table, "10.4.0.254"));
    }

    proptest! {
        #[test]
        fn lookup_agrees_with_a_walk_over_all_routes(
            routes in prop::collection::vec(any_route(), 0..40),
            asked in prop::collection::vec(any_address(), 1..40),
        ) {
            let table = RouteTable::new(routes.iter().copied());
            for destination in asked {
                // max_by_key takes the last of equals, so walk backwards to get the first.
                let expected = routes.iter().rev()
                    .filter(|route| route.covers(&destination))
                    .max_by_key(|route| route.prefix_len)
                    .map(|route| route.next_hop);
                prop_assert_eq!(table.lookup(&destination).copied(), expected);
            }
        }
    }
}
