//! `toa`: requests with the client's address inserted into every one, against none.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::cycles::Bench;
use crate::frame::Kind;
use crate::lab::{LabConfig, WAN};
use crate::population::Draw;
use crate::statistics::{Samples, report};

/// Runs the case.
pub fn run(sessions: &[u32], duration: Duration, huge_pages: bool) {
    for &sessions in sessions {
        for kind in Kind::ALL.into_iter().filter(|kind| kind.tcp) {
            eprintln!("toa: {} with {sessions} sessions ...", kind.name());
            let lab = LabConfig { huge_pages, ..LabConfig::with_room_for(sessions) };
            let mut none = Bench::new(&lab, kind, sessions);
            let mut every = Bench::new(&LabConfig { toa: true, ..lab }, kind, sessions);
            let (mut with, mut without) = (Samples::default(), Samples::default());
            let until = Instant::now() + duration;
            while Instant::now() < until || with.0.len() < 32 {
                for (bench, samples) in [(&mut every, &mut with), (&mut none, &mut without)] {
                    bench.refresh();
                    samples.push(bench.sample_on(&Draw::Uniform, &[WAN]));
                }
            }
            assert!(every.engine.counters().toa_sent > with.0.len() as u64, "TOA was sent");
            let params = json!({"kind": kind.name(), "sessions": sessions});
            let mut runs = with.summary();
            runs["reference"] = without.summary();
            // packets per cycle, so that more is better as in every ratio of rates
            let ratio = 1.0 / with.ratio_to(&without);
            report(
                "toa",
                params,
                with.median(),
                "cycles/packet",
                Some(("without TOA", without.median(), ratio)),
                runs,
            );
        }
    }
}
