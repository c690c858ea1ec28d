//! The files beside the live one: which of them are rotated parts of it, and in what order they were written.
//!
//! A later part was written after the earlier one's last write, or was created after it and not last
//! written before that. The birth time alone would take a restored backup for a new part, the
//! modification time alone would miss a part because of a late write into the file before it;
//! together they are fooled by neither. Without birth times the modification time has to do, and in
//! a tie the name: `.2` is older than `.1`. In doubt a file counts as later: what was read of it
//! before is known by its key, and a copy of it by its content.

use std::cmp::Reverse;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::TailError;
use super::identity::{FileStat, PRINT_BYTES, open_regular, read_at};

const COMPRESSED: [&str; 16] = [
    ".gz", ".tgz", ".zst", ".zstd", ".xz", ".bz2", ".bz", ".lz4", ".lzma", ".lz", ".lzo", ".br",
    ".Z", ".sz", ".zip", ".7z",
];
/// Left behind by editors and by copying under way, or made of a part: encrypted, a seal, how far a
/// shipper has come.
const NEVER_A_PART: [&str; 19] = [
    "~", ".swp", ".swx", ".tmp", ".part", ".lock", ".gpg", ".pgp", ".age", ".enc", ".asc", ".sig",
    ".md5", ".sha1", ".sha256", ".sha512", ".tsr", ".pos", ".offset",
];

/// A regular file in the directory of the live one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sibling {
    pub path: PathBuf,
    pub stat: FileStat,
    /// What its name tells; `None` for a name that is no rotated part's.
    pub name: Option<PartName>,
}

impl Sibling {
    /// Whether it has the time at which it was made, for a compression may not keep that of its file.
    pub fn has_own_time(&self) -> bool {
        (self.stat.birth).is_some_and(|birth| self.stat.modified >= birth)
    }
}

/// What the name of a rotated part tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PartName {
    /// Of `audit.log.3`: 3.
    pub number: Option<u64>,
    /// The name without the suffix of its compression, when it has one.
    pub compressed_from: Option<String>,
    /// Of `audit.log.gz`: the log itself was compressed where it stood, or a copy of it was made.
    pub is_of_live: bool,
    /// It goes on with a number or a date.
    pub is_stamped: bool,
}

/// The part after which others are looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Anchor {
    pub birth: Option<i64>,
    pub modified: i64,
    pub number: Option<u64>,
}

impl Anchor {
    pub fn new(stat: &FileStat, siblings: &[Sibling]) -> Self {
        let number = siblings
            .iter()
            .find(|sibling| sibling.stat.is_same_inode(stat))
            .and_then(|sibling| sibling.name.as_ref()?.number);
        Self {
            birth: stat.birth,
            modified: stat.modified,
            number,
        }
    }

    /// For a file whose present content began later than the file: copies of what was in it before
    /// are not later than it.
    pub fn begun(mut self, begun: Option<i64>) -> Self {
        self.birth = self
            .birth
            .map(|birth| begun.map_or(birth, |begun| birth.max(begun)));
        self
    }
}

/// Whether one file begins with all of the other: somebody's copy, no part of its own. Told from
/// the ends of what both have, so only where that is long enough to say something.
pub(super) fn is_copy(one: &File, other: &File) -> io::Result<bool> {
    let both = FileStat::of(one)?.size.min(FileStat::of(other)?.size);
    let Some(last) = both.checked_sub(PRINT_BYTES as u64) else {
        return Ok(false);
    };
    Ok(
        read_at(one, 0, PRINT_BYTES)? == read_at(other, 0, PRINT_BYTES)?
            && read_at(one, last, PRINT_BYTES)? == read_at(other, last, PRINT_BYTES)?,
    )
}

/// All regular files beside `live`, itself left out; and beside what it is a link to, where a log is
/// rotated.
pub(super) fn siblings(live: &Path) -> io::Result<Vec<Sibling>> {
    let mut found = siblings_in_place(live)?;
    let Some(target) = target_of(live) else {
        return Ok(found);
    };
    // Without its directory nothing of it can be read.
    for mut sibling in siblings_in_place(&target).unwrap_or_default() {
        // The link may be led from one file to the next there, which are named after it.
        let named_after_link = || part_name(live.file_name()?, sibling.path.file_name()?);
        sibling.name = sibling.name.take().or_else(named_after_link);
        let known = (found.iter_mut()).find(|known| known.stat.is_same_inode(&sibling.stat));
        match known {
            // Both names may stand in one directory.
            Some(known) => known.name = known.name.take().or(sibling.name),
            None => found.push(sibling),
        }
    }
    Ok(found)
}

