//! Parts of `docs/` that are made from the program: between `<!-- generated: NAME -->` and `<!-- end -->` stands what
//! the program says. `BLESS=1 cargo test --test tidy` writes them anew.

use std::fmt::Write;
use std::path::PathBuf;

use fullnat::config::{self, Requirements};
use fullnat::control::api;
use fullnat::path::drop_reason::{DropReason, Severity};
use fullnat::worker::phases::TurnPhase;
use fullnat::worker::published::{Counter, CounterKind};

use crate::source::{read, root};
use crate::{configuration, metrics};

#[test]
fn drop_reasons_are_current() {
    generated("docs/drop-reasons.md", "drop reasons", &drop_reasons());
}

#[test]
fn configuration_is_current() {
    generated("docs/configuration.md", "configuration", &configuration::document());
    // Every key of the model, also where the making of the tables went astray.
    let text = read(&root().join("docs/configuration.md"));
    let keys = configuration::keys().into_iter();
    let missing: Vec<String> = keys.filter(|key| !text.contains(&format!("`{key}`"))).collect();
    crate::none_found("docs/configuration.md has every key", &missing);
}

#[test]
fn metrics_are_current() {
    generated("docs/metrics.md", "metrics", &metrics::table());
    generated("docs/metrics.md", "worker counters", &worker_counters());
}

#[test]
fn control_methods_are_current() {
    generated("docs/control.md", "methods", &control_methods());
}

#[test]
fn phases_are_current() {
    let mut table = String::from("| phase | what |\n|---|---|\n");
    for phase in TurnPhase::ALL {
        let _ = writeln!(table, "| `{}` | {} |", phase.name(), phase.sentence());
    }
    generated("docs/control.md", "phases", &table);
}

#[test]
fn what_a_configuration_needs_is_current() {
    let file = "conf/two-arm-nic.toml";
    let config = config::load(root().join(file)).unwrap_or_else(|error| panic!("{error}"));
    let needs = format!("{file}: no mistakes. It needs:\n{}", Requirements::of(&config));
    generated("README.md", "what a configuration needs", &in_a_block(&needs));
}

/// Commands and what they print, as `tests/golden/fullnatctl.txt` has them.
#[test]
fn samples_of_fullnatctl_are_current() {
    let golden = read(&root().join("tests/golden/fullnatctl.txt"));
    let shown = ["services", "sessions --limit 3", "pools", "drops"].map(|command| {
        let begin = format!("$ fullnatctl {command}\n");
        let start = golden.find(&begin).unwrap_or_else(|| panic!("the golden file has no {begin:?}"));
        let end = golden[start + 1..].find("$ ").map_or(golden.len(), |at| start + 1 + at);
        &golden[start..end]
    });
    generated("README.md", "fullnatctl", &in_a_block(&shown.concat()));
}

fn in_a_block(text: &str) -> String {
    format!("```text\n{}\n```", text.trim_end())
}

/// Compares a part of a document with what the program says, or replaces it.
#[track_caller]
pub fn generated(file: &str, name: &str, wanted: &str) {
    let path: PathBuf = root().join(file);
    let text = read(&path);
    let begin = format!("<!-- generated: {name} -->\n");
    let start = text.find(&begin).unwrap_or_else(|| panic!("{file} has no line {begin:?}")) + begin.len();
    let end =
        text[start..].find("<!-- end -->").unwrap_or_else(|| panic!("{file}: {name} has no end")) + start;
    let wanted = format!("\n{}\n\n", wanted.trim());
    if text[start..end] == wanted {
        return;
    }
    if std::env::var_os("BLESS").is_some() {
        let text = [&text[..start], &wanted, &text[end..]].concat();
        return std::fs::write(&path, text).expect("a document that can be written");
    }
    panic!(
        "{file}: {name} is not what the program says; run `BLESS=1 cargo test --test tidy` and commit the result"
    );
}

fn drop_reasons() -> String {
    let kinds = [
        (Severity::Consumed, "consumed", "the packet was for the gateway itself; nothing is wrong"),
        (Severity::Policy, "policy", "refused by a rule or by what is configured; expected on any network"),
        (Severity::Malformed, "malformed", "the packet was broken when it came"),
        (Severity::Capacity, "capacity", "a limit of the gateway was reached; look here first"),
    ];
    let mut out = String::new();
    for (severity, name, meaning) in kinds {
        let _ = writeln!(out, "### {name}: {meaning}\n\n| reason | the packet |\n|---|---|");
        for reason in DropReason::ALL.iter().filter(|reason| reason.severity() == severity) {
            let _ = writeln!(out, "| `{}` | {} |", reason.name(), reason.sentence());
        }
        out.push('\n');
    }
    out
}

fn worker_counters() -> String {
    let mut out = String::from("| counter | kind | what |\n|---|---|---|\n");
    for counter in Counter::ALL {
        let kind = match counter.kind() {
            CounterKind::Counter => "grows",
            CounterKind::Gauge => "up and down",
        };
        let _ = writeln!(out, "| `{}` | {kind} | {} |", counter.name(), counter.sentence());
    }
    out
}

/// The OpenAPI document as a table of methods.
fn control_methods() -> String {
    let document: serde_json::Value =
        serde_json::from_str(&api::openapi().expect("an OpenAPI document")).expect("JSON");
    let mut out = String::from("| method | what |\n|---|---|\n");
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let text = |key: &str| operation[key].as_str().unwrap_or_default().replace('\n', " ");
            let (summary, more) = (text("summary"), text("description"));
            let what = [summary.trim(), more.trim()].join(" ");
            let _ = writeln!(out, "| `{} {path}` | {} |", method.to_uppercase(), what.trim());
        }
    }
    out
}
