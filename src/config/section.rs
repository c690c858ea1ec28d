//! Reading a table key by key: what is wrong is noted and reading goes on, so that one run tells everything.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::load::{ConfigError, Problem};
use super::nearest::nearest;
use super::tree::{Node, Place, Table, Value, parse_value, quote};
use super::units::{self, ByteSize};

/// What does not fit, without its key and place.
#[derive(Debug)]
pub(crate) struct Mismatch {
    pub(crate) found: String,
    pub(crate) wanted: String,
}

impl Mismatch {
    pub(crate) fn new(found: impl Into<String>, wanted: impl Into<String>) -> Self {
        Self {
            found: found.into(),
            wanted: wanted.into(),
        }
    }
}

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

/// One table being read.
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
                .add_at(&key, node.place.clone(), node.describe(), wanted);
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
                    .add_at(&key, node.place.clone(), node.describe(), wanted);
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
                .add_at(&key, node.place.clone(), node.describe(), wanted);
            return Vec::new();
        };
        let mut values = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.into_iter().enumerate() {
            let key = format!("{key}[{index}]");
            self.report.remember(&key, &node.place);
            let described = node.describe();
            let Value::Table(table) = node.value else {
                self.report
                    .add_at(&key, node.place, described, wanted.as_str());
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

/// The elements of a list: an array, or in the environment `["a", "b"]` or `a,b`.
fn elements(node: &Node) -> Option<Vec<Node>> {
    match &node.value {
        Value::Array(array) => Some(array.clone()),
        Value::Raw(text) if text.trim_start().starts_with('[') => {
            match parse_value(text, &node.place)?.value {
                Value::Array(array) => Some(array),
                _ => None,
            }
        }
        Value::Raw(text) => Some(
            text.split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty())
                .map(|part| Node {
                    place: node.place.clone(),
                    value: Value::Raw(part.to_owned()),
                })
                .collect(),
        ),
        _ => None,
    }
}

/// A text as it stands.
pub(crate) fn text(node: &Node) -> Result<String, Mismatch> {
    match &node.value {
        Value::String(text) | Value::Raw(text) => Ok(text.clone()),
        _ => Err(Mismatch::new(node.describe(), "a text in quotes")),
    }
}

/// A text that says something.
pub(crate) fn filled_text(node: &Node) -> Result<String, Mismatch> {
    let text = text(node)?;
    if text.trim().is_empty() {
        return Err(Mismatch::new(node.describe(), "a text that is not empty"));
    }
    Ok(text)
}

/// A path; relative ones count from the working directory.
pub(crate) fn path(node: &Node) -> Result<PathBuf, Mismatch> {
    let text = text(node)?;
    if text.trim().is_empty() || text.contains('\0') {
        return Err(Mismatch::new(node.describe(), "a path"));
    }
    Ok(PathBuf::from(text))
}

/// `true` or `false`, in the environment also `1`, `0`, `yes`, `no`, `on`, `off`.
pub(crate) fn boolean(node: &Node) -> Result<bool, Mismatch> {
    match &node.value {
        Value::Boolean(value) => Ok(*value),
        Value::Raw(text) => match unquoted(text).to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err(Mismatch::new(node.describe(), "true or false")),
        },
        _ => Err(Mismatch::new(
            node.describe(),
            "true or false, without quotes",
        )),
    }
}

/// A whole number within bounds.
pub(crate) fn whole(least: u32, most: u32) -> impl Fn(&Node) -> Result<u32, Mismatch> {
    move |node| {
        let digits = match &node.value {
            Value::Integer(digits) => digits.as_str(),
            Value::Raw(text) => unquoted(text),
            _ => "",
        };
        match digits.parse::<u32>() {
            Ok(number) if (least..=most).contains(&number) => Ok(number),
            _ => Err(Mismatch::new(
                node.describe(),
                format!("a whole number from {least} to {most}"),
            )),
        }
    }
}

/// A size in bytes within bounds.
pub(crate) fn size(
    least: ByteSize,
    most: ByteSize,
) -> impl Fn(&Node) -> Result<ByteSize, Mismatch> {
    move |node| {
        let written = match &node.value {
            Value::String(text) => text.as_str(),
            Value::Raw(text) => unquoted(text),
            Value::Integer(digits) => digits.as_str(),
            _ => "",
        };
        let size = written
            .parse::<ByteSize>()
            .map_err(|wanted| Mismatch::new(node.describe(), wanted))?;
        if size < least {
            return Err(Mismatch::new(
                node.describe(),
                format!("at least \"{least}\""),
            ));
        }
        if size > most {
            return Err(Mismatch::new(
                node.describe(),
                format!("at most \"{most}\""),
            ));
        }
        Ok(size)
    }
}

/// A duration within bounds.
pub(crate) fn duration(
    least: Duration,
    most: Duration,
) -> impl Fn(&Node) -> Result<Duration, Mismatch> {
    move |node| {
        let written = match &node.value {
            Value::String(text) => text.as_str(),
            Value::Raw(text) => unquoted(text),
            Value::Integer(digits) if !digits.starts_with('-') => {
                return Err(Mismatch::new(
                    node.describe(),
                    units::add_a_time_unit(digits),
                ));
            }
            _ => "",
        };
        let duration = units::parse_duration(written)
            .map_err(|wanted| Mismatch::new(node.describe(), wanted))?;
        let bound = |word: &str, bound: Duration| {
            Mismatch::new(
                node.describe(),
                format!("at {word} \"{}\"", units::format_duration(bound)),
            )
        };
        if duration < least {
            return Err(bound("least", least));
        }
        if duration > most {
            return Err(bound("most", most));
        }
        Ok(duration)
    }
}

/// An address with its port.
pub(crate) fn socket_address(node: &Node) -> Result<SocketAddr, Mismatch> {
    let wanted = "an address and a port, such as \"127.0.0.1:8080\", \"0.0.0.0:8080\" or \"[::1]:8080\"; names are not looked up";
    text(node)
        .map_err(|mismatch| Mismatch::new(mismatch.found, wanted))?
        .trim()
        .parse()
        .map_err(|_| Mismatch::new(node.describe(), wanted))
}

/// An address or a network.
pub(crate) fn network(node: &Node) -> Result<IpNet, Mismatch> {
    units::parse_network(&text(node)?).map_err(|wanted| Mismatch::new(node.describe(), wanted))
}

/// One word of a few.
pub(crate) fn word<T: Copy>(
    words: &'static [(&'static str, T)],
) -> impl Fn(&Node) -> Result<T, Mismatch> {
    move |node| {
        let found = text(node).ok();
        let choice = found.and_then(|found| words.iter().find(|(word, _)| *word == found));
        choice.map(|(_, value)| *value).ok_or_else(|| {
            let list: Vec<String> = words.iter().map(|(word, _)| quote(word)).collect();
            Mismatch::new(node.describe(), format!("one of {}", list.join(", ")))
        })
    }
}

/// Variables are written by people who may or may not quote.
fn unquoted(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .unwrap_or(text)
}
