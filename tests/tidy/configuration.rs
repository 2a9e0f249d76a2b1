//! The configuration's keys as the model's source documents them: names, kinds, defaults, meanings.
//!
//! Names, kinds and meanings are read from the doc comments of `src/config/model`; defaults are asked of the model
//! itself, by reading the shortest document that has the table and writing it back.

use std::collections::BTreeMap;
use std::fmt::Write;

use fullnat::config::model;
use serde_json::{Value, json};

use crate::source::{read, root};

/// A struct or enum of the model.
#[derive(Default)]
struct Item {
    meaning: String,
    members: Vec<Member>,
    /// whether it is a list of words rather than a table
    is_enum: bool,
}

/// A field or a variant.
struct Member {
    name: String,
    kind: String,
    meaning: String,
    /// whether the document may leave it out
    optional: bool,
}

/// The tables in the order in which a file has them: heading, struct, the shortest document.
fn tables() -> [(&'static str, &'static str, Value); 13] {
    let of = |value: Result<Value, serde_json::Error>| value.expect("a model that can be written");
    let port = json!({"name": "", "device": ""});
    let pool = json!({"name": "", "port": "", "addresses": []});
    let service = json!({"name": "", "listen": "", "protocol": "tcp", "local_pool": ""});
    let filled =
        |value: Value| of(serde_json::from_value::<model::RealServer>(value).and_then(serde_json::to_value));
    [
        ("[dataplane]", "Dataplane", of(serde_json::to_value(model::Dataplane::default()))),
        ("[control]", "Control", of(serde_json::to_value(model::Control::default()))),
        ("[[port]]", "Port", of(serde_json::from_value::<model::Port>(port).and_then(serde_json::to_value))),
        ("[[route]]", "Route", json!({})),
        (
            "[[local_pool]]",
            "LocalPool",
            of(serde_json::from_value::<model::LocalPool>(pool).and_then(serde_json::to_value)),
        ),
        (
            "[[service]]",
            "Service",
            of(serde_json::from_value::<model::Service>(service).and_then(serde_json::to_value)),
        ),
        ("[[service.real_server]]", "RealServer", filled(json!({"address": ""}))),
        ("[service.toa]", "Toa", of(serde_json::to_value(model::Toa::default()))),
        ("[service.uoa]", "Uoa", of(serde_json::to_value(model::Uoa::default()))),
        ("[service.proxy]", "Proxy", of(serde_json::to_value(model::Proxy::default()))),
        ("[timeouts] and [service.timeouts]", "Timeouts", json!({})),
        ("[refusal]", "Refusal", of(serde_json::to_value(model::Refusal::default()))),
        ("[neighbours]", "Neighbours", of(serde_json::to_value(model::Neighbours::default()))),
    ]
}

/// The document's tables.
pub fn document() -> String {
    let items = items();
    let mut out = String::new();
    for (heading, item, defaults) in tables() {
        let item = &items[item];
        let meaning = item.meaning.split_once(": ").map_or(&*item.meaning, |(_, meaning)| meaning);
        let _ = writeln!(
            out,
            "## `{heading}`\n\n{}\n\n| key | value | default | meaning |\n|---|---|---|---|",
            capital(meaning)
        );
        for member in &item.members {
            if !is_table(&member.kind) {
                let _ = writeln!(out, "{}", row(member, &items, defaults.get(&member.name)));
            }
        }
        out.push('\n');
    }
    out
}

/// Every key that the model knows.
pub fn keys() -> Vec<String> {
    let members = items().into_values().filter(|item| !item.is_enum).flat_map(|item| item.members);
    members.filter(|member| !is_table(&member.kind)).map(|member| member.name).collect()
}

