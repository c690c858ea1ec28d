//! Structured logs on standard error.
//!
//! A thread of its own writes them: a log that nobody reads (a terminal that is stopped, a pipe
//! whose reader hangs) must not hold up those who log.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::Display;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender, SyncSender, TrySendError};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use crate::config::{LogFormat, TelemetryConfig};

/// So many lines wait for whoever reads them; what comes then is lost, and counted.
const MOST_WAITING: usize = 8192;
/// How long the end of the process waits until they are written.
const LAST_LINES: Duration = Duration::from_secs(1);
/// How long a panic waits until it is written: nobody can tell whether the process goes on.
const LAST_WORD: Duration = Duration::from_millis(100);

type SetFilter = Box<dyn Fn(EnvFilter) + Send + Sync>;

/// The log of this process.
struct Log {
    lines: Lines,
    set_filter: SetFilter,
}

static LOG: OnceLock<Log> = OnceLock::new();

/// Sends logs to standard error, and panics with them. A second call in one process changes
/// nothing. Whoever calls it from `main` holds [`LastLines`].
///
/// # Errors
/// When the filter does not parse.
pub fn init(config: &TelemetryConfig) -> Result<(), ParseError> {
    let filter = EnvFilter::try_new(&config.log)?;
    let (filter, handle) = reload::Layer::<_, Registry>::new(filter);
    let lines = Lines::to(io::stderr());
    let queue = lines.clone();
    let layer = fmt::layer()
        .with_writer(move || queue.clone())
        .with_ansi(false);
    let registry = tracing_subscriber::registry().with(filter);
    // A subscriber that is already there (tests) stays: the error says only that.
    let set = match config.log_format {
        LogFormat::Text => registry.with(layer).try_init(),
        LogFormat::Json => registry.with(layer.json()).try_init(),
    };
    if set.is_ok() {
        let set_filter: SetFilter = Box::new(move |filter| {
            // Fails only when the subscriber is gone, with which nothing is logged anyway.
            let _gone = handle.reload(filter);
        });
        let _first = LOG.set(Log { lines, set_filter });
        tell_of_panics();
    }
    Ok(())
}

/// Logs by another filter from now on, in a process whose logs go through [`init`].
///
/// # Errors
/// When the filter does not parse; then nothing has changed.
pub fn set_filter(filter: &str) -> Result<(), ParseError> {
    let filter = EnvFilter::try_new(filter)?;
    if let Some(log) = LOG.get() {
        (log.set_filter)(filter);
    }
    Ok(())
}

/// A line on standard error, behind those that were logged before it. When the terminal has gone,
/// nobody is told, and the process goes on.
pub fn tell(line: impl Display) {
    let line = format!("{line}\n");
    match LOG.get() {
        Some(log) => log.lines.push(line.as_bytes()),
        None => {
            let _gone = io::stderr().write_all(line.as_bytes());
        }
    }
}

/// The lines of the log that were lost: nobody read it, or not as fast as they came.
pub fn lost_lines() -> u64 {
    LOG.get().map_or(0, |log| log.lines.lost())
}

/// Waits for the last lines of the log of this process when it is dropped, not for long.
pub struct LastLines;

impl Drop for LastLines {
    fn drop(&mut self) {
        if let Some(log) = LOG.get() {
            log.lines.flush(LAST_LINES);
        }
    }
}

/// What is told of panics otherwise is written by the thread that panics.
fn tell_of_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("<unnamed>");
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            tell(format_args!("thread '{thread}' {panic}\n{backtrace}"));
        } else {
            tell(format_args!("thread '{thread}' {panic}"));
        }
        if let Some(log) = LOG.get() {
            log.lines.flush(LAST_WORD);
        }
    }));
}

/// Lines on their way to whoever reads them.
#[derive(Clone)]
struct Lines {
    queue: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

enum Message {
    Line(Vec<u8>),
    /// Answered when all before it was written.
    Flush(Sender<()>),
}

impl Lines {
    fn to(mut out: impl Write + Send + 'static) -> Self {
        let (queue, messages) = mpsc::sync_channel(MOST_WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let lines = Self {
            queue,
            lost: Arc::clone(&lost),
        };
        std::thread::spawn(move || {
            for message in messages {
                match message {
                    Message::Line(line) => {
                        let is_lost = out.write_all(&line).is_err();
                        lost.fetch_add(u64::from(is_lost), Ordering::Relaxed);
                    }
                    Message::Flush(written) => {
                        let _gone = out.flush();
                        let _late = written.send(());
                    }
                }
            }
        });
        lines
    }

    fn push(&self, line: &[u8]) {
        let is_lost = self.queue.try_send(Message::Line(line.to_vec())).is_err();
        self.lost.fetch_add(u64::from(is_lost), Ordering::Relaxed);
    }

    fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Waits until all that was pushed before is written, and no longer than this.
    fn flush(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let (sender, written) = mpsc::channel();
        let mut message = Message::Flush(sender);
        while let Err(TrySendError::Full(unsent)) = self.queue.try_send(message) {
            if Instant::now() >= until {
                return;
            }
            message = unsent;
            std::thread::sleep(Duration::from_millis(5));
        }
        let _late = written.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn nobody_waits_for_a_log_that_nobody_reads() {
        const LINE: &[u8] = &[b'x'; 100];
        let (reader, writer) = io::pipe().unwrap();
        let lines = Lines::to(writer);
        // More than a pipe and the queue hold.
        for _ in 0..2 * MOST_WAITING {
            lines.push(LINE);
        }
        assert!(lines.lost() > 0);
        lines.flush(Duration::from_millis(100));
        drop(reader);
    }

    #[test]
    fn the_last_lines_are_written() {
        let (mut reader, writer) = io::pipe().unwrap();
        let lines = Lines::to(writer);
        for line in ["one\n", "two\n"] {
            lines.push(line.as_bytes());
        }
        lines.flush(Duration::from_secs(30));
        let lost = lines.lost();
        drop(lines);
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap();
        assert_eq!((read.as_str(), lost), ("one\ntwo\n", 0));
    }

    #[test]
    fn lines_that_cannot_be_written_are_lost() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let lines = Lines::to(writer);
        lines.push(b"one\n");
        lines.flush(Duration::from_secs(30));
        assert_eq!(lines.lost(), 1);
    }
}
