//! Command lines of `fullnatctl` and `fullnat-toa` in the documents are command lines that these understand.

use std::process::Command;

use crate::none_found;
use crate::source::{read, root, tracked};

/// What a program ends with when no gateway answers, or the receiver has no place: it has understood what it was told.
const UNREACHABLE: i32 = 3;

/// A program whose command lines stand in documents.
struct Program {
    name: &'static str,
    /// none where the features that it needs are off
    path: Option<&'static str>,
    /// what keeps it from whatever runs on this machine
    nowhere: [&'static str; 2],
}

const PROGRAMS: [Program; 2] = [
    Program {
        name: "fullnatctl",
        path: Some(env!("CARGO_BIN_EXE_fullnatctl")),
        nowhere: ["--socket", "/nonexistent/control.sock"],
    },
    Program {
        name: "fullnat-toa",
        path: option_env!("CARGO_BIN_EXE_fullnat-toa"),
        nowhere: ["--pin", "/nonexistent/fullnat-toa"],
    },
];

#[test]
fn command_lines_of_documents_are_understood() {
    let mut found = Vec::new();
    let mut seen = [0; PROGRAMS.len()];
    for file in tracked() {
        if file.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let name = file.strip_prefix(root()).unwrap_or(&file).display().to_string();
        for (number, line) in read(&file).lines().enumerate() {
            for (program, seen) in PROGRAMS.iter().zip(&mut seen) {
                for (words, whole) in command_lines(program.name, line) {
                    *seen += 1;
                    if let Err(complaint) = program.understands(&words, whole) {
                        let words = words.join(" ");
                        found.push(format!("{name}:{}: {} {words}: {complaint}", number + 1, program.name));
                    }
                }
            }
        }
    }
    assert!(seen[0] > 20 && seen[1] > 5, "only {seen:?} command lines in the documents were found");
    none_found("command lines in documents are understood", &found);
}

/// With the values that its own comments give as examples.
#[test]
fn the_receivers_unit_starts_it_as_it_wants_to_be() {
    let [_, receiver] = &PROGRAMS;
    let unit = read(&root().join("conf/fullnat-toa.service"));
    let example = |variable: &str| {
        let line = unit.lines().find_map(|line| line.split_once(variable)?.1.strip_prefix('='));
        line.unwrap_or_else(|| panic!("no example of {variable}")).to_owned()
    };
    let (trust, options) = (example("FULLNAT_TOA_TRUST"), example("FULLNAT_TOA_OPTIONS"));
    let mut seen = 0;
    for line in unit.lines().filter(|line| line.starts_with("Exec")) {
        let (_, words) = line.split_once("/fullnat-toa ").expect("the program");
        let words = words.replace("${FULLNAT_TOA_TRUST}", &trust).replace("$FULLNAT_TOA_OPTIONS", &options);
        assert!(!words.contains('$'), "{words}");
        assert_eq!(receiver.understands(&words.split(' ').collect::<Vec<_>>(), true), Ok(()), "{line}");
        seen += 1;
    }
    assert_eq!(seen, 3, "start, reload, stop");
}

/// What a program says of itself is about the program, not the package.
#[test]
fn help_begins_with_what_the_program_is() {
    for Program { name, path, .. } in &PROGRAMS {
        let Some(path) = path else { continue };
        let output = Command::new(path).arg("--help").output().expect("it runs");
        let help = String::from_utf8(output.stdout).expect("UTF-8");
        let first = help.lines().next().expect("a line");
        assert!(first.len() > 20 && !first.contains(env!("CARGO_PKG_DESCRIPTION")), "{name}: {first}");
    }
}

/// The command lines of a program in a line of a document: their words, and whether they are meant to be typed as they
/// stand. What stands in running text may leave arguments out.
fn command_lines<'a>(program: &str, line: &'a str) -> Vec<(Vec<&'a str>, bool)> {
    let behind_its_name = |text: &'a str| text.strip_prefix(program)?.strip_prefix(' ');
    let typed = line.trim_start().trim_start_matches("$ ");
    if let Some(rest) = behind_its_name(typed) {
        return vec![(words(rest), true)];
    }
    let spans = line.split('`').skip(1).step_by(2);
    spans.filter_map(behind_its_name).map(|rest| (words(rest), false)).collect()
}

/// The words up to a comment, a pipe or a redirection.
fn words(rest: &str) -> Vec<&str> {
    rest.split_whitespace().take_while(|word| !word.starts_with(['#', '|', '>'])).collect()
}

impl Program {
    fn understands(&self, words: &[&str], whole: bool) -> Result<(), String> {
        let Some(path) = self.path else { return Ok(()) };
        let mut command = Command::new(path);
        command.args(self.nowhere).args(words);
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
}

#[test]
fn what_is_not_a_command_is_not_understood() {
    let [control, receiver] = &PROGRAMS;
    assert!(control.understands(&["reload"], false).is_err());
    assert!(control.understands(&["config", "reload"], false).is_ok());
    assert!(control.understands(&["sessions", "--limitless"], false).is_err());
    assert!(control.understands(&["real-server", "drain", "web"], true).is_err(), "an argument is missing");
    assert_eq!(receiver.understands(&["attach", "--trust", "..."], true).is_ok(), receiver.path.is_none());
    assert_eq!(command_lines("fullnatctl", "see `fullnatctl drops` and"), [(vec!["drops"], false)]);
    assert_eq!(
        command_lines("fullnatctl", "    $ fullnatctl config apply x # y"),
        [(vec!["config", "apply", "x"], true)]
    );
}
