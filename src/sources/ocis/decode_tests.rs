//! Lines as real servers write them, and lines as nobody should.
#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::sources::ocis::skim::is_plain_read;
use crate::sources::ocis::skim::tests::is_scanned_read;

const READ_AT: &str = "2026-11-24T05:00:00.123Z";

fn within<T>(include_reads: bool, decode: impl FnOnce(&LineContext<'_>) -> T) -> T {
    decode(&LineContext {
        source: &SourceName::new("ocis"),
        file_key: "77",
        offset: 1000,
        read_at: READ_AT.parse().unwrap(),
        include_reads,
    })
}

fn decode(line: &[u8], include_reads: bool) -> Vec<Decoded> {
    within(include_reads, |ctx| decode_line(line, ctx))
}

fn one(line: Value) -> (AuditEvent, TenantHints) {
    let mut decoded = decode(line.to_string().as_bytes(), true);
    assert_eq!(decoded.len(), 1);
    match decoded.remove(0) {
        Decoded::Event(event, hints) => (*event, hints),
        other => panic!("{other:?}"),
    }
}

fn dead(line: &[u8]) -> DeadLetter {
    let mut decoded = decode(line, true);
    assert_eq!(decoded.len(), 1);
    match decoded.remove(0) {
        Decoded::Dead(letter) => letter,
        other => panic!("{other:?}"),
    }
}

fn record(action: &str, message: &str, more: Value) -> Value {
    let mut line = json!({"RemoteAddr": "", "User": "", "URL": "", "Method": "", "UserAgent": "",
        "Time": "2026-11-24T03:44:09Z", "App": "admin_audit", "Message": message,
        "Action": action, "CLI": false, "Level": 1});
    let fields = line.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    line
}

/// The bytes of a record as the server writes it: `RemoteAddr` first.
fn raw_record(path: &str) -> String {
    format!(
        r#"{{"RemoteAddr":"","User":"","Time":"2026-11-24T03:44:09Z","Message":"user 'u' trashed file 's$t!n'","Action":"file_delete","Path":{},"FileID":"s$t!n"}}"#,
        Value::from(path)
    )
}

#[test]
fn a_file_event_is_read_from_message_and_file_id() {
    let (event, hints) = one(record(
        "file_delete",
        "user 'marie' trashed file 'st$space!node/a 'quoted' name'",
        json!({"Path": "./a", "Owner": "", "FileID": "st$space!node/a!b"}),
    ));
    assert_eq!(event.action, "ocis.file_delete");
    assert_eq!(event.external_id, "77:1000");
    assert_eq!(event.at, "2026-11-24T03:44:09Z".parse().unwrap());
    assert_eq!(event.actor.id.as_deref(), Some("marie"));
    assert_eq!(event.target.kind.as_deref(), Some("file"));
    assert_eq!(event.target.name.as_deref(), Some("./a"));
    assert_eq!(hints.spaces, ["space"]);
    assert_eq!(hints.subjects, ["marie"]);
    assert!(event.metadata.get(REMARKS).is_none());
}

#[test]
fn the_user_of_a_new_file_is_not_its_actor() {
    let fields = json!({"User": "owner", "Owner": "owner", "FileID": "st$sp!n"});
    let (event, hints) = one(record(
        "file_create",
        "user 'guest' created file 'x'",
        fields.clone(),
    ));
    assert_eq!(event.actor.id.as_deref(), Some("guest"));
    assert_eq!(hints.subjects, ["owner", "guest"]);
    let (event, _) = one(record("file_create", "", fields));
    assert_eq!(event.actor.id, None);
}

#[test]
fn a_time_has_any_number_of_digits() {
    let (event, _) = one(record(
        "user_created",
        "user 'a' created the user 'b'",
        json!({"Time": "2026-11-24T03:44:09.1239999999999Z", "UserID": "b"}),
    ));
    assert_eq!(event.at, "2026-11-24T03:44:09.123Z".parse().unwrap());
    assert!(event.metadata.get(REMARKS).is_none());
}

#[test]
fn times_that_cannot_be_trusted_are_replaced_and_marked() {
    for time in ["", "0001-01-01T00:00:00Z", "yesterday"] {
        let (event, _) = one(record(
            "user_created",
            "user 'a' created the user 'b'",
            json!({"Time": time, "UserID": "b"}),
        ));
        assert_eq!(event.at, READ_AT.parse().unwrap(), "{time:?}");
        assert_eq!(event.metadata[REMARKS]["at"], "read time");
        assert_eq!(event.metadata["Time"], time);
    }
    let visit = |success: bool| {
        one(record(
            "public_link_accessed",
            "link with token 'LbxuPJKsQbHVwYn' was accessed. Success: true",
            json!({"User": "creator", "Owner": "creator", "ShareID": "id", "ShareToken": "LbxuPJKsQbHVwYn", "Success": success}),
        ))
    };
    assert_eq!(visit(true).0.at, READ_AT.parse().unwrap());
    assert_eq!(
        visit(true).0.actor.id,
        None,
        "the creator is not the visitor"
    );
    assert_eq!(visit(false).0.at, "2026-11-24T03:44:09Z".parse().unwrap());
    assert_eq!(visit(false).0.outcome, Some(Outcome::Failure));
}

#[test]
fn empty_actions_are_inferred_and_marked() {
    let share = "st:space:uuid";
    let (event, hints) = one(record(
        "",
        "user 'a' updated field '' of share 'x'",
        json!({"User": "a", "ShareID": share, "ShareOwner": "a", "ShareType": "user"}),
    ));
    assert_eq!(event.action, "ocis.share_updated");
    assert_eq!(event.metadata[REMARKS]["action"], "inferred");
    assert_eq!(hints.spaces, ["space"]);
    let (event, _) = one(record(
        "",
        "",
        json!({"User": "b", "ShareID": share, "ShareType": "user"}),
    ));
    assert_eq!(event.action, "ocis.share_state_changed");
    assert_eq!(event.actor.id.as_deref(), Some("b"));
}

#[test]
fn a_group_is_no_actor() {
    let (event, hints) = one(record(
        "share_accepted",
        "user 'group-id' accepted share 'x' from user 'o'",
        json!({"User": "group-id", "Owner": "o", "ShareID": "st:sp:uuid", "ShareType": "group"}),
    ));
    assert_eq!(event.actor.id, None);
    assert_eq!(hints.subjects, ["o"]);
}

#[test]
fn spaces_teach_their_names_but_personal_ones_do_not() {
    let space = |kind: &str, owner: &str| {
        one(record(
            "space_created",
            "user 'a' created a space",
            json!({"SpaceID": "st$sp!sp", "Owner": owner, "Name": "Acme", "Type": kind}),
        ))
    };
    assert_eq!(
        space("project", "sp").1.learn,
        Some(SpaceLesson {
            space: "sp".into(),
            owner: None,
            name: Some("Acme".into())
        })
    );
    let (event, hints) = space("personal", "sp");
    assert_eq!(
        hints.learn,
        Some(SpaceLesson {
            space: "sp".into(),
            owner: Some("sp".into()),
            name: None
        })
    );
    assert_eq!(event.target.id.as_deref(), Some("sp"));
    let (_, hints) = one(record(
        "space_updated",
        "",
        json!({"SpaceID": "st$sp", "Name": "globex",
        "Opqaue": {"spaceAlias": "personal/mallory"}}),
    ));
    assert_eq!(hints.learn.unwrap().name, None);
}

/// Such a line has neither a type nor an alias.
#[test]
fn a_personal_space_that_is_renamed_teaches_no_name() {
    let renamed = |space: &str| {
        let (_, hints) = one(record(
            "space_renamed",
            &format!("user 'mallory' renamed space '{space}!{space}' to 'Acme'"),
            json!({"SpaceID": format!("st${space}!{space}"), "NewName": "Acme"}),
        ));
        hints.learn.unwrap().name
    };
    assert_eq!(renamed("mallory"), None);
    assert_eq!(renamed("project").as_deref(), Some("Acme"));
}

#[test]
fn reads_are_filtered_unless_wanted() {
    for action in ["file_read", "file_viewed"] {
        let line = record(action, "user 'a' read file 'x'", json!({"FileID": "s$t!n"}));
        let bytes = line.to_string();
        assert_eq!(decode(bytes.as_bytes(), false), [Decoded::Filtered]);
        assert!(is_plain_read(bytes.as_bytes()), "{action}");
        let (event, _) = one(line);
        assert_eq!(event.action, format!("ocis.{action}"));
        assert!(event.metadata.get(REMARKS).is_none(), "{action}");
    }
}

#[test]
fn a_link_has_one_fingerprint_from_its_creation_to_its_removal() {
    let captures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/ocis/");
    for (name, id) in [
        ("audit-full-server.log", "QbGNZtSCyolKRoc"),
        ("audit-every-event-type.log", "pZnNcDoBwGhTQxZ"),
    ] {
        let log = std::fs::read_to_string(format!("{captures}{name}")).unwrap();
        let link = |action: &str| {
            let action = format!("\"Action\":\"{action}\"");
            let mut lines = log.lines().filter(|line| line.contains(id));
            let line = lines.find(|line| line.contains(&action)).unwrap();
            let (event, _) = one(serde_json::from_str(line).unwrap());
            event.metadata[REMARKS]["link"].clone()
        };
        assert!(link("file_shared").is_string(), "{name}");
        assert_eq!(link("file_shared"), link("file_unshared"), "{name}");
    }
}

#[test]
fn an_unknown_action_is_kept_and_marked() {
    let (event, _) = one(record(
        "file_locked",
        "user 'a' locked",
        json!({"FileID": "s$t!n", "Big": 18446744073709551616_f64}),
    ));
    assert_eq!(event.action, "ocis.file_locked");
    assert_eq!(event.metadata[REMARKS]["action"], "unknown");
}

#[test]
fn blank_lines_are_left_out_and_a_carriage_return_is_ignored() {
    for blank in ["", "  ", "\r", " \t\r"] {
        assert_eq!(
            decode(blank.as_bytes(), true),
            [Decoded::Filtered],
            "{blank:?}"
        );
    }
    let line = format!("{}\r", raw_record("./x"));
    assert!(matches!(
        decode(line.as_bytes(), true)[..],
        [Decoded::Event(..)]
    ));
}

#[test]
fn a_cut_record_is_kept_and_what_is_glued_to_it_is_saved() {
    let (cut, whole) = (&raw_record("./xxxx")[..90], raw_record("./y"));
    let line = format!("{cut}{whole}");
    let decoded = decode(line.as_bytes(), true);
    let [Decoded::Dead(letter), Decoded::Event(event, _)] = &decoded[..] else {
        panic!("{decoded:?}");
    };
    assert_eq!(
        (letter.position.as_str(), letter.reason),
        ("77:1000", DeadLetterReason::Malformed)
    );
    assert_eq!(letter.raw_length, 90);
    assert_eq!(event.external_id, format!("77:{}", 1000 + cut.len()));

    let line = format!("{whole}{cut}{whole}{cut}");
    let kinds: Vec<bool> = decode(line.as_bytes(), true)
        .iter()
        .map(|decoded| matches!(decoded, Decoded::Event(..)))
        .collect();
    assert_eq!(kinds, [true, false, true, false]);
}

#[test]
fn the_start_of_a_record_within_a_name_is_a_name() {
    let line = raw_record(r#"./{"RemoteAddr":"x","Action":"file_delete"}"#);
    assert!(matches!(
        decode(line.as_bytes(), true)[..],
        [Decoded::Event(..)]
    ));
}

#[test]
fn what_is_no_record_is_refused_with_its_remedy() {
    for (line, reason, word) in [
        (&b"file_create)"[..], DeadLetterReason::Malformed, "minimal"),
        (
            b"   user 'u' created file 'x'",
            DeadLetterReason::Malformed,
            "AUDIT_FORMAT=json",
        ),
        (
            b"Unknown update type ",
            DeadLetterReason::Malformed,
            "AUDIT_LOG_TO_FILE=true",
        ),
        (b"[1]", DeadLetterReason::UnexpectedShape, "object"),
        (b"7", DeadLetterReason::UnexpectedShape, "object"),
        (
            b"{\"Action\":\"file_delete\"}",
            DeadLetterReason::UnexpectedShape,
            "Message",
        ),
        (
            b"{\"Action\":1,\"Message\":\"\"}",
            DeadLetterReason::UnexpectedShape,
            "Action",
        ),
        (
            b"{\"level\":\"info\",\"message\":\"up\"}",
            DeadLetterReason::UnexpectedShape,
            "AUDIT_FILEPATH",
        ),
        (
            b"{\"Action\":\"file_de",
            DeadLetterReason::Malformed,
            "cut off",
        ),
        (
            b"{\"Action\":\"\xff\",\"Message\":\"\"}",
            DeadLetterReason::InvalidUtf8,
            "byte 11",
        ),
        (
            b"{\"Action\":\"\xc3",
            DeadLetterReason::Malformed,
            "cut off",
        ),
        (b"\0\0\0", DeadLetterReason::Malformed, "console"),
    ] {
        let letter = dead(line);
        assert_eq!(letter.reason, reason, "{line:?}");
        assert!(letter.detail.contains(word), "{line:?}: {}", letter.detail);
        assert_eq!(letter.position, "77:1000");
    }
}

#[test]
fn depth_is_data_up_to_the_parsers_limit() {
    let nested = |levels: usize| {
        format!(
            r#"{{"Action":"file_delete","Message":"","Deep":{}1{}}}"#,
            "[".repeat(levels),
            "]".repeat(levels)
        )
    };
    assert!(matches!(
        decode(nested(100).as_bytes(), true)[..],
        [Decoded::Event(..)]
    ));
    assert_eq!(
        dead(nested(200).as_bytes()).reason,
        DeadLetterReason::UnexpectedShape
    );
}

#[test]
fn a_letter_gives_no_token_away() {
    let line = br#"{"RemoteAddr":"","Message":"link with token 'LbxuPJKsQbHVwYn' was","ShareToken":"LbxuPJKsQbHVwYn","Recip"#;
    let letter = dead(line);
    assert!(!String::from_utf8_lossy(&letter.raw).contains("LbxuPJK"));
    assert_eq!(letter.raw_length, line.len() as u64);
}

proptest! {
    #[test]
    fn any_bytes_decode_to_something(line in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(!decode(&line, true).is_empty());
    }

    #[test]
    fn glued_parts_never_overlap_and_cover_the_line(cuts in proptest::collection::vec((0usize..140, "[a-z{\"}é]{0,9}"), 1..6)) {
        let mut line = Vec::new();
        for (cut, path) in &cuts {
            let record = raw_record(path);
            line.extend_from_slice(&record.as_bytes()[..record.len().saturating_sub(*cut)]);
        }
        let mut offsets = Vec::new();
        let mut lost = 0;
        for decoded in decode(&line, true) {
            let position = match &decoded {
                Decoded::Event(event, _) => event.external_id.clone(),
                Decoded::Dead(letter) => { lost += letter.raw_length; letter.position.clone() }
                Decoded::Filtered => continue,
            };
            offsets.push(position.rsplit(':').next().unwrap().parse::<u64>().unwrap() - 1000);
        }
        prop_assert!(offsets.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", offsets);
        prop_assert!(offsets.iter().all(|offset| *offset < line.len() as u64));
        prop_assert!(lost <= line.len() as u64);
    }
}

/// What a line is decoded to without the short way.
fn decode_slowly(line: &[u8], include_reads: bool) -> Vec<Decoded> {
    within(include_reads, |ctx| decode_parsed(line, ctx))
}

fn assert_both_ways_agree(line: &[u8]) {
    let shown = String::from_utf8_lossy(line);
    let slowly = decode_slowly(line, false);
    assert_eq!(decode(line, false), slowly, "{shown}");
    assert_eq!(decode(line, true), decode_slowly(line, true), "{shown}");
    assert_eq!(is_plain_read(line), is_scanned_read(line), "{shown}");
    if is_plain_read(line) {
        assert_eq!(slowly, [Decoded::Filtered], "{shown}");
    }
}

fn goes_the_short_way(line: &Value) -> bool {
    let line = line.to_string().into();
    within(true, |ctx| decode_scanned(&line, ctx).is_some())
}

#[test]
fn the_short_way_is_taken_by_plain_lines_only() {
    let plain = record(
        "file_delete",
        "user 'u' trashed file 's$t!n'",
        json!({"FileID": "s$t!n"}),
    );
    assert!(goes_the_short_way(&plain));
    for (key, value, is_short) in [
        ("Time", json!(""), true),
        ("ShareType", json!("link"), true),
        ("ShareToken", json!("LbxuPJKsQbHVwYn"), true),
        ("Action", json!("never_seen"), true),
        ("ShareToken", json!(7), false),
        ("Surprise", json!(1), false),
        ("Path", json!("a\nb"), false),
        ("Message", json!(null), false),
    ] {
        let mut other = plain.clone();
        other[key] = value;
        assert_eq!(goes_the_short_way(&other), is_short, "{other}");
    }
    let read = record(
        "file_read",
        "user 'u' read file 's$t!n'",
        json!({"FileID": "s$t!n"}),
    );
    assert!(is_plain_read(read.to_string().as_bytes()));
    assert!(!is_plain_read(plain.to_string().as_bytes()));
}

/// Values in every place where a secret is looked for, or may be met by chance.
#[test]
fn both_ways_mask_the_same() {
    let tokens = [
        json!("LbxuPJKsQbHVwYn"),
        json!("short"),
        json!("a'b c"),
        json!("***"),
        json!("Action"),
        json!("file_unshared"),
        json!("LbxuPJKsQbHVwYn2"),
        json!(""),
        json!(null),
        json!(true),
        json!(1234567),
    ];
    let messages = [
        "user 'LbxuPJKsQbHVwYn' removed public link with id:'LbxuPJKsQbHVwYn'",
        "link with token 'LbxuPJKsQbHVwYn2' was accessed, LbxuPJKsQbHVwYn",
        "user 'u' shared 'token 'file' with 'short': a'b c",
        "ü link with id:'1234567",
        "user 'u' created a public link to file 'f' with id 'LbxuPJKsQbHVwYn'",
        "user 'u' created a public link to file 'f' with id 'a'b c'",
        "",
    ];
    let actions = [
        "file_unshared",
        "file_shared",
        "public_link_accessed",
        "science_mesh_invite_token_generated",
        "",
    ];
    let mut short = 0;
    for token in &tokens {
        for id in &tokens {
            for message in messages {
                for action in actions {
                    for kind in ["link", "user"] {
                        let fields = json!({"ShareToken": token, "ShareID": id, "ShareType": kind,
                            "Path": "./LbxuPJKsQbHVwYn/file_unshared", "Owner": "LbxuPJKsQbHVwYn2"});
                        let line = record(action, message, fields);
                        assert_both_ways_agree(line.to_string().as_bytes());
                        short += usize::from(goes_the_short_way(&line));
                    }
                }
            }
        }
    }
    assert!(short > 3000, "{short} lines");
}

#[test]
fn both_ways_agree_on_every_captured_line() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/ocis");
    let mut lines = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let content = std::fs::read(file.unwrap().path()).unwrap();
        for line in content.split(|byte| *byte == b'\n') {
            assert_both_ways_agree(line);
            lines += 1;
        }
    }
    assert!(lines > 200, "{lines} lines");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Simulated lines of every kind, whole or damaged somewhere.
    #[test]
    fn both_ways_agree(seed in any::<u64>(), at in any::<u16>(), what in 0_usize..9) {
        use crate::simulators::ocis::Shape;
        use crate::simulators::{ocis, people::People};
        use rand::SeedableRng as _;
        static PEOPLE: std::sync::LazyLock<People> = std::sync::LazyLock::new(|| People::new(1));
        let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
        let shape = Shape::ALL[usize::from(at) % Shape::ALL.len()];
        let now = READ_AT.parse().unwrap();
        let whole = if what == 0 {
            ocis::realistic(&mut rng, &PEOPLE, now)
        } else {
            shape.line(&mut rng, &PEOPLE, now)
        };
        let mut line = whole.to_bytes();
        line.pop();
        let place = usize::from(at) % line.len();
        let put = |line: &mut Vec<u8>, new: &[u8]| {
            line.splice(place..place, new.iter().copied());
        };
        match what {
            2 => line.truncate(place),
            3 => drop(line.remove(place)),
            4 => put(&mut line, b"\""),
            5 => put(&mut line, br#"","Action":"file_read","#),
            6 => put(&mut line, br#"","Action":"file_read","X":""#),
            7 => put(&mut line, b"\xff"),
            8 => put(&mut line, b"\\"),
            _ => {}
        }
        assert_both_ways_agree(&line);
    }
}
