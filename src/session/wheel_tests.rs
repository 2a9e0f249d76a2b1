//! The wheel against a model, its accuracy for every time-out of IPVS, its budget.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::id::RealServerId;
use crate::session::{Keys, State, TableConfig, Timeouts};
use crate::wire::{Address, Protocol, Tuple};

const SECOND: u32 = Tick::PER_SECOND;
/// The latest that a session may be shown after its time: its slot, and the one that it could not go into.
const LATE_MAX: u32 = 2 * SLOT_TICKS;
/// The furthest that a timer can be set ahead.
const HORIZON: u32 = (SLOTS - 1) * SLOT_TICKS;

fn table(sessions: u32) -> SessionTable {
    let config = TableConfig { sessions_max: sessions, huge_pages: false, seed: [5, 6, 7, 8] };
    let mut table = SessionTable::new(config).unwrap();
    for n in 0..sessions {
        insert(&mut table, n);
    }
    table
}

fn insert(table: &mut SessionTable, n: u32) -> SessionIndex {
    let [_, b, c, d] = n.to_be_bytes();
    let tuple = |net| Tuple {
        src: Address::from_v4([net, b, c, d]),
        dst: Address::from_v4([net, 255, 255, 255]),
        sport: 1,
        dport: 2,
        protocol: Protocol::Tcp,
    };
    table.insert(&Keys { inbound: tuple(10), outbound: tuple(11) }, RealServerId(0)).unwrap()
}

/// The sessions shown by one call without a limit; all of them stay without a timer.
fn due(wheel: &mut TimerWheel, table: &mut SessionTable, now: Tick) -> Vec<u32> {
    let mut shown = Vec::new();
    let count = wheel.advance(table, now, usize::MAX, |_, session| {
        shown.push(session.0);
        Expiry::Expired
    });
    assert_eq!(count, shown.len());
    shown.sort_unstable();
    shown
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Schedule(u32, u32),
    Sooner(u32, u32),
    Cancel(u32),
    Advance(u32),
}

const SESSIONS: u32 = 12;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ticks = || prop_oneof![0..64u32, 0..20_000u32, 0..2 * SLOTS * SLOT_TICKS];
    let step = prop_oneof![
        3 => (0..SESSIONS, ticks()).prop_map(|(s, t)| Step::Schedule(s, t)),
        2 => (0..SESSIONS, ticks()).prop_map(|(s, t)| Step::Sooner(s, t)),
        1 => (0..SESSIONS).prop_map(Step::Cancel),
        4 => ticks().prop_map(Step::Advance),
    ];
    prop::collection::vec(step, 1..200)
}

proptest! {
    #[test]
    fn the_wheel_is_a_map_of_times(
        steps in steps(),
        start in prop_oneof![Just(0), Just(u32::MAX - 5_000), any::<u32>()],
    ) {
        let mut now = Tick(start);
        let mut table = table(SESSIONS);
        let mut wheel = TimerWheel::new(now);
        // session -> the earliest time it may be shown, the latest that it must be; ticks since start
        let mut model: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        let mut elapsed = 0u64;
        // a timer beyond the horizon may come one turn ahead of the wheel's cursor
        let window = |elapsed: u64, ticks: u32| {
            let from = u64::from(ticks.min(HORIZON - SLOT_TICKS));
            (elapsed + from, elapsed + u64::from(ticks.min(HORIZON) + LATE_MAX))
        };
        for step in steps {
            match step {
                Step::Schedule(session, ticks) => {
                    wheel.schedule(&mut table, SessionIndex(session), now.plus(ticks));
                    model.insert(session, window(elapsed, ticks));
                }
                Step::Sooner(session, ticks) => {
                    wheel.reschedule_if_sooner(&mut table, SessionIndex(session), now.plus(ticks));
                    let asked = window(elapsed, ticks);
                    let entry = model.entry(session).or_insert(asked);
                    *entry = (entry.0.min(asked.0), entry.1.min(asked.1));
                }
                Step::Cancel(session) => {
                    wheel.cancel(&mut table, SessionIndex(session));
                    model.remove(&session);
                }
                Step::Advance(ticks) => {
                    now = now.plus(ticks);
                    elapsed += u64::from(ticks);
                    for session in due(&mut wheel, &mut table, now) {
                        let (earliest, _) = model.remove(&session).expect("it has a timer");
                        prop_assert!(earliest <= elapsed, "{session} shown {} ticks early", earliest - elapsed);
                    }
                    for (session, (_, latest)) in &model {
                        prop_assert!(*latest > elapsed, "{session} is {} ticks late", elapsed - latest);
                    }
                }
            }
            prop_assert_eq!(wheel.len() as usize, model.len());
        }
    }
}

/// Packets at odd times, then silence: the session ends no earlier than its time-out and less than a second
/// after.
#[test]
fn conformance_i2_every_time_out_is_kept_to_within_a_second() {
    for timeouts in [Timeouts::IPVS, Timeouts::rfc5382()] {
        for state in State::ALL {
            for start in [0, 1234, u32::MAX - 30 * SECOND] {
                let timeout = timeouts.ticks(Protocol::Tcp, state);
                let lived = lifetime(start, timeout, timeout / 3 + 7);
                assert!(
                    (timeout..timeout + SECOND).contains(&lived),
                    "{}: {lived} of {timeout}",
                    state.name()
                );
            }
        }
    }
}

