//! Lines that are none, too long, cut off; and very many of them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use daybook::simulators::ocis::OcisLog;
use daybook::simulators::people::People;
use jiff::Timestamp;
use rand::SeedableRng;
use rand::rngs::StdRng;
use testkit::World;
use testkit::process::{Process, free_port};
use testkit::world::eventually;

use crate::story::{Story, line, source};

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_are_none_become_dead_letters_and_the_next_ones_come() {
    let mut story = Story::sqlite().await;
    story.pen.write(3);
    let mut huge = vec![b'x'; 10 * MIB];
    huge.push(b'\n');
    story.pen.log.append_raw(&huge).unwrap();
    story.pen.write(3);
    story
        .pen
        .log
        .append_raw(b"\xff\xfe no utf-8 \xc3\n")
        .unwrap();
    let mut zeros = vec![0; 5_000];
    zeros.push(b'\n');
    story.pen.log.append_raw(&zeros).unwrap();
    // After a power cut zeros stand where a line was, and the next record behind them.
    story.pen.log.append_raw(&[0; 4_096]).unwrap();
    story.pen.write(3);
    // Windows line ends: the same record.
    let mut crlf = story.pen.promise().to_bytes();
    crlf.truncate(crlf.len() - 1);
    crlf.extend_from_slice(b"\r\n\r\n\n");
    story.pen.log.append_raw(&crlf).unwrap();
    story.settled().await;
    story.holds(&[], 4).await;
    let letters = story
        .world
        .daybook()
        .store()
        .dead_letters(10)
        .await
        .unwrap();
    let count = |reason: &str| {
        letters
            .iter()
            .filter(|letter| letter.letter.reason.as_str() == reason)
            .count()
    };
    assert_eq!(
        (
            count("oversized"),
            count("invalid_utf8"),
            count("malformed")
        ),
        (1, 1, 2),
        "{letters:?}"
    );
    let oversized = letters
        .iter()
        .find(|l| l.letter.reason.as_str() == "oversized")
        .unwrap();
    assert_eq!(oversized.letter.raw_length, 10 * MIB as u64);
    assert!(oversized.letter.raw.len() <= 1_024);

    // Half a huge line while it is stopped, the rest after it.
    story.pen.log.append_raw(&huge[..6 * MIB]).unwrap();
    story.world.restart().await;
    story.pen.log.append_raw(&huge[6 * MIB..]).unwrap();
    story.pen.write(2);
    story.settled().await;
    story.holds(&[], 5).await;
    story.world.stop().await;
}

/// Only reads: nothing to store, and yet the cursor moves on.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_reads_moves_the_cursor() {
    let mut story = Story::sqlite().await;
    let mut reads = Vec::new();
    for number in 0..50 {
        let text = String::from_utf8(line(number).to_bytes()).unwrap();
        reads.extend_from_slice(text.replace("file_delete", "file_read").as_bytes());
    }
    story.pen.log.append_raw(&reads).unwrap();
    story.settled().await;
    story.holds(&[], 0).await;
    assert_eq!(
        story
            .world
            .metric("daybook_events_filtered_total", "")
            .await,
        50.0
    );
    story.world.restart().await;
    story.pen.write(1);
    story.settled().await;
    assert_eq!(
        story
            .world
            .metric("daybook_events_received_total", "")
            .await,
        1.0
    );
    story.world.stop().await;
}

/// A small disk of its own for the log.
struct Disk {
    place: PathBuf,
}

impl Disk {
    /// `None` where mounting is not allowed.
    fn mount(place: PathBuf) -> Option<Self> {
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
            .arg(&place)
            .stderr(Stdio::null())
            .status();
        done.is_ok_and(|status| status.success())
            .then_some(Self { place })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _busy = Command::new("umount").arg("-l").arg(&self.place).status();
    }
}

