//! Rules that the compiler does not check: `cargo test --test tidy`.
//!
//! | file | what it holds |
//! |---|---|
//! | `house` | imports look down only; unsafe code behind its fences; the path names neither DPDK nor the system |
//! | `shape` | lengths of files and functions, module headers, no unfinished code, every drop reason produced |
//! | `text` | no path of somebody's machine in anything that is committed |
//! | `conformance` | rows that are not built are named by no test |
//! | `commands` | command lines in documents are understood by `fullnatctl` |
//! | `figures` | the measured table of README is the last record of `scripts/bench.sh` |
//! | `documents` | what `docs/` says of the program is what the program says; `BLESS=1` writes it anew |
//!
//! A broken rule is reported with every place that breaks it, in the form `file:line: what`.

mod commands;
mod configuration;
mod conformance;
mod documents;
mod figures;
mod house;
mod metrics;
mod shape;
mod source;
mod text;

/// Fails with all of `found`, if there is any.
#[track_caller]
fn none_found(rule: &str, found: &[String]) {
    assert!(found.is_empty(), "{rule}; {} place(s):\n{}", found.len(), found.join("\n"));
}
