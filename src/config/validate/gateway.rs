//! Checks of `[dataplane]`, `[control]`, `[refusal]`, `[neighbours]`.

use hashbrown::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::super::checked::{Control, Dataplane, Device, Neighbours, Port};
use super::super::mistake::{Fault, Findings};
use super::super::model::{self, Document, HugePages, Idle};
use super::super::{limits, text};
use crate::service::snapshot::Refusal;

/// Cores that DPDK can number.
const CORE_MAX: i64 = 1023;

/// EAL arguments that choose cores, which `worker_cores` and `control_core` do.
const EAL_CORES: [&str; 5] = ["-l", "-c", "--lcores", "--main-lcore", "-s"];

pub(super) fn dataplane(
    written: &model::Dataplane,
    ports: &[Option<Port>],
    found: &mut Findings,
) -> Option<Dataplane> {
    let at = |key: &str| format!("dataplane.{key}");
    let workers = found.number(at("workers"), written.workers, 1..=limits::WORKERS, "one core each");
    let sessions_max = found.number(
        at("sessions_max"),
        written.sessions_max,
        limits::SESSIONS_MIN..=limits::SESSIONS_MAX,
        "sessions of all workers together",
    );
    let mbufs = written.mbufs.map(|mbufs| {
        found.number(
            at("mbufs"),
            mbufs,
            1024..=1 << 26,
            "or leave it out: it is derived from queues and workers",
        )
    });
    let rx_ring = ring(at("rx_ring"), written.rx_ring, 64..=32_768, found);
    let tx_ring = ring(at("tx_ring"), written.tx_ring, 64..=32_768, found);
    let hand_off_ring = ring(at("hand_off_ring"), written.hand_off_ring, 64..=1 << 20, found);
    let rss_key = written.rss_key.as_deref().map(|key| found.take(at("rss_key"), text::rss_key(key)));
    let (worker_cores, control_core) = cores(written, found);
    let huge_pages = huge_pages(written, found);
    let hardware = ports.iter().flatten().all(|port| matches!(port.device, Device::Pci(_)));
    Some(Dataplane {
        workers: workers?,
        worker_cores,
        control_core,
        eal: written.eal.clone(),
        idle: written.idle.unwrap_or(if hardware { Idle::Poll } else { Idle::Adaptive }),
        sessions_max: sessions_max?,
        huge_pages,
        mbufs: transpose(mbufs)?,
        rx_ring: rx_ring?,
        tx_ring: tx_ring?,
        hand_off_ring: hand_off_ring?,
        steering: written.steering,
        rss_key: transpose(rss_key)?,
    })
}

/// Written or not, sound or not: `None` if written and not sound.
fn transpose<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    match value {
        None => Some(None),
        Some(Some(value)) => Some(Some(value)),
        Some(None) => None,
    }
}

/// A number that must be a power of two.
fn ring<T: TryFrom<i64>>(
    path: String,
    value: i64,
    range: std::ops::RangeInclusive<i64>,
    found: &mut Findings,
) -> Option<T> {
    if range.contains(&value) && value.count_ones() != 1 {
        let below = 1i64 << value.ilog2();
        found.mistake(
            path,
            format!("{value} is not a power of two"),
            format!("write {below} or {}", below * 2),
        );
        return None;
    }
    found.number(path, value, range, "a power of two")
}

fn cores(written: &model::Dataplane, found: &mut Findings) -> (Vec<u16>, Option<u16>) {
    let path = "dataplane.worker_cores";
    let mut seen = HashSet::new();
    let mut cores = Vec::new();
    for (index, &core) in written.worker_cores.iter().enumerate() {
        let path = format!("{path}[{index}]");
        if !seen.insert(core) {
            found.mistake(&path, format!("core {core} has a worker already"), "write each core once");
        }
        cores.extend(found.number::<u16>(path, core, 0..=CORE_MAX, "as lscpu numbers them"));
    }
    if !written.worker_cores.is_empty() && written.worker_cores.len() as i64 != written.workers {
        found.mistake(
            path,
            format!("{} cores for {} workers", written.worker_cores.len(), written.workers),
            format!("write {} core numbers, or leave it out", written.workers),
        );
    }
    let control = written.control_core.and_then(|core| {
        let path = "dataplane.control_core";
        if seen.contains(&core) {
            found.mistake(
                path,
                format!("core {core} has a worker"),
                "write a core that worker_cores does not list",
            );
        }
        found.number(path, core, 0..=CORE_MAX, "as lscpu numbers them")
    });
    for (index, argument) in written.eal.iter().enumerate() {
        let path = format!("dataplane.eal[{index}]");
        let option = argument.split('=').next().unwrap_or_default();
        if EAL_CORES.contains(&option) {
            found.mistake(
                path,
                format!("{option} chooses cores, which the gateway does"),
                "write worker_cores and control_core instead",
            );
        } else if argument.is_empty() || argument.contains('\0') {
            found.mistake(path, "an empty argument", "remove it");
        }
    }
    (cores, control)
}

