//! The shape of files and functions, and what finished code does not hold.

use fullnat::path::drop_reason::DropReason;

use crate::none_found;
use crate::source::{SOURCES, Source, block_end, read, root, tracked};

const FILE_LINES_MAX: usize = 700;
const FUNCTION_LINES_MAX: usize = 80;
/// Drop reasons that nothing gives yet: to be given or taken out of the table. Whoever does takes them out of here.
const NOT_GIVEN: [DropReason; 0] = [];
const UNFINISHED: [&str; 3] = ["todo!", "unimplemented!", "dbg!"];

#[test]
fn files_are_short() {
    let long = |source: &&Source| source.text.lines().count() > FILE_LINES_MAX;
    let found: Vec<String> = SOURCES
        .iter()
        .filter(long)
        .map(|source| format!("{}: {} lines", source.path, source.text.lines().count()))
        .collect();
    none_found(&format!("a file has at most {FILE_LINES_MAX} lines"), &found);
}

#[test]
fn functions_are_short() {
    let mut found = Vec::new();
    for source in SOURCES.iter() {
        for (at, name, lines) in functions(source) {
            if lines > FUNCTION_LINES_MAX {
                found.push(format!("{}: {name} has {lines} lines", source.place(at)));
            }
        }
    }
    none_found(&format!("a function has at most {FUNCTION_LINES_MAX} lines"), &found);
}

/// Every function with a body: where it begins, its name, its lines.
fn functions(source: &Source) -> Vec<(usize, &str, usize)> {
    let code = &source.code;
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if code[..at].ends_with(|char: char| char.is_alphanumeric() || char == '_') {
            continue;
        }
        let name = code[at + 3..].split(['(', '<']).next().unwrap_or_default();
        let Some(open) = code[at..].find(['{', ';']).map(|offset| at + offset) else { continue };
        if code[open..].starts_with('{') {
            let lines = code[at..block_end(code, open)].matches('\n').count() + 1;
            found.push((at, name, lines));
        }
    }
    found
}

#[test]
fn every_file_says_what_it_is() {
    let silent = SOURCES.iter().filter(|source| !source.text.starts_with("//!"));
    let found: Vec<String> = silent.map(|source| source.path.clone()).collect();
    none_found("every file begins with `//!`", &found);
}

#[test]
fn nothing_is_left_unfinished() {
    let mut found = Vec::new();
    for source in SOURCES.iter() {
        for word in UNFINISHED {
            let places = source.code.match_indices(word);
            found.extend(places.map(|(at, _)| format!("{}: {word}", source.place(at))));
        }
    }
    none_found("committed code is finished", &found);
}

/// A test that is not run holds nothing and says that it does.
#[test]
fn no_test_is_ignored() {
    let ignored = concat!("#[", "ignore");
    let mut found = Vec::new();
    for file in tracked().iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs")) {
        let name = file.strip_prefix(root()).unwrap_or(file).display();
        let text = read(file);
        let lines = text.lines().enumerate().filter(|(_, line)| line.trim_start().starts_with(ignored));
        found.extend(lines.map(|(number, line)| format!("{name}:{}: {}", number + 1, line.trim())));
    }
    none_found("every test runs", &found);
}

/// A reason that nothing gives would be a promise in the documents and a line in every table that never moves.
#[test]
fn every_drop_reason_is_produced() {
    let producers: Vec<String> = SOURCES
        .iter()
        .filter(|source| {
            ["path", "worker"].contains(&source.module()) && !source.path.ends_with("drop_reason.rs")
        })
        .map(Source::shipped)
        .collect();
    let given = |name: &str| producers.iter().any(|code| words(code).any(|word| word == name));
    let found: Vec<String> = DropReason::ALL
        .iter()
        .filter(|reason| given(&format!("{reason:?}")) == NOT_GIVEN.contains(reason))
        .map(|reason| format!("{reason:?} ({})", reason.name()))
        .collect();
    none_found(
        "every drop reason is given somewhere in src/path or src/worker, and NOT_GIVEN lists the others",
        &found,
    );
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|char: char| !char.is_alphanumeric() && char != '_')
}
