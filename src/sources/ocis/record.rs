//! A record of the audit log in either of two forms: a parsed object, or a line that was only scanned.
//!
//! What is read out of a record is read through [`Record`], so both forms mean the same.

use serde_json::{Map, Value};

use crate::event::flat::{self, Scalar};

/// The fields of one record.
pub trait Record {
    /// The string under a key, which may be empty.
    fn string(&self, key: &str) -> Option<&str>;
    /// Whether the key is there, whatever its value.
    fn has(&self, key: &str) -> bool;
    /// The truth value under a key.
    fn flag(&self, key: &str) -> Option<bool>;
    /// The string under a key of the object under a key, unless it is empty.
    fn inner_text(&self, key: &str, inner: &str) -> Option<&str>;

    /// The string under a key, unless it is missing or empty.
    fn text(&self, key: &str) -> Option<&str> {
        self.string(key).filter(|text| !text.is_empty())
    }
}

impl Record for Map<String, Value> {
    fn string(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }

    fn has(&self, key: &str) -> bool {
        self.contains_key(key)
    }

    fn flag(&self, key: &str) -> Option<bool> {
        self.get(key).and_then(Value::as_bool)
    }

    fn inner_text(&self, key: &str, inner: &str) -> Option<&str> {
        self.get(key)?.as_object()?.text(inner)
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

/// A line that is a flat object of known keys, none of them twice.
pub(super) struct ScannedLine<'a> {
    text: &'a str,
    values: [Option<Scalar<'a>>; KNOWN_KEYS.len()],
}

impl<'a> ScannedLine<'a> {
    /// Scans a line; `None` when it is anything else.
    pub fn scan(line: &'a [u8]) -> Option<Self> {
        let text = flat::plain_text(line)?;
        let mut values = [None; KNOWN_KEYS.len()];
        // Fields come in the order of the list, but for those that an action lacks.
        let mut expected = 0;
        let whole = flat::scan(text, |key, value| {
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
        whole.then_some(Self { text, values })
    }

    /// The line itself.
    pub fn line(&self) -> &'a str {
        self.text
    }

    fn value(&self, key: &str) -> Option<Scalar<'a>> {
        let index = KNOWN_KEYS.iter().position(|known| *known == key)?;
        self.values[index]
    }
}

impl Record for ScannedLine<'_> {
    fn string(&self, key: &str) -> Option<&str> {
        match self.value(key)? {
            Scalar::Text(text) => Some(text),
            _ => None,
        }
    }

    fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    fn flag(&self, key: &str) -> Option<bool> {
        match self.value(key)? {
            Scalar::Bool(flag) => Some(flag),
            _ => None,
        }
    }

    /// A flat line has no objects.
    fn inner_text(&self, _key: &str, _inner: &str) -> Option<&str> {
        None
    }
}
