//! Packets that a device or a ring has no room for: dropped by name, counted once, their buffers given back.

use fullnat::id::PortId;
use fullnat::path::BURST;
use fullnat::path::drop_reason::DropReason;
use fullnat::path::heap::HeapPacket;
use fullnat::path::packet::HandOff;
use fullnat::worker::published::Counter;

use crate::rig::{MAC, Outcome, Poll, Rig, Way};

/// A host asks for the VIP; the gateway answers with a packet of its own.
fn who_has() -> Vec<u8> {
    let host = [2, 0, 0, 0, 0, 1];
    let mut frame = [[0xff; 6], host].concat();
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(host);
    frame.extend([10, 1, 0, 1, 0, 0, 0, 0, 0, 0, 10, 1, 0, 100]);
    frame.resize(60, 0);
    frame
}

/// Worker 1, which announces nothing by itself, after one full burst of questions.
fn asked(way: Way) -> Outcome {
    Rig::new(1).run(way, [Poll { told: Vec::new(), frames: vec![who_has(); BURST] }])
}

/// A packet that the other worker wants sent.
fn to_send(rig: &Rig, port: u16) -> HandOff<HeapPacket> {
    HandOff::Transmit { port: PortId(port), packet: rig.buffer(&who_has()) }
}

/// Packets in the other worker's ring, beside what it was told of neighbours.
fn relayed(outcome: &Outcome) -> usize {
    outcome.ring.iter().filter(|item| matches!(item, HandOff::Transmit { port: PortId(0), .. })).count()
}

fn dropped(outcome: &Outcome, reason: DropReason) -> u64 {
    outcome.published.drops[reason as usize]
}

/// `rx + handed in + originated = tx + handed off + held + dropped`, and nobody holds a buffer.
#[track_caller]
fn balanced(outcome: Outcome) {
    let count = |counter| outcome.published.counters.get(counter);
    let came =
        count(Counter::RxPackets) + count(Counter::HandedInPackets) + count(Counter::OriginatedPackets);
    let went = count(Counter::TxPackets) + count(Counter::HandedOffPackets) + count(Counter::HeldPackets);
    assert!(came > 0);
    assert_eq!(came, went + outcome.published.drops.iter().sum::<u64>());
    assert_eq!(outcome.buffers_alive(), relayed(&outcome), "the other worker's ring holds the rest");
}

#[test]
fn what_a_full_device_does_not_take_is_dropped_by_name() {
    for room in [0, 1, 10, BURST - 1, BURST] {
        let outcome = asked(Way::Device(room));
        let (sent, questions) = (room as u64, BURST as u64);
        let count = |counter| outcome.published.counters.get(counter);
        assert_eq!((count(Counter::RxPackets), count(Counter::OriginatedPackets)), (questions, questions));
        assert_eq!((count(Counter::TxPackets), outcome.sent.len() as u64), (sent, sent));
        let bytes: usize = outcome.sent.iter().map(Vec::len).sum();
        assert_eq!(count(Counter::TxBytes), bytes as u64, "of those that it took");
        assert_eq!(dropped(&outcome, DropReason::TxQueueFull), questions - sent);
        assert_eq!(dropped(&outcome, DropReason::NeighbourMessage), questions);
        assert!(outcome.sent.iter().all(|frame| frame[6..12] == MAC));
        balanced(outcome);
    }
}

#[test]
fn what_a_full_ring_on_the_way_does_not_take_is_dropped_by_name() {
    for room in [1, 10, BURST - 1, BURST] {
        let rig = Rig::new(1);
        let told = (0..BURST).map(|_| to_send(&rig, 0)).collect();
        let outcome = rig.run(Way::Other(room), [Poll { told, frames: Vec::new() }]);
        let count = |counter| outcome.published.counters.get(counter);
        assert_eq!(count(Counter::HandedInPackets), BURST as u64);
        assert_eq!((count(Counter::HandedOffPackets), relayed(&outcome)), (room as u64, room));
        assert_eq!(count(Counter::TxPackets), 0);
        assert_eq!(dropped(&outcome, DropReason::HandOffRingFull), (BURST - room) as u64);
        balanced(outcome);
    }
}

/// No checked configuration leads there; should a worker ever name such a port, it is not the packet's end in silence.
#[test]
fn a_packet_for_a_port_that_is_not_there_is_dropped_by_name() {
    let rig = Rig::new(1);
    let told = [0, 1, 7, u16::MAX].map(|port| to_send(&rig, port));
    let outcome = rig.run(Way::Device(usize::MAX), [Poll { told: told.into(), frames: vec![who_has()] }]);
    assert_eq!(dropped(&outcome, DropReason::PortUnknown), 3);
    assert_eq!(outcome.published.counters.get(Counter::HandedInPackets), 4);
    assert_eq!(outcome.sent.len(), 2, "the relayed one and the answer");
    balanced(outcome);
}
