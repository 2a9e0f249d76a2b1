//! The table against a model, at its limits, and how fast it is.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::session::State;
use crate::wire::{Address, Protocol};

const SERVER: RealServerId = RealServerId(7);

fn config(sessions_max: u32) -> TableConfig {
    TableConfig { sessions_max, huge_pages: false, seed: [1, 2, 3, 4] }
}

fn table(sessions_max: u32) -> SessionTable {
    SessionTable::new(config(sessions_max)).unwrap()
}

/// The families of the two sides.
#[derive(Clone, Copy, Debug)]
struct Sides {
    client_v6: bool,
    server_v6: bool,
}

const V4: Sides = Sides { client_v6: false, server_v6: false };
const V6: Sides = Sides { client_v6: true, server_v6: true };

fn address(v6: bool, net: u8, host: u32) -> Address {
    let [a, b, c, d] = host.to_be_bytes();
    if v6 {
        Address::from_v6([0x20, 1, 0xd, 0xb8, net, 0, 0, 0, 0, 0, 0, 0, a, b, c, d])
    } else {
        Address::from_v4([net ^ a, b, c, d])
    }
}

/// The keys of the `n`th session: clients and local ports count up together.
fn keys(n: u32, sides: Sides, protocol: Protocol) -> Keys {
    Keys {
        inbound: Tuple {
            src: address(sides.client_v6, 11, n >> 4),
            dst: address(sides.client_v6, 192, 100),
            sport: 1024 + (n & 15) as u16,
            dport: 80,
            protocol,
        },
        outbound: Tuple {
            src: address(sides.server_v6, 172, 7),
            dst: address(sides.server_v6, 10, n >> 15),
            sport: 8080,
            dport: 1024 + (n & 0x7fff) as u16,
            protocol,
        },
    }
}

fn confirm(
    table: &SessionTable,
    tuple: &Tuple,
    v6: bool,
    candidate: Candidate,
) -> Option<(SessionIndex, Direction)> {
    let direction = candidate.direction();
    Some((table.confirm(tuple, v6, candidate, direction, false)?, direction))
}

/// What the staged look-up of one packet gives.
fn staged(table: &SessionTable, tuple: &Tuple) -> Option<(SessionIndex, Direction)> {
    let v6 = !is_v4(tuple);
    let hash = table.hash(tuple, v6);
    table.prefetch_buckets(hash);
    let candidate = table.probe(hash);
    table.prefetch_entry(candidate);
    confirm(table, tuple, v6, candidate).or_else(|| table.find_hashed(tuple, hash))
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Insert(u32, Sides, Protocol),
    Remove(usize),
    Find(u32, Sides, Protocol),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let sides =
        || (any::<bool>(), any::<bool>()).prop_map(|(client_v6, server_v6)| Sides { client_v6, server_v6 });
    let protocol = || prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
    let step = prop_oneof![
        4 => (0u32..200, sides(), protocol()).prop_map(|(n, s, p)| Step::Insert(n, s, p)),
        2 => any::<usize>().prop_map(Step::Remove),
        2 => (0u32..200, sides(), protocol()).prop_map(|(n, s, p)| Step::Find(n, s, p)),
    ];
    prop::collection::vec(step, 1..400)
}

