//! Threads that own a connection each and do one job after the other.
//!
//! A caller that stops waiting (timeout, cancellation) raises a flag: its job is skipped if it has
//! not begun and interrupted otherwise, so that nothing runs on for nobody.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::errors::store_error;
use crate::store::{Result, StoreError};

/// Steps of SQLite's machine between two looks at the flag.
const STEPS_BETWEEN_LOOKS: i32 = 1000;

struct Job {
    abandoned: Arc<AtomicBool>,
    work: Box<dyn FnOnce(&mut Connection) + Send>,
}

/// The way to some threads that share one queue; they end when it is dropped.
pub(super) struct Workers {
    /// Sending takes no time; the lock only makes the sender shareable.
    queue: Mutex<Sender<Job>>,
    timeout: Duration,
}

impl Workers {
    /// Starts a thread for each connection.
    pub(super) fn start(
        name: &str,
        connections: Vec<Connection>,
        timeout: Duration,
    ) -> std::io::Result<Self> {
        let (queue, jobs) = channel();
        let jobs = Arc::new(Mutex::new(jobs));
        for connection in connections {
            let jobs = Arc::clone(&jobs);
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || work(connection, &jobs))?;
        }
        Ok(Self {
            queue: Mutex::new(queue),
            timeout,
        })
    }

    /// Runs a job on one of the threads, for at most the timeout.
    pub(super) async fn run<T, F>(&self, what: &'static str, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let timed_out = || StoreError::Timeout {
            what,
            after: self.timeout,
        };
        let (reply, answer) = oneshot::channel();
        let abandon = AbandonOnDrop(Arc::default());
        let job = Job {
            abandoned: Arc::clone(&abandon.0),
            work: Box::new(move |connection| {
                // Nobody may be there to hear it any more.
                let _ = reply.send(job(connection));
            }),
        };
        let queue = self
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        queue.send(job).map_err(|_| stopped())?;
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(error))) if is_interruption(&error) => Err(timed_out()),
            Ok(Ok(Err(error))) => Err(store_error(&error)),
            Ok(Err(_)) => Err(stopped()),
            Err(_) => Err(timed_out()),
        }
    }
}

struct AbandonOnDrop(Arc<AtomicBool>);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn work(mut connection: Connection, jobs: &Mutex<Receiver<Job>>) {
    loop {
        // The idle thread that holds the lock is the one that waits for the next job.
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { abandoned, work }) = next else {
            return;
        };
        if abandoned.load(Ordering::Relaxed) {
            continue;
        }
        let look = move || abandoned.load(Ordering::Relaxed);
        // Without the handler a job merely runs longer than anybody waits for it.
        let _ = connection.progress_handler(STEPS_BETWEEN_LOOKS, Some(look));
        // A job that panics answers by dropping its reply; its transaction was rolled back.
        let _ = catch_unwind(AssertUnwindSafe(|| work(&mut connection)));
    }
}

fn is_interruption(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted)
}

fn stopped() -> StoreError {
    StoreError::Other("the thread of the database failed at this operation".to_owned())
}
