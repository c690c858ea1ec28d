//! The file, who treats it so, the tailer, and what has to come out of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{Op, Shape};
use crate::tail::identity::{FileStat, PRINT_BYTES};
use crate::tail::{LineKind, Step, TailCursor, TailOptions, Tailer};

const MAX_LINE: u64 = 3000;
const TWIN: &[u8] = br#"{"line":"twin"}"#;

/// One content: a file from its creation or truncation to its end.
#[derive(Default)]
struct Generation {
    content: Vec<u8>,
    /// Lines that begin here or behind may be lost.
    optional_from: Option<u64>,
    /// No name leads to it any more.
    unlinked: bool,
    /// The tailer saw it at the path and still runs.
    held: bool,
}

impl Generation {
    fn may_be_lost_from(&mut self, offset: u64) {
        let known = self.optional_from.unwrap_or(offset);
        self.optional_from = Some(offset.min(known));
    }

    fn lines(&self) -> Vec<(u64, &[u8])> {
        let mut start = 0;
        self.content
            .split_inclusive(|byte| *byte == b'\n')
            .filter_map(|line| {
                let offset = start;
                start += line.len() as u64;
                line.strip_suffix(b"\n").map(|line| (offset, line))
            })
            .collect()
    }
}

/// A line as the tailer hands it out: what is kept of it, and its full length.
pub type Seen = (Vec<u8>, u64);

fn as_seen(line: &[u8]) -> Seen {
    let length = line.len() as u64;
    let kept = if length > MAX_LINE {
        &line[..1024]
    } else {
        line
    };
    (kept.to_vec(), length)
}

pub struct World {
    directory: tempfile::TempDir,
    tailer: Tailer,
    now: Instant,
    serial: u64,
    dated: bool,
    pub rotations: u64,
    /// Rotations of a log that was looked at and of which nothing was read yet.
    pub rotated_unseen: u64,
    generations: Vec<Generation>,
    live: Option<usize>,
    /// First deliveries, by key.
    pub delivered: BTreeMap<(String, u64), Seen>,
    order: Vec<(String, u64)>,
    history: Vec<TailCursor>,
    /// History from here on is at most one truncated generation old.
    history_of_generation: usize,
    late_writes: bool,
    renames: bool,
    copies: bool,
    live_was_copied: bool,
    no_twin: bool,
    replays: bool,
    /// It has looked, or knows a place to go on at; what was rotated before is left alone.
    has_place: bool,
}

impl World {
    pub fn new(dated: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let history = directory.path().join("audit.log.99");
        std::fs::write(history, "rotated before the first look\n").unwrap();
        let tailer = Tailer::open(options(directory.path().join("audit.log")), None);
        let world = Self {
            directory,
            tailer,
            now: Instant::now(),
            serial: 0,
            dated,
            rotations: 0,
            rotated_unseen: 0,
            generations: Vec::new(),
            live: None,
            delivered: BTreeMap::new(),
            order: Vec::new(),
            history: Vec::new(),
            history_of_generation: 0,
            late_writes: false,
            renames: false,
            copies: false,
            live_was_copied: false,
            no_twin: false,
            replays: false,
            has_place: false,
        };
        world.tick();
        world
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("audit.log")
    }

