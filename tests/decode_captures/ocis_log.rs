//! Audit logs of OCIS.

use std::collections::BTreeSet;

use daybook::event::{DeadLetterReason, Decoded, SourceName};
use daybook::sources::ocis;
use serde_json::Value;

use super::{assert_unaltered, data, events, shown, table};

fn decode(file: &str, include_reads: bool) -> Vec<(u64, Vec<u8>, Vec<Decoded>)> {
    let bytes = data(&format!("ocis/{file}"));
    let source = SourceName::new("ocis");
    let mut offset = 0;
    bytes
        .split_inclusive(|byte| *byte == b'\n')
        .map(|line| {
            let ctx = ocis::decode::LineContext {
                source: &source,
                file_key: "file",
                offset,
                read_at: "2026-11-24T05:00:00Z".parse().unwrap(),
                include_reads,
            };
            let start = offset;
            offset += line.len() as u64;
            let line = line.strip_suffix(b"\n").unwrap_or(line).to_vec();
            let decoded = ocis::decode::decode_line(&line, &ctx);
            (start, line, decoded)
        })
        .collect()
}

const GOOD: &[(&str, usize, usize)] = &[
    ("audit-every-event-type.log", 62, 3),
    ("audit-full-server.log", 150, 50),
];

#[test]
fn every_line_of_a_good_log_is_an_event_or_a_read() {
    for (file, lines, reads) in GOOD {
        let decoded = decode(file, false);
        assert_eq!(decoded.len(), *lines);
        let mut filtered = 0;
        for (offset, line, decoded) in decoded {
            let [decoded] = &decoded[..] else {
                panic!("{decoded:?}")
            };
            match decoded {
                Decoded::Filtered => filtered += 1,
                Decoded::Dead(letter) => panic!("{letter:?}"),
                Decoded::Event(event, _) => {
                    assert_eq!(event.external_id, format!("file:{offset}"));
                    assert_unaltered(
                        &serde_json::from_slice(&line).unwrap(),
                        &event.metadata.clone().into(),
                    );
                }
            }
        }
        assert_eq!(filtered, *reads, "{file}");
    }
}

#[test]
fn every_line_is_an_event_when_reads_are_wanted() {
    for (file, lines, _) in GOOD {
        let all: Vec<Decoded> = decode(file, true)
            .into_iter()
            .flat_map(|line| line.2)
            .collect();
        assert_eq!(events(all).len(), *lines);
    }
}

#[test]
fn the_acting_user_and_a_tenants_trace_are_found_nearly_everywhere() {
    let mut without_actor = BTreeSet::new();
    for (file, ..) in GOOD {
        let all = decode(file, false).into_iter().flat_map(|line| line.2);
        for (event, hints) in events(all.filter(|one| *one != Decoded::Filtered).collect()) {
            if event.actor.id.is_none() {
                without_actor.insert(event.action.clone());
            }
            assert!(!event.target.is_empty(), "{event:?}");
            assert!(
                !hints.spaces.is_empty() || !hints.subjects.is_empty(),
                "{event:?}"
            );
            assert!(
                hints
                    .spaces
                    .iter()
                    .all(|space| !space.contains(['$', '!', ':']))
            );
        }
    }
    // A share that is removed by its id names nobody.
    assert_eq!(without_actor, BTreeSet::from(["ocis.file_unshared".into()]));
}

#[test]
fn lines_without_a_usable_time_say_so() {
    for (_, line, decoded) in decode("audit-every-event-type.log", false) {
        let line: Value = serde_json::from_slice(&line).unwrap();
        for (event, _) in events(
            decoded
                .into_iter()
                .filter(|one| *one != Decoded::Filtered)
                .collect(),
        ) {
            let marked = event
                .metadata
                .get("daybook")
                .and_then(|remarks| remarks.get("at"));
            assert_eq!(marked.is_some(), line["Time"] == "", "{line}");
        }
    }
}

#[test]
fn the_table_of_actions_is_covered() {
    let mut mutations = BTreeSet::new();
    for row in table("ocis/actions.tsv") {
        let is_read = row[4] == "no";
        for action in row[1]
            .split(" | ")
            .filter(|action| !action.starts_with('('))
        {
            let verb = ocis::verbs::verb(&serde_json::Map::new(), action);
            assert_eq!(verb.action, format!("ocis.{action}"));
            assert_eq!(verb.origin, ocis::verbs::Origin::Known, "{action}");
            assert_eq!(verb.is_read, is_read, "{action}");
            if !is_read {
                mutations.insert(action.to_owned());
            }
        }
    }
    let known: BTreeSet<String> = ocis::verbs::MUTATIONS
        .iter()
        .map(|&a| a.to_owned())
        .collect();
    assert_eq!(mutations, known);
}

