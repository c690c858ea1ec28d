//! Lines of an audit log that are none, each between two good ones in a real file.

use testkit::World;
use testkit::world::eventually;

const MAX_LINE: usize = 64 << 10;

/// A bad line.
pub struct Case {
    line: Vec<u8>,
    reason: &'static str,
    detail: &'static str,
    /// Events that are salvaged out of it.
    salvaged: usize,
}

fn good(index: usize) -> String {
    format!(
        r#"{{"RemoteAddr":"","User":"","URL":"","Method":"","UserAgent":"","Time":"2026-11-24T04:00:00Z","App":"admin_audit","Message":"user 'u-{index}' trashed file 's$p!n'","Action":"file_delete","CLI":false,"Level":1,"Path":"/good-{index}","Owner":"","FileID":"s$p!n"}}"#
    )
}

pub fn cases() -> Vec<Case> {
    let case = |line: &[u8], reason, detail| Case {
        line: line.to_vec(),
        reason,
        detail,
        salvaged: 0,
    };
    let whole = good(0);
    let long_name = whole.replace("/good-0", &"x".repeat(MAX_LINE));
    let deep = whole.replace(
        "\"/good-0\"",
        &format!("{}{}", "[".repeat(200), "]".repeat(200)),
    );
    let mut cases = vec![
        // Cut off or damaged.
        case(&whole.as_bytes()[..1], "malformed", "cut off or damaged: JSON is cut off"),
        case(&whole.as_bytes()[..100], "malformed", "cut off or damaged: JSON is cut off"),
        case(&whole.as_bytes()[..whole.len() - 1], "malformed", "cut off or damaged: JSON is cut off"),
        case(&whole.as_bytes()[100..], "malformed", "the end of a cut record; set AUDIT_LOG_TO_FILE=true"),
        case(whole.replace(",\"CLI\"", "\"CLI\"").as_bytes(), "malformed", "cut off or damaged: not JSON"),
        case(whole.replace("/good-0", "\u{1}").as_bytes(), "malformed", "cut off or damaged: not JSON"),
        case(format!("{whole} trailing").as_bytes(), "malformed", "cut off or damaged: not JSON"),
        case(&[0; 64], "malformed", "not an audit record"),
        // Bytes that are no text.
        case(&[whole.as_bytes(), b"\xff"].concat(), "invalid_utf8", "no UTF-8 at byte"),
        case(b"\xff\xfe{\0\"\0", "invalid_utf8", "no UTF-8 at byte 0"),
        // JSON of something else.
        case(b"{}", "unexpected_shape", "AUDIT_FORMAT=json"),
        case(b"[]", "unexpected_shape", "not an audit record (an object)"),
        case(b"null", "unexpected_shape", "not an audit record (an object)"),
        case(b"\"text\"", "unexpected_shape", "not an audit record (an object)"),
        case(b"42", "unexpected_shape", "not an audit record (an object)"),
        case(br#"{"level":"info","service":"audit","time":"2026-11-24T04:00:00Z","message":"starting"}"#, "unexpected_shape", "AUDIT_FILEPATH"),
        case(br#"{"Action":7,"Message":"x"}"#, "unexpected_shape", "without the texts Action and Message"),
        case(br#"{"Action":"file_delete"}"#, "unexpected_shape", "without the texts Action and Message"),
        case(br#"{"action":"file_delete","message":"x"}"#, "unexpected_shape", "without the texts Action and Message"),
        case(deep.as_bytes(), "unexpected_shape", "nested deeper than 128 levels"),
        // Other formats and other writers.
        case(b"file_delete)", "malformed", "the minimal audit format, which lacks most fields; set AUDIT_FORMAT=json"),
        case(b"   user 'u' trashed file 'f'", "malformed", "the minimal audit format"),
        case(b"2026-11-24T04:00:00Z INF starting service=audit", "malformed", "AUDIT_LOG_TO_CONSOLE=false"),
        case(b"panic: runtime error: invalid memory address", "malformed", "not an audit record"),
        case(b"2026/11/24 04:00:00 {\"Action\":\"file_delete\"}", "malformed", "not an audit record"),
        // Too long.
        case(long_name.as_bytes(), "oversized", "is longer than max_line"),
        case("y".repeat(3 * MAX_LINE).as_bytes(), "oversized", "is longer than max_line"),
    ];
    cases.push(Case {
        line: [&whole.as_bytes()[..150], good(1_000_000).as_bytes()].concat(),
        reason: "malformed",
        detail: "cut off or damaged",
        salvaged: 1,
    });
    cases.push(Case {
        line: format!("\u{feff}{}", good(2_000_000)).into_bytes(),
        reason: "malformed",
        detail: "not an audit record",
        salvaged: 1,
    });
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_line_is_kept_aside_and_its_neighbours_are_entered() {
    let cases = cases();
    let mut log = Vec::new();
    let mut good_lines = 0;
    let mut offsets = Vec::new();
    let mut add_good = |log: &mut Vec<u8>| {
        log.extend_from_slice(good(good_lines).as_bytes());
        log.push(b'\n');
        good_lines += 1;
    };
    add_good(&mut log);
    for case in &cases {
        offsets.push(log.len());
        log.extend_from_slice(&case.line);
        log.push(b'\n');
        add_good(&mut log);
    }
    let plan = World::sqlite().await;
    let path = plan.file("audit.log", &log);
    let source = format!("kind = \"ocis\"\npath = {path:?}\nmax_line = \"64KiB\"");
    let world = plan.source(&source).start().await;
    world.ready().await;

    let salvaged: usize = cases.iter().map(|case| case.salvaged).sum();
    let events = world.events_reach(good_lines + salvaged).await;
    let mut paths: Vec<&str> = events
        .iter()
        .map(|event| event.metadata["Path"].as_str().unwrap())
        .collect();
    paths.sort_unstable();
    paths.dedup();
    assert_eq!(paths.len(), good_lines + salvaged);

    let letters = world.daybook().store().dead_letters(1000).await.unwrap();
    for (case, offset) in cases.iter().zip(&offsets) {
        let shown: String = String::from_utf8_lossy(&case.line)
            .chars()
            .take(120)
            .collect();
        let suffix = format!(":{offset}");
        let letter = letters
            .iter()
            .find(|kept| kept.letter.position.ends_with(&suffix));
        let letter = &letter.unwrap_or_else(|| panic!("{shown}")).letter;
        assert_eq!(
            letter.reason.as_str(),
            case.reason,
            "{shown}: {}",
            letter.detail
        );
        assert!(
            letter.detail.contains(case.detail),
            "{shown}: {}",
            letter.detail
        );
        if case.reason != "oversized" && case.salvaged == 0 {
            assert_eq!(letter.raw, case.line, "{shown}");
        }
        assert!(
            case.salvaged > 0 || letter.raw_length == case.line.len() as u64,
            "{shown}"
        );
    }
    assert_eq!(letters.len(), cases.len());

    // received = written + dead-lettered, which the source counts when it hears of it.
    let of = async |metric: &str| world.metric(metric, "source=\"ocis\"").await;
    let (mut written, mut dead) = (0.0, 0.0);
    eventually("what is stored is counted", async || {
        written = of("daybook_events_written_total").await;
        dead = of("daybook_events_dead_lettered_total").await;
        written + dead >= (events.len() + letters.len()) as f64
    })
    .await;
    assert_eq!((written, dead), (events.len() as f64, letters.len() as f64));
    assert_eq!(of("daybook_events_received_total").await, written + dead);
    world.source_becomes("ocis", "running").await;
    world.stop().await;
}
