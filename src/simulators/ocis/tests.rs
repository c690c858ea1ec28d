use std::collections::{BTreeMap, BTreeSet, HashSet};

use jiff::Timestamp;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;

use super::*;

fn at() -> Timestamp {
    "2026-11-24T03:44:09.7Z".parse().unwrap()
}

fn real_lines() -> Vec<String> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/data/ocis/audit-every-event-type.log"
    );
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// The top-level keys of a line, in the order in which they stand in its text.
fn ordered_keys(line: &str) -> Vec<String> {
    let object: BTreeMap<String, Value> = serde_json::from_str(line).unwrap();
    let mut keys: Vec<(usize, String)> = object
        .into_keys()
        // Every key but the first follows a comma; a name inside of a string has its quotes escaped.
        .map(|key| (line.find(&format!("\"{key}\":")).unwrap(), key))
        .collect();
    keys.sort();
    keys.into_iter().map(|(_, key)| key).collect()
}

#[test]
fn lines_have_the_keys_of_real_lines_in_their_order() {
    let mut real: BTreeMap<String, HashSet<Vec<String>>> = BTreeMap::new();
    for line in real_lines() {
        let action = serde_json::from_str::<Value>(&line).unwrap()["Action"]
            .as_str()
            .unwrap()
            .to_owned();
        real.entry(action).or_default().insert(ordered_keys(&line));
    }
    let people = People::new(1);
    let mut rng = StdRng::seed_from_u64(1);
    let mut compared = 0;
    for shape in Shape::ALL {
        let line = shape.line(&mut rng, &people, at());
        let text = String::from_utf8(line.to_bytes()).unwrap();
        let keys = ordered_keys(text.trim_end());
        assert_eq!(keys, line.keys().collect::<Vec<_>>(), "{shape:?}");
        if let Some(shapes) = real.get(shape.action()) {
            assert!(shapes.contains(&keys), "{shape:?}: {keys:?}");
            compared += 1;
        }
    }
    let made: BTreeSet<&str> = Shape::ALL.iter().map(|shape| shape.action()).collect();
    for action in real.keys() {
        assert!(made.contains(action.as_str()), "no shape writes {action:?}");
    }
    assert!(compared >= 40, "{compared}");
}

#[test]
fn there_are_thirty_five_mutations_and_two_reads() {
    let (reads, mutations): (Vec<Shape>, Vec<Shape>) =
        Shape::ALL.iter().partition(|shape| shape.is_read());
    let actions = |shapes: &[Shape]| {
        let mut actions: BTreeSet<&str> = shapes.iter().map(|shape| shape.action()).collect();
        actions.remove("");
        actions.len()
    };
    assert_eq!(actions(&mutations), 35);
    assert_eq!(actions(&reads), 2);
}

#[test]
fn text_is_escaped_as_go_does() {
    let line = OcisLine::new(
        "file_delete",
        "",
        "",
        "<script>&\u{2028}\n\u{1}\"\\ü🚀".to_owned(),
        Vec::new(),
    );
    let text = String::from_utf8(line.to_bytes()).unwrap();
    let wanted = r#""Message":"\u003cscript\u003e\u0026\u2028\n\u0001\"\\ü🚀""#;
    assert!(text.contains(wanted), "{text}");
    assert!(text.ends_with("\"CLI\":false,\"Level\":1}\n"), "{text}");
}

#[test]
fn times_and_users_are_missing_where_the_original_leaves_them_out() {
    let people = People::new(1);
    let mut rng = StdRng::seed_from_u64(2);
    let shared = Shape::SpaceShared.line(&mut rng, &people, at());
    assert_eq!(shared.field("Time"), Some(&Json::from("")));
    let read = Shape::FileDownloaded.line(&mut rng, &people, at());
    assert_eq!(
        read.field("Time"),
        Some(&Json::from("2026-11-24T03:44:09Z"))
    );
    let visit = Shape::LinkAccessed.line(&mut rng, &people, at());
    let of_the_link = Json::from("2026-11-23T03:44:09Z");
    assert_eq!(visit.field("Time"), Some(&of_the_link));
    assert_eq!(read.field("User"), Some(&Json::from("")));
    let Some(Json::Text(message)) = read.field("Message") else {
        panic!("a message is text");
    };
    assert!(
        people
            .persons
            .iter()
            .any(|p| message.starts_with(&format!("user '{}'", p.uid)))
    );
}

#[test]
fn a_move_has_paths_from_the_root_as_on_a_full_server() {
    let mut rng = StdRng::seed_from_u64(3);
    let moved = Shape::ItemMoved.line(&mut rng, &People::new(1), at());
    for key in ["Path", "OldPath"] {
        let Some(Json::Text(path)) = moved.field(key) else {
            panic!("a path is text");
        };
        assert!(path.starts_with('/'), "{path}");
    }
}

