//! Reading a table key by key: what is wrong is noted and reading goes on, so that one run tells everything.

use std::collections::HashMap;

use super::load::{ConfigError, Problem};
use super::nearest::nearest;
use super::tree::{Node, Place, Table, Value, quote};
use super::values::{Mismatch, elements};

/// Everything that was wrong so far, and where every key stood.
#[derive(Debug, Default)]
pub(crate) struct Report {
    problems: Vec<(Place, Problem)>,
    places: HashMap<String, Place>,
}

impl Report {
    /// Notes a problem of a key, at the place of that key or of the nearest table around it.
    pub(crate) fn add(&mut self, key: &str, found: impl Into<String>, wanted: impl Into<String>) {
        let place = self.place(key);
        self.add_at(key, place, found, wanted);
    }

    /// Notes a problem at a known place. A key that is reported already stays with its first problem.
    pub(crate) fn add_at(
        &mut self,
        key: &str,
        place: Place,
        found: impl Into<String>,
        wanted: impl Into<String>,
    ) {
        if !key.is_empty()
            && self
                .problems
                .iter()
                .any(|(at, p)| p.key == key && *at == place)
        {
            return;
        }
        let problem = Problem {
            key: key.to_owned(),
            place: place.to_string(),
            found: found.into(),
            wanted: wanted.into(),
        };
        self.problems.push((place, problem));
    }

    /// Takes over a problem of another file.
    pub(crate) fn adopt(&mut self, problem: Problem) {
        self.problems.push((Place::Default, problem));
    }

    /// Whether the key was written anywhere.
    pub(crate) fn is_set(&self, key: &str) -> bool {
        self.places.contains_key(key)
    }

    pub(crate) fn remember(&mut self, key: &str, place: &Place) {
        self.places.insert(key.to_owned(), place.clone());
    }

    fn place(&self, key: &str) -> Place {
        let mut key = key;
        loop {
            if let Some(place) = self.places.get(key) {
                return place.clone();
            }
            match key.rfind(['.', '[']) {
                Some(end) => key = &key[..end],
                None => return Place::Default,
            }
        }
    }

    /// The problems in the order of the file, then of the environment.
    pub(crate) fn into_result(mut self) -> Result<(), ConfigError> {
        if self.problems.is_empty() {
            return Ok(());
        }
        self.problems.sort_by(|(a, _), (b, _)| a.cmp(b));
        let problems = self
            .problems
            .into_iter()
            .map(|(_, problem)| problem)
            .collect();
        Err(ConfigError { problems })
    }
}

/// One table being read. What is no table or list is not shown: it may be a secret in the place of
/// the files that hold it.
pub(crate) struct Section<'a> {
    key: String,
    place: Place,
    table: Table,
    known: Vec<&'static str>,
    report: &'a mut Report,
}

impl<'a> Section<'a> {
    /// The root of a document.
    pub(crate) fn root(table: Table, place: Place, report: &'a mut Report) -> Self {
        Self {
            key: String::new(),
            place,
            table,
            known: Vec::new(),
            report,
        }
    }