/// Where a link leads that ends in another directory or name.
fn target_of(live: &Path) -> Option<PathBuf> {
    let target = std::fs::canonicalize(live).or_else(|_| {
        let target = std::fs::read_link(live)?;
        io::Result::Ok(directory_of(live).join(target))
    });
    let target = target.ok()?;
    let is_elsewhere = std::fs::canonicalize(directory_of(live)).ok()? != directory_of(&target)
        || live.file_name() != target.file_name();
    is_elsewhere.then_some(target)
}

fn siblings_in_place(live: &Path) -> io::Result<Vec<Sibling>> {
    let Some(live_name) = live.file_name() else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory_of(live))? {
        let entry = entry?;
        let name = entry.file_name();
        if name == live_name {
            continue;
        }
        // What vanishes while the directory is read is no sibling any more.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        if !metadata.is_file() {
            continue;
        }
        found.push(Sibling {
            path: entry.path(),
            stat: FileStat::new(&metadata),
            name: part_name(live_name, &name),
        });
    }
    Ok(found)
}

/// The directory that holds the file.
pub(super) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Opens a sibling, wherever its inode went meanwhile; `None` when it is gone.
///
/// # Errors
/// When it stands there and cannot be opened: that may pass.
pub(super) fn open_sibling(
    live: &Path,
    sibling: &Sibling,
) -> Result<Option<(File, FileStat)>, TailError> {
    let is_it =
        |stat: &FileStat| stat.is_same_inode(&sibling.stat) && stat.birth == sibling.stat.birth;
    if let Ok(Some((file, stat))) = open_regular(&sibling.path)
        && is_it(&stat)
    {
        return Ok(Some((file, stat)));
    }
    let beside =
        siblings(live).map_err(|error| TailError::from_io(directory_of(live), "read", error))?;
    let Some(moved) = beside.into_iter().find(|other| is_it(&other.stat)) else {
        return Ok(None);
    };
    let opened = open_regular(&moved.path)?;
    Ok(opened.filter(|(_, stat)| is_it(stat)))
}

/// The same where one that cannot be opened now is no hindrance.
pub(super) fn try_open_sibling(live: &Path, sibling: &Sibling) -> Option<(File, FileStat)> {
    open_sibling(live, sibling).ok().flatten()
}

/// Whether a part was so long before `gzip` compressed it; `None` where that cannot be known.
pub(super) fn unpacks_to(live: &Path, part: &Sibling, length: u64) -> Option<bool> {
    if part.path.extension() != Some(OsStr::new("gz")) {
        return None;
    }
    let (file, stat) = try_open_sibling(live, part)?;
    // It ends with that length modulo 2^32, the lowest byte first.
    let end = read_at(&file, stat.size.checked_sub(4)?, 4).ok()?;
    Some(end == length.to_le_bytes()[..4])
}

/// The readable parts that were written after the anchor, oldest first.
pub(super) fn later_parts(anchor: Anchor, siblings: &[Sibling]) -> Vec<Sibling> {
    let mut later: Vec<Sibling> = siblings
        .iter()
        .filter(|sibling| match &sibling.name {
            Some(name) => name.compressed_from.is_none() && is_later(anchor, &sibling.stat, name),
            None => false,
        })
        .cloned()
        .collect();
    sort_oldest_first(&mut later);
    later
}

/// All readable parts, oldest first.
pub(super) fn all_parts(siblings: &[Sibling]) -> Vec<Sibling> {
    let mut parts: Vec<Sibling> = siblings
        .iter()
        .filter(|sibling| {
            sibling
                .name
                .as_ref()
                .is_some_and(|name| name.compressed_from.is_none())
        })
        .cloned()
        .collect();
    sort_oldest_first(&mut parts);
    parts
}

/// The compressed parts last written after `modified`.
///
/// Compression keeps the modification time, so a part that was read to its end before it was
/// compressed is not among them. One whose original still stands there is not needed, nor is what may
/// be a copy of the log, nor an empty one.
pub(super) fn later_compressed<'a>(
    live: &Path,
    modified: i64,
    siblings: &'a [Sibling],
) -> Vec<&'a Sibling> {
    let mut later = later_compressed_or_copied(live, modified, siblings);
    later.retain(|part| part.name.as_ref().is_some_and(|name| !name.is_of_live));
    later
}

/// The same with what may be a copy of the log.
pub(super) fn later_compressed_or_copied<'a>(
    live: &Path,
    modified: i64,
    siblings: &'a [Sibling],
) -> Vec<&'a Sibling> {
    siblings
        .iter()
        .filter(|sibling| sibling.stat.modified > modified && original_is_gone(sibling, siblings))
        .filter(|sibling| unpacks_to(live, sibling, 0) != Some(true))
        .collect()
}

