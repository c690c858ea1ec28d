use std::fs::OpenOptions;
use std::io::Write;

use proptest::prelude::*;

use super::*;

struct World {
    directory: tempfile::TempDir,
    writer: File,
    reader: Reader,
}

fn world() -> World {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    let writer = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .unwrap();
    let reader = Reader::at(File::open(&path).unwrap(), 0).unwrap();
    World {
        directory,
        writer,
        reader,
    }
}

fn drain(reader: &mut Reader, budget: usize, max_lines: usize, max_line: u64) -> Vec<Line> {
    let mut all = Vec::new();
    loop {
        all.extend(reader.take_lines(max_lines, max_line, None).lines);
        match reader.fill(budget).unwrap() {
            Fill::Read => {}
            Fill::End => {
                let rest = reader.take_lines(max_lines, max_line, None).lines;
                if rest.is_empty() {
                    return all;
                }
                all.extend(rest);
            }
            Fill::Changed => panic!("nobody truncates here"),
        }
    }
}

#[test]
fn half_a_line_waits_for_its_end() {
    let mut world = world();
    world.writer.write_all(b"one\r\ntw").unwrap();
    let lines = drain(&mut world.reader, 4096, 10, 100);
    assert_eq!(lines.len(), 1);
    assert_eq!(&lines[0].bytes[..], b"one\r");
    assert_eq!(world.reader.offset(), 5);
    assert_eq!(world.reader.position(), 7);
    world.writer.write_all(b"o\n\n").unwrap();
    let lines = drain(&mut world.reader, 4096, 10, 100);
    assert_eq!(&lines[0].bytes[..], b"two");
    assert_eq!((lines[1].offset, &lines[1].bytes[..]), (9, &b""[..]));
}

#[test]
fn a_huge_line_costs_no_memory_and_the_next_one_comes() {
    let mut world = world();
    world.writer.write_all(b"first\n").unwrap();
    let huge = vec![b'x'; 10 << 20];
    world.writer.write_all(&huge).unwrap();
    let lines = drain(&mut world.reader, 64 << 10, 10, 1 << 20);
    assert_eq!(lines.len(), 1);
    assert_eq!(world.reader.offset(), 6);
    assert!(world.reader.buffer.capacity() < 4 << 20);
    world.writer.write_all(b"\nlast\n").unwrap();
    let lines = drain(&mut world.reader, 64 << 10, 10, 1 << 20);
    assert_eq!(lines[0].offset, 6);
    assert_eq!(lines[0].kind, LineKind::Oversized { length: 10 << 20 });
    assert_eq!(&lines[0].bytes[..], &huge[..1024]);
    assert_eq!(&lines[1].bytes[..], b"last");
    assert_eq!(lines[1].offset, 6 + (10 << 20) + 1);
    let resumed = Reader::at(
        world.reader.file().try_clone().unwrap(),
        world.reader.offset(),
    )
    .unwrap();
    assert_eq!(resumed.tail_print(), world.reader.tail_print());
    assert_eq!(resumed.head_print(), world.reader.head_print());
}

#[test]
fn content_that_changed_is_never_handed_out() {
    let mut world = world();
    world.writer.write_all(b"one\nhal").unwrap();
    assert_eq!(drain(&mut world.reader, 4096, 10, 100).len(), 1);
    world.writer.set_len(0).unwrap();
    assert_eq!(world.reader.fill(4096).unwrap(), Fill::Changed);
    world
        .writer
        .write_all(b"something else\nthat is longer than before\n")
        .unwrap();
    assert_eq!(world.reader.fill(4096).unwrap(), Fill::Changed);
    assert!(world.reader.take_lines(10, 100, None).lines.is_empty());
    // The same length up to the read position, the same head, another half line.
    world.writer.set_len(0).unwrap();
    world.writer.write_all(b"one\nHALF\n").unwrap();
    assert_eq!(world.reader.fill(4096).unwrap(), Fill::Changed);
}

#[test]
fn a_file_is_opened_anew_whatever_became_of_its_name() {
    let mut world = world();
    world.writer.write_all(b"one\n").unwrap();
    drain(&mut world.reader, 4096, 10, 100);
    assert!(!world.reader.is_changed_anew());
    std::fs::remove_file(world.directory.path().join("audit.log")).unwrap();
    world.writer.write_all(b"two\n").unwrap();
    assert!(world.reader.is_changed_anew());
    let lines = drain(&mut world.reader, 4096, 10, 100);
    assert_eq!((lines[0].offset, &lines[0].bytes[..]), (4, &b"two"[..]));
    assert!(!world.reader.is_changed_anew());
}

#[test]
fn an_unterminated_line_is_handed_out_once() {
    let mut world = world();
    world.writer.write_all(b"one\ncut off").unwrap();
    drain(&mut world.reader, 4096, 10, 100);
    let line = world.reader.take_unterminated(100).unwrap();
    assert_eq!(
        (line.offset, line.kind, &line.bytes[..]),
        (4, LineKind::Unterminated, &b"cut off"[..])
    );
    assert!(world.reader.take_unterminated(100).is_none());
    assert_eq!(world.reader.offset(), 11);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_content_in_any_pieces_yields_its_lines(
        pieces in prop::collection::vec(prop::collection::vec(
            prop_oneof![4 => Just(b'\n'), 20 => any::<u8>(), 1 => Just(0_u8)], 0..60), 0..30),
        budget in 1_usize..50,
        max_lines in 1_usize..5,
        max_line in 1_u64..40,
    ) {
        let mut world = world();
        let mut lines = Vec::new();
        for piece in &pieces {
            world.writer.write_all(piece).unwrap();
            lines.extend(drain(&mut world.reader, budget, max_lines, max_line));
        }
        let content = pieces.concat();
        let mut expected = Vec::new();
        let mut start = 0;
        for (index, byte) in content.iter().enumerate() {
            if *byte == b'\n' {
                expected.push((start as u64, &content[start..index]));
                start = index + 1;
            }
        }
        prop_assert_eq!(lines.len(), expected.len());
        for (line, (offset, bytes)) in lines.iter().zip(expected) {
            prop_assert_eq!(line.offset, offset);
            let length = bytes.len() as u64;
            let (kind, bytes) = if length > max_line {
                (LineKind::Oversized { length }, &bytes[..bytes.len().min(1024)])
            } else {
                (LineKind::Complete, bytes)
            };
            prop_assert_eq!(&line.bytes[..], bytes);
            prop_assert_eq!(line.kind, kind);
        }
        prop_assert_eq!(world.reader.offset(), start as u64);
        let fresh = Reader::at(world.reader.file().try_clone().unwrap(), start as u64).unwrap();
        prop_assert_eq!(fresh.tail_print(), world.reader.tail_print());
        prop_assert_eq!(fresh.head_print(), world.reader.head_print());
    }
}
