//! From a node to a value of the type that a key wants.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::tree::{Node, Value, parse_value, quote};
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

/// The elements of a list: an array, or in the environment `["a", "b"]` or `a,b`.
pub(crate) fn elements(node: &Node) -> Option<Vec<Node>> {
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
    // Its value is not shown: it may be the secret itself instead of the file that holds it.
    let text = text(node).map_err(|mismatch| Mismatch::new("no text", mismatch.wanted))?;
    if text.trim().is_empty() || text.contains('\0') {
        return Err(Mismatch::new("no path", "a path"));
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

/// A host's name, without a port; in lower case.
pub(crate) fn host_name(node: &Node) -> Result<String, Mismatch> {
    // A dot at the end says that nothing is to be added to it; browsers may send it along.
    let text = text(node)?;
    let name = text.trim_end_matches('.');
    let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_known) {
        return Err(Mismatch::new(
            node.describe(),
            "a host's name without scheme and port: \"audit.example.net\"",
        ));
    }
    Ok(name.to_ascii_lowercase())
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
