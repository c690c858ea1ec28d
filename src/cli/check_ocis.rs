//! Would events flow from this audit log? What its newest lines look like, and what to set if they
//! are none.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use jiff::Timestamp;
use serde::de::IgnoredAny;

use crate::cli::uid;
use crate::config::OcisConfig;
use crate::event::{Decoded, SourceName};
use crate::sources::ocis::decode::{LineContext, decode_line, looks_minimal};
use crate::tail::{TailOptions, Tailer, rotated_part};

use super::{Finding, Fine, Trouble};

/// So much of the file's end is looked at: a mistake that was put right is no mistake.
const SAMPLE_BYTES: u64 = 256 << 10;
const SWITCH_ON: &str = "start OCIS with OCIS_ADD_RUN_SERVICES=audit (OpenCloud: OC_ADD_RUN_SERVICES), AUDIT_LOG_TO_FILE=true, AUDIT_FILEPATH=(this path) and AUDIT_FORMAT=json, then do something in its web interface; AUDIT_LOG_FILE_PATH and AUDIT_LOG_FORMAT do not exist in any version";
const OWN_FILE: &str = "give the audit log a file of its own: AUDIT_LOG_TO_FILE=true, AUDIT_FILEPATH and AUDIT_LOG_TO_CONSOLE=false";

pub(super) async fn check(config: &OcisConfig) -> Finding {
    let config = config.clone();
    let tried = move || -> Finding {
        let fine = probe(&config)?;
        let advice = (uid() == Some(0)).then(|| closed_to_others(&config.path));
        Ok(match advice.flatten() {
            Some(advice) => fine.advise(advice),
            None => fine,
        })
    };
    tokio::task::spawn_blocking(tried)
        .await
        .unwrap_or_else(|error| Err(Trouble::new(error.to_string(), "report this")))
}

/// For root, who may read everything: that it is read now tells nothing of the service.
fn closed_to_others(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let (closed, group) = path.ancestors().find_map(|place| {
        let found = std::fs::metadata(place).ok()?;
        let right = if found.is_dir() { 0o001 } else { 0o004 };
        (found.mode() & right == 0).then(|| (place.display(), found.gid()))
    })?;
    Some(format!(
        "{closed} is closed to others, and root reads it all the same: see that the user that Daybook runs as is of its group {group} (SupplementaryGroups= in the unit); `daybook status` says whether the service reads the log"
    ))
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Sample {
    records: usize,
    /// Lines of the minimal format, before the first record: perhaps put right since.
    minimal: usize,
    /// Text or objects of another kind among the records.
    noise: usize,
    /// The same, and no record before them.
    foreign: usize,
    damaged: usize,
}

fn probe(config: &OcisConfig) -> Finding {
    let path = config.path.display();
    let unreadable = |error: String| {
        let remedy = if error.contains("is a directory") {
            "name the file in it: AUDIT_FILEPATH as OCIS has it".to_owned()
        } else if error.contains("ermission denied") {
            "let the user that Daybook runs as read the file and enter its directory (a group of both, or a volume mounted read-only)".to_owned()
        } else {
            "check the path, its disk and the rights on it".to_owned()
        };
        Trouble::new(error, remedy)
    };
    let mut tailer = Tailer::open(TailOptions::new(&config.path), None);
    tailer
        .step()
        .map_err(|error| unreadable(error.to_string()))?;
    if tailer.is_missing() {
        if let Some(part) = rotated_part(&config.path) {
            return Ok(Fine::new(format!(
                "{path} is not there since its rotation to {part}: the next event makes it"
            )));
        }
        return Err(Trouble::new(
            format!("{path} is not there: OCIS makes it at its first event"),
            format!("is the directory shared with Daybook? {SWITCH_ON}"),
        ));
    }
    let reading = |error: std::io::Error| unreadable(format!("could not read {path}: {error}"));
    let file = File::open(&config.path).map_err(reading)?;
    let metadata = file.metadata().map_err(reading)?;
    if metadata.len() == 0 {
        if let Some(part) = rotated_part(&config.path) {
            return Ok(Fine::new(format!(
                "{path} is read; no line came since its rotation to {part}"
            )));
        }
        return Err(Trouble::new(
            format!("{path} is empty: no event was written to it"),
            SWITCH_ON,
        ));
    }
    let start = metadata.len().saturating_sub(SAMPLE_BYTES);
    let length = usize::try_from(metadata.len() - start).unwrap_or(0);
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, start).map_err(reading)?;
    match verdict(&sample(&bytes, start > 0)) {
        Ok(what) => Ok(Fine::new(format!(
            "{path} (inode {}) is read: {what}",
            metadata.ino()
        ))),
        Err(trouble) => Err(Trouble::new(
            format!("{path}: {}", trouble.what),
            trouble.remedy,
        )),
    }
}

