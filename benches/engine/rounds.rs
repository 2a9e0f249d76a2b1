//! Two things measured in turn, and which rounds decide: those in which the core was ours.
//!
//! A neighbour on the core's other hardware thread takes half of it for milliseconds or minutes, and takes more from code
//! that fills a core than from code that waits for memory. The core's speed, and nothing else, says which rounds that were.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::statistics::{Sample, Samples, report, round};

/// Of the fastest that the core was ever seen at: what counts as full speed. The clock's own steps, which the host's load
/// sets, reach down to 0.86 of it; who shares it is hardly ever above 0.8. `scripts/bench/core.py` has the same.
const FULL: f64 = 0.85;
/// That many rounds at full speed decide, if they are one in [`ONE_IN`] too.
const ENOUGH: usize = 32;
const ONE_IN: usize = 10;
/// So many times the wanted duration is measured until there are enough.
pub const LONGER: u32 = 3;

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// how long to measure
    pub duration: Duration,
    /// simple steps per cycle at full speed, as far as it is known
    pub full_speed: f64,
}

/// Rounds of one sample of either.
#[derive(Debug)]
pub struct Rounds {
    plan: Plan,
    began: Instant,
    /// when to look whether there are enough
    look_at: Duration,
    ours: Samples,
    theirs: Samples,
    /// the slower of both samples' speeds
    speeds: Samples,
}

/// What the rounds give that decide.
#[derive(Debug)]
pub struct Verdict {
    ours: Samples,
    theirs: Samples,
    ratio: f64,
    core: Value,
}

/// Our samples and theirs to how well we do.
pub type Ratio = fn(&Samples, &Samples) -> f64;

/// Of cycles, so that more is better as in every ratio of rates.
pub fn rates(ours: &Samples, theirs: &Samples) -> f64 {
    theirs.ratio_to(ours)
}

impl Rounds {
    /// None yet; the clock runs.
    pub fn new(plan: Plan) -> Self {
        let [ours, theirs, speeds] = Default::default();
        Rounds { plan, began: Instant::now(), look_at: plan.duration, ours, theirs, speeds }
    }

    /// Takes in a round.
    pub fn push(&mut self, ours: Sample, theirs: Sample) {
        self.ours.push(ours.value);
        self.theirs.push(theirs.value);
        self.speeds.push(ours.speed.min(theirs.speed));
    }

    /// How many there were.
    pub fn len(&self) -> usize {
        self.speeds.0.len()
    }

    /// Whether to go on: until the duration is over, and longer if too few rounds were at full speed.
    pub fn unfinished(&mut self) -> bool {
        self.unfinished_after(self.began.elapsed())
    }

    /// Looks at the rounds once in a while only: that takes the caches from what is measured.
    fn unfinished_after(&mut self, elapsed: Duration) -> bool {
        if elapsed < self.look_at || self.len() < ENOUGH {
            return true;
        }
        self.look_at += self.plan.duration;
        !self.enough() && elapsed < self.plan.duration * LONGER
    }

    /// Whether those at full speed decide.
    pub fn enough(&self) -> bool {
        let at_full = self.at_full_speed().count();
        at_full >= ENOUGH && at_full * ONE_IN >= self.len()
    }

    /// The fastest that is known: as fast was one round in ten at least, so that no single one that the clock went faster in
    /// sets the measure.
    fn fastest(&self) -> f64 {
        self.plan.full_speed.max(self.speeds.quantile(1.0 - 1.0 / ONE_IN as f64))
    }

    fn at_full_speed(&self) -> impl Iterator<Item = usize> {
        let bound = FULL * self.fastest();
        (0..self.len()).filter(move |&at| self.speeds.0[at] >= bound)
    }

    /// Medians of the rounds at full speed, or of all if those are too few.
    pub fn judge(&self, ratio: Ratio) -> Verdict {
        let at_full: Vec<usize> = self.at_full_speed().collect();
        let enough = self.enough();
        let pick = |samples: &Samples| match enough {
            true => Samples(at_full.iter().map(|&at| samples.0[at]).collect()),
            false => samples.clone(),
        };
        let (ours, theirs, speed) = (pick(&self.ours), pick(&self.theirs), pick(&self.speeds).median());
        let core = json!({
            "speed": round(speed), "fastest": round(self.fastest()),
            "share": (speed / self.fastest() * 100.0).round() / 100.0,
            "judged": if enough { "at full speed" } else { "all" },
            "rounds": at_full.len(), "of": self.len(),
            "all_value": round(self.ours.median()), "all_ratio": round(ratio(&self.ours, &self.theirs)),
        });
        Verdict { ratio: ratio(&ours, &theirs), ours, theirs, core }
    }
}

impl Verdict {
    /// Our median.
    pub fn value(&self) -> f64 {
        self.ours.median()
    }

