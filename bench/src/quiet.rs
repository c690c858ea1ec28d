//! What Daybook does when there is little to do: how soon a single event is durable, what waiting
//! costs, how soon it is up, and how soon it is up again after a SIGKILL.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mongodb::Database;
use mongodb::bson::{Document, doc};
use tempfile::TempDir;

use crate::ceiling::durable;
use crate::data::{WEBHOOK_KEY, one_line};
use crate::daybook::{Daybook, PATIENCE, ocis_source};
use crate::results::{Results, percentile};
use crate::world::{MIB, World};

/// The pause between two questions; the runtime makes it a millisecond at least.
const ASKED_EVERY: Duration = Duration::from_micros(500);

/// A line appended to an idle log: until it is seen in MongoDB, and until it is durable there, which is
/// when the cursor has passed it. In turn with it a single document that the bare driver inserts, with
/// the same write concern into the same server: less than that cannot be had.
pub async fn latency(world: &World, results: &mut Results) -> Result<()> {
    let scene = Scene::new(world).await?;
    let mut daybook = scene.start(world)?;
    daybook.ready().await?;
    let mut log = scene.log()?;
    log.write_all(&one_line(0))?;
    let place = scene.until_first(&mut daybook).await?;
    let bare = scene
        .database
        .collection_with_options::<Document>("bare", durable());
    let count = world.scaled(1000).min(1000);
    let (mut seen, mut stored, mut inserted) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=count {
        // Idle again: the writer has nothing in hand and the doorbell hangs.
        tokio::time::sleep(Duration::from_millis(10)).await;
        let line = one_line(number);
        let begin = log.metadata()?.len();
        let end = begin + line.len() as u64;
        let since = Instant::now();
        log.write_all(&line)?;
        let event = doc! { "source": "ocis", "externalId": format!("{}:{begin}", place.file_key) };
        scene.until(EVENTS, event, &mut daybook).await?;
        seen.push(milliseconds(since));
        let cursor = doc! { "source": "ocis", "lastEventId": format!("{}:{end}", place.inode) };
        scene.until("ingestcursors", cursor, &mut daybook).await?;
        stored.push(milliseconds(since));

        tokio::time::sleep(Duration::from_millis(10)).await;
        let document = doc! { "text": String::from_utf8_lossy(&line).into_owned() };
        let since = Instant::now();
        bare.insert_one(document).await?;
        inserted.push(milliseconds(since));
    }
    for (subject, mut all) in [
        (SEEN, seen),
        (DURABLE, stored),
        ("bare insert_one, durable", inserted),
    ] {
        all.sort_by(f64::total_cmp);
        let values = vec![
            ("p50_ms", percentile(&all, 0.5)),
            ("p99_ms", percentile(&all, 0.99)),
        ];
        results.add("latency", subject, values);
    }
    daybook.stop()?;
    scene.database.drop().await?;
    Ok(())
}

const SEEN: &str = "a line until it is seen";

/// What the row is called that counts.
pub const DURABLE: &str = "a line until it is durable";

const EVENTS: &str = "auditevents";

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

const MINUTE: Duration = Duration::from_secs(60);

/// A minute, whatever the scale, with four sources and nothing to do.
pub async fn idle(world: &World, results: &mut Results) -> Result<()> {
    let scene = Scene::new(world).await?;
    let mut daybook = scene.start(world)?;
    daybook.ready().await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = daybook.usage()?;
    tokio::time::sleep(MINUTE).await;
    let after = daybook.usage()?;
    let cpu = (after.cpu_seconds - before.cpu_seconds) / MINUTE.as_secs_f64() * 100.0;
    let values = vec![
        ("cpu_percent_of_a_core", cpu),
        ("rss_mib", after.rss as f64 / MIB),
    ];
    results.add("idle", "four sources", values);
    daybook.stop()?;
    scene.database.drop().await?;
    Ok(())
}

