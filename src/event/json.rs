//! JSON from outside, as it is said.
//!
//! `serde_json` keeps a number's digits, and a value that is not decoded, by handing them on as an
//! object with one key of its own (`$serde_json::private::Number`, `…::RawValue`), and its reader of
//! values takes every object that begins with such a key for one. Who may choose the keys of an
//! object could say a number in place of it, or text that is parsed without any bound. This reader
//! tells them apart: of an object in the text, the key comes from the parser; of a number that fits
//! no integer, from a string that has no other form.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Any JSON value.
///
/// # Errors
/// When the text is no JSON, or nested deeper than 128 levels.
pub fn from_str(text: &str) -> serde_json::Result<Value> {
    serde_json::from_str::<Json>(text).map(|json| json.0)
}

/// Any JSON value.
///
/// # Errors
/// When the bytes are no JSON in UTF-8, or nested deeper than 128 levels.
pub fn from_slice(bytes: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice::<Json>(bytes).map(|json| json.0)
}

/// A JSON object.
///
/// # Errors
/// As of [`from_str`], and when it is another value.
pub fn object(text: &str) -> serde_json::Result<Map<String, Value>> {
    match from_str(text)? {
        Value::Object(object) => Ok(object),
        _ => Err(de::Error::custom("not an object")),
    }
}

/// How the error of [`twice`] begins.
pub const TWICE: &str = "a name stands twice in an object";

/// The error that tells of a name, or of its beginning, that it stands twice.
pub fn twice<E: de::Error>(name: &str) -> E {
    let name: String = name.chars().take(64).collect();
    E::custom(format_args!("{TWICE}: {name:?}"))
}

/// A JSON object in which no name stands twice: of two that do, a reader keeps one, whatever was meant.
///
/// # Errors
/// As of [`object`], and [`twice`] when one does.
pub fn unambiguous_object(text: &str) -> serde_json::Result<Map<String, Value>> {
    match serde_json::from_str::<Read<true>>(text)?.0 {
        Value::Object(object) => Ok(object),
        _ => Err(de::Error::custom("not an object")),
    }
}

/// A value within what is read otherwise.
#[derive(Clone, Debug)]
pub struct Json(pub Value);

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Read::<false>(value) = Read::deserialize(deserializer)?;
        Ok(Self(value))
    }
}

/// `ONCE`: no name may stand twice.
struct Read<const ONCE: bool>(Value);

impl<'de, const ONCE: bool> Deserialize<'de> for Read<ONCE> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue::<ONCE>).map(Self)
    }
}

struct AnyValue<const ONCE: bool>;

impl<'de, const ONCE: bool> Visitor<'de> for AnyValue<ONCE> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(Read::<ONCE>(element)) = list.next_element()? {
            elements.push(element);
        }
        Ok(Value::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        match map.next_key_seed(FirstKey)? {
            None => {}
            Some(Key::OfNumber) => {
                let digits: String = map.next_value()?;
                let number: Number = digits.parse().map_err(de::Error::custom)?;
                return Ok(Value::Number(number));
            }
            Some(Key::Said(key)) => {
                let Read::<ONCE>(value) = map.next_value()?;
                object.insert(key, value);
            }
        }
        while let Some((key, Read::<ONCE>(value))) = map.next_entry::<String, _>()? {
            if ONCE && object.contains_key(&key) {
                return Err(twice(&key));
            }
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

enum Key {
    /// It stands in the text.
    Said(String),
    /// It introduces the digits of a number.
    OfNumber,
}

/// Asks for an optional key: the parser has some, and what introduces a number is a string whatever
/// it is asked for.
struct FirstKey;

impl<'de> DeserializeSeed<'de> for FirstKey {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for FirstKey {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_some<D: Deserializer<'de>>(self, key: D) -> Result<Key, D::Error> {
        String::deserialize(key).map(Key::Said)
    }

    fn visit_str<E>(self, _introduction: &str) -> Result<Key, E> {
        Ok(Key::OfNumber)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_that_the_parser_uses_for_itself_is_a_key_like_any_other() {
        for token in ["Number", "RawValue"] {
            for value in ["\"7\"", "\"x\"", "\"[1,2]\"", "{\"a\":1}", "null"] {
                for key in [
                    format!("$serde_json::private::{token}"),
                    format!("\\u0024serde_json::private::{token}"),
                ] {
                    let inner = format!("{{\"{key}\":{value}}}");
                    for text in [inner.clone(), format!("{{\"args\":[{inner}]}}")] {
                        let said = text.replace("\\u0024", "$");
                        assert_eq!(from_str(&text).unwrap().to_string(), said);
                    }
                }
            }
        }
        let behind = r#"{"a":1,"$serde_json::private::Number":"7"}"#;
        let read = object(behind).unwrap();
        assert_eq!(read["$serde_json::private::Number"], "7");
        let again = serde_json::to_string(&read).unwrap();
        assert_eq!(object(&again).unwrap(), read);
    }

    #[test]
    fn of_two_names_that_are_alike_the_last_counts_where_they_may_stand() {
        for (text, last) in [
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
            (r#"{"a":1,"\u0061":2}"#, r#"{"a":2}"#),
            (
                r#"{"m":[{"b":{"a":1,"c":0,"a":2}}]}"#,
                r#"{"m":[{"b":{"a":2,"c":0}}]}"#,
            ),
        ] {
            let read = Value::Object(object(text).unwrap());
            assert_eq!(read, from_str(last).unwrap());
            let error = unambiguous_object(text).unwrap_err().to_string();
            let named = format!("{TWICE}: \"a\" at line 1 column ");
            assert!(error.starts_with(&named), "{error}");
            let once = Value::Object(unambiguous_object(last).unwrap());
            assert_eq!(once, from_str(last).unwrap());
        }
        assert!(unambiguous_object(r#"{"a":{"b":1.0},"b":{"b":2}}"#).is_ok());
        let long = "\u{202e}".repeat(65);
        let error = unambiguous_object(&format!("{{\"{long}\":1,\"{long}\":2}}")).unwrap_err();
        let shown = "\\u{202e}".repeat(64);
        assert!(error.to_string().contains(&format!("\"{shown}\"")));
    }

    #[test]
    fn numbers_keep_their_digits() {
        for text in [
            "0",
            "-1",
            "1.10",
            "1e+400",
            "12345678901234567890.123",
            "[1.0,2]",
        ] {
            assert_eq!(from_str(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_object_or_no_json_or_too_deep_is_refused() {
        assert!(object("[]").is_err());
        assert!(from_str("{\"a\":}").is_err());
        assert!(from_str("{} x").is_err());
        assert!(from_str(&"[".repeat(127)).unwrap_err().is_eof());
        let deep = from_str(&"[".repeat(129)).unwrap_err().to_string();
        assert!(deep.starts_with("recursion limit"), "{deep}");
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(".*", inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn everything_else_is_read_as_the_parser_reads_it(value in any_value()) {
            let text = value.to_string();
            prop_assert_eq!(from_str(&text).unwrap(), serde_json::from_str::<Value>(&text).unwrap());
        }
    }
}
