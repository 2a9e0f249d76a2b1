//! DPDK's log, line by line into ours.
//!
//! DPDK explains failures in its log and nowhere else. Every line goes to `tracing` under the target `dpdk`, and
//! [`explain`] hands the lines of one call to whoever has to say in one sentence why it failed. A driver that logs
//! per packet must not cost us the packet path: past [`LINES_PER_SECOND_MAX`] lines are counted and left out.

use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use super::sys;

/// Lines of one second that reach our log.
const LINES_PER_SECOND_MAX: u32 = 50;
/// Lines that one explained call keeps.
const KEPT_MAX: usize = 256;

struct Line {
    level: u32,
    text: String,
}

struct State {
    /// While a call is being explained, its lines; they reach our log when it ends, since stdout may be captured.
    kept: Option<Vec<Line>>,
    second: Option<Instant>,
    lines: u32,
    left_out: u64,
}

static STATE: Mutex<State> = Mutex::new(State { kept: None, second: None, lines: 0, left_out: 0 });
static CAPTURED: Once = Once::new();

/// Takes over DPDK's log for the life of the process.
pub(super) fn capture() {
    CAPTURED.call_once(|| {
        // SAFETY: `sink` is a function with the right signature and lives as long as the process.
        if unsafe { sys::shim_capture_log(Some(sink)) } != 0 {
            tracing::warn!("DPDK keeps its own log: its stream could not be replaced");
        }
    });
}

/// Runs `call` and returns with its result what DPDK said of errors meanwhile, joined to one text without line ends.
pub(super) fn explain<T>(call: impl FnOnce() -> T) -> (T, String) {
    state().kept = Some(Vec::new());
    let result = call();
    let lines = state().kept.take().unwrap_or_default();
    let mut reason = String::new();
    for line in &lines {
        let text = strip_facility(&line.text);
        if line.level <= sys::LOG_ERR && !text.is_empty() && !reason.contains(text) {
            if !reason.is_empty() {
                reason.push_str("; ");
            }
            reason.push_str(text);
        }
        // Who called us says what matters of it.
        tracing::debug!(target: "dpdk", "{}", line.text);
    }
    (result, reason)
}

fn state() -> std::sync::MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A line without the name of the library that it begins with.
fn strip_facility(line: &str) -> &str {
    match line.split_once(": ") {
        Some((facility, rest)) if !facility.contains(' ') => rest.trim(),
        _ => line.trim(),
    }
}

unsafe extern "C" fn sink(level: u32, text: *const std::ffi::c_char, length: usize) {
    // SAFETY: the shim hands over `length` bytes that live until we return.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), length) };
    for line in String::from_utf8_lossy(bytes).lines().filter(|line| !line.trim().is_empty()) {
        take(level, line.trim_end());
    }
}

fn take(level: u32, line: &str) {
    let mut state = state();
    if let Some(kept) = &mut state.kept {
        if kept.len() < KEPT_MAX {
            kept.push(Line { level, text: line.to_owned() });
        }
        return;
    }
    let now = Instant::now();
    if state.second.is_none_or(|second| now.duration_since(second) >= Duration::from_secs(1)) {
        if state.left_out > 0 {
            tracing::warn!(target: "dpdk", "{} lines of DPDK's log were left out", state.left_out);
        }
        (state.second, state.lines, state.left_out) = (Some(now), 0, 0);
    }
    if state.lines >= LINES_PER_SECOND_MAX {
        state.left_out += 1;
        return;
    }
    state.lines += 1;
    drop(state);
    emit(level, line);
}

/// One level below DPDK's: what matters to us comes back as an error of ours.
fn emit(level: u32, line: &str) {
    match level {
        0..=sys::LOG_ERR => tracing::warn!(target: "dpdk", "{line}"),
        sys::LOG_WARNING => tracing::info!(target: "dpdk", "{line}"),
        _ => tracing::debug!(target: "dpdk", "{line}"),
    }
}
