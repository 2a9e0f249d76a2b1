//! The run-to-completion loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrayvec::ArrayVec;

use super::device::{Clock, Runtime, RxQueue};
use super::idle::{Idle, IdlePolicy};
use super::mailbox::WorkerEnd;
use super::outlet::{Outlet, Ring};
use super::phases::{StopWatch, TIMED_EVERY, TurnPhase};
use super::published::{Counter, Counters, Published};
use crate::clock::Now;
use crate::cpu;
use crate::id::PortId;
use crate::path::{BURST, Engine};

/// Turns with a full burst that may pass until the clock is read again: a reading costs as much as half a packet, and under
/// full load the time of a turn is a microsecond or two.
const UNREAD_TURNS_MAX: u32 = 8;
/// Nanoseconds between two publications of the counters.
const PUBLISH_PERIOD_NANOS: u64 = 5_000_000;

/// A worker: one lcore's queues, shard and way out.
pub struct Worker<R: Runtime> {
    /// the path
    pub engine: Engine<R::Packet>,
    /// the queues it polls
    pub rx: Vec<(PortId, R::Rx)>,
    /// its way out
    pub outlet: Outlet<R>,
    /// what other workers hand to it
    pub inbox: Ring<R::Packet>,
    /// letters from control
    pub mailbox: WorkerEnd,
    /// where its counters are published
    pub published: Arc<Published>,
    /// its clock
    pub clock: R::Clock,
    /// how it waits
    pub idle: IdlePolicy,
}

impl<R: Runtime> Worker<R> {
    /// Runs until `stop` is set.
    pub fn run(mut self, stop: &AtomicBool) {
        let mut idle = Idle::new(self.idle);
        let mut tally = Tally::default();
        let mut turn_began = cpu::tsc();
        while !stop.load(Ordering::Relaxed) {
            let timed = tally.untimed == 0;
            if timed {
                self.start_timing(&mut tally);
            }
            let packets = self.turn(self.clock.at(turn_began), &mut tally);
            if timed {
                self.stop_timing(packets, &mut tally);
            }
            idle.after_turn(packets > 0);
            turn_began = tally.end_turn(turn_began, packets);
        }
        self.outlet.flush();
        self.publish(&mut tally);
    }

    /// One turn, which begins now; how many packets it found.
    #[inline(always)]
    fn turn(&mut self, now: Now, tally: &mut Tally) -> usize {
        let packets = self.receive_and_forward(now, tally);
        self.engine.tick(&mut self.outlet, now);
        tally.watch.lap(TurnPhase::Housekeeping, &mut self.outlet.sending);
        self.outlet.flush();
        tally.watch.lap(TurnPhase::Tx, &mut self.outlet.sending);
        self.answer_control(now);
        self.publish_if_due(now, packets > 0, tally);
        tally.watch.lap(TurnPhase::Housekeeping, &mut self.outlet.sending);
        packets
    }

    #[cold]
    fn start_timing(&mut self, tally: &mut Tally) {
        self.outlet.sending.watched = true;
        tally.watch.start();
    }

    /// A turn that found nothing tells nothing of packets.
    #[cold]
    fn stop_timing(&mut self, packets: usize, tally: &mut Tally) {
        self.outlet.sending.watched = false;
        let cycles = tally.watch.stop();
        if let Some(cycles) = cycles.filter(|_| packets > 0) {
            tally.counters.add(Counter::SampledPackets, packets as u64);
            tally.counters.add_phases(&cycles);
        }
    }

    #[inline]
    fn receive_and_forward(&mut self, now: Now, tally: &mut Tally) -> usize {
        let mut handled = 0;
        let mut burst = ArrayVec::<R::Packet, BURST>::new();
        for (port, queue) in &mut self.rx {
            queue.receive(&mut burst);
            tally.note_burst(&burst);
            tally.watch.lap(TurnPhase::Rx, &mut self.outlet.sending);
            if !burst.is_empty() {
                // A packet may be the consequence of what another worker told before: the third ACK of a session that
                // the other one hosts comes after its note of it. So the notes are read between receiving and looking.
                handled += take_handed_over(&mut self.engine, &mut self.outlet, &self.inbox, now);
                tally.watch.lap(TurnPhase::HandIn, &mut self.outlet.sending);
                handled += burst.len();
                self.outlet.port_counters[port.index()].rx_packets += burst.len() as u64;
                let bytes =
                    self.engine.process_observed(&mut self.outlet, now, *port, &mut burst, &mut tally.watch);
                self.outlet.port_counters[port.index()].rx_bytes += bytes;
                tally.watch.lap(TurnPhase::Forward, &mut self.outlet.sending);
            }
        }
        handled += take_handed_over(&mut self.engine, &mut self.outlet, &self.inbox, now);
        tally.watch.lap(TurnPhase::HandIn, &mut self.outlet.sending);
        handled
    }

