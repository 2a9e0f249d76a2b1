//! The measured table of README: the last record of each case in `benches/history.jsonl`, which `scripts/bench.sh
//! --record` writes. No figure there is typed by hand.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use crate::documents::generated;
use crate::source::{read, root};

#[test]
fn figures_are_those_of_the_last_record() {
    let history = read(&root().join("benches/history.jsonl"));
    let entries: Vec<Value> =
        history.lines().map(|line| serde_json::from_str(line).expect("an object per line")).collect();
    generated("README.md", "figures", &figures(&entries));
}

/// Of each case what was measured last, where it has a goal or is shown beside; then how and where it was measured.
fn figures(entries: &[Value]) -> String {
    let mut last = BTreeMap::new();
    for entry in entries {
        last.insert(text(entry, "case"), text(entry, "time"));
    }
    let current = |entry: &&Value| last[text(entry, "case")] == text(entry, "time");
    let mut out = String::from(
        "| case | parameters | value | reference | ratio | goal | | core |\n|---|---|---:|---|---:|---|---|---|\n",
    );
    for entry in entries.iter().filter(current).filter(|entry| entry["goal"].is_object() || is_beside(entry))
    {
        let met = match (entry["goal"].is_object(), entry["goal"]["met"].as_bool()) {
            (false, _) => "",
            (true, Some(true)) => "met",
            (true, Some(false)) => "**missed**",
            (true, None) => "?",
        };
        let _ = writeln!(
            out,
            "| `{}` | {} | {} {} | {} | {} | {} | {met} | {} |",
            text(entry, "case"),
            parameters(&entry["params"]),
            number(&entry["value"]),
            text(entry, "unit"),
            text(entry, "reference"),
            number(&entry["ratio"]),
            text(&entry["goal"], "bound"),
            core(&entry["core"]),
        );
    }
    let mut records: BTreeMap<&str, (&Value, Vec<&str>)> = BTreeMap::new();
    for entry in entries.iter().filter(current) {
        let (_, cases) = records.entry(text(entry, "time")).or_insert((entry, Vec::new()));
        if cases.last() != Some(&text(entry, "case")) {
            cases.push(text(entry, "case"));
        }
    }
    out.push('\n');
    for (time, (entry, cases)) in records {
        let _ = writeln!(
            out,
            "* {}: `{}`, commit {}, {}, {}",
            cases.join(", "),
            text(entry, "command"),
            text(entry, "commit"),
            text(entry, "cpu"),
            time.split('T').next().unwrap_or(time)
        );
    }
    out
}

/// What has no goal and is shown all the same: of `real` nftables, no middle at all, and the delays beside testpmd's.
fn is_beside(entry: &Value) -> bool {
    text(entry, "case") == "real"
        && (["nftables", "direct veth"].contains(&text(entry, "reference"))
            || ["p50", "p99"].contains(&text(&entry["params"], "what")))
}

fn text<'a>(entry: &'a Value, key: &str) -> &'a str {
    entry[key].as_str().unwrap_or_default()
}

/// How many rounds at full speed decided, of all; or that all did, and at which share of it the core ran: always so in
/// records that are older than the rule.
fn core(core: &Value) -> String {
    match (text(core, "judged"), core["share"].is_number()) {
        ("at full speed", _) => format!("{} of {}", number(&core["rounds"]), number(&core["of"])),
        ("all", _) => format!("all {}, at {}", number(&core["of"]), number(&core["share"])),
        (_, true) => format!("all, at {}", number(&core["share"])),
        (_, false) => String::new(),
    }
}

fn parameters(params: &Value) -> String {
    let all = params.as_object().into_iter().flatten();
    let words: Vec<String> = all.map(|(key, value)| format!("{key} {}", word(value))).collect();
    words.join(", ")
}

fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(_) => number(value),
        other => other.to_string(),
    }
}

/// Integers and large numbers with separators, others as they were rounded when they were recorded.
fn number(value: &Value) -> String {
    let Some(exact) = value.as_f64() else { return String::new() };
    if exact < 10_000.0 && exact.fract() != 0.0 {
        return exact.to_string();
    }
    let digits = format!("{exact:.0}");
    let groups = digits.as_bytes().rchunks(3).rev().map(|group| String::from_utf8_lossy(group));
    groups.collect::<Vec<_>>().join(",")
}

#[test]
fn the_core_says_which_rounds_decided() {
    let cell = |found: Value| core(&found);
    let found =
        |judged| serde_json::json!({"speed": 1.7, "share": 0.7, "judged": judged, "rounds": 2, "of": 1027});
    assert_eq!(cell(found("all")), "all 1,027, at 0.7");
    assert_eq!(cell(found("at full speed")), "2 of 1,027");
    let old = serde_json::json!({"speed": 1.3, "fastest": 2.5, "share": 0.52, "ratio": 0.75, "rounds": 4});
    assert_eq!((cell(old), cell(Value::Null)), ("all, at 0.52".into(), String::new()));
}

#[test]
fn only_the_last_record_of_a_case_is_shown() {
    let entry = |time: &str, case: &str, value: f64| {
        serde_json::json!({
            "time": time, "commit": "c0ffee", "command": "scripts/bench.sh", "case": case,
            "params": {"sessions": 1_000_000}, "value": value, "unit": "bytes", "reference": "none", "ratio": 0.5,
            "goal": {"bound": "value <= 2", "met": value <= 2.0}, "cpu": "a CPU",
        })
    };
    let mut last = entry("2T", "a", 12_345.0);
    last["core"] =
        serde_json::json!({"speed": 2.4, "share": 0.97, "judged": "at full speed", "rounds": 9, "of": 14});
    let table = figures(&[entry("1T", "a", 1.5), entry("1T", "b", 2.0), last]);
    let row = "| `a` | sessions 1,000,000 | 12,345 bytes | none | 0.5 | value <= 2 | **missed** | 9 of 14 |";
    assert!(table.contains(row), "{table}");
    assert!(table.contains("| `b` |") && !table.contains("1.5"), "{table}");
    assert!(table.contains("* b: `scripts/bench.sh`, commit c0ffee, a CPU, 1"), "{table}");
}

#[test]
fn without_a_goal_only_what_stands_beside_real_is_shown() {
    let row = |case: &str, reference: &str, params: Value| {
        let entry = serde_json::json!({
            "time": "1T", "case": case, "params": params, "value": 2.5, "unit": "ms", "reference": reference,
            "ratio": 1.5, "goal": null,
        });
        figures(&[entry]).lines().nth(2).unwrap_or_default().to_owned()
    };
    let what = |what: &str| serde_json::json!({ "what": what });
    assert_eq!(
        row("real", "testpmd io", what("p99")),
        "| `real` | what p99 | 2.5 ms | testpmd io | 1.5 |  |  |  |"
    );
    for reference in ["nftables", "direct veth"] {
        assert!(row("real", reference, Value::Null).contains(reference));
        assert_eq!(row("latency", reference, Value::Null), "");
    }
    assert_eq!(row("real", "nginx stream", Value::Null), "");
    assert_eq!(row("latency", "testpmd io", what("p99")), "");
}
