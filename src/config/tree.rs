//! The untyped tree: every value with the place where it was written.
//!
//! A TOML document becomes a tree, environment variables are laid over it, and whatever reads
//! the result (see `section`) can tell for each key which line or which variable it came from.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::secret::redact_url;

/// Where something was written. The order is the order of the report.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// A file as a whole.
    File(Arc<str>),
    /// A line of a file, counted from 1.
    Line(Arc<str>, usize),
    /// An environment variable.
    Environment(Arc<str>),
    /// Nowhere: the built-in default.
    Default,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => f.write_str(file),
            Self::Line(file, line) => write!(f, "{file}:{line}"),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Default => f.write_str("built-in default"),
        }
    }
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

/// The keys of one table.
pub(crate) type Table = BTreeMap<String, Node>;

/// TOML's values; numbers stay text until a type is wanted.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// From the environment: what it is depends on what the key wants.
    Raw(String),
    String(String),
    Integer(String),
    Float(String),
    Boolean(bool),
    Datetime(String),
    Array(Vec<Node>),
    Table(Table),
}

impl Node {
    /// The value in an error's words, without what may be a credential.
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Value::Raw(text) if text.is_empty() => "an empty value".to_owned(),
            Value::String(text) | Value::Raw(text) => quote(text),
            Value::Integer(digits) | Value::Float(digits) => format!("the number {digits}"),
            Value::Boolean(value) => value.to_string(),
            Value::Datetime(text) => format!("the date {text}"),
            Value::Array(_) => "an array".to_owned(),
            Value::Table(_) => "a table".to_owned(),
        }
    }
}

/// Quotes a text of any length and content on one line, credentials in addresses hidden.
pub(crate) fn quote(text: &str) -> String {
    const LONGEST: usize = 80;
    let text = redact_url(text);
    let mut shown: String = text.chars().take(LONGEST).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    format!("{shown:?}")
}

/// A mistake in TOML's grammar; never quotes the line, which may hold a secret.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    pub(crate) line: usize,
    /// The key whose line it is, as far as a broken text tells; else empty.
    pub(crate) key: String,
    pub(crate) found: String,
}

/// Parses a document; `place` makes the place of a line.
pub(crate) fn parse(text: &str, place: &dyn Fn(usize) -> Place) -> Result<Table, Vec<SyntaxError>> {
    let lines = Lines::of(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(convert_table(table.into_inner(), &|span| {
            place(lines.line(span.start))
        }));
    }
    let mut errors: Vec<SyntaxError> = errors
        .iter()
        .map(|error| {
            let line = error.span().map_or(1, |span| lines.line(span.start));
            SyntaxError {
                line,
                key: key_near(text, line).unwrap_or_default(),
                found: error.message().replace('\n', ", "),
            }
        })
        .collect();
    // Recovery after a mistake sees more mistakes in the same line than there are.
    errors.dedup_by_key(|error| error.line);
    Err(errors)
}

/// The key that a line of a broken text seems to set, under the last header before it.
fn key_near(text: &str, line: usize) -> Option<String> {
    // Only what looks like a key of ours: a stray line may hold anything, a secret too.
    let is_plain = |word: &str| {
        let plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.".contains(&byte);
        !word.is_empty() && word.len() <= 32 && word.bytes().all(plain)
    };
    let lines: Vec<&str> = text.lines().take(line).map(str::trim).collect();
    let name = lines.last()?.split('=').next()?.trim();
    if !is_plain(name) || !lines.last()?.contains('=') {
        return None;
    }
    let header_of = |line: &str| {
        let header = line.strip_prefix('[')?.split(']').next()?;
        Some(header.trim_start_matches('[').trim().to_owned())
    };
    let header = lines.iter().rev().find_map(|line| header_of(line));
    let Some(header) = header else {
        return Some(name.to_owned());
    };
    if !is_plain(&header) {
        return None;
    }
    let repeated = format!("[[{header}]]");
    match lines
        .iter()
        .filter(|line| line.starts_with(&repeated))
        .count()
    {
        0 => Some(format!("{header}.{name}")),
        count => Some(format!("{header}[{}].{name}", count - 1)),
    }
}