/// The compressed part with exactly this modification time.
pub(super) fn compressed_at(modified: i64, siblings: &[Sibling]) -> Option<&Sibling> {
    siblings
        .iter()
        .find(|sibling| sibling.stat.modified == modified && original_is_gone(sibling, siblings))
}

fn original_is_gone(sibling: &Sibling, siblings: &[Sibling]) -> bool {
    let Some(original) = sibling
        .name
        .as_ref()
        .and_then(|name| name.compressed_from.as_deref())
    else {
        return false;
    };
    !siblings
        .iter()
        .any(|other| other.path.file_name() == Some(OsStr::new(original)))
}

fn is_later(anchor: Anchor, stat: &FileStat, name: &PartName) -> bool {
    let tie = match (anchor.birth, stat.birth) {
        (Some(anchor_birth), Some(birth)) => {
            if stat.modified > anchor.modified {
                return true;
            }
            if stat.modified < anchor_birth || birth < anchor_birth {
                return false;
            }
            birth == anchor_birth
        }
        _ => {
            if stat.modified < anchor.modified {
                return false;
            }
            stat.modified == anchor.modified
        }
    };
    if !tie {
        return true;
    }
    match (anchor.number, name.number) {
        (Some(anchor_number), Some(number)) => number < anchor_number,
        // Rather read once more what was read (its key is known) than not at all.
        _ => true,
    }
}

fn sort_oldest_first(parts: &mut [Sibling]) {
    parts.sort_by_cached_key(|part| {
        (
            part.stat.birth.unwrap_or(part.stat.modified),
            Reverse(part.name.as_ref().and_then(|name| name.number)),
            part.path.clone(),
        )
    });
}

/// Whether a file stands beside a log and has the name of a rotated part of it.
pub fn is_part_of(live: &Path, file: &Path) -> bool {
    let names = live.file_name().zip(file.file_name());
    directory_of(live) == directory_of(file)
        && names.is_some_and(|(live, name)| part_name(live, name).is_some())
}

/// The name of a part that tells of a rotation, by a number or a date: an editor's or somebody's copy
/// does not.
pub fn rotated_part(live: &Path) -> Option<String> {
    let is_stamped = |part: &Sibling| part.name.as_ref().is_some_and(|name| name.is_stamped);
    let part = siblings(live).ok()?.into_iter().find(is_stamped)?;
    part.path.file_name()?.to_str().map(str::to_owned)
}

