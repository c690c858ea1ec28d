//! Threads that own a connection each and do one job after the other.
//!
//! A caller that stops waiting (timeout, cancellation) raises a flag: its job is skipped if it has
//! not begun and interrupted otherwise, so that nothing runs on for nobody.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::errors::store_error;
use super::files::OpenFiles;
use crate::store::{Result, StoreError};

/// Steps of SQLite's machine between two looks at the flag.
const STEPS_BETWEEN_LOOKS: i32 = 1000;

/// How long there is nothing to do before a thread does what can wait.
const QUIET: Duration = Duration::from_millis(20);

/// After a job that took so long the thread that writes leaves its lock alone for a moment: beside one job after the other
/// another process would hardly meet it free.
const LONG: Duration = Duration::from_millis(100);

/// What can wait, in small portions; `false`: nothing does.
pub(super) type Meanwhile = Arc<dyn Fn(&mut Connection) -> rusqlite::Result<bool> + Send + Sync>;

struct Job {
    abandoned: Arc<AtomicBool>,
    work: Box<dyn FnOnce(&mut Connection) + Send>,
}

/// The way to some threads that share one queue; they end when it is dropped.
pub(super) struct Workers {
    /// Sending takes no time; the lock only makes the sender shareable.
    queue: Mutex<Sender<Job>>,
    files: Arc<OpenFiles>,
    timeout: Duration,
}

impl Workers {
    /// Starts a thread for each connection, which does `meanwhile` while there are no jobs.
    pub(super) fn start(
        name: &str,
        connections: Vec<Connection>,
        files: &Arc<OpenFiles>,
        timeout: Duration,
        meanwhile: Option<Meanwhile>,
    ) -> std::io::Result<Self> {
        let (queue, jobs) = channel();
        let jobs = Arc::new(Mutex::new(jobs));
        for connection in connections {
            let (jobs, meanwhile) = (Arc::clone(&jobs), meanwhile.clone());
            let files = Arc::clone(files);
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || work(connection, &files, &jobs, meanwhile.as_ref()))?;
        }
        Ok(Self {
            queue: Mutex::new(queue),
            files: Arc::clone(files),
            timeout,
        })
    }

    /// Runs a job on one of the threads, for at most the timeout.
    pub(super) async fn run<T, F>(&self, what: &'static str, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.run_for(self.timeout, what, job).await
    }

    /// The same, for at most so long.
    pub(super) async fn run_for<T, F>(
        &self,
        after: Duration,
        what: &'static str,
        job: F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let timed_out = || StoreError::Timeout { what, after };
        let (reply, answer) = oneshot::channel();
        let abandon = AbandonOnDrop(Arc::default());
        let files = Arc::clone(&self.files);
        let job = Job {
            abandoned: Arc::clone(&abandon.0),
            work: Box::new(move |connection| {
                let done = files.check(connection).map(|()| job(connection));
                // Nobody may be there to hear it any more.
                let _ = reply.send(done);
            }),
        };
        let queue = self
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        queue.send(job).map_err(|_| stopped())?;
        let Ok(answer) = tokio::time::timeout(after, answer).await else {
            return Err(timed_out());
        };
        match answer.map_err(|_| stopped())?? {
            Ok(value) => Ok(value),
            Err(error) if is_interruption(&error) => Err(timed_out()),
            Err(error) => Err(store_error(&error)),
        }
    }
}

struct AbandonOnDrop(Arc<AtomicBool>);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn work(
    mut connection: Connection,
    files: &OpenFiles,
    jobs: &Mutex<Receiver<Job>>,
    meanwhile: Option<&Meanwhile>,
) {
    // How long to wait before doing what can wait, if anything may.
    let mut patience = None;
    loop {
        let Job { abandoned, work } = match next(jobs, patience) {
            Ok(job) => job,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                let is_more = meanwhile.is_some_and(|some| do_some(&mut connection, files, some));
                patience = is_more.then_some(Duration::ZERO);
                continue;
            }
        };
        patience = meanwhile.map(|_| QUIET);
        if abandoned.load(Ordering::Relaxed) {
            continue;
        }
        let look = move || abandoned.load(Ordering::Relaxed);
        // Without the handler a job merely runs longer than anybody waits for it.
        let _ = connection.progress_handler(STEPS_BETWEEN_LOOKS, Some(look));
        let begun = Instant::now();
        // A job that panics answers by dropping its reply; its transaction was rolled back.
        let _ = catch_unwind(AssertUnwindSafe(|| work(&mut connection)));
        if meanwhile.is_some() && begun.elapsed() >= LONG {
            std::thread::sleep(super::BETWEEN_LOOKS);
        }
    }
    files.close(connection);
}

/// The idle thread that holds the lock is the one that waits for the next job.
fn next(
    jobs: &Mutex<Receiver<Job>>,
    patience: Option<Duration>,
) -> std::result::Result<Job, RecvTimeoutError> {
    let jobs = jobs.lock().unwrap_or_else(PoisonError::into_inner);
    match patience {
        Some(patience) => jobs.recv_timeout(patience),
        None => jobs.recv().map_err(RecvTimeoutError::from),
    }
}

/// `false` also when it failed: it is tried again after the next job, which tells what is wrong.
fn do_some(connection: &mut Connection, files: &OpenFiles, some: &Meanwhile) -> bool {
    if files.check(connection).is_err() {
        return false;
    }
    let _ = connection.progress_handler(0, None::<fn() -> bool>);
    let done = catch_unwind(AssertUnwindSafe(|| some(connection)));
    matches!(done, Ok(Ok(true)))
}

fn is_interruption(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted)
}

fn stopped() -> StoreError {
    StoreError::Other("the thread of the database failed at this operation".to_owned())
}
