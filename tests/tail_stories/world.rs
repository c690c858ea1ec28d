//! A folder with a log, its tailer, and all that came out of it.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use daybook::tail::{FileEvent, GapReason, LineKind, Step, TailCursor, TailOptions, Tailer};

pub struct World {
    directory: tempfile::TempDir,
    pub options: TailOptions,
    pub tailer: Tailer,
    pub now: Instant,
    pub lines: Vec<String>,
    pub keys: Vec<(String, u64)>,
    pub kinds: Vec<LineKind>,
    pub events: Vec<FileEvent>,
    pub cursor: Option<TailCursor>,
}

impl World {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = TailOptions::new(directory.path().join("audit.log"));
        Self {
            tailer: Tailer::open(options.clone(), None),
            options,
            directory,
            now: Instant::now(),
            lines: Vec::new(),
            keys: Vec::new(),
            kinds: Vec::new(),
            events: Vec::new(),
            cursor: None,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn append(&self, text: &str) {
        self.append_to("audit.log", text);
    }

    pub fn append_to(&self, name: &str, text: &str) {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path(name))
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    pub fn rename(&self, from: &str, to: &str) {
        std::fs::rename(self.path(from), self.path(to)).unwrap();
    }

    pub fn truncate(&self) {
        self.truncate_to(0);
    }

    pub fn truncate_to(&self, length: u64) {
        let file = OpenOptions::new()
            .write(true)
            .open(self.path("audit.log"))
            .unwrap();
        file.set_len(length).unwrap();
    }

    pub fn copy_truncate(&self, copy: &str) {
        std::fs::copy(self.path("audit.log"), self.path(copy)).unwrap();
        self.truncate();
    }

    /// Until the file system's clock has moved on: what was done before and after has other times.
    pub fn await_tick(&self) {
        let made = || {
            let path = self.path("clock");
            let file = std::fs::File::create(&path).unwrap();
            let time = file.metadata().unwrap().modified().unwrap();
            std::fs::remove_file(path).unwrap();
            time
        };
        let start = made();
        while made() <= start {}
    }

    pub fn inode(&self, name: &str) -> u64 {
        std::fs::metadata(self.path(name)).unwrap().ino()
    }

    pub fn step(&mut self) -> bool {
        self.now += Duration::from_millis(1200);
        match self.tailer.step_at(self.now).unwrap() {
            Step::Lines(chunk) => {
                for line in &chunk.lines {
                    self.lines
                        .push(String::from_utf8_lossy(&line.bytes).into_owned());
                    self.keys.push((chunk.file_key.to_string(), line.offset));
                    self.kinds.push(line.kind);
                }
                self.events.extend(chunk.events);
                self.cursor = Some(chunk.cursor_after);
                true
            }
            Step::Idle {
                events,
                cursor_after,
            } => {
                self.events.extend(events);
                self.cursor = cursor_after.or(self.cursor.take());
                false
            }
        }
    }

    pub fn drain(&mut self) {
        let mut idle = 0;
        while idle < 6 {
            idle = if self.step() { 0 } else { idle + 1 };
        }
    }

    pub fn stop(&mut self) -> Option<TailCursor> {
        let json = serde_json::to_string(&self.cursor).unwrap();
        serde_json::from_str(&json).unwrap()
    }

    /// As after a crash: only the stored cursor is left.
    pub fn restart(&mut self) {
        let cursor = self.stop();
        self.events.clear();
        self.tailer = Tailer::open(self.options.clone(), cursor);
    }

    /// A compressed file that is told of once more makes the same event.
    pub fn gaps(&self) -> Vec<&FileEvent> {
        let mut told = BTreeSet::new();
        let gaps = self.events.iter().filter(|event| match event {
            FileEvent::Gap {
                why:
                    GapReason::Compressed {
                        inode, modified, ..
                    },
                ..
            } => told.insert((*inode, *modified)),
            FileEvent::Gap { .. } => true,
            _ => false,
        });
        gaps.collect()
    }

    /// What was cut off: the file's key and inode, from where to where.
    pub fn cuts(&self) -> Vec<(&str, u64, u64, Option<u64>)> {
        let gaps = self.gaps().into_iter();
        gaps.map(|gap| match gap {
            FileEvent::Gap {
                file_key: Some(key),
                inode,
                from,
                to,
                why: GapReason::Truncated,
                ..
            } => (&**key, *inode, *from, *to),
            other => panic!("something else than a cut: {other:?}"),
        })
        .collect()
    }

    pub fn is_delivered_once(&self) {
        let distinct: BTreeSet<_> = self.keys.iter().collect();
        assert_eq!(distinct.len(), self.keys.len(), "{:?}", self.keys);
    }
}
