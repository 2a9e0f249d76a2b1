//! `toa`: requests with the client's address inserted into every one, against none.

use serde_json::json;

use crate::cycles::Bench;
use crate::frame::Kind;
use crate::lab::{LabConfig, WAN};
use crate::population::Draw;
use crate::rounds::{Plan, Rounds, rates};

/// Runs the case.
pub fn run(sessions: &[u32], plan: Plan, huge_pages: bool) {
    for &sessions in sessions {
        for kind in Kind::ALL.into_iter().filter(|kind| kind.tcp) {
            eprintln!("toa: {} with {sessions} sessions ...", kind.name());
            let lab = LabConfig { huge_pages, ..LabConfig::with_room_for(sessions) };
            let mut none = Bench::new(&lab, kind, sessions);
            let mut every = Bench::new(&LabConfig { toa: true, ..lab }, kind, sessions);
            let mut rounds = Rounds::new(plan);
            while rounds.unfinished() {
                let [with, without] = [&mut every, &mut none].map(|bench| {
                    bench.refresh();
                    bench.sample_on(&Draw::Uniform, &[WAN])
                });
                rounds.push(with, without);
            }
            let sent = every.engine.counters().toa_sent;
            assert!(sent > rounds.len() as u64, "TOA was sent");
            let params = json!({"kind": kind.name(), "sessions": sessions});
            rounds.judge(rates).report("toa", params, "cycles/packet", "without TOA", json!({}));
        }
    }
}