/// A tuple as something that has an order.
fn ordered(tuple: &Tuple) -> (Address, Address, u16, u16, Protocol) {
    (tuple.src, tuple.dst, tuple.sport, tuple.dport, tuple.protocol)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_table_is_a_map_of_both_keys(steps in steps()) {
        const CAPACITY: u32 = 100;
        let mut table = table(CAPACITY);
        let mut by_key = BTreeMap::new();
        let mut live: Vec<(SessionIndex, Keys)> = Vec::new();
        for step in steps {
            match step {
                Step::Insert(n, sides, protocol) => {
                    let keys = keys(n, sides, protocol);
                    let (inbound, outbound) = (ordered(&keys.inbound), ordered(&keys.outbound));
                    if by_key.contains_key(&inbound) || by_key.contains_key(&outbound) {
                        continue;
                    }
                    match table.insert(&keys, SERVER) {
                        Ok(session) => {
                            by_key.insert(inbound, (session, Direction::Inbound));
                            by_key.insert(outbound, (session, Direction::Outbound));
                            live.push((session, keys));
                        }
                        Err(TableFull) => prop_assert_eq!(live.len(), CAPACITY as usize),
                    }
                }
                Step::Remove(which) if !live.is_empty() => {
                    let (session, keys) = live.swap_remove(which % live.len());
                    table.remove(session);
                    by_key.remove(&ordered(&keys.inbound));
                    by_key.remove(&ordered(&keys.outbound));
                }
                Step::Remove(_) => {}
                Step::Find(n, sides, protocol) => {
                    let keys = keys(n, sides, protocol);
                    for tuple in [keys.inbound, keys.outbound, keys.inbound.reversed()] {
                        let want = by_key.get(&ordered(&tuple)).copied();
                        prop_assert_eq!(table.find(&tuple), want);
                        prop_assert_eq!(staged(&table, &tuple), want);
                    }
                }
            }
            prop_assert_eq!(table.len() as usize, live.len());
        }
        for (session, keys) in &live {
            prop_assert_eq!(table.inbound(*session), keys.inbound);
            prop_assert_eq!(table.outbound(*session), keys.outbound);
            prop_assert_eq!(staged(&table, &keys.inbound), Some((*session, Direction::Inbound)));
            prop_assert_eq!(staged(&table, &keys.outbound), Some((*session, Direction::Outbound)));
        }
        let listed: Vec<_> = (0..table.slots_used()).step_by(7).flat_map(|at| table.iter_from(at, 7)).collect();
        prop_assert!(listed.is_sorted());
        live.sort_by_key(|(session, _)| *session);
        prop_assert_eq!(listed, live.iter().map(|(s, _)| *s).collect::<Vec<_>>());
    }
}

#[test]
fn a_table_takes_every_session_up_to_its_capacity() {
    for (capacity, sides) in [(1, V4), (2, V6), (9, V4), (1000, V6), (200_000, V4)] {
        let mut table = table(capacity);
        let sessions: Vec<_> = (0..capacity)
            .map(|n| table.insert(&keys(n, sides, Protocol::Tcp), SERVER).expect("room"))
            .collect();
        assert_eq!(table.insert(&keys(capacity, sides, Protocol::Tcp), SERVER), Err(TableFull));
        for n in 0..capacity {
            let keys = keys(n, sides, Protocol::Tcp);
            assert_eq!(staged(&table, &keys.inbound), Some((sessions[n as usize], Direction::Inbound)));
            assert_eq!(staged(&table, &keys.outbound), Some((sessions[n as usize], Direction::Outbound)));
        }
        assert_eq!(table.len(), capacity);
    }
}

#[test]
fn a_full_table_lives_through_many_generations() {
    const CAPACITY: u32 = 20_000;
    let mut table = table(CAPACITY);
    let mut oldest = std::collections::VecDeque::new();
    for n in 0..10 * CAPACITY {
        if oldest.len() == CAPACITY as usize {
            table.remove(oldest.pop_front().unwrap());
        }
        oldest.push_back(table.insert(&keys(n, V4, Protocol::Udp), SERVER).expect("room"));
    }
    assert_eq!(table.len(), CAPACITY);
    for n in 0..9 * CAPACITY {
        assert_eq!(table.find(&keys(n, V4, Protocol::Udp).inbound), None);
    }
    oldest.into_iter().for_each(|session| table.remove(session));
    assert!(table.is_empty());
    assert_eq!(table.iter_from(0, u32::MAX).count(), 0);
}

#[test]
fn strangers_find_nothing_in_a_full_table() {
    const CAPACITY: u32 = 50_000;
    let mut table = table(CAPACITY);
    for n in 0..CAPACITY {
        table.insert(&keys(n, V4, Protocol::Tcp), SERVER).unwrap();
    }
    let mut tag_matches = 0;
    for n in 0..CAPACITY {
        let known = keys(n, V4, Protocol::Tcp);
        let strangers = [
            keys(CAPACITY + n, V4, Protocol::Tcp).inbound,
            keys(n, V4, Protocol::Udp).inbound,
            keys(n, V6, Protocol::Tcp).inbound,
            known.inbound.reversed(),
            known.outbound.reversed(),
        ];
        for stranger in strangers {
            tag_matches += u32::from(!table.probe(table.hash_key(&stranger)).is_none());
            assert_eq!(staged(&table, &stranger), None);
            assert_eq!(table.find(&stranger), None);
        }
    }
    // 6.4 tags of 15 bits are compared per look-up: one false match in 5,120
    assert!((1..100).contains(&tag_matches), "{tag_matches} of {} tags matched by chance", 5 * CAPACITY);
}

