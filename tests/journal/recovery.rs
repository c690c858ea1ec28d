//! What a crash and a bad disk leave behind.

use std::fs;

use super::*;

async fn written(count: u64, length: usize) -> (tempfile::TempDir, Vec<PushRecord>) {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let wanted: Vec<_> = (0..count).map(|number| push(number, length)).collect();
    for record in &wanted {
        journal.append(record.clone()).await.unwrap();
    }
    journal.close().await;
    (dir, wanted)
}

/// Where each record's frame ends in the only segment.
fn frame_ends(bytes: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = 24;
    while at < bytes.len() {
        at += 12 + u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        ends.push(at);
    }
    assert_eq!(at, bytes.len());
    ends
}

#[tokio::test]
async fn a_copy_cut_at_every_byte_of_its_last_two_records_holds_exactly_the_whole_ones() {
    let (dir, wanted) = written(5, 40).await;
    let segment = segments(dir.path()).remove(0);
    let whole = fs::read(&segment).unwrap();
    let ends = frame_ends(&whole);
    assert_eq!(ends.len(), 5);
    for cut in ends[2]..=whole.len() {
        let copy = copy_dir(dir.path());
        let path = copy.path().join(segment.file_name().unwrap());
        fs::write(&path, &whole[..cut]).unwrap();
        let kept = ends.iter().filter(|end| **end <= cut).count();
        let journal = open(copy.path());
        assert_eq!(records(&journal), wanted[..kept], "cut at {cut}");
        // And it goes on from there.
        journal.append(push(77, 5)).await.unwrap();
        journal.close().await;
        let journal = open(copy.path());
        let mut after = wanted[..kept].to_vec();
        after.push(push(77, 5));
        assert_eq!(records(&journal), after, "cut at {cut}, then appended");
    }
}

#[tokio::test]
async fn a_copy_cut_at_every_byte_of_its_head_is_empty_and_usable() {
    let (dir, _) = written(1, 10).await;
    let segment = segments(dir.path()).remove(0);
    let whole = fs::read(&segment).unwrap();
    for cut in 0..=24 {
        let copy = copy_dir(dir.path());
        fs::write(
            copy.path().join(segment.file_name().unwrap()),
            &whole[..cut],
        )
        .unwrap();
        let journal = open(copy.path());
        assert!(journal.is_empty(), "cut at {cut}");
        journal.append(push(1, 1)).await.unwrap();
        assert_eq!(records(&journal), [push(1, 1)]);
    }
}

#[tokio::test]
async fn zeros_behind_the_end_are_no_damage() {
    let (dir, wanted) = written(3, 40).await;
    let segment = segments(dir.path()).remove(0);
    let mut bytes = fs::read(&segment).unwrap();
    bytes.resize(bytes.len() + 5000, 0);
    fs::write(&segment, &bytes).unwrap();
    assert_eq!(records(&open(dir.path())), wanted);
}

#[tokio::test]
async fn a_flipped_bit_in_any_byte_is_noticed_kept_aside_and_costs_one_record_at_most() {
    let (dir, wanted) = written(3, 20).await;
    let segment = segments(dir.path()).remove(0);
    let whole = fs::read(&segment).unwrap();
    let ends = frame_ends(&whole);
    let in_a_head = |byte: usize| {
        let begins = std::iter::once(24).chain(ends.iter().copied());
        byte < 24 || begins.into_iter().any(|at| (at..at + 12).contains(&byte))
    };
    // Every bit of the heads, one bit of every other byte.
    let bits = (0..whole.len() * 8).filter(|bit| in_a_head(bit / 8) || bit % 8 == bit / 8 % 8);
    for bit in bits {
        let copy = copy_dir(dir.path());
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(copy.path().join(segment.file_name().unwrap()), &bytes).unwrap();
        let journal = open(copy.path());
        let (found, damages, next) = all(&journal);
        let hit = ends.iter().position(|end| bit / 8 < *end).unwrap();
        let mut left = wanted.clone();
        if bit / 8 >= 24 {
            left.remove(hit);
        }
        assert_eq!(found, left, "bit {bit}");
        let [damage] = &damages[..] else {
            panic!("bit {bit}: {damages:?}");
        };
        let (from, to) = (
            damage.from.offset as usize,
            (damage.from.offset + damage.length) as usize,
        );
        assert!((from..to).contains(&(bit / 8)), "bit {bit}: {damage:?}");
        assert_eq!(
            fs::read(damage.kept.as_ref().unwrap()).unwrap(),
            bytes[from..to]
        );
        journal.drained(next).await;
        assert!(journal.is_empty());
        assert!(
            damage.kept.as_ref().unwrap().exists(),
            "draining leaves what was kept aside"
        );
    }
}