/// Parses one value, as it stands in an environment variable.
pub(crate) fn parse_value(text: &str, place: &Place) -> Option<Node> {
    let document = format!("value = {text}");
    let mut table = parse(&document, &|_| place.clone()).ok()?;
    // More than one key: the text held a line break and went on with keys of its own.
    if table.len() != 1 {
        return None;
    }
    table.remove("value")
}

struct Lines {
    starts: Vec<usize>,
}

impl Lines {
    fn of(text: &str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let starts = std::iter::once(0)
            .chain(breaks.map(|(at, _)| at + 1))
            .collect();
        Self { starts }
    }

    fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }
}

type PlaceOf<'a> = dyn Fn(Range<usize>) -> Place + 'a;

fn convert_table(table: DeTable<'_>, place: &PlaceOf<'_>) -> Table {
    table
        .into_iter()
        .map(|(key, value)| {
            // The key's line: a value can begin lines later, and a person looks for the key.
            let node = Node {
                place: place(key.span()),
                value: convert_value(value.into_inner(), place),
            };
            (key.into_inner().into_owned(), node)
        })
        .collect()
}

fn convert_value(value: DeValue<'_>, place: &PlaceOf<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.into_owned()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(plain) => Value::Integer(plain.to_string()),
            Err(_) => Value::Integer(number.to_string()),
        },
        DeValue::Float(number) => Value::Float(number.as_str().to_owned()),
        DeValue::Boolean(value) => Value::Boolean(value),
        DeValue::Datetime(date) => Value::Datetime(date.to_string()),
        DeValue::Array(array) => Value::Array(
            array
                .into_iter()
                .map(|element| Node {
                    place: place(element.span()),
                    value: convert_value(element.into_inner(), place),
                })
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(convert_table(table, place)),
    }
}

/// Writes a path of segments as a key: `sources[0].url`.
pub(crate) fn key_of(segments: &[String]) -> String {
    let mut key = String::new();
    for segment in segments {
        if is_index(segment) && !key.is_empty() {
            key.push_str(&format!("[{segment}]"));
        } else {
            if !key.is_empty() {
                key.push('.');
            }
            key.push_str(segment);
        }
    }
    key
}

pub(crate) fn is_index(segment: &str) -> bool {
    !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_digit())
}