#[test]
fn an_ipv4_packet_is_not_taken_for_a_session_whose_client_has_the_same_bytes() {
    let mut table = table(10);
    let wide = keys(1, V6, Protocol::Tcp);
    let session = table.insert(&wide, SERVER).unwrap();
    let octets = wide.inbound.src.octets();
    let half = |at: usize| {
        let address = |at: usize| Address::from_v4(*octets[at..].first_chunk().unwrap());
        (address(at), address(at + 4))
    };
    let ((src, dst), answer) = (half(0), half(8));
    let narrow = Tuple { src, dst, ..wide.inbound };
    let answer = Tuple { src: answer.0, dst: answer.1, ..wide.outbound };
    for (tuple, direction) in [(&narrow, Direction::Inbound), (&answer, Direction::Outbound)] {
        let asked = Asked::alive(Protocol::Tcp, direction, false);
        assert!(!table.hot(session).is_key_v4(tuple, direction, asked));
        table.hot_mut(session).flags.clear(Flags::WIDE);
        assert!(table.hot(session).is_key_v4(tuple, direction, asked), "but for the families it would be");
        table.hot_mut(session).flags.set(Flags::WIDE);
    }
}

#[test]
fn addresses_that_a_slot_held_before_are_not_a_sessions() {
    let mut table = table(10);
    let gone = keys(1, V6, Protocol::Tcp);
    let session = table.insert(&gone, SERVER).unwrap();
    table.remove(session);
    assert_eq!(table.insert(&keys(1, V4, Protocol::Tcp), SERVER), Ok(session));
    let (hot, trunk) = (table.hot(session), table.trunk(0));
    assert_eq!(trunk.rip, gone.outbound.src, "what it was on is not touched");
    for (tuple, direction) in [(&gone.inbound, Direction::Inbound), (&gone.outbound, Direction::Outbound)] {
        assert!(!hot.is_key_wide(trunk, tuple, direction, Asked::alive(Protocol::Tcp, direction, true)));
    }
}

#[test]
fn a_new_session_has_its_keys_and_nothing_else() {
    let mut table = table(2);
    for (n, (client_v6, server_v6)) in [(false, true), (true, false)].into_iter().enumerate() {
        let keys = keys(n as u32, Sides { client_v6, server_v6 }, Protocol::Udp);
        let session = table.insert(&keys, SERVER).unwrap();
        table.cold_mut(session).client_isn = 7;
        table.hot_mut(session).packets = 7;
        table.remove(session);
        assert_eq!(table.insert(&keys, SERVER), Ok(session), "the slot freed last is used first");
        let hot = table.hot(session);
        assert_eq!(
            (hot.cport, hot.vport, hot.rport, hot.lport),
            (1024 + n as u16, 80, 8080, 1024 + n as u16)
        );
        assert_eq!((hot.protocol(), hot.state, hot.packets), (Protocol::Udp, State::None, 0));
        assert_eq!(hot.flags.has(Flags::CLIENT_V6), client_v6);
        assert_eq!(hot.flags.has(Flags::SERVER_V6), server_v6);
        assert_eq!(table.cold(session).client_isn, 0);
        assert_eq!((table.inbound(session), table.outbound(session)), (keys.inbound, keys.outbound));
        assert!(table.hot(session).is_live());
    }
}

#[test]
fn a_session_has_a_real_server_and_what_it_shares_goes_with_the_last() {
    let sides = |client_v6, server_v6| Sides { client_v6, server_v6 };
    let mut table = table(2);
    for n in 0..10 {
        for sides in [V4, V6, sides(true, false), sides(false, true)] {
            let real_server = RealServerId(n);
            let [one, other] = [0, 1].map(|m| keys(n << 16 | m, sides, Protocol::Tcp));
            let sessions = [one, other].map(|keys| table.insert(&keys, real_server).expect("room"));
            assert_eq!(sessions.map(|session| table.real_server(session)), [real_server; 2]);
            table.remove(sessions[0]);
            assert_eq!(
                (table.inbound(sessions[1]), table.outbound(sessions[1])),
                (other.inbound, other.outbound)
            );
            assert_eq!(table.behind(sessions[1], Direction::Inbound), other.outbound.reversed());
            assert_eq!(table.behind(sessions[1], Direction::Outbound), other.inbound.reversed());
            table.remove(sessions[1]);
        }
    }
}