    /// Tells it; `more`: what else is told of the runs.
    pub fn report(&self, case: &str, params: Value, unit: &str, reference: &str, more: Value) {
        let mut runs = self.ours.summary();
        runs["reference"] = self.theirs.summary();
        if let (Value::Object(runs), Value::Object(more)) = (&mut runs, more) {
            runs.extend(more);
        }
        let verdict = json!({
            "reference": reference, "reference_value": round(self.theirs.median()), "ratio": round(self.ratio),
            "runs": runs, "core": self.core,
        });
        report(case, params, self.value(), unit, verdict);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan = Plan { duration: Duration::from_secs(1), full_speed: 2.5 };

    /// Rounds of (speed, ours), theirs always 10.
    fn rounds(plan: Plan, all: impl IntoIterator<Item = (f64, f64)>) -> Rounds {
        let mut rounds = Rounds::new(plan);
        for (speed, value) in all {
            rounds.push(Sample { value, speed }, Sample { value: 10.0, speed: 9.0 });
        }
        rounds
    }

    fn slow_and_fast(slow: usize, fast: usize) -> Rounds {
        rounds(PLAN, std::iter::repeat_n((1.3, 40.0), slow).chain(std::iter::repeat_n((2.4, 20.0), fast)))
    }

    fn told(rounds: &Rounds) -> (f64, f64, Value) {
        let verdict = rounds.judge(Samples::ratio_to);
        (verdict.value(), verdict.ratio, verdict.core)
    }

    #[test]
    fn rounds_at_full_speed_decide() {
        let (value, ratio, core) = told(&slow_and_fast(100, 40));
        assert_eq!((value, ratio), (20.0, 2.0));
        let wanted = json!({
            "speed": 2.4, "fastest": 2.5, "share": 0.96, "judged": "at full speed", "rounds": 40, "of": 140,
            "all_value": 40.0, "all_ratio": 4.0,
        });
        assert_eq!(core, wanted);
    }

    #[test]
    fn the_result_does_not_say_which_rounds_decide() {
        // The best of all and the worst of all, both at full speed and both disturbed.
        let both = [(2.4, 1.0), (2.4, 90.0), (2.4, 20.0), (1.3, 1.0), (1.3, 90.0), (1.3, 40.0)];
        let rounds = rounds(PLAN, both.into_iter().cycle().take(600));
        let (value, _, core) = told(&rounds);
        assert_eq!((value, &core["rounds"], &core["of"]), (20.0, &json!(300), &json!(600)));
    }

    #[test]
    fn too_few_at_full_speed_leave_it_to_all() {
        for (slow, fast) in [(ENOUGH, ENOUGH - 1), (10 * ENOUGH, ENOUGH)] {
            let (value, ratio, core) = told(&slow_and_fast(slow, fast));
            assert_eq!((value, ratio, &core["judged"]), (40.0, 4.0, &json!("all")), "{slow} {fast}");
            assert_eq!((&core["rounds"], &core["share"]), (&json!(fast), &json!(0.52)), "{slow} {fast}");
        }
    }

    #[test]
    fn both_samples_of_a_round_must_be_at_full_speed() {
        let mut rounds = Rounds::new(PLAN);
        let sample = |value, speed| Sample { value, speed };
        for _ in 0..ENOUGH {
            rounds.push(sample(20.0, 2.4), sample(10.0, 1.3));
            rounds.push(sample(30.0, 2.4), sample(10.0, 2.4));
        }
        let (value, _, core) = told(&rounds);
        assert_eq!((value, &core["rounds"]), (30.0, &json!(ENOUGH)));
    }

    #[test]
    fn full_speed_is_what_is_known_or_what_one_in_ten_had() {
        let unknown = Plan { full_speed: 0.0, ..PLAN };
        let speeds = |fast: usize| (0..100).map(move |n| (if n < fast { 2.4 } else { 1.3 }, 20.0));
        let fastest = |plan, fast| told(&rounds(plan, speeds(fast))).2["fastest"].as_f64();
        assert_eq!(fastest(unknown, 50), Some(2.4));
        assert_eq!(fastest(unknown, 1), Some(1.3), "one is an accident");
        assert_eq!(fastest(PLAN, 50), Some(2.5));
    }

    #[test]
    fn disturbed_rounds_are_followed_by_others_but_not_for_ever() {
        let secs = Duration::from_secs_f64;
        let mut calm = slow_and_fast(0, ENOUGH);
        assert!(calm.unfinished_after(secs(0.9)) && !calm.unfinished_after(secs(1.0)));
        let mut disturbed = slow_and_fast(ENOUGH, 0);
        assert!(disturbed.unfinished_after(secs(1.0)) && disturbed.unfinished_after(secs(2.9)));
        assert!(!disturbed.unfinished_after(secs(3.0)));
        let mut none = Rounds::new(PLAN);
        assert!(none.unfinished_after(secs(9.0)), "not without a single round");
    }
}
