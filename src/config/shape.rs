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
    serde_path_to_error::deserialize(&value).map_err(|error| {
        let table_by_table = wrong_tables(value);
        if table_by_table.is_empty() { vec![mistake(error)] } else { table_by_table }
    })
}

/// Every table of a document that has not the right shape, with its first mistake.
fn wrong_tables(document: Value) -> Vec<Mistake> {
    let Value::Object(mut document) = document else { return Vec::new() };
    let mut mistakes = Vec::new();
    type Test = fn(Value) -> Result<(), Mistake>;
    let single: [(&str, Test); 5] = [
        ("dataplane", is::<model::Dataplane>),
        ("control", is::<model::Control>),
        ("timeouts", is::<model::Timeouts>),
        ("refusal", is::<model::Refusal>),
        ("neighbours", is::<model::Neighbours>),
    ];
    for (key, test) in single {
        let wrong = document.remove(key).and_then(|table| test(table).err());
        mistakes.extend(wrong.map(|found| below(key, found)));
    }
    let several: [(&str, Test); 3] =
        [("port", is::<model::Port>), ("route", is::<model::Route>), ("local_pool", is::<model::LocalPool>)];
    for (key, test) in several {
        mistakes
            .extend(document.remove(key).map(|tables| wrong_in_list(key, tables, test)).unwrap_or_default());
    }
    if let Some(Value::Array(services)) = document.get_mut("service") {
        // A service's real servers are tables of their own.
        for (index, service) in services.iter_mut().enumerate() {
            let real_servers = service.as_object_mut().and_then(|service| service.remove("real_server"));
            if let Some(real_servers) = real_servers {
                let key = format!("service[{index}].real_server");
                mistakes.extend(wrong_in_list(&key, real_servers, is::<model::RealServer>));
            }
        }
    }
    if let Some(services) = document.remove("service") {
        mistakes.extend(wrong_in_list("service", services, is::<model::Service>));
    }
    // What is left are names that no table has.
    if let Err(mistake) = is::<Document>(Value::Object(document)) {
        mistakes.push(mistake);
    }
    mistakes
}

/// The mistakes of an array of tables, one for each that has any.
fn wrong_in_list(key: &str, list: Value, test: fn(Value) -> Result<(), Mistake>) -> Vec<Mistake> {
    let Value::Array(tables) = list else {
        let header: String = key.chars().filter(|c| !c.is_ascii_digit() && !matches!(c, '[' | ']')).collect();
        return vec![Mistake {
            path: key.to_owned(),
            problem: "this is not a list of tables".to_owned(),
            hint: format!("write [[{header}]] with two brackets"),
        }];
    };
    let tested = tables.into_iter().map(test).enumerate();
    tested.filter_map(|(index, tested)| Some(below(&format!("{key}[{index}]"), tested.err()?))).collect()
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