#[test]
fn a_torn_log_gives_its_letter_and_what_was_glued_on() {
    let mut torn = Vec::new();
    let mut lines = 0;
    for (offset, line, decoded) in decode("torn-line-after-disk-full.log", false) {
        lines += 1;
        if serde_json::from_slice::<Value>(&line).is_ok() {
            assert!(matches!(
                decoded[..],
                [Decoded::Event(..) | Decoded::Filtered]
            ));
            continue;
        }
        let marker = br#"{"RemoteAddr":"#;
        let glued = line
            .windows(marker.len())
            .rposition(|window| window == marker)
            .unwrap();
        torn.push((offset, glued as u64, decoded));
    }
    assert_eq!((lines, torn.len()), (52, 1));
    let (offset, glued, decoded) = &torn[0];
    let [Decoded::Dead(letter), Decoded::Event(event, _)] = &decoded[..] else {
        panic!("{decoded:?}");
    };
    assert_eq!(letter.reason, DeadLetterReason::Malformed);
    assert_eq!(letter.position, format!("file:{offset}"));
    assert_eq!(letter.raw_length, *glued);
    assert_eq!(event.external_id, format!("file:{}", offset + glued));
    assert_eq!(event.action, "ocis.file_create");
}

#[test]
fn formats_that_are_not_supported_are_refused_with_their_remedy() {
    let mut letters = 0;
    for (_, _, decoded) in decode("minimal-format.log", false) {
        for one in decoded {
            let letter = match one {
                Decoded::Dead(letter) => letter,
                // Two of its messages are empty: a blank line.
                Decoded::Filtered => continue,
                Decoded::Event(..) => panic!("{one:?}"),
            };
            assert_eq!(letter.reason, DeadLetterReason::Malformed);
            assert!(
                letter.detail.contains("AUDIT_FORMAT=json"),
                "{}",
                letter.detail
            );
            letters += 1;
        }
    }
    assert!(letters > 100, "{letters}");

    let mut noise = 0;
    for (_, line, decoded) in decode("console-stdout-with-noise.log", false) {
        if line.starts_with(b"{") {
            assert!(matches!(
                decoded[..],
                [Decoded::Event(..) | Decoded::Filtered]
            ));
            continue;
        }
        let [Decoded::Dead(letter)] = &decoded[..] else {
            panic!("{decoded:?}")
        };
        assert!(
            letter.detail.contains("AUDIT_LOG_TO_CONSOLE=false"),
            "{}",
            letter.detail
        );
        noise += 1;
    }
    assert_eq!(noise, 3);
}

#[test]
fn no_secret_of_a_log_appears_in_what_comes_of_it() {
    let files = [
        "audit-every-event-type.log",
        "audit-full-server.log",
        "console-stdout-with-noise.log",
        "minimal-format.log",
        "torn-line-after-disk-full.log",
    ];
    let mut secrets = BTreeSet::new();
    for file in files {
        for (_, line, _) in decode(file, true) {
            let Ok(line) = serde_json::from_slice::<Value>(&line) else {
                continue;
            };
            for key in ["ShareToken", "Token", "InviteLink", "RecipientMail"] {
                if let Some(secret) = line[key].as_str().filter(|secret| !secret.is_empty()) {
                    secrets.insert(secret.to_owned());
                }
            }
        }
    }
    assert!(secrets.len() >= 6, "{secrets:?}");
    for file in files {
        for (offset, line, decoded) in decode(file, true) {
            for text in decoded.iter().map(shown) {
                let found = secrets.iter().find(|secret| text.contains(secret.as_str()));
                assert_eq!(found, None, "{file} at {offset}");
            }
            assert_cut_lines_keep_quiet(&line, &secrets);
        }
    }
}

/// A disk can be full at any byte.
fn assert_cut_lines_keep_quiet(line: &[u8], secrets: &BTreeSet<String>) {
    let lossy = String::from_utf8_lossy(line).into_owned();
    if !secrets.iter().any(|secret| lossy.contains(secret.as_str())) {
        return;
    }
    let source = SourceName::new("ocis");
    let ctx = ocis::decode::LineContext {
        source: &source,
        file_key: "file",
        offset: 0,
        read_at: "2026-11-24T05:00:00Z".parse().unwrap(),
        include_reads: true,
    };
    for end in (0..line.len()).rev() {
        let text: String = ocis::decode::decode_line(&line[..end], &ctx)
            .iter()
            .map(shown)
            .collect();
        let found = secrets.iter().find(|secret| text.contains(secret.as_str()));
        assert_eq!(found, None, "cut at {end}: {text}");
    }
}
