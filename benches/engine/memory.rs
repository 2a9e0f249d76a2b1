//! `memory`: bytes per live session, everything counted: what the process has more than before.

use serde_json::json;

use fullnat::clock::Now;
use fullnat::id::WorkerId;

use crate::buffer::World;
use crate::frame::Kind;
use crate::lab::{self, LabConfig};
use crate::population::{Flow, Population};
use crate::statistics::report;

const SIXTEEN_GIB: f64 = (16u64 << 30) as f64;

/// Runs the case.
pub fn run(sessions: &[u32], kinds: &[Kind]) {
    for &sessions in sessions {
        for &kind in kinds {
            eprintln!("memory: {sessions} sessions of {} ...", kind.name());
            let bytes = measure(sessions, kind);
            let params = json!({"kind": kind.name(), "sessions": sessions});
            let runs = json!({"sessions_in_16_gib": (SIXTEEN_GIB / bytes) as u64});
            report("memory", params, bytes, "bytes/session", json!({"runs": runs}));
        }
    }
}

fn measure(sessions: u32, kind: Kind) -> f64 {
    let now = Now { nanos: 1_000_000_000 };
    // Reserved pages are not counted as the process's own.
    let lab = LabConfig { huge_pages: false, ..LabConfig::with_room_for(sessions) };
    let mut world = World::new(4096);
    let mut population = Population::new(kind, sessions);
    let before = resident_bytes();
    let mut engine = lab::engine(&lab, lab::snapshot(&lab), WorkerId(0), &mut world, now);
    population.open(&mut engine, &mut world, now, sessions);
    assert_eq!(engine.sessions().len(), sessions);
    let own = u64::from(sessions) * size_of::<Flow>() as u64;
    (resident_bytes() - before - own) as f64 / f64::from(sessions)
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux says how much memory we have");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS is always there");
    line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).expect("a number of KiB")
        << 10
}