/// Appends under a limit of the file's size: the system cuts the write short as a full disk does.
fn append_under_a_limit(path: &Path, bytes: &[u8], kib: u64) -> bool {
    let script = format!("trap '' XFSZ; ulimit -f {kib}; cat >> \"$0\"");
    let mut cat = Command::new("bash")
        .args(["-c", &script])
        .arg(path)
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // It stops reading when it cannot write.
    let _cut = cat.stdin.take().unwrap().write_all(bytes);
    cat.wait().unwrap().success()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_leaves_a_cut_line_and_the_next_record_glued_to_it() {
    let plan = World::sqlite().await;
    let place = plan.dir().join("disk");
    std::fs::create_dir(&place).unwrap();
    let disk = Disk::mount(place.clone());
    let story = Story::of(plan, "disk/audit.log").await;
    if disk.is_some() {
        let filler = place.join("filler");
        std::fs::write(&filler, vec![1; 64 << 10]).unwrap();
        let mut refused = 0;
        for _ in 0..1_000 {
            refused += u32::from(story.pen.try_write().is_err());
            if refused > 0 {
                break;
            }
        }
        assert_eq!(refused, 1, "the disk was never full");
        cut_line_is_at_rest(&story).await;
        std::fs::remove_file(&filler).unwrap();
    } else {
        story.pen.write(40);
        let kib = story.pen.metadata().len() / 1_024 + 1;
        let lost = line(96).to_bytes();
        assert!(!append_under_a_limit(story.pen.path(), &lost, kib));
        cut_line_is_at_rest(&story).await;
    }
    story.pen.write(4);
    story.settled().await;
    story.holds(&[], 1).await;
    let letters = story
        .world
        .daybook()
        .store()
        .dead_letters(10)
        .await
        .unwrap();
    assert_eq!(letters[0].letter.reason.as_str(), "malformed");
    story.world.stop().await;
    drop(disk);
}

/// Half a line counts as bytes, but nothing lags.
async fn cut_line_is_at_rest(story: &Story) {
    let end = story.pen.metadata().len();
    let whole = story.pen.end_of_lines();
    assert!(whole < end, "nothing was cut");
    eventually("only the cut line is left", async || {
        story.world.metric("daybook_ocis_bytes_behind", "").await == (end - whole) as f64
            && story.world.metric("daybook_ingest_lag_seconds", "").await == 0.0
    })
    .await;
}

/// As a process of its own, for its memory.
#[tokio::test(flavor = "multi_thread")]
async fn sixty_thousand_lines_at_once_in_bounded_memory() {
    const LINES: u64 = 60_000;
    const LIMIT: f64 = (4 * MIB) as f64;
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let log = OcisLog::new(dir.path().join("audit.log"));
    let configuration = dir.path().join("daybook.toml");
    let toml = format!(
        "[store]\nurl = \"sqlite:{0}/daybook.db\"\n[http]\nlisten = \"127.0.0.1:{port}\"\nauth = \"none\"\n[ingest]\nin_flight = \"4MiB\"\n[journal]\ndir = \"{0}/journal\"\n[[sources]]\n{1}\n",
        dir.path().display(),
        source(log.path()),
    );
    std::fs::write(&configuration, toml).unwrap();
    let mut process = Process::spawn(
        env!("CARGO_BIN_EXE_daybook"),
        &["run", "-c", configuration.to_str().unwrap()],
        port,
        &dir.path().join("log"),
    );
    process.ready().await;
    let burst = std::thread::spawn(move || {
        let people = People::new(5);
        let mut rng = StdRng::seed_from_u64(5);
        for _ in 0..10 {
            log.append_bulk(LINES / 10, &mut rng, &people, Timestamp::now())
                .unwrap();
        }
        log
    });
    let mut busiest: f64 = 0.0;
    eventually("all lines are received and durable", async || {
        let scrape = process.text("/metrics").await;
        let metric = |name: &str| testkit::world::sum_of(&scrape, name, "");
        let in_flight = metric("daybook_in_flight_bytes");
        assert!(in_flight <= LIMIT, "{in_flight} bytes in flight");
        busiest = busiest.max(in_flight);
        let written = metric("daybook_events_written_total");
        written + metric("daybook_events_filtered_total") == LINES as f64
            && metric("daybook_ocis_bytes_behind") == 0.0
            && metric("daybook_ingest_lag_seconds") == 0.0
    })
    .await;
    // A chunk is thousands of lines, but for those that are only reads.
    assert!(busiest > 100_000.0, "only {busiest} bytes in flight");
    let log = burst.join().unwrap();
    assert_eq!(log.lines_written(), LINES);
    let sources = process.json("/api/v1/sources").await;
    let position = sources["sources"][0]["cursor"]["lastEventId"].as_str();
    let position = position.unwrap().rsplit_once(':').unwrap().1.to_owned();
    assert_eq!(position, log.bytes_written().to_string());
    let (_, peak) = process.memory();
    assert!(
        peak < 100 * MIB as u64,
        "{} MiB resident",
        peak / MIB as u64
    );
    process.signal("TERM");
    assert!(process.wait().await.success());
}
