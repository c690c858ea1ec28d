//! What a source said, kept in the form in which it came until somebody needs the other.

use std::borrow::Cow;
use std::ops::{Deref, DerefMut};
use std::sync::OnceLock;

use bytestring::ByteString;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::flat::{self, Scalar};

/// A JSON object: as a tree, or as the text of a [flat object](flat) from which the tree is made
/// when it is first asked for. It reads like the tree, whatever it is.
#[derive(Clone, Debug)]
pub struct Payload(Form);

#[derive(Clone, Debug)]
enum Form {
    Tree(Map<String, Value>),
    Flat {
        text: ByteString,
        tree: OnceLock<Map<String, Value>>,
    },
}

impl Payload {
    /// Keeps a text that [`flat::scan`] has read to its end and in which no key repeats.
    pub(crate) fn flat(text: ByteString) -> Self {
        let tree = OnceLock::new();
        Self(Form::Flat { text, tree })
    }

    /// The text, of a payload that is kept as such.
    pub fn as_flat(&self) -> Option<&str> {
        match &self.0 {
            Form::Flat { text, .. } => Some(text),
            Form::Tree(_) => None,
        }
    }

    /// The object as JSON text.
    ///
    /// # Errors
    /// When it is no JSON, which no decoder makes.
    pub fn to_json(&self) -> serde_json::Result<Cow<'_, str>> {
        match &self.0 {
            Form::Flat { text, .. } => Ok(Cow::Borrowed(text)),
            Form::Tree(tree) => serde_json::to_string(tree).map(Cow::Owned),
        }
    }
}

/// The tree of a flat text.
fn grown(text: &str) -> Map<String, Value> {
    let mut tree = Map::new();
    flat::scan(text, |key, value| {
        let value = match value {
            Scalar::Null => Value::Null,
            Scalar::Bool(flag) => Value::Bool(flag),
            Scalar::Int(number) => Value::Number(number.into()),
            Scalar::Text(text) => Value::String(text.to_owned()),
        };
        tree.insert(key.to_owned(), value);
        true
    });
    tree
}

impl Deref for Payload {
    type Target = Map<String, Value>;

    fn deref(&self) -> &Self::Target {
        match &self.0 {
            Form::Tree(tree) => tree,
            Form::Flat { text, tree } => tree.get_or_init(|| grown(text)),
        }
    }
}

impl DerefMut for Payload {
    fn deref_mut(&mut self) -> &mut Self::Target {
        if let Form::Flat { text, .. } = &self.0 {
            self.0 = Form::Tree(grown(text));
        }
        match &mut self.0 {
            Form::Tree(tree) => tree,
            Form::Flat { .. } => unreachable!("made a tree above"),
        }
    }
}

impl From<Map<String, Value>> for Payload {
    fn from(tree: Map<String, Value>) -> Self {
        Self(Form::Tree(tree))
    }
}

impl From<Payload> for Map<String, Value> {
    fn from(payload: Payload) -> Self {
        match payload.0 {
            Form::Tree(tree) => tree,
            Form::Flat { text, tree } => tree.into_inner().unwrap_or_else(|| grown(&text)),
        }
    }
}

impl From<Payload> for Value {
    fn from(payload: Payload) -> Self {
        Self::Object(payload.into())
    }
}

/// Two payloads are equal when they say the same, in whatever form.
impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl PartialEq<Payload> for Map<String, Value> {
    fn eq(&self, other: &Payload) -> bool {
        *self == **other
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        let text = r#"{"b":"x","a":1,"c":null,"d":true}"#;
        let flat = Payload::flat(text.into());
        let tree = Payload::from(serde_json::from_str::<Map<String, Value>>(text).unwrap());
        assert_eq!(flat, tree);
        assert_eq!(flat["a"], 1);
        assert_eq!(flat.to_json().unwrap(), text);
        assert_eq!(
            Value::from(flat.clone()),
            json!({"a": 1, "b": "x", "c": null, "d": true})
        );
        let mut changed = flat.clone();
        changed.insert("e".to_owned(), json!([]));
        assert_eq!((changed.len(), flat.len()), (5, 4));
        assert_eq!(changed.as_flat(), None);
    }
}
