//! JSON from outside, taken more strictly than `serde_json` does: no key twice, nesting bounded, faults with a path.

use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::refusal::Refusal;
use super::view::Fault;

/// Arrays and objects that may lie in each other.
pub const DEPTH_MAX: usize = 64;

/// Reads a document. UTF-8 without a byte-order mark, one value, nothing behind it.
pub fn parse_value(bytes: &[u8]) -> Result<Value, Refusal> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: 0 }.deserialize(&mut deserializer).and_then(|value| {
        deserializer.end()?;
        Ok(value)
    });
    value.map_err(|error| Refusal::bad_request(format!("The body is not acceptable JSON: {error}.")))
}

/// Reads a body of a known shape; faults are named with their path.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    from_value(parse_value(bytes)?).map_err(|fault| Refusal::BadRequest {
        detail: "The body is JSON, but not what is expected here.".to_owned(),
        errors: vec![fault],
    })
}

/// Turns a document into a known shape, or says where it differs.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, Fault> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        Fault::new(if path == "." { String::new() } else { path }, error.inner().to_string())
    })
}

#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: Error>(self) -> Result<Strict, E> {
        if self.depth == DEPTH_MAX {
            return Err(E::custom(format!("nested deeper than {DEPTH_MAX}")));
        }
        Ok(Strict { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let deeper = self.deeper()?;
        let mut values = Vec::new();
        while let Some(value) = sequence.next_element_seed(deeper)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let deeper = self.deeper()?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(deeper)?;
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("the key {key:?} stands twice in one object")));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    fn fails(text: &[u8]) -> String {
        match parse_value(text) {
            Err(Refusal::BadRequest { detail, .. }) => detail,
            other => panic!("{} was read as {other:?}", String::from_utf8_lossy(text)),
        }
    }

    #[test]
    fn what_is_not_json_is_refused() {
        let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
        assert!(parse_value(&nested(DEPTH_MAX)).is_ok());
        assert!(fails(&nested(DEPTH_MAX + 1)).contains("nested deeper"));
        assert!(fails(&vec![b'['; 1 << 20]).contains("nested deeper"));
        assert!(fails(br#"{"a":1,"b":{"c":1,"c":2}}"#).contains(r#""c" stands twice"#));
        for text in [
            b"".as_slice(),
            b"{",
            b"{\"a\":",
            b"[1,]",
            b"{} {}",
            b"NaN",
            b"-Infinity",
            b"1e999",
            b"\"\\ud800\"",
            b"\"\xff\"",
            b"\"a\0b\"",
            b"\0",
            b"\xef\xbb\xbf{}",
            b"01",
            b"'a'",
        ] {
            fails(text);
        }
    }

    #[test]
    fn a_fault_names_its_path() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[expect(dead_code, reason = "only its shape matters")]
        struct Shape {
            list: Vec<u16>,
        }
        let Err(Refusal::BadRequest { errors, .. }) = parse::<Shape>(br#"{"list":[1,-1]}"#) else { panic!() };
        assert_eq!(errors[0].path, "list[1]");
        let Err(Refusal::BadRequest { errors, .. }) = parse::<Shape>(br#"{"list":[],"more":1}"#) else {
            panic!()
        };
        assert!(errors[0].message.contains("unknown field `more`"), "{errors:?}");
    }

    proptest! {
        #[test]
        fn never_panics_and_agrees_with_serde_json_where_it_accepts(text in "[\\[\\]{}\",:0-9a-e.\\\\ -]{0,40}") {
            if let Ok(value) = parse_value(text.as_bytes()) {
                prop_assert_eq!(value, serde_json::from_str::<Value>(&text).unwrap());
            }
        }
    }
}
