//! When to look at the file: a doorbell, and a timer for when it is deaf.
//!
//! linemux tells that something happened at a path; what, is not believed: any event and any error
//! mean "look". Its queue has no bound, so a thread of ours empties it all the time into one flag; no
//! task does, for with every event linemux asks the disk, and that may hang. It loses a path whose
//! directory vanishes, and keeps a watch for every file rotated away; so it is built anew now and then,
//! and whenever it ends. Some mounts deliver no events at all, hence the timer.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use linemux::MuxedEvents;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};

/// How old a watch may become.
const RENEWED_EVERY: Duration = Duration::from_secs(300);
/// A watch that only errs is given up.
const ERRORS_IN_A_ROW: u32 = 16;

/// Says when a file is worth a look.
#[derive(Debug)]
pub struct Doorbell {
    bell: Arc<Bell>,
    poll: Duration,
    quick: Duration,
    waiting_since: Option<Instant>,
    task: AbortHandle,
}

#[derive(Debug, Default)]
struct Bell {
    rings: Notify,
    watching: AtomicBool,
}

impl Doorbell {
    /// Watches the path, there or not. Without events it rings every `quick` while a watch stands,
    /// every `poll` while none can be had.
    ///
    /// Must be called in a tokio runtime. The watch keeps a thread of its own, which ends with the
    /// doorbell.
    pub fn new(path: impl Into<PathBuf>, poll: Duration, quick: Duration) -> Self {
        let bell = Arc::new(Bell::default());
        let task = tokio::spawn(listen(path.into(), poll, bell.clone())).abort_handle();
        Self {
            bell,
            poll,
            quick,
            waiting_since: None,
            task,
        }
    }

    /// Returns when something happened since the last return, or the timer has run out.
    ///
    /// Cancel-safe: neither a ring nor the time waited is lost.
    pub async fn rang(&mut self) {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let period = if self.is_watching() {
            self.quick.min(self.poll)
        } else {
            self.poll
        };
        tokio::select! {
            () = self.bell.rings.notified() => {}
            () = sleep_until(since + period) => {}
        }
        self.waiting_since = None;
    }

    /// Whether a watch stands; otherwise the timer does it alone.
    pub fn is_watching(&self) -> bool {
        self.bell.watching.load(Ordering::Relaxed)
    }
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why a watch ended.
enum Ended {
    Old,
    Broken,
}

async fn listen(path: PathBuf, poll: Duration, bell: Arc<Bell>) {
    loop {
        if let Ok(watch) = watch(&path).await {
            bell.watching.store(true, Ordering::Relaxed);
            // Something may have happened while there was no watch.
            bell.rings.notify_one();
            if let Ended::Old = forward_aside(watch, &path, &bell).await {
                continue;
            }
            bell.watching.store(false, Ordering::Relaxed);
            bell.rings.notify_one();
        }
        bell.watching.store(false, Ordering::Relaxed);
        sleep(poll.max(Duration::from_millis(10))).await;
    }
}

async fn watch(path: &Path) -> io::Result<MuxedEvents> {
    let path = path.to_owned();
    let setting_up = move || {
        let mut events = MuxedEvents::new()?;
        // Asynchronous in name only: it waits, blocking, for its thread.
        match events.add_file(path).now_or_never() {
            Some(added) => added.map(|_| events),
            None => Err(io::ErrorKind::TimedOut.into()),
        }
    };
    tokio::task::spawn_blocking(setting_up)
        .await
        .map_err(io::Error::other)?
}

/// Forwards on a thread of its own, which ends with this future, as soon as its disk answers. It is
/// none of the runtime's for blocking work: those are few, and this one is kept.
async fn forward_aside(watch: MuxedEvents, path: &Path, bell: &Arc<Bell>) -> Ended {
    let (_open, closed) = oneshot::channel();
    let (ending, ended) = oneshot::channel();
    let (path, bell, runtime) = (path.to_owned(), Arc::clone(bell), Handle::current());
    let forwarding = move || {
        let end = runtime.block_on(forward(watch, &path, &bell, closed));
        let _unheard = ending.send(end);
    };
    let thread = std::thread::Builder::new().name("daybook-watch".to_owned());
    if thread.spawn(forwarding).is_err() {
        return Ended::Broken;
    }
    ended.await.unwrap_or(Ended::Broken)
}

async fn forward(
    mut watch: MuxedEvents,
    path: &Path,
    bell: &Bell,
    mut closed: oneshot::Receiver<()>,
) -> Ended {
    let renewal = sleep(RENEWED_EVERY);
    tokio::pin!(renewal);
    let mut is_there = path.exists();
    let mut errors = 0;
    loop {
        tokio::select! {
            // In this order: a runtime that ends closes first, and its timers panic then.
            biased;
            _ = &mut closed => return Ended::Old,
            () = &mut renewal => return Ended::Old,
            event = watch.next_event() => match event {
                Ok(Some(event)) => {
                    errors = 0;
                    let was_there = std::mem::replace(&mut is_there, path.exists());
                    // Of other files, which are heard of as long as it is not there.
                    if event.paths.is_empty() && !was_there && !is_there {
                        continue;
                    }
                }
                Ok(None) => return Ended::Broken,
                Err(_) => {
                    errors += 1;
                    if errors >= ERRORS_IN_A_ROW {
                        return Ended::Broken;
                    }
                }
            }
        }
        bell.rings.notify_one();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;

    use tokio::time::timeout;

    use super::*;

    const FAR: Duration = Duration::from_secs(3600);
    const SOON: Duration = Duration::from_secs(60);

    fn append(path: &Path, text: &str) {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// Answers what is in the queue until nothing rings for a while.
    async fn silence(doorbell: &mut Doorbell) {
        while timeout(Duration::from_millis(50), doorbell.rang())
            .await
            .is_ok()
        {}
    }

    async fn watching(doorbell: &mut Doorbell) {
        timeout(SOON, async {
            while !doorbell.is_watching() {
                doorbell.rang().await;
            }
        })
        .await
        .expect("a watch stands soon");
        silence(doorbell).await;
    }

    async fn rings(doorbell: &mut Doorbell, what: &str) {
        timeout(SOON, doorbell.rang()).await.expect(what);
        silence(doorbell).await;
    }

    /// A watch moves from directory to file and back; a write in between is the timer's.
    async fn rings_when_written(doorbell: &mut Doorbell, path: &Path) {
        timeout(SOON, async {
            loop {
                append(path, "a line\n");
                if timeout(Duration::from_millis(200), doorbell.rang())
                    .await
                    .is_ok()
                {
                    return;
                }
            }
        })
        .await
        .expect("written");
        silence(doorbell).await;
    }

    #[tokio::test]
    async fn it_rings_through_creation_writes_rotation_and_deletion() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let mut doorbell = Doorbell::new(&path, FAR, FAR);
        watching(&mut doorbell).await;
        append(&path, "one\n");
        rings(&mut doorbell, "created").await;
        rings_when_written(&mut doorbell, &path).await;
        for turn in 0..3 {
            std::fs::rename(&path, directory.path().join(format!("audit.log.{turn}"))).unwrap();
            rings(&mut doorbell, "renamed").await;
            // Created again, and then written.
            for _ in 0..2 {
                rings_when_written(&mut doorbell, &path).await;
            }
        }
        // A reader's open descriptor keeps the inode: there is no deletion event of the file itself.
        let held = std::fs::File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        rings(&mut doorbell, "deleted").await;
        rings_when_written(&mut doorbell, &path).await;
        drop(held);
    }

    #[tokio::test]
    async fn other_files_do_not_ring_while_it_is_awaited() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let mut doorbell = Doorbell::new(&path, FAR, FAR);
        watching(&mut doorbell).await;
        append(&directory.path().join("other.log"), "a line\n");
        let ring = timeout(Duration::from_millis(200), doorbell.rang()).await;
        assert!(ring.is_err(), "it rang for another file");
        append(&path, "one\n");
        rings(&mut doorbell, "created").await;
    }

    /// As linemux may hang with its disk.
    #[tokio::test]
    async fn it_needs_no_thread_that_runs_tasks() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let mut doorbell = Doorbell::new(&path, FAR, FAR);
        watching(&mut doorbell).await;
        append(&path, "one\n");
        let begun = Instant::now();
        // The only one, which has nothing else to do meanwhile.
        while doorbell.bell.rings.notified().now_or_never().is_none() {
            assert!(begun.elapsed() < SOON, "nothing rang");
            std::thread::yield_now();
        }
    }