/// From exec to ready on a store that exists, and from SIGKILL to the next event.
pub async fn start_and_recover(world: &World, results: &mut Results) -> Result<()> {
    let scene = Scene::new(world).await?;
    let mut log = scene.log()?;
    log.write_all(&one_line(0))?;
    let mut daybook = scene.start(world)?;
    scene.until_seen(1, &mut daybook).await?;
    daybook.stop()?;

    let mut daybook = scene.start(world)?;
    let took = daybook.ready().await?.as_secs_f64() * 1000.0;
    results.add("start", "exec to ready", vec![("ms", took)]);

    log.write_all(&one_line(1))?;
    scene.until_seen(2, &mut daybook).await?;
    log.write_all(&one_line(2))?;
    let since = Instant::now();
    // Its drop is a SIGKILL.
    drop(daybook);
    let mut daybook = scene.start(world)?;
    log.write_all(&one_line(3))?;
    scene.until_seen(4, &mut daybook).await?;
    let took = since.elapsed().as_secs_f64() * 1000.0;
    results.add("recover", "SIGKILL to the next event", vec![("ms", took)]);
    daybook.stop()?;
    scene.database.drop().await?;
    Ok(())
}

/// A Daybook with one source of every kind.
struct Scene {
    database: Database,
    folder: TempDir,
    url: String,
}

impl Scene {
    async fn new(world: &World) -> Result<Self> {
        let database = world.database().await?;
        let folder = world.folder()?;
        let url = world.mongod.url(database.name());
        std::fs::write(folder.path().join("key"), WEBHOOK_KEY)?;
        Ok(Self {
            database,
            folder,
            url,
        })
    }

    fn log(&self) -> Result<File> {
        let path = self.folder.path().join("audit.log");
        Ok(OpenOptions::new().create(true).append(true).open(path)?)
    }

    fn start(&self, world: &World) -> Result<Daybook> {
        let folder = self.folder.path();
        let key = folder.join("key").display().to_string();
        // Nobody listens on that port: a server that is away is asked as seldom as one that is there.
        let sources = format!(
            "{}[[sources]]\nkind = \"authentik\"\nurl = \"http://127.0.0.1:9\"\ntoken_file = \"{key}\"\n\
             [[sources]]\nkind = \"stalwart\"\nsecret_files = [\"{key}\"]\n\
             [[sources]]\nkind = \"recorder\"\nname = \"platform\"\n",
            ocis_source(&folder.join("audit.log")),
        );
        Daybook::start(&world.daybook, folder, &self.url, &sources)
    }

    /// Waits until so many events of the log are seen.
    async fn until_seen(&self, count: u64, daybook: &mut Daybook) -> Result<()> {
        let events = self.database.collection::<Document>(EVENTS);
        let since = Instant::now();
        while events.count_documents(doc! { "source": "ocis" }).await? < count {
            daybook.check()?;
            ensure!(since.elapsed() < PATIENCE, "not stored in time");
            tokio::time::sleep(ASKED_EVERY).await;
        }
        Ok(())
    }

    /// Waits until there is such a document. An index finds it, so that asking costs the server little.
    async fn until(&self, collection: &str, wanted: Document, daybook: &mut Daybook) -> Result<()> {
        let collection = self.database.collection::<Document>(collection);
        let since = Instant::now();
        while collection.find_one(wanted.clone()).await?.is_none() {
            daybook.check()?;
            ensure!(since.elapsed() < PATIENCE, "not stored in time");
            tokio::time::sleep(ASKED_EVERY).await;
        }
        Ok(())
    }

    /// Waits for the first line of the log, and learns what the keys of the others are made of.
    async fn until_first(&self, daybook: &mut Daybook) -> Result<Place> {
        self.until(
            "ingestcursors",
            doc! { "source": "ocis", "lastEventId": { "$ne": null } },
            daybook,
        )
        .await?;
        let events = self.database.collection::<Document>(EVENTS);
        let event = events.find_one(doc! { "source": "ocis" }).await?;
        let event = event.context("the first line's event")?;
        let (file_key, _) = event
            .get_str("externalId")?
            .rsplit_once(':')
            .context("a key with an offset")?;
        Ok(Place {
            file_key: file_key.to_owned(),
            inode: self.log()?.metadata()?.ino(),
        })
    }
}

/// How the log is called in events and in its cursor.
struct Place {
    file_key: String,
    inode: u64,
}