struct World {
    dir: tempfile::TempDir,
    log: OcisLog,
    rng: StdRng,
    people: People,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            log: OcisLog::new(dir.path().join("audit.log")),
            dir,
            rng: StdRng::seed_from_u64(4),
            people: People::new(4),
        }
    }

    fn line(&mut self) -> OcisLine {
        realistic(&mut self.rng, &self.people, at())
    }

    fn write(&mut self, count: usize) {
        for _ in 0..count {
            let line = self.line();
            self.log.append(&line).unwrap();
        }
    }

    fn lines_in(&self, name: &str) -> usize {
        let text = std::fs::read_to_string(self.dir.path().join(name)).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines().count()
    }
}

#[test]
fn the_file_comes_with_the_first_line_and_the_counts_agree_with_it() {
    let mut world = World::new();
    assert!(!world.log.path().exists());
    world.write(25);
    assert_eq!(world.lines_in("audit.log"), 25);
    assert_eq!(world.log.lines_written(), 25);
    let promised = world.log.promised();
    assert_eq!(promised.by_action.values().sum::<u64>(), 25);
    let size = std::fs::metadata(world.log.path()).unwrap().len();
    assert_eq!(world.log.bytes_written(), size);
}

#[test]
fn renaming_keeps_the_old_files_and_the_next_line_makes_a_new_one() {
    let mut world = World::new();
    for _ in 0..4 {
        world.write(3);
        world.log.rotate(Rotation::Rename { keep: 2 }).unwrap();
        assert!(!world.log.path().exists());
    }
    world.write(1);
    assert_eq!(world.lines_in("audit.log"), 1);
    assert_eq!(world.lines_in("audit.log.1"), 3);
    assert_eq!(world.lines_in("audit.log.2"), 3);
    assert!(!world.log.rotated(3).exists());
    assert_eq!((world.log.rotations(), world.log.lines_written()), (4, 13));
}

#[cfg(unix)]
#[test]
fn copytruncate_keeps_the_file_and_empties_it() {
    use std::os::unix::fs::MetadataExt as _;
    let mut world = World::new();
    world.write(3);
    let inode = std::fs::metadata(world.log.path()).unwrap().ino();
    world
        .log
        .rotate(Rotation::CopyTruncate { keep: 1 })
        .unwrap();
    assert_eq!(world.lines_in("audit.log"), 0);
    assert_eq!(world.lines_in("audit.log.1"), 3);
    world.write(2);
    assert_eq!(world.lines_in("audit.log"), 2);
    assert_eq!(std::fs::metadata(world.log.path()).unwrap().ino(), inode);
}

#[test]
fn a_cut_line_is_glued_to_the_next_and_not_promised() {
    let mut world = World::new();
    let lost = world.line();
    world.log.append_cut(&lost, 100).unwrap();
    world.write(1);
    let text = std::fs::read_to_string(world.log.path()).unwrap();
    assert_eq!(text.lines().count(), 1);
    let second = text.rfind("{\"RemoteAddr\":").unwrap();
    assert_eq!(second, 100);
    assert!(serde_json::from_str::<Value>(&text[second..]).is_ok());
    assert_eq!((world.log.lines_written(), world.log.cut_lines()), (1, 1));
}

#[test]
fn halves_make_a_whole_line() {
    let mut world = World::new();
    let line = world.line();
    let mut seen = 0;
    world
        .log
        .append_in_halves(&line, || {
            seen = std::fs::metadata(world.log.path()).unwrap().len();
        })
        .unwrap();
    let whole = line.to_bytes();
    assert_eq!(seen, whole.len() as u64 / 2);
    assert_eq!(std::fs::read(world.log.path()).unwrap(), whole);
    assert_eq!(world.log.lines_written(), 1);
}

#[test]
fn bulk_lines_are_whole_counted_and_of_a_real_size() {
    let mut world = World::new();
    world
        .log
        .append_bulk(20_000, &mut world.rng, &world.people, at())
        .unwrap();
    assert_eq!(world.lines_in("audit.log"), 20_000);
    assert_eq!(world.log.lines_written(), 20_000);
    let mean = world.log.bytes_written() / 20_000;
    assert!((450..900).contains(&mean), "{mean}");
    let text = std::fs::read_to_string(world.log.path()).unwrap();
    let promised = world.log.promised();
    let reads = text.matches("\"Action\":\"file_read\"").count();
    assert_eq!(promised.of("file_read"), reads as u64);
}
