//! Command lines of `fullnatctl` in the documents are command lines that `fullnatctl` understands.

use std::process::Command;

use crate::none_found;
use crate::source::{read, root, tracked};

/// What the program ends with when no gateway answers: it has understood what it was told.
const UNREACHABLE: i32 = 3;

#[test]
fn command_lines_of_documents_are_understood() {
    let mut found = Vec::new();
    let mut seen = 0;
    for file in tracked() {
        if file.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let name = file.strip_prefix(root()).unwrap_or(&file).display().to_string();
        for (number, line) in read(&file).lines().enumerate() {
            for (words, whole) in command_lines(line) {
                seen += 1;
                if let Err(complaint) = understood(&words, whole) {
                    found.push(format!("{name}:{}: {}: {complaint}", number + 1, words.join(" ")));
                }
            }
        }
    }
    assert!(seen > 20, "only {seen} command lines in the documents were found");
    none_found("command lines in documents are understood by fullnatctl", &found);
}

/// The command lines in a line of a document: their words, and whether they are meant to be typed as they stand. What
/// stands in running text may leave arguments out.
fn command_lines(line: &str) -> Vec<(Vec<&str>, bool)> {
    let typed = line.trim_start().trim_start_matches("$ ");
    if let Some(rest) = typed.strip_prefix("fullnatctl ") {
        return vec![(words(rest), true)];
    }
    let spans = line.split('`').skip(1).step_by(2);
    spans.filter_map(|span| span.strip_prefix("fullnatctl ")).map(|rest| (words(rest), false)).collect()
}

/// The words up to a comment, a pipe or a redirection.
fn words(rest: &str) -> Vec<&str> {
    rest.split_whitespace().take_while(|word| !word.starts_with(['#', '|', '>'])).collect()
}

fn understood(words: &[&str], whole: bool) -> Result<(), String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fullnatctl"));
    command.args(["--socket", "/nonexistent/control.sock"]).args(words);
    if !whole {
        command.arg("--help");
    }
    let output = command.output().map_err(|error| error.to_string())?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    // Files that a document names are not there.
    let asked_for_a_file = complaint.starts_with("fullnatctl: cannot read");
    match output.status.code() {
        Some(0 | UNREACHABLE) => Ok(()),
        _ if asked_for_a_file => Ok(()),
        _ => Err(complaint.lines().next().unwrap_or("no word").to_owned()),
    }
}

#[test]
fn what_is_not_a_command_is_not_understood() {
    assert!(understood(&["reload"], false).is_err());
    assert!(understood(&["config", "reload"], false).is_ok());
    assert!(understood(&["sessions", "--limitless"], false).is_err());
    assert!(understood(&["real-server", "drain", "web"], true).is_err(), "an argument is missing");
    assert_eq!(command_lines("see `fullnatctl drops` and"), [(vec!["drops"], false)]);
    assert_eq!(command_lines("    $ fullnatctl config apply x # y"), [(vec!["config", "apply", "x"], true)]);
}
