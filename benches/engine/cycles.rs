//! `cycles`: processor cycles per packet of the path alone, beside the two-line probe.
//!
//! Frames are laid ready in buffers before the clock starts and taken back after it stopped, a thousand at a time.
//! Within: [`Engine::process`] for each burst of 32, requests and answers in turn, and [`Engine::tick`] after each.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use fullnat::clock::Now;
use fullnat::cpu;
use fullnat::id::{PortId, WorkerId};
use fullnat::path::neighbour::Evidence;
use fullnat::path::phase::{Observer, Phase};
use fullnat::path::{BURST, Engine};

use crate::buffer::{Frame, World};
use crate::frame::Kind;
use crate::lab::{self, LAN, LabConfig, WAN};
use crate::population::{Burst, Draw, Population, rand_zipf::Zipf};
use crate::reference::TwoLines;
use crate::rounds::{Plan, Rounds};
use crate::speed::Span;
use crate::statistics::{Sample, Samples, round};

/// Bursts under one reading of the clock.
const BURSTS: usize = 32;
/// Packets under one reading of the clock.
const PACKETS: usize = BURSTS * BURST;
/// Simulated nanoseconds between two bursts: ten million packets per second.
const BURST_NANOS: u64 = 3_200;

/// An engine with live sessions.
pub struct Bench {
    /// what is measured
    pub engine: Engine<Frame>,
    /// its surroundings
    pub world: World,
    /// its sessions
    pub population: Population,
    now: Now,
}

impl Bench {
    /// `sessions` live sessions of one kind.
    pub fn new(lab: &LabConfig, kind: Kind, sessions: u32) -> Self {
        let now = Now { nanos: 1_000_000_000 };
        let mut world = World::new(2 * PACKETS);
        let snapshot = lab::snapshot(lab);
        let mut engine = lab::engine(lab, snapshot, WorkerId(0), &mut world, now);
        let mut population = Population::new(kind, sessions);
        population.open(&mut engine, &mut world, now, sessions);
        Bench { engine, world, population, now }
    }

    /// Lays `BURSTS` bursts ready that arrive on these ports in turn.
    fn prepare(&mut self, draw: &Draw, ports: &[PortId]) -> Vec<Burst> {
        ports
            .iter()
            .cycle()
            .take(BURSTS)
            .map(|&port| self.population.burst(&mut self.world, draw, port))
            .collect()
    }

    /// Cycles per packet over one batch, requests and answers in turn.
    pub fn sample(&mut self, draw: &Draw) -> Sample {
        self.sample_on(draw, &[WAN, LAN])
    }

    /// Cycles per packet over one batch of bursts that arrive on these ports in turn.
    pub fn sample_on(&mut self, draw: &Draw, ports: &[PortId]) -> Sample {
        let mut bursts = self.prepare(draw, ports);
        let span = Span::of(|| {
            for (port, burst) in &mut bursts {
                self.now.nanos += BURST_NANOS;
                self.engine.process(&mut self.world, self.now, *port, burst);
                self.engine.tick(&mut self.world, self.now);
            }
        });
        assert_eq!(self.world.recycle(), PACKETS, "every packet goes through: {:?}", self.engine.counters());
        span.per(PACKETS)
    }

    /// Keeps the neighbours fresh.
    pub fn refresh(&mut self) {
        let answered = Evidence::Answered { overrides: true };
        lab::refresh_neighbours(&mut self.engine, &mut self.world, self.now, answered);
        self.world.recycle();
    }
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// numbers of live sessions
    pub sessions: Vec<u32>,
    /// kinds of frames
    pub kinds: Vec<Kind>,
    /// how to measure each
    pub plan: Plan,
    /// whether to add a Zipf run at the second number of sessions
    pub zipf: bool,
    /// whether to ask for reserved huge pages
    pub huge_pages: bool,
}

/// Runs the case.
pub fn run(settings: &Settings) {
    for &sessions in &settings.sessions {
        let mut reference = TwoLines::new(sessions, settings.huge_pages);
        for &kind in &settings.kinds {
            eprintln!("cycles: {} with {sessions} sessions ...", kind.name());
            let lab = LabConfig { huge_pages: settings.huge_pages, ..LabConfig::with_room_for(sessions) };
            let mut bench = Bench::new(&lab, kind, sessions);
            measure(settings, &mut bench, &mut reference, "uniform", &Draw::Uniform);
            if settings.zipf && sessions == *settings.sessions.get(1).unwrap_or(&0) && !kind.v6 {
                measure(settings, &mut bench, &mut reference, "zipf", &Draw::Zipf(Zipf::new(sessions)));
            }
        }
    }
}

fn measure(settings: &Settings, bench: &mut Bench, reference: &mut TwoLines, name: &str, draw: &Draw) {
    let mut random = StdRng::seed_from_u64(2);
    let mut keys = vec![0u64; PACKETS];
    for _ in 0..16 {
        bench.sample(draw);
    }
    let mut rounds = Rounds::new(settings.plan);
    while rounds.unfinished() {
        bench.refresh();
        let path = bench.sample(draw);
        keys.iter_mut().for_each(|key| *key = random.next_u64());
        let probe = Span::of(|| reference.probe(&keys)).per(PACKETS);
        rounds.push(path, probe);
    }
    let params = json!({
        "kind": bench.population.kind.name(), "sessions": bench.population.len(), "draw": name,
        "pages": bench.engine.sessions().page_kind().to_string(),
    });
    let more = json!({ "phases": phases(bench, draw) });
    rounds.judge(Samples::ratio_to).report("cycles", params, "cycles/packet", "two-line probe", more);
}

/// Cycles per packet of each phase, medians over bursts of their own: reading the clock at every border costs some
/// cycles and keeps phases from overlapping, so their sum exceeds what the whole costs.
fn phases(bench: &mut Bench, draw: &Draw) -> Value {
    let mut samples: [Samples; Phase::ALL.len()] = Default::default();
    for _ in 0..64 {
        let mut watch = StopWatch::default();
        let mut bursts = bench.prepare(draw, &[WAN, LAN]);
        for (port, burst) in &mut bursts {
            bench.now.nanos += BURST_NANOS;
            watch.last = cpu::tsc();
            bench.engine.process_observed(&mut bench.world, bench.now, *port, burst, &mut watch);
            bench.engine.tick(&mut bench.world, bench.now);
        }
        bench.world.recycle();
        for (samples, cycles) in samples.iter_mut().zip(watch.cycles) {
            samples.push(cycles as f64 / PACKETS as f64);
        }
    }
    Phase::ALL.iter().zip(&samples).map(|(phase, samples)| (phase.name(), round(samples.median()))).collect()
}

/// Adds up the cycles of each phase.
#[derive(Default)]
struct StopWatch {
    last: u64,
    cycles: [u64; Phase::ALL.len()],
}

impl Observer for StopWatch {
    #[inline(always)]
    fn ended(&mut self, phase: Phase) {
        let now = cpu::tsc();
        self.cycles[phase as usize] += now.wrapping_sub(self.last);
        self.last = now;
    }
}
