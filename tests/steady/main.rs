//! A worker in its steady state neither allocates nor calls the kernel.
//!
//! One worker of two runs as it does in the gateway, `idle = "poll"`, with everything around it: clients, real servers
//! and neighbours that answer ([`others`]), and the other worker, to which packets go and from which they come
//! ([`rig`]). Thousands of TCP and UDP sessions of both families begin, talk, end and expire, some toward a real
//! server whose neighbour is silent, some packets are refused. After a warm-up two watches are set upon the worker's thread:
//!
//! * [`allocations`]: a global allocator that counts
//! * [`system_calls`]: the kernel itself sends a signal for every system call of the thread. It needs neither a tool
//!   nor a privilege, misses none, costs nothing while there is none, and begins and ends with a store to memory. A tracer
//!   would see the warm-up too; a seccomp filter could never be taken off the thread again.
//!
//! The worker runs on buffers of the test ([`heap`]), so that the engine is held to it wherever it is built, and on
//! DPDK ([`dpdk`]), whose drivers, pools and clock are then held to it too.

mod allocations;
#[cfg(feature = "dpdk")]
mod dpdk;
mod heap;
mod others;
mod rig;
mod system_calls;

use fullnat::path::drop_reason::DropReason;
use fullnat::worker::phases::TurnPhase;
use fullnat::worker::published::{Counter, PublishedView};

use rig::Seen;

/// What must have happened under the watches, or they have seen nothing.
fn check(seen: &Seen) {
    let [began, ended] = &seen.published;
    let moved = |counter| ended.get(counter) - began.get(counter);
    for (counter, at_least) in [
        (Counter::RxPackets, 100_000),
        (Counter::TxPackets, 100_000),
        (Counter::HandedInPackets, 10_000),
        (Counter::HandedOffPackets, 10_000),
        (Counter::OriginatedPackets, 100),
        (Counter::SessionsCreated, 10_000),
        (Counter::SessionsExpired, 10_000),
        (Counter::ToaSent, 1_000),
        (Counter::SampledPackets, 1_000),
        (Counter::EmptyPolls, 100),
    ] {
        assert!(moved(counter) >= at_least, "{counter:?}: {} of {at_least}", moved(counter));
    }
    let dropped = |view: &PublishedView| view.dropped(DropReason::NeighbourUnreachable);
    assert!(dropped(ended) > dropped(began), "the silent neighbour's packets: {:?}", ended.drops);
    assert!(ended.get(Counter::SessionsLive) > 1000, "{}", ended.get(Counter::SessionsLive));
    timed(began, ended);
    let asked = (seen.allocations, seen.system_call);
    assert_eq!(asked, (0, None), "allocations and deallocations, the number of the first system call");
}

/// The turns whose phases are timed were among them: each phase took its time, and that is busy time.
fn timed(began: &PublishedView, ended: &PublishedView) {
    let cycles = |&phase: &TurnPhase| ended.counters.phase(phase) - began.counters.phase(phase);
    for phase in TurnPhase::ALL {
        assert!(cycles(phase) > 0, "{phase:?}");
    }
    let (sum, busy) = (TurnPhase::ALL.iter().map(cycles).sum::<u64>(), ended.get(Counter::CyclesBusy));
    assert!(sum <= busy, "{sum} cycles of the phases, {busy} busy ones");
}

#[test]
fn the_engine_neither_allocates_nor_calls_the_kernel() {
    check(&heap::run());
}

#[cfg(feature = "dpdk")]
#[test]
fn a_worker_on_dpdk_neither_allocates_nor_calls_the_kernel() {
    check(&dpdk::run());
}

/// The watches see, or the tests above would hold nothing.
#[test]
fn the_watches_see() {
    allocations::watch();
    let boxed = std::hint::black_box(Box::new(5));
    drop(boxed);
    assert_eq!(allocations::end(), 2);
    assert_eq!(allocations::end(), 0, "nobody watches");

    let watch = system_calls::Watch::new();
    watch.begin();
    assert_eq!(watch.end(), None);
    watch.begin();
    let parent = nix::unistd::getppid();
    let seen = watch.end();
    assert_eq!(seen, Some(nix::libc::SYS_getppid));
    assert_eq!(nix::unistd::getppid(), parent, "it was carried out all the same");
}
