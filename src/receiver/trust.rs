//! Who may name a client: the gateway's local addresses.

use std::borrow::BorrowMut;
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use aya::maps::lpm_trie::Key;
use aya::maps::{LpmTrie, MapData};
use ipnet::{IpNet, Ipv6Net};

use super::ReceiverError;

/// As many as the program's map holds.
const PREFIXES_MAX: usize = 1024;

/// The senders whose option is taken. Empty: everybody's.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Trust {
    prefixes: BTreeSet<(u8, Ipv6Addr)>,
}

impl Trust {
    /// Prefixes, or addresses.
    pub fn of(prefixes: &[Prefix]) -> Result<Trust, ReceiverError> {
        let prefixes: BTreeSet<_> = prefixes.iter().map(|prefix| prefix.0).collect();
        if prefixes.len() > PREFIXES_MAX {
            return Err(ReceiverError::TooManyPrefixes(prefixes.len()));
        }
        Ok(Trust { prefixes })
    }

    /// Whether everybody may name a client.
    pub fn is_everybody(&self) -> bool {
        self.prefixes.is_empty() || self.prefixes.contains(&(0, Ipv6Addr::UNSPECIFIED))
    }

    /// As people write them.
    pub fn names(&self) -> Vec<String> {
        self.prefixes.iter().map(|prefix| Prefix(*prefix).to_string()).collect()
    }

    /// What the programs go by.
    pub(super) fn read<M: BorrowMut<MapData>>(
        map: &LpmTrie<M, [u8; 16], u8>,
    ) -> Result<Trust, ReceiverError> {
        let keys: Result<BTreeSet<_>, _> = map
            .keys()
            .map(|key| key.map(|key| (key.prefix_len() as u8, Ipv6Addr::from(key.data()))))
            .collect();
        Ok(Trust { prefixes: keys.map_err(ReceiverError::at("cannot read whom the receiver trusts"))? })
    }

    /// Makes the programs go by this: what is new first, then away with what is not of it any more.
    pub(super) fn write<M: BorrowMut<MapData>>(
        &self,
        map: &mut LpmTrie<M, [u8; 16], u8>,
    ) -> Result<(), ReceiverError> {
        let everybody = BTreeSet::from([(0, Ipv6Addr::UNSPECIFIED)]);
        let wanted = if self.is_everybody() { &everybody } else { &self.prefixes };
        let key = |(len, address): &(u8, Ipv6Addr)| Key::new(u32::from(*len), address.octets());
        let failed = || ReceiverError::at("cannot write whom the receiver trusts");
        let old = Trust::read(map)?;
        for prefix in wanted.difference(&old.prefixes) {
            map.insert(&key(prefix), 1, 0).map_err(failed())?;
        }
        for prefix in old.prefixes.difference(wanted) {
            map.remove(&key(prefix)).map_err(failed())?;
        }
        Ok(())
    }
}

/// One prefix: IPv4 in its mapped form, bits behind its length zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefix((u8, Ipv6Addr));

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Prefix, String> {
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        match net {
            Ok(IpNet::V4(net)) => Ok(Prefix((96 + net.prefix_len(), net.network().to_ipv6_mapped()))),
            Ok(IpNet::V6(net)) => Ok(Prefix((net.prefix_len(), net.network()))),
            Err(_) => Err("neither a prefix such as 10.2.0.96/28 nor an address".into()),
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Prefix((len, address)) = *self;
        match address.to_ipv4_mapped() {
            Some(v4) if len >= 96 => write!(f, "{v4}/{}", len - 96),
            _ => write!(f, "{}", Ipv6Net::new_assert(address, len)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_written_as_they_are_read() {
        for (text, shown) in [
            ("10.2.0.100/28", "10.2.0.96/28"),
            ("10.2.0.100", "10.2.0.100/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8:2::100", "2001:db8:2::100/128"),
            ("2001:db8:2::100/64", "2001:db8:2::/64"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), shown);
        }
        for text in ["", "10.2.0.0/33", "web", "10.2.0.100-10.2.0.103"] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
    }

    #[test]
    fn nobody_named_is_everybody_trusted() {
        let trust = |texts: &[&str]| {
            Trust::of(&texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<_>>()).unwrap()
        };
        assert!(trust(&[]).is_everybody() && trust(&["::/0"]).is_everybody());
        // Everybody of IPv4 is not everybody.
        assert!(!trust(&["0.0.0.0/0"]).is_everybody());
        assert_eq!(trust(&["10.2.0.100", "10.2.0.100/32"]).names(), ["10.2.0.100/32"]);
    }

    #[test]
    fn more_prefixes_than_the_map_holds_are_refused() {
        let many: Vec<Prefix> =
            (0..1025u16).map(|n| Prefix((128, Ipv6Addr::new(0x2001, n, 0, 0, 0, 0, 0, 0)))).collect();
        assert!(matches!(Trust::of(&many), Err(ReceiverError::TooManyPrefixes(1025))));
    }
}