/// Counts the whole lines; the first one is half when it does not begin the file.
fn sample(bytes: &[u8], begins_within_a_line: bool) -> Sample {
    let source = SourceName::new("check");
    let context = LineContext {
        source: &source,
        file_key: "check",
        offset: 0,
        read_at: Timestamp::now(),
        include_reads: true,
    };
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
    let lines = bytes[..whole].split(|byte| *byte == b'\n');
    let mut sample = Sample::default();
    for line in lines.skip(usize::from(begins_within_a_line)) {
        let decoded = decode_line(line, &context);
        let is_record = decoded
            .iter()
            .any(|decoded| matches!(decoded, Decoded::Event(..)));
        let is_minimal = looks_minimal(line);
        let is_json = serde_json::from_slice::<IgnoredAny>(line).is_ok();
        let is_text = std::str::from_utf8(line).is_ok_and(|text| {
            let text = text.trim();
            !text.starts_with('{') && !text.contains(is_no_text)
        });
        match (is_record, sample.records) {
            _ if line.trim_ascii().is_empty() => {}
            (true, _) => sample.records += 1,
            (false, 0) if is_minimal => sample.minimal += 1,
            (false, 0) if is_json || is_text => sample.foreign += 1,
            (false, _) if is_json || is_text => sample.noise += 1,
            (false, _) => sample.damaged += 1,
        }
    }
    sample
}

/// A console's messages have colours and columns.
fn is_no_text(letter: char) -> bool {
    letter.is_control() && !matches!(letter, '\t' | '\u{1b}')
}