/// Lays one value over the tree, making the tables and arrays on its way.
///
/// # Errors
/// What stands in the way, and what is wanted instead: `(found, wanted)`.
pub(crate) fn lay_over(
    table: &mut Table,
    segments: &[String],
    place: &Place,
    raw: &str,
) -> Result<(), (String, String)> {
    let Some((first, rest)) = segments.split_first() else {
        return Ok(());
    };
    let empty = |next: &String| Node {
        place: place.clone(),
        value: if is_index(next) {
            Value::Array(Vec::new())
        } else {
            Value::Table(Table::new())
        },
    };
    let leaf = || Node {
        place: place.clone(),
        value: Value::Raw(raw.to_owned()),
    };
    let Some(next) = rest.first() else {
        table.insert(first.clone(), leaf());
        return Ok(());
    };
    let mut node = table.entry(first.clone()).or_insert_with(|| empty(next));
    for (depth, segment) in rest.iter().enumerate() {
        let following = rest.get(depth + 1);
        let slot = match &mut node.value {
            Value::Table(table) => match following {
                Some(following) => table
                    .entry(segment.clone())
                    .or_insert_with(|| empty(following)),
                None => {
                    table.insert(segment.clone(), leaf());
                    return Ok(());
                }
            },
            Value::Array(array) => {
                let length = array.len();
                let index = segment
                    .parse::<usize>()
                    .ok()
                    .filter(|index| *index <= length);
                let Some(index) = index else {
                    return Err((
                        format!("index {segment}"),
                        format!("an index up to {length}, which is the next free one"),
                    ));
                };
                match following {
                    Some(following) => {
                        if index == length {
                            array.push(empty(following));
                        }
                        &mut array[index]
                    }
                    None => {
                        if index == length {
                            array.push(leaf());
                        } else {
                            array[index] = leaf();
                        }
                        return Ok(());
                    }
                }
            }
            _ => {
                let parent = key_of(&segments[..=depth]);
                return Err((
                    format!("a value in {parent}"),
                    format!("{parent} is a single value; nothing can be set inside it"),
                ));
            }
        };
        node = slot;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn in_file(line: usize) -> Place {
        Place::Line("daybook.toml".into(), line)
    }

    fn segments(path: &str) -> Vec<String> {
        path.split('.').map(str::to_owned).collect()
    }

    fn at<'a>(table: &'a Table, path: &str) -> &'a Node {
        let segments = segments(path);
        let mut node = &table[&segments[0]];
        for segment in &segments[1..] {
            node = match &node.value {
                Value::Table(table) => &table[segment],
                Value::Array(array) => &array[segment.parse::<usize>().unwrap()],
                other => panic!("{other:?}"),
            };
        }
        node
    }

    #[test]
    fn every_value_knows_its_line() {
        let text = "[store]\nurl = \"a\"\ncollections = { events = \"e\" }\n\n\
                    [[sources]]\nkind = \"x\"\n\n[[sources]]\nkind = \"y\"\nlist = [\n  1,\n  2,\n]\n";
        let table = parse(text, &in_file).unwrap();
        let cases = [
            ("store", 1),
            ("store.url", 2),
            ("store.collections.events", 3),
            ("sources.0", 5),
            ("sources.0.kind", 6),
            ("sources.1", 8),
            ("sources.1.kind", 9),
            ("sources.1.list", 10),
            ("sources.1.list.1", 12),
        ];
        for (path, line) in cases {
            assert_eq!(at(&table, path).place, in_file(line), "{path}");
        }
    }

    #[test]
    fn variables_replace_add_and_append() {
        let mut table = parse(
            "[store]\nurl = \"a\"\n[[sources]]\nkind = \"x\"\n",
            &in_file,
        )
        .unwrap();
        let place = Place::Environment("V".into());
        for path in [
            "store.url",
            "http.tls.cert",
            "sources.0.kind",
            "sources.1.kind",
            "list.0",
        ] {
            lay_over(&mut table, &segments(path), &place, path).unwrap();
            assert_eq!(at(&table, path).place, place);
        }
        assert_eq!(at(&table, "store").place, in_file(1));
        assert_eq!(at(&table, "sources.1").place, place);

        let gap = lay_over(&mut table, &segments("sources.9.kind"), &place, "x").unwrap_err();
        assert!(gap.1.contains("up to 2"), "{gap:?}");
        let inside = lay_over(&mut table, &segments("store.url.x"), &place, "x").unwrap_err();
        assert!(
            inside.1.contains("store.url is a single value"),
            "{inside:?}"
        );
    }

    #[test]
    fn a_broken_line_names_its_key_and_nothing_else() {
        let cases = [
            ("x = 1\nx = 2", "x"),
            ("[store]\n# a\nurl = \"sqlite", "store.url"),
            (
                "[[sources]]\nkind = \"a\"\n[[sources]]\nkind = b",
                "sources[1].kind",
            ),
            ("[store]\nc2VjcmV0=", ""),
            ("[store]\nsecret words = 1", ""),
            ("[store\n", ""),
        ];
        for (text, key) in cases {
            let errors = parse(text, &in_file).unwrap_err();
            assert_eq!(errors[0].key, key, "{text}: {errors:?}");
        }
    }

    #[test]
    fn a_value_that_goes_on_with_keys_is_none() {
        let place = Place::Environment("V".into());
        assert!(parse_value("[1, 2]", &place).is_some());
        assert!(parse_value("1\nother = 2", &place).is_none());
        assert!(parse_value("[1, 2", &place).is_none());
    }
}