#[test]
fn a_candidate_that_has_gone_stale_gives_no_wrong_session() {
    let mut table = table(4);
    let (first, second) = (keys(1, V4, Protocol::Tcp), keys(2, V4, Protocol::Tcp));
    let session = table.insert(&first, SERVER).unwrap();
    let hash = table.hash_key(&first.inbound);
    let candidate = table.probe(hash);
    assert_eq!(confirm(&table, &first.inbound, false, candidate), None, "not established");
    table.hot_mut(session).state = State::Established;
    assert_eq!(confirm(&table, &first.inbound, false, candidate), Some((session, Direction::Inbound)));
    table.remove(session);
    assert_eq!(confirm(&table, &first.inbound, false, candidate), None, "ended between probe and confirm");
    assert_eq!(table.insert(&second, SERVER), Ok(session));
    table.hot_mut(session).state = State::Established;
    assert_eq!(confirm(&table, &first.inbound, false, candidate), None, "its slot is another's");
    assert_eq!(confirm(&table, &first.inbound, false, Candidate::NONE), None);
    let again = table.insert(&first, SERVER).unwrap();
    assert_eq!(table.find_hashed(&first.inbound, hash), Some((again, Direction::Inbound)));
}

#[test]
fn a_session_whose_real_server_has_something_to_learn_is_not_confirmed_as_told() {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let mut table = table(4);
        let inbound = keys(1, V4, protocol).inbound;
        let session = table.insert(&keys(1, V4, protocol), SERVER).unwrap();
        let candidate = table.probe(table.hash_key(&inbound));
        table.hot_mut(session).state = State::Established;
        let confirm =
            |table: &SessionTable, told| table.confirm(&inbound, false, candidate, Direction::Inbound, told);
        assert_eq!([true, false].map(|told| confirm(&table, told)), [Some(session); 2]);
        table.hot_mut(session).flags.set(Flags::TOA);
        assert_eq!([true, false].map(|told| confirm(&table, told)), [None, Some(session)]);
        table.hot_mut(session).flags.set(Flags::PROXY_HEADER);
        assert_eq!([true, false].map(|told| confirm(&table, told)), [None; 2]);
    }
}

/// RIP is a client of the VIP and is scheduled to itself.
#[test]
fn conformance_h13_a_hairpin_session_has_two_keys_like_any_other() {
    let mut table = table(4);
    let host = address(false, 172, 7);
    let inbound = Tuple { src: host, ..keys(1, V4, Protocol::Tcp).inbound };
    let outbound = Tuple { src: host, ..keys(1, V4, Protocol::Tcp).outbound };
    let session = table.insert(&Keys { inbound, outbound }, SERVER).unwrap();
    assert_eq!(table.find(&inbound), Some((session, Direction::Inbound)));
    assert_eq!(table.find(&outbound), Some((session, Direction::Outbound)));
}

#[test]
fn a_page_is_bounded_and_pages_join() {
    let mut table = table(100);
    let sessions: Vec<_> =
        (0..60).map(|n| table.insert(&keys(n, V4, Protocol::Tcp), SERVER).unwrap()).collect();
    (0..60).step_by(3).for_each(|n| table.remove(sessions[n]));
    assert_eq!(table.slots_used(), 60);
    assert_eq!(table.iter_from(0, 10).map(|s| s.0).collect::<Vec<_>>(), [1, 2, 4, 5, 7, 8]);
    assert_eq!(table.iter_from(55, 10).map(|s| s.0).collect::<Vec<_>>(), [55, 56, 58, 59]);
    assert_eq!(table.iter_from(u32::MAX, 10).count(), 0);
}

#[test]
fn a_size_out_of_range_is_an_error_that_says_what_to_do() {
    for sessions_max in [0, u32::MAX, EntryRef::SESSIONS_MAX] {
        let error = SessionTable::new(config(sessions_max)).unwrap_err();
        assert_eq!(error, TableError::SessionsMax(sessions_max));
        assert!(error.to_string().contains("give it 1 to 2147483646"), "{error}");
    }
}

#[test]
fn a_session_costs_no_more_than_promised() {
    let memory = table(1_000_000).memory_bytes();
    assert_eq!(memory.full(), 148_000_000);
    assert_eq!(TableMemory::of_trunks(1024), 1024 * (64 + 4));
}