/// What `huge_pages` and EAL's own arguments say together.
fn huge_pages(written: &model::Dataplane, found: &mut Findings) -> HugePages {
    let without = written.eal.iter().any(|argument| argument == "--no-huge");
    if without && written.huge_pages == HugePages::On {
        found.mistake(
            "dataplane.huge_pages",
            "it says \"on\" and eal says --no-huge",
            "remove --no-huge from eal, or write \"off\"",
        );
    }
    if without { HugePages::Off } else { written.huge_pages }
}

/// Queue counts against the number of workers.
pub(super) fn queues(document: &Document, found: &mut Findings) {
    let workers = document.dataplane.workers;
    for (index, port) in document.ports.iter().enumerate() {
        if let Some(queues) =
            port.queues.filter(|&queues| (1..=limits::WORKERS).contains(&queues) && queues > workers)
            && workers > 0
        {
            found.mistake(
                format!("port[{index}].queues"),
                format!("{queues} queues for {workers} workers: nobody would poll the rest"),
                format!("write 1 to {workers}, or leave it out"),
            );
        }
    }
}

pub(super) fn control(written: &model::Control, found: &mut Findings) -> Option<Control> {
    let socket = PathBuf::from(&written.socket);
    // sun_path has 108 bytes, the last one is 0 (unix(7)).
    if !socket.is_absolute() || written.socket.len() > 107 || written.socket.contains('\0') {
        found.mistake(
            "control.socket",
            format!("{:?} is not the path of a socket", written.socket),
            "write an absolute path of at most 107 bytes, such as \"/run/fullnat/control.sock\"",
        );
    }
    let group = written.group.as_deref().map(|group| found.take("control.group", text::name(group)));
    let metrics_listen = written.metrics_listen.as_deref().map(|listen| {
        let parsed = listen.parse::<SocketAddr>().ok().filter(|listen| listen.port() != 0);
        let fault = || {
            Fault::new(
                format!("{listen:?} is not an address with a port"),
                "write one such as \"127.0.0.1:9105\"",
            )
        };
        found.take("control.metrics_listen", parsed.ok_or_else(fault))
    });
    Some(Control { socket, group: transpose(group)?, metrics_listen: transpose(metrics_listen)? })
}

pub(super) fn refusal(written: &model::Refusal, found: &mut Findings) -> Option<Refusal> {
    let hint = "per worker; to be silent write answer = false";
    let per_second = found.number("refusal.per_second", written.per_second, 1..=1_000_000, hint);
    Some(Refusal { answer: written.answer, per_second: per_second? })
}

pub(super) fn neighbours(written: &model::Neighbours, found: &mut Findings) -> Option<Neighbours> {
    let at = |key: &str| format!("neighbours.{key}");
    let entries_max = found.number(at("entries_max"), written.entries_max, 16..=65_535, "per worker");
    let queue_len = found.number(at("queue_len"), written.queue_len, 1..=1024, "packets");
    let reachable_secs = found.number(at("reachable_secs"), written.reachable_secs, 1..=86_400, "");
    let retransmit_millis =
        found.number(at("retransmit_millis"), written.retransmit_millis, 100..=60_000, "");
    let probes = found.number(at("probes"), written.probes, 1..=100, "");
    Some(Neighbours {
        entries_max: entries_max?,
        queue_len: queue_len?,
        reachable_secs: reachable_secs?,
        retransmit_millis: retransmit_millis?,
        probes: probes?,
    })
}