    #[test]
    fn it_keeps_no_thread_for_blocking_work() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().max_blocking_threads(1).build();
        runtime.unwrap().block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let mut doorbell = Doorbell::new(directory.path().join("audit.log"), FAR, FAR);
            watching(&mut doorbell).await;
            let work = tokio::task::spawn_blocking(|| ());
            timeout(SOON, work).await.expect("one is free").unwrap();
        });
    }

    #[tokio::test]
    async fn a_flood_of_events_becomes_one_ring() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        append(&path, "one\n");
        let mut doorbell = Doorbell::new(&path, FAR, FAR);
        watching(&mut doorbell).await;
        for _ in 0..20_000 {
            append(&path, "a line\n");
        }
        rings(&mut doorbell, "flooded").await;
        rings_when_written(&mut doorbell, &path).await;
        assert!(doorbell.is_watching());
    }

    #[tokio::test]
    async fn without_a_directory_the_timer_rings_until_the_watch_stands() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("later").join("audit.log");
        let poll = Duration::from_millis(30);
        let mut doorbell = Doorbell::new(&path, poll, FAR);
        for _ in 0..3 {
            let before = Instant::now();
            timeout(SOON, doorbell.rang()).await.unwrap();
            assert!(before.elapsed() >= poll);
            assert!(!doorbell.is_watching());
        }
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        timeout(SOON, async {
            while !doorbell.is_watching() {
                doorbell.rang().await;
            }
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn a_wait_that_is_cancelled_again_and_again_still_ends() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("absent").join("audit.log");
        let mut doorbell = Doorbell::new(&path, Duration::from_secs(2), FAR);
        let mut cancelled = 0;
        timeout(SOON, async {
            while timeout(Duration::from_millis(10), doorbell.rang())
                .await
                .is_err()
            {
                cancelled += 1;
            }
        })
        .await
        .expect("the time waited adds up");
        assert!(cancelled > 0);
    }

    #[tokio::test]
    async fn its_task_and_its_thread_end_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut doorbell = Doorbell::new(directory.path().join("audit.log"), FAR, FAR);
        watching(&mut doorbell).await;
        let bell = Arc::downgrade(&doorbell.bell);
        drop(doorbell);
        timeout(SOON, async {
            while bell.strong_count() > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("nothing holds the bell any more");
    }
}
