//! `new-sessions`: what a session costs that was not there before, its end included.
//!
//! As many sessions expire as begin: the simulated clock goes so fast that the first ones time out when the wanted
//! number lives. Sessions are unique SYNs, UDP first packets, or complete lives of six segments.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use fullnat::clock::Now;
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
use crate::rounds::{Plan, Rounds};
use crate::speed::Span;
use crate::statistics::{Sample, Samples};

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

    /// Lets bursts through.
    fn run(&mut self, bursts: &mut [Burst]) -> Span {
        Span::of(|| {
            for (port, burst) in bursts {
                self.now.nanos += self.pace as u64;
                self.engine.process(&mut self.world, self.now, *port, burst);
                self.engine.tick(&mut self.world, self.now);
            }
        })
    }

    /// Cycles per new session over one batch.
    fn sample(&mut self) -> Sample {
        self.keep_live_wanted();
        self.population.forget();
        let mut bursts: Vec<Burst> =
            (0..BURSTS).map(|_| self.population.first_packets(&mut self.world, BURST, |_| true)).collect();
        let mut span = self.run(&mut bursts);
        self.population.note_opened(&mut self.world);
        if self.beginning == Beginning::Life {
            let pace = std::mem::take(&mut self.pace);
            span = self.rest_of_lives(span);
            self.pace = pace;
        }
        span.per(SESSIONS)
    }

    /// Five more segments of every session of the batch, after the first ones.
    fn rest_of_lives(&mut self, mut span: Span) -> Span {
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
        for (port, flags, seq, ack) in steps {
            let mut bursts: Vec<Burst> = Vec::with_capacity(BURSTS);
            for first in (0..SESSIONS).step_by(BURST) {
                let frames = (first..first + BURST).map(|at| {
                    let segment = Segment { seq, ack: ack(self.population.flows()[at].isn), flags };
                    self.population.frame(&mut self.world, at, port, segment)
                });
                bursts.push((port, frames.collect()));
            }
            span = span.and(self.run(&mut bursts));
            assert_eq!(
                self.world.recycle(),
                SESSIONS,
                "every segment goes through: {:?}",
                self.engine.counters()
            );
        }
        span
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
    /// how to measure each
    pub plan: Plan,
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
    // a whole generation first, so that wheel and free list are in their steady state
    let began = bench.engine.counters().sessions_ended;
    while bench.engine.counters().sessions_ended < began + u64::from(live) / 4 {
        bench.sample();
    }
    let mut rounds = Rounds::new(settings.plan);
    while rounds.unfinished() {
        let fresh = bench.sample();
        keys.iter_mut().for_each(|key| *key = random.next_u64());
        let probe = Span::of(|| reference.probe(&keys)).per(SESSIONS);
        rounds.push(fresh, probe);
    }
    let live_now = bench.engine.sessions().len();
    let params = json!({"beginning": beginning.name(), "pool_use": percent, "sessions": live_now});
    let verdict = rounds.judge(Samples::ratio_to);
    let more = json!({
        "per_second": (cycles_per_second() / verdict.value()) as u64,
        "leases_taken_over": bench.engine.counters().leases_taken_over,
    });
    verdict.report("new-sessions", params, "cycles/session", "two-line probe", more);
}