    /// The full key of one of its keys.
    pub(crate) fn key(&self, name: &str) -> String {
        if self.key.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.key)
        }
    }

    /// Whether the key is written.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    /// Whether both keys are written, which say the same thing in two ways. What the environment says goes
    /// before the file here too: the file's other way is dropped.
    pub(crate) fn has_both(&mut self, names: [&str; 2]) -> bool {
        let of_environment = names.map(|name| {
            let node = self.table.get(name)?;
            Some(matches!(node.place, Place::Environment(_)))
        });
        let dropped = match of_environment {
            [Some(true), Some(false)] => names[1],
            [Some(false), Some(true)] => names[0],
            [one, other] => return one.is_some() && other.is_some(),
        };
        self.table.remove(dropped);
        false
    }

    fn remove(&mut self, name: &'static str) -> Option<Node> {
        self.known.push(name);
        let node = self.table.remove(name)?;
        self.report.remember(&self.key(name), &node.place);
        Some(node)
    }

    /// Reads a key that may be missing.
    pub(crate) fn take<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&Node) -> Result<T, Mismatch>,
    ) -> Option<T> {
        let node = self.remove(name)?;
        self.read_node(&self.key(name), &node, read)
    }

    /// Reads a key that must be there; `wanted` says what belongs there.
    pub(crate) fn require<T>(
        &mut self,
        name: &'static str,
        wanted: &str,
        read: impl FnOnce(&Node) -> Result<T, Mismatch>,
    ) -> Option<T> {
        if self.table.contains_key(name) {
            return self.take(name, read);
        }
        self.known.push(name);
        self.report
            .add_at(&self.key(name), self.place.clone(), "nothing", wanted);
        None
    }

    /// Reads a list; each element is reported for itself.
    pub(crate) fn list<T>(
        &mut self,
        name: &'static str,
        wanted: &str,
        read: impl Fn(&Node) -> Result<T, Mismatch>,
    ) -> Option<Vec<T>> {
        let node = self.remove(name)?;
        let key = self.key(name);
        let Some(elements) = elements(&node) else {
            self.report
                .add_at(&key, node.place.clone(), "no list", wanted);
            return None;
        };
        let mut values = Vec::with_capacity(elements.len());
        for (index, element) in elements.iter().enumerate() {
            let key = format!("{key}[{index}]");
            self.report.remember(&key, &element.place);
            values.extend(self.read_node(&key, element, &read));
        }
        Some(values)
    }

    fn read_node<T>(
        &mut self,
        key: &str,
        node: &Node,
        read: impl FnOnce(&Node) -> Result<T, Mismatch>,
    ) -> Option<T> {
        match read(node) {
            Ok(value) => Some(value),
            Err(mismatch) => {
                self.report
                    .add_at(key, node.place.clone(), mismatch.found, mismatch.wanted);
                None
            }
        }
    }

    /// The table under a key.
    pub(crate) fn section(&mut self, name: &'static str) -> Option<Section<'_>> {
        let node = self.remove(name)?;
        let key = self.key(name);
        match node.value {
            Value::Table(table) => Some(Section {
                key,
                place: node.place,
                table,
                known: Vec::new(),
                report: self.report,
            }),
            _ => {
                let wanted = match &node.place {
                    Place::Environment(variable) => {
                        format!("its keys one by one: {variable}__…")
                    }
                    _ => format!("a table: [{key}]"),
                };
                self.report
                    .add_at(&key, node.place.clone(), "no table", wanted);
                None
            }
        }
    }

    /// Reads an array of tables.
    pub(crate) fn sections<T>(
        &mut self,
        name: &'static str,
        mut read: impl FnMut(usize, Section<'_>) -> Option<T>,
    ) -> Vec<T> {
        let Some(node) = self.remove(name) else {
            return Vec::new();
        };
        let key = self.key(name);
        let wanted = match &node.place {
            Place::Environment(variable) => format!("its keys one by one: {variable}__0__…"),
            _ => format!("an array of tables: [[{key}]]"),
        };
        let Value::Array(nodes) = node.value else {
            self.report
                .add_at(&key, node.place.clone(), "no array of tables", wanted);
            return Vec::new();
        };
        let mut values = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.into_iter().enumerate() {
            let key = format!("{key}[{index}]");
            self.report.remember(&key, &node.place);
            let Value::Table(table) = node.value else {
                self.report
                    .add_at(&key, node.place, "no table", wanted.as_str());
                continue;
            };
            let section = Section {
                key,
                place: node.place,
                table,
                known: Vec::new(),
                report: &mut *self.report,
            };
            values.extend(read(index, section));
        }
        values
    }

    /// Refuses a key that people are tempted to write, without showing its value.
    pub(crate) fn refuse(&mut self, name: &str, found: &str, wanted: &str) {
        if let Some(node) = self.table.remove(name) {
            self.report
                .add_at(&self.key(name), node.place, found, wanted);
        }
    }

    /// Notes a problem of this table as a whole.
    pub(crate) fn complain(&mut self, found: &str, wanted: &str) {
        self.report
            .add_at(&self.key, self.place.clone(), found, wanted);
    }

    /// Gives the rest up: nothing more of it is read or reported.
    pub(crate) fn abandon(self) {}

    /// Reports the keys that nobody asked for. Their values are not shown.
    pub(crate) fn finish(mut self) {
        for (name, node) in std::mem::take(&mut self.table) {
            let plain = name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
            let key = if plain {
                self.key(&name)
            } else {
                self.key(&quote(&name))
            };
            let wanted = match (
                self.with_two_underscores(&name, &node),
                nearest(&name, &self.known),
            ) {
                (Some(variable), _) => format!("two underscores a level; did you mean {variable}?"),
                (None, Some(near)) => format!("a known key; did you mean `{near}`?"),
                (None, None) => format!("one of the known keys: {}", self.known.join(", ")),
            };
            self.report
                .add_at(&key, node.place, "an unknown key", wanted);
        }
    }
}

impl Section<'_> {
    /// `DAYBOOK__STORE_URL` for `DAYBOOK__STORE__URL`.
    fn with_two_underscores(&self, name: &str, node: &Node) -> Option<String> {
        if !self.key.is_empty() || !matches!(node.place, Place::Environment(_)) {
            return None;
        }
        let (section, key) = name.split_once('_')?;
        self.known.contains(&section).then(|| {
            format!(
                "DAYBOOK__{}__{}",
                section.to_uppercase(),
                key.to_uppercase()
            )
        })
    }
}
