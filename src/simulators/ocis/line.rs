//! A line of the audit log: keys in the order of the original, text escaped as Go escapes it.

use std::borrow::Cow;
use std::fmt::Write as _;

/// A JSON value that keeps the order of its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json {
    /// `null`
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Number(i64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Json>),
    /// An object.
    Object(Vec<(Cow<'static, str>, Json)>),
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Json {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Json {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl Json {
    fn write(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Number(value) => {
                // Writing into a String cannot fail.
                let _written = write!(out, "{value}");
            }
            Self::Text(text) => write_text(text, out),
            Self::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    item.write(out);
                }
                out.push(']');
            }
            Self::Object(fields) => write_object(fields, out),
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OcisLine {
    action: String,
    fields: Vec<(Cow<'static, str>, Json)>,
}

impl OcisLine {
    /// A line with the eleven fields that every line has, and those of its action after them.
    ///
    /// `time` and `user` are empty where the original leaves them so.
    pub fn new(
        action: &str,
        user: &str,
        time: &str,
        message: String,
        extra: Vec<(&'static str, Json)>,
    ) -> Self {
        let fixed = [
            ("RemoteAddr", "".into()),
            ("User", user.into()),
            ("URL", "".into()),
            ("Method", "".into()),
            ("UserAgent", "".into()),
            ("Time", time.into()),
            ("App", "admin_audit".into()),
            ("Message", message.into()),
            ("Action", action.into()),
            ("CLI", Json::Bool(false)),
            ("Level", Json::Number(1)),
        ];
        Self {
            action: action.to_owned(),
            fields: fixed
                .into_iter()
                .chain(extra)
                .map(|(key, value)| (Cow::Borrowed(key), value))
                .collect(),
        }
    }

    /// Its `Action`.
    pub fn action(&self) -> &str {
        &self.action
    }

    /// The value of a field.
    pub fn field(&self, key: &str) -> Option<&Json> {
        self.fields
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value)
    }

    /// Its keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|(key, _)| key.as_ref())
    }

    /// The bytes as written, with the newline.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = String::with_capacity(900);
        write_object(&self.fields, &mut text);
        text.push('\n');
        text.into_bytes()
    }
}

fn write_object(fields: &[(Cow<'static, str>, Json)], out: &mut String) {
    out.push('{');
    for (index, (key, value)) in fields.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_text(key, out);
        out.push(':');
        value.write(out);
    }
    out.push('}');
}

/// Go escapes more than JSON asks for: `<`, `>`, `&` and the two line separators.
fn write_text(text: &str, out: &mut String) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                let _written = write!(out, "\\u{:04x}", u32::from(letter));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}
