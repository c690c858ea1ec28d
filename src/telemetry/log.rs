//! Structured logs on standard error.
//!
//! A thread of its own writes them: a log that nobody reads (a terminal that is stopped, a pipe
//! whose reader hangs) must not hold up those who log.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::Display;
use std::io::Write;
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use crate::config::{LogFormat, TelemetryConfig};

/// So many lines wait for whoever reads them; what comes then is lost, and counted.
const MOST_WAITING: usize = 8192;
/// How long the end of the process waits until they are written.
const LAST_LINES: Duration = Duration::from_secs(1);

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
    let lines = Lines::to(std::io::stderr());
    let layer = fmt::layer()
        .with_writer(lines.queue.clone())
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
    let _gone = match LOG.get() {
        Some(log) => log.lines.queue.clone().write_all(line.as_bytes()),
        None => std::io::stderr().write_all(line.as_bytes()),
    };
}

/// The lines of the log that were lost because nobody read it.
pub fn lost_lines() -> u64 {
    LOG.get().map_or(0, |log| log.lines.lost())
}

/// Ends the log of this process when it is dropped, and waits for its last lines, not for long.
pub struct LastLines;

impl Drop for LastLines {
    fn drop(&mut self) {
        if let Some(log) = LOG.get() {
            log.lines.end();
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
    }));
}

/// Lines on their way to whoever reads them.
struct Lines {
    queue: NonBlocking,
    writer: Mutex<Option<WorkerGuard>>,
}

impl Lines {
    fn to(out: impl Write + Send + 'static) -> Self {
        let builder = NonBlockingBuilder::default()
            .buffered_lines_limit(MOST_WAITING)
            .lossy(true);
        let (queue, writer) = builder.finish(out);
        Self {
            queue,
            writer: Mutex::new(Some(writer)),
        }
    }

    fn lost(&self) -> u64 {
        self.queue.error_counter().dropped_lines() as u64
    }

    /// Waits until they are written; what comes afterwards is lost.
    fn end(&self) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(writer) = writer.take() else { return };
        let (ended, end) = mpsc::channel();
        // A guard that has waited in vain says so on standard error, which nobody reads.
        std::thread::spawn(move || {
            drop(writer);
            let _late = ended.send(());
        });
        let _late = end.recv_timeout(LAST_LINES);
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
        let (reader, writer) = std::io::pipe().unwrap();
        let lines = Lines::to(writer);
        let mut queue = lines.queue.clone();
        // More than a pipe and the queue hold.
        for _ in 0..2 * MOST_WAITING {
            queue.write_all(LINE).unwrap();
        }
        assert!(lines.lost() > 0);
        lines.end();
        drop(reader);
    }

    #[test]
    fn the_last_lines_are_written() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let lines = Lines::to(writer);
        let mut queue = lines.queue.clone();
        for line in ["one\n", "two\n"] {
            queue.write_all(line.as_bytes()).unwrap();
        }
        lines.end();
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap();
        assert_eq!((read.as_str(), lines.lost()), ("one\ntwo\n", 0));
    }
}