/// `audit.log.1`, `audit.log-20261124`, `audit.log.2.gz`, `audit-20261124.log`, `audit.1.log.gz`,
/// `audit.log.gz`.
fn part_name(live: &OsStr, name: &OsStr) -> Option<PartName> {
    let (live, name) = (live.to_str()?, name.to_str()?);
    if NEVER_A_PART.iter().any(|suffix| name.ends_with(suffix)) {
        return None;
    }
    let plain = COMPRESSED
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix));
    let compressed_from = plain.map(str::to_owned);
    if plain == Some(live) {
        return Some(PartName {
            number: None,
            compressed_from,
            is_of_live: true,
            is_stamped: false,
        });
    }
    let plain = plain.unwrap_or(name);
    let middle = match plain.strip_prefix(live) {
        Some(rest) => rest,
        None => {
            // Between stem and extension only a number or a date: `audit-admin.log` is another log.
            let (stem, extension) = live.rsplit_once('.')?;
            let middle = plain
                .strip_prefix(stem)?
                .strip_suffix(extension)?
                .strip_suffix('.')?;
            let is_stamp = |byte: u8| byte.is_ascii_digit() || b"T:Z._+-".contains(&byte);
            if !middle.bytes().all(is_stamp) || !middle.bytes().any(|byte| byte.is_ascii_digit()) {
                return None;
            }
            middle
        }
    };
    let rest = middle.strip_prefix(['.', '-', '_'])?;
    let number = match rest.len() {
        // Longer ones are dates, which grow where numbers fall.
        1..=5 => rest.parse().ok(),
        _ => None,
    };
    Some(PartName {
        number,
        compressed_from,
        is_of_live: false,
        is_stamped: rest.starts_with(|letter: char| letter.is_ascii_digit()),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn sibling(name: &str, inode: u64, birth: Option<i64>, modified: i64) -> Sibling {
        Sibling {
            path: PathBuf::from("/var/log/ocis").join(name),
            stat: FileStat {
                device: 1,
                inode,
                birth,
                size: 1,
                modified,
                changed: modified,
            },
            name: part_name(OsStr::new("audit.log"), OsStr::new(name)),
        }
    }

    fn names(parts: &[Sibling]) -> Vec<&str> {
        parts
            .iter()
            .map(|part| part.path.file_name().unwrap().to_str().unwrap())
            .collect()
    }

    #[test]
    fn names_of_rotated_parts_are_known_and_others_left_alone() {
        let of = |name: &str| part_name(OsStr::new("audit.log"), OsStr::new(name));
        assert_eq!(of("audit.log.1").unwrap().number, Some(1));
        assert_eq!(of("audit.1.log").unwrap().number, Some(1));
        assert_eq!(of("audit.log-20261124").unwrap().number, None);
        assert!(of("audit-2026-11-24T04-05-39.000.log").is_some());
        assert!(of("audit.log.old").is_some());
        let compressed = of("audit.log.2.gz").unwrap();
        assert_eq!(compressed.number, Some(2));
        assert_eq!(compressed.compressed_from.as_deref(), Some("audit.log.2"));
        assert!(!compressed.is_of_live && of("audit.log.gz").unwrap().is_of_live);
        for suffix in ["Z", "br", "lzo", "lz", "zstd", "7z", "tgz"] {
            let part = of(&format!("audit.log-20261124.{suffix}")).unwrap();
            let original = part.compressed_from.as_deref();
            assert_eq!(original, Some("audit.log-20261124"), "{suffix}");
        }
        let stamped = of("audit.log.2026-11-24T04:05:39Z").unwrap();
        assert_eq!(stamped.compressed_from, None);
        for other in [
            "audit-admin.log",
            "audit.logs",
            "audit.log~",
            ".audit.log.swp",
            "other.log.1",
            "audit.log.1.tmp",
            "audit.log.1.gpg",
            "audit.log.1.gz.age",
            "audit.log-20261124.sha256",
            "audit.log.1.asc",
            "audit.log.pos",
            "audit",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn later_parts_come_oldest_first_and_earlier_ones_not_at_all() {
        let all = [
            sibling("audit.log.1", 14, Some(400), 500),
            sibling("audit.log.4", 11, Some(100), 200),
            sibling("audit.log.2", 13, Some(300), 400),
            sibling("audit.log.3", 12, Some(200), 300),
            sibling("other.log.1", 15, Some(450), 460),
        ];
        let anchor = Anchor::new(&all[3].stat, &all);
        assert_eq!(
            names(&later_parts(anchor, &all[..3])),
            ["audit.log.2", "audit.log.1"]
        );
        assert_eq!(all_parts(&all).len(), 4);
    }

    #[test]
    fn a_late_write_hides_no_later_part_and_a_restored_backup_is_none() {
        let anchor_stat = sibling("audit.log.2", 12, Some(200), 390);
        let all = [
            // Closed before the anchor's last, late write.
            sibling("audit.log.1", 13, Some(300), 350),
            // Put back later, but written before the anchor existed.
            sibling("audit.log.9", 14, Some(900), 150),
        ];
        let anchor = Anchor::new(&anchor_stat.stat, &all);
        assert_eq!(names(&later_parts(anchor, &all)), ["audit.log.1"]);
    }

    #[test]
    fn without_birth_times_modification_and_number_decide() {
        let all = [
            sibling("audit.log.1", 14, None, 300),
            sibling("audit.log.2", 13, None, 300),
            sibling("audit.log.3", 12, None, 300),
            sibling("audit.log.4", 11, None, 300),
            sibling("audit.log.5", 10, None, 200),
        ];
        let anchor = Anchor::new(&all[2].stat, &all);
        assert_eq!(
            names(&later_parts(anchor, &all)),
            ["audit.log.2", "audit.log.1"]
        );
    }

    #[test]
    fn a_compressed_part_counts_unless_it_was_read_or_its_original_is_there() {
        let all = [
            sibling("audit.log.1", 14, Some(400), 500),
            sibling("audit.log.1.gz", 15, Some(600), 650),
            sibling("audit.log.2.gz", 16, Some(500), 400),
            sibling("audit.log.3.gz", 17, Some(400), 300),
            sibling("audit.log.gz", 18, Some(700), 750),
        ];
        let live = Path::new("/var/log/ocis/audit.log");
        let owned = |parts: Vec<&Sibling>| parts.into_iter().cloned().collect::<Vec<_>>();
        let later = owned(later_compressed(live, 300, &all));
        assert_eq!(names(&later), ["audit.log.2.gz"]);
        let later = owned(later_compressed_or_copied(live, 300, &all));
        assert_eq!(names(&later), ["audit.log.2.gz", "audit.log.gz"]);
        assert_eq!(
            compressed_at(300, &all).unwrap().path,
            Path::new("/var/log/ocis/audit.log.3.gz")
        );
        assert!(compressed_at(650, &all).is_none());
        assert!(
            compressed_at(750, &all).is_some(),
            "the log, with its own time"
        );
    }
}