    fn append(&mut self, bytes: &[u8]) {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path())
            .unwrap();
        file.write_all(bytes).unwrap();
        let live = *self.live.get_or_insert_with(|| {
            self.generations.push(Generation::default());
            self.generations.len() - 1
        });
        self.generations[live].content.extend_from_slice(bytes);
    }

    fn line(&mut self, shape: Shape) -> Vec<u8> {
        self.serial += 1;
        let serial = self.serial;
        let mut line = format!("{{\"line\":{serial}}}").into_bytes();
        let is_first = self
            .live
            .is_none_or(|live| self.generations[live].content.is_empty());
        match shape {
            Shape::Plain => {}
            Shape::Crlf => line.push(b'\r'),
            Shape::Nul => line.splice(0..0, [0; 40]).for_each(drop),
            Shape::Huge => line.resize(5000, b'h'),
            Shape::Long => line.resize(1500, b'l'),
            // Files that begin alike.
            Shape::Twin if is_first && !self.no_twin => line = TWIN.to_vec(),
            Shape::Twin => {}
        }
        line.push(b'\n');
        line
    }

    pub fn append_lines(&mut self, count: usize, shape: Shape) {
        for _ in 0..count {
            let line = self.line(shape);
            self.append(&line);
        }
    }

    /// Waits until the file system's clock has moved on: files made before and after can be told apart.
    fn tick(&self) {
        let birth = |name: &str| {
            let path = self.directory.path().join(name);
            let file = File::create(&path).unwrap();
            let stat = FileStat::of(&file).unwrap();
            std::fs::remove_file(path).unwrap();
            stat.birth.unwrap_or(stat.modified)
        };
        let start = birth("clock");
        while birth("clock") <= start {}
    }

    fn rotated_name(&mut self) -> PathBuf {
        self.rotations += 1;
        if self.has_place && self.tailer.position().is_none() && self.delivered.is_empty() {
            self.rotated_unseen += 1;
        }
        if self.dated {
            let name = format!("audit.log-2026{:04}", self.rotations);
            return self.directory.path().join(name);
        }
        let numbered = |number: u64| self.directory.path().join(format!("audit.log.{number}"));
        for number in (1..self.rotations).rev() {
            let _ = std::fs::rename(numbered(number), numbered(number + 1));
        }
        numbered(1)
    }

    pub fn apply(&mut self, op: &Op) {
        match *op {
            Op::Lines { count, shape } => self.append_lines(count, shape),
            Op::Half => {
                let mut line = self.line(Shape::Plain);
                line.pop();
                self.append(&line);
            }
            Op::Rename { late, step_between } => self.rename(late, step_between),
            Op::CopyTruncate {
                written_between,
                steps_between,
            } => {
                self.copy_truncate(written_between, steps_between);
            }
            Op::Truncate { regrow } => self.truncate(regrow),
            Op::Delete => self.delete(),
            Op::Steps { count, quick } => {
                for _ in 0..count {
                    self.step(quick);
                }
            }
            Op::Restart => self.restart(0),
            // With both, a copy made before a renaming cannot be told from a part made after it.
            Op::RestartOlder { back } if !(self.renames && self.copies) => {
                if self.copies {
                    self.forget_others();
                }
                self.restart(back);
            }
            Op::RestartOlder { .. } => self.restart(0),
        }
    }

    fn rename(&mut self, late: bool, step_between: bool) {
        let Some(live) = self.live else { return };
        self.tick();
        if !self.has_place {
            self.give_up(live);
        }
        let mut writer = OpenOptions::new().append(true).open(self.path()).unwrap();
        self.renames = true;
        self.live_was_copied = false;
        self.no_twin = false;
        let name = self.rotated_name();
        std::fs::rename(self.path(), name).unwrap();
        self.live = None;
        if step_between {
            self.step(true);
        }
        self.append_lines(1, Shape::Twin);
        if step_between {
            self.step(true);
        }
        // Truncation, renaming and a late write, all within a few clock ticks, cannot be put in order.
        if late && !self.copies {
            self.late_writes = true;
            let line = self.line(Shape::Plain);
            writer.write_all(&line).unwrap();
            self.generations[live].content.extend_from_slice(&line);
        }
        self.tick();
    }

    fn begin_generation(&mut self) {
        // When nothing but the twin was read, its return in the same inode cannot be seen.
        let second = self.live.and_then(|live| {
            self.generations[live]
                .lines()
                .get(1)
                .map(|line| as_seen(line.1))
        });
        let alone = TWIN.len() as u64 + 1;
        self.no_twin = second
            .is_none_or(|second| !self.delivered.values().any(|seen| *seen == second))
            || self.history.iter().any(|cursor| cursor.offset == alone);
        self.generations.push(Generation::default());
        self.live = Some(self.generations.len() - 1);
        let kept = self.history.len().saturating_sub(1);
        self.history.drain(..self.history_of_generation.min(kept));
        self.forget_others();
        self.history_of_generation = self.history.len();
    }

    /// A cursor older than the live file cannot know what was read of a copy's original.
    fn forget_others(&mut self) {
        let Ok(metadata) = std::fs::metadata(self.path()) else {
            return;
        };
        let Some(last) = self.history.pop() else {
            return;
        };
        let live = FileStat::new(&metadata);
        self.history
            .retain(|cursor| cursor.means_inode(&live) && cursor.offset > 0);
        // Nor can one that has lost its memory tell a twin of what it forgot.
        self.no_twin |= self.history.iter().any(|cursor| !remembers(cursor, &last));
        self.history.push(last);
    }

    fn copy_truncate(&mut self, written_between: bool, steps_between: usize) {
        let Some(live) = self.live else { return };
        if std::mem::take(&mut self.replays) {
            self.drain();
        }
        self.tick();
        if !self.has_place {
            self.give_up(live);
        }
        self.copies = true;
        self.live_was_copied = true;
        let name = self.rotated_name();
        std::fs::copy(self.path(), name).unwrap();
        self.tick();
        let content = &self.generations[live].content;
        let copied = content.len() as u64;
        // The copy of a half line ends as nobody wrote it.
        let written_between = written_between && content.ends_with(b"\n");
        if written_between {
            let line = self.line(Shape::Plain);
            self.append(&line);
        }
        // A short content is not told from another that begins alike.
        let is_told = self.has_place && copied >= PRINT_BYTES as u64;
        for _ in 0..if is_told { steps_between } else { 0 } {
            self.step(true);
        }
        if written_between {
            // Lost by this way of rotating, unless it was just read.
            self.generations[live].may_be_lost_from(copied);
            self.tick();
        }
        let file = OpenOptions::new().write(true).open(self.path()).unwrap();
        file.set_len(0).unwrap();
        self.tick();
        self.begin_generation();
    }

    fn truncate(&mut self, regrow: usize) {
        let Some(live) = self.live else { return };
        if std::mem::take(&mut self.replays) {
            self.drain();
        }
        self.tick();
        self.give_up(live);
        self.copies = true;
        let file = OpenOptions::new().write(true).open(self.path()).unwrap();
        file.set_len(0).unwrap();
        self.begin_generation();
        self.append_lines(regrow, Shape::Twin);
        self.tick();
    }

    fn delete(&mut self) {
        // A short copy whose original is gone as well may be any file that begins alike.
        if self.live_was_copied {
            return;
        }
        let Some(live) = self.live.take() else { return };
        std::fs::remove_file(self.path()).unwrap();
        self.generations[live].unlinked = true;
        if !self.generations[live].held {
            self.give_up(live);
        }
        self.tick();
    }

    /// What was not handed out of it by now may be lost.
    fn give_up(&mut self, generation: usize) {
        let delivered: BTreeSet<&Seen> = self.delivered.values().collect();
        let generation = &mut self.generations[generation];
        let first_missing = generation
            .lines()
            .into_iter()
            .find(|(_, line)| !delivered.contains(&as_seen(line)) || is_twin(line))
            .map(|(offset, _)| offset);
        let complete = generation.content.iter().rposition(|byte| *byte == b'\n');
        let end = complete.map_or(0, |last| last as u64 + 1);
        generation.may_be_lost_from(first_missing.unwrap_or(end));
    }

    /// What no name leads to any more is gone with the tailer's descriptors.
    fn let_go(&mut self) {
        for index in 0..self.generations.len() {
            self.generations[index].held = false;
            if self.generations[index].unlinked {
                self.give_up(index);
            }
        }
    }

    fn restart(&mut self, back: usize) {
        let cursor = self
            .history
            .len()
            .checked_sub(1 + back)
            .map(|index| self.history[index].clone());
        if cursor.is_none() && (back > 0 || !self.history.is_empty()) {
            return;
        }
        self.let_go();
        for index in 0..self.generations.len() {
            if cursor.is_none() && self.live != Some(index) {
                // A start without a cursor reads the live file only.
                self.give_up(index);
            }
        }
        self.has_place = cursor.is_some();
        self.replays |= back > 0;
        let stored = cursor.map(|cursor| {
            let json = serde_json::to_value(&cursor).unwrap();
            serde_json::from_value(json).unwrap()
        });
        self.tailer = Tailer::open(options(self.path()), stored);
    }

    fn step(&mut self, quick: bool) -> bool {
        self.now += Duration::from_millis(if quick { 100 } else { 1500 });
        let step = self.tailer.step_at(self.now).unwrap();
        // While it hands out what it has of a truncated file it does not look at the path.
        if let Some(live) = self.live
            && let Ok(metadata) = std::fs::metadata(self.path())
            && self.tailer.is_known(&FileStat::new(&metadata))
        {
            self.generations[live].held = true;
        }
        self.has_place = true;
        let chunk = match step {
            Step::Lines(chunk) => chunk,
            Step::Idle { cursor_after, .. } => {
                self.history.extend(cursor_after);
                return false;
            }
        };
        assert!(!chunk.lines.is_empty());
        let first = chunk.lines[0].offset;
        assert_eq!(chunk.cursor_after.offset - chunk.bytes, first);
        for line in &chunk.lines {
            let length = match line.kind {
                LineKind::Oversized { length } => length,
                LineKind::Complete | LineKind::Unterminated => line.bytes.len() as u64,
            };
            let seen = (line.bytes.to_vec(), length);
            let key = (chunk.file_key.to_string(), line.offset);
            match self.delivered.get(&key) {
                Some(before) => assert_eq!(*before, seen, "one key, two lines: {key:?}"),
                None => {
                    self.order.push(key.clone());
                    self.delivered.insert(key, seen);
                }
            }
        }
        self.history.push(chunk.cursor_after);
        true
    }

    pub fn drain(&mut self) {
        let mut idle = 0;
        for _ in 0..2000 {
            if self.step(false) {
                idle = 0;
            } else {
                idle += 1;
            }
            if idle > 12 {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    pub fn check(&self) {
        let mut expected: HashMap<Seen, Vec<(usize, u64, bool)>> = HashMap::new();
        let mut halves = Vec::new();
        for (index, generation) in self.generations.iter().enumerate() {
            for (offset, line) in generation.lines() {
                let is_optional = generation.optional_from.is_some_and(|from| offset >= from);
                expected
                    .entry(as_seen(line))
                    .or_default()
                    .push((index, offset, is_optional));
            }
            let last = generation.content.split(|byte| *byte == b'\n').next_back();
            halves.push(last.unwrap_or_default().to_vec());
        }
        let mut counts: HashMap<&Seen, usize> = HashMap::new();
        let mut keys: BTreeMap<&str, usize> = BTreeMap::new();
        let mut last_place = (0, 0);
        // Nothing tells whether a copy of a renamed file was made before or after the renaming.
        let may_be_mixed_up = self.late_writes || (self.renames && self.copies);
        for key in &self.order {
            let seen = &self.delivered[key];
            let Some(places) = expected.get(seen) else {
                // The rest of a cut line, when the file was let go between its halves.
                assert!(halves.contains(&seen.0), "nobody wrote {seen:?} at {key:?}");
                continue;
            };
            *counts.entry(seen).or_default() += 1;
            let [(generation, offset, _)] = places[..] else {
                continue;
            };
            assert_eq!(key.1, offset, "{key:?}");
            let known = keys.entry(&key.0).or_insert(generation);
            assert_eq!(*known, generation, "one key, two files: {key:?}");
            if !may_be_mixed_up {
                assert!(last_place <= (generation, offset), "out of order: {key:?}");
                last_place = (generation, offset);
            }
        }
        let distinct: BTreeSet<usize> = keys.values().copied().collect();
        assert_eq!(distinct.len(), keys.len(), "one file, two keys: {keys:?}");
        for (seen, places) in &expected {
            let count = counts.get(seen).copied().unwrap_or_default();
            let must = places.iter().filter(|place| !place.2).count();
            let text = String::from_utf8_lossy(&seen.0[..seen.0.len().min(60)]);
            assert!(count >= must, "lost: {text} {places:?}, came {count} times");
            assert!(
                count <= places.len(),
                "came {count} times: {text} {places:?}"
            );
        }
    }

    /// A replay without any cursor gives the lines of the live file the keys they have.
    pub fn check_replay_without_cursor(&mut self) {
        let Some(live) = self.live else { return };
        let known = self.delivered.len();
        let is_marked = self
            .tailer
            .cursor()
            .and_then(|cursor| cursor.file_key)
            .is_none_or(|key| key.contains('~'));
        if is_marked || self.generations[live].content.is_empty() {
            return;
        }
        self.tailer = Tailer::open(options(self.path()), None);
        self.drain();
        assert_eq!(self.delivered.len(), known, "a replay made new keys");
    }
}

/// Whether it knows of the file that the other one speaks of.
fn remembers(cursor: &TailCursor, other: &TailCursor) -> bool {
    let known = cursor.passed.iter().map(|passed| &passed.key);
    other.file_key.is_none()
        || cursor.file_key == other.file_key
        || other
            .file_key
            .iter()
            .any(|key| known.clone().any(|known| known == key))
}

fn is_twin(line: &[u8]) -> bool {
    line == TWIN
}

fn options(path: PathBuf) -> TailOptions {
    TailOptions {
        max_line: MAX_LINE,
        chunk_bytes: 1500,
        max_lines: 3,
        ..TailOptions::new(path)
    }
}
