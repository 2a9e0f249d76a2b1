//! `new-sessions`: what a session costs that was not there before, its end included.
//!
//! As many sessions expire as begin: the simulated clock goes so fast that the first ones time out when the wanted
//! number lives. Sessions are unique SYNs, UDP first packets, or complete lives of six segments.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use fullnat::clock::Now;
use fullnat::cpu;
use fullnat::id::{PortId, WorkerId};
use fullnat::path::neighbour::Evidence;
use fullnat::path::{BURST, Engine};
use fullnat::wire::tcp;

use crate::buffer::{Frame, World};
use crate::clock::cycles_per_second;
use crate::frame::{CLIENT_ISN, Kind, SERVER_ISN, Segment};
use crate::lab::{self, LAN, LabConfig, WAN};
use crate::population::{Burst, Population};
use crate::reference::TwoLines;
use crate::statistics::{Samples, report};

/// Bursts under one reading of the clock.
const BURSTS: usize = 32;
const SESSIONS: usize = BURSTS * BURST;
/// Simulated seconds that a session lives without packets.
const TIMEOUT_SECS: u32 = 60;
/// About as many live sessions as this.
const LIVE: u64 = 1_000_000;

/// What begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Beginning {
    /// a UDP datagram
    Udp,
    /// a SYN that nobody answers
    Syn,
    /// SYN, SYN-ACK, ACK, FIN, FIN, ACK
    Life,
}

impl Beginning {
    const fn name(self) -> &'static str {
        match self {
            Beginning::Udp => "udp",
            Beginning::Syn => "syn",
            Beginning::Life => "life",
        }
    }
}

struct Bench {
    engine: Engine<Frame>,
    world: World,
    population: Population,
    beginning: Beginning,
    now: Now,
    /// simulated nanoseconds between two bursts of new sessions
    pace: f64,
    live_wanted: u32,
}

impl Bench {
    fn new(beginning: Beginning, lab: &LabConfig, live: u32) -> Self {
        let now = Now { nanos: 1_000_000_000 };
        let mut world = World::new(2 * SESSIONS);
        let engine = lab::engine(lab, lab::snapshot(lab), WorkerId(0), &mut world, now);
        let kind = Kind { tcp: beginning != Beginning::Udp, v6: false };
        let pace = f64::from(TIMEOUT_SECS) * 1e9 / f64::from(live) * BURST as f64;
        let population = Population::new(kind, SESSIONS as u32);
        let mut bench = Bench { engine, world, population, beginning, now, pace, live_wanted: live };
        while bench.engine.sessions().len() < live {
            bench.sample();
        }
        bench
    }

    /// Lets bursts through; the cycles that took.
    fn run(&mut self, bursts: &mut [Burst]) -> u64 {
        let began = cpu::tsc();
        for (port, burst) in bursts {
            self.now.nanos += self.pace as u64;
            self.engine.process(&mut self.world, self.now, *port, burst);
            self.engine.tick(&mut self.world, self.now);
        }
        cpu::tsc().wrapping_sub(began)
    }

    /// Cycles per new session over one batch.
    fn sample(&mut self) -> f64 {
        self.keep_live_wanted();
        self.population.forget();
        let mut bursts: Vec<Burst> =
            (0..BURSTS).map(|_| self.population.first_packets(&mut self.world, BURST, |_| true)).collect();
        let mut cycles = self.run(&mut bursts);
        self.population.note_opened(&mut self.world);
        if self.beginning == Beginning::Life {
            let pace = std::mem::take(&mut self.pace);
            cycles += self.rest_of_lives();
            self.pace = pace;
        }
        cycles as f64 / SESSIONS as f64
    }