#[tokio::test]
async fn other_damage_at_the_same_place_is_kept_beside_the_first() {
    let (dir, _) = written(1, 20).await;
    let segment = segments(dir.path()).remove(0);
    let whole = fs::read(&segment).unwrap();
    let mut kept = Vec::new();
    for bit in 0..2 {
        let mut bytes = whole.clone();
        *bytes.last_mut().unwrap() ^= 1 << bit;
        fs::write(&segment, &bytes).unwrap();
        let journal = open(dir.path());
        let damage = all(&journal).1.remove(0);
        journal.close().await;
        let damaged = bytes.split_off(damage.from.offset as usize);
        kept.push((damage.kept.unwrap(), damaged));
    }
    for (path, damaged) in kept {
        assert_eq!(fs::read(path).unwrap(), damaged);
    }
}

#[tokio::test]
async fn a_hole_in_an_earlier_segment_hides_nothing_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let small = JournalOptions {
        segment_bytes: 2000,
        ..options(dir.path())
    };
    let journal = Journal::open(small).unwrap();
    let wanted: Vec<_> = (0..40).map(|number| push(number, 200)).collect();
    for record in &wanted {
        journal.append(record.clone()).await.unwrap();
    }
    journal.close().await;
    let segment = segments(dir.path()).remove(1);
    let mut bytes = fs::read(&segment).unwrap();
    let ends = frame_ends(&bytes);
    // From the middle of the second record over the third one's head.
    bytes[ends[0] + 50..ends[1] + 6].fill(0xEE);
    fs::write(&segment, &bytes).unwrap();
    let journal = open(dir.path());
    let (found, damages, _) = all(&journal);
    assert_eq!(found.len(), 38);
    assert!(found.iter().all(|record| wanted.contains(record)));
    assert_eq!(found.last(), wanted.last());
    let lost: u64 = damages.iter().map(|damage| damage.length).sum();
    assert_eq!(lost as usize, ends[2] - ends[0]);
}

#[tokio::test]
async fn an_earlier_segment_that_was_cut_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..2 {
        let journal = open(dir.path());
        journal.append(push(number, 100)).await.unwrap();
        journal.close().await;
    }
    let segment = segments(dir.path()).remove(0);
    let bytes = fs::read(&segment).unwrap();
    fs::write(&segment, &bytes[..bytes.len() - 10]).unwrap();
    let (found, damages, _) = all(&open(dir.path()));
    assert_eq!(found, [push(1, 100)]);
    assert_eq!(damages.len(), 1);
}

#[tokio::test]
async fn a_segment_that_was_deleted_hides_nothing_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..2 {
        let journal = open(dir.path());
        journal.append(push(number, 100)).await.unwrap();
        journal.close().await;
    }
    let journal = open(dir.path());
    fs::remove_file(segments(dir.path()).remove(0)).unwrap();
    let (found, damages, next) = all(&journal);
    assert_eq!(found, [push(1, 100)]);
    assert_eq!(damages.len(), 1);
    assert_eq!(
        (damages[0].what.as_str(), &damages[0].kept),
        ("its file is gone", &None)
    );
    journal.drained(next).await;
    assert_eq!(journal.figures().segments, 0);
    assert_eq!(journal.figures().file_bytes, 0);
}

