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
    Flat(Flat, OnceLock<Map<String, Value>>),
}

/// The text of a flat object, and of another one that stands in it, behind its other members.
#[derive(Clone, Debug)]
pub struct Flat {
    text: ByteString,
    nested: Option<(&'static str, String)>,
}

impl Flat {
    /// The text without what is nested.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What is nested: its key and the text of a flat object.
    pub fn nested(&self) -> Option<(&'static str, &str)> {
        let (key, text) = self.nested.as_ref()?;
        Some((key, text))
    }

    fn to_json(&self) -> Cow<'_, str> {
        let Some((key, nested)) = self.nested() else {
            return Cow::Borrowed(&self.text);
        };
        let members = self.text.strip_suffix('}').unwrap_or(&self.text);
        let comma = if members == "{" { "" } else { "," };
        Cow::Owned(format!("{members}{comma}\"{key}\":{nested}}}"))
    }

    fn grown(&self) -> Map<String, Value> {
        let mut tree = grown(&self.text);
        if let Some((key, nested)) = self.nested() {
            tree.insert(key.to_owned(), Value::Object(grown(nested)));
        }
        tree
    }
}

impl Payload {
    /// Keeps a text that [`flat::scan`] has read to its end and in which no key repeats, and within it, under a
    /// key that it does not have, another such text.
    pub(crate) fn flat(text: ByteString, nested: Option<(&'static str, String)>) -> Self {
        Self(Form::Flat(Flat { text, nested }, OnceLock::new()))
    }

    /// The text, of a payload that is kept as such.
    pub fn as_flat(&self) -> Option<&Flat> {
        match &self.0 {
            Form::Flat(flat, _) => Some(flat),
            Form::Tree(_) => None,
        }
    }

    /// The object as JSON text.
    ///
    /// # Errors
    /// When it is no JSON, which no decoder makes.
    pub fn to_json(&self) -> serde_json::Result<Cow<'_, str>> {
        match &self.0 {
            Form::Flat(flat, _) => Ok(flat.to_json()),
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
            Form::Flat(flat, tree) => tree.get_or_init(|| flat.grown()),
        }
    }
}

impl DerefMut for Payload {
    fn deref_mut(&mut self) -> &mut Self::Target {
        if let Form::Flat(flat, _) = &self.0 {
            self.0 = Form::Tree(flat.grown());
        }
        match &mut self.0 {
            Form::Tree(tree) => tree,
            Form::Flat(..) => unreachable!("made a tree above"),
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
            Form::Flat(flat, tree) => tree.into_inner().unwrap_or_else(|| flat.grown()),
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
        let flat = Payload::flat(text.into(), None);
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
        assert!(changed.as_flat().is_none());
    }

    #[test]
    fn what_is_nested_stands_in_every_form() {
        for (text, whole) in [
            ("{}", r#"{"z":{"c":"d","e":"f"}}"#),
            (r#"{"b":"x"}"#, r#"{"b":"x","z":{"c":"d","e":"f"}}"#),
        ] {
            let nested = Some(("z", r#"{"c":"d","e":"f"}"#.to_owned()));
            let mut flat = Payload::flat(text.into(), nested);
            assert_eq!(flat.to_json().unwrap(), whole);
            let tree: Map<String, Value> = serde_json::from_str(whole).unwrap();
            assert_eq!(tree, flat);
            assert_eq!(Map::from(flat.clone()), tree);
            flat.insert("e".to_owned(), json!(1));
            assert_eq!(flat["z"], tree["z"]);
        }
    }
}