    /// Five more segments of every session of the batch.
    fn rest_of_lives(&mut self) -> u64 {
        let (client, server) = (CLIENT_ISN.wrapping_add(1), SERVER_ISN + 1);
        // (port, flags, sequence number, acknowledged by: 0 the client, 1 and 2 the real server, in its own numbers)
        type Step = (PortId, u8, u32, fn(u32) -> u32);
        let steps: [Step; 5] = [
            (LAN, tcp::SYN | tcp::ACK, SERVER_ISN, |isn| isn.wrapping_add(1)),
            (WAN, tcp::ACK, client, |_| SERVER_ISN + 1),
            (WAN, tcp::FIN | tcp::ACK, client, |_| SERVER_ISN + 1),
            (LAN, tcp::FIN | tcp::ACK, server, |isn| isn.wrapping_add(2)),
            (WAN, tcp::ACK, client + 1, |_| SERVER_ISN + 2),
        ];
        let mut cycles = 0;
        for (port, flags, seq, ack) in steps {
            let mut bursts: Vec<Burst> = Vec::with_capacity(BURSTS);
            for first in (0..SESSIONS).step_by(BURST) {
                let frames = (first..first + BURST).map(|at| {
                    let segment = Segment { seq, ack: ack(self.population.flows()[at].isn), flags };
                    self.population.frame(&mut self.world, at, port, segment)
                });
                bursts.push((port, frames.collect()));
            }
            cycles += self.run(&mut bursts);
            assert_eq!(
                self.world.recycle(),
                SESSIONS,
                "every segment goes through: {:?}",
                self.engine.counters()
            );
        }
        cycles
    }

    /// Neighbours stay fresh, and the clock goes a little faster or slower.
    fn keep_live_wanted(&mut self) {
        let answered = Evidence::Answered { overrides: true };
        lab::refresh_neighbours(&mut self.engine, &mut self.world, self.now, answered);
        self.world.recycle();
        let live = self.engine.sessions().len();
        if live >= self.live_wanted {
            while self.engine.sessions().len() > self.live_wanted - SESSIONS as u32 {
                self.now.nanos += 1_000_000;
                self.engine.tick(&mut self.world, self.now);
            }
            self.pace *= 1.001;
        } else if live + 4 * (SESSIONS as u32) < self.live_wanted && self.engine.counters().sessions_ended > 0
        {
            self.pace *= 0.999;
        }
    }
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// what begins
    pub beginnings: Vec<Beginning>,
    /// percentages of the local pool in use
    pub pool_use: Vec<u32>,
    /// how long to measure each
    pub duration: Duration,
    /// whether to ask for reserved huge pages
    pub huge_pages: bool,
}

/// Runs the case.
pub fn run(settings: &Settings) {
    for &beginning in &settings.beginnings {
        for &percent in &settings.pool_use {
            measure(settings, beginning, percent);
        }
    }
}

fn measure(settings: &Settings, beginning: Beginning, percent: u32) {
    eprintln!("new-sessions: {} at {percent} % of the local pool ...", beginning.name());
    let one_lip = LabConfig::with_room_for(1).leases();
    let lips = (LIVE * 100 / u64::from(percent)).div_ceil(one_lip).max(1);
    let lips = if percent >= 90 { 1 } else { lips as u32 };
    let live = (u64::from(lips) * one_lip * u64::from(percent) / 100) as u32;
    let lab = LabConfig {
        sessions_max: live + live / 64,
        lips,
        toa: false,
        timeout_secs: TIMEOUT_SECS,
        workers: 1,
        huge_pages: settings.huge_pages,
    };
    let mut bench = Bench::new(beginning, &lab, live);
    let mut reference = TwoLines::new(lab.sessions_max, settings.huge_pages);
    let mut random = StdRng::seed_from_u64(3);
    let mut keys = vec![0u64; SESSIONS];
    let (mut fresh, mut probe) = (Samples::default(), Samples::default());
    let until = Instant::now() + settings.duration;
    // a whole generation first, so that wheel and free list are in their steady state
    let began = bench.engine.counters().sessions_ended;
    while bench.engine.counters().sessions_ended < began + u64::from(live) / 4 {
        bench.sample();
    }
    while Instant::now() < until || fresh.0.len() < 64 {
        fresh.push(bench.sample());
        keys.iter_mut().for_each(|key| *key = random.next_u64());
        let began = cpu::tsc();
        reference.probe(&keys);
        probe.push(cpu::tsc().wrapping_sub(began) as f64 / SESSIONS as f64);
    }
    let live_now = bench.engine.sessions().len();
    let params = json!({"beginning": beginning.name(), "pool_use": percent, "sessions": live_now});
    let mut runs = fresh.summary();
    runs["per_second"] = json!((cycles_per_second() / fresh.median()) as u64);
    runs["reference"] = probe.summary();
    runs["leases_taken_over"] = json!(bench.engine.counters().leases_taken_over);
    let ratio = fresh.ratio_to(&probe);
    let reference = Some(("two-line probe", probe.median(), ratio));
    report("new-sessions", params, fresh.median(), "cycles/session", reference, runs);
}