/// Ticks between the last packet, `quiet_after` ticks from the start, and the end of a session.
fn lifetime(start: u32, timeout: u32, quiet_after: u32) -> u32 {
    let begin = Tick(start);
    let mut table = table(1);
    let mut wheel = TimerWheel::new(begin);
    let session = SessionIndex(0);
    table.hot_mut(session).stamp = begin;
    wheel.schedule(&mut table, session, begin.plus(timeout));
    for elapsed in 1.. {
        let now = begin.plus(elapsed);
        if elapsed == quiet_after {
            table.hot_mut(session).stamp = now;
        }
        let mut ended = false;
        wheel.advance(&mut table, now, 8, |table, session| {
            let ends = table.hot(session).stamp.plus(timeout);
            ended = now.reached(ends);
            if ended { Expiry::Expired } else { Expiry::Keep(ends) }
        });
        if ended {
            return now.since(table.hot(session).stamp);
        }
    }
    unreachable!()
}

#[test]
fn a_shorter_time_out_is_noticed_in_time() {
    let mut table = table(1);
    let mut wheel = TimerWheel::new(Tick(0));
    let session = SessionIndex(0);
    wheel.schedule(&mut table, session, Tick(900 * SECOND));
    assert!(due(&mut wheel, &mut table, Tick(50 * SECOND)).is_empty());
    wheel.reschedule_if_sooner(&mut table, session, Tick(60 * SECOND));
    wheel.reschedule_if_sooner(&mut table, session, Tick(300 * SECOND));
    assert!(due(&mut wheel, &mut table, Tick(60 * SECOND - 1)).is_empty());
    assert_eq!(due(&mut wheel, &mut table, Tick(61 * SECOND)), [0]);
    assert!(wheel.is_empty());
}

#[test]
fn one_call_does_no_more_than_its_budget_and_the_next_goes_on() {
    const COUNT: u32 = 1000;
    let mut table = table(COUNT);
    let mut wheel = TimerWheel::new(Tick(0));
    (0..COUNT).for_each(|n| wheel.schedule(&mut table, SessionIndex(n), Tick(SECOND)));
    let (mut calls, mut seen) = (0, Vec::new());
    let now = Tick(10 * SECOND);
    while wheel.lag(now) >= SLOT_TICKS {
        let before = seen.len();
        let shown = wheel.advance(&mut table, now, 32, |table, session| {
            seen.push(session.0);
            table.remove(session);
            Expiry::Expired
        });
        assert_eq!(shown, seen.len() - before);
        assert!(shown <= 32);
        calls += 1;
    }
    // a thousand sessions and the sixty-two slots of ten seconds
    assert_eq!(calls, (1000 + 62usize).div_ceil(32));
    seen.sort_unstable();
    assert!(seen.iter().copied().eq(0..COUNT));
    assert!(table.is_empty() && wheel.is_empty());
}

#[test]
fn a_callback_that_never_ends_a_session_does_not_hold_up_the_wheel() {
    let mut table = table(3);
    let mut wheel = TimerWheel::new(Tick(0));
    (0..3).for_each(|n| wheel.schedule(&mut table, SessionIndex(n), Tick(20)));
    let now = Tick(40 * SLOT_TICKS);
    let mut shown = 0;
    for _ in 0..100 {
        // a time that has passed already
        shown += wheel.advance(&mut table, now, 8, |_, _| Expiry::Keep(Tick(0)));
    }
    assert_eq!(wheel.lag(now), 0);
    assert_eq!((shown, wheel.len()), (3 * 39, 3), "once in every slot");
}

#[test]
fn a_stall_of_any_length_is_caught_up_with_in_one_turn() {
    let mut table = table(100);
    let mut wheel = TimerWheel::new(Tick(0));
    (0..100).for_each(|n| wheel.schedule(&mut table, SessionIndex(n), Tick(n * 1000)));
    let now = Tick(100_000_000);
    let mut empty_slots = 0;
    let mut shown = 0;
    while wheel.lag(now) >= SLOT_TICKS {
        shown += wheel.advance(&mut table, now, 1, |_, _| Expiry::Expired);
        empty_slots += 1;
    }
    assert_eq!(shown, 100);
    assert!(empty_slots <= SLOTS + 100 + 1, "{empty_slots} calls");
}

#[test]
fn the_slot_of_an_ended_session_takes_a_new_one_with_a_timer_of_its_own() {
    let mut table = table(2);
    let mut wheel = TimerWheel::new(Tick(0));
    (0..2).for_each(|n| wheel.schedule(&mut table, SessionIndex(n), Tick(SECOND)));
    wheel.cancel(&mut table, SessionIndex(0));
    wheel.cancel(&mut table, SessionIndex(0));
    table.remove(SessionIndex(0));
    assert_eq!(insert(&mut table, 7), SessionIndex(0));
    assert_eq!(wheel.len(), 1);
    wheel.schedule(&mut table, SessionIndex(0), Tick(5 * SECOND));
    assert_eq!(due(&mut wheel, &mut table, Tick(2 * SECOND)), [1]);
    assert_eq!(due(&mut wheel, &mut table, Tick(6 * SECOND)), [0]);
}
