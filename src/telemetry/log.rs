//! Structured logs on standard error.

use std::sync::OnceLock;

use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use crate::config::{LogFormat, TelemetryConfig};

type SetFilter = Box<dyn Fn(EnvFilter) + Send + Sync>;

/// How the filter of this process is changed.
static SET_FILTER: OnceLock<SetFilter> = OnceLock::new();

/// Sends logs to standard error. A second call in one process changes nothing.
///
/// # Errors
/// When the filter does not parse.
pub fn init(config: &TelemetryConfig) -> Result<(), ParseError> {
    let filter = EnvFilter::try_new(&config.log)?;
    let (filter, handle) = reload::Layer::<_, Registry>::new(filter);
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let registry = tracing_subscriber::registry().with(filter);
    // A subscriber that is already there (tests) stays: the error says only that.
    let set = match config.log_format {
        LogFormat::Text => registry.with(lines).try_init(),
        LogFormat::Json => registry.with(lines.json()).try_init(),
    };
    if set.is_ok() {
        let _first = SET_FILTER.set(Box::new(move |filter| {
            // Fails only when the subscriber is gone, with which nothing is logged anyway.
            let _gone = handle.reload(filter);
        }));
    }
    Ok(())
}

/// Logs by another filter from now on, in a process whose logs go through [`init`].
///
/// # Errors
/// When the filter does not parse; then nothing has changed.
pub fn set_filter(filter: &str) -> Result<(), ParseError> {
    let filter = EnvFilter::try_new(filter)?;
    if let Some(set) = SET_FILTER.get() {
        set(filter);
    }
    Ok(())
}