    #[inline]
    fn answer_control(&mut self, now: Now) {
        if let Some(letter) = self.mailbox.next() {
            let answer = super::answer::answer(&mut self.engine, now, letter.request);
            self.mailbox.answer(letter.ticket, answer);
        }
    }

    /// Every few milliseconds under load; at once when a worker has nothing more to do, so that who asks after an event
    /// reads of it.
    #[inline]
    fn publish_if_due(&mut self, now: Now, worked: bool, tally: &mut Tally) {
        tally.unpublished |= worked;
        if now.nanos >= tally.publish_at_nanos || (tally.unpublished && !worked) {
            tally.publish_at_nanos = now.nanos + PUBLISH_PERIOD_NANOS;
            tally.unpublished = false;
            self.publish(tally);
        }
    }

    #[cold]
    fn publish(&mut self, tally: &mut Tally) {
        let path = self.engine.counters();
        let counters = &mut tally.counters;
        let ports = &self.outlet.port_counters;
        let sum = |read: fn(&super::published::PortCounters) -> u64| ports.iter().map(read).sum::<u64>();
        counters.set(Counter::RxPackets, sum(|port| port.rx_packets));
        counters.set(Counter::RxBytes, sum(|port| port.rx_bytes));
        counters.set(Counter::TxPackets, sum(|port| port.tx_packets));
        counters.set(Counter::TxBytes, sum(|port| port.tx_bytes));
        counters.set(Counter::OriginatedPackets, self.engine.originated());
        counters.set(Counter::HandedOffPackets, path.handed + self.outlet.relayed);
        counters.set(Counter::HandedInPackets, path.taken + path.relays_taken);
        counters.set(Counter::HeldPackets, self.engine.neighbours().held() as u64);
        counters.set(Counter::SessionsLive, u64::from(self.engine.sessions().len()));
        counters.set(Counter::SessionsMax, u64::from(self.engine.sessions().capacity()));
        counters.set_outcomes(path, self.engine.neighbours().counters());
        counters.set(Counter::Generation, self.engine.snapshot().generation);
        let mut drops = path.drops.clone();
        drops.add(&self.outlet.drops);
        self.published.store(counters, &drops, ports);
    }
}

/// Takes everything that lies in the inbox now. What comes meanwhile waits for the next time, so that a busy neighbour
/// cannot starve the worker's own queues.
#[inline]
fn take_handed_over<R: Runtime>(
    engine: &mut Engine<R::Packet>,
    outlet: &mut Outlet<R>,
    inbox: &Ring<R::Packet>,
    now: Now,
) -> usize {
    if inbox.is_empty() {
        return 0;
    }
    engine.take(outlet, now, (0..inbox.len()).map_while(|_| inbox.pop()))
}

/// What the loop counts of itself.
#[derive(Default)]
struct Tally {
    counters: Counters,
    publish_at_nanos: u64,
    /// packets have been forwarded since the last publication
    unpublished: bool,
    /// working turns until the one whose phases are timed; while it is awaited, every turn is
    untimed: u32,
    /// turns since the clock was read
    unread: u32,
    watch: StopWatch,
}

impl Tally {
    #[inline(always)]
    fn note_burst<P, const N: usize>(&mut self, burst: &ArrayVec<P, N>) {
        self.counters.add(if burst.is_empty() { Counter::EmptyPolls } else { Counter::Bursts }, 1);
    }

    /// When the turn has ended that began then; of a full burst, perhaps still when it began, as if the next one belonged
    /// to it.
    #[inline(always)]
    fn end_turn(&mut self, began: u64, packets: usize) -> u64 {
        let worked = packets > 0;
        self.counters.add(Counter::Turns, 1);
        if worked {
            self.untimed = self.untimed.checked_sub(1).unwrap_or(TIMED_EVERY - 1);
        }
        if packets >= BURST && self.unread < UNREAD_TURNS_MAX {
            self.unread += 1;
            return began;
        }
        let ended = cpu::tsc();
        let busy = worked || self.unread > 0;
        self.unread = 0;
        let cycles = if busy { Counter::CyclesBusy } else { Counter::CyclesIdle };
        self.counters.add(cycles, ended.wrapping_sub(began));
        ended
    }
}
