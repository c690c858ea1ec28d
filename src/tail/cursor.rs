//! The place in the file, as it is stored.

use std::fs::File;
use std::io;

use serde::{Deserialize, Serialize};

use super::awaited::Awaited;
use super::forgotten::Forgotten;
use super::identity::{FileStat, Print, births_agree};
use super::marks::Mark;

/// How many finished files are remembered.
pub(super) const PASSED_LIMIT: usize = 32;

/// Where to go on, and how to recognise the file that this speaks of. Serializes to one JSON object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TailCursor {
    /// The device, as it was numbered then: a hint.
    #[serde(with = "decimal")]
    pub device: u64,
    /// The inode.
    #[serde(with = "decimal")]
    pub inode: u64,
    /// When the file was created, nanoseconds since 1970; absent where the file system does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub birth: Option<i64>,
    /// When the present content began at the earliest, if the file was truncated since its creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<i64>,
    /// Print of the first bytes, up to the offset.
    pub head: Print,
    /// Print of the bytes just before the offset.
    pub tail: Print,
    /// The file's key; absent as long as no line of it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_key: Option<String>,
    /// All before is read.
    pub offset: u64,
    /// Places before the offset to go on at should the file lose its end, oldest first, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<Mark>,
    /// How long the file was at the last look.
    pub size: u64,
    /// When it had been written last, nanoseconds since 1970.
    pub modified: i64,
    /// Files read before this one, oldest first, at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed: Vec<Passed>,
    /// The keys of those before them.
    #[serde(default, skip_serializing_if = "Forgotten::is_empty")]
    pub forgotten: Forgotten,
    /// Set as long as no file of the log was found; the other fields speak of none then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaited: Option<Awaited>,
}

/// A file that was read, and how far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// Its key.
    pub key: String,
    /// Up to here.
    pub offset: u64,
    /// Print of the first bytes, abbreviated; empty in a cursor of an earlier version.
    #[serde(default, skip_serializing_if = "Print::is_empty")]
    pub head: Print,
    /// Print of the bytes before the offset, abbreviated.
    pub tail: Print,
}

impl TailCursor {
    /// The contract's `lastEventId`: `<inode>:<bytePosition>`.
    pub fn last_event_id(&self) -> String {
        format!("{}:{}", self.inode, self.offset)
    }

    /// The key that lines have here which another reader, without this cursor, gives that one: it does not
    /// know what stood in the file before its present content and began alike.
    pub fn key_instead_of<'a>(&'a self, file_key: &'a str) -> &'a str {
        let own = self.file_key.as_deref();
        own.filter(|own| generation(own).0 == generation(file_key).0)
            .unwrap_or(file_key)
    }

    /// Whether this inode can be the one meant; its content has to be compared too.
    pub(super) fn means_inode(&self, stat: &FileStat) -> bool {
        self.inode == stat.inode && births_agree(self.birth, stat.birth)
    }

    /// Whether the file begins with what was read up to the offset.
    pub(super) fn stands_in(&self, file: &File, size: u64) -> io::Result<bool> {
        if size < self.offset {
            return Ok(false);
        }
        Ok(self.head.stands_at(file, 0)? && stands_before(&self.tail, file, self.offset)?)
    }

    /// The file as it was last seen.
    pub(super) fn stat(&self) -> FileStat {
        FileStat {
            device: self.device,
            inode: self.inode,
            birth: self.birth,
            size: self.size,
            modified: self.modified,
            changed: self.modified,
        }
    }

    /// All that was there at the last look had been read.
    pub(super) fn had_read_all(&self) -> bool {
        self.offset >= self.size
    }
}

impl Passed {
    pub(super) fn new(key: &str, offset: u64, head: Print, tail: Print) -> Self {
        Self {
            key: key.to_owned(),
            offset,
            head: head.abbreviated(),
            tail: tail.abbreviated(),
        }
    }

    pub(super) fn stands_in(&self, file: &File, size: u64) -> io::Result<bool> {
        Ok(size >= self.offset
            && self.head.stands_at(file, 0)?
            && stands_before(&self.tail, file, self.offset)?)
    }
}

/// A key without `~n`, and n.
pub(super) fn generation(key: &str) -> (&str, u64) {
    match key.rsplit_once('~') {
        Some((base, number)) => (base, number.parse().unwrap_or(1)),
        None => (key, 1),
    }
}

pub(super) fn stands_before(tail: &Print, file: &File, offset: u64) -> io::Result<bool> {
    match offset.checked_sub(u64::from(tail.len)) {
        Some(start) => tail.stands_at(file, start),
        None => Ok(false),
    }
}

/// As text: a store may keep numbers as signed 64 bits, and some file systems use all of theirs.
mod decimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::tail::marks::MARKS_LIMIT;

    #[test]
    fn it_survives_json_and_is_small_with_a_full_memory() {
        let print = Print::of(&[7; 1024]);
        let key = "1234567-0123456789ab~2";
        let passed = Passed::new(key, 123_456_789, print.clone(), print.clone());
        let mark = Mark {
            offset: 123_456_789,
            print: print.clone().abbreviated(),
        };
        let forgotten = serde_json::json!({ "newest": u64::MAX / 2, "bits": vec![u32::MAX; 128] });
        let cursor = TailCursor {
            device: u64::MAX,
            inode: u64::MAX,
            birth: Some(1_795_503_939_123_456_789),
            begun: None,
            head: print.clone(),
            tail: print,
            file_key: Some("1234567-0123456789ab".to_owned()),
            offset: 300,
            marks: vec![mark; MARKS_LIMIT],
            size: 400,
            modified: 1_795_503_939_123_456_789,
            passed: vec![passed; PASSED_LIMIT],
            forgotten: serde_json::from_value(forgotten).unwrap(),
            awaited: None,
        };
        let value = serde_json::to_value(&cursor).unwrap();
        assert!(value.is_object());
        assert!(
            value.to_string().len() < 8000,
            "{}",
            value.to_string().len()
        );
        assert_eq!(serde_json::from_value::<TailCursor>(value).unwrap(), cursor);
        assert_eq!(cursor.last_event_id(), format!("{}:300", u64::MAX));
        assert_eq!(generation(key), ("1234567-0123456789ab", 2));
    }
}
