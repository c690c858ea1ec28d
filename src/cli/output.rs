//! What a command writes, so that it goes on hearing signals while its reader reads nothing, and ends quietly when its
//! reader has gone.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write as _};
use std::os::fd::AsFd as _;

use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;

/// A line on standard output, like `println!`, which panics when a pipe is closed.
macro_rules! say {
    ($($what:tt)*) => {
        $crate::cli::output::line(format_args!($($what)*))
    };
}
pub(super) use say;

/// Writes a line.
pub(super) fn line(what: Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = writeln!(out, "{what}").and_then(|()| out.flush())
        && error.kind() != ErrorKind::BrokenPipe
    {
        // Who has no standard error either cannot be told.
        let _untold = writeln!(std::io::stderr(), "error: standard output: {error}");
    }
}

/// In place of the line before; a terminal that has gone ends nothing.
pub(super) fn draw(line: &str) {
    let _gone = write!(std::io::stderr(), "\r\u{1b}[K{line}");
}

/// Standard output; what blocks on it is another thread.
pub(super) fn standard_output() -> std::io::Result<File> {
    let out = std::io::stdout().as_fd().try_clone_to_owned()?;
    Ok(File::from_std(out.into()))
}

/// Writes all of it. Given up half-way, some of it may be written still.
pub(super) async fn write(out: &mut File, bytes: &[u8]) -> std::io::Result<()> {
    out.write_all(bytes).await?;
    out.flush().await
}

/// Whether the reader has gone.
pub(super) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .find_map(|cause| cause.downcast_ref::<std::io::Error>())
        .is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// Whether the terminal takes no codes, for colours or anything else.
pub(super) fn is_dumb_terminal() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}