fn verdict(sample: &Sample) -> Result<String, Trouble> {
    let Sample {
        records,
        minimal,
        noise,
        foreign,
        damaged,
    } = *sample;
    let others = minimal + noise + foreign + damaged;
    match (records, others) {
        (0, 0) => Ok("no whole line is there yet".to_owned()),
        (_, 0) => Ok(format!(
            "the newest {records} lines are audit records, events would flow"
        )),
        (0, _) if minimal > foreign => Err(Trouble::new(
            "its lines are no JSON: this is the minimal format",
            "set AUDIT_FORMAT=json (AUDIT_LOG_FORMAT does not exist) and restart OCIS",
        )),
        (0, _) if foreign > damaged => Err(Trouble::new(
            "its lines are the service's own log, no audit records",
            OWN_FILE,
        )),
        (0, _) => Err(Trouble::new(
            format!("none of its newest {others} lines is an audit record"),
            "name the file that OCIS itself writes (AUDIT_FILEPATH): no compressed part, nothing in another encoding",
        )),
        _ if noise > 0 => Err(Trouble::new(
            format!(
                "{noise} of the newest {} lines are the service's own messages: the console is no audit file",
                records + others
            ),
            OWN_FILE,
        )),
        // Formats that were changed, zeros after a power cut, cut lines: kept as dead letters.
        _ => Ok(format!(
            "{records} of the newest {} lines are audit records, {others} become dead letters",
            records + others
        )),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn told(finding: Finding) -> Result<String, String> {
        finding
            .map(|fine| fine.what)
            .map_err(|trouble| format!("{} / {}", trouble.what, trouble.remedy))
    }

    fn of(log: &[u8]) -> Result<String, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        std::fs::write(&path, log).unwrap();
        told(probe(&OcisConfig {
            path,
            ..OcisConfig::default()
        }))
    }

    fn capture(name: &str) -> Vec<u8> {
        let captures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/ocis/");
        std::fs::read(Path::new(captures).join(name)).unwrap()
    }

    #[test]
    fn real_logs_are_told_apart() {
        for name in [
            "audit-every-event-type.log",
            "audit-full-server.log",
            "torn-line-after-disk-full.log",
        ] {
            let what = of(&capture(name)).unwrap();
            assert!(what.contains("audit records"), "{name}: {what}");
        }
        let minimal = of(&capture("minimal-format.log")).unwrap_err();
        assert!(minimal.contains("AUDIT_FORMAT=json"), "{minimal}");
        let console = of(&capture("console-stdout-with-noise.log")).unwrap_err();
        assert!(console.contains("AUDIT_LOG_TO_CONSOLE=false"), "{console}");
    }

    #[test]
    fn the_servers_own_log_is_no_audit_log_in_any_format() {
        for line in [
            "2026-11-24T04:00:00Z INF starting service=audit version=7.1.0",
            r#"{"level":"info","service":"audit","message":"starting"}"#,
            "Unknown update type ",
            "\u{1b}[90m2026-11-24T04:00:00Z\u{1b}[0m \u{1b}[32mINF\u{1b}[0m starting",
            "2026-11-24T04:00:00Z\tINFO\tstarting",
        ] {
            let own = of(format!("{line}\n").repeat(9).as_bytes()).unwrap_err();
            assert!(own.contains("the service's own log"), "{own}");
            assert!(own.contains("AUDIT_LOG_TO_CONSOLE=false"), "{own}");
        }
    }

    #[test]
    fn a_file_without_a_record_is_no_audit_log() {
        let log = String::from_utf8(capture("audit-full-server.log")).unwrap();
        let wide: Vec<u8> = log.encode_utf16().flat_map(u16::to_le_bytes).collect();
        // As in a compressed file: a few of its lines pass for text.
        let mut compressed = b"\x1f\x8b\x08\x00\xff\n\xfe\x01\n".repeat(9);
        compressed.extend_from_slice(b"ok\n");
        for log in [wide, compressed] {
            let other = of(&log).unwrap_err();
            assert!(other.contains("is an audit record"), "{other}");
            assert!(other.contains("compressed"), "{other}");
        }
    }

    #[test]
    fn nothing_there_names_the_variables_and_those_that_do_not_exist() {
        let empty = of(b"").unwrap_err();
        assert!(empty.contains("AUDIT_LOG_FILE_PATH and AUDIT_LOG_FORMAT do not exist"));
        let missing = probe(&OcisConfig {
            path: "/nonexistent/audit.log".into(),
            ..OcisConfig::default()
        });
        let missing = told(missing).unwrap_err();
        assert!(missing.contains("is not there"), "{missing}");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        std::fs::write(&path, "").unwrap();
        std::fs::write(directory.path().join("audit.log.1"), "").unwrap();
        let config = OcisConfig {
            path,
            ..OcisConfig::default()
        };
        let rotated = told(probe(&config)).unwrap();
        assert!(
            rotated.contains("no line came since its rotation to audit.log.1"),
            "{rotated}"
        );
        std::fs::remove_file(&config.path).unwrap();
        let rotated = told(probe(&config)).unwrap();
        assert!(rotated.contains("the next event makes it"), "{rotated}");
    }

    #[test]
    fn only_a_part_with_a_number_or_a_date_tells_of_a_rotation() {
        let rotated = |path: &str, beside: &[&str]| {
            let directory = tempfile::tempdir().unwrap();
            for name in beside {
                std::fs::write(directory.path().join(name), "").unwrap();
            }
            told(probe(&OcisConfig {
                path: directory.path().join(path),
                ..OcisConfig::default()
            }))
        };
        for part in [
            "audit.log.1",
            "audit.log-20261124.gz",
            "audit-20261124.log",
            "audit.2.log.gz",
        ] {
            let fine = rotated("audit.log", &[part]).unwrap();
            assert!(fine.contains(&format!("rotation to {part}:")), "{fine}");
        }
        let others = [
            "audit.log.bak",
            "audit.log.gz",
            "audit.log.1.swp",
            "audit.log~",
            "audit-admin.log",
        ];
        for (path, beside) in [
            ("audit", &["audit.log", "audit.log.1"][..]),
            ("audit.log", &others[..]),
        ] {
            let missing = rotated(path, beside).unwrap_err();
            assert!(missing.contains("is not there"), "{missing}");
        }
    }

    /// Rotated where it leads to, and perhaps under another name.
    #[test]
    fn a_link_tells_of_the_rotation_of_its_log() {
        let directory = tempfile::tempdir().unwrap();
        let logs = directory.path().join("logs");
        std::fs::create_dir(&logs).unwrap();
        std::fs::write(logs.join("ocis.log.1"), "").unwrap();
        let path = directory.path().join("audit.log");
        symlink(logs.join("ocis.log"), &path).unwrap();
        let config = OcisConfig {
            path,
            ..OcisConfig::default()
        };
        let fine = told(probe(&config)).unwrap();
        assert!(fine.contains("rotation to ocis.log.1:"), "{fine}");
    }

    #[test]
    fn a_mistake_put_right_long_ago_is_none() {
        let mut log = capture("minimal-format.log");
        while log.len() < 1 << 20 {
            log.extend_from_slice(&capture("audit-full-server.log"));
        }
        assert!(of(&log).unwrap().contains("are audit records"));
    }

    #[tokio::test]
    async fn root_is_told_what_is_closed_to_others() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().canonicalize().unwrap();
        let path = directory.join("audit.log");
        std::fs::write(&path, capture("audit-full-server.log")).unwrap();
        let allow = |place: &Path, mode| {
            std::fs::set_permissions(place, Permissions::from_mode(mode)).unwrap();
        };
        let config = OcisConfig {
            path: path.clone(),
            ..OcisConfig::default()
        };
        for (of_log, of_directory, closed) in [
            (0o640, 0o755, Some(&path)),
            (0o644, 0o750, Some(&directory)),
            (0o644, 0o755, None),
        ] {
            allow(&path, of_log);
            allow(&directory, of_directory);
            let told = closed_to_others(&path);
            let names = |place: &Path| {
                let begins = format!("{} is closed", place.display());
                told.as_ref().is_some_and(|told| told.starts_with(&begins))
            };
            for place in [&path, &directory] {
                assert_eq!(names(place), closed == Some(place), "{told:?}");
            }
            let advice = check(&config).await.map(|fine| fine.advice);
            let advice = advice.map_err(|trouble| trouble.what).unwrap();
            let to_root = told.filter(|_| uid() == Some(0));
            assert_eq!(advice, Vec::from_iter(to_root));
        }
    }

    #[test]
    fn a_directory_in_its_place_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let config = OcisConfig {
            path: directory.path().to_owned(),
            ..OcisConfig::default()
        };
        let trouble = told(probe(&config)).unwrap_err();
        assert!(trouble.contains("is a directory"), "{trouble}");
    }
}
