//! A record of the audit log in either of two forms: a parsed object, or a line that was only scanned.
//!
//! What is read out of a record is read through [`Record`], so both forms mean the same.

use bytestring::ByteString;
use serde_json::{Map, Value};

use crate::event::flat::{self, Scalar};
use crate::sources::text::text;

/// The fields of one record.
pub trait Record {
    /// The string under a key, which may be empty.
    fn string(&self, key: Key) -> Option<&str>;
    /// Whether the key is there, whatever its value.
    fn has(&self, key: Key) -> bool;
    /// The truth value under a key.
    fn flag(&self, key: Key) -> Option<bool>;
    /// The string under a key of the object under a key, unless it is empty.
    fn inner_text(&self, key: &str, inner: &str) -> Option<&str>;
    /// The string under a key that no scanned line has, unless it is missing or empty.
    fn rare_text(&self, key: &str) -> Option<&str>;
    /// Any part of one of its strings, to be kept.
    fn keep(&self, part: &str) -> ByteString;

    /// The string under a key, unless it is missing or empty.
    fn text(&self, key: Key) -> Option<&str> {
        self.string(key).filter(|text| !text.is_empty())
    }
}

impl Record for Map<String, Value> {
    fn string(&self, key: Key) -> Option<&str> {
        self.get(key.name()).and_then(Value::as_str)
    }

    fn has(&self, key: Key) -> bool {
        self.contains_key(key.name())
    }

    fn flag(&self, key: Key) -> Option<bool> {
        self.get(key.name()).and_then(Value::as_bool)
    }

    fn inner_text(&self, key: &str, inner: &str) -> Option<&str> {
        text(self.get(key)?.as_object()?, inner)
    }

    fn rare_text(&self, key: &str) -> Option<&str> {
        text(self, key)
    }

    fn keep(&self, part: &str) -> ByteString {
        part.into()
    }
}

/// The keys that a scanned line may have. Another one, which may be a secret, is for the parser.
pub(super) const KNOWN_KEYS: [&str; 37] = [
    "RemoteAddr",
    "User",
    "URL",
    "Method",
    "UserAgent",
    "Time",
    "App",
    "Message",
    "Action",
    "CLI",
    "Level",
    "FileID",
    "Owner",
    "Path",
    "OldPath",
    "Key",
    "Tags",
    "ShareID",
    "ItemType",
    "ExpirationDate",
    "SharePass",
    "Permissions",
    "ShareType",
    "ShareWith",
    "ShareOwner",
    "ShareToken",
    "Success",
    "SpaceID",
    "RootItem",
    "Name",
    "Type",
    "NewName",
    "GranteeUserID",
    "GranteeGroupID",
    "QuotaMaxBytes",
    "UserID",
    "GroupID",
];

/// One of the known keys, by its place among them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key(usize);

impl Key {
    /// The key of this name; a panic if there is none, which `key!` makes an error of the compiler.
    pub const fn named(name: &str) -> Self {
        let mut index = 0;
        while index < KNOWN_KEYS.len() {
            if is_same(KNOWN_KEYS[index].as_bytes(), name.as_bytes()) {
                return Self(index);
            }
            index += 1;
        }
        panic!("not a known key")
    }

    fn name(self) -> &'static str {
        KNOWN_KEYS[self.0]
    }
}

const fn is_same(one: &[u8], other: &[u8]) -> bool {
    let mut index = 0;
    while index < one.len() && index < other.len() && one[index] == other[index] {
        index += 1;
    }
    index == one.len() && index == other.len()
}

/// A [`Key`] of a name; one that is not known does not compile.
macro_rules! key {
    ($name:literal) => {
        const { $crate::sources::ocis::record::Key::named($name) }
    };
}
pub(super) use key;

/// A line that is a flat object of known keys, none of them twice.
pub(super) struct ScannedLine<'a> {
    line: &'a ByteString,
    values: [Option<Scalar<'a>>; KNOWN_KEYS.len()],
}

impl<'a> ScannedLine<'a> {
    /// Scans a [plain](flat::is_plain) line; `None` when it is anything else.
    pub fn scan(line: &'a ByteString) -> Option<Self> {
        let mut values = [None; KNOWN_KEYS.len()];
        // Fields come in the order of the list, but for those that an action lacks.
        let mut expected = 0;
        let whole = flat::scan(line, |key, value| {
            let rest = KNOWN_KEYS[expected..]
                .iter()
                .position(|known| *known == key);
            let Some(index) = rest
                .map(|rest| expected + rest)
                .or_else(|| KNOWN_KEYS.iter().position(|known| *known == key))
            else {
                return false;
            };
            expected = index + 1;
            values[index].replace(value).is_none()
        });
        whole.then_some(Self { line, values })
    }

    fn value(&self, key: Key) -> Option<Scalar<'a>> {
        self.values[key.0]
    }

    /// Whether a whole number stands under the key.
    pub fn is_number(&self, key: Key) -> bool {
        matches!(self.value(key), Some(Scalar::Int(_)))
    }

    /// The line with other texts where `other` has some. They must be [plain](flat::plain_text) and without quotes.
    pub fn rewritten(&self, other: impl Fn(Key, &'a str) -> Option<String>) -> ByteString {
        let values = self.values.iter().enumerate();
        let texts = values.filter_map(|(index, value)| match value {
            Some(Scalar::Text(text)) => Some((Key(index), *text)),
            _ => None,
        });
        let mut changes: Vec<(&str, String)> = texts
            .filter_map(|(key, text)| Some((text, other(key, text)?)))
            .collect();
        let start = |part: &str| part.as_ptr().addr() - self.line.as_ptr().addr();
        changes.sort_unstable_by_key(|(old, _)| start(old));
        let mut line = String::with_capacity(self.line.len());
        let mut copied = 0;
        for (old, new) in changes {
            line.push_str(&self.line[copied..start(old)]);
            line.push_str(&new);
            copied = start(old) + old.len();
        }
        line.push_str(&self.line[copied..]);
        line.into()
    }
}

impl Record for ScannedLine<'_> {
    fn string(&self, key: Key) -> Option<&str> {
        match self.value(key)? {
            Scalar::Text(text) => Some(text),
            _ => None,
        }
    }

    fn has(&self, key: Key) -> bool {
        self.value(key).is_some()
    }

    fn flag(&self, key: Key) -> Option<bool> {
        match self.value(key)? {
            Scalar::Bool(flag) => Some(flag),
            _ => None,
        }
    }

    /// A flat line has no objects.
    fn inner_text(&self, _key: &str, _inner: &str) -> Option<&str> {
        None
    }

    fn rare_text(&self, _key: &str) -> Option<&str> {
        None
    }

    fn keep(&self, part: &str) -> ByteString {
        self.line.slice_ref(part)
    }
}
