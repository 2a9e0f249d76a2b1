//! A worker's load: what follows from its counters, since start or over a span of time.

use super::view::Worker;

/// `None` where there is no whole.
fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

impl Worker {
    /// Works out shares and figures per packet from the counters.
    pub(super) fn with_ratios(mut self) -> Worker {
        self.burst_fill = ratio(self.rx_packets, self.bursts).unwrap_or(0.0);
        self.busy = ratio(self.cycles_busy, self.cycles_busy + self.cycles_idle).unwrap_or(0.0);
        self.cycles_per_packet = ratio(self.cycles_busy, self.rx_packets + self.handed_in_packets);
        for phase in &mut self.phases {
            phase.cycles_per_packet = ratio(phase.cycles, self.sampled_packets);
        }
        self
    }

    /// What this worker counted since it was looked at `earlier`; what goes up and down is as it is now.
    pub fn since(&self, earlier: &Worker) -> Worker {
        let mut span = self.clone();
        for (now, before) in [
            (&mut span.rx_packets, earlier.rx_packets),
            (&mut span.rx_bytes, earlier.rx_bytes),
            (&mut span.tx_packets, earlier.tx_packets),
            (&mut span.tx_bytes, earlier.tx_bytes),
            (&mut span.originated_packets, earlier.originated_packets),
            (&mut span.handed_off_packets, earlier.handed_off_packets),
            (&mut span.handed_in_packets, earlier.handed_in_packets),
            (&mut span.dropped_packets, earlier.dropped_packets),
            (&mut span.sessions_created, earlier.sessions_created),
            (&mut span.sessions_expired, earlier.sessions_expired),
            (&mut span.leases_taken_over, earlier.leases_taken_over),
            (&mut span.toa_sent, earlier.toa_sent),
            (&mut span.toa_no_option_room, earlier.toa_no_option_room),
            (&mut span.toa_no_mtu_room, earlier.toa_no_mtu_room),
            (&mut span.toa_ahead, earlier.toa_ahead),
            (&mut span.uoa_sent, earlier.uoa_sent),
            (&mut span.uoa_no_option_room, earlier.uoa_no_option_room),
            (&mut span.uoa_no_mtu_room, earlier.uoa_no_mtu_room),
            (&mut span.proxy_sent, earlier.proxy_sent),
            (&mut span.proxy_sent_again, earlier.proxy_sent_again),
            (&mut span.proxy_no_buffer, earlier.proxy_no_buffer),
            (&mut span.proxy_taken, earlier.proxy_taken),
            (&mut span.refusals_limited, earlier.refusals_limited),
            (&mut span.address_conflicts, earlier.address_conflicts),
            (&mut span.address_defences, earlier.address_defences),
            (&mut span.announcements_lost, earlier.announcements_lost),
            (&mut span.neighbour_facts_lost, earlier.neighbour_facts_lost),
            (&mut span.neighbour_buffers_missing, earlier.neighbour_buffers_missing),
            (&mut span.bursts, earlier.bursts),
            (&mut span.empty_polls, earlier.empty_polls),
            (&mut span.cycles_busy, earlier.cycles_busy),
            (&mut span.cycles_idle, earlier.cycles_idle),
            (&mut span.sampled_packets, earlier.sampled_packets),
            (&mut span.turns, earlier.turns),
        ] {
            // The gateway may have been restarted in between.
            *now = now.saturating_sub(before);
        }
        for (now, before) in span.phases.iter_mut().zip(&earlier.phases) {
            now.cycles = now.cycles.saturating_sub(before.cycles);
        }
        span.with_ratios()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::control::query::worker;
    use crate::path::drop_reason::{DropCounters, DropReason};
    use crate::worker::phases::TurnPhase;
    use crate::worker::published::{Counter, CounterKind, Counters, Published};

    /// A worker whose every counter stands at `value`.
    fn at(value: u64) -> Worker {
        let (published, mut counters) = (Published::new(0), Counters::default());
        Counter::ALL.iter().for_each(|&counter| counters.set(counter, value));
        counters.add_phases(&[value; TurnPhase::COUNT]);
        let mut drops = DropCounters::default();
        (0..value).for_each(|_| drops.count(DropReason::NoService));
        published.store(&counters, &drops, &[]);
        worker(0, &published.read())
    }

    #[test]
    fn a_worker_without_a_packet_has_no_figures_per_packet() {
        let idle = at(0);
        assert_eq!((idle.burst_fill, idle.busy, idle.cycles_per_packet), (0.0, 0.0, None));
        assert_eq!(idle.phases.len(), TurnPhase::COUNT);
        assert!(idle.phases.iter().all(|phase| phase.cycles_per_packet.is_none()));
    }

    #[test]
    fn everything_that_grows_is_counted_over_the_span() {
        let span = at(9).since(&at(4));
        let json = serde_json::to_value(&span).unwrap();
        for counter in Counter::ALL {
            let expected = if counter.kind() == CounterKind::Counter { 5 } else { 9 };
            assert_eq!(json.get(counter.name()), Some(&Value::from(expected)), "{}", counter.name());
        }
        assert_eq!(span.dropped_packets, 5);
        // Received and handed over: five each.
        assert_eq!((span.burst_fill, span.busy, span.cycles_per_packet), (1.0, 0.5, Some(0.5)));
        for phase in &json["phases"].as_array().unwrap()[..] {
            assert_eq!((&phase["cycles"], &phase["cycles_per_packet"]), (&json!(5), &json!(1.0)));
        }
        assert_eq!(at(4).since(&at(9)).rx_packets, 0, "restarted in between");
    }
}
