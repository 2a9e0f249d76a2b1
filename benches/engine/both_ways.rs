//! `both-ways`: as many answers as requests, against requests alone, on the same sessions.
//!
//! Both directions find the same session by different keys: twice as many index lines are in play, and next hop,
//! counters and rewrite change from burst to burst.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::cycles::Bench;
use crate::frame::Kind;
use crate::lab::{LAN, LabConfig, WAN};
use crate::population::Draw;
use crate::statistics::{Samples, report};

/// Runs the case.
pub fn run(sessions: &[u32], duration: Duration, huge_pages: bool) {
    for &sessions in sessions {
        for kind in Kind::ALL.into_iter().filter(|kind| !kind.v6) {
            eprintln!("both-ways: {} with {sessions} sessions ...", kind.name());
            let lab = LabConfig { huge_pages, ..LabConfig::with_room_for(sessions) };
            let mut bench = Bench::new(&lab, kind, sessions);
            let (mut both, mut requests) = (Samples::default(), Samples::default());
            let until = Instant::now() + duration;
            while Instant::now() < until || both.0.len() < 32 {
                bench.refresh();
                both.push(bench.sample_on(&Draw::Uniform, &[WAN, LAN]));
                requests.push(bench.sample_on(&Draw::Uniform, &[WAN]));
            }
            let params = json!({"kind": kind.name(), "sessions": sessions});
            let mut runs = both.summary();
            runs["reference"] = requests.summary();
            // packets per cycle, so that more is better as in every ratio of rates
            let ratio = 1.0 / both.ratio_to(&requests);
            let reference = Some(("requests alone", requests.median(), ratio));
            report("both-ways", params, both.median(), "cycles/packet", reference, runs);
        }
    }
}
