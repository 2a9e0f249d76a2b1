//! What is counted, and what must hold of it: the balance of every worker at any time, and nothing left in the end.

use std::collections::BTreeMap;

use fullnat::clock::Tick;
use fullnat::path::drop_reason::DropReason;

use super::Rig;
use super::seen::Seen;

impl Rig {
    /// Every worker's books, at any time.
    pub fn check_books(&self) {
        for (worker, engine) in self.engines.iter().enumerate() {
            let counters = engine.counters();
            let held = engine.neighbours().held() as u64;
            let came = counters.received + counters.taken + engine.originated();
            let went = engine.transmitted() + counters.handed + counters.drops.total() + held;
            assert_eq!(came, went, "the books of worker {worker}: {counters:?}, {held} held");
        }
        assert_eq!(self.buffers_alive(), self.held(), "buffers that nobody holds are alive");
        let leases: u32 = self.leases();
        assert_eq!(leases, self.sessions(), "every session has one lease and every lease a session");
        let (active, inactive) = self.at_real_servers();
        assert_eq!(active + inactive, self.sessions(), "sessions at the real servers");
    }

    /// Everything that is counted, over all workers, ARP and ND of the harness left out.
    pub fn counted(&self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        let mut add = |name: &str, count: u64| *all.entry(name.to_owned()).or_insert(0) += count;
        for engine in &self.engines {
            let counters = engine.counters();
            for (name, count) in [
                ("received", counters.received),
                ("originated", counters.originated),
                ("transmitted", counters.transmitted),
                ("sessions_created", counters.sessions_created),
                ("sessions_ended", counters.sessions_ended),
                ("leases_taken_over", counters.leases_taken_over),
                ("toa_sent", counters.toa_sent),
                ("toa_no_option_room", counters.toa_no_option_room),
                ("toa_no_mtu_room", counters.toa_no_mtu_room),
                ("toa_ahead", counters.toa_ahead),
                ("uoa_sent", counters.uoa_sent),
                ("uoa_no_option_room", counters.uoa_no_option_room),
                ("uoa_no_mtu_room", counters.uoa_no_mtu_room),
                ("proxy_sent", counters.proxy_sent),
                ("proxy_sent_again", counters.proxy_sent_again),
                ("proxy_no_buffer", counters.proxy_no_buffer),
                ("proxy_taken", counters.proxy_taken),
                ("refusals_limited", counters.refusals_limited),
            ] {
                add(name, count);
            }
            let no_local_port: u64 = engine.real_servers().iter().map(|server| server.no_local_port).sum();
            add("no_local_port", no_local_port);
            for reason in DropReason::ALL {
                add(&format!("drop.{}", reason.name()), counters.drops.get(*reason));
            }
        }
        for name in ["received", "drop.neighbour_message"] {
            *all.get_mut(name).unwrap() -= self.neighbour_answers;
        }
        let handed: u64 = self.engines.iter().map(|engine| engine.counters().handed).sum();
        let taken: u64 = self.engines.iter().map(|engine| engine.counters().taken).sum();
        assert_eq!(handed, taken, "hand-offs on their way");
        all
    }

    /// Counts from here on.
    pub fn mark(&mut self) {
        self.mark = self.counted();
    }

    /// Since the mark exactly these counters moved, by so much, and no others. Sets the mark anew.
    #[track_caller]
    pub fn moved(&mut self, expected: &[(&str, u64)]) {
        let now = self.counted();
        let was = |name: &String| self.mark.get(name).copied().unwrap_or(0);
        let moved = now.iter().map(|(name, count)| (name.as_str(), count - was(name)));
        let moved: BTreeMap<&str, u64> = moved.filter(|(_, by)| *by > 0).collect();
        let expected: BTreeMap<&str, u64> = expected.iter().copied().filter(|(_, by)| *by > 0).collect();
        assert_eq!(moved, expected);
        self.mark = now;
    }

    /// Nothing left; one packet was dropped for this reason and nothing else happened.
    #[track_caller]
    pub fn only_drop(&mut self, out: &[Seen], reason: &str) {
        assert!(out.is_empty(), "{out:?}");
        self.moved(&[("received", 1), (&format!("drop.{reason}"), 1)]);
    }

    /// After all time-outs nothing is left of what happened.
    pub fn finish(mut self) {
        self.options.hosts_answer = false;
        let mut waited = 0;
        while self.sessions() > 0 || self.held() > 0 {
            assert!(waited < 3600, "{} sessions do not end", self.sessions());
            self.pass_ticks(5 * Tick::PER_SECOND);
            waited += 5;
        }
        self.check_books();
        assert_eq!((self.leases(), self.at_real_servers(), self.buffers_alive()), (0, (0, 0), 0));
        let ended: u64 = self.engines.iter().map(|engine| engine.counters().sessions_ended).sum();
        let created: u64 = self.engines.iter().map(|engine| engine.counters().sessions_created).sum();
        assert_eq!(created, ended);
    }
}
