//! The house: who may name whom, and what nobody on a floor may name.

use crate::none_found;
use crate::source::{SOURCES, Source};

/// Every top-level module and what it may name, from the ground up. `src/lib.rs` draws the floors.
const HOUSE: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("id", &[]),
    ("wire", &[]),
    ("cpu", &[]),
    ("chain", &["cpu"]),
    ("steering", &["id", "wire"]),
    ("session", &["clock", "id", "cpu", "chain", "wire"]),
    ("service", &["id", "wire", "steering", "session"]),
    ("local_pool", &["clock", "id", "wire", "cpu", "chain", "steering", "session", "service"]),
    ("path", &["clock", "id", "wire", "cpu", "steering", "session", "service", "local_pool"]),
    ("worker", &["clock", "id", "wire", "cpu", "session", "service", "local_pool", "path"]),
    ("config", &["id", "wire", "steering", "session", "service", "local_pool"]),
    (
        "control",
        &[
            "clock",
            "id",
            "wire",
            "steering",
            "session",
            "service",
            "local_pool",
            "path",
            "worker",
            "config",
            "metrics",
        ],
    ),
    // A scrape is made of the control socket's views, and the control socket serves it.
    ("metrics", &["path", "worker", "control"]),
    // Beside the house: it implements the packet buffer of the path and is named by the gateway alone.
    ("dpdk", &["clock", "id", "wire", "cpu", "path"]),
    (
        "gateway",
        &[
            "clock",
            "id",
            "wire",
            "cpu",
            "steering",
            "session",
            "service",
            "local_pool",
            "path",
            "worker",
            "config",
            "control",
            "metrics",
            "dpdk",
        ],
    ),
    // The real server's side of TOA: no part of the gateway, and nothing of it in there.
    ("receiver", &[]),
    ("bin", &["cpu", "config", "control", "gateway", "metrics", "receiver"]),
    ("lib", &[]),
];

/// Modules and files that hold unsafe code.
const FENCES: [&str; 3] = ["src/dpdk/", "src/cpu/", "src/receiver/sys.rs"];

/// The path and everything below it.
const PATH_AND_BELOW: [&str; 9] =
    ["clock", "id", "wire", "cpu", "steering", "session", "service", "local_pool", "path"];

/// What nothing at or below the path may name: DPDK, the runtime of control, the system, locks, output.
const FORBIDDEN_ON_THE_PATH: [&str; 18] = [
    "dpdk::",
    "tokio",
    "axum",
    "tracing",
    "nix::",
    "std::time",
    "std::fs",
    "std::io",
    "std::env",
    "std::thread",
    "std::process",
    "Mutex",
    "RwLock",
    "println!",
    "eprintln!",
    "print!",
    "format!",
    "crate::worker",
];

/// Exceptions of that rule, each with its reason.
const ALLOWED_ON_THE_PATH: [(&str, &str); 1] = [
    // maps huge pages at start
    ("src/cpu/huge_array.rs", "nix::"),
];

#[test]
fn imports_look_down_only() {
    let mut found = Vec::new();
    for source in SOURCES.iter() {
        let module = source.module();
        let Some((_, below)) = HOUSE.iter().find(|(name, _)| *name == module) else {
            found.push(format!("{}: module {module} is in no floor of tests/tidy/house.rs", source.path));
            continue;
        };
        for (at, named) in named_modules(source) {
            if named != module && !below.contains(&named.as_str()) {
                found.push(format!("{}: {module} names {named}, which is not below it", source.place(at)));
            }
        }
    }
    none_found("imports look down only (src/lib.rs)", &found);
}

/// The top-level modules that a file names, and where.
fn named_modules(source: &Source) -> Vec<(usize, String)> {
    let code = &source.code;
    let top_level = |name: &str| HOUSE.iter().any(|(module, _)| *module == name);
    let outside = if source.module() == "bin" { "fullnat::" } else { "crate::" };
    let mut named = Vec::new();
    for (at, _) in code.match_indices(outside) {
        let rest = &code[at + outside.len()..];
        for name in path_heads(rest) {
            if top_level(name) {
                named.push((at, name.to_owned()));
            }
        }
    }
    // `super::` as often as the file is deep, or more often within an inner module, leads to the root as well.
    let depth = source.path.trim_end_matches(".rs").trim_end_matches("/mod").split('/').count() - 1;
    for (at, _) in code.match_indices("super::").filter(|(at, _)| !code[..*at].ends_with("super::")) {
        let name = code[at..].trim_start_matches("super::");
        let supers = (code[at..].len() - name.len()) / "super::".len();
        if supers >= depth && top_level(word(name)) {
            named.push((at, word(name).to_owned()));
        }
    }
    named
}

/// The first names of a path: one, or all of a group in braces.
fn path_heads(rest: &str) -> Vec<&str> {
    let Some(group) = rest.strip_prefix('{') else { return vec![word(rest)] };
    let mut depth = 0;
    let mut heads = vec![word(group.trim_start())];
    for (at, byte) in group.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 0 => break,
            b'}' => depth -= 1,
            b',' if depth == 0 => heads.push(word(group[at + 1..].trim_start())),
            _ => {}
        }
    }
    heads
}

fn word(text: &str) -> &str {
    let end = text.find(|char: char| !char.is_alphanumeric() && char != '_').unwrap_or(text.len());
    &text[..end]
}

#[test]
fn unsafe_code_stays_behind_its_fences() {
    let mut found = Vec::new();
    let outside = |source: &&Source| !FENCES.iter().any(|fence| source.path.starts_with(fence));
    for source in SOURCES.iter().filter(outside) {
        for (at, _) in source.code.match_indices("unsafe") {
            let lint = source.code[at..].starts_with("unsafe_code");
            if !lint || source.code[..at].ends_with("allow(") {
                found.push(format!("{}: unsafe code outside its fences", source.place(at)));
            }
        }
    }
    none_found("unsafe code lives in src/dpdk, src/cpu and src/receiver/sys.rs only", &found);
}

#[test]
fn the_path_knows_neither_dpdk_nor_the_system() {
    let mut found = Vec::new();
    for source in SOURCES.iter().filter(|source| PATH_AND_BELOW.contains(&source.module())) {
        let code = source.shipped();
        for forbidden in FORBIDDEN_ON_THE_PATH {
            if ALLOWED_ON_THE_PATH.contains(&(&*source.path, forbidden)) {
                continue;
            }
            for (at, _) in code.match_indices(forbidden) {
                let continues = code[..at].ends_with(|char: char| char.is_alphanumeric() || char == '_');
                if !continues {
                    found.push(format!("{}: names {forbidden}", source.place(at)));
                }
            }
        }
    }
    none_found("nothing at or below the path names DPDK, the system, locks or output", &found);
}

#[test]
fn modules_of_a_group_are_told_apart() {
    assert_eq!(path_heads("wire::{Address, tcp};"), ["wire"]);
    assert_eq!(path_heads("{id::{A, B}, wire, path::x};"), ["id", "wire", "path"]);
}
