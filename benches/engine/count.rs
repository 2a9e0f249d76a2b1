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