fn row(member: &Member, items: &BTreeMap<String, Item>, default: Option<&Value>) -> String {
    let kind = member.kind.trim_start_matches("Option<").trim_end_matches('>');
    let choice = items.get(kind).filter(|item| item.is_enum);
    let list = items.get(kind.trim_start_matches("Vec<")).filter(|item| item.is_enum);
    let value = match (kind, choice, list) {
        (_, Some(choice), _) => words(choice),
        (_, _, Some(list)) => format!("list of {}", words(list)),
        ("i64" | "Vec<i64", ..) => plural(kind, "number"),
        ("bool", ..) => "`true` or `false`".to_owned(),
        ("Listen", ..) => "text or list of texts".to_owned(),
        _ => plural(kind, "text"),
    };
    let (meaning, said) = match member.meaning.rsplit_once("; ") {
        Some((meaning, number)) if number.parse::<u32>().is_ok() => (meaning, Some(format!("`{number}`"))),
        _ => (&*member.meaning, None),
    };
    let default = said.unwrap_or_else(|| match default {
        _ if !member.optional => "needed".to_owned(),
        Some(Value::Array(list)) if list.is_empty() => "none".to_owned(),
        Some(default) => format!("`{default}`"),
        None if kind.starts_with("Vec<") && !member.meaning.contains("Left out") => "none".to_owned(),
        None => "see meaning".to_owned(),
    });
    let mut meaning = capital(meaning);
    for word in choice.or(list).iter().flat_map(|item| &item.members) {
        let _ = write!(meaning, " `{}`: {}", word.name, word.meaning);
    }
    format!("| `{}` | {value} | {default} | {} |", member.name, meaning.replace('|', "\\|"))
}

fn plural(kind: &str, one: &str) -> String {
    if kind.starts_with("Vec<") { format!("list of {one}s") } else { one.to_owned() }
}

fn words(item: &Item) -> String {
    let words: Vec<String> = item.members.iter().map(|member| format!("`\"{}\"`", member.name)).collect();
    words.join(", ")
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// Whether a field is a table of its own.
fn is_table(kind: &str) -> bool {
    let inner = kind.trim_start_matches("Option<").trim_start_matches("Vec<").trim_end_matches('>');
    tables().iter().any(|(_, item, _)| *item == inner)
}

/// Reads the model's source: doc comments, the attributes of serde, `pub struct`, `pub enum`, members.
fn items() -> BTreeMap<String, Item> {
    let mut items = BTreeMap::new();
    for file in ["gateway.rs", "service.rs"] {
        let text = read(&root().join("src/config/model").join(file));
        let mut reader = Reader::default();
        for line in text.lines() {
            reader.line(line, &mut items);
        }
    }
    items
}

#[derive(Default)]
struct Reader {
    doc: Vec<String>,
    serde: String,
    current: Option<(String, Item)>,
    kebab: bool,
    all_optional: bool,
}

impl Reader {
    fn line(&mut self, line: &str, items: &mut BTreeMap<String, Item>) {
        let text = line.trim();
        if let Some(doc) = text.strip_prefix("///") {
            self.doc.push(doc.trim().to_owned());
        } else if text.starts_with("#[serde") || text.starts_with("#[schema") {
            self.serde.push_str(text);
        } else if text == "#[default]" || text.starts_with("#[derive") {
        } else if let Some(name) = item_name(line) {
            self.kebab = self.serde.contains("kebab-case");
            self.all_optional = self.serde.contains(", default)");
            let (meaning, _) = self.take();
            let item = Item { meaning, members: Vec::new(), is_enum: text.contains("enum ") };
            self.current = Some((name.to_owned(), item));
        } else if line == "}" {
            if let Some((name, item)) = self.current.take() {
                items.insert(name, item);
            }
        } else if self.current.is_some() && text.ends_with(',') {
            self.member(text.trim_end_matches(','));
        } else {
            self.take();
        }
    }

    fn member(&mut self, text: &str) {
        let (meaning, serde) = self.take();
        let Some((_, item)) = &mut self.current else { return };
        let member = match text.strip_prefix("pub ").and_then(|field| field.split_once(": ")) {
            Some((name, kind)) => Member {
                name: renamed(&serde).unwrap_or_else(|| name.to_owned()),
                optional: self.all_optional || serde.contains("default") || kind.starts_with("Option<"),
                kind: kind.to_owned(),
                meaning,
            },
            None => Member { name: word(text, self.kebab), kind: String::new(), meaning, optional: false },
        };
        item.members.push(member);
    }

    fn take(&mut self) -> (String, String) {
        (std::mem::take(&mut self.doc).join(" "), std::mem::take(&mut self.serde))
    }
}

/// A variant as serde writes it.
fn word(variant: &str, kebab: bool) -> String {
    let mut word = String::new();
    for (at, char) in variant.chars().enumerate() {
        if kebab && at > 0 && char.is_uppercase() {
            word.push('-');
        }
        word.extend(char.to_lowercase());
    }
    word
}

fn item_name(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub enum "))?;
    rest.strip_suffix(" {")
}

fn renamed(serde: &str) -> Option<String> {
    let (_, rest) = serde.split_once("rename = \"")?;
    rest.split('"').next().map(str::to_owned)
}
