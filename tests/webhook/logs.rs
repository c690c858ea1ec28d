//! What the service logs, for a look at it.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, OnceLock};

/// Everything that was logged since the capture began, by all tests of this binary.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// As text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Logs everything of Daybook, and what others say at the default level, into memory.
pub fn capture() -> Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    let log = LOG.get_or_init(|| {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter("daybook=trace,daybook_actors=trace,info")
            .with_ansi(false)
            .with_writer(move || writer.clone());
        subscriber.init();
        log
    });
    log.clone()
}