/// Then its file is moved away, as the runbook says.
#[tokio::test]
async fn a_segment_that_cannot_be_read_is_named_and_hides_nothing_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let of_one_record_each = JournalOptions {
        segment_bytes: 1,
        ..options(dir.path())
    };
    let journal = Journal::open(of_one_record_each).unwrap();
    for number in 0..3 {
        journal.append(push(number, 100)).await.unwrap();
    }
    let segment = segments(dir.path()).remove(1);
    fs::remove_file(&segment).unwrap();
    fs::create_dir(&segment).unwrap();
    let (found, damages, next) = all(&journal);
    assert_eq!(found, [push(0, 100)]);
    assert_eq!(damages, []);
    journal.drained(next).await;
    let error = journal.read(1).unwrap_err().to_string();
    assert!(error.contains(&segment.display().to_string()), "{error}");

    fs::remove_dir(&segment).unwrap();
    let (found, damages, next) = all(&journal);
    assert_eq!(found, [push(2, 100)]);
    assert_eq!(damages.len(), 1);
    journal.drained(next).await;
    assert!(journal.is_empty());
}

#[tokio::test]
async fn a_last_segment_that_cannot_be_read_is_named() {
    let (dir, _) = written(1, 40).await;
    let segment = segments(dir.path()).remove(0);
    fs::remove_file(&segment).unwrap();
    fs::create_dir(&segment).unwrap();
    let Err(error) = Journal::open(options(dir.path())) else {
        panic!("a directory was read");
    };
    let error = error.to_string();
    assert!(error.contains(&segment.display().to_string()), "{error}");
}

#[tokio::test]
async fn a_body_that_holds_a_frame_is_not_taken_for_one() {
    let (dir, _) = written(2, 40).await;
    let segment = segments(dir.path()).remove(0);
    let bytes = fs::read(&segment).unwrap();
    let frames = bytes[24..].to_vec();
    let hostile = PushRecord {
        body: frames.into(),
        ..push(1, 0)
    };
    let copy = tempfile::tempdir().unwrap();
    let journal = open(copy.path());
    journal.append(hostile).await.unwrap();
    journal.append(push(2, 5)).await.unwrap();
    journal.close().await;
    let segment = segments(copy.path()).remove(0);
    let mut bytes = fs::read(&segment).unwrap();
    bytes[24] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    let (found, damages, _) = all(&open(copy.path()));
    assert_eq!(
        found,
        [push(2, 5)],
        "only what stands at its own place counts"
    );
    assert_eq!(damages.len(), 1);
}

#[tokio::test]
async fn a_later_format_is_left_alone() {
    let (dir, _) = written(1, 40).await;
    let segment = segments(dir.path()).remove(0);
    let mut bytes = fs::read(&segment).unwrap();
    bytes[8] = 2;
    let checksum = crc32fast::hash(&bytes[..20]);
    bytes[20..24].copy_from_slice(&checksum.to_le_bytes());
    fs::write(&segment, &bytes).unwrap();
    let journal = open(dir.path());
    let error = journal.read(1).unwrap_err();
    assert!(error.to_string().contains("format 2"), "{error}");
    assert_eq!(fs::read(&segment).unwrap(), bytes);
}

#[tokio::test]
async fn a_lost_drained_position_lets_records_come_out_again() {
    let (dir, wanted) = written(4, 40).await;
    let journal = open(dir.path());
    let window = journal.read(1).unwrap();
    journal.drained(window.next).await;
    assert_eq!(records(&journal), wanted[1..]);
    journal.close().await;
    let journal = open(dir.path());
    assert_eq!(records(&journal), wanted[1..]);
    journal.close().await;
    fs::write(dir.path().join("drained"), b"nonsense").unwrap();
    assert_eq!(records(&open(dir.path())), wanted);
}

/// What is left of the segment is drained, and may end in the middle of a record.
#[tokio::test]
async fn a_segment_cut_before_its_drained_place_leaves_nothing_torn_behind() {
    let (dir, _) = written(3, 40).await;
    let segment = segments(dir.path()).remove(0);
    let first = frame_ends(&fs::read(&segment).unwrap())[0];
    let journal = open(dir.path());
    let window = journal.read(1).unwrap();
    assert_eq!(window.next.offset, first as u64);
    journal.drained(window.next).await;
    journal.close().await;
    let file = fs::File::options().write(true).open(&segment).unwrap();
    file.set_len(first as u64 - 10).unwrap();

    let journal = open(dir.path());
    assert!(journal.is_empty());
    journal.append(push(9, 40)).await.unwrap();
    journal.close().await;
    fs::remove_file(dir.path().join("drained")).unwrap();
    assert_eq!(records(&open(dir.path())), [push(9, 40)]);
}
