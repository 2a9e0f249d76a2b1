//! Instruction counts: of the parts, and of whole bursts through the path.
//!
//! Counted by callgrind, which collects only below [`measured`]. Everything that is drawn at random comes from fixed
//! seeds, so that the counts are the same on every machine; what cannot be (the seeds of the snapshot's small hash maps)
//! moves the count of a new session by less than a percent.

use fullnat::clock::Now;
use fullnat::id::{PortId, WorkerId};
use fullnat::path::BURST;

use crate::buffer::World;
use crate::frame::Kind;
use crate::lab::{self, LAN, LabConfig, WAN};
use crate::parts::{self, Part};
use crate::population::{Draw, Population};

const SESSIONS: u32 = 1024;

/// Everything that can be counted.
pub fn names() -> Vec<String> {
    all().into_iter().map(|(name, _)| name).collect()
}

/// Makes a part ready to run.
type Make = Box<dyn Fn() -> Part>;

fn all() -> Vec<(String, Make)> {
    let mut list: Vec<(String, Make)> = Vec::new();
    for (at, part) in parts::all().into_iter().enumerate() {
        list.push((part.name, Box::new(move || parts::all().swap_remove(at))));
    }
    for kind in Kind::ALL {
        for (port, name) in [(WAN, "request"), (LAN, "answer")] {
            list.push((format!("{name}, {}", kind.name()), Box::new(move || burst(kind, port, false))));
        }
        list.push((format!("new session, {}", kind.name()), Box::new(move || opening(kind))));
    }
    for kind in Kind::ALL {
        list.push((format!("session's end, {}", kind.name()), Box::new(move || ending(kind))));
    }
    for kind in Kind::ALL.into_iter().filter(|kind| kind.tcp) {
        list.push((format!("request with TOA, {}", kind.name()), Box::new(move || burst(kind, WAN, true))));
    }
    list
}

/// Runs a part once to warm up and once to be counted; how often the thing is done in one run.
pub fn run(name: &str) -> Option<u32> {
    let (_, make) = all().into_iter().find(|(known, _)| known == name)?;
    let mut part = make();
    (part.run)();
    measured(&mut part.run);
    Some(part.times)
}

/// Where callgrind collects.
#[inline(never)]
fn measured(run: &mut dyn FnMut()) {
    run();
    std::hint::black_box(());
}

/// A burst of established traffic.
fn burst(kind: Kind, port: PortId, toa: bool) -> Part {
    let now = Now { nanos: 1_000_000_000 };
    let lab = LabConfig { toa, huge_pages: false, ..LabConfig::with_room_for(SESSIONS) };
    let mut world = World::new(8 * BURST);
    let mut engine = lab::engine(&lab, lab::snapshot(&lab), WorkerId(0), &mut world, now);
    let mut population = Population::new(kind, SESSIONS);
    population.open(&mut engine, &mut world, now, SESSIONS);
    let mut bursts = [(); 2].map(|()| population.burst(&mut world, &Draw::Uniform, port)).into_iter();
    let run = move || {
        let (port, mut burst) = bursts.next().expect("one to warm up and one to be counted");
        engine.process(&mut world, now, port, &mut burst);
    };
    Part { name: String::new(), times: BURST as u32, run: Box::new(run) }
}

/// Sessions that nobody answers time out, a burst of them at once.
fn ending(kind: Kind) -> Part {
    const TIMEOUT_SECS: u32 = 60;
    /// Between the beginnings of two bursts, longer than a slot of the timer wheel.
    const SECOND: u64 = 1_000_000_000;
    let mut now = Now { nanos: SECOND };
    let room = LabConfig::with_room_for(2 * SESSIONS);
    let lab = LabConfig { huge_pages: false, timeout_secs: TIMEOUT_SECS, ..room };
    let mut world = World::new(8 * BURST);
    let mut engine = lab::engine(&lab, lab::snapshot(&lab), WorkerId(0), &mut world, now);
    let mut population = Population::new(kind, SESSIONS);
    for _ in 0..2 {
        let (port, mut burst) = population.first_packets(&mut world, BURST, |_| true);
        engine.process(&mut world, now, port, &mut burst);
        now.nanos += SECOND;
    }
    // Everything up to the time at which the first could be due has passed.
    now.nanos += u64::from(TIMEOUT_SECS - 2) * SECOND;
    (0..8).for_each(|_| engine.tick(&mut world, now));
    let run = move || {
        let before = engine.counters().sessions_ended;
        now.nanos += SECOND;
        engine.tick(&mut world, now);
        assert_eq!(engine.counters().sessions_ended - before, BURST as u64, "a burst has ended");
    };
    Part { name: String::new(), times: BURST as u32, run: Box::new(run) }
}

/// A burst of first packets.
fn opening(kind: Kind) -> Part {
    let now = Now { nanos: 1_000_000_000 };
    let lab = LabConfig { huge_pages: false, ..LabConfig::with_room_for(2 * SESSIONS) };
    let mut world = World::new(8 * BURST);
    let mut engine = lab::engine(&lab, lab::snapshot(&lab), WorkerId(0), &mut world, now);
    let mut population = Population::new(kind, SESSIONS);
    population.open(&mut engine, &mut world, now, SESSIONS);
    let mut bursts = [(); 2].map(|()| population.first_packets(&mut world, BURST, |_| true)).into_iter();
    let run = move || {
        let (port, mut burst) = bursts.next().expect("one to warm up and one to be counted");
        engine.process(&mut world, now, port, &mut burst);
    };
    Part { name: String::new(), times: BURST as u32, run: Box::new(run) }
}
