//! What `docs/limits.md` says of the rows of `tests/conformance.tsv`, against the rows and against the names of the tests.

use crate::none_found;
use crate::source::{read, root, tracked};

/// What a test's name says that shows how the gateway does without.
const WITHOUT: &str = "dropped_by_name";

/// Rows of the conformance list that documents name are rows of the list.
#[test]
fn documents_name_rows_that_exist() {
    let table = read(&root().join("tests/conformance.tsv"));
    let rows: Vec<&str> = table.lines().skip(1).filter_map(|line| line.split('\t').next()).collect();
    let limits = read(&root().join("docs/limits.md"));
    let named = limits.split(|char: char| !char.is_ascii_alphanumeric()).filter(|word| is_row(word));
    let found: Vec<String> = named.filter(|row| !rows.contains(row)).map(str::to_owned).collect();
    none_found("docs/limits.md names rows of tests/conformance.tsv", &found);
}

/// A test that names a row says that the row is held. What is not built is held by none, unless it shows that what comes
/// is dropped by its name, or the row is built in part and `docs/limits.md` says so: `(A4 in part)`.
#[test]
fn rows_that_are_not_built_are_held_by_no_test() {
    let missing = not_built(&read(&root().join("docs/limits.md")));
    assert!(missing.len() > 5, "docs/limits.md has its table of what is not built: {missing:?}");
    let mut found = Vec::new();
    for file in tracked() {
        let name = file.strip_prefix(root()).unwrap_or(&file).display().to_string();
        if !name.ends_with(".rs") && !name.ends_with(".py") {
            continue;
        }
        for (number, line) in read(&file).lines().enumerate() {
            let held = rows_held(line).into_iter().filter(|row| missing.contains(row));
            found.extend(held.map(|row| format!("{name}:{}: {row} is not built", number + 1)));
        }
    }
    none_found("no test names a row that docs/limits.md says is not built", &found);
}

/// The rows in the table "Not built yet", ranges spelled out, those that are built in part left out.
fn not_built(limits: &str) -> Vec<String> {
    let (_, rest) = limits.split_once("## Not built yet").expect("the section");
    let section = rest.split("\n## ").next().unwrap_or(rest);
    let mut rows = Vec::new();
    for parenthesis in section.split('(').skip(1).filter_map(|rest| rest.split(')').next()) {
        for item in parenthesis.split(", ") {
            let words: Vec<&str> = item.split(' ').collect();
            match words[..] {
                [row] if is_row(row) => rows.push(row.to_owned()),
                [first, "to", last] if is_row(first) && is_row(last) => {
                    let number = |row: &str| row[1..].parse::<u32>().expect("digits");
                    let range = number(first)..=number(last);
                    rows.extend(range.map(|number| format!("{}{number}", &first[..1])));
                }
                _ => {}
            }
        }
    }
    rows
}

/// The rows that the test whose first line this is says it holds.
fn rows_held(line: &str) -> Vec<String> {
    let line = line.trim_start();
    if !(line.starts_with("fn ") || line.starts_with("def ")) || line.contains(WITHOUT) {
        return Vec::new();
    }
    let names = line.split("conformance_").skip(1);
    names.flat_map(|name| name.split('_').map(str::to_uppercase).take_while(|word| is_row(word))).collect()
}

fn is_row(word: &str) -> bool {
    let mut chars = word.chars();
    chars.next().is_some_and(|first| ('A'..='P').contains(&first))
        && word.len() > 1
        && chars.all(|char| char.is_ascii_digit())
}

#[test]
fn rows_are_read_from_limits_and_names() {
    let limits = "## Not built yet\n| x (E1 to E3, K5) | `a(b)` |\n| y (A4 in part) |\n## Decided\n(C4)";
    assert_eq!(not_built(limits), ["E1", "E2", "E3", "K5"]);
    assert_eq!(rows_held("    fn conformance_g5_l4_checksum() {"), ["G5", "L4"]);
    assert_eq!(rows_held("def test_conformance_N10_x_and_conformance_N9_y(lab):"), ["N10", "N9"]);
    assert!(rows_held("fn conformance_e1_e3_dropped_by_name() {").is_empty());
    assert!(rows_held("// conformance_e1").is_empty());
}
