//! From text to the model: the document's shape.
//!
//! A document of the right shape is read in one go. One of the wrong shape is read again table by table, so that each
//! table reports its own mistake and not only the first one in the file.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::mistake::Mistake;
use super::model::{self, Document};

/// Reads a TOML document.
pub(super) fn from_toml(text: &str) -> Result<Document, Vec<Mistake>> {
    toml::from_str(text).map_err(|error| {
        let table_by_table = toml::from_str::<Value>(text).map(wrong_tables).unwrap_or_default();
        if table_by_table.is_empty() {
            let path = error.span().map(|span| line_and_column(text, span.start)).unwrap_or_default();
            vec![Mistake { path, ..in_our_words(error.message()) }]
        } else {
            table_by_table
        }
    })
}

/// Reads the same document as JSON.
pub(super) fn from_json(bytes: &[u8]) -> Result<Document, Vec<Mistake>> {
    serde_json::from_slice(bytes).map_err(|error| {
        let table_by_table = serde_json::from_slice(bytes).map(wrong_tables).unwrap_or_default();
        if table_by_table.is_empty() {
            let path = format!("line {} column {}", error.line(), error.column());
            vec![Mistake { path, ..in_our_words(&error.to_string()) }]
        } else {
            table_by_table
        }
    })
}

/// Reads the same document from a JSON value.
pub(super) fn from_value(value: Value) -> Result<Document, Vec<Mistake>> {
    Document::deserialize_value(&value).map_err(|first| {
        let table_by_table = wrong_tables(value);
        if table_by_table.is_empty() { vec![first] } else { table_by_table }
    })
}

impl Document {
    fn deserialize_value(value: &Value) -> Result<Self, Mistake> {
        serde_path_to_error::deserialize(value).map_err(mistake)
    }
}

/// Every table of a document that has not the right shape, with its first mistake.
fn wrong_tables(document: Value) -> Vec<Mistake> {
    let Value::Object(mut document) = document else { return Vec::new() };
    let mut mistakes = Vec::new();
    let mut check = |key: &str, test: fn(Value) -> Result<(), Mistake>| {
        if let Some(value) = document.remove(key) {
            collect(key, value, test, &mut mistakes);
        }
    };
    check("dataplane", is::<model::Dataplane>);
    check("control", is::<model::Control>);
    check("timeouts", is::<model::Timeouts>);
    check("refusal", is::<model::Refusal>);
    check("neighbours", is::<model::Neighbours>);
    check("port", is::<model::Port>);
    check("route", is::<model::Route>);
    check("local_pool", is::<model::LocalPool>);
    if let Some(Value::Array(services)) = document.get_mut("service") {
        // A service's real servers are tables of their own.
        for (index, service) in services.iter_mut().enumerate() {
            let real_servers = service.as_object_mut().and_then(|service| service.remove("real_server"));
            if let Some(real_servers) = real_servers {
                let key = format!("service[{index}].real_server");
                collect(&key, real_servers, is::<model::RealServer>, &mut mistakes);
            }
        }
    }
    if let Some(value) = document.remove("service") {
        collect("service", value, is::<model::Service>, &mut mistakes);
    }
    // What is left are names that no table has.
    if let Err(mistake) = is::<Document>(Value::Object(document)) {
        mistakes.push(mistake);
    }
    mistakes
}

/// Tests a table, or each one of an array of tables.
fn collect(key: &str, value: Value, test: fn(Value) -> Result<(), Mistake>, mistakes: &mut Vec<Mistake>) {
    let is_array_of_tables = !matches!(key, "dataplane" | "control" | "timeouts" | "refusal" | "neighbours");
    match (value, is_array_of_tables) {
        (Value::Array(tables), true) => {
            for (index, table) in tables.into_iter().enumerate() {
                mistakes.extend(test(table).err().map(|found| below(&format!("{key}[{index}]"), found)));
            }
        }
        (_, true) => mistakes.push(Mistake {
            path: key.to_owned(),
            problem: "this is not a list of tables".to_owned(),
            hint: format!(
                "write [[{}]] with two brackets",
                key.replace(|c: char| c.is_ascii_digit(), "").replace("[]", "")
            ),
        }),
        (table, false) => mistakes.extend(test(table).err().map(|found| below(key, found))),
    }
}

fn is<T: DeserializeOwned>(value: Value) -> Result<(), Mistake> {
    serde_path_to_error::deserialize::<_, T>(value).map(drop).map_err(mistake)
}

fn mistake(error: serde_path_to_error::Error<serde_json::Error>) -> Mistake {
    let path = error.path().to_string();
    Mistake {
        path: if path == "." { String::new() } else { path },
        ..in_our_words(&error.inner().to_string())
    }
}

/// A mistake found in a table, as one of the document.
fn below(table: &str, mut found: Mistake) -> Mistake {
    found.path = match found.path.as_str() {
        "" => table.to_owned(),
        path if path.starts_with('[') => format!("{table}{path}"),
        path => format!("{table}.{path}"),
    };
    found
}

/// serde says what it found and what it expected; we say what is wrong and what to write.
fn in_our_words(message: &str) -> Mistake {
    let message = message.trim().replace('\n', ", ");
    let (problem, hint) = if let Some(field) = message.strip_prefix("missing field ") {
        (format!("{field} is missing"), format!("add {}", field.replace('`', "") + " = ..."))
    } else if let Some((problem, expected)) = message.split_once(", expected ") {
        // "`a` or `b`", "one of `a`, `b`", "i64", "a boolean", "there are no fields"
        let expected = match expected.strip_prefix("one of ") {
            Some(several) => format!("one of {several}"),
            None => expected.replace("i64", "a whole number").replace("struct ", "a table "),
        };
        (problem.to_owned(), format!("write {expected}"))
    } else {
        (message, "correct it there".to_owned())
    };
    Mistake { path: String::new(), problem, hint }
}

fn line_and_column(text: &str, offset: usize) -> String {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|&&byte| byte != b'\n').count() + 1;
    format!("line {line} column {column}")
}
