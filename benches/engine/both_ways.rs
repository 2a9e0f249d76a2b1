//! `both-ways`: as many answers as requests, against requests alone, on the same sessions.
//!
//! Both directions find the same session by different keys: twice as many index lines are in play, and next hop,
//! counters and rewrite change from burst to burst.

use serde_json::json;

use crate::cycles::Bench;
use crate::frame::Kind;
use crate::lab::{LAN, LabConfig, WAN};
use crate::population::Draw;
use crate::rounds::{Plan, Rounds, rates};

/// Runs the case.
pub fn run(sessions: &[u32], plan: Plan, huge_pages: bool) {
    for &sessions in sessions {
        for kind in Kind::ALL.into_iter().filter(|kind| !kind.v6) {
            eprintln!("both-ways: {} with {sessions} sessions ...", kind.name());
            let lab = LabConfig { huge_pages, ..LabConfig::with_room_for(sessions) };
            let mut bench = Bench::new(&lab, kind, sessions);
            let mut rounds = Rounds::new(plan);
            while rounds.unfinished() {
                bench.refresh();
                let both = bench.sample_on(&Draw::Uniform, &[WAN, LAN]);
                rounds.push(both, bench.sample_on(&Draw::Uniform, &[WAN]));
            }
            let params = json!({"kind": kind.name(), "sessions": sessions});
            rounds.judge(rates).report("both-ways", params, "cycles/packet", "requests alone", json!({}));
        }
    }
}
